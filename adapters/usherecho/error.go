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
// sent. Any other error is a 500. Header fields that echo and the handler have set, such
// as Allow, are kept.
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
	var coder echo.HTTPStatusCoder
	if !errors.As(err, &coder) {
		return err
	}
	e := &usher.Error{Status: coder.StatusCode(), Cause: err}
	if e.Status < http.StatusBadRequest {
		e.Status = http.StatusInternalServerError
	}
	if e.Status == http.StatusUnauthorized {
		e.Challenges = h["Www-Authenticate"] // of echo's BasicAuth, for instance
	}
	if e.Status < http.StatusInternalServerError {
		switch v := coder.(type) {
		case *echo.BindingError:
			e.Param, e.Message = v.Field, v.Message
		case *echo.HTTPError:
			e.Message = v.Message
		case json.Marshaler: // which echo's own handler writes as the body
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

// known reports whether usher.Fail has a response of its own for err.
func known(err error) bool {
	if _, ok := errors.AsType[*usher.Error](err); ok {
		return true
	}
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}
