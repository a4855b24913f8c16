package envelope

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/usher-go/usher"
)

// A phase is what a transaction does with the body that a handler writes.
type phase uint8

const (
	passing   phase = iota // leave it alone
	wrapping               // put it into the shape; nothing of it has come yet
	wrapped                // put it into the shape; the part before it is written
	replacing              // collect it and write an error of the shape instead
)

// Head decides what happens to the body.
func (t *transaction) Head(status int) {
	h := t.writer.Header()
	body := describe(h)
	t.phase = t.plan(status, &body)
	if t.phase != passing {
		t.reshape(h, &body)
		// Also for whoever keeps the answer in order to send it once more.
		t.x.Render(status)
		if t.outer != nil {
			t.outer.untouched.Store(true)
		}
		return
	}
	if status == http.StatusNotModified {
		t.weakenNotModified(h, body.etag)
	}
	t.writer.Detach()
}

// plan decides by the status and by what the handler says of the body.
func (t *transaction) plan(status int, body *description) phase {
	encoded := !slices.Equal(body.encoding, t.encoding) && slices.ContainsFunc(body.encoding, isEncoding)
	switch {
	case status < 200, status >= 300 && status < 400, !bodyAllowed(status), status == http.StatusPartialContent,
		t.x.Rendered() == status, t.untouched.Load(), body.trailer, encoded && status < 500:
		return passing
	}
	t.encoded = encoded // it can be replaced all the same, but not read
	wraps := t.env.shape.Before != nil
	t.declared = body.mediaType
	switch {
	case status < 300:
		if wraps && t.declared == plainJSON && !body.ranged {
			return wrapping
		}
	case t.declared == plainJSON:
		// A shape that leaves the JSON of successes alone does so with errors.
		if wraps {
			return replacing
		}
	case t.declared == plainText, t.declared == undeclared:
		return replacing
	}
	return passing
}

// reshape makes the header fit the body that the client will get.
func (t *transaction) reshape(h http.Header, body *description) {
	t.length = -1
	if body.stale {
		t.length = declaredLength(h)
		dropStale(h)
	}
	if !slices.Equal(body.encoding, t.encoding) {
		t.restoreEncoding(h)
	}
	t.nosniff[0] = "nosniff"
	h["X-Content-Type-Options"] = t.nosniff[:1:1]
	if t.phase == replacing {
		t.contentType[0] = t.env.shape.ErrorType
		h["Content-Type"] = t.contentType[:1:1]
	}
	if strings.HasPrefix(body.etag, `"`) && (t.phase == replacing || !t.env.shape.Constant) {
		// A strong tag promises the same bytes (RFC 9110, section 8.8.1).
		h["Etag"] = []string{"W/" + body.etag}
	}
}

