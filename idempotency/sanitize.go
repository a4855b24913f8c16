package idempotency

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/unrendered"
)

var (
	errSanitizedStatus = errors.New("the status was changed, which would make another response of it")
	errSanitizedLength = errors.New("the body is longer than MaxResponse, or belongs to a status that has none")
	errSanitizedBody   = errors.New("the body is no longer the JSON that an envelope can send")
)

// sanitized returns the result that stores what [Config.Sanitize] makes of the response
// that is collected. If it keeps nothing, panics or returns nonsense, nothing of the
// response is stored but its status.
func (e *Execution) sanitized(form *unrendered.Form) Result {
	c := &e.response
	collected := readUnsealed(c.buffer.b)
	if form != nil {
		collected.body = form.Body(collected.body)
	}
	resp := collected.response()
	if err := e.sanitize(resp, form, collected.body); err != nil {
		e.m.failures.Error(e.request.Context(), fmt.Errorf("idempotency: Config.Sanitize: %w", err))
		return e.resultWithoutResponse(Forget, c.status)
	}
	if resp.Status == 0 {
		return e.resultWithoutResponse(Forget, c.status)
	}
	c.payload = newBuffer()
	b := appendHead(c.payload.b, resp.Status, resp.Header, e.m.keptHeaders, nil)
	if form != nil {
		b = appendForm(b, form)
	}
	c.payload.b = append(b, resp.Body...)
	return e.resultOf(c.payload.b)
}

// sanitize calls [Config.Sanitize] with resp, whose body was that given, and checks what it
// has made of it.
func (e *Execution) sanitize(resp *Response, form *unrendered.Form, body []byte) error {
	status := resp.Status
	err := guard.Run(func() error {
		e.m.config.Sanitize(&e.request, resp)
		return nil
	})
	switch {
	case err != nil || resp.Status == 0:
		return err
	case resp.Status != status:
		return errSanitizedStatus
	case len(resp.Body) > e.m.config.MaxResponse, len(resp.Body) > 0 && !bodyAllowed(status):
		return errSanitizedLength
	case form != nil && !bytes.Equal(resp.Body, body) && !form.SetBody(resp.Body):
		return errSanitizedBody
	}
	return nil
}
