package envelope

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/httpwriter"
	"github.com/usher-go/usher/internal/telemetry"
)

// An Envelope answers in the shape of a service. It is a [usher.Middleware] and
// the [usher.Responder] of the requests that pass it. It never changes and is
// safe for concurrent use.
type Envelope struct {
	shape     Shape
	catalogue Catalogue
	wrap      bool
	secrets   secrets
	prefix    string        // of request IDs
	newID     func() string // or nil
	marshal   func(any) ([]byte, error)
	onError   func(context.Context, error) // or nil
	onPanic   func(*http.Request, any, []byte)
	panics    *telemetry.Decisions
	responder any // e itself
}

var (
	_ usher.Middleware = (*Envelope)(nil)
	_ usher.Responder  = (*Envelope)(nil)
)

// New returns the envelope that c describes. Its error joins a
// [*usher.ConfigError] for every fault of c.
func New(c Config) (*Envelope, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	e := &Envelope{
		shape:     c.Shape,
		catalogue: c.Catalogue.clone(),
		wrap:      c.Wrap,
		secrets:   newSecrets(c.SecretParams),
		prefix:    c.RequestIDPrefix,
		newID:     c.NewRequestID,
		marshal:   c.Marshal,
		onError:   c.OnError,
		onPanic:   c.OnPanic,
		panics:    newPanics(c.MeterProvider),
	}
	if e.shape.isZero() {
		e.shape = Standard()
	}
	if e.shape.ErrorType == "" {
		e.shape.ErrorType = "application/json"
	}
	if e.onPanic == nil {
		e.onPanic = logPanic
	}
	e.responder = e
	return e, nil
}

// report passes failure to OnError, whose own panic does not concern the request.
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
		return r.Pattern // has the method
	default:
		return method + " " + r.Pattern
	}
}

// logError logs what is a fault. Another status than 500 without a cause is a
// service that knows that it is not available.
func logError(r *http.Request, e *usher.Error) {
	if errorStatus(e) != http.StatusInternalServerError && e.Cause == nil {
		return
	}
	slog.Default().LogAttrs(r.Context(), slog.LevelError, "envelope: request failed",
		slog.String("method", cut(r.Method, maxMethod)),
		slog.String("route", r.Pattern),
		slog.String("request_id", RequestID(r.Context())),
		slog.String("error", e.Error()))
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
		t.leave(inner)
		if v := recover(); v != nil {
			t.recovered(inner, v)
		}
	}()
	next.ServeHTTP(&t.writer, inner)
	t.finish(inner)
}

// A transaction is one request on its way through an envelope.
type transaction struct {
	env     *Envelope
	request *http.Request
	// outer is the transaction of an envelope further out, or nil.
	outer *transaction
	// x is the exchange of the request: own, unless someone further out had
	// attached one already.
	x      *exchange.Exchange
	own    exchange.Exchange
	writer httpwriter.Writer
	id     string
	start  time.Time
	// The values of header fields.
	idField, nosniff, contentType [1]string
	// encoding is the Content-Encoding that somebody further out has announced, who
	// will apply it to what the envelope writes.
	encoding []string

	phase     phase
	declared  mediaType    // of what the handler writes
	reply     *usher.Reply // if what the handler writes is the data of one
	failure   *usher.Error // if the handler said itself what is replaced
	length    int64        // that the handler has declared, or -1
	offered   int64        // bytes that it has tried to write
	overflow  bool         // more than fits into collected
	encoded   bool         // what is collected is compressed
	collected *scratch     // the body of an error that is being replaced
	// around is what the part before the data was made of, for the part after it.
	// Whoever takes it has it alone.
	around atomic.Pointer[scratch]

	// An abandoned handler may still be running.
	message   atomic.Pointer[string]
	untouched atomic.Bool
}

// enter makes the transaction of r and the request that carries it.
func (e *Envelope) enter(w http.ResponseWriter, r *http.Request) (*transaction, *http.Request) {
	t := &transaction{env: e, request: r, start: time.Now()}
	inner := r
	if t.x = exchange.From(r.Context()); t.x == nil {
		t.x = &t.own
		inner = t.own.Attach(r)
	} else {
		t.outer = transactionFrom(t.x)
	}
	transactions.Store(t.x, t)
	exchange.Responder.Store(t.x, &e.responder)
	if e.wrap {
		t.writer.Init(w, t)
	} else {
		t.writer.Init(w, nil)
	}
	t.writer.SetRequest(inner)
	h := w.Header()
	t.encoding = h["Content-Encoding"]
	t.identify(h)
	return t, inner
}

// identify gives the request its ID.
func (t *transaction) identify(h http.Header) {
	switch given := t.request.Header["X-Request-Id"]; {
	case t.outer != nil:
		t.id = t.outer.id
	case len(given) == 1 && validRequestID(given[0]):
		t.id = given[0]
	default:
		t.id = t.env.makeRequestID(t.request)
	}
	t.idField[0] = t.id
	h["X-Request-Id"] = t.idField[:1:1]
}

// leave is called when next has returned, in whatever way.
func (t *transaction) leave(inner *http.Request) {
	exchange.Leave(t.request, inner)
	if t.outer != nil {
		transactions.Store(t.x, t.outer)
		exchange.Responder.Store(t.x, &t.outer.env.responder)
	}
}

// transactions holds the innermost transaction of a request.
var transactions = exchange.NewSlot[transaction]()

// transactionFrom returns the transaction that x belongs to, or nil.
func transactionFrom(x *exchange.Exchange) *transaction {
	if x == nil {
		return nil
	}
	return transactions.Load(x)
}

// transaction returns the transaction of r. If e is the responder of a request
// that has not come through it, that is a new one.
func (e *Envelope) transaction(w http.ResponseWriter, r *http.Request) *transaction {
	x := exchange.From(r.Context())
	if t := transactionFrom(x); t != nil && t.env == e {
		return t
	}
	t := &transaction{env: e, request: r, x: x, start: time.Now()}
	if t.x == nil {
		t.x = &t.own
	}
	if t.outer = transactionFrom(x); t.outer != nil {
		t.start = t.outer.start
	}
	t.identify(w.Header())
	return t
}

// sent reports whether it is too late for another answer.
func (t *transaction) sent() bool {
	return t.writer.Status() != 0 || t.writer.Hijacked() || t.outer != nil && t.outer.sent()
}

// succeeded reports whether a status has been sent that is no error.
func (t *transaction) succeeded() bool {
	if status := t.writer.Status(); status != 0 {
		return status < 400
	}
	return t.outer != nil && t.outer.succeeded()
}

// successMessage returns the message that the handler set with [Writer.Message].
func (t *transaction) successMessage() string {
	if text := t.message.Load(); text != nil {
		return *text
	}
	return ""
}
