package ratelimit

import (
	"cmp"
	"slices"
	"time"
)

// An entry is a key and what it has used. It usually has one limit. When its plan
// changes, or several are in use at a time, each limit has a usage of its own, and
// whatever is charged under one of them counts under all: a short window that
// ends makes no longer one forget.
type entry struct {
	key Key
	usage
	others []usage // under the limits that others have met
}

// A usage is what a key has used under one limit.
type usage struct {
	limit Limit
	state state
	// missed is what was charged under another limit and did not fit here. Units
	// that are given back are taken off it first: they were never taken here.
	missed int64
}

// maxOthers is how many limits of a key are remembered beside the present one.
const maxOthers = 3

// change puts the usage under l in front. A limit that is new begins with what is
// owed under the others, all of which it may come to replace.
func (e *entry) change(l *Limit, now instant) {
	for i := range e.others {
		if u := &e.others[i]; u.limit == *l {
			e.usage, *u = *u, e.usage
			return
		}
	}
	known := append(e.others, e.usage)
	owed := make([]debt, 0, len(known))
	known = slices.DeleteFunc(known, func(u usage) bool {
		d := u.debt(now)
		if d.until > now.n {
			owed = append(owed, d)
		}
		return d.until <= now.n
	})
	e.usage = usage{limit: *l, state: newState(l, now, owed...)}
	if len(known) > maxOthers {
		// The one that ends first has the least to remember.
		first := slices.MinFunc(known, func(a, b usage) int { return cmp.Compare(a.debt(now).until, b.debt(now).until) })
		known = slices.DeleteFunc(known, func(u usage) bool { return u.limit == first.limit })
	}
	e.others = known
}

// take charges what check has granted under the present limit.
func (e *entry) take(now instant, cost int64) {
	e.state.take(&e.limit, now, cost)
	if len(e.others) > 0 {
		e.spread(now, now.n, cost)
	}
}

// adjust moves up to cost units under the present limit and returns how many it
// has moved.
func (e *entry) adjust(now instant, at, cost int64) (moved int64) {
	moved = e.state.adjust(&e.limit, now, at, cost)
	e.spread(now, at, moved)
	return moved
}

// spread charges the other limits with what was charged under the present one.
func (e *entry) spread(now instant, at, cost int64) {
	for i := range e.others {
		e.others[i].follow(now, at, cost)
	}
}

func (u *usage) follow(now instant, at, cost int64) {
	if cost < 0 {
		untaken := min(-cost, u.missed)
		u.missed -= untaken
		cost += untaken
	}
	if moved := u.state.adjust(&u.limit, now, at, cost); cost > 0 {
		u.missed += cost - moved
	}
}

func (u *usage) debt(now instant) debt { return u.state.debt(&u.limit, now) }

// An instant is one reading of the clock: the time, and the nanoseconds of
// monotonic time since the store was made, which also name the instant.
type instant struct {
	time time.Time
	n    int64
}

// A state is what is known of one key under one limit, which is always the same.
// Its methods are called under the lock of the key's shard, with instants that
// never go back.
type state interface {
	// check returns what a request of this cost meets. It changes nothing that
	// another call could notice.
	check(l *Limit, now instant, cost int64) result
	// take charges a cost that check has just granted.
	take(l *Limit, now instant, cost int64)
	// adjust gives back up to -cost units that were taken at the instant at, or
	// takes up to cost units more, as far as any are left. It returns how many it
	// has moved, with the sign of cost.
	adjust(l *Limit, now instant, at, cost int64) (moved int64)
	// debt returns what must not be forgotten when the state is.
	debt(l *Limit, now instant) debt
}

type result struct {
	ok        bool
	remaining int64
	reset     time.Duration
	wait      time.Duration
}

const never time.Duration = -1

// newState returns the state of a key that owes the greatest of these debts: they
// are what one use has left under several limits.
func newState(l *Limit, now instant, owed ...debt) state {
	switch l.algorithm {
	case AlgorithmTokenBucket:
		return newBucket(l, now, greatest(owed, now))
	case AlgorithmRollingWindow:
		return newRolling(l, now, owed)
	default:
		return newCalendar(l, now, greatest(owed, now))
	}
}

// A debt is what a key had used when its state was dropped. It is kept in place
// of the state, in a slot that several keys share, and a key that comes back or
// comes new starts with the debt in its slot: under a flood of keys nobody gets
// a fresh start by being forgotten, and memory stays where it is.
type debt struct {
	used  int64 // units
	until int64 // the instant at which nothing is owed any more
}

// over reports whether d is the one to remember of two debts in one slot.
func (d debt) over(other debt, now instant) bool {
	if other.until <= now.n {
		return true
	}
	if d.used != other.used {
		return d.used > other.used
	}
	return d.until > other.until
}

// greatest returns the debt that remembers the most.
func greatest(owed []debt, now instant) (d debt) {
	for _, o := range owed {
		if o.over(d, now) {
			d = o
		}
	}
	return d
}
