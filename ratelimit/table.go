package ratelimit

import (
	"math/bits"

	"github.com/usher-go/usher/internal/shard"
)

// table holds the keys of one policy. What belongs to a shard is read and
// written under its lock.
type table struct {
	store *Memory
	order int // in which tables are locked
	keys  *shard.Cache[Key, state]
	// perShard is the most keys that a shard holds.
	perShard int
	// debts has, for each shard, the slots for what dropped keys owe, once one
	// was dropped. Their number is a power of two.
	debts [][]debt
	// held has, for each shard, the places of a concurrency limit in use.
	held []map[Key]int64
}

func newTable(m *Memory, order int) *table {
	keys := shard.New[Key, state](m.capacity, nil)
	n := keys.Shards()
	return &table{
		store: m, order: order, keys: keys,
		perShard: max(m.capacity/n, 1),
		debts:    make([][]debt, n),
		held:     make([]map[Key]int64, n),
	}
}

// state returns the state of the charge's key, which is new or changed to the
// limit's algorithm if need be.
func (t *table) state(c *Charge, now instant) state {
	keys := t.keys.At(c.shard)
	s, ok := keys.Get(c.Key)
	if ok && fits(s, &c.Limit) {
		return s
	}
	if ok {
		s = newState(&c.Limit, now, s.debt(now))
		keys.Add(c.Key, s)
		return s
	}
	if keys.LRU.Len() >= t.perShard {
		if key, oldest, ok := keys.RemoveOldest(); ok {
			t.remember(c.shard, t.keys.Hash(key), oldest.debt(now), now)
		}
	}
	s = newState(&c.Limit, now, t.owed(c.shard, c.hash))
	keys.Add(c.Key.clone(), s)
	return s
}

// slot spreads the keys of a shard, which share the low bits of their hash.
func slot(slots []debt, hash uint64) *debt {
	return &slots[(hash>>32)&uint64(len(slots)-1)]
}

// remember keeps the debt of a key that is dropped.
func (t *table) remember(shard int, hash uint64, d debt, now instant) {
	if d.until <= now.n || d.used <= 0 {
		return
	}
	slots := t.debts[shard]
	if slots == nil {
		slots = make([]debt, 1<<bits.Len(uint(t.perShard-1)))
		t.debts[shard] = slots
	}
	if s := slot(slots, hash); d.over(*s, now) {
		*s = d
	}
}

// owed returns the debt that a key of this hash starts with.
func (t *table) owed(shard int, hash uint64) debt {
	if slots := t.debts[shard]; slots != nil {
		return *slot(slots, hash)
	}
	return debt{}
}

// hold takes n places for the charge's key, or gives -n back.
func (t *table) hold(c *Charge, n int64) {
	held := t.held[c.shard]
	if held == nil {
		held = make(map[Key]int64)
		t.held[c.shard] = held
	}
	switch in, ok := held[c.Key]; {
	case in+n <= 0:
		delete(held, c.Key)
	case ok:
		held[c.Key] = in + n
	default:
		held[c.Key.clone()] = n
	}
}

func (t *table) len() int {
	n := t.keys.Len()
	for i := range t.held {
		s := t.keys.At(i)
		s.Lock()
		n += len(t.held[i])
		s.Unlock()
	}
	return n
}
