package ushergin

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
)

// maxCopied is how much of a request body is copied.
const maxCopied = 1 << 20

// A requestBody copies what is read from the body of a request. Errors of encoding/json do
// not say what document they are about: the copy shows whether it is the request.
type requestBody struct {
	io.ReadCloser
	text  []byte
	ended bool // whether text is the whole body
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	copied := min(n, maxCopied-len(b.text))
	b.text = append(b.text, p[:copied]...)
	b.ended = err == io.EOF && copied == n && len(b.text) < maxCopied
	return n, err
}

// bodyKey is the key of the *requestBody in a gin.Context.
type bodyKey struct{}

// copyBody makes inner handlers read a body that is copied, until the function that it
// returns is called. Files are not copied.
func copyBody(c *gin.Context) (restore func()) {
	r := c.Request
	if r.Body == nil || r.Body == http.NoBody || mediaType(r) == "multipart/form-data" {
		return func() {}
	}
	b := &requestBody{ReadCloser: r.Body}
	r.Body = b
	c.Set(bodyKey{}, b)
	return func() {
		if r.Body == b {
			r.Body = b.ReadCloser
		}
	}
}

func mediaType(r *http.Request) string {
	t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return t
}

// explained reports whether the body of the request has the fault that err describes.
func explained(c *gin.Context, err error) bool {
	v, _ := c.Get(bodyKey{})
	b, ok := v.(*requestBody)
	if !ok {
		b = new(requestBody)
	}
	var document any
	fault := json.NewDecoder(bytes.NewReader(b.text)).Decode(&document)
	switch e := err.(type) { //nolint:errorlint // an error that is wrapped may be about anything
	case *json.SyntaxError:
		// Only json.Unmarshal refuses text after the document.
		return sameFault(e, fault) || sameFault(e, json.Unmarshal(b.text, &document))
	case *json.UnmarshalTypeError:
		return fault == nil && has(document, strings.Split(e.Field, "."))
	}
	if err == io.EOF && fault == io.EOF { //nolint:errorlint // wrapped, it may be about anything
		// The connection of a database ends with it, too.
		return strings.Contains(mediaType(c.Request), "json")
	}
	if err == io.ErrUnexpectedEOF { //nolint:errorlint // the same
		return fault == err && b.ended //nolint:errorlint // of a decoder
	}
	return strings.HasPrefix(err.Error(), "json: unknown field ") && fault == nil
}

func sameFault(e *json.SyntaxError, fault error) bool {
	own, ok := fault.(*json.SyntaxError) //nolint:errorlint // of a decoder
	return ok && *own == *e
}

// has reports whether document has a member at path, which does not count lists.
func has(document any, path []string) bool {
	if len(path) == 0 || path[0] == "" {
		return true
	}
	switch v := document.(type) {
	case map[string]any:
		for name, inner := range v {
			if strings.EqualFold(name, path[0]) && has(inner, path[1:]) {
				return true
			}
		}
	case []any:
		for _, inner := range v {
			if has(inner, path) {
				return true
			}
		}
	}
	return false
}
