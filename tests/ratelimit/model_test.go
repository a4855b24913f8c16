package ratelimit_test

import (
	"cmp"
	"context"
	"errors"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

// A model is a store that is as simple as it can be: its clock has microseconds, like those
// of stores on servers, and it computes with rational numbers and plain lists.
type model struct {
	now func() int64
	// ahead handles a usage whose instants are in the future because the clock was set
	// back.
	ahead func(u *modelUsage, now int64) error

	mu     sync.Mutex
	closed bool
	calls  map[ratelimit.ID]*ratelimit.Decision
	keys   map[counter][]*modelUsage // the present limit last
	places map[counter][]modelPlace
}

type counter struct {
	policy string
	key    ratelimit.Key
}

type modelPlace struct {
	by       ratelimit.ID
	n, until int64
	hold     bool // of units
}

// A modelUsage is what a key has used under one limit.
type modelUsage struct {
	limit  ratelimit.Limit
	missed int64
	full   *big.Rat     // the instant at which a token bucket is full
	most   int64        // the tokens that were missing from it when it was last changed
	stamps []modelStamp // of a rolling window, oldest first
	// The ends of the present calendar window and of the next one, the instant at which it
	// was opened, and what was used in it.
	end, next, opened, used int64
}

type modelStamp struct{ at, cost int64 }

type modelDebt struct{ used, until int64 }

func newModel(now func() int64) *model {
	return &model{
		now:    now,
		ahead:  catchUp,
		calls:  make(map[ratelimit.ID]*ratelimit.Decision),
		keys:   make(map[counter][]*modelUsage),
		places: make(map[counter][]modelPlace),
	}
}

func TestAModelDecidesAsAMemory(t *testing.T) {
	ratelimittest.TestDecisions(t, func(testing.TB) (ratelimit.Store, func(time.Time)) {
		var now int64
		return newModel(func() int64 { return now }), func(t time.Time) { now = t.UnixMicro() }
	})
}

func TestAModelIsAStore(t *testing.T) {
	ratelimittest.TestStore(t, func(testing.TB) ratelimit.Store {
		return newModel(func() int64 { return time.Now().UnixMicro() })
	})
}

func (m *model) Take(_ context.Context, d *ratelimit.Decision) error {
	return m.once(d, func(now int64) {
		d.Admitted = true
		for i := range d.Charges {
			c := &d.Charges[i]
			c.TakenBy, c.TakenAt = d.ID, now
			m.check(c, now)
			d.Admitted = d.Admitted && (!c.Violated || c.Shadow)
		}
		if d.Peek {
			return
		}
		for i := range d.Charges {
			if c := &d.Charges[i]; d.Admitted && !c.Violated && c.Limit.Quota() > 0 {
				m.take(c, now)
			}
		}
	})
}

func (m *model) Adjust(_ context.Context, d *ratelimit.Decision) error {
	return m.once(d, func(now int64) {
		for i := range d.Charges {
			c := &d.Charges[i]
			switch k := (counter{c.Policy, c.Key}); {
			case c.Limit.Quota() == 0:
				c.Moved = 0
			case c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency:
				c.Moved = m.adjustPlaces(c, now)
			default:
				c.Moved = m.move(k, c, now)
			}
		}
	})
}

func (m *model) Renew(_ context.Context, places []ratelimit.Place, lease time.Duration) (lost []ratelimit.Place, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, usher.ErrClosed
	}
	for _, p := range places {
		in := m.inUse(counter{p.Policy, p.Key}, m.now())
		if i := slices.IndexFunc(in, func(q modelPlace) bool { return q.by == p.TakenBy }); i >= 0 {
			in[i].until = m.now() + lease.Microseconds()
		} else {
			lost = append(lost, p)
		}
	}
	return lost, nil
}

func (m *model) Reset(_ context.Context, counters []ratelimit.Counter) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return usher.ErrClosed
	case len(counters) > ratelimit.MaxRenew:
		return errors.New("too many counters")
	}
	for _, c := range counters {
		delete(m.keys, counter{c.Policy, c.Key})
	}
	return nil
}

