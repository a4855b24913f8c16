// Package jsonbody reads the bodies of requests that are one JSON object, with
// answers that name what is wrong with which member.
package jsonbody

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// Invalid returns the failure that names these faults.
func Invalid(faults ...usher.Field) *usher.Error {
	return &usher.Error{
		Status:  http.StatusBadRequest,
		Code:    usher.CodeValidationFailed,
		Message: "The request is not valid.",
		Fields:  faults,
	}
}

// An Object is a JSON object of which the members are taken one by one. It
// collects what is wrong with them. Members are known by their exact names.
type Object struct {
	members map[string]json.RawMessage
	faults  []usher.Field
}

// Read reads the body of r, one JSON object of at most limit bytes and nothing
// after it. Where a body is not required, an empty one stands for an empty object.
func Read(w http.ResponseWriter, r *http.Request, limit int64, required bool) (*Object, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, err
		}
		return nil, &usher.Error{
			Status:  http.StatusBadRequest,
			Code:    usher.CodeValidationFailed,
			Message: "The request body could not be read.",
			Cause:   err,
		}
	}
	if len(body) == 0 && !required {
		return &Object{}, nil
	}
	// A browser asks before it sends this type to another origin.
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); len(body) > 0 && (err != nil || t != "application/json") {
		return nil, &usher.Error{
			Status:  http.StatusUnsupportedMediaType,
			Code:    usher.CodeUnsupportedMediaType,
			Message: "The request body must be application/json.",
		}
	}
	o := new(Object)
	// Unmarshal takes null for an empty map.
	if err := json.Unmarshal(body, &o.members); err != nil || bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return nil, &usher.Error{
			Status:  http.StatusBadRequest,
			Code:    usher.CodeValidationFailed,
			Message: "The request body must be one JSON object.",
			Cause:   err,
		}
	}
	return o, nil
}

// Optional reads a member into v and reports whether it is there. V points to a
// string, a []string, an int32, an [usher.Level], or a [time.Time], which alone may
// be null. The zero time, which other languages take for one that is not set, is a
// fault: it must not be taken for null.
func (o *Object) Optional(name string, v any) bool {
	raw, ok := o.members[name]
	if !ok {
		return false
	}
	delete(o.members, name)
	t, nullable := v.(*time.Time)
	null := string(raw) == "null"
	if err := json.Unmarshal(raw, v); err != nil || null && !nullable || nullable && !null && t.IsZero() {
		o.faults = append(o.faults, usher.Field{Name: name, Message: "'" + name + "' must be " + kind(v) + "."})
	}
	return true
}

// Required reads a member that must be there. Null counts as no value.
func (o *Object) Required(name string, v any) {
	if raw, ok := o.members[name]; !ok || string(raw) == "null" {
		delete(o.members, name)
		o.faults = append(o.faults, usher.Field{Name: name, Message: "'" + name + "' is required."})
		return
	}
	o.Optional(name, v)
}

// Fault returns what is wrong with the members, the first of those that nobody
// asked for among it.
func (o *Object) Fault() error {
	const most = 20
	for _, name := range slices.Sorted(maps.Keys(o.members)) {
		if len(o.faults) == most {
			break
		}
		o.faults = append(o.faults, usher.Field{Name: name, Message: "There is no such field."})
	}
	if len(o.faults) > 0 {
		return Invalid(o.faults...)
	}
	return nil
}

// kind says what is expected for v.
func kind(v any) string {
	switch v.(type) {
	case *[]string:
		return "a list of strings"
	case *usher.Level:
		return "none, read_only, read_write or full"
	case *int32:
		return "a whole number"
	case *string:
		return "a string"
	default:
		return "a time such as 2006-01-02T15:04:05Z, or null"
	}
}
