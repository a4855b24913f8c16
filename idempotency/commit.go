package idempotency

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// Commit leaves the end of the handler's transaction to the middleware. The handler calls
// it when its work is done, instead of committing, and before it writes the response. From
// then on nothing of the response is sent. When the handler has returned, commit is called
// with the [Completion] of the response, for [TxStore.FinishTx]; and only if it returns nil
// is the response sent. So the effect and the record of the response are one step: both
// happen or neither, even if the process dies.
//
//	tx, err := pool.Begin(ctx)
//	…
//	err = idempotency.From(ctx).Commit(ctx, func(ctx context.Context, c idempotency.Completion) error {
//		if _, err := records.FinishTx(ctx, tx, c); err != nil {
//			return err
//		}
//		return tx.Commit(ctx)
//	}, func() { tx.Rollback(context.WithoutCancel(ctx)) })
//
// So the handler must not defer its rollback, as handlers usually do: the deferred call would
// come before commit, which then fails, and the client gets 500. The handler calls rollback
// itself where it returns before Commit, and leaves it to Commit from then on.
//
// The outcome of the response decides. Commit is called if it is kept, which includes an
// error that the outcomes keep. In all other cases rollback is called instead: for
// [Release] and [Unknown], after a panic, and if the response cannot be stored, because the
// handler flushes it, hijacks the connection, sends trailers, or writes more than
// [Config.MaxResponse]. Such a call or write returns an error, the client gets 500, and the
// key is released.
//
// If commit returns an error or panics, rollback is called after it, as after most
// functions that commit it does nothing. The claim is released; if the store returns that
// the transaction was committed after all, as when only the reply was lost, the response is
// sent. Otherwise nothing of it is sent, not even the header fields that the handler has
// set (with a [Memory], which has no transactions, since Commit). The client gets the error
// through [usher.Fail], which is a 500 unless it has an [*usher.Error]; and 409 after
// [ErrLost], as another request may be running. If commit has not called FinishTx, the
// claim is finished after it.
//
// The ctx of commit has the values of ctx. It ends as the context of the request does,
// which is after commit, and when the claim is lost. A transaction of database/sql is
// rolled back when the context with which it began ends, so this must not be one that ends
// when the handler returns, as inside a usher.Deadline; context.WithoutCancel helps.
//
// Both functions are called on the goroutine of the request, at most once each. Rollback
// may be nil. If Commit returns an error, it has called rollback: after an earlier call of
// Commit, and once the response has begun.
//
// On nil, Commit calls commit at once, with ctx and the zero Completion, for which FinishTx
// does nothing. It returns the error of commit, after rollback.
func (e *Execution) Commit(ctx context.Context, commit func(ctx context.Context, c Completion) error, rollback func()) error {
	t := &transaction{values: ctx, commit: commit, rollback: rollback}
	if e == nil {
		return t.run(ctx, Completion{})
	}
	if err := e.response.hold(t); err != nil {
		t.undo()
		return err
	}
	return nil
}

var (
	errCommitEarly = errors.New("idempotency: Commit before the handler runs")
	errCommitLate  = errors.New("idempotency: Commit after the response has begun")
	errCommitTwice = errors.New("idempotency: Commit was called before")

	errUnstorable = errors.New("idempotency: a response with this status, length or trailer cannot be stored, as Commit requires")
	errTooLong    = errors.New("idempotency: a response longer than MaxResponse cannot be stored, as Commit requires")
	errIncomplete = errors.New("idempotency: a response that is incomplete or has trailers cannot be stored, as Commit requires")
)

// A transaction is what [Execution.Commit] was called with, and the response that waits for
// it.
type transaction struct {
	values   context.Context
	commit   func(ctx context.Context, c Completion) error
	rollback func()

	header http.Header // of the response, as of its status
	fault  error       // why the response cannot be stored
}

// run calls commit, and rollback unless that returns nil.
func (t *transaction) run(ctx context.Context, c Completion) error {
	committed := false
	defer func() {
		if !committed { // even if commit has panicked
			t.undo()
		}
	}()
	err := t.commit(ctx, c)
	committed = err == nil
	return err
}

// undo calls rollback.
func (t *transaction) undo() {
	if t.rollback != nil {
		t.rollback()
	}
}

// refuse records the first reason for which the response cannot be stored, and returns it.
func (t *transaction) refuse(why error) error {
	if t.fault == nil {
		t.fault = why
	}
	return t.fault
}

