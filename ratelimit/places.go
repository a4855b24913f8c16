package ratelimit

import (
	"math"
	"slices"
)

// places are the places of a concurrency limit that a key uses, and the units that it holds
// under other limits.
type places struct {
	anonymous int64 // places in use until they are refunded
	leased    []leased
}

// leased are the places that one decision has taken under a lease, or the units that it
// holds.
type leased struct {
	by    ID
	n     int64
	until int64 // the instant at which the lease ends
	hold  bool  // of units, not places
}

// noEnd is the end of a lease that has none.
const noEnd = math.MaxInt64

// used returns the number of places in use.
func (p *places) used() int64 { return p.anonymous + p.sum(false) }

func (p *places) sum(hold bool) (n int64) {
	for i := range p.leased {
		if p.leased[i].hold == hold {
			n += p.leased[i].n
		}
	}
	return n
}

func (p *places) find(by ID, hold bool) int {
	return slices.IndexFunc(p.leased, func(l leased) bool { return l.by == by && l.hold == hold })
}

// expire frees the places whose lease has ended.
func (p *places) expire(now int64) {
	p.leased = slices.DeleteFunc(p.leased, func(l leased) bool { return l.until <= now })
}

// move charges the decision by with n places or units, or frees -n of them.
func (p *places) move(by ID, n, until int64, hold bool) {
	i := p.find(by, hold)
	switch {
	case n == 0:
	case i < 0:
		p.leased = append(p.leased, leased{by, n, until, hold})
	case p.leased[i].n+n <= 0:
		p.leased = slices.Delete(p.leased, i, i+1)
	default:
		p.leased[i].n += n
	}
}

// placesOf returns the places of the key of c. Those whose lease has ended are free.
func (t *table) placesOf(c *Charge, now instant) places {
	p := t.places[c.shard][c.Key]
	if len(p.leased) > 0 {
		p.expire(now.n)
		t.keep(c.shard, c.Key, p, now)
	}
	return p
}

// occupy takes n places for the key of c, or frees -n places.
func (t *table) occupy(c *Charge, p places, by ID, n int64, now instant) {
	switch {
	case n == 0:
		return
	case c.Lease > 0:
		p.move(by, n, now.n+int64(c.Lease), false)
	default:
		p.anonymous = max(p.anonymous+n, 0)
	}
	t.keep(c.shard, c.Key, p, now)
}

// adjustPlaces moves up to n places of the decision that took c, and returns how many it
// has moved. It moves none if the decision no longer has places.
func (t *table) adjustPlaces(c *Charge, n int64, now instant) (moved int64) {
	p := t.placesOf(c, now)
	own := p.anonymous
	if c.Lease > 0 {
		i := p.find(c.TakenBy, false)
		if i < 0 {
			return 0
		}
		own = p.leased[i].n
	}
	moved = max(min(n, max(c.Limit.quota-p.used(), 0)), -own)
	t.occupy(c, p, c.TakenBy, moved, now)
	return moved
}

// reserved returns how many units the key of c holds under its policy.
func (t *table) reserved(c *Charge, now instant) int64 {
	if len(t.places[c.shard]) == 0 {
		return 0
	}
	p := t.placesOf(c, now)
	return p.sum(true)
}

// hold changes what the decision by holds by n units.
func (t *table) hold(c *Charge, by ID, n int64, now instant) {
	until := int64(noEnd)
	if c.Lease > 0 {
		until = now.n + int64(c.Lease)
	}
	p := t.placesOf(c, now)
	p.move(by, n, until, true)
	t.keep(c.shard, c.Key, p, now)
}

// reservedBy returns how many units the decision holds that took c.
func (t *table) reservedBy(c *Charge, now instant) int64 {
	p := t.placesOf(c, now)
	if i := p.find(c.TakenBy, true); i >= 0 {
		return p.leased[i].n
	}
	return 0
}

// renew starts the lease of a place again, if its lease has not ended.
func (t *table) renew(shard int, place *Place, until int64, now instant) bool {
	p := t.places[shard][place.Key]
	i := slices.IndexFunc(p.leased, func(l leased) bool { return l.by == place.TakenBy })
	if i < 0 || p.leased[i].until <= now.n {
		return false
	}
	p.leased[i].until = until
	return true
}

// keep stores the places of a key, or forgets a key that uses none.
func (t *table) keep(shard int, k Key, p places, now instant) {
	m := t.places[shard]
	if p.anonymous == 0 && len(p.leased) == 0 {
		delete(m, k)
		return
	}
	if m == nil {
		m = make(map[Key]places)
		t.places[shard] = m
	}
	if _, ok := m[k]; !ok {
		k = k.clone()
		t.sweepPlaces(shard, now)
	}
	m[k] = p
}

// sweepPlaces looks at two keys of a shard, and forgets those whose leases have ended. Each
// new key causes one sweep, so keys that nobody asks for again do not accumulate.
func (t *table) sweepPlaces(shard int, now instant) {
	n := 0
	for k, p := range t.places[shard] {
		if p.expire(now.n); p.anonymous == 0 && len(p.leased) == 0 {
			delete(t.places[shard], k)
		} else {
			t.places[shard][k] = p
		}
		if n++; n == 2 {
			return
		}
	}
}
