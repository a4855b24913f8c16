// Package jsonbody reads request bodies that are one JSON object, and reports the faults
// of each member.
package jsonbody

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/internal/origin"
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
	Status  int // 400, 403 or 415
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

// An Empty says what a body without a single byte means.
type Empty int

const (
	// EmptyRefused refuses an empty body.
	EmptyRefused Empty = iota
	// EmptyObject takes it for an object without members, whichever page sends it. The
	// caller decides which pages may.
	EmptyObject
	// EmptySameOrigin takes it for an object without members, but refuses with 403 what a
	// page of another origin can make a browser send without a preflight.
	EmptySameOrigin
)

// Read reads the body of r, one JSON object of at most limit bytes and nothing after it.
// Text that parsers read differently is refused: a name that occurs twice in an object,
// invalid UTF-8 and unpaired surrogates. So is the character NUL, which many stores
// cannot keep. The error is an [*Error] or an [*http.MaxBytesError].
func Read[F Field](w http.ResponseWriter, r *http.Request, limit int64, empty Empty) (*Object[F], error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, err
		}
		return nil, &Error{http.StatusBadRequest, "The request body could not be read.", err}
	}
	// A browser sends this type to another origin only after a preflight.
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	typed := err == nil && t == "application/json"
	switch {
	case len(body) == 0 && empty == EmptySameOrigin && !typed:
		if err := origin.Check(sameOrigin, r); err != nil {
			return nil, &Error{http.StatusForbidden, "A page of another origin must send this as application/json.", err}
		}
		return &Object[F]{}, nil
	case len(body) == 0 && empty != EmptyRefused:
		return &Object[F]{}, nil
	case len(body) > 0 && !typed:
		return nil, &Error{http.StatusUnsupportedMediaType, "The request body must be application/json.", nil}
	}
	text, members, err := jose.ParseObject(nil, body)
	if err != nil {
		return nil, &Error{http.StatusBadRequest, "The request body must be one JSON object in valid Unicode, with each name once.", err}
	}
	if hasNUL(text) {
		return nil, &Error{http.StatusBadRequest, "The request body must not contain the character NUL.", nil}
	}
	o := &Object[F]{members: make(map[string]json.RawMessage, len(members))}
	for _, m := range members {
		o.members[m.Name] = json.RawMessage(m.Value)
	}
	return o, nil
}

// sameOrigin trusts no other origin.
var sameOrigin = http.NewCrossOriginProtection()

// hasNUL reports whether a string in a JSON text has the character NUL, which can only be
// there as an escape.
func hasNUL(text string) bool {
	for {
		_, escape, found := strings.Cut(text, `\`)
		if !found || strings.HasPrefix(escape, "u0000") {
			return found
		}
		text = escape[1:] // valid JSON does not end after a backslash
	}
}

// Optional reads a member into v and reports whether it is present. v points to a string,
// a []string, a bool, an int32, or a [time.Time]; only a time may be null. The zero time, which
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
	case *bool:
		return "true or false"
	case *int32:
		return "a whole number"
	case *string:
		return "a string"
	default:
		return "a time such as 2006-01-02T15:04:05Z, or null"
	}
}
