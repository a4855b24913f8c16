package ratelimit

import (
	"math/bits"
	"time"
)

// A set has places for a few keys. They are in the order in which they came, so free places
// are last. The hash of a key chooses its set.
type set struct {
	tags  tags
	slots *[ways]slot // nil until the set has a key
}

const ways = 8

// Tags are one byte of the hash of each key of a set, in the order of the slots. The byte of
// a free slot is 0, and no other is. All bytes are compared at once, so that to find a key
// takes no other slot than its own, except by an accident of one in 128.
type tags uint64

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// tagOf returns the tag of a key with this hash, from bits that choose neither part nor set.
func tagOf(hash uint64) uint64 { return hash>>8&0xff | 0x80 }

// matches returns a number whose highest bits of bytes are set where the tag of a hash is,
// and perhaps where it is not. The lowest of them is right.
func (t tags) matches(hash uint64) uint64 {
	differ := uint64(t) ^ tagOf(hash)*lowBits
	return (differ - lowBits) &^ differ & highBits
}

// len returns the number of tags.
func (t tags) len() int { return bits.TrailingZeros64(^uint64(t)&highBits) / 8 }

func (t *tags) add(hash uint64) { *t |= tags(tagOf(hash) << (8 * t.len())) }

func (t *tags) remove(index int) {
	before := tags(1)<<(8*index) - 1
	*t = *t&before | *t>>8&^before
}

// A slot is the place of one key. It fits into a cache line: to decide for a key costs little
// more than to fetch that line.
type slot struct {
	key  Key
	hash uint64
	// entry is what the key has used under its limits. Most keys only have one limit, a
	// token bucket, whose state is in bucket: they share an entry without a state.
	entry  *entry
	bucket bucket
}

// find returns the index of a key, or -1.
func (s *set) find(k *Key, hash uint64) int {
	for m := s.tags.matches(hash); m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m) / 8
		if e := &s.slots[i]; e.hash == hash && e.key == *k {
			return i
		}
	}
	return -1
}

// add returns the first free slot, for a new key. There must be one.
func (s *set) add(k Key, hash uint64) *slot {
	if s.slots == nil {
		s.slots = new([ways]slot)
	}
	added := &s.slots[s.tags.len()]
	s.tags.add(hash)
	added.key, added.hash = k.clone(), hash
	return added
}

// least returns the index of the key that has used the least share of its limit. Of equal
// ones it is the newest: so a key that has used up its limit stays, however many new keys
// do the same.
func (s *set) least(now instant) (index int) {
	least := share{1, 0}
	for i := range s.tags.len() {
		switch sh := s.slots[i].share(now); {
		case sh.used == 0:
			return i
		case !least.below(sh):
			index, least = i, sh
		}
	}
	return index
}

// remove removes a key. The last slot is then free.
func (s *set) remove(index int) {
	s.tags.remove(index)
	copy(s.slots[index:], s.slots[index+1:])
	s.slots[ways-1] = slot{}
}

// A share is how many of how many units are used. It is never above one, and units are at
// most 1e9.
type share struct{ used, of int64 }

func (a share) below(b share) bool { return a.used*b.of < b.used*a.of }

// share returns the greatest share that the key has used of a limit.
func (s *slot) share(now instant) share {
	e := s.entry
	if e.state == nil {
		used, _ := s.bucket.used(&e.limit, now)
		return share{min(used, e.limit.burst), e.limit.burst}
	}
	most := e.share(now)
	for i := range e.others {
		if sh := e.others[i].share(now); most.below(sh) {
			most = sh
		}
	}
	return most
}

// check returns the result for a request of this cost under l, the present limit.
func (s *slot) check(l *Limit, now instant, cost int64) result {
	if e := s.entry; e.state != nil {
		return e.state.check(l, now, cost)
	}
	return s.bucket.check(l, now, cost)
}

// take charges a cost that fits under the present limit.
func (s *slot) take(now instant, cost int64) {
	switch e := s.entry; {
	case e.state != nil:
		e.take(now, cost)
	case cost == 1:
		s.bucket.fillLater(&e.limit, now, e.one)
	default:
		s.bucket.take(&e.limit, now, cost)
	}
}

// adjust moves up to cost units under the present limit and returns how many it has moved.
// If it overdraws a bucket, it charges all that a key may owe.
func (s *slot) adjust(now instant, at, cost int64, overdraw bool) (moved int64) {
	switch e := s.entry; {
	case e.state != nil:
		return e.adjust(now, at, cost, overdraw)
	case overdraw && cost > 0:
		return s.bucket.overdraw(&e.limit, now, cost)
	default:
		return s.bucket.adjust(&e.limit, now, at, cost)
	}
}

// firstReset returns the time until more is left than right after the first charge.
func (s *slot) firstReset() time.Duration {
	if s.entry.state == nil {
		return time.Duration(s.entry.one.up())
	}
	return s.entry.limit.firstReset()
}

// debt returns what must be kept when the key is evicted: one debt for all its limits, so it
// is no less, and ends no earlier, than that under any of them.
func (s *slot) debt(now instant) (all debt) {
	e := s.entry
	if e.state == nil {
		all = s.bucket.debt(&e.limit, now)
		all.overdrawn = all.used > e.limit.burst
		return all
	}
	add := func(u *usage) {
		d := u.state.debt(&u.limit, now)
		if d.until <= now.n {
			return
		}
		if d.used > all.used {
			all.used, all.overdrawn = d.used, u.limit.algorithm == AlgorithmTokenBucket && d.used > u.limit.burst
		}
		all.until = max(all.until, d.until)
	}
	add(&e.usage)
	for i := range e.others {
		add(&e.others[i])
	}
	return all
}

// debts returns the debts under all limits of the key.
func (s *slot) debts(now instant) []debt {
	if e := s.entry; e.state == nil {
		return []debt{s.bucket.debt(&e.limit, now).rounded()}
	}
	_, debts := s.entry.debts(now)
	return debts
}
