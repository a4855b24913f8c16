package envelope

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/httpwriter"
)

// A transaction is one request and its response within one envelope.
type transaction struct {
	env     *Envelope
	request *http.Request
	// outer is the transaction of an outer envelope, or nil.
	outer  *transaction
	x      *exchange.Exchange // of the request
	writer httpwriter.Writer
	id     string
	start  time.Time
	// The values of header fields.
	idField, nosniff, contentType [1]string
	// encoding is the Content-Encoding that an outer compressor has announced, and will
	// apply to what the envelope writes, or nil.
	encoding *[]string

	reply     *usher.Reply // the reply, if what the handler writes is its data
	failure   *usher.Error // the error, if the handler passed it to Fail after the status
	length    int64        // the length that the handler has declared, or -1
	offered   int64        // bytes that the handler has tried to write
	collected *scratch     // the body of an error that is being replaced
	// around holds the scratch of the response between Before and After. The goroutine
	// that swaps it out owns it.
	around atomic.Pointer[scratch]
	// These are atomic, as an abandoned handler may still be running.
	message   atomic.Pointer[string]
	noted     atomic.Pointer[note]
	untouched atomic.Bool

	phase    phase
	declared mediaType // the media type of what the handler writes
	opening  byte      // the first byte of the data
	closing  byte      // the last one that is no white space, so far
	overflow bool      // the handler wrote more than collected may hold
	encoded  bool      // what is collected is compressed
	flushes  bool      // the response is flushed before the handler has returned
	watched  bool      // since before the handler ran: a middleware inside stores its response
}

// An outermost transaction has the exchange of the request, because no outer middleware
// has attached one.
type outermost struct {
	transaction
	carrier exchange.Carrier
}

// enter returns the transaction of r and the request that carries it.
func (e *Envelope) enter(w http.ResponseWriter, r *http.Request) (t *transaction, inner *http.Request) {
	if x := exchange.From(r.Context()); x != nil {
		t, inner = &transaction{x: x, outer: transactionFrom(x)}, r
	} else {
		o := new(outermost)
		t, inner = &o.transaction, o.carrier.Attach(r)
		t.x = &o.carrier.Exchange
	}
	t.env, t.request, t.start = e, r, time.Now()
	transactions.Store(t.x, t)
	exchange.Responder.Store(t.x, &e.responder)
	h := w.Header()
	if announced := h["Content-Encoding"]; announced != nil {
		own := announced // so that announced stays on the stack
		t.encoding = &own
	}
	t.identify(h)
	inner = t.conditional(inner)
	if e.forward {
		inner = t.forwardID(inner)
	}
	t.writer.Init(w, t)
	t.writer.SetRequest(inner)
	return t, inner
}

// leave is called when next has returned or panicked.
func (t *transaction) leave() {
	if t.outer != nil {
		transactions.Store(t.x, t.outer)
		exchange.Responder.Store(t.x, &t.outer.env.responder)
	}
}

// transactions holds the innermost transaction of a request.
var transactions = exchange.NewSlot[transaction]()

// transactionFrom returns the transaction of x, or nil.
func transactionFrom(x *exchange.Exchange) *transaction {
	if x == nil {
		return nil
	}
	return transactions.Load(x)
}

// transaction returns the transaction of r, or a new one if e is the responder of a
// request that has not passed through it.
func (e *Envelope) transaction(w http.ResponseWriter, r *http.Request) *transaction {
	x := exchange.From(r.Context())
	if t := transactionFrom(x); t != nil && t.env == e {
		return t
	}
	t := &transaction{env: e, request: r, x: x, start: time.Now()}
	if t.x == nil {
		t.x = new(exchange.Exchange)
	}
	if t.outer = transactionFrom(x); t.outer != nil {
		t.start = t.outer.start
	}
	t.identify(w.Header())
	return t
}

// announced returns the Content-Encoding that an outer compressor has announced, or nil.
func (t *transaction) announced() []string {
	if t.encoding == nil {
		return nil
	}
	return *t.encoding
}

// sent reports whether a response has begun, so that it is too late for another.
func (t *transaction) sent() bool {
	return t.writer.Status() != 0 || t.writer.Hijacked() || t.outer != nil && t.outer.sent()
}

// succeeded reports whether the status of a success has been sent.
func (t *transaction) succeeded() bool {
	if status := t.writer.Status(); status != 0 {
		return status < 400
	}
	return t.outer != nil && t.outer.succeeded()
}

// isHead reports whether the request is a HEAD request, whose response has no body.
func (t *transaction) isHead() bool { return t.request.Method == http.MethodHead }

// successMessage returns the message that the handler set with [Writer.Message].
func (t *transaction) successMessage() string {
	if text := t.message.Load(); text != nil {
		return *text
	}
	return ""
}
