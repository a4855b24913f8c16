package ratelimit

import (
	"hash/maphash"
	"math"
	"math/bits"
	"sync"
	"time"
)

// A staggerer gives the clients of one key that are refused under a policy their waits one
// after another, at the rate of the limit: the quota that each of them waits for is not
// used up by all the others, which come back at other times.
//
// It keeps the next free instant of each key in one slot of a fixed array. A key whose slot
// another key has taken begins again with its true wait, so keys never lengthen the waits
// of others.
type staggerer struct {
	seed  maphash.Seed
	base  time.Time
	slots [1024]staggerSlot
}

type staggerSlot struct {
	mu   sync.Mutex
	key  uint64 // the hash of the key
	next int64  // the instant for the next client, in nanoseconds since base
}

func newStaggerer() *staggerer { return &staggerer{seed: maphash.MakeSeed(), base: time.Now()} }

// The longest time that is added to a wait is the period of the limit, within these bounds.
const (
	minStagger = time.Minute
	maxStagger = time.Hour
)

// freePlace is how long a place of a [Concurrency] limit is expected to be taken: clients
// are asked to come back after it.
const freePlace = time.Second

// wait returns the wait of one more client that c has refused. It is not shorter than the
// wait of c.
func (s *staggerer) wait(c *Charge) time.Duration {
	wait, per := c.Wait, c.Limit.Per()
	if c.Limit.algorithm == AlgorithmConcurrency {
		wait, per = max(wait, freePlace), freePlace
	}
	longest := min(max(per, minStagger), maxStagger)
	gap := c.gap(per)
	if gap > longest/8 {
		// So few waits fit that they are spread evenly instead. The golden section puts each
		// into one of the widest gaps between the earlier ones, however many there are.
		gap = time.Duration(float64(longest) * (math.Phi - 1))
	}
	hash := maphash.Comparable(s.seed, c.Key)
	slot := &s.slots[hash%uint64(len(s.slots))]
	slot.mu.Lock()
	defer slot.mu.Unlock()
	earliest := int64(time.Since(s.base) + wait)
	if slot.key != hash || slot.next < earliest {
		slot.key, slot.next = hash, earliest
	}
	more := time.Duration(slot.next-earliest) % longest
	slot.next = earliest + int64(more+gap)
	return wait + more
}

// gap returns the time in which c.Limit permits another request like this one.
func (c *Charge) gap(per time.Duration) time.Duration {
	quota := uint64(c.Limit.quota)
	hi, lo := bits.Mul64(uint64(c.need()), uint64(per))
	if hi >= quota {
		return math.MaxInt64
	}
	span, _ := bits.Div64(hi, lo, quota)
	if c.Limit.algorithm == AlgorithmTokenBucket {
		// Clients come back in whole seconds, so a small bucket is full at times and loses
		// what it earns meanwhile.
		span += span / uint64(c.Limit.burst)
	}
	return time.Duration(min(span, math.MaxInt64))
}

// stagger sets the waits of a refused decision under policies with Stagger.
func (d *decision) stagger() {
	for i, p := range d.charged {
		if c := &d.Charges[i]; p.staggerer != nil && c.Violated && !c.Shadow && c.Wait >= 0 {
			c.Wait = p.staggerer.wait(c)
		}
	}
}
