// Package heartbeat calls a function for items that are due, many at a time. It is for
// what a process must renew in a store for as long as it needs it, such as leases.
package heartbeat

import (
	"container/heap"
	"sync"
	"time"

	"github.com/usher-go/usher/internal/queue"
)

// A Heartbeat calls a function with all items that are due. Requests come and go much
// faster than their items are due, so a timer for each would cost more than it is worth:
// all items share one. There is no goroutine until an item is due, so a Heartbeat needs no
// Close. It is safe for concurrent use.
type Heartbeat[T any] struct {
	slack time.Duration
	most  int
	fire  func(batch []T)
	base  time.Time

	mu    sync.Mutex
	items queue.Queue[*Item[T]] // by due
	timer *time.Timer
	armed bool          // the timer is running
	next  time.Duration // when the timer fires, since base
}

// New returns a Heartbeat that calls fire with at most that many items, on a goroutine of
// its own for each batch. The batch belongs to fire.
//
// When an item is due, all others that are due within slack go with it. If fire schedules
// its items again, each after the same period, and slack is at least half of that, then
// all items soon go together, whenever each of them was scheduled first.
func New[T any](slack time.Duration, most int, fire func(batch []T)) *Heartbeat[T] {
	return &Heartbeat[T]{slack: slack, most: most, fire: fire, base: time.Now()}
}

// An Item is scheduled by a [Heartbeat]. It can be a field of its own value, and then
// scheduling allocates nothing. It must not be copied.
type Item[T any] struct {
	// Value is what fire gets. It is set before the item is first scheduled.
	Value T

	due       time.Duration // since the base of the Heartbeat
	index     int           // among the items
	scheduled bool
}

// Before and Moved implement [queue.Item].
func (i *Item[T]) Before(other *Item[T]) bool { return i.due < other.due }

// Moved is described at Before.
func (i *Item[T]) Moved(index int) { i.index = index }

// Schedule sets when the item is due, in place of an earlier time. It is due once: fire,
// or any other code, may schedule it again.
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

// Remove cancels the item. It does not wait for a call of fire: that may be running with
// the item, or about to begin.
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

// take removes and returns a batch of the items that are due until then. The caller holds
// h.mu.
func (h *Heartbeat[T]) take(until time.Duration) (batch []T) {
	for len(batch) < h.most && len(h.items) > 0 && h.items[0].due <= until {
		item := heap.Pop(&h.items).(*Item[T])
		item.scheduled = false
		batch = append(batch, item.Value)
	}
	return batch
}
