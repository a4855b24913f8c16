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
}

// Debts are what a set remembers of evicted keys. They fit into a cache line.
type debts [4]evicted

// An evicted is the debt of an evicted key, which a part of its hash identifies.
type evicted struct {
	until int64
	used  uint32
	mark  uint32
}

func markOf(hash uint64) uint32 { return uint32(hash) }

func (o *evicted) debt() debt { return debt{int64(o.used), o.until} }

// remember keeps the debt of a key that is evicted while it has the limit l. If the set
// remembers other debts, it forgets the least; of equal ones, the newest.
func (o *debts) remember(mark uint32, d debt, l *Limit, now instant) {
	at, least := 0, d.used
	for i := range o {
		other := o[i].debt()
		if other.until <= now.n {
			at, least = i, 0
			break
		}
		if used := other.faded(l, now).used; used < least {
			at, least = i, used
		}
	}
	if d.used > least {
		o[at] = evicted{d.until, uint32(d.used), mark}
	}
}

// begin returns the debt with which a new key begins, and where the set remembers it. If the
// set has forgotten keys, each of them had a debt of no more than the least debt that it remembers. So
// with that an unknown key begins, but less what its first request needs: nobody is locked out
// for what others owe.
func (o *debts) begin(c *Charge, now instant) (d debt, remembered *evicted) {
	full := true
	for i := range o {
		other := &o[i]
		if other.until <= now.n {
			full = false // there is room, so nobody had to be forgotten
			continue
		}
		faded := other.debt().faded(&c.Limit, now)
		if other.mark == markOf(c.hash) {
			return faded, other
		}
		if i == 0 || faded.used < d.used {
			d = faded
		}
	}
	if !full {
		return debt{}, nil
	}
	d.used = max(min(d.used, c.Limit.most()-max(c.need(), 1)), 0)
	return d, nil
}

// forget drops the debt of a key.
func (o *debts) forget(mark uint32) {
	for i := range o {
		if o[i].mark == mark {
			o[i] = evicted{}
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
