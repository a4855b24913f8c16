package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// Memory is the [Store] of a single process. It is exact, allocates nothing for a key
// that it already keeps, and starts no goroutine.
//
// It keeps at most a fixed number of keys for each policy, and evicts the least recently
// used one to make room. What an evicted key has used is kept in a table of the same
// fixed size, in a slot that several keys may share: a key that was evicted or is new
// starts with the debt in its slot. So a flood of invented keys neither grows the memory
// nor gives anybody a fresh allowance: each of them counts against a slot.
//
// Places of concurrency limits are never evicted; their number is bounded by that of the
// requests in flight.
//
// A Memory also keeps the results of each call with an ID for 5 seconds. A store that wraps
// a Memory makes such calls.
type Memory struct {
	base     time.Time
	capacity int

	closed  atomic.Bool
	repeats repeats

	mu     sync.RWMutex
	tables map[string]*table
}

// A MemoryConfig configures a [Memory]. The zero value is fit for production.
type MemoryConfig struct {
	// Keys is the most keys that are kept for each policy; zero means 65,536. A key takes
	// about 400 bytes, and 16 bytes more for each request in a rolling window.
	Keys int
}

const defaultKeys = 65_536

// NewMemory returns a store. It reports a fault of c as a [*usher.ConfigError].
func NewMemory(c MemoryConfig) (*Memory, error) {
	faults := config.Of[usher.ConfigError]("ratelimit.MemoryConfig")
	faults.If(c.Keys < 0, "Keys", config.NotNegative)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return newMemory(cmp.Or(c.Keys, defaultKeys)), nil
}

func newMemory(keys int) *Memory {
	return &Memory{base: time.Now(), capacity: keys, tables: make(map[string]*table)}
}

// Len returns the number of keys that are kept for a policy.
func (m *Memory) Len(policy string) int {
	m.mu.RLock()
	t := m.tables[policy]
	m.mu.RUnlock()
	if t == nil {
		return 0
	}
	return t.len()
}

