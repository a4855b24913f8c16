package ratelimit

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// A bucket is a token bucket.
//
// It is driven by AllowN alone, with a clock that never goes back:
// Reservation.Cancel loses tokens (golang/go#56924), and an older time mints
// them (golang/go#65508).
type bucket struct {
	limiter   *rate.Limiter
	nanos     float64 // the time in which a token is earned
	slack     float64 // the tokens that are earned within the tolerance
	last      time.Time
	overdrawn int64 // taken beyond what the bucket had
}

func newBucket(l *Limit, now instant, d debt) *bucket {
	nanos := l.tokenNanos()
	b := &bucket{
		limiter: rate.NewLimiter(l.rate(), int(l.burst)),
		nanos:   nanos,
		slack:   float64(tolerance) / nanos,
		last:    now.time,
	}
	if d.until > now.n {
		b.limiter.AllowN(now.time, int(min(d.used, l.burst)))
	}
	return b
}

// faded returns what is left of d: a bucket pays off its debt as time passes.
func (d debt) faded(l *Limit, now instant) debt {
	if l.algorithm == AlgorithmTokenBucket && d.until > now.n {
		missing := math.Ceil(float64(d.until-now.n) / l.tokenNanos())
		d.used = int64(min(missing, float64(d.used)))
	}
	return d
}

func (l *Limit) rate() rate.Limit {
	return rate.Limit(float64(l.quota) / l.per.Seconds())
}

// tokenNanos returns the nanoseconds in which a token is earned.
func (l *Limit) tokenNanos() float64 { return float64(l.per) / float64(l.quota) }

// tolerance is how much too early a request may come and still be admitted. Tokens are
// rounded to a float64, so a client that waits exactly as long as the response asked
// could come a few nanoseconds early.
const tolerance = time.Microsecond

// prepare advances the bucket to now and returns how many tokens it has.
func (b *bucket) prepare(now instant) (tokens float64) {
	if now.time.After(b.last) {
		b.last = now.time
	}
	if b.overdrawn > 0 {
		paid := min(b.overdrawn, int64(max(b.limiter.TokensAt(b.last), 0)))
		if b.limiter.AllowN(b.last, int(paid)) {
			b.overdrawn -= paid
		}
	}
	return b.limiter.TokensAt(b.last) - float64(b.overdrawn)
}

func (b *bucket) check(l *Limit, now instant, cost int64) result {
	tokens := b.prepare(now)
	res := result{ok: true}
	whole := b.whole(l, tokens)
	res.remaining = int64(whole)
	if tokens < float64(l.burst) {
		res.reset = b.time(whole + 1 - tokens)
	}
	missing := float64(cost) - tokens
	switch {
	case cost == 0 || missing <= 0:
	case cost > l.burst:
		res.ok, res.wait = false, never
	default:
		res.wait = b.time(missing)
		res.ok = res.wait <= tolerance
	}
	return res
}

// whole returns how many requests of one token the bucket can cover.
func (b *bucket) whole(l *Limit, tokens float64) float64 {
	return min(max(math.Floor(tokens+b.slack), 0), float64(l.burst))
}

// time returns how long it takes to earn so many tokens.
func (b *bucket) time(tokens float64) time.Duration {
	return time.Duration(min(tokens*b.nanos, math.MaxInt64/2))
}

func (b *bucket) take(_ *Limit, _ instant, cost int64) {
	if cost > 0 && !b.limiter.AllowN(b.last, int(cost)) {
		// Within the tolerance the clock of the bucket runs ahead, and then stands still
		// until the time has caught up.
		b.last = b.last.Add(tolerance)
		if !b.limiter.AllowN(b.last, int(cost)) {
			b.overdrawn += cost
		}
	}
}

func (b *bucket) adjust(l *Limit, now instant, _, cost int64) (moved int64) {
	tokens := b.prepare(now)
	if cost > 0 {
		moved = min(cost, int64(b.whole(l, tokens)))
		b.take(l, now, moved)
		return moved
	}
	// A token that is partly earned again counts as a whole one.
	back := min(-cost, int64(math.Ceil(max(float64(l.burst)-tokens-b.slack, 0))))
	paid := min(back, b.overdrawn)
	b.overdrawn -= paid
	// A negative number puts tokens back, up to the burst.
	b.limiter.AllowN(b.last, -int(back-paid))
	return -back
}

func (b *bucket) debt(l *Limit, now instant) debt {
	missing := float64(l.burst) - b.prepare(now)
	return debt{used: int64(math.Ceil(missing)), until: now.n + int64(b.time(missing))}
}
