// Package heartbeat calls a function for items that are due, many at a time. A process uses
// it to renew what it needs in a store, such as leases.
package heartbeat

import (
	"container/heap"
	"slices"
	"sync"
	"time"

	"github.com/usher-go/usher/internal/queue"
)

// A Heartbeat calls a function with all items that are due. All items share one timer:
// most requests end long before their items are due, so a timer for each would cost more
// than it is worth. There is no goroutine until an item is due, so a Heartbeat needs no
// Close. It is safe for concurrent use.
type Heartbeat[T any] struct {
	slack time.Duration
	limit int // of the items in a batch
	fire  func(batch []T)
	base  time.Time

	mu    sync.Mutex
	items queue.Queue[*Item[T]] // by due
	timer *time.Timer
	armed bool          // the timer is running
	next  time.Duration // when the timer fires, since base
}

// New returns a Heartbeat that calls fire with batches of at most limit items, each on a
// goroutine of its own. The batch belongs to fire.
//
// When an item is due, fire also gets all items that are due within slack. If fire
// schedules its items again after a fixed period, and slack is at least half of that
// period, then all items soon fire together, whenever each was first scheduled.
func New[T any](slack time.Duration, limit int, fire func(batch []T)) *Heartbeat[T] {
	return &Heartbeat[T]{slack: slack, limit: limit, fire: fire, base: time.Now()}
}

// An Item is scheduled by a [Heartbeat]. It can be a field of its own value, and then
// scheduling allocates nothing. It must not be copied.
type Item[T any] struct {
	// Value is passed to fire. Set it before the item is first scheduled.
	Value T

	due       time.Duration // since the base of the Heartbeat
	index     int           // among the items
	scheduled bool
}

// Before and Moved implement [queue.Item].
func (i *Item[T]) Before(other *Item[T]) bool { return i.due < other.due }

// Moved is described at Before.
func (i *Item[T]) Moved(index int) { i.index = index }

// Schedule sets when the item is due, and replaces any time that was set before. The item
// is due once: fire, or any other code, may schedule it again.
func (h *Heartbeat[T]) Schedule(item *Item[T], at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	item.due = at.Sub(h.base)
	if item.scheduled {
		heap.Fix(&h.items, item.index)
	} else {
		item.scheduled = true
		heap.Push(&h.items, item)
	}
	if !h.armed || item.due < h.next {
		h.arm()
	}
}

// Remove cancels the item. It does not wait for a call of fire: one may be running with the
// item, or about to begin.
func (h *Heartbeat[T]) Remove(item *Item[T]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if item.scheduled {
		heap.Remove(&h.items, item.index)
		item.scheduled = false
	}
}

// Len returns the number of items that are scheduled.
func (h *Heartbeat[T]) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.items)
}

// Any reports whether f holds for the value of an item that is scheduled. It looks at all
// of them, and no item can be scheduled meanwhile; f must not call a method of h.
func (h *Heartbeat[T]) Any(f func(T) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.items, func(i *Item[T]) bool { return f(i.Value) })
}

// arm sets the timer to the first item. The caller holds h.mu.
func (h *Heartbeat[T]) arm() {
	h.next = h.items[0].due
	left := h.next - time.Since(h.base)
	if h.armed = true; h.timer == nil {
		h.timer = time.AfterFunc(left, h.beat)
	} else {
		h.timer.Reset(left)
	}
}

// beat calls fire for the items that are due, if there are any: the item that the timer
// was set for may have been removed.
func (h *Heartbeat[T]) beat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Since(h.base)
	if len(h.items) > 0 && h.items[0].due <= now {
		for batch := h.take(now + h.slack); len(batch) > 0; batch = h.take(now + h.slack) {
			go h.fire(batch)
		}
	}
	if h.armed = len(h.items) > 0; h.armed {
		h.arm()
	}
}

// take removes and returns a batch of the items that are due at until or earlier. The
// caller holds h.mu.
func (h *Heartbeat[T]) take(until time.Duration) (batch []T) {
	for len(batch) < h.limit && len(h.items) > 0 && h.items[0].due <= until {
		item := heap.Pop(&h.items).(*Item[T])
		item.scheduled = false
		batch = append(batch, item.Value)
	}
	return batch
}