func (m *model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// once calls decide, unless the call is repeated or cannot be decided.
func (m *model) once(d *ratelimit.Decision, decide func(now int64)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if known := m.calls[d.ID]; known != nil && !d.Peek {
		*d = ratelimit.Decision{ID: d.ID, Admitted: known.Admitted, Charges: slices.Clone(known.Charges)}
		return nil
	}
	for i, c := range d.Charges {
		switch end := c.Windows[1].End; {
		case i == 16 || slices.ContainsFunc(d.Charges[:i], func(o ratelimit.Charge) bool { return o.Policy == c.Policy }):
			return errors.New("too many charges")
		case end.IsZero() || now < end.UnixMicro() || c.Limit.Quota() == 0:
		case !slices.ContainsFunc(m.keys[counter{c.Policy, c.Key}], func(u *modelUsage) bool { return sameLimit(u.limit, c.Limit) && now < u.end }):
			return errors.New("the clocks are too far apart")
		}
	}
	if m.closed {
		return usher.ErrClosed
	}
	for _, c := range d.Charges {
		for _, u := range m.keys[counter{c.Policy, c.Key}] {
			if err := m.ahead(u, now); err != nil {
				return err
			}
		}
	}
	if d.Peek {
		kept := m.keys
		defer func() { m.keys = kept }()
		m.keys = make(map[counter][]*modelUsage)
		for _, c := range d.Charges {
			k := counter{c.Policy, c.Key}
			for _, u := range kept[k] {
				m.keys[k] = append(m.keys[k], u.clone())
			}
		}
	}
	decide(now)
	if d.Peek {
		return nil
	}
	m.calls[d.ID] = &ratelimit.Decision{Admitted: d.Admitted, Charges: slices.Clone(d.Charges)}
	return nil
}

func (m *model) check(c *ratelimit.Charge, now int64) {
	need := max(c.Cost, c.MinRemaining)
	c.Remaining, c.Reset, c.Wait = 0, 0, 0
	switch {
	case c.Limit.Quota() == 0:
		if c.Violated = need > 0 && c.Limit.Algorithm() != ratelimit.AlgorithmUnlimited; c.Violated {
			c.Wait = -1
		}
	case c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency:
		c.Remaining = max(c.Limit.Quota()-used(m.inUse(counter{c.Policy, c.Key}, now)), 0)
		c.Violated = need > c.Remaining && need > 0
		if need > c.Limit.Quota() {
			c.Wait = -1
		}
	default:
		var wait int64
		var reset int64
		c.Remaining, reset, wait = m.usage(c, now).check(&c.Windows, now, need)
		if c.Violated = need > c.Remaining && need > 0; c.Violated {
			c.Wait = time.Duration(wait) * time.Microsecond
		}
		c.Remaining = max(c.Remaining-reserved(m.inUse(counter{c.Policy, c.Key}, now)), 0)
		c.Violated = c.Violated || need > c.Remaining && need > 0
		c.Reset = time.Duration(reset) * time.Microsecond
	}
	if c.Wait < 0 {
		c.Wait = -1
	}
}

func (m *model) take(c *ratelimit.Charge, now int64) {
	k := counter{c.Policy, c.Key}
	c.Remaining -= c.Cost
	if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
		m.occupy(k, c, now, false)
		return
	}
	if c.Hold {
		m.occupy(k, c, now, true)
		return
	}
	u := m.usage(c, now)
	u.adjust(&c.Windows, now, now, c.Cost, false)
	m.spread(k, now, now, c.Cost)
	if c.Reset == 0 && c.Cost > 0 {
		_, reset, _ := u.check(&c.Windows, now, 0)
		c.Reset = time.Duration(reset) * time.Microsecond
	}
}

func (m *model) occupy(k counter, c *ratelimit.Charge, now int64, hold bool) {
	if c.Cost > 0 {
		m.places[k] = append(m.inUse(k, now), modelPlace{c.TakenBy, c.Cost, now + c.Lease.Microseconds(), hold})
	}
}

