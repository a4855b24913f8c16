package ratelimit

import (
	"math/bits"
	"time"
)

// A bucket is a token bucket: the generic cell rate algorithm in exact integers. It keeps
// only the instant at which it is full again. Taking tokens moves this instant on by the
// time in which they are earned. Only results are rounded, and always up, so that a client
// that waits as long as the response asks is admitted.
type bucket struct {
	full exact
}

// An exact is a number of nanoseconds: whole ones, and parts. The quota of the limit is the
// number of parts in a nanosecond, and parts is always less than that.
type exact struct {
	whole int64
	parts uint64
}

// farthest is a span that no limit without faults reaches. Longer spans are cut to it, so
// that no sum of an instant and a span overflows.
const farthest = 1 << 62

// span returns the time in which n tokens are earned.
func (l *Limit) span(n int64) exact {
	hi, lo := bits.Mul64(uint64(n), uint64(l.per))
	quota := uint64(l.quota)
	if hi >= quota {
		return exact{whole: farthest}
	}
	whole, parts := bits.Div64(hi, lo, quota)
	if whole >= farthest {
		return exact{whole: farthest}
	}
	return exact{int64(whole), parts}
}

func (x exact) plus(y exact, l *Limit) exact {
	x.whole += y.whole
	x.parts += y.parts
	if quota := uint64(l.quota); x.parts >= quota {
		x.whole++
		x.parts -= quota
	}
	return x
}

func (x exact) minus(y exact, l *Limit) exact {
	x.whole -= y.whole
	if x.parts < y.parts {
		x.whole--
		x.parts += uint64(l.quota)
	}
	x.parts -= y.parts
	return x
}

// up rounds up to whole nanoseconds.
func (x exact) up() int64 {
	if x.parts > 0 {
		return x.whole + 1
	}
	return x.whole
}

func newBucket(l *Limit, now instant, d debt) (b bucket) {
	if d.until <= now.n {
		return b
	}
	if !d.overdrawn {
		d.used = min(d.used, l.burst)
	}
	b.full = exact{whole: now.n}.plus(l.span(d.used), l)
	if d.evicted && b.full.whole >= d.until {
		b.full = exact{whole: d.until}
	}
	return b
}

// missing returns the time until the bucket is full.
func (b *bucket) missing(now instant) exact {
	if b.full.whole < now.n {
		return exact{}
	}
	return exact{b.full.whole - now.n, b.full.parts}
}

// mostUsed returns the most tokens that a key may have used at a time, with its debt.
func (l *Limit) mostUsed() int64 {
	hi, lo := bits.Mul64(uint64(maxRefill), uint64(l.quota))
	if per := uint64(l.per); hi < per {
		n, _ := bits.Div64(hi, lo, per)
		return int64(min(n, maxQuota))
	}
	return maxQuota
}

// used returns how many tokens are missing, and the time until one fewer is missing. A
// token that is partly earned counts as missing.
func (b *bucket) used(l *Limit, now instant) (tokens int64, next time.Duration) {
	missing := b.missing(now)
	if missing == (exact{}) {
		return 0, 0
	}
	// The time that is missing, in parts and less one part, divides into the tokens that
	// are missing besides the last one, and a rest.
	hi, lo := bits.Mul64(uint64(missing.whole), uint64(l.quota))
	lo, carry := bits.Add64(lo, missing.parts, 0)
	lo, borrow := bits.Sub64(lo, 1, 0)
	besides, rest := bits.Div64(hi+carry-borrow, lo, uint64(l.per))
	return int64(besides) + 1, time.Duration(rest/uint64(l.quota)) + 1
}

func (b *bucket) check(l *Limit, now instant, cost int64) (res result) {
	used, next := b.used(l, now)
	res.remaining, res.reset = l.burst-used, next
	if used > l.burst {
		res.remaining = 0
		res.reset = time.Duration(b.missing(now).minus(l.span(l.burst-1), l).up())
	}
	switch {
	case cost <= res.remaining || cost == 0:
		res.ok = true
	case cost > l.burst:
		res.wait = never
	default:
		res.wait = time.Duration(b.missing(now).minus(l.span(l.burst-cost), l).up())
	}
	return res
}

func (b *bucket) take(l *Limit, now instant, cost int64) { b.fillLater(l, now, l.span(cost)) }

// fillLater takes the tokens that are earned in a time.
func (b *bucket) fillLater(l *Limit, now instant, by exact) {
	if b.full.whole < now.n {
		b.full = exact{whole: now.n}
	}
	b.full = b.full.plus(by, l)
}

func (b *bucket) adjust(l *Limit, now instant, _, cost int64) (moved int64) {
	used, _ := b.used(l, now)
	if cost >= 0 {
		moved = min(cost, max(l.burst-used, 0))
		b.take(l, now, moved)
		return moved
	}
	moved = max(cost, -used)
	b.full = b.full.minus(l.span(-moved), l)
	return moved
}

// overdraw charges up to cost tokens, even beyond those that are left.
func (b *bucket) overdraw(l *Limit, now instant, cost int64) (moved int64) {
	used, _ := b.used(l, now)
	moved = max(min(cost, l.mostUsed()-used), 0)
	b.take(l, now, moved)
	return moved
}

func (b *bucket) debt(l *Limit, now instant) debt {
	used, _ := b.used(l, now)
	return debt{used: used, until: b.full.up()}
}