// hold holds the response back for t.
func (c *capture) hold(t *transaction) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := c.execution; {
	case e == nil: // before the handler, in Config.Resolve
		return errCommitEarly
	case e.transaction != nil:
		return errCommitTwice
	case c.phase != awaiting:
		return errCommitLate
	default:
		e.transaction = t
		if e.m.memory != nil {
			c.outerHeader = maps.Clone(c.writer.Header())
		}
		c.writer.Defer()
		return nil
	}
}

// collectDeferred begins to collect a response that is deferred for t.
func (c *capture) collectDeferred(t *transaction) {
	t.header = c.writer.Header().Clone()
	declared, ok := c.storable()
	if !ok || c.status > 999 {
		_ = t.refuse(errUnstorable)
	}
	c.collect(declared)
}

// endDeferred is end for an execution with a transaction. Its functions may call any method of
// the Execution and of the response writer, so no lock is taken.
func (e *Execution) endDeferred(returned bool) {
	c, t := &e.response, e.transaction
	w := c.writer.Unwrap()
	sent := false
	defer func() {
		if !e.finished { // a function of the transaction has panicked
			e.endFailed()
		}
		if !sent {
			setHeader(w.Header(), c.outerHeader)
		}
	}()
	silent := c.status == 0
	if !returned || silent && e.work.deserted() {
		t.undo()
		e.endFailed()
		return
	}
	if silent {
		c.status = http.StatusOK // as the server will send
		c.collectDeferred(t)
	}
	err := e.endTransaction()
	sent = true
	if err != nil {
		setHeader(w.Header(), c.outerHeader)
		// An envelope inside takes its own response for sent.
		exchange.Responder.Store(e.exchange, c.outerResponder)
		if errors.Is(err, e.m.refusals.inProgress) {
			err = e.m.documented(w.Header(), err)
		}
		usher.Fail(w, &e.request, err)
		return
	}
	setHeader(w.Header(), t.header)
	if silent {
		return
	}
	if c.flags&flagRendered != 0 {
		e.exchange.Render(c.status)
	}
	w.WriteHeader(c.status)
	// If this fails the client has disconnected.
	_ = forward(w, c.buffer)
}

// endTransaction ends the transaction and the claim as the outcome of the response
// demands. It returns the error to respond with in place of the response.
func (e *Execution) endTransaction() error {
	c, t := &e.response, e.transaction
	o := e.decide(c.status)
	if c.incomplete() || c.hasTrailers() {
		_ = t.refuse(errIncomplete)
	}
	if t.fault == nil {
		return e.complete(e.result(o))
	}
	t.undo()
	e.m.failures.Error(e.request.Context(), t.fault)
	if o == Unknown {
		e.tombstone(Unknown, c.status)
	} else {
		e.release()
	}
	return t.fault
}

// complete ends the transaction of e and the claim with r. It returns nil if r counts, else
// the error to respond with.
func (e *Execution) complete(r Result) error {
	t := e.transaction
	if r.State == StateReleased || r.State == StateUnknown {
		t.undo()
		_, _ = e.finish(r)
		return nil
	}
	e.mu.Lock()
	e.finishing = true // commit finds out whether the claim is lost
	e.mu.Unlock()
	ctx, cancel := e.Context(commitContext{e.request.Context(), context.WithoutCancel(t.values)})
	defer cancel()
	own := r
	own.Payload = bytes.Clone(r.Payload) // the buffer will serve another request
	failure := t.run(ctx, Completion{e.key, e.token, own})
	if failure == nil {
		_, _ = e.finish(r)
		return nil
	}
	failure = fmt.Errorf("idempotency: commit: %w", failure)
	e.m.failures.Error(ctx, failure)
	kept, err := e.finish(e.resultWithoutResponse(Release, 0))
	switch {
	case err == nil && kept != StateReleased:
		return nil // the transaction was committed after all
	case errors.Is(err, ErrLost), errors.Is(failure, ErrLost):
		return e.m.refusals.inProgress
	}
	return failure
}

// setHeader replaces all fields of h.
func setHeader(h, by http.Header) {
	clear(h)
	maps.Copy(h, by)
}

// A commitContext is the context of a request with the values of another context.
type commitContext struct {
	context.Context
	values context.Context
}

func (c commitContext) Value(key any) any { return c.values.Value(key) }
