package ratelimit

import (
	"math/bits"
	"time"
)

// A debt is what a key had used when its state was dropped: because its limit has changed,
// or because it was evicted.
type debt struct {
	used  int64 // units
	until int64 // the instant at which the debt is over
	// evicted is set if the key was evicted. If its limit has not changed since then, it has
	// the same left as if it had stayed.
	evicted bool
	// overdrawn is set if a key was evicted that had used more than its bucket holds.
	overdrawn bool
}

// Debts are what a set remembers of evicted keys.
type debts struct {
	known [4]evicted
	// forgotten is no less, and ends no earlier, than what any other key had used.
	forgotten evicted
}

// An evicted is the debt of an evicted key, which a part of its hash identifies.
type evicted struct {
	until int64
	used  uint32 // and the bit overdrawnBit
	mark  uint32
}

// overdrawnBit stands for overdrawn. No key uses as many units.
const overdrawnBit = 1 << 31

// markOf returns bits of the hash that choose neither the part nor, unless there are
// millions of sets, the set.
func markOf(hash uint64) uint32 { return uint32(hash >> 16) }

func (o *evicted) debt() debt {
	return debt{used: int64(o.used &^ overdrawnBit), until: o.until, evicted: true, overdrawn: o.used&overdrawnBit != 0}
}

// remember keeps the debt of a key that is evicted while it has the limit l. If the set
// knows other debts, it forgets which key has the least; of equal ones, the newest.
func (o *debts) remember(mark uint32, d debt, l *Limit, now instant) {
	added := evicted{d.until, uint32(d.used), mark}
	if d.overdrawn {
		added.used |= overdrawnBit
	}
	at, least := -1, d.used
	for i := range o.known {
		other := o.known[i].debt()
		if other.until <= now.n {
			o.known[i] = added
			return
		}
		if used := other.faded(l, now).used; used < least {
			at, least = i, used
		}
	}
	if at >= 0 {
		added, o.known[at] = o.known[at], added
	}
	o.lose(added.debt(), now)
}

// lose forgets which key has a debt.
func (o *debts) lose(d debt, now instant) {
	if f := &o.forgotten; f.until <= now.n {
		*f = evicted{until: d.until, used: uint32(d.used)}
	} else {
		f.until, f.used = max(f.until, d.until), max(f.used, uint32(d.used))
	}
}

// begin returns the debt with which a new key begins, and where the set remembers it. Any
// other key might be one that the set has forgotten. So it begins with as much as any of
// those had used, but less what its first request needs: nobody is locked out for what
// others owe.
func (o *debts) begin(c *Charge, now instant) (d debt, remembered *evicted) {
	for i := range o.known {
		if k := &o.known[i]; k.mark == markOf(c.hash) && k.until > now.n {
			return k.debt().faded(&c.Limit, now), k
		}
	}
	if o.forgotten.until <= now.n {
		return debt{}, nil
	}
	d = o.forgotten.debt().faded(&c.Limit, now)
	d.used = max(min(d.used, c.Limit.most()-max(c.need(), 1)), 0)
	return d, nil
}

// forget drops the debt of a key.
func (o *debts) forget(mark uint32) {
	for i := range o.known {
		if o.known[i].mark == mark {
			o.known[i] = evicted{}
		}
	}
}

// faded returns what is left of d: a bucket pays off its debt as time passes.
func (d debt) faded(l *Limit, now instant) debt {
	if l.algorithm != AlgorithmTokenBucket || d.until <= now.n {
		return d
	}
	hi, lo := bits.Mul64(uint64(d.until-now.n), uint64(l.quota))
	if per := uint64(l.per); hi < per {
		if earned, rest := bits.Div64(hi, lo, per); earned < uint64(d.used) {
			d.used = int64(earned)
			if rest > 0 {
				d.used++
			}
		}
	}
	return d
}

// rounded returns d with an end of whole microseconds, so that stores with clocks of
// nanoseconds and of microseconds agree.
func (d debt) rounded() debt {
	d.until += (int64(time.Microsecond) - d.until%int64(time.Microsecond)) % int64(time.Microsecond)
	return d
}

// over reports whether d, not other, is the debt to keep of one key.
func (d debt) over(other debt, now instant) bool {
	if other.until <= now.n {
		return true
	}
	if d.used != other.used {
		return d.used > other.used
	}
	return d.until > other.until
}

// greatest returns the debt to keep of several of one key.
func greatest(debts []debt, now instant) (d debt) {
	for _, o := range debts {
		if o.over(d, now) {
			d = o
		}
	}
	return d
}
