package ratelimit

import "time"

// A set has places for a few keys. They are in the order in which they came, so free places
// are last. The hash of a key chooses its set.
type set [ways]slot

const ways = 8

// A slot is the place of one key. It fits into a cache line: to decide for a key costs little
// more than to fetch that line.
type slot struct {
	// key has the hash of its text in hi, so that keys are compared without their texts.
	key Key
	// entry is what the key has used under its limits. Most keys only have one limit, a
	// token bucket, whose state is in bucket: they share an entry without a state. The
	// entry of a free slot is nil.
	entry  *entry
	bucket bucket
}

// find returns the index of a key, or -1.
func (s *set) find(k *Key, hash uint64) int {
	hi := k.hi
	if k.text != "" {
		hi = hash
	}
	for i := range s {
		e := &s[i]
		if e.entry == nil {
			break
		}
		if e.key.hi == hi && e.key.lo == k.lo && e.key.origin == k.origin && e.key.text == k.text {
			return i
		}
	}
	return -1
}

// free returns the index of the first free one of n slots, or n.
func (s *set) free(n int) int {
	for i := range s[:n] {
		if s[i].entry == nil {
			return i
		}
	}
	return n
}

// least returns the index of the key, of the first n, that has used the least share of its
// limit. Of equal ones it is the newest: so a key that has used up its limit stays, however
// many new keys do the same.
func (s *set) least(n int, now instant) (index int) {
	least := share{1, 0}
	for i := range s[:n] {
		switch sh := s[i].share(now); {
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
	copy(s[index:], s[index+1:])
	s[ways-1] = slot{}
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

// state returns the state under the present limit.
func (s *slot) state() state {
	if s.entry.state == nil {
		return &s.bucket
	}
	return s.entry.state
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
