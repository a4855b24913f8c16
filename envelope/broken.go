package envelope

import (
	"fmt"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// brokenOff returns why a success that has been sent is incomplete, or nil. An error
// needs no such check: a client does not rely on its body.
func (t *transaction) brokenOff() error {
	if why := t.x.Broken(); why != nil && t.succeeded() {
		return why
	}
	if t.phase != wrapping && t.phase != wrapped && t.phase != unwrapped {
		return nil // the server checks a body that passes unchanged
	}
	if status := t.writer.LateError(); status != 0 {
		return fmt.Errorf("the handler sent the status %d after %d", status, t.writer.Status())
	}
	if t.isShort() && !t.isHead() {
		return fmt.Errorf("the handler declared %d bytes and wrote %d", t.length, t.writer.Bytes())
	}
	if t.isOpen() {
		return fmt.Errorf("the JSON begins with %q and ends with %q", t.opening, t.closing)
	}
	return nil
}

// noteClosing notes the last byte of p that is not white space.
func (t *transaction) noteClosing(p []byte) {
	for i := len(p); i > 0; i-- {
		if !isSpace(p[i-1]) {
			t.closing = p[i-1]
			return
		}
	}
}

// isOpen reports whether the data is an object, an array or a string without its end.
func (t *transaction) isOpen() bool {
	switch t.opening {
	case '{':
		return t.closing != '}'
	case '[':
		return t.closing != ']'
	case '"':
		return t.closing != '"'
	}
	return false
}

// isShort reports whether the body is shorter than the handler declared.
func (t *transaction) isShort() bool { return t.length >= 0 && t.writer.Bytes() < t.length }

// abort cuts the connection, as the server would have done: nothing else can show the
// client that the response is incomplete.
func (t *transaction) abort(inner *http.Request, why error) {
	if !exchange.Left(inner.Context()) { // a client that has gone is no fault
		t.env.report(inner, &usher.Error{
			Status: http.StatusInternalServerError, Code: usher.CodeInternal,
			Cause: fmt.Errorf("the connection is aborted, as the response had begun: %w", why),
		})
	}
	t.cut(http.ErrAbortHandler)
}
