package idempotency

import (
	"container/heap"
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

// add lets b come at a time.
func (h *heartbeat) add(b *beat, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b.due, b.queued = at.Sub(h.base), true
	heap.Push(&h.beats, b)
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
