// Package jsonbody reads request bodies that are one JSON object, and reports the faults
// of each member.
package jsonbody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"time"
)

// A Field is an usher.Field. Internal packages do not import usher, so its fields are
// repeated here.
type Field interface {
	~struct {
		Name    string `json:"field"`
		Message string `json:"message"`
	}
}

// An Error is the reason why a body is not one JSON object. Its message is public.
type Error struct {
	Status  int // 400 or 415
	Message string
	Cause   error // private, may be nil
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s", e.Status, e.Message) }
func (e *Error) Unwrap() error { return e.Cause }

// An Object is a JSON object whose members are read one by one. It collects their faults.
// The names of members are case-sensitive.
type Object[F Field] struct {
	members map[string]json.RawMessage
	faults  []F
}

// Read reads the body of r, one JSON object of at most limit bytes and nothing after it.
// Unless required is set, an empty body means an empty object. The error is an [*Error]
// or an [*http.MaxBytesError].
func Read[F Field](w http.ResponseWriter, r *http.Request, limit int64, required bool) (*Object[F], error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, err
		}
		return nil, &Error{http.StatusBadRequest, "The request body could not be read.", err}
	}
	if len(body) == 0 && !required {
		return &Object[F]{}, nil
	}
	// A browser sends this type to another origin only after a preflight.
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); len(body) > 0 && (err != nil || t != "application/json") {
		return nil, &Error{http.StatusUnsupportedMediaType, "The request body must be application/json.", nil}
	}
	o := new(Object[F])
	// Unmarshal accepts null and leaves the map nil.
	if err := json.Unmarshal(body, &o.members); err != nil || bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return nil, &Error{http.StatusBadRequest, "The request body must be one JSON object.", err}
	}
	return o, nil
}

// Optional reads a member into v and reports whether it is present. v points to a string,
// a []string, an int32, or a [time.Time]; only a time may be null. The zero time, which
// other languages use for a time that is not set, is a fault: it must not become null.
func (o *Object[F]) Optional(name string, v any) bool { return o.OptionalAs(name, v, kind(v)) }

// OptionalAs is Optional for a v of any type; kind describes its JSON.
func (o *Object[F]) OptionalAs(name string, v any, kind string) bool {
	raw, ok := o.members[name]
	if !ok {
		return false
	}
	delete(o.members, name)
	t, nullable := v.(*time.Time)
	null := string(raw) == "null"
	if err := json.Unmarshal(raw, v); err != nil || null && !nullable || nullable && !null && t.IsZero() {
		o.fault(name, "'"+name+"' must be "+kind+".")
	}
	return true
}

// Required reads a member that must be present and not null.
func (o *Object[F]) Required(name string, v any) {
	if raw, ok := o.members[name]; !ok || string(raw) == "null" {
		delete(o.members, name)
		o.fault(name, "'"+name+"' is required.")
		return
	}
	o.Optional(name, v)
}

func (o *Object[F]) fault(name, message string) {
	o.faults = append(o.faults, F{Name: name, Message: message})
}

// Faults returns the faults of the members, including the first unknown ones.
func (o *Object[F]) Faults() []F {
	const most = 20
	for _, name := range slices.Sorted(maps.Keys(o.members)) {
		if len(o.faults) == most {
			break
		}
		o.fault(name, "There is no such field.")
	}
	return o.faults
}

// kind describes the JSON for v.
func kind(v any) string {
	switch v.(type) {
	case *[]string:
		return "a list of strings"
	case *int32:
		return "a whole number"
	case *string:
		return "a string"
	default:
		return "a time such as 2006-01-02T15:04:05Z, or null"
	}
}
