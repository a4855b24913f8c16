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
func (s *part) placesOf(c *Charge, now instant) places {
	p := s.places[c.Key]
	if len(p.leased) > 0 {
		p.expire(now.n)
		s.keep(c.Key, p, now)
	}
	return p
}

// occupy takes n places for the key of c, or frees -n places.
func (s *part) occupy(c *Charge, p places, by ID, n int64, now instant) {
	switch {
	case n == 0:
		return
	case c.Lease > 0:
		p.move(by, n, now.n+int64(c.Lease), false)
	default:
		p.anonymous = max(p.anonymous+n, 0)
	}
	s.keep(c.Key, p, now)
}

// adjustPlaces moves up to n places of the decision that took c, and returns how many it
// has moved. It moves none if the decision no longer has places.
func (s *part) adjustPlaces(c *Charge, n int64, now instant) (moved int64) {
	p := s.placesOf(c, now)
	own := p.anonymous
	if c.Lease > 0 {
		i := p.find(c.TakenBy, false)
		if i < 0 {
			return 0
		}
		own = p.leased[i].n
	}
	moved = max(min(n, max(c.Limit.quota-p.used(), 0)), -own)
	s.occupy(c, p, c.TakenBy, moved, now)
	return moved
}

// reserved returns how many units the key of c holds under its policy.
func (s *part) reserved(c *Charge, now instant) int64 {
	if len(s.places) == 0 {
		return 0
	}
	p := s.placesOf(c, now)
	return p.sum(true)
}

// hold changes what the decision by holds by n units.
func (s *part) hold(c *Charge, by ID, n int64, now instant) {
	until := int64(noEnd)
	if c.Lease > 0 {
		until = now.n + int64(c.Lease)
	}
	p := s.placesOf(c, now)
	p.move(by, n, until, true)
	s.keep(c.Key, p, now)
}

// reservedBy returns how many units the decision holds that took c.
func (s *part) reservedBy(c *Charge, now instant) int64 {
	p := s.placesOf(c, now)
	if i := p.find(c.TakenBy, true); i >= 0 {
		return p.leased[i].n
	}
	return 0
}

// renew starts the lease of a place again, if its lease has not ended.
func (s *part) renew(place *Place, until int64, now instant) bool {
	p := s.places[place.Key]
	i := slices.IndexFunc(p.leased, func(l leased) bool { return l.by == place.TakenBy })
	if i < 0 || p.leased[i].until <= now.n {
		return false
	}
	p.leased[i].until = until
	return true
}

// keep stores the places of a key, or forgets a key that uses none.
func (s *part) keep(k Key, p places, now instant) {
	m := s.places
	if p.anonymous == 0 && len(p.leased) == 0 {
		delete(m, k)
		return
	}
	if m == nil {
		m = make(map[Key]places)
		s.places = m
	}
	if _, ok := m[k]; !ok {
		k = k.clone()
		s.sweepPlaces(now)
	}
	m[k] = p
}

// sweepPlaces looks at two keys of a part, and forgets those whose leases have ended. Each
// new key causes one sweep, so keys that nobody asks for again do not accumulate.
func (s *part) sweepPlaces(now instant) {
	n := 0
	for k, p := range s.places {
		if p.expire(now.n); p.anonymous == 0 && len(p.leased) == 0 {
			delete(s.places, k)
		} else {
			s.places[k] = p
		}
		if n++; n == 2 {
			return
		}
	}
}