// declaredLength returns the Content-Length in h, as the server takes it, or -1.
func declaredLength(h http.Header) int64 {
	n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// weakenNotModified makes a strong tag of a 304 weak if the client asked for a
// weak one: it got that with an answer that was wrapped.
func (t *transaction) weakenNotModified(h http.Header, etag string) {
	if !strings.HasPrefix(etag, `"`) {
		return
	}
	weak := "W/" + etag
	for _, asked := range t.request.Header["If-None-Match"] {
		if strings.Contains(asked, weak) {
			h["Etag"] = []string{weak}
			return
		}
	}
}

// Body forwards a piece of the body.
func (t *transaction) Body(inner http.ResponseWriter, p []byte) (int, error) {
	if t.offered += int64(len(p)); t.length >= 0 && t.offered > t.length {
		return 0, http.ErrContentLength // as from the server
	}
	if t.phase == replacing {
		t.collect(p)
		return len(p), nil
	}
	if t.isHead() {
		// The server would count what is written here, which is not what GET sends.
		return len(p), nil
	}
	skipped := 0
	if t.phase == wrapping {
		// Until there is more than white space there may be no data at all.
		for skipped < len(p) && isSpace(p[skipped]) {
			skipped++
		}
		if skipped == len(p) {
			return len(p), nil
		}
		t.phase = wrapped
		t.begin(inner)
	}
	n, err := inner.Write(p[skipped:])
	return skipped + n, err
}

// Release does nothing: the part before the data goes out with its first byte,
// whenever that is flushed.
func (*transaction) Release(bool) {}

// isHead reports whether the answer has no body whatever is written.
func (t *transaction) isHead() bool { return t.request.Method == http.MethodHead }

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// finish completes the answer after the handler has returned. It is never called
// after a panic, so what a failed handler left unfinished never looks whole.
func (t *transaction) finish(inner *http.Request) {
	if t.writer.Hijacked() {
		return
	}
	if t.env.wrap && t.writer.Status() == 0 {
		if body := describe(t.writer.Header()); body.mediaType != plainJSON {
			return
		}
		t.writer.WriteHeader(http.StatusOK)
	}
	if why := t.brokenOff(); why != nil {
		t.abort(inner, why)
	}
	w := t.writer.Unwrap()
	if t.phase != passing {
		// A writer that has kept the status, as gin's does, would send what a compressor
		// further in has found out when the handler returned.
		delete(w.Header(), "Content-Length")
	}
	switch {
	case t.phase == replacing:
		t.replace(w, inner)
	case t.phase == passing || t.isHead():
	case t.phase == wrapping:
		t.end(w, true)
	case t.phase == wrapped:
		t.end(w, false)
	}
	t.phase = passing
}

// brokenOff returns why a success that has been sent is not whole, or nil. An
// error needs no such care: its status says that there is nothing to rely on.
func (t *transaction) brokenOff() error {
	if why := t.x.Broken(); why != nil && t.succeeded() {
		return why
	}
	if t.phase != wrapping && t.phase != wrapped {
		return nil // the server itself sees to what passes
	}
	if status := t.writer.LateError(); status != 0 {
		return fmt.Errorf("envelope: the handler sent the status %d after %d", status, t.writer.Status())
	}
	if t.isShort() && !t.isHead() {
		return fmt.Errorf("envelope: the handler declared %d bytes and wrote %d", t.length, t.writer.Bytes())
	}
	return nil
}

// isShort reports whether the body broke off before the length that the handler
// has declared.
func (t *transaction) isShort() bool { return t.length >= 0 && t.writer.Bytes() < t.length }

// abort cuts the connection, as the server would have done: that is the only way
// to tell the client that it has not got the whole.
func (t *transaction) abort(inner *http.Request, why error) {
	t.x.Failed(http.StatusInternalServerError)
	if inner.Context().Err() == nil { // or the client has gone, and it is no fault
		t.env.report(inner, &usher.Error{
			Status: http.StatusInternalServerError, Code: usher.CodeInternal,
			Cause: fmt.Errorf("envelope: the connection is aborted, as the response had begun: %w", why),
		})
	}
	t.cut()
}

// begin writes what comes before the data.
func (t *transaction) begin(inner http.ResponseWriter) {
	s := newScratch()
	s.b = t.env.shape.Before(s.b, t.success(s))
	delete(inner.Header(), "Content-Length") // see finish
	_, _ = inner.Write(s.b)
	t.around.Store(s)
}

// end writes what comes after the data, or all of a success without any.
func (t *transaction) end(inner http.ResponseWriter, noData bool) {
	s := t.around.Swap(nil)
	if s == nil {
		s = newScratch()
		t.success(s)
	}
	defer s.release()
	s.b, s.response.NoData = s.b[:0], noData
	if noData {
		s.b = t.env.shape.Before(s.b, &s.response)
	}
	s.b = t.env.shape.After(s.b, &s.response)
	_, _ = inner.Write(s.b)
}

// success prepares a success in s.
func (t *transaction) success(s *scratch) *Response {
	if t.reply == nil {
		return t.response(s, t.writer.Status(), "", t.successMessage())
	}
	resp := t.response(s, t.writer.Status(), t.reply.Code, t.reply.Message)
	resp.Status, resp.Page = t.writer.Status(), t.reply.Page // the catalogue comes too late
	return resp
}

// maxCollected is how much of the body of an error is kept.
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

// replace writes the error that stands for what the handler wrote. From 500 on
// that is the only trace of what happened, and OnError gets it.
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
	if t.failure == nil && status >= 500 {
		t.env.report(inner, &usher.Error{Status: status, Code: statusCode(status), Cause: t.written()})
	}
	if t.collected != nil {
		t.collected.release()
		t.collected = nil
	}
}

