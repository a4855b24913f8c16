package usherecho

import (
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/malformed"
)

// This file does not import echo: go generate copies it to the adapter of the other version.

//go:generate go test -run TestSharedFile -update

// codes are the codes of errors that have only a status.
var codes = map[int]string{
	http.StatusNotFound:              usher.CodeNotFound,
	http.StatusMethodNotAllowed:      usher.CodeMethodNotAllowed,
	http.StatusRequestEntityTooLarge: usher.CodePayloadTooLarge,
	http.StatusInternalServerError:   usher.CodeInternal,
}

// A failure is what an error of echo says.
type failure struct {
	cause   error
	inner   error // what the error of echo wraps
	status  int
	message string
	field   string // that could not be bound
	details any
}

// convert returns the *usher.Error for f, whose response has the header h.
func (f *failure) convert(h http.Header) *usher.Error {
	if f.status < http.StatusBadRequest {
		f.status = http.StatusInternalServerError
	}
	if f.message == http.StatusText(f.status) || f.status >= http.StatusInternalServerError {
		f.message = ""
	}
	e := &usher.Error{Status: f.status, Message: f.message, Cause: f.cause}
	switch f.status {
	case http.StatusUnauthorized:
		e.Challenges = h["Www-Authenticate"] // of echo's BasicAuth, for instance
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		f.explain(e)
	}
	if f.status < http.StatusInternalServerError {
		e.Details = f.details
	}
	if e.Message == "" && e.Code == "" {
		e.Code = codes[e.Status]
	}
	return e
}

// explain adds to e what is wrong with the request, if f is about that.
func (f *failure) explain(e *usher.Error) {
	own := f.message != "" && !f.technical()
	invalid, known := malformed.Of(f.cause, nil)
	switch {
	case f.field != "":
		e.Param = f.field
		message := f.message
		if !own {
			message = "'" + f.field + "' " + expected(f.message) + "."
		}
		invalid = usher.Invalid(usher.Field{Name: f.field, Message: message})
	case known:
	case f.inner != nil && !own:
		// The binder of echo has an error of strconv or the like, without the field.
		invalid = usher.Invalid()
	default:
		return
	}
	e.Code, e.Fields = invalid.Code, invalid.Fields
	if !own {
		e.Message = invalid.Message
	}
}

// bound is how the messages of echo for a field begin that cannot be bound.
const bound = "failed to bind field value to "

// technical reports whether the message is one of echo's own for what cannot be bound, with
// types and errors of the program.
func (f *failure) technical() bool {
	if f.inner != nil && strings.Contains(f.message, f.inner.Error()) {
		return true
	}
	for _, begin := range [...]string{bound, "Unmarshal type error: ", "Syntax error: ", "Unsupported type error: "} {
		if strings.HasPrefix(f.message, begin) {
			return true
		}
	}
	switch f.message {
	case "required field value is empty", "path value", "query param", "query params", "form value", "form values":
		return f.field != ""
	}
	return false
}

// expected describes what a field must be that echo could not bind, for clients.
func expected(message string) string {
	kind, _ := strings.CutPrefix(message, bound)
	switch {
	case message == "required field value is empty":
		return "is required"
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "must be an integer"
	case strings.HasPrefix(kind, "float"):
		return "must be a number"
	case kind == "bool":
		return "must be a boolean"
	}
	return "is not valid"
}

// known reports whether usher.Fail has a response of its own for err.
func known(err error) bool {
	if _, ok := errors.AsType[*usher.Error](err); ok {
		return true
	}
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}

// plain returns the error for err, which is none of echo: that of package malformed if err
// is of github.com/go-playground/validator. Errors of encoding/json that echo's binder has
// not wrapped may be about the document of another server.
func plain(err error) error {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		list := reflect.ValueOf(inner)
		if list.Kind() != reflect.Slice || list.Len() == 0 {
			continue
		}
		if _, ok := reflect.TypeAssert[interface{ StructNamespace() string }](list.Index(0)); !ok {
			continue
		}
		if e, ok := malformed.Of(inner, nil); ok {
			e.Cause = err
			return e
		}
	}
	return err
}

// A structs is a *validator.Validate, for instance.
type structs interface{ Struct(in any) error }

type validator struct{ structs }

func (v validator) Validate(in any) error {
	err := v.Struct(in)
	if e, ok := malformed.Of(err, in); ok {
		return e
	}
	return err
}

// flushing returns w if it can flush, else w with a Flush that does nothing, as in
// net/http. Without one, echo.Response would panic.
func flushing(w http.ResponseWriter) http.ResponseWriter {
	for inner := w; ; {
		switch v := inner.(type) {
		case http.Flusher, interface{ FlushError() error }:
			return w
		case interface{ Unwrap() http.ResponseWriter }:
			inner = v.Unwrap()
		default:
			return unflushed{w}
		}
	}
}

type unflushed struct{ http.ResponseWriter }

func (unflushed) Flush() {}

// Unwrap is for http.ResponseController.
func (u unflushed) Unwrap() http.ResponseWriter { return u.ResponseWriter }
