package ratelimit_test

import (
	"cmp"
	"math/big"
	"slices"

	"github.com/usher-go/usher/ratelimit"
)

// newUsage returns the usage of a limit that starts with debts under other limits.
func newUsage(c *ratelimit.Charge, now int64, debts []modelDebt) *modelUsage {
	u := &modelUsage{limit: c.Limit, full: big.NewRat(now, 1)}
	slices.SortStableFunc(debts, func(a, b modelDebt) int { return cmp.Compare(b.until, a.until) })
	most := modelDebt{}
	for _, d := range debts {
		if d.used > most.used {
			most = d
		}
	}
	switch c.Limit.Algorithm() {
	case ratelimit.AlgorithmTokenBucket:
		u.full.Add(u.full, u.span(min(most.used, c.Limit.Burst())))
	case ratelimit.AlgorithmRollingWindow:
		for _, d := range debts {
			if more := min(d.used, c.Limit.Quota()) - u.sum(); more > 0 {
				u.add(min(d.until-c.Limit.Per().Microseconds(), now), more)
			}
		}
	default:
		u.turn(&c.Windows, now)
		u.used = min(most.used, c.Limit.Quota())
	}
	return u
}

// span returns the microseconds in which n tokens are earned.
func (u *modelUsage) span(n int64) *big.Rat {
	span := big.NewRat(u.limit.Per().Microseconds(), u.limit.Quota())
	return span.Mul(span, big.NewRat(n, 1))
}

// roundUp returns the least integer that is not below x.
func roundUp(x *big.Rat) int64 {
	n := new(big.Int).Neg(x.Num())
	return -new(big.Int).Div(n, x.Denom()).Int64() // Div rounds down
}

// missing returns the time until the bucket is full, and the tokens that are missing.
func (u *modelUsage) missing(now int64) (span *big.Rat, tokens int64) {
	span = new(big.Rat).Sub(u.full, big.NewRat(now, 1))
	if span.Sign() < 0 {
		span.SetInt64(0)
	}
	return span, roundUp(new(big.Rat).Quo(span, u.span(1)))
}

func (u *modelUsage) sum() (n int64) {
	for _, s := range u.stamps {
		n += s.cost
	}
	return n
}

func (u *modelUsage) add(at, cost int64) {
	i, found := slices.BinarySearchFunc(u.stamps, at, func(s modelStamp, at int64) int { return cmp.Compare(s.at, at) })
	if found {
		u.stamps[i].cost += cost
		return
	}
	u.stamps = slices.Insert(u.stamps, i, modelStamp{at, cost})
}

func (u *modelUsage) expire(now int64) {
	per := u.limit.Per().Microseconds()
	u.stamps = slices.DeleteFunc(u.stamps, func(s modelStamp) bool { return now >= s.at+per })
}

// turn opens the window that contains now, unless the present one does. If the caller has
// given no windows, that is the next window. If the present one is a later one, it becomes
// the one that contains now.
func (u *modelUsage) turn(windows *[2]ratelimit.Window, now int64) {
	if now < u.end {
		if windows != nil {
			if end := windows[0].End.UnixMicro(); now < end && end < u.end {
				u.end, u.next, u.opened = end, windows[1].End.UnixMicro(), min(u.opened, now)
			}
		}
		return
	}
	u.opened, u.used = now, 0
	if windows == nil {
		u.end = u.next
		return
	}
	u.end, u.next = windows[0].End.UnixMicro(), windows[1].End.UnixMicro()
	if now >= u.end {
		u.end = u.next
	}
}

// check returns what is left, and the times until more is and until need fits.
func (u *modelUsage) check(windows *[2]ratelimit.Window, now, need int64) (remaining, reset, wait int64) {
	most := u.limit.Quota()
	switch u.limit.Algorithm() {
	case ratelimit.AlgorithmTokenBucket:
		most = u.limit.Burst()
		span, tokens := u.missing(now)
		remaining = max(most-tokens, 0)
		if tokens > 0 {
			reset = roundUp(new(big.Rat).Sub(span, u.span(min(tokens, most)-1)))
		}
		wait = roundUp(span.Sub(span, u.span(most-need)))
	case ratelimit.AlgorithmRollingWindow:
		u.expire(now)
		excess := u.sum() + need - most
		remaining = max(most-u.sum(), 0)
		for i, s := range u.stamps {
			leaves := s.at + u.limit.Per().Microseconds() - now
			if i == 0 {
				reset = leaves
			}
			if excess > 0 {
				wait = leaves
			}
			excess -= s.cost
		}
	default:
		u.turn(windows, now)
		remaining, reset, wait = max(most-u.used, 0), u.end-now, u.end-now
	}
	if need > most {
		wait = -1
	}
	return remaining, reset, wait
}

// mostUsed returns how many tokens may be missing from an overdrawn bucket.
func (u *modelUsage) mostUsed() int64 {
	const days = 36_600
	n := new(big.Int).Mul(big.NewInt(days*24*3600*1e6), big.NewInt(u.limit.Quota()))
	n.Div(n, big.NewInt(u.limit.Per().Microseconds()))
	if most := big.NewInt(1e9); n.Cmp(most) > 0 {
		n = most
	}
	return n.Int64()
}

func (u *modelUsage) clone() *modelUsage {
	own := *u
	own.full, own.stamps = new(big.Rat).Set(u.full), slices.Clone(u.stamps)
	return &own
}

// adjust moves up to cost units that were charged at an instant.
func (u *modelUsage) adjust(windows *[2]ratelimit.Window, now, at, cost int64, overdraw bool) (moved int64) {
	switch u.limit.Algorithm() {
	case ratelimit.AlgorithmTokenBucket:
		span, tokens := u.missing(now)
		most := u.limit.Burst()
		if overdraw {
			most = u.mostUsed()
		}
		moved = max(min(cost, max(most-tokens, 0)), -tokens)
		u.most = tokens + moved
		u.full.Add(big.NewRat(now, 1), span.Add(span, u.span(moved)))
	case ratelimit.AlgorithmRollingWindow:
		u.expire(now)
		moved = min(cost, max(u.limit.Quota()-u.sum(), 0))
		i := slices.IndexFunc(u.stamps, func(s modelStamp) bool { return s.at == at })
		switch {
		case cost > 0 && (at > now || now >= at+u.limit.Per().Microseconds()):
			u.add(now, moved)
		case cost > 0:
			u.add(at, moved)
		case i < 0:
			return 0
		default:
			moved = max(cost, -u.stamps[i].cost)
			u.stamps[i].cost += moved
		}
		u.stamps = slices.DeleteFunc(u.stamps, func(s modelStamp) bool { return s.cost == 0 })
	default:
		u.turn(windows, now)
		switch {
		case cost > 0:
			moved = min(cost, max(u.limit.Quota()-u.used, 0))
		case at >= u.opened:
			moved = max(cost, -u.used)
		}
		u.used += moved
	}
	return moved
}

// debt returns what a new limit of the key starts with.
func (u *modelUsage) debt(now int64) modelDebt {
	switch u.limit.Algorithm() {
	case ratelimit.AlgorithmTokenBucket:
		_, tokens := u.missing(now)
		return modelDebt{tokens, roundUp(u.full)}
	case ratelimit.AlgorithmRollingWindow:
		u.expire(now)
		if len(u.stamps) == 0 {
			return modelDebt{}
		}
		return modelDebt{u.sum(), u.stamps[len(u.stamps)-1].at + u.limit.Per().Microseconds()}
	default:
		return modelDebt{u.used, u.end}
	}
}
