package envelope

import (
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

var (
	errNotFound         = &usher.Error{Status: http.StatusNotFound, Code: usher.CodeNotFound}
	errMethodNotAllowed = &usher.Error{Status: http.StatusMethodNotAllowed, Code: usher.CodeMethodNotAllowed}
)

// NotFound answers 404. It is an [http.HandlerFunc] for routers that take one.
func (e *Envelope) NotFound(w http.ResponseWriter, r *http.Request) { e.fail(w, r, errNotFound) }

// MethodNotAllowed answers 405. It is an [http.HandlerFunc] for routers that
// take one. The router must have set Allow, which RFC 9110, section 15.5.6
// requires; it is kept.
func (e *Envelope) MethodNotAllowed(w http.ResponseWriter, r *http.Request) {
	e.fail(w, r, errMethodNotAllowed)
}

// fail is usher.Fail, in the shape of e if no envelope is around r.
func (e *Envelope) fail(w http.ResponseWriter, r *http.Request, err error) {
	if transactionFrom(exchange.From(r.Context())) == nil {
		r = usher.WithResponder(r, e)
	}
	usher.Fail(w, r, err)
}

// Mux returns a handler that serves mux but answers what mux has no handler for,
// 404 and 405, in the shape of the service. It adds one more look-up to requests
// that match. Under [Config.Wrap] it is not needed.
func (e *Envelope) Mux(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		// The mux has no other way to tell which methods it would allow.
		refusal := refusal{header: make(http.Header)}
		h.ServeHTTP(&refusal, r)
		if refusal.status != http.StatusMethodNotAllowed {
			e.NotFound(w, r)
			return
		}
		if allow, ok := refusal.header["Allow"]; ok {
			w.Header()["Allow"] = allow
		}
		e.MethodNotAllowed(w, r)
	})
}

// A refusal keeps the header and the status of an answer.
type refusal struct {
	header http.Header
	status int
}

func (f *refusal) Header() http.Header       { return f.header }
func (f *refusal) WriteHeader(status int)    { f.status = status }
func (*refusal) Write(p []byte) (int, error) { return len(p), nil }
