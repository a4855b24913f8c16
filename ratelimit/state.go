package ratelimit

import "time"

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
	// ask returns what a request of this cost meets. It changes nothing that
	// another call could notice.
	ask(l *Limit, now instant, cost int64) answer
	// take charges a cost that ask has just granted.
	take(l *Limit, now instant, cost int64)
	// adjust gives back up to -cost units that were taken at the instant at, or
	// takes up to cost units more, as far as any are left. It returns how many it
	// has moved, with the sign of cost.
	adjust(l *Limit, now instant, at, cost int64) (moved int64)
	// debt returns what must not be forgotten when the state is.
	debt(l *Limit, now instant) debt
}

type answer struct {
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