// table returns the table of a policy.
func (m *Memory) table(policy string) *table {
	m.mu.RLock()
	t := m.tables[policy]
	m.mu.RUnlock()
	if t != nil {
		return t
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t = m.tables[policy]; t == nil {
		t = newTable(m, len(m.tables))
		m.tables[policy] = t
	}
	return t
}

// now reads the clock.
func (m *Memory) now() instant { return instant{n: int64(time.Since(m.base))} }

// errTwice is returned to a caller that breaks the contract.
var errTwice = errors.New("ratelimit: a policy occurs twice in one decision")

// maxCharges is how many policies one decision may have.
const maxCharges = 16

// Take implements [Store]. It waits for nothing but other decisions on the same shards,
// and fails only if it is closed or its caller breaks the contract.
func (m *Memory) Take(_ context.Context, d *Decision) error {
	return m.once(d, false)
}

// Adjust implements [Store]. It fails only if it is closed or its caller breaks the
// contract.
func (m *Memory) Adjust(_ context.Context, d *Decision) error {
	return m.once(d, true)
}

// Renew implements [Store].
func (m *Memory) Renew(_ context.Context, places []Place, lease time.Duration) (lost []Place, err error) {
	if m.closed.Load() {
		return nil, usher.ErrClosed
	}
	for i := range places {
		p := &places[i]
		t := m.table(p.Policy)
		shard := t.keys.Index(t.hash(&p.Key))
		s := t.keys.At(shard)
		s.Lock()
		now := m.now()
		ok := t.renew(shard, p, now.n+int64(lease), now)
		s.Unlock()
		if !ok {
			lost = append(lost, *p)
		}
	}
	return lost, nil
}

// errMany is returned to a caller that breaks the contract.
var errMany = fmt.Errorf("ratelimit: more than %d counters in one call", MaxRenew)

// Reset implements [Store]. Of what is kept of evicted keys, it forgets the slot of each
// key, even if another key shares it.
func (m *Memory) Reset(_ context.Context, counters []Counter) error {
	switch {
	case m.closed.Load():
		return usher.ErrClosed
	case len(counters) > MaxRenew:
		return errMany
	}
	for i := range counters {
		c := Charge{Policy: counters[i].Policy, Key: counters[i].Key}
		m.locate(&c)
		s := c.table.keys.At(c.shard)
		s.Lock()
		c.table.forget(&c)
		s.Unlock()
	}
	return nil
}

// Close implements [Store]. A [Limiter] over a closed Memory refuses requests with 503.
func (m *Memory) Close() error {
	m.closed.Store(true)
	return nil
}

// once calls take or adjust, unless the call is a repetition.
func (m *Memory) once(d *Decision, adjusts bool) error {
	if m.closed.Load() {
		return usher.ErrClosed
	}
	if d.ID == (ID{}) || d.Peek && !adjusts {
		return m.decide(d, adjusts)
	}
	c, err := m.repeats.begin(d, adjusts, m.now().n)
	if c == nil {
		return err
	}
	err = m.decide(d, adjusts)
	c.end(d, err)
	return err
}

func (m *Memory) decide(d *Decision, adjusts bool) error {
	if adjusts {
		return m.adjust(d)
	}
	return m.take(d)
}

func (m *Memory) take(d *Decision) error {
	charges := d.Charges
	now, err := m.lock(charges)
	if err != nil {
		return err
	}
	d.Admitted = true
	for i := range charges {
		c := &charges[i]
		if c.Hold && d.ID == (ID{}) {
			unlock(charges)
			return errHolder
		}
		c.TakenBy = d.ID
		c.check(now.of(c), d.Peek)
		if c.Violated && !c.Shadow {
			d.Admitted = false
		}
	}
	if d.Admitted && !d.Peek {
		for i := range charges {
			if c := &charges[i]; !c.Violated {
				c.take(now.of(c))
			}
		}
	}
	unlock(charges)
	return nil
}

func (m *Memory) adjust(d *Decision) error {
	now, err := m.lock(d.Charges)
	if err != nil {
		return err
	}
	for i := range d.Charges {
		d.Charges[i].adjust(now.of(&d.Charges[i]))
	}
	unlock(d.Charges)
	return nil
}

// lock locks the shards of all keys and then reads the clock, so that the time of a key
// never goes back. Shards are locked in the order in which their tables were made: with
// one order for all, no two decisions can wait for each other.
func (m *Memory) lock(charges []Charge) (instant, error) {
	if len(charges) > maxCharges {
		return instant{}, fmt.Errorf("ratelimit: more than %d policies in one decision", maxCharges)
	}
	if len(charges) == 1 {
		// The most common decision needs less work.
		c := &charges[0]
		m.locate(c)
		c.table.keys.At(c.shard).Lock()
		if c.Limit.algorithm == AlgorithmCalendarWindow {
			return m.readWall(charges)
		}
		return m.now(), nil
	}
	var order [maxCharges]uint8
	wall := false
	for i := range charges {
		c := &charges[i]
		m.locate(c)
		wall = wall || c.Limit.algorithm == AlgorithmCalendarWindow
		j := i
		for ; j > 0 && charges[order[j-1]].table.order > c.table.order; j-- {
			order[j] = order[j-1]
		}
		if j > 0 && charges[order[j-1]].table == c.table {
			return instant{}, errTwice
		}
		order[j] = uint8(i)
	}
	for _, i := range order[:len(charges)] {
		charges[i].table.keys.At(charges[i].shard).Lock()
	}
	if wall {
		return m.readWall(charges)
	}
	return m.now(), nil
}

// locate finds the shard of the key of c.
func (m *Memory) locate(c *Charge) {
	if c.table == nil || c.table.store != m {
		c.table = m.table(c.Policy)
	}
	c.hash = c.table.hash(&c.Key)
	c.shard = c.table.keys.Index(c.hash)
}

// errHolder is returned to a caller that breaks the contract.
var errHolder = errors.New("ratelimit: a decision without an ID cannot hold units")

// errClocks is returned if no window that the caller has given contains the present time.
var errClocks = errors.New("ratelimit: the clocks of the process and of the store are too far apart: " +
	"the store's time is in neither of the two calendar windows")

// readWall also reads the wall clock. That clock may be set, so only calendar limits use
// it. If readWall fails, it unlocks the shards of charges.
func (m *Memory) readWall(charges []Charge) (instant, error) {
	t := time.Now()
	wall := t.UnixNano()
	for i := range charges {
		c := &charges[i]
		if c.Limit.algorithm != AlgorithmCalendarWindow {
			continue
		}
		c.wall = wall
		if end := c.Windows[1].End; end.IsZero() || t.Before(end) || c.Limit.quota == 0 {
			continue
		}
		if u := c.table.usage(c); u == nil || wall >= u.state.(*calendar).end {
			unlock(charges)
			return instant{}, errClocks
		}
	}
	return instant{n: int64(t.Sub(m.base))}, nil
}

// of returns the instant for the limit of c.
func (now instant) of(c *Charge) instant {
	if c.Limit.algorithm == AlgorithmCalendarWindow {
		now.calendar = c
	}
	return now
}

func unlock(charges []Charge) {
	for i := range charges {
		c := &charges[i]
		c.entry = nil
		c.table.keys.At(c.shard).Unlock()
	}
}
