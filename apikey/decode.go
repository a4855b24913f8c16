package apikey

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

// A decoder takes the members of a JSON object one by one and collects what is
// wrong with them. Members are known by their exact names.
type decoder struct {
	members map[string]json.RawMessage
	faults  []usher.Field
}

// decode reads the body of a request, one JSON object and nothing after it.
// Where a body is not required, an empty one stands for an empty object.
func (h *handler) decode(c *call, required bool) (*decoder, error) {
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, h.MaxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, err
		}
		return nil, &usher.Error{
			Status:  http.StatusBadRequest,
			Code:    codeValidationFailed,
			Message: "The request body could not be read.",
			Cause:   err,
		}
	}
	if len(body) == 0 && !required {
		return &decoder{}, nil
	}
	// A browser asks before it sends this type to another origin.
	if t, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); len(body) > 0 && (err != nil || t != "application/json") {
		return nil, &usher.Error{
			Status:  http.StatusUnsupportedMediaType,
			Code:    "unsupported_media_type",
			Message: "The request body must be application/json.",
		}
	}
	d := new(decoder)
	// Unmarshal takes null for an empty map.
	if err := json.Unmarshal(body, &d.members); err != nil || bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return nil, &usher.Error{
			Status:  http.StatusBadRequest,
			Code:    codeValidationFailed,
			Message: "The request body must be one JSON object.",
			Cause:   err,
		}
	}
	return d, nil
}

// optional reads a member into v and reports whether it is there.
func (d *decoder) optional(name string, v any) bool {
	raw, ok := d.members[name]
	if !ok {
		return false
	}
	delete(d.members, name)
	_, nullable := v.(*time.Time)
	if err := json.Unmarshal(raw, v); err != nil || string(raw) == "null" && !nullable {
		d.faults = append(d.faults, usher.Field{Name: name, Message: "'" + name + "' must be " + kind(v) + "."})
	}
	return true
}

// required reads a member that must be there. Null counts as no value.
func (d *decoder) required(name string, v any) {
	if raw, ok := d.members[name]; !ok || string(raw) == "null" {
		delete(d.members, name)
		d.faults = append(d.faults, usher.Field{Name: name, Message: "'" + name + "' is required."})
		return
	}
	d.optional(name, v)
}

// fault returns what is wrong with the members, the first of those that nobody
// asked for among it.
func (d *decoder) fault() error {
	const most = 20
	for _, name := range slices.Sorted(maps.Keys(d.members)) {
		if len(d.faults) == most {
			break
		}
		d.faults = append(d.faults, usher.Field{Name: name, Message: "There is no such field."})
	}
	if len(d.faults) > 0 {
		return invalid(d.faults...)
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
