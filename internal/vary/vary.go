// Package vary marks responses for the caches between a client and this server, by Vary
// (RFC 9110, section 12.5.5) and Cache-Control (RFC 9111, section 5.2.2), so that none
// reuses the response of another caller.
package vary

import (
	"bufio"
	"cmp"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/usher-go/usher/internal/httpwriter"
)

// Fields are the names of the request header fields that a response depends on. They do
// not change. Nil means none.
type Fields struct {
	names []string
	value string // of Vary
}

// anything means that the response depends on more than header fields, so that no cache
// can find an equal request.
const anything = "*"

// On returns the Fields with these names. "*" among them means that the response depends
// on more than header fields.
func On(names []string) *Fields {
	if len(names) == 0 {
		return nil
	}
	if slices.Contains(names, anything) {
		names = []string{anything}
	}
	return &Fields{names, strings.Join(names, ", ")}
}

// missing returns the names in f that are not in values, which are those of Vary.
func (f *Fields) missing(values []string) (names []string) {
	for _, name := range f.names {
		if !listed(values, name) {
			names = append(names, name)
		}
	}
	return names
}

func listed(values []string, name string) bool {
	for _, v := range values {
		for member := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.Trim(member, " \t"), name) {
				return true
			}
		}
	}
	return false
}

// A Writer completes the header of a response when the response is sent, so that what the
// handler has set, added or deleted is neither lost nor contradicted. Its zero value
// needs Start.
type Writer struct {
	writer  passing
	fields  *Fields
	private bool
	values  [2]string // of the fields that are set
}

// A Caller is what the writer knows about the caller. The zero Caller is anonymous.
type Caller struct {
	// Private means that the response is for this caller alone. It then has Cache-Control:
	// private unless the handler sets a Cache-Control of its own.
	Private bool
	// OnUse, if not nil, is called once: when the handler first flushes or hijacks, or by
	// End.
	OnUse func(r *http.Request, status int)
}

// Start returns the writer for a handler whose response to r depends on fields and is for
// this caller.
func (w *Writer) Start(inner http.ResponseWriter, r *http.Request, fields *Fields, c Caller) http.ResponseWriter {
	w.fields, w.private = fields, c.Private
	w.writer.Init(inner, (*hook)(w))
	w.writer.SetRequest(r)
	w.writer.onUse = c.OnUse
	return &w.writer
}

// passing is the writer that a handler gets.
type passing struct {
	httpwriter.Writer
	onUse func(r *http.Request, status int) // nil once it is called
}

// use calls onUse if it was not called yet.
func (p *passing) use(status int) {
	if onUse := p.onUse; onUse != nil {
		p.onUse = nil
		onUse(p.Request(), status)
	}
}

// Flush implements http.Flusher.
func (p *passing) Flush() { _ = p.FlushError() }

// FlushError is for http.ResponseController.
func (p *passing) FlushError() error {
	if p.onUse != nil && !p.Hijacked() {
		if p.Status() == 0 {
			p.WriteHeader(http.StatusOK)
		}
		p.use(p.Status())
	}
	return p.Writer.FlushError()
}

// Hijack implements http.Hijacker.
func (p *passing) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := p.Writer.Hijack()
	if err == nil {
		p.use(cmp.Or(p.Status(), http.StatusSwitchingProtocols))
	}
	return conn, rw, err
}

// Passes reports whether w is a writer that [Writer.Start] returned, and leads to outer
// through such writers alone. They do not depend on the response.
func Passes(w, outer http.ResponseWriter) bool {
	for {
		p, ok := w.(*passing)
		if !ok {
			return false
		}
		w = p.Unwrap()
		// Comparing writers that are not pointers could panic.
		if reflect.ValueOf(w).Comparable() && w == outer {
			return true
		}
	}
}

// End completes the header if the handler has not sent it. The server or an outer handler
// will, with the status unwritten as far as is known.
func (w *Writer) End(unwritten int) {
	status := w.writer.Status()
	if status == 0 && !w.writer.Hijacked() {
		w.complete(w.writer.Header())
	}
	w.writer.use(cmp.Or(status, unwritten))
}

func (w *Writer) complete(h http.Header) {
	if w.private && len(h["Cache-Control"]) == 0 {
		w.values[0] = "private"
		h["Cache-Control"] = w.values[:1:1]
	}
	if w.fields == nil {
		return
	}
	given, value := h["Vary"], w.fields.value
	if value != anything && len(given) > 0 {
		missing := w.fields.missing(given)
		switch {
		case listed(given, anything):
			value = anything
		case missing == nil && len(given) == 1:
			return
		default:
			value = strings.Join(append(slices.Clip(given), missing...), ", ")
		}
	}
	// One line, as nginx before 1.23 reads only the last, and "*" without any
	// name, as neither nginx nor Varnish finds it in a list.
	w.values[1] = value
	h["Vary"] = w.values[1:2:2]
}

// A hook is a Writer with the methods of [httpwriter.Hook], which handlers do not see.
type hook Writer

// Head implements [httpwriter.Hook].
func (k *hook) Head(int) {
	w := (*Writer)(k)
	w.writer.Detach()
	w.complete(w.writer.Header())
}

// Body implements [httpwriter.Hook].
func (*hook) Body(inner http.ResponseWriter, p []byte) (int, error) { return inner.Write(p) }

// Release implements [httpwriter.Hook].
func (*hook) Release(bool) {}
