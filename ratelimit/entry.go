package ratelimit

import (
	"cmp"
	"slices"
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

// take charges what ask has granted under the present limit.
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
