package ratelimit

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"sync"
)

// A table holds the keys of one policy, in sets. Its parts have a lock each, under which all
// that belongs to a part is read and written.
type table struct {
	store  *Memory
	policy string
	order  int // in which tables are locked
	seed   maphash.Seed
	parts  []part
	sets   int // in each part
	ways   int // how many slots of a set are in use
}

// A part of a table has some of its sets, and the places of concurrency limits that keys of
// these sets use.
type part struct {
	sync.Mutex
	sets   []set // nil until one has a key
	keys   int   // how many the sets have
	places map[Key]places
	debts  []debts // of each set; nil until a key that has used anything is evicted
	common []*entry
	_      [24]byte // two locks on one cache line would slow each other down
}

// maxCommon is how many entries a part knows for keys to share. That is as many as there
// are plans in most services; other limits only take more memory.
const maxCommon = 8

func newTable(m *Memory, policy string, order int) *table {
	n := 1
	for n < 64 && n*64 < m.capacity {
		n *= 2
	}
	each := m.capacity / n
	return &table{
		store: m, policy: policy, order: order, seed: maphash.MakeSeed(),
		parts: make([]part, n),
		sets:  max(each/ways, 1),
		ways:  min(each, ways),
	}
}

// hash returns the hash of a key. No client can predict it, so none chooses the set of a key.
func (t *table) hash(k *Key) uint64 {
	// Clients do not choose the origin.
	if k.isText() {
		return maphash.String(t.seed, k.text) ^ k.hi*0x9e3779b97f4a7c15
	}
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], k.hi)
	binary.LittleEndian.PutUint64(b[8:], k.lo)
	return maphash.Bytes(t.seed, b[:])
}

// part returns the part for keys of this hash.
func (t *table) part(hash uint64) *part { return &t.parts[hash&uint64(len(t.parts)-1)] }

// index returns the index of the set for keys of this hash in their part.
func (t *table) index(hash uint64) int {
	hi, _ := bits.Mul64(hash, uint64(t.sets))
	return int(hi)
}

// set returns the set of the key of c, or nil if its part has had no key yet.
func (t *table) set(c *Charge) *set {
	if c.part.sets == nil {
		return nil
	}
	return &c.part.sets[t.index(c.hash)]
}

// slot returns the slot for the key of c, with the limit of c as the present one. It makes
// room for a new key.
func (t *table) slot(c *Charge, now instant) *slot {
	s := t.known(c)
	switch {
	case s == nil:
		return t.admit(c, now)
	case !s.entry.limit.same(&c.Limit):
		c.part.change(s, &c.Limit, now)
	}
	return s
}

// known returns the slot of the key of c, or nil.
func (t *table) known(c *Charge) *slot {
	if set := t.set(c); set != nil {
		if i := set.find(&c.Key, c.hash); i >= 0 {
			return &set.slots[i]
		}
	}
	return nil
}

// usage returns the usage of the key of c under its calendar limit, or nil.
func (t *table) usage(c *Charge) *usage {
	if s := t.known(c); s != nil {
		return s.entry.find(&c.Limit)
	}
	return nil
}

// copyOf returns a copy of the state of the key of c under its limit, as it would be in a
// call that stores it.
func (t *table) copyOf(c *Charge, now instant) state {
	s := t.known(c)
	if s == nil {
		d, _ := t.begin(c, now)
		return newState(&c.Limit, now, d)
	}
	if s.entry.state == nil && s.entry.limit.same(&c.Limit) {
		return &s.bucket
	}
	if u := s.entry.find(&c.Limit); u != nil {
		if s, ok := u.state.(*calendar); ok {
			own := *s // the others change nothing that counts
			return &own
		}
		return u.state
	}
	return newState(&c.Limit, now, s.debts(now)...)
}

// forget drops what the key of c has used.
func (t *table) forget(c *Charge) {
	set := t.set(c)
	if set == nil {
		return
	}
	if i := set.find(&c.Key, c.hash); i >= 0 {
		set.remove(i)
		c.part.keys--
	}
	if c.part.debts != nil {
		c.part.debts[t.index(c.hash)].forget(markOf(c.hash))
	}
}

// begin returns the debt with which a new key begins, and where it is remembered, or nil.
func (t *table) begin(c *Charge, now instant) (debt, *evicted) {
	if c.part.debts == nil {
		return debt{}, nil
	}
	return c.part.debts[t.index(c.hash)].begin(c, now)
}

// admit adds a new key. If its set is full, it evicts one other: at most one key leaves, and
// one debt is forgotten, while a part is locked.
func (t *table) admit(c *Charge, now instant) *slot {
	if c.part.sets == nil {
		c.part.sets = make([]set, t.sets)
	}
	d, remembered := t.begin(c, now)
	if remembered != nil {
		*remembered = evicted{}
	}
	s := t.set(c)
	if s.tags.len() == t.ways {
		t.evict(c.part, s, t.index(c.hash), now)
	}
	c.part.keys++
	added := s.add(c.Key, c.hash)
	if c.Limit.algorithm == AlgorithmTokenBucket {
		added.entry, added.bucket = c.part.shared(&c.Limit), newBucket(&c.Limit, now, d)
	} else {
		added.entry = &entry{usage: usage{limit: c.Limit, state: newState(&c.Limit, now, d)}}
	}
	return added
}

// evict removes the key of a full set that has used least, and remembers what it has used.
func (t *table) evict(p *part, s *set, index int, now instant) {
	i := s.least(now)
	e := &s.slots[i]
	if d := e.debt(now); d.until > now.n && d.used > 0 {
		if p.debts == nil {
			p.debts = make([]debts, t.sets)
		}
		p.debts[index].remember(markOf(e.hash), d, &e.entry.limit, now)
	}
	s.remove(i)
	p.keys--
}

// shared returns the entry for keys that have had only l, a token bucket.
func (s *part) shared(l *Limit) *entry {
	for _, e := range s.common {
		if e.limit == *l {
			return e
		}
	}
	if len(s.common) == maxCommon {
		s.common = s.common[:0] // keys keep the entries that they have
	}
	e := &entry{usage: usage{limit: *l}, one: l.span(1)}
	s.common = append(s.common, e)
	return e
}

// change makes l the present limit of a key. While the key has several limits, it has an
// entry of its own.
func (s *part) change(k *slot, l *Limit, now instant) {
	if k.entry.state == nil {
		own := k.bucket
		k.entry = &entry{usage: usage{limit: k.entry.limit, state: &own}}
	}
	k.entry.change(l, now)
	if b, ok := k.entry.state.(*bucket); ok && len(k.entry.others) == 0 {
		k.entry, k.bucket = s.shared(l), *b
	}
}

// len returns the number of keys in sets, and of keys that use places.
func (t *table) len() (n int) {
	for i := range t.parts {
		s := &t.parts[i]
		s.Lock()
		n += s.keys + len(s.places)
		s.Unlock()
	}
	return n
}
