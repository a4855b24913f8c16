package idempotency

import (
	"context"
	"net/http"
	"time"

	"github.com/usher-go/usher/internal/exchange"
)

// begin prepares e for its request r: it gives it a context that outlives the client, and
// begins to keep the lease.
func (e *Execution) begin(r *http.Request) {
	e.work.init(r.Context(), e.m.config.DisconnectTimeout)
	var ctx context.Context = &e.work
	if e.exchange = exchange.From(r.Context()); e.exchange == nil {
		e.exchange = &exchange.Exchange{Context: ctx}
		ctx = e.exchange
	}
	e.request = *r.WithContext(ctx)
	e.keepLease()
}

// execute runs next for a request that holds the claim of its key and has begun.
func (m *Middleware) execute(w http.ResponseWriter, r *http.Request, next http.Handler, in *buffer, bodyAt int, e *Execution) {
	executions.Store(e.exchange, e)
	e.work.execution.Store(e)
	inner := &e.request
	if r.Body != nil && r.Body != http.NoBody {
		e.body.rest = in.b[bodyAt:]
		inner.Body = &e.body
	}
	e.response.init(e, w)
	returned := false
	defer func() {
		defer e.work.end()
		defer executions.Store(e.exchange, nil)
		_ = e.body.Close()
		in.release()
		e.end(returned)
	}()
	m.note(r.Context(), executed, &e.key, e.generation, nil)
	exchange.Serve(next, &e.response.writer, r, inner)
	returned = true
}

// newExecution returns the execution of a request with the claim c. The call of the store
// that made the claim began at began, which does not matter for a Memory.
func newExecution(m *Middleware, c *Claim, generation uint64, began time.Time) *Execution {
	e := &Execution{m: m, key: c.Key, fingerprint: c.Fingerprint, token: c.Token, generation: generation}
	if m.memory == nil {
		e.lease = &lease{ends: began.Add(c.Lease)}
		e.lease.renewal.Value = e
	}
	return e
}

// executeUnprotected runs next although the claim of the key failed with err.
func (m *Middleware) executeUnprotected(w http.ResponseWriter, r *http.Request, next http.Handler, in *buffer, bodyAt int, key *Key, err error) {
	m.failures.Error(r.Context(), err)
	m.note(r.Context(), unprotected, key, 0, nil)
	w.Header()[statusHeader] = []string{"ignored"}
	var own body
	defer func() {
		_ = own.Close()
		in.release()
	}()
	if r.Body != nil && r.Body != http.NoBody {
		own.rest = in.b[bodyAt:]
		r.Body = &own
	}
	next.ServeHTTP(w, r)
}
