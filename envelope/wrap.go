package envelope

import (
	"maps"
	"net/http"
	"slices"
)

// A phase is how a transaction treats the body that a handler writes.
type phase uint8

const (
	passing   phase = iota // forward it unchanged
	wrapping               // put it into the shape; no byte has been written yet
	wrapped                // put it into the shape; what comes before the data is written
	unwrapped              // forward it unchanged, as it is not JSON but for its type
	replacing              // collect it and write an error of the shape instead
	undecided              // replace it if it is empty; the status has not been sent
	refusing               // drop it and write an error with another status
)

// Head decides how to treat the body.
func (t *transaction) Head(status int) {
	h := t.writer.Header()
	t.setID(h)
	if !t.env.wrap {
		t.writer.Detach()
		return
	}
	body := describe(h)
	t.phase = t.plan(status, &body)
	if t.phase != passing && t.exempt(status) {
		t.phase = passing
		t.leaveUntouched()
	}
	switch t.phase {
	case passing:
		if status == http.StatusNotModified {
			t.markNotModified(h, body.etag)
		}
		t.writer.Detach()
	case undecided:
		t.collected = newScratch()
		t.collected.header = maps.Clone(h)
		t.writer.Defer()
	case refusing:
		t.writer.Defer()
	default:
		t.takeOver(h, status, &body)
	}
}

// takeOver prepares a response that is put into the shape.
func (t *transaction) takeOver(h http.Header, status int, body *description) {
	t.reshape(h, status, body)
	// Middlewares that store responses for replay read this mark.
	t.x.Render(status)
	if t.outer != nil {
		t.outer.untouched.Store(true)
	}
}

// pass forwards the response that was undecided.
func (t *transaction) pass() {
	t.phase = passing
	t.writer.Resume()
	t.restoreHeader()
	t.writer.Unwrap().WriteHeader(t.writer.Status())
	t.writer.Detach()
}

// restoreHeader undoes what was set after the status, which is too late.
func (t *transaction) restoreHeader() {
	h := t.writer.Header()
	clear(h)
	maps.Copy(h, t.collected.header)
}

// plan returns the phase for the status and for what the header states about the body.
func (t *transaction) plan(status int, body *description) phase {
	encoded := !slices.Equal(body.encoding, t.announced()) && slices.ContainsFunc(body.encoding, isEncoding)
	switch {
	case status < 200, status >= 300 && status < 400, !bodyAllowed(status),
		t.x.Rendered(status), t.untouched.Load(), body.trailer, encoded && status < 500:
		return passing
	}
	t.encoded = encoded // an encoded body can be replaced, but not read
	wraps := t.env.shape.Before != nil
	t.declared = body.mediaType
	switch {
	case status == http.StatusPartialContent:
		if wraps && t.isPart(body) {
			return refusing
		}
	case status < 300:
		if wraps && t.declared == plainJSON && body.contentRange == "" && !body.attachment {
			return wrapping
		}
	case t.declared == plainJSON:
		if wraps {
			return replacing
		}
		// A shape with bare successes leaves JSON errors unchanged, too.
		if !t.isHead() {
			return undecided
		}
	case t.declared == plainText, t.declared == undeclared:
		return replacing
	}
	return passing
}

// Body forwards a piece of the body.
func (t *transaction) Body(inner http.ResponseWriter, p []byte) (int, error) {
	switch {
	case t.phase == refusing, t.phase == undecided && len(p) == 0:
		return len(p), nil
	case t.phase == undecided:
		t.pass()
		return inner.Write(p)
	}
	if t.offered += int64(len(p)); t.length >= 0 && t.offered > t.length {
		return 0, http.ErrContentLength // as the server does
	}
	if t.phase == replacing {
		t.collect(p)
		return len(p), nil
	}
	if t.isHead() {
		// From p the server would derive a Content-Length, which differs from that of GET.
		return len(p), nil
	}
	switch t.phase {
	case wrapping:
		return t.beginData(inner, p)
	case wrapped:
		t.noteClosing(p)
	}
	return inner.Write(p)
}

// beginData forwards a piece of the body until the data has begun: white space alone waits, and
// what begins no JSON value is forwarded without the shape.
func (t *transaction) beginData(inner http.ResponseWriter, p []byte) (int, error) {
	space := 0
	for space < len(p) && isSpace(p[space]) {
		space++
	}
	switch {
	case space == len(p):
		t.collect(p)
		return len(p), nil
	case beginsJSON(p[space:]):
		t.phase = wrapped
		t.opening = p[space]
		t.begin(inner)
		t.noteClosing(p)
		n, err := inner.Write(p[space:])
		return space + n, err
	}
	t.phase = unwrapped
	if t.collected != nil {
		_, _ = inner.Write(t.collected.b)
	}
	return inner.Write(p)
}

// Release leaves what comes before the data to the first byte of the data, whenever that
// is flushed.
func (t *transaction) Release(bool) {
	if t.phase == undecided {
		t.pass()
	}
}

// finish completes the response after the handler has returned. It is not called after a
// panic, so the unfinished response of a failed handler never looks complete.
func (t *transaction) finish(inner *http.Request) {
	if t.writer.Hijacked() {
		return
	}
	if t.writer.Status() == 0 {
		h := t.writer.Header()
		t.setID(h)
		if t.env.wrap {
			if describe(h).mediaType != plainJSON {
				return
			}
			t.writer.WriteHeader(http.StatusOK)
		}
	}
	if why := t.brokenOff(); why != nil {
		t.abort(inner, why)
	}
	w := t.writer.Unwrap()
	if t.phase != passing {
		// An inner compressor may have set it when the handler returned, and a writer
		// that delays the status, as gin's does, would send it.
		delete(w.Header(), "Content-Length")
	}
	switch {
	case t.phase == undecided:
		t.phase = replacing
		t.restoreHeader()
		body := describe(w.Header())
		t.takeOver(w.Header(), t.writer.Status(), &body)
		w.WriteHeader(t.writer.Status())
		t.replace(w, inner)
	case t.phase == replacing:
		t.replace(w, inner)
	case t.phase == refusing:
		t.refusePart(w)
	case t.phase == passing || t.isHead():
	case t.phase == wrapping:
		t.end(w, true)
	case t.phase == wrapped:
		t.end(w, false)
	}
	t.phase = passing
	if t.collected != nil {
		t.collected.release()
		t.collected = nil
	}
}

// begin writes what comes before the data.
func (t *transaction) begin(inner http.ResponseWriter) {
	s := newScratch()
	s.b = t.env.shape.Before(s.b, t.success(s))
	delete(inner.Header(), "Content-Length") // see finish
	_, _ = inner.Write(s.b)
	t.around.Store(s)
}

// end writes what comes after the data, or a whole success without data.
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
	resp.Status, resp.Page = t.writer.Status(), t.reply.Page // the status has been sent
	return resp
}
