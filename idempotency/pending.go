package idempotency

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A pendingResult is the result of a claim that the store has yet to accept. The
// heartbeat keeps the lease and retries until the store accepts the result, another
// request has the key, or the record has expired.
type pendingResult struct {
	result  Result
	expires time.Time // the record
	refused int       // how often the store took a renewal, but not the result
	dropped bool      // the result is a tombstone in place of a response
}

// dropResponse turns r into a tombstone.
func (r *pendingResult) dropResponse() {
	r.result.State, r.result.Payload, r.dropped = StateTombstone, nil, true
}

// The bounds on the pending results of a Middleware. A response beyond maxPendingBytes
// becomes a tombstone. A result beyond maxPending is given up, so its key is free after
// its lease.
const (
	maxPending      = 1024
	maxPendingBytes = 16 << 20
)

// maxRefused is how often the store may accept a renewal but not the result, before a
// tombstone replaces the result: five leases. The response may be too large for the
// store.
const maxRefused = 5 * retriesPerLease

// pendingResults are the executions of a [Middleware] whose result is pending.
type pendingResults struct {
	mu    sync.Mutex
	of    map[*Execution]struct{}
	bytes int // of their responses
}

// add adds the result of e, if there is room.
func (p *pendingResults) add(e *Execution, r *pendingResult) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.of) == maxPending {
		return false
	}
	if r.result.State == StateDone && p.bytes+len(r.result.Payload) > maxPendingBytes {
		r.dropResponse()
	}
	if p.of == nil {
		p.of = make(map[*Execution]struct{})
	}
	p.of[e] = struct{}{}
	p.bytes += len(r.result.Payload)
	return true
}

// refuse records that the store accepted a renewal, but not r.
func (p *pendingResults) refuse(r *pendingResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.refused++; r.refused == maxRefused && r.result.State == StateDone {
		p.bytes -= len(r.result.Payload)
		r.dropResponse()
	}
}

func (p *pendingResults) remove(e *Execution, r *pendingResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, e)
	p.bytes -= len(r.result.Payload)
}

func (p *pendingResults) all() []*Execution {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*Execution, 0, len(p.of))
	for e := range p.of {
		all = append(all, e)
	}
	return all
}

// Shutdown stores the pending results, those of requests that ended while the store
// failed. Otherwise they are stored in the background. Call it after the server has shut
// down and before the store is closed. It returns nil when no result is pending, and an
// error if ctx ends first. If the process ends with results pending, their keys are free
// after their leases, and a retry runs again.
func (m *Middleware) Shutdown(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		all := m.pending.all()
		if len(all) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("idempotency: %d results are not stored: %w", len(all), context.Cause(ctx))
		}
		m.retryAll(all)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// finishLater leaves r to the heartbeat. It returns false if too many results are
// pending.
func (e *Execution) finishLater(r *Result) bool {
	p := &pendingResult{result: *r, expires: time.Now().Add(r.TTL)}
	if !e.m.pending.add(e, p) {
		return false
	}
	e.mu.Lock()
	// The renewals have stopped if the lease seemed lost. Finish will show whether it is.
	e.pending, e.leaseStopped = p, false
	e.mu.Unlock()
	e.renewAfter(e.m.config.Lease / retriesPerLease)
	return true
}

// retryAll tries once to store the pending results of executions. It keeps the leases of
// those that are still pending: no other request may get a key meanwhile. If one has,
// Finish returns ErrLost.
func (m *Middleware) retryAll(all []*Execution) {
	var tries sync.WaitGroup
	for _, e := range all {
		tries.Go(e.retryFinish)
	}
	tries.Wait()
	m.renewAll(slices.DeleteFunc(all, func(e *Execution) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.pending == nil
	}))
}

// retryFinish tries once to store the pending result.
func (e *Execution) retryFinish() {
	e.mu.Lock()
	p := e.pending
	if p == nil {
		e.mu.Unlock()
		return
	}
	r := p.result
	e.mu.Unlock()
	kept, err := e.tryFinish(&r)
	if err == nil || errors.Is(err, ErrLost) || time.Now().After(p.expires) {
		e.finishedLate(p, kept, err)
	}
}

// finishedLate ends the execution whose result p was pending.
func (e *Execution) finishedLate(p *pendingResult, kept State, err error) {
	e.mu.Lock()
	first := e.pending == p // and no concurrent retry was faster
	if first {
		e.pending = nil
	}
	e.mu.Unlock()
	if first {
		e.m.pending.remove(e, p)
		e.stopLease()
		r := p.result
		if p.dropped {
			r.State = StateDone // as it was meant
		}
		e.settle(&r, kept, err)
	}
}
