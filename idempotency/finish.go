package idempotency

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// end finishes the claim and sends the response, if that has not happened yet. It is
// called when the handler has returned, or has panicked. A goroutine that the handler
// has left behind cannot write meanwhile, and its writes fail afterwards.
func (e *Execution) end(returned bool) {
	defer e.stopLease()
	c := &e.response
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.close()
	if e.exchange.Broken() != nil {
		returned = false
	}
	if e.transaction != nil {
		c.phase = ended
		c.mu.Unlock()
		defer c.mu.Lock()
		e.endDeferred(returned)
		return
	}
	defer func() {
		if !e.finished { // something inside has panicked
			e.tombstone(Unknown, c.status)
		}
	}()
	switch {
	case c.phase == passing:
		e.endPassed()
	case !returned, c.phase == awaiting && e.work.deserted():
		e.endFailed()
	default:
		if c.phase == awaiting {
			c.status = http.StatusOK // as the server will send
			c.collect(declaredLength(c.writer.Header()))
		}
		e.endCollected()
		// If this fails the client has disconnected.
		_ = forward(c.writer.Unwrap(), c.buffer)
	}
}

// endPassed ends an execution whose response has been sent already.
func (e *Execution) endPassed() {
	if e.finished {
		return
	}
	if o := e.decide(e.response.status); o != Release {
		e.tombstone(o, e.response.status)
		return
	}
	e.release()
}

// endFailed ends an execution that has sent nothing: its handler did not return, or
// returned without a response after its context had ended.
func (e *Execution) endFailed() {
	if e.decide(0) == Release {
		e.release()
		return
	}
	e.tombstone(Unknown, 0)
}

// endCollected ends an execution whose response is collected and not yet sent.
func (e *Execution) endCollected() {
	c := &e.response
	o := e.decide(c.status)
	if o != Release && c.incomplete() {
		o = Unknown
	}
	_, _ = e.finish(e.result(o))
}

// result returns the result for the response that is collected, if its outcome is o.
func (e *Execution) result(o Outcome) Result {
	c := &e.response
	if o != Keep || c.hasTrailers() {
		return e.resultWithoutResponse(o, c.status)
	}
	return e.resultWithResponse()
}

// tombstone records an outcome of which no response is stored.
func (e *Execution) tombstone(o Outcome, status int) {
	_, _ = e.finish(e.resultWithoutResponse(o, status))
}

// release frees the key.
func (e *Execution) release() { _, _ = e.finish(e.resultWithoutResponse(Release, 0)) }

// finish finishes the claim, and retries for a while if the store fails. The payload of r
// may change after it returns. Until the store has accepted the result, the lease is
// kept: a request that got the key would repeat the effect. It returns the state that the
// store keeps, or an error, after which the result may still be pending.
func (e *Execution) finish(r Result) (kept State, err error) {
	e.finished = true
	if e.m.memory != nil {
		e.stopLease()
		kept, err = e.m.memory.finish(&e.key, &e.token, &r)
		e.settle(&r, kept, err)
		e.m.reportEvicted(e.request.Context())
		return kept, err
	}
	e.mu.Lock()
	e.finishing = true
	e.mu.Unlock()
	// A call that outlives its timeout must not read a buffer of another request.
	r.Payload = bytes.Clone(r.Payload)
	kept, err = e.finishWithTimeout(&r)
	if err != nil && !errors.Is(err, ErrLost) && e.finishLater(&r) {
		e.m.waiters.requestEnded(e)
		return kept, err
	}
	e.stopLease()
	e.settle(&r, kept, err)
	return kept, err
}

// tryFinish tries once to finish the claim.
func (e *Execution) tryFinish(r *Result) (kept State, err error) {
	return e.m.store.Finish(e.request.Context(), Completion{e.key, e.token, *r})
}

// finishWithTimeout tries to finish the claim for up to [Config.FinishTimeout]. It
// reports the first failure.
func (e *Execution) finishWithTimeout(r *Result) (kept State, err error) {
	deadline := time.Now().Add(e.m.config.FinishTimeout)
	for pause := firstPause; ; pause *= 2 {
		kept, err = e.tryFinish(r)
		if err == nil || errors.Is(err, ErrLost) {
			return kept, err
		}
		if pause == firstPause {
			e.m.failures.Error(e.request.Context(), fmt.Errorf("idempotency: finish the claim, will retry: %w", err))
		}
		if time.Now().Add(pause).After(deadline) {
			return 0, err
		}
		time.Sleep(pause)
	}
}

// settle counts and reports how the claim has ended: with an error of the store, or with
// the state that the store keeps in place of r.
func (e *Execution) settle(r *Result, kept State, err error) {
	defer e.m.waiters.requestEnded(e)
	ctx := e.request.Context()
	switch {
	case errors.Is(err, ErrLost):
		e.lose(fmt.Errorf("idempotency: finish the claim: %w", err))
	case err != nil:
		e.m.claims.Record(ctx, finishFailed)
		e.m.failures.Error(ctx, fmt.Errorf("idempotency: give up the result of the claim: %w", err))
	case kept == StateTombstone && r.State == StateDone:
		e.m.claims.Record(ctx, responseDropped)
		e.m.failures.Error(ctx, errDropped)
	default:
		e.m.claims.Record(ctx, endOf(kept))
	}
}

// endOf returns how a claim has ended if its record is in this state.
func endOf(kept State) int {
	switch kept {
	case StateDone:
		return responseKept
	case StateReleased:
		return released
	default:
		return tombstoned
	}
}

// reportEvicted reports and counts the responses that m.memory has evicted, for whatever
// request, at most once a second.
func (m *Middleware) reportEvicted(ctx context.Context) {
	if n := m.memory.takeEvicted(); n > 0 {
		m.evictions.Add(ctx, n)
		m.failures.Error(ctx, evictedError(n))
	}
}
