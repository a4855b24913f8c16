package idempotency

import (
	"container/heap"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/usher-go/usher/internal/queue"
)

// A lease is renewed after a third of it, and after a twelfth if the store has failed.
const (
	renewalsPerLease = 3
	retriesPerLease  = 12
)

// keepLease begins to renew the lease of e.
func (e *Execution) keepLease() {
	now := time.Now()
	e.leaseEnds = now.Add(e.m.config.Lease)
	e.m.heartbeat.schedule(&e.renewal, now.Add(e.m.config.Lease/renewalsPerLease))
}

// stopLease ends the renewals of e, unless a result is pending.
func (e *Execution) stopLease() {
	e.mu.Lock()
	if e.pending != nil || e.leaseStopped {
		e.mu.Unlock()
		return
	}
	e.leaseStopped = true
	e.mu.Unlock()
	e.m.heartbeat.remove(&e.renewal)
}

// renew renews the lease once. If the store fails, the renewal is retried until the lease
// must have ended; then the claim counts as lost. A pending result is stored first.
func (e *Execution) renew() {
	e.mu.Lock()
	stopped, pending := e.leaseStopped, e.pending != nil
	e.mu.Unlock()
	if stopped {
		return
	}
	lease := e.m.config.Lease
	if pending {
		e.retryFinish()
		e.renewAfter(lease / retriesPerLease)
		return
	}
	began := time.Now()
	err := e.renewLease()
	var failure error

	e.mu.Lock()
	pause := lease / renewalsPerLease
	switch left := time.Until(e.leaseEnds); {
	case err == nil:
		e.leaseEnds = began.Add(lease)
	case e.leaseStopped, e.finishing:
		pause = lease / retriesPerLease
	case errors.Is(err, ErrLost) || left <= 0:
		e.leaseStopped = true
		e.mu.Unlock()
		e.lose(fmt.Errorf("idempotency: the lease is lost: %w", err))
		return
	default:
		pause = min(lease/retriesPerLease, left)
		failure = fmt.Errorf("idempotency: renew the lease, will retry: %w", err)
	}
	e.mu.Unlock()
	e.renewAfter(pause)
	// OnError may take longer than the rest of the lease.
	if failure != nil {
		e.m.failures.Error(e.request.Context(), failure)
	}
}

// renewLease tries once to renew the lease.
func (e *Execution) renewLease() error {
	lost, err := e.m.store.Renew(e.request.Context(), []ClaimID{{e.key, e.token}}, e.m.config.Lease)
	if err == nil && len(lost) > 0 {
		err = ErrLost
	}
	return err
}

// renewAfter schedules the next renewal, unless the renewals of e have ended.
func (e *Execution) renewAfter(pause time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.leaseStopped {
		e.m.heartbeat.schedule(&e.renewal, time.Now().Add(pause))
	}
}

// lose records that the claim is lost, and reports err the first time.
func (e *Execution) lose(err error) {
	e.mu.Lock()
	again := e.lost
	e.lost = true
	if e.cancelLost != nil {
		e.cancelLost()
	}
	e.mu.Unlock()
	if !again {
		e.m.claims.Record(e.request.Context(), leaseLost)
		e.m.failures.Error(e.request.Context(), err)
	}
}

// A heartbeat renews the leases of all executions of a [Middleware] with a single
// timer. Requests come and go much faster than leases end, so a timer for each would
// cost more than it is worth. There is no goroutine until a renewal is due.
type heartbeat struct {
	base time.Time

	mu       sync.Mutex
	renewals queue.Queue[*renewal] // by due
	timer    *time.Timer
	armed    bool          // the timer is running
	next     time.Duration // when the timer fires, since base
}

// A renewal is the next renewal of an execution.
type renewal struct {
	execution *Execution
	due       time.Duration // since the base of the heartbeat
	index     int           // in the queue
	queued    bool
}

// Before and Moved implement [queue.Item].
func (r *renewal) Before(other *renewal) bool { return r.due < other.due }

func (r *renewal) Moved(index int) { r.index = index }

// schedule sets when r is due, in place of an earlier time.
func (h *heartbeat) schedule(r *renewal, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.due = at.Sub(h.base)
	if r.queued {
		heap.Fix(&h.renewals, r.index)
	} else {
		r.queued = true
		heap.Push(&h.renewals, r)
	}
	if !h.armed || r.due < h.next {
		h.arm()
	}
}

// remove cancels r.
func (h *heartbeat) remove(r *renewal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.queued {
		heap.Remove(&h.renewals, r.index)
		r.queued = false
	}
}

// arm sets the timer to the first renewal. The caller holds h.mu.
func (h *heartbeat) arm() {
	h.next = h.renewals[0].due
	left := h.next - time.Since(h.base)
	if h.armed = true; h.timer == nil {
		h.timer = time.AfterFunc(left, h.fire)
	} else {
		h.timer.Reset(left)
	}
}

// fire starts all renewals that are due.
func (h *heartbeat) fire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for now := time.Since(h.base); len(h.renewals) > 0 && h.renewals[0].due <= now; {
		r := heap.Pop(&h.renewals).(*renewal)
		r.queued = false
		go r.execution.renew()
	}
	if h.armed = len(h.renewals) > 0; h.armed {
		h.arm()
	}
}
