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
// sent. Any other error is a 500. Header fields that echo and the handler have set, such
// as Allow, are kept.
func HTTPErrorHandler(err error, c echo.Context) {
	w := c.Response()
	if w.Committed {
		usher.NoteFailure(c.Request(), w.Status, err)
		return
	}
	usher.Fail(w, c.Request(), neutral(err, w.Header()))
}

// codes are the codes of errors that have only a status.
var codes = map[int]string{
	http.StatusNotFound:              usher.CodeNotFound,
	http.StatusMethodNotAllowed:      usher.CodeMethodNotAllowed,
	http.StatusRequestEntityTooLarge: usher.CodePayloadTooLarge,
	http.StatusInternalServerError:   usher.CodeInternal,
}

// neutral converts an error of echo into an *usher.Error, and returns any other unchanged.
func neutral(err error, h http.Header) error {
	if known(err) {
		return err
	}
	he, field := httpError(err)
	if he == nil {
		return err
	}
	e := &usher.Error{Status: he.Code, Cause: err}
	if e.Status < http.StatusBadRequest {
		e.Status = http.StatusInternalServerError
	}
	if e.Status == http.StatusUnauthorized {
		e.Challenges = h["Www-Authenticate"] // of echo's BasicAuth, for instance
	}
	if e.Status < http.StatusInternalServerError {
		e.Param = field
		switch v := he.Message.(type) {
		case string:
			e.Message = v
		case error:
			e.Message = v.Error()
		default: // which echo's own handler writes as the body
			e.Details = v
		}
	}
	if e.Message == http.StatusText(e.Status) {
		e.Message = ""
	}
	if e.Message == "" {
		e.Code = codes[e.Status]
	}
	return e
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

// known reports whether usher.Fail has a response of its own for err.
func known(err error) bool {
	if _, ok := errors.AsType[*usher.Error](err); ok {
		return true
	}
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}
