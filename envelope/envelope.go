package envelope

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/telemetry"
)

// An Envelope writes the responses of a service in one shape. It is an
// [usher.Middleware], and the [usher.Responder] of the requests that pass through it.
// It is immutable and safe for concurrent use.
type Envelope struct {
	shape      Shape
	catalogue  Catalogue
	wrap       bool
	untouched  func(*http.Request) bool // or nil
	secrets    secrets
	requestID  func(*http.Request) string // or nil
	ids        *idSource                  // of requests
	forward    bool                       // the request ID
	marshal    func(any) ([]byte, error)
	onError    func(context.Context, error) // or nil
	onPanic    func(*http.Request, any, []byte)
	passPanics bool
	panics     *telemetry.Decisions
	responder  any // of its requests
}

var (
	_ usher.Middleware = (*Envelope)(nil)
	_ usher.Responder  = (*Envelope)(nil)
)

// New returns the Envelope that c describes. Its error joins an [*usher.ConfigError]
// for every fault of c.
func New(c Config) (*Envelope, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	e := &Envelope{
		shape:      c.Shape,
		catalogue:  c.Catalogue.clone(),
		wrap:       c.Wrap,
		untouched:  c.Untouched,
		secrets:    newSecrets(c.SecretParams),
		requestID:  c.RequestID,
		ids:        &idSource{prefix: c.RequestIDPrefix},
		forward:    c.ForwardRequestID,
		marshal:    c.Marshal,
		onError:    c.OnError,
		onPanic:    c.OnPanic,
		passPanics: c.PassPanics,
		panics:     panics.Decisions(c.MeterProvider),
	}
	if e.shape.isZero() {
		e.shape = Standard()
	}
	e.shape.Type = cmp.Or(e.shape.Type, jsonType)
	e.shape.ErrorType = cmp.Or(e.shape.ErrorType, jsonType)
	if e.onPanic == nil {
		e.onPanic = logPanic
	}
	e.responder = responder{e}
	return e, nil
}

// Wrap returns a handler that serves next in the shape of e.
func (e *Envelope) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.ServeNext(w, r, next)
	})
}

// ServeNext serves one request through next in the shape of e.
func (e *Envelope) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	t, inner := e.enter(w, r)
	defer func() {
		t.leave()
		if v := recover(); v != nil {
			t.recovered(inner, v)
		}
	}()
	exchange.Serve(next, &t.writer, r, inner)
	t.finish(inner)
}

// NotFound responds with 404. It is an [http.HandlerFunc] for routers that take one.
func (e *Envelope) NotFound(w http.ResponseWriter, r *http.Request) {
	usher.NotFound(w, e.inShape(r))
}

// MethodNotAllowed responds with 405. It is an [http.HandlerFunc] for routers that
// take one. The router must have set Allow, which RFC 9110, section 15.5.6 requires;
// MethodNotAllowed keeps it.
func (e *Envelope) MethodNotAllowed(w http.ResponseWriter, r *http.Request) {
	usher.MethodNotAllowed(w, e.inShape(r))
}

// inShape returns r with e as the responder, unless an envelope surrounds r.
func (e *Envelope) inShape(r *http.Request) *http.Request {
	if transactionFrom(exchange.From(r.Context())) != nil {
		return r
	}
	return usher.WithResponder(r, e)
}

// Mux returns a handler that serves mux, and where mux has no handler responds with 404
// or 405 in the shape of the service. It adds one look-up to requests that match. It is
// not needed with [Config.Wrap].
func (e *Envelope) Mux(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		// Only the response of mux shows which methods it would allow.
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

// A refusal keeps the header and the status of a response.
type refusal struct {
	header http.Header
	status int
}

func (f *refusal) Header() http.Header       { return f.header }
func (f *refusal) WriteHeader(status int)    { f.status = status }
func (*refusal) Write(p []byte) (int, error) { return len(p), nil }

// report passes failure to OnError. A panic of OnError does not affect the request.
func (e *Envelope) report(r *http.Request, failure *usher.Error) {
	e.guard(r, func() {
		if e.onError == nil {
			logError(r, failure)
			return
		}
		e.onError(r.Context(), fmt.Errorf("envelope: %s: %w", route(r), failure))
	})
}

// route returns the method of r and the route pattern that it matched, if any.
func route(r *http.Request) string {
	switch method := cut(r.Method, maxMethod); {
	case r.Pattern == "":
		return method
	case strings.Contains(r.Pattern, " "):
		return r.Pattern // includes the method
	default:
		return method + " " + r.Pattern
	}
}
