package ratelimit

import (
	"cmp"
	"slices"
	"time"
)

// An entry is what a key has used. A key usually has one limit. When its plan changes, or
// when it has several limits at a time, each has a usage of its own, and what is charged
// under one counts under all: the end of a short window does not change what a longer one
// counts.
type entry struct {
	usage
	others []usage // under the limits of other requests
	one    exact   // of an entry that keys share: the time in which a token is earned
}

// A usage is what a key has used under one limit.
type usage struct {
	limit Limit
	state state
	// missed is what was charged under another limit and did not fit here. Refunds
	// reduce it first, since these units were never charged here.
	missed int64
}

// maxOthers is how many limits of a key are kept besides the present one.
const maxOthers = 3

// change makes the usage under l the present one. A new limit starts with the debts under
// all the others, one of which may be dropped.
func (e *entry) change(l *Limit, now instant) {
	if u := e.find(l); u != nil {
		e.usage, *u = *u, e.usage
		return
	}
	known, debts := e.debts(now)
	e.usage = usage{limit: *l, state: newState(l, now, debts...)}
	if len(known) > maxOthers {
		// The usage that ends first matters least.
		first := slices.MinFunc(known, func(a, b usage) int { return cmp.Compare(a.debt(now).until, b.debt(now).until) })
		known = slices.DeleteFunc(known, func(u usage) bool { return u.limit == first.limit })
	}
	e.others = known
}

// find returns the usage under a limit, or nil.
func (e *entry) find(l *Limit) *usage {
	if e.limit.same(l) {
		return &e.usage
	}
	for i := range e.others {
		if u := &e.others[i]; u.limit.same(l) {
			return u
		}
	}
	return nil
}

// debts returns the usages that still count anything, with their debts.
func (e *entry) debts(now instant) (known []usage, debts []debt) {
	for _, u := range append(slices.Clone(e.others), e.usage) {
		if d := u.debt(now); d.until > now.n {
			known, debts = append(known, u), append(debts, d)
		}
	}
	return known, debts
}

// take charges a cost that fits under the present limit.
func (e *entry) take(now instant, cost int64) {
	e.state.take(&e.limit, now, cost)
	if len(e.others) > 0 {
		e.spread(now, now.n, cost)
	}
}

// adjust moves up to cost units under the present limit and returns how many it
// has moved. If it overdraws a bucket, it charges all that a key may owe.
func (e *entry) adjust(now instant, at, cost int64, overdraw bool) (moved int64) {
	if b, ok := e.state.(*bucket); ok && overdraw && cost > 0 {
		moved = b.overdraw(&e.limit, now, cost)
	} else {
		moved = e.state.adjust(&e.limit, now, at, cost)
	}
	e.spread(now, at, moved)
	return moved
}

// spread charges the other limits with what was charged under the present one. It drops a
// calendar window if neither it nor the next one, whose bounds its last caller has given,
// contains the present time.
func (e *entry) spread(now instant, at, cost int64) {
	now.calendar = nil
	e.others = slices.DeleteFunc(e.others, func(u usage) bool {
		c, ok := u.state.(*calendar)
		return ok && c.unknown(now)
	})
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

// debt returns what must be kept when the usage is dropped.
func (u *usage) debt(now instant) debt { return u.state.debt(&u.limit, now).rounded() }

// share returns the share of the limit that is used.
func (u *usage) share(now instant) share {
	d, most := u.debt(now), u.limit.most()
	if d.until <= now.n {
		return share{0, most}
	}
	return share{min(d.used, most), most}
}

// An instant is one reading of the clock: the nanoseconds of monotonic time since the
// store was made, which also identify the instant.
type instant struct {
	n int64
	// calendar is the charge if its limit is a [CalendarWindow], and nil otherwise. It has
	// the time by the wall clock, and may have windows.
	calendar *Charge
}

// A state is what one key has used under one limit. The limit never changes. Its methods
// are called under the lock of the key's shard, with instants that never go back.
type state interface {
	// check returns the result for a request of this cost. It changes nothing that
	// another call could notice.
	check(l *Limit, now instant, cost int64) result
	// take charges a cost for which check has just returned ok.
	take(l *Limit, now instant, cost int64)
	// adjust refunds up to -cost units that were charged at the instant at, or
	// charges up to cost more units, as far as any are left. It returns how many it
	// has moved, with the sign of cost.
	adjust(l *Limit, now instant, at, cost int64) (moved int64)
	// debt returns what must be kept when the state is dropped.
	debt(l *Limit, now instant) debt
}

type result struct {
	ok        bool
	remaining int64
	reset     time.Duration
	wait      time.Duration
}

const never time.Duration = -1

// newState returns the state of a key with the greatest of these debts, which record the
// same use under several limits.
func newState(l *Limit, now instant, debts ...debt) state {
	switch l.algorithm {
	case AlgorithmTokenBucket:
		b := newBucket(l, now, greatest(debts, now))
		return &b
	case AlgorithmRollingWindow:
		return newRolling(l, now, debts)
	default:
		return newCalendar(l, now, greatest(debts, now))
	}
}
