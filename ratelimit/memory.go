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
// It has a fixed number of places for the keys of each policy, in sets of eight. A hash that
// no client can predict chooses the set of a key. If all places of a set are taken, a new key
// evicts the one that has used the least share of its limit; of equal ones, the newest. A set
// remembers what evicted keys had used, and whose it is for the four of them that had used
// most. These have the same left as if they had stayed. Any other new key might be one that
// the set has forgotten. So it begins with the most that any of those had used, but with no
// more than lets its first request pass.
//
// Under a flood of invented keys, therefore, memory does not grow, and a key that had used up
// its limit before stays limited, even if the invented keys use up theirs. A key that its set
// forgets during the flood has no more left than before, except for what one more request
// needs and for what it had overdrawn. Each new client has its first request admitted, and
// perhaps no more until the flood has been earned back.
//
// A key that had several limits when it was evicted begins under the limit of its next request
// with the most that it had used under any of them, and under the others with what it has used
// since then.
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
	// Keys is the number of places for the keys of each policy, at most 1e9; zero means
	// 65,536. It is rounded down to whole sets of eight, of which there may be up to 64 fewer. Choose twice
	// as many places as there are keys at a time: then about one key in 100 finds its set
	// full. If there are as many keys as places, one in seven does.
	//
	// A key under a token bucket takes 90 bytes, besides a long text, and about 110 more where
	// the keys of a policy have more than eight different limits. Under another limit it
	// takes about 300, and 16 more for each request in a rolling window. Places that are not
	// used take nearly nothing.
	Keys int
}

const (
	defaultKeys = 65_536
	maxKeys     = 1_000_000_000
)

// NewMemory returns a store. It reports a fault of c as a [*usher.ConfigError].
func NewMemory(c MemoryConfig) (*Memory, error) {
	faults := config.Of[usher.ConfigError]("ratelimit.MemoryConfig")
	faults.If(c.Keys < 0, "Keys", config.NotNegative)
	faults.If(int64(c.Keys) > maxKeys, "Keys", "must be at most 1e9")
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return newMemory(cmp.Or(c.Keys, defaultKeys)), nil
}

func newMemory(keys int) *Memory {
	return &Memory{base: time.Now(), capacity: keys, tables: make(map[string]*table)}
}

// Len returns the number of keys that have places for a policy, or use places of a
// concurrency limit. Some of them may have all their units left again.
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
		t = newTable(m, policy, len(m.tables))
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

// Take implements [Store]. It waits for nothing but other decisions on the same parts of its
// tables, and fails only if it is closed or its caller breaks the contract.
func (m *Memory) Take(_ context.Context, d *Decision) error {
	switch {
	case m.closed.Load():
		return usher.ErrClosed
	case d.ID == (ID{}) || d.Peek:
		return m.take(d)
	default:
		return m.once(d, false, m.take)
	}
}

// Adjust implements [Store]. It fails only if it is closed or its caller breaks the
// contract.
func (m *Memory) Adjust(_ context.Context, d *Decision) error {
	switch {
	case m.closed.Load():
		return usher.ErrClosed
	case d.ID == (ID{}):
		return m.adjust(d)
	default:
		return m.once(d, true, m.adjust)
	}
}

// Renew implements [Store].
func (m *Memory) Renew(_ context.Context, places []Place, lease time.Duration) (lost []Place, err error) {
	if m.closed.Load() {
		return nil, usher.ErrClosed
	}
	for i := range places {
		p := &places[i]
		t := m.table(p.Policy)
		s := t.part(t.hash(&p.Key))
		s.Lock()
		now := m.now()
		ok := s.renew(p, now.n+int64(lease), now)
		s.Unlock()
		if !ok {
			lost = append(lost, *p)
		}
	}
	return lost, nil
}

// errMany is returned to a caller that breaks the contract.
var errMany = fmt.Errorf("ratelimit: more than %d counters in one call", MaxRenew)

// Reset implements [Store]. If the set of a key is full of the debts of others, the key then
// begins as any new one.
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
		c.part.Lock()
		c.table.forget(&c)
		c.part.Unlock()
	}
	return nil
}

// Close implements [Store]. A [Limiter] over a closed Memory refuses requests with 503.
func (m *Memory) Close() error {
	m.closed.Store(true)
	return nil
}

// once makes a call with an ID, unless it is a repetition.
func (m *Memory) once(d *Decision, adjusts bool, call func(*Decision) error) error {
	c, err := m.repeats.begin(d, adjusts, m.now().n)
	if c == nil {
		return err
	}
	err = call(d)
	c.end(d, err)
	return err
}

func (m *Memory) take(d *Decision) error {
	charges := d.Charges
	if len(charges) == 1 && !charges[0].Hold && charges[0].Limit.algorithm != AlgorithmCalendarWindow {
		m.takeOne(d)
		return nil
	}
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

// takeOne does what take does, for the most common decision, which needs less work: one
// charge, by the monotonic clock.
func (m *Memory) takeOne(d *Decision) {
	c := &d.Charges[0]
	m.locate(c)
	c.part.Lock()
	now := m.now()
	c.TakenBy = d.ID
	c.check(now, d.Peek)
	d.Admitted = !c.Violated || c.Shadow
	if !c.Violated && !d.Peek {
		c.take(now)
	}
	c.slot = nil
	c.part.Unlock()
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

// lock locks the parts of the tables that have the keys, and then reads the clock, so that the
// time of a key never goes back. Shards are locked in the order in which their tables were made:
// with one order for all, no two decisions can wait for each other.
func (m *Memory) lock(charges []Charge) (instant, error) {
	if len(charges) > maxCharges {
		return instant{}, fmt.Errorf("ratelimit: more than %d policies in one decision", maxCharges)
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
		charges[i].part.Lock()
	}
	if wall {
		return m.readWall(charges)
	}
	return m.now(), nil
}

// locate finds the part of the table that has the key of c.
func (m *Memory) locate(c *Charge) {
	if t := c.table; t == nil || t.store != m || t.policy != c.Policy {
		c.table = m.table(c.Policy)
	}
	c.hash = c.table.hash(&c.Key)
	c.part = c.table.part(c.hash)
}

// errHolder is returned to a caller that breaks the contract.
var errHolder = errors.New("ratelimit: a decision without an ID cannot hold units")

// errClocks is returned if no window that the caller has given contains the present time.
var errClocks = errors.New("ratelimit: the clocks of the process and of the store are too far apart: " +
	"the store's time is in neither of the two calendar windows")

// readWall also reads the wall clock. That clock may be set, so only calendar limits use
// it. If readWall fails, it unlocks the parts of charges.
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
		c.slot = nil
		c.part.Unlock()
	}
}