// maxWritten is how much of what a handler wrote goes into the log.
const maxWritten = 4 << 10

// written returns what the handler wrote as its error, or nil.
func (t *transaction) written() error {
	if t.collected == nil {
		return nil
	}
	if t.encoded {
		return errors.New("the handler wrote a text that is encoded, by a compressor for instance")
	}
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.collected.b[:min(len(t.collected.b), maxWritten)]), "\uFFFD"))
	if text == "" {
		return nil
	}
	return errors.New("the handler wrote: " + text)
}

// original returns what of the handler's own error the client may see: a short
// text as the message, valid JSON as it is. Nothing that came with a status of
// 500 or more is shown: that is where handlers write what their database said.
func (t *transaction) original(status int) (message string, body []byte) {
	if t.collected == nil || t.encoded || t.overflow || t.isShort() || status >= 500 {
		return "", nil
	}
	b := t.collected.b
	declared := t.declared
	if declared == undeclared && http.DetectContentType(b) == "text/plain; charset=utf-8" {
		declared = plainText // as the server would have found
	}
	switch {
	case declared == plainText:
		return publicText(string(b)), nil
	case declared == plainJSON && json.Valid(b):
		return "", b
	}
	return "", nil
}

// maxText is the longest text of a handler that becomes the message of an error.
const maxText = 512

// publicText returns text if it can be the message of an error: one line of
// printable text that says more than the status does.
func publicText(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > maxText || !utf8.ValidString(text) || text == "404 page not found" {
		return ""
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return text
}

// A description is what a header says of the body.
type description struct {
	mediaType mediaType
	etag      string   // the one entity tag, or ""
	stale     bool     // there are fields for dropStale
	encoding  []string // such as gzip
	ranged    bool     // it is a part
	trailer   bool     // there are fields to follow it
}

// describe goes through the header once, which costs less than to look up every
// name.
func describe(h http.Header) description {
	d := description{mediaType: undeclared}
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		switch name {
		case "Content-Type":
			d.mediaType = mediaTypeOf(values[0])
		case "Etag":
			if len(values) == 1 {
				d.etag = values[0]
			}
		case "Content-Encoding":
			d.encoding = values
		case "Content-Range":
			d.ranged = true
		case "Trailer":
			d.trailer = true
		default:
			d.stale = d.stale || isStale(name)
		}
	}
	return d
}

func isEncoding(v string) bool { return v != "" && !strings.EqualFold(v, "identity") }

// A mediaType is what matters here of a Content-Type.
type mediaType uint8

const (
	other      mediaType = iota
	plainJSON            // application/json in UTF-8
	plainText            // text/plain
	undeclared           // no Content-Type
)

func mediaTypeOf(contentType string) mediaType {
	switch contentType {
	case "application/json", "application/json; charset=utf-8":
		return plainJSON
	}
	name, params, _ := strings.Cut(contentType, ";")
	switch name = strings.TrimSpace(name); {
	case strings.EqualFold(name, "application/json"):
		// Only what is ASCII where JSON is ASCII can be put between other bytes.
		if params = strings.ToLower(params); strings.Contains(params, "charset") && !strings.Contains(params, "utf-8") {
			return other
		}
		return plainJSON
	case strings.EqualFold(name, "text/plain"):
		return plainText
	}
	return other
}
