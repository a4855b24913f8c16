package ratelimit

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"github.com/usher-go/usher/internal/shard"
)

// A table holds the keys of one policy. What belongs to a shard is read and written
// under the lock of the shard.
type table struct {
	store *Memory
	order int // in which tables are locked
	// keys has the entries by the hash of their key, which is computed once for each
	// charge.
	seed maphash.Seed
	keys *shard.Cache[uint64, *entry]
	// perShard is the most keys that a shard holds.
	perShard int
	// debts has, for each shard, the slots for the debts of dropped keys, or nil until a
	// key is dropped. Their number is a power of two.
	debts [][]debt
	// places has, for each shard, the places of concurrency limits that each key uses.
	places []map[Key]places
}

func newTable(m *Memory, order int) *table {
	keys := shard.New[uint64, *entry](m.capacity, nil)
	n := keys.Shards()
	return &table{
		store: m, order: order, seed: maphash.MakeSeed(), keys: keys,
		perShard: max(m.capacity/n, 1),
		debts:    make([][]debt, n),
		places:   make([]map[Key]places, n),
	}
}

// hash returns the hash of a key, which clients cannot predict.
func (t *table) hash(k *Key) uint64 {
	// Clients do not choose the origin, and no key has both an address and a text.
	if k.text != "" {
		return maphash.String(t.seed, k.text) ^ uint64(k.origin)*0x9e3779b97f4a7c15
	}
	var b [24]byte
	binary.BigEndian.PutUint64(b[:], uint64(k.origin))
	binary.BigEndian.PutUint64(b[8:], k.hi)
	binary.BigEndian.PutUint64(b[16:], k.lo)
	return maphash.Bytes(t.seed, b[:])
}

// entry returns the entry for the key of c, with the usage under the limit of c as the
// present one. It adds an entry for a new key.
func (t *table) entry(c *Charge, now instant) *entry {
	keys := t.keys.At(c.shard)
	hash := c.hash
	e, ok := keys.Get(hash)
	for ok && e.key != c.Key {
		// Two keys with one hash: a chance of one in 2^64.
		hash++
		e, ok = keys.Get(hash)
	}
	switch {
	case !ok:
		e = t.admit(c, hash, now)
	case !e.limit.same(&c.Limit):
		e.change(&c.Limit, now)
	}
	return e
}

// peek returns the entry for the key of c and its hash, or nil.
func (t *table) peek(c *Charge) (hash uint64, e *entry) {
	hash = c.hash
	e, ok := t.keys.At(c.shard).Peek(hash)
	for ok && e.key != c.Key {
		hash++
		e, ok = t.keys.At(c.shard).Peek(hash)
	}
	return hash, e
}

// forget drops what the key of c has used.
func (t *table) forget(c *Charge) {
	hash, e := t.peek(c)
	if e != nil {
		t.keys.At(c.shard).Remove(hash)
	}
	if slots := t.debts[c.shard]; slots != nil {
		*slot(slots, hash) = debt{}
	}
}

// copyOf returns a copy of the state of the key of c under its limit, as it would be in a
// call that stores it.
func (t *table) copyOf(c *Charge, now instant) state {
	hash, e := t.peek(c)
	if e == nil {
		return newState(&c.Limit, now, t.debt(c.shard, hash).faded(&c.Limit, now))
	}
	if u := e.find(&c.Limit); u != nil {
		if s, ok := u.state.(*calendar); ok {
			own := *s // the others change nothing that counts
			return &own
		}
		return u.state
	}
	_, debts := e.debts(now)
	return newState(&c.Limit, now, debts...)
}

// usage returns the usage of the key of c under its limit, or nil.
func (t *table) usage(c *Charge) *usage {
	_, e := t.peek(c)
	if e == nil {
		return nil
	}
	return e.find(&c.Limit)
}

// admit makes room for a new key and adds it.
func (t *table) admit(c *Charge, hash uint64, now instant) *entry {
	keys := t.keys.At(c.shard)
	if keys.LRU.Len() >= t.perShard {
		if oldest, e, ok := keys.RemoveOldest(); ok {
			t.remember(c.shard, oldest, e.debt(now), now)
			for i := range e.others {
				t.remember(c.shard, oldest, e.others[i].debt(now), now)
			}
		}
	}
	old := t.debt(c.shard, hash).faded(&c.Limit, now)
	e := &entry{key: c.Key.clone(), usage: usage{limit: c.Limit, state: newState(&c.Limit, now, old)}}
	keys.Add(hash, e)
	return e
}

// slot returns the slot for a hash. It uses the high bits: the low ones are the same for
// all keys of a shard.
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

// debt returns the debt that a key of this hash starts with.
func (t *table) debt(shard int, hash uint64) debt {
	if slots := t.debts[shard]; slots != nil {
		return *slot(slots, hash)
	}
	return debt{}
}

func (t *table) len() int {
	n := t.keys.Len()
	for i := range t.places {
		s := t.keys.At(i)
		s.Lock()
		n += len(t.places[i])
		s.Unlock()
	}
	return n
}
