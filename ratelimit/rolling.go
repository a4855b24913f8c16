package ratelimit

import (
	"cmp"
	"slices"
	"time"
)

// A rolling window is exact: it keeps each request that still counts, oldest first.
type rolling struct {
	ring  []stamp // a power of two long
	head  int     // the index of the oldest
	count int
	used  int64
}

// A stamp is what was charged at one instant. Its cost is never 0, so a window has no
// more stamps than its quota has units.
type stamp struct {
	at   int64
	cost int64
}

func newRolling(l *Limit, now instant, debts []debt) *rolling {
	r := new(rolling)
	// A whole debt counts until its last unit expires, so never too little counts. A debt
	// that ends later is part of a greater one.
	slices.SortFunc(debts, func(a, b debt) int { return cmp.Compare(b.until, a.until) })
	for _, d := range debts {
		if more := min(d.used, l.quota) - r.used; d.until > now.n && more > 0 {
			r.add(min(d.until-int64(l.per), now.n), more)
		}
	}
	return r
}

func (r *rolling) at(i int) *stamp { return &r.ring[(r.head+i)&(len(r.ring)-1)] }

// add charges a cost at an instant, which is nearly always the newest.
func (r *rolling) add(at, cost int64) {
	r.used += cost
	i := r.count
	for ; i > 0; i-- {
		s := r.at(i - 1)
		if s.at == at {
			s.cost += cost
			return
		}
		if s.at < at {
			break
		}
	}
	if r.count == len(r.ring) {
		r.grow()
	}
	for j := r.count; j > i; j-- {
		*r.at(j) = *r.at(j - 1)
	}
	*r.at(i) = stamp{at, cost}
	r.count++
}

func (r *rolling) grow() {
	bigger := make([]stamp, max(2*len(r.ring), 4))
	for i := range r.count {
		bigger[i] = *r.at(i)
	}
	r.ring, r.head = bigger, 0
}

// refund removes up to cost units from the stamp of an instant.
func (r *rolling) refund(at, cost int64) (given int64) {
	i := r.count - 1
	for i >= 0 && r.at(i).at > at {
		i--
	}
	if i < 0 || r.at(i).at != at {
		return 0
	}
	s := r.at(i)
	given = min(cost, s.cost)
	s.cost -= given
	r.used -= given
	if s.cost == 0 {
		for ; i < r.count-1; i++ {
			*r.at(i) = *r.at(i + 1)
		}
		r.count--
	}
	return given
}

// expire drops what no longer counts. A request counts for the whole length of the
// window and not an instant longer.
func (r *rolling) expire(l *Limit, now instant) {
	for r.count > 0 && now.n-r.at(0).at >= int64(l.per) {
		r.used -= r.at(0).cost
		r.head = (r.head + 1) & (len(r.ring) - 1)
		r.count--
	}
	if r.count == 0 && len(r.ring) > 64 {
		r.ring, r.head = nil, 0
	}
}

func (r *rolling) check(l *Limit, now instant, cost int64) result {
	r.expire(l, now)
	res := result{ok: cost == 0 || r.used+cost <= l.quota, remaining: max(l.quota-r.used, 0)}
	if r.count > 0 {
		res.reset = r.leaves(0, l, now)
	}
	if res.ok {
		return res
	}
	if cost > l.quota {
		res.wait = never
		return res
	}
	// The oldest stamps expire first. Each has a cost of at least one, so this loop
	// visits no more stamps than the request costs.
	excess := r.used + cost - l.quota
	for i := 0; i < r.count && excess > 0; i++ {
		excess -= r.at(i).cost
		res.wait = r.leaves(i, l, now)
	}
	return res
}

// leaves returns the time until the i-th oldest stamp expires.
func (r *rolling) leaves(i int, l *Limit, now instant) time.Duration {
	return time.Duration(r.at(i).at + int64(l.per) - now.n)
}

func (r *rolling) take(_ *Limit, now instant, cost int64) {
	if cost > 0 {
		r.add(now.n, cost)
	}
}

func (r *rolling) adjust(l *Limit, now instant, at, cost int64) (moved int64) {
	r.expire(l, now)
	if cost < 0 {
		return -r.refund(at, -cost)
	}
	if moved = min(cost, max(l.quota-r.used, 0)); moved == 0 {
		return 0
	}
	// Add to the original charge, where a refund finds the units; but if that charge has
	// expired, they would count for nothing.
	if at > now.n || now.n-at >= int64(l.per) {
		at = now.n
	}
	r.add(at, moved)
	return moved
}

func (r *rolling) debt(l *Limit, now instant) debt {
	r.expire(l, now)
	if r.count == 0 {
		return debt{}
	}
	return debt{used: r.used, until: r.at(r.count-1).at + int64(l.per)}
}
