package usherecho4

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

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
func HTTPErrorHandler(err error, c echo.Context) {
	w := c.Response()
	if w.Committed {
		usher.NoteFailure(c.Request(), w.Status, err)
		return
	}
	usher.Fail(w, c.Request(), neutral(err, w.Header()))
}

// neutral converts an error of echo into an *usher.Error, and returns any other unchanged.
func neutral(err error, h http.Header) error {
	if known(err) {
		return err
	}
	he, field := httpError(err)
	if he == nil {
		return plain(err)
	}
	f := failure{cause: err, inner: he.Internal, status: he.Code, field: field}
	switch v := he.Message.(type) {
	case string:
		f.message = v
	case error:
		f.message = v.Error()
	default: // which echo's own handler writes as the body
		f.details = v
	}
	return f.convert(h)
}

// httpError returns the error of echo in err's chain, or nil. If that is about a field
// that could not be bound, it also returns the field.
func httpError(err error) (he *echo.HTTPError, field string) {
	if be, ok := errors.AsType[*echo.BindingError](err); ok {
		return be.HTTPError, be.Field
	}
	he, ok := errors.AsType[*echo.HTTPError](err)
	if !ok {
		return nil, ""
	}
	if inner, ok := he.Internal.(*echo.HTTPError); ok { //nolint:errorlint // as echo's own handler has it
		return inner, ""
	}
	return he, ""
}

// Validator returns v for Echo.Validator, where v is a *validator.Validate of
// github.com/go-playground/validator:
//
//	e.Validator = usherecho4.Validator(validator.New())
//
// The errors are [*usher.Error], with the faulty fields named as clients know them, by the
// tags json, form, query, param and header. With another Echo.Validator,
// [HTTPErrorHandler] names fields as the validator does: as in Go, unless the program has
// called RegisterTagNameFunc.
func Validator(v interface{ Struct(in any) error }) echo.Validator { return validator{v} }
