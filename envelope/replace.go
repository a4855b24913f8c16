package envelope

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/telemetry"
)

// maxCollected is the maximum number of bytes that are kept of an error's body.
const maxCollected = 64 << 10

func (t *transaction) collect(p []byte) {
	if t.collected == nil {
		t.collected = newScratch()
	}
	if room := maxCollected - len(t.collected.b); len(p) > room {
		p, t.overflow = p[:room], true
	}
	t.collected.b = append(t.collected.b, p...)
}

// replace writes the error that replaces what the handler wrote. From 500 on, the
// handler's own text is the only record of what happened, and OnError gets it.
func (t *transaction) replace(w http.ResponseWriter, inner *http.Request) {
	s := newScratch()
	defer s.release()
	status := t.writer.Status()
	if t.failure != nil {
		s.b = t.appendError(s, status, t.failure)
	} else {
		message, original := t.original(status)
		resp := t.response(s, status, "", message)
		resp.Original = original
		s.b = t.env.shape.Error(s.b, resp)
	}
	if !t.isHead() {
		_, _ = w.Write(s.b)
	}
	if t.failure == nil {
		t.reportOwn(inner, status)
	}
}

// reportOwn reports an error that the handler wrote itself, so that Fail did not.
func (t *transaction) reportOwn(inner *http.Request, status int) {
	if telemetry.IsRecording(inner.Context()) {
		telemetry.NoteError(inner.Context(), status, statusCode(status))
	}
	if status < 500 {
		return
	}
	if cause := t.written(); !isAbandoned(inner, cause) {
		t.env.report(inner, &usher.Error{Status: status, Code: statusCode(status), Cause: cause})
	}
}

// isAbandoned reports whether a handler has failed because its client has disconnected, as
// far as its own text shows.
func isAbandoned(inner *http.Request, written error) bool {
	return exchange.Left(inner.Context()) && written != nil && strings.Contains(written.Error(), context.Canceled.Error())
}

// maxWritten is the maximum number of bytes of a handler's body that OnError gets.
const maxWritten = 4 << 10

// written returns an error with the text that the handler wrote, or nil.
func (t *transaction) written() error {
	if t.collected == nil {
		return nil
	}
	if t.encoded {
		return errors.New("the handler wrote an encoded body, compressed for instance")
	}
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.collected.b[:min(len(t.collected.b), maxWritten)]), "\uFFFD"))
	if text == "" {
		return nil
	}
	return errors.New("the handler wrote: " + text)
}

// original returns the part of the handler's own error that the client may see: a short
// text as the message, or valid JSON unchanged. For a status of 500 or more it returns
// nothing, as there handlers often write the errors of their database.
func (t *transaction) original(status int) (message string, body []byte) {
	if t.collected == nil || t.encoded || t.overflow || t.isShort() || status >= 500 {
		return "", nil
	}
	b := t.collected.b
	declared := t.declared
	if declared == undeclared && http.DetectContentType(b) == "text/plain; charset=utf-8" {
		declared = plainText // as the server would have detected
	}
	switch {
	case declared == plainText:
		return publicText(string(b)), nil
	case declared == plainJSON && json.Valid(b):
		return "", b
	}
	return "", nil
}

// maxText is the length of the longest text that becomes the message of an error.
const maxText = 512

// publicText returns text if it can be the message of an error: one line in any language
// that adds something to the status. Otherwise it returns "".
func publicText(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > maxText || !utf8.ValidString(text) || text == "404 page not found" {
		return ""
	}
	if strings.ContainsFunc(text, isUnsafe) {
		return ""
	}
	return text
}

// isUnsafe reports whether r is a control character, separates lines, or overrides the
// direction of the text after it.
func isUnsafe(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' ||
		'\u202A' <= r && r <= '\u202E' || '\u2066' <= r && r <= '\u2069'
}
