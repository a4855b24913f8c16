package adaptertest

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/usher-go/usher"
)

// NetHTTP is a [Context] without Progress, for routers whose handlers are those of
// net/http. The Context of such a router embeds NetHTTP, adds Progress, and replaces
// Param if the router has another way to read parameters.
type NetHTTP struct {
	W http.ResponseWriter
	R *http.Request
}

// Request returns R.
func (c *NetHTTP) Request() *http.Request { return c.R }

// Writer returns W.
func (c *NetHTTP) Writer() http.ResponseWriter { return c.W }

// Principal calls [usher.PrincipalFrom].
func (c *NetHTTP) Principal() (usher.Principal, bool) { return usher.PrincipalFrom(c.R.Context()) }

// Param returns [http.Request.PathValue].
func (c *NetHTTP) Param(name string) string { return c.R.PathValue(name) }

// JSON writes v.
func (c *NetHTTP) JSON(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Blob(status, "application/json", b)
}

// String writes text.
func (c *NetHTTP) String(status int, text string) error {
	return c.Blob(status, "text/plain; charset=utf-8", []byte(text))
}

// Blob writes a body.
func (c *NetHTTP) Blob(status int, mediaType string, body []byte) error {
	c.W.Header().Set("Content-Type", mediaType)
	c.W.WriteHeader(status)
	_, err := c.W.Write(body)
	return err
}

// Status sends only a status.
func (c *NetHTTP) Status(status int) error {
	c.W.WriteHeader(status)
	return nil
}

// File serves a file.
func (c *NetHTTP) File(path string) error {
	http.ServeFile(c.W, c.R, path)
	return nil
}

// Stream flushes after every step.
func (c *NetHTTP) Stream(step func(io.Writer) bool) error {
	for step(c.W) {
		if err := http.NewResponseController(c.W).Flush(); err != nil {
			return err
		}
	}
	return nil
}

// Fail is [http.Error].
func (c *NetHTTP) Fail(status int) error {
	http.Error(c.W, http.StatusText(status), status)
	return nil
}

// Return returns err. A net/http handler has no caller to return it to.
func (c *NetHTTP) Return(err error) error { return err }