// move adjusts what a key has used or holds.
func (m *model) move(k counter, c *ratelimit.Charge, now int64) (moved int64) {
	u := m.usage(c, now)
	at, cost := c.TakenAt, c.Cost
	in := m.inUse(k, now)
	own := slices.IndexFunc(in, func(p modelPlace) bool { return p.hold && p.by == c.TakenBy })
	if c.Hold && c.EndHold {
		at, cost = now, max(cost, 0)
		if own >= 0 {
			m.places[k] = slices.Delete(in, own, own+1)
		}
	}
	overdraw := c.Overdraw && c.Limit.Algorithm() == ratelimit.AlgorithmTokenBucket && (!c.Hold || c.EndHold)
	left, _, _ := u.check(&c.Windows, now, 0)
	if cost > 0 && !overdraw {
		cost = min(cost, max(left-reserved(m.inUse(k, now)), 0))
	}
	switch {
	case !c.Hold || c.EndHold:
		moved = u.adjust(&c.Windows, now, at, cost, overdraw)
		m.spread(k, now, at, moved)
	case own >= 0:
		moved = max(cost, -in[own].n)
		if in[own].n += moved; in[own].n == 0 {
			m.places[k] = slices.Delete(in, own, own+1)
		}
	}
	return moved
}

// inUse returns the places whose lease has not ended.
func (m *model) inUse(k counter, now int64) []modelPlace {
	m.places[k] = slices.DeleteFunc(m.places[k], func(p modelPlace) bool { return p.until <= now })
	return m.places[k]
}

func used(places []modelPlace) (n int64) {
	for _, p := range places {
		if !p.hold {
			n += p.n
		}
	}
	return n
}

func reserved(places []modelPlace) (n int64) {
	for _, p := range places {
		if p.hold {
			n += p.n
		}
	}
	return n
}

func (m *model) adjustPlaces(c *ratelimit.Charge, now int64) (moved int64) {
	k := counter{c.Policy, c.Key}
	in := m.inUse(k, now)
	i := slices.IndexFunc(in, func(p modelPlace) bool { return !p.hold && p.by == c.TakenBy })
	if i < 0 {
		return 0
	}
	moved = max(min(c.Cost, max(c.Limit.Quota()-used(in), 0)), -in[i].n)
	if in[i].n += moved; in[i].n == 0 {
		m.places[k] = slices.Delete(in, i, i+1)
	}
	return moved
}

func sameLimit(a, b ratelimit.Limit) bool {
	unit, begin := a.Calendar()
	otherUnit, otherBegin := b.Calendar()
	return a == b || begin != "" && a.Quota() == b.Quota() && unit == otherUnit && begin == otherBegin
}

// usage returns the usage under the limit of c, which becomes the present one.
func (m *model) usage(c *ratelimit.Charge, now int64) *modelUsage {
	k := counter{c.Policy, c.Key}
	all := m.keys[k]
	last := len(all) - 1
	if i := slices.IndexFunc(all, func(u *modelUsage) bool { return sameLimit(u.limit, c.Limit) }); i >= 0 {
		all[i], all[last] = all[last], all[i]
		return all[last]
	}
	var debts []modelDebt
	all = slices.DeleteFunc(all, func(u *modelUsage) bool {
		d := u.debt(now)
		if d.until > now {
			debts = append(debts, d)
		}
		return d.until <= now
	})
	if len(all) > 3 {
		first := slices.MinFunc(all, func(a, b *modelUsage) int { return cmp.Compare(a.debt(now).until, b.debt(now).until) })
		all = slices.DeleteFunc(all, func(u *modelUsage) bool { return u == first })
	}
	u := newUsage(c, now, debts)
	m.keys[k] = append(all, u)
	return u
}

// spread charges the other limits of a key with what was charged under the present one.
func (m *model) spread(k counter, now, at, cost int64) {
	all := m.keys[k]
	present := all[len(all)-1]
	others := slices.DeleteFunc(all[:len(all)-1], func(u *modelUsage) bool {
		return u.limit.Algorithm() == ratelimit.AlgorithmCalendarWindow && now >= u.next
	})
	for _, u := range others {
		cost := cost
		if cost < 0 {
			untaken := min(-cost, u.missed)
			u.missed -= untaken
			cost += untaken
		}
		if moved := u.adjust(nil, now, at, cost, false); cost > 0 {
			u.missed += cost - moved
		}
	}
	m.keys[k] = append(others, present)
}
