package idempotency

import (
	"math"
	"time"
)

// A node of the heap says when an entry is due to be removed, and which. It is not before
// the entry has expired, and later by at most a tick.
type node uint64

const (
	tick   = 1 << 24 * time.Nanosecond // 17 ms
	maxDue = 1<<60 - tick              // 36 years, for which a node has room
)

func newNode(i uint32, expires time.Duration) node {
	return node((min(expires, maxDue)+tick-1)/tick)<<entryBits | node(i)
}

func (n node) entry() uint32      { return uint32(n % maxEntries) }
func (n node) due() time.Duration { return time.Duration(n>>entryBits) * tick }
func (n node) of(i uint32) node   { return n - n%maxEntries + node(i) }

// before reports whether n is due before other. The numbers of entries do not count, as
// they change.
func (n node) before(other node) bool { return n>>entryBits < other>>entryBits }

// place puts n in position at.
func (t *table) place(at uint32, n node) {
	*t.node(at) = n
	*t.nodeOf(n.entry()) = at
}

// arity is the number of children of a node. More of them make the heap flatter, and lie
// side by side.
const arity = 4

// up places n at a free position or above.
func (t *table) up(at uint32, n node) {
	for at > 0 {
		parent := (at - 1) / arity
		p := *t.node(parent)
		if !n.before(p) {
			break
		}
		t.place(at, p)
		at = parent
	}
	t.place(at, n)
}

// fix places n at a free position of a heap with size nodes, or above or below.
func (t *table) fix(at uint32, n node, size uint32) {
	if at >= size {
		return // it was the last, which has gone
	}
	free := at
	for {
		child, first := t.firstChild(free, size)
		if child == none || !first.before(n) {
			break
		}
		t.place(free, first)
		free = child
	}
	if free != at {
		t.place(free, n)
		return
	}
	t.up(at, n)
}

// firstChild returns the position of the child that comes first, or none, and its node.
func (t *table) firstChild(at, size uint32) (child uint32, first node) {
	child = none
	for i := arity*at + 1; i <= arity*at+arity && i < size; i++ {
		if n := *t.node(i); child == none || n.before(first) {
			child, first = i, n
		}
	}
	return child, first
}

// expire sets when an entry expires.
func (t *table) expire(i uint32, at time.Duration) {
	e := t.at(i)
	if e.expires == at {
		return
	}
	e.expires = at
	t.fix(*t.nodeOf(i), newNode(i, at), t.n)
}

// due returns when the entry that expires first is due to be removed, or when the first two
// are.
func (t *table) due(entries int) time.Duration {
	switch {
	case entries > int(t.n):
		return math.MaxInt64
	case entries == 1:
		return t.node(0).due()
	}
	_, second := t.firstChild(0, t.n)
	return second.due()
}
