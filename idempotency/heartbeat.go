package idempotency

import (
	"container/heap"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/usher-go/usher/internal/queue"
)

// A heartbeat renews the leases of all executions of a [Middleware] with one
// timer. Requests come and go much faster than leases end, so that a timer for
// each would cost more than it is ever worth. There is no goroutine until a
// renewal is due.
type heartbeat struct {
	base time.Time

	mu    sync.Mutex
	beats queue.Queue[*beat] // by when they are due
	timer *time.Timer
	armed bool          // the timer will go off
	next  time.Duration // when, since base
}

// A beat is the next renewal of an execution.
type beat struct {
	execution *Execution
	due       time.Duration // since the heartbeat's base
	index     int           // in the queue
	queued    bool
}

// Before and Moved implement [queue.Item].
func (b *beat) Before(other *beat) bool { return b.due < other.due }

func (b *beat) Moved(index int) { b.index = index }

// add lets b come at a time, and no more at the one that it was to come at.
func (h *heartbeat) add(b *beat, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b.due = at.Sub(h.base)
	if b.queued {
		heap.Fix(&h.beats, b.index)
	} else {
		b.queued = true
		heap.Push(&h.beats, b)
	}
	if !h.armed || b.due < h.next {
		h.arm()
	}
}

// remove lets b come no more.
func (h *heartbeat) remove(b *beat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.queued {
		heap.Remove(&h.beats, b.index)
		b.queued = false
	}
}

// arm sets the timer to the first beat. It needs h.mu.
func (h *heartbeat) arm() {
	h.next = h.beats[0].due
	left := h.next - time.Since(h.base)
	if h.armed = true; h.timer == nil {
		h.timer = time.AfterFunc(left, h.ring)
	} else {
		h.timer.Reset(left)
	}
}

// ring begins all renewals that are due.
func (h *heartbeat) ring() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for now := time.Since(h.base); len(h.beats) > 0 && h.beats[0].due <= now; {
		b := heap.Pop(&h.beats).(*beat)
		b.queued = false
		go b.execution.renew()
	}
	if h.armed = len(h.beats) > 0; h.armed {
		h.arm()
	}
}

// A lease is renewed in the usual part of it, and soon where the store has failed.
const (
	usual = 3
	soon  = 12
)

// keepLease begins to renew the lease.
func (e *Execution) keepLease() {
	now := time.Now()
	e.until = now.Add(e.m.config.Lease)
	e.m.heartbeat.add(&e.beat, now.Add(e.m.config.Lease/usual))
}

// leaveLease ends that, unless a result is owed.
func (e *Execution) leaveLease() {
	e.mu.Lock()
	if e.owed != nil || e.over {
		e.mu.Unlock()
		return
	}
	e.over = true
	e.mu.Unlock()
	e.m.heartbeat.remove(&e.beat)
}

// renew renews the lease. If the store fails it tries again, until the lease must
// be over: then the claim counts as lost, as far as anyone here can tell.
func (e *Execution) renew() {
	e.mu.Lock()
	over, owes := e.over, e.owed != nil
	e.mu.Unlock()
	if over {
		return
	}
	lease := e.m.config.Lease
	if owes {
		e.pay()
		e.beatAgain(lease / soon)
		return
	}
	began := time.Now()
	err := e.m.store.Renew(e.request.Context(), e.key, e.token, lease)

	e.mu.Lock()
	pause := lease / usual
	switch left := time.Until(e.until); {
	case err == nil:
		e.until = began.Add(lease)
	case e.over, e.ending:
		pause = lease / soon
	case errors.Is(err, ErrLost) || left <= 0:
		e.over = true
		e.mu.Unlock()
		e.lose(fmt.Errorf("idempotency: renew the lease: %w", err))
		return
	default:
		pause = min(lease/soon, left)
	}
	e.mu.Unlock()
	e.beatAgain(pause)
}

// beatAgain lets the next renewal come after a pause, if one is needed.
func (e *Execution) beatAgain(pause time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.over {
		e.m.heartbeat.add(&e.beat, time.Now().Add(pause))
	}
}
