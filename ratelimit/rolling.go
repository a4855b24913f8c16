package ratelimit

import "time"

// rolling is an exact rolling window: it remembers each request that still
// counts, oldest first.
type rolling struct {
	ring   []stamp // a power of two long
	head   int     // of the oldest
	count  int
	used   int64
	length time.Duration // of the window that the newest was taken under
}

// A stamp is a request that was charged.
type stamp struct {
	at   int64
	cost int64
}

func newRolling(l *Limit, now instant, d debt) *rolling {
	r := &rolling{length: l.per}
	if d.until > now.n && d.used > 0 {
		// All of it counts until the last of it does not: never too little.
		r.push(stamp{at: min(d.until-int64(l.per), now.n), cost: min(d.used, l.quota)})
	}
	return r
}

func (r *rolling) at(i int) *stamp { return &r.ring[(r.head+i)&(len(r.ring)-1)] }

func (r *rolling) push(s stamp) {
	if r.count == len(r.ring) {
		bigger := make([]stamp, max(2*len(r.ring), 4))
		for i := range r.count {
			bigger[i] = *r.at(i)
		}
		r.ring, r.head = bigger, 0
	}
	r.count++
	*r.at(r.count - 1) = s
	r.used += s.cost
}

// expire forgets what no longer counts. A request counts for the whole length
// of the window and not an instant longer.
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

func (r *rolling) ask(l *Limit, now instant, cost int64) answer {
	r.expire(l, now)
	a := answer{ok: cost == 0 || r.used+cost <= l.quota, remaining: max(l.quota-r.used, 0)}
	if r.count > 0 {
		a.reset = r.leaves(0, l, now)
	}
	if a.ok {
		return a
	}
	if cost > l.quota {
		a.wait = never
		return a
	}
	// The oldest stamps leave first; each has a cost of at least one, so this
	// looks at no more of them than the request costs.
	excess := r.used + cost - l.quota
	for i := 0; i < r.count && excess > 0; i++ {
		excess -= r.at(i).cost
		a.wait = r.leaves(i, l, now)
	}
	return a
}

// leaves returns when the i-th oldest stamp stops to count.
func (r *rolling) leaves(i int, l *Limit, now instant) time.Duration {
	return time.Duration(r.at(i).at + int64(l.per) - now.n)
}

func (r *rolling) take(l *Limit, now instant, cost int64) {
	r.length = l.per
	if cost > 0 {
		r.push(stamp{at: now.n, cost: cost})
	}
}

func (r *rolling) adjust(l *Limit, now instant, at, cost int64) {
	r.expire(l, now)
	if cost > 0 {
		r.take(l, now, min(cost, max(l.quota-r.used, 0)))
		return
	}
	back := -cost
	for i := r.count - 1; i >= 0 && back > 0 && r.at(i).at >= at; i-- {
		s := r.at(i)
		if s.at != at {
			continue
		}
		given := min(back, s.cost)
		s.cost -= given
		r.used -= given
		back -= given
	}
}

func (r *rolling) debt(now instant) debt {
	if r.count == 0 {
		return debt{}
	}
	return debt{used: r.used, until: r.at(r.count-1).at + int64(r.length)}
}
