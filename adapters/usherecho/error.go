package usherecho

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/labstack/echo/v5"

	"github.com/usher-go/usher"
)

// HTTPErrorHandler is an [echo.HTTPErrorHandler] that responds with [usher.Fail]:
// in the shape of the envelope around the request, else with problem details. It
// writes nothing if a response has been sent already; if that was a success, the
// envelope aborts the connection.
//
// The client sees the public part of an [*usher.Error]. Of an echo error the client
// receives the status and, below 500, the message; from 500 on no text of an error is
// sent. If the request could not be bound or is not valid, the client receives 400 with
// the faulty fields, and not the text that echo has for that, which has types of the
// program. So it is for the errors of Context.Bind and of
// github.com/go-playground/validator. Any other error is a 500. Header fields that echo
// and the handler have set, such as Allow, are kept.
func HTTPErrorHandler(c *echo.Context, err error) {
	w := c.Response()
	if r, _ := echo.UnwrapResponse(w); r != nil && r.Committed {
		usher.NoteFailure(c.Request(), r.Status, err)
		return
	}
	usher.Fail(w, c.Request(), neutral(err, w.Header()))
}

// committed reports whether a response has been sent already.
func committed(w http.ResponseWriter) bool {
	r, _ := echo.UnwrapResponse(w)
	return r != nil && r.Committed
}

// neutral converts an error of echo into an *usher.Error, and returns any other unchanged.
func neutral(err error, h http.Header) error {
	if known(err) {
		return err
	}
	var coder echo.HTTPStatusCoder
	if !errors.As(err, &coder) {
		return plain(err)
	}
	f := failure{cause: err, status: coder.StatusCode()}
	if v, ok := coder.(interface{ Unwrap() error }); ok {
		f.inner = v.Unwrap()
	}
	if echo.StatusCode(f.inner) == http.StatusRequestEntityTooLarge {
		// Of a limit of echo, which the binder of echo has wrapped.
		f.status = http.StatusRequestEntityTooLarge
		return f.convert(h)
	}
	switch v := coder.(type) {
	case *echo.BindingError:
		f.field, f.message = v.Field, v.Message
	case *echo.HTTPError:
		f.message = v.Message
	case json.Marshaler: // which echo's own handler writes as the body
		f.details = v
	}
	return f.convert(h)
}

// Validator returns v for Echo.Validator, where v is a *validator.Validate of
// github.com/go-playground/validator:
//
//	e.Validator = usherecho.Validator(validator.New())
//
// The errors are [*usher.Error], with the faulty fields named as clients know them, by the
// tags json, form, query, param and header. With another Echo.Validator,
// [HTTPErrorHandler] names fields as the validator does: as in Go, unless the program has
// called RegisterTagNameFunc.
func Validator(v interface{ Struct(in any) error }) echo.Validator { return validator{v} }
