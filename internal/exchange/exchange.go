// Package exchange holds the state that the middlewares of this module share for one
// request. The first of them attaches an [Exchange] to the request, at the cost
// of the one copy that a context value needs; the others find it and fill it in.
package exchange

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/usher-go/usher/internal/vary"
)

// Exchange is a request context that carries the state of one request. It needs its
// parent, as a [Carrier] gives it.
//
// Loads and stores are safe for concurrent use: behind http.TimeoutHandler an
// abandoned handler may still be writing while an outer middleware reads.
type Exchange struct {
	context.Context

	failed   atomic.Int32
	rendered atomic.Int32
	facts    facts

	broken      atomic.Pointer[error]
	values      values
	client      atomic.Pointer[Client]
	firstClient Client
	vary        vary.Writer
}

// facts are bits, in the room of one number.
type facts struct{ bits atomic.Uint32 }

const (
	timedOut    = 1 << iota
	clientTaken // firstClient is in use
	varying     // vary is in use
	watched
)

// set reports whether the bit was clear.
func (f *facts) set(bit uint32) bool { return f.bits.Or(bit)&bit == 0 }

func (f *facts) clear(bit uint32)    { f.bits.And(^bit) }
func (f *facts) has(bit uint32) bool { return f.bits.Load()&bit != 0 }

type key struct{}

// From returns the exchange of ctx, or nil.
func From(ctx context.Context) *Exchange {
	if x, ok := ctx.(*Exchange); ok {
		return x
	}
	x, _ := ctx.Value(key{}).(*Exchange)
	return x
}

// Enter returns the exchange of r and the request that carries it: r itself if
// r has one, else a copy of r.
func Enter(r *http.Request) (*Exchange, *http.Request) {
	if x := From(r.Context()); x != nil {
		return x, r
	}
	c := new(Carrier)
	return &c.Exchange, c.Attach(r)
}

// A Carrier is an Exchange with the copy of the request that carries it. Its zero value is
// ready for Attach and may be embedded in a larger struct, so that all of it costs one
// allocation.
type Carrier struct {
	Exchange
	request http.Request
}

// Attach returns the copy of r. It must be called once.
func (c *Carrier) Attach(r *http.Request) *http.Request {
	c.Context = r.Context()
	c.request = *r.WithContext(&c.Exchange)
	return &c.request
}

// Serve runs next with inner, which is r or a copy of it, and then copies to r what next
// has stored in inner, even if next panics.
func Serve(next http.Handler, w http.ResponseWriter, r, inner *http.Request) {
	defer Leave(r, inner)
	next.ServeHTTP(w, inner)
}

// Leave copies to r what handlers have stored in inner, a copy of r. The server
// removes the temporary files of a multipart form only from the request that it
// made (golang/go#58809), and an outer access log reads the pattern that matched.
// Call [Serve] instead where no lock is needed.
func Leave(r, inner *http.Request) {
	if r == inner {
		return
	}
	r.MultipartForm = inner.MultipartForm
	r.Pattern = inner.Pattern
}

// Value returns x itself for this package's key, else the parent's value.
func (x *Exchange) Value(k any) any {
	if k == (any)(key{}) {
		return x
	}
	return x.Context.Value(k)
}

// Vary returns a writer for the response. The caller passes it to [Exchange.Unvary] once
// next has returned. The first writer costs no allocation.
func (x *Exchange) Vary() *vary.Writer {
	if x.facts.set(varying) {
		return &x.vary
	}
	return new(vary.Writer)
}

// Unvary makes w available to the next caller of Vary.
func (x *Exchange) Unvary(w *vary.Writer) {
	if w == &x.vary {
		x.facts.clear(varying)
	}
}

// Failed records that the handler has returned an error that is not written yet. An outer
// handler will respond with this status, unless it decides otherwise.
func (x *Exchange) Failed(status int) { x.failed.Store(int32(status)) }

// Failure returns the status that was last passed to Failed, or 0.
func (x *Exchange) Failure() int { return int(x.failed.Load()) }

// Watch records that a middleware calls the OnUse of the principal in this exchange.
func (x *Exchange) Watch() { x.facts.set(watched) }

// Unwatch takes Watch back.
func (x *Exchange) Unwatch() { x.facts.clear(watched) }

// Watched reports whether Watch was called, and not Unwatch since.
func (x *Exchange) Watched() bool { return x.facts.has(watched) }

// TimeOut records that the handler has failed because its time ran out: what it had
// done by then is unknown, whatever status the error has.
func (x *Exchange) TimeOut() { x.facts.set(timedOut) }

// TimedOut reports whether TimeOut was called.
func (x *Exchange) TimedOut() bool { return x.facts.has(timedOut) }

// Break records that a response that looks like a success is broken, and why.
// The first reason counts. An envelope then aborts the connection when the handler
// has returned, and no middleware stores the response.
func (x *Exchange) Break(why error) { x.broken.CompareAndSwap(nil, &why) }

// Broken returns the reason that was passed to Break, or nil.
func (x *Exchange) Broken() error {
	if why := x.broken.Load(); why != nil {
		return *why
	}
	return nil
}

// Render records that the response with this status already has the shape of the service,
// so that no outer envelope wraps it again. A middleware that stores responses for replay
// stores this fact with them, and calls Render again.
func (x *Exchange) Render(status int) { x.rendered.Store(int32(status)) }

// Rendered reports whether the response with this status is the one of the last Render. A
// middleware may have changed one success into another, but a response with any other
// status came from elsewhere, from http.TimeoutHandler for instance.
func (x *Exchange) Rendered(status int) bool {
	rendered := int(x.rendered.Load())
	return rendered == status || isSuccess(rendered) && isSuccess(status)
}

func isSuccess(status int) bool { return status >= 200 && status < 300 }
