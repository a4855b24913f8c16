package ratelimittest

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// A script is a series of random calls, with the results that a Memory has returned for
// them.
type script struct {
	random   *rand.Rand
	policies []policy
	steps    []step
	// pace is how long a usual pause is.
	pace time.Duration
	// taken and places are recent charges of Take that later steps adjust, or renew.
	taken, places []taken
	// hints are times after which something may change.
	hints []time.Duration
}

// A policy is a name, with the limits that its keys have from one call to the next.
type policy struct {
	name   string
	limits []ratelimit.Limit
}

const (
	stepsOfScript  = 1000
	lengthOfScript = 7 * 24 * time.Hour
)

// record makes the calls of the n-th script to a Memory, in a bubble of its own. Each
// script begins after the one before has ended.
func (s *script) record(t *testing.T, n int) {
	memory, err := ratelimit.NewMemory(ratelimit.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }()
	s.pace = pick(s, 20*time.Microsecond, time.Millisecond, 50*time.Millisecond, time.Second, time.Minute)
	for range 5 {
		s.addPolicy()
	}
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * lengthOfScript)
	time.Sleep(time.Until(begin))
	for i := range stepsOfScript {
		pause := s.pause()
		if time.Since(begin)+pause > lengthOfScript-time.Hour {
			pause %= time.Second
		}
		time.Sleep(pause)
		next := s.next(time.Now().UTC())
		next.do(t.Context(), memory)
		s.steps = append(s.steps, next)
		s.learn(i)
	}
}

func (s *script) addPolicy() {
	p := policy{name: charge(ratelimit.Unlimited()).Policy}
	per := s.period()
	for range pick(s, 1, 1, 1, 2, 3, 7) {
		p.limits = append(p.limits, s.limit(per))
		if len(p.limits)%2 == 0 {
			per = pick(s, per, s.period()) // windows often end together
		}
	}
	s.policies = append(s.policies, p)
}

// pick returns one of its arguments.
func pick[T any](s *script, of ...T) T { return of[s.random.IntN(len(of))] }

func (s *script) period() time.Duration {
	return pick(s, time.Microsecond, 10*time.Millisecond, 250*time.Millisecond, time.Second, 1_234_567*time.Microsecond,
		time.Minute, 999_999_937*time.Microsecond, time.Hour, 24*time.Hour, 10*366*24*time.Hour)
}

func (s *script) limit(per time.Duration) ratelimit.Limit {
	small := pick(s, 1, 2, 3, 5, 7, 10, 100, 1_000_000_000)
	switch s.random.IntN(13) {
	case 0, 1, 2, 3, 4:
		quota := pick(s, 1, 3, 7, 60, 97, 1000, 999_983, 999_999_937, 1_000_000_000, 1+s.random.IntN(1_000_000))
		burst := pick(s, 1, 2, 5, small, quota, 10_000, 1_000_000_000)
		// Its bucket is full within 100 years.
		if burst/quota > int(100*365*24*time.Hour/per)-1 {
			burst = quota
		}
		return ratelimit.TokenBucket(quota, per, burst)
	case 5, 6, 7:
		return ratelimit.RollingWindow(small, per)
	case 8:
		return ratelimit.CalendarWindow(small, pick(s, ratelimit.Minute, ratelimit.Hour))
	case 9:
		unit := pick(s, ratelimit.Minute, ratelimit.Hour, ratelimit.Day, ratelimit.Week)
		l := ratelimit.CalendarWindow(small, unit).In(pick(s, time.UTC, time.FixedZone("odd zone", 20_700)))
		if unit >= ratelimit.Day {
			// Of these, two are the same anniversary of a day.
			day := pick(s, 1, 2, 2+s.random.IntN(20))
			l = l.From(time.Date(2025, 1, day, pick(s, 0, 7), 30, 0, 0, time.UTC))
		}
		return l
	case 10, 11:
		return ratelimit.Concurrency(small)
	default:
		return pick(s, ratelimit.Unlimited(), ratelimit.Nothing(), ratelimit.TokenBucket(0, per, 1),
			ratelimit.RollingWindow(0, per), ratelimit.CalendarWindow(0, ratelimit.Hour), ratelimit.Concurrency(0))
	}
}

// most returns the largest cost that can fit under a limit.
func most(l ratelimit.Limit) int64 {
	if l.Algorithm() == ratelimit.AlgorithmTokenBucket {
		return l.Burst()
	}
	return l.Quota()
}

// pause returns the time until the next call: often none, and often just before, at or
// after an instant at which something changes.
func (s *script) pause() time.Duration {
	upTo := func(d time.Duration) time.Duration {
		return time.Duration(s.random.Int64N(int64(d/time.Microsecond)+1)) * time.Microsecond
	}
	switch s.random.IntN(20) {
	case 0, 1, 2, 3, 4, 5, 6, 7:
		return 0
	case 8, 9:
		return upTo(10 * time.Microsecond)
	case 10, 11, 12, 13:
		return upTo(s.pace)
	case 14:
		return upTo(20 * s.pace)
	default:
		if len(s.hints) == 0 {
			return 0
		}
		hint := pick(s, s.hints...)
		if hint > 20*s.pace && s.random.IntN(20) > 0 {
			return 0
		}
		return max(hint+pick[time.Duration](s, -1, 0, 0, 1)*time.Microsecond, 0)
	}
}

// next draws the next call, at now.
func (s *script) next(now time.Time) step {
	n := s.random.IntN(100)
	switch {
	case n < 4 && len(s.steps) > 0:
		// The last call once more, as if its result had been lost.
		if last := &s.steps[len(s.steps)-1]; last.err == nil && now.Sub(last.first) < 4*time.Second {
			again := last.request()
			again.at, again.first = now, last.first
			for i, earlier := range again.takes {
				again.call.Charges[i].TakenAt = s.charge(earlier).TakenAt
			}
			return again
		}
	case n < 28 && len(s.taken) > 0:
		return s.adjustment(now)
	case n < 36 && len(s.places) > 0:
		return s.renewal(now)
	case n < 38:
		w := step{at: now, first: now, method: reset}
		for range pick(s, 1, 1, 2, 3) {
			w.resets = append(w.resets, ratelimit.Counter{Policy: pick(s, s.policies...).name, Key: s.key()})
		}
		return w
	}
	w := step{at: now, first: now, method: take, call: ratelimit.Decision{ID: newID(), Peek: s.random.IntN(10) == 0}}
	for _, i := range s.random.Perm(len(s.policies))[:pick(s, 1, 1, 2, 3, 4)] {
		p := s.policies[i]
		c := ratelimit.Charge{Policy: p.name, Key: s.key(), Limit: pick(s, p.limits...)}
		c.Cost = s.amount(c.Limit)
		if s.random.IntN(5) == 0 {
			c.MinRemaining = s.amount(c.Limit)
		}
		c.Shadow = s.random.IntN(10) == 0
		c.Hold = s.random.IntN(pick(s, 2, 20)) == 0
		c.Overdraw = s.random.IntN(20) == 0
		w.call.Charges = append(w.call.Charges, s.present(c, now))
	}
	return w
}

func (s *script) key() ratelimit.Key {
	return pick(s, ratelimit.Key{}, ratelimit.TextKey("a"), ratelimit.AddressKey(netip.MustParsePrefix("192.0.2.1/32")))
}

// amount returns a cost under a limit. A few costs never fit.
func (s *script) amount(l ratelimit.Limit) int64 {
	return pick(s, 0, 1, 1, 1, 1, 2, 3, 1+s.random.Int64N(most(l)/2+1), 1+s.random.Int64N(most(l)+1))
}

// present returns c with the values that a process knows at now, by a clock that may differ
// from that of the store.
func (s *script) present(c ratelimit.Charge, now time.Time) ratelimit.Charge {
	c = under(c, c.Limit)
	if c.Limit.Algorithm() == ratelimit.AlgorithmCalendarWindow {
		off := pick(s, 0, 0, 0, 0, 0, 0, 1, -1, 40, -40, 90, -90, 3600, 366*24*3600)
		c.Windows = windows(c.Limit, now.Add(time.Duration(off)*time.Second))
	}
	if c.Hold || c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
		c.Lease = pick(s, 10*time.Millisecond, time.Second, time.Minute, time.Hour)
	}
	return c
}

// charge returns a charge of an earlier step, as a Memory has set it.
func (s *script) charge(of taken) ratelimit.Charge { return s.steps[of.step].call.Charges[of.charge] }

// adjustment draws a call of Adjust for charges of earlier calls of Take.
func (s *script) adjustment(now time.Time) step {
	w := step{at: now, first: now, method: adjust, call: ratelimit.Decision{ID: newID()}}
	for range pick(s, 1, 1, 1, 2, 3) {
		of := pick(s, s.taken...)
		c := s.charge(of)
		if slices.ContainsFunc(w.call.Charges, func(o ratelimit.Charge) bool { return o.Policy == c.Policy }) {
			continue
		}
		c.Cost = pick(s, -c.Cost, -1, 1, s.amount(c.Limit), -s.amount(c.Limit))
		c.Overdraw = s.random.IntN(4) == 0
		if s.random.IntN(20) == 0 {
			c.Hold = !c.Hold
		}
		c.EndHold = s.random.IntN(2) == 0
		w.call.Charges = append(w.call.Charges, s.present(c, now))
		w.takes = append(w.takes, of)
	}
	return w
}

// renewal draws a call of Renew for places of earlier calls of Take, and others.
func (s *script) renewal(now time.Time) step {
	w := step{at: now, first: now, method: renew, lease: pick(s, 10*time.Millisecond, time.Second, time.Hour)}
	for range pick(s, 1, 2, 5, 20) {
		p := place(s.charge(pick(s, s.places...)))
		if s.random.IntN(20) == 0 {
			p.TakenBy = newID()
		}
		if !slices.Contains(w.places, p) {
			w.places = append(w.places, p)
		}
	}
	return w
}

// learn keeps the charges and places to which later steps refer.
func (s *script) learn(i int) {
	w := &s.steps[i]
	if w.method != take || w.err != nil || w.call.Peek {
		return
	}
	for j, c := range w.call.Charges {
		for _, d := range []time.Duration{c.Reset, c.Wait, c.Lease} {
			if d > 0 && d <= 3*time.Hour {
				s.hints = keep(s.hints, micros(d), 10)
			}
		}
		if (!w.call.Admitted || c.Violated || c.Limit.Quota() == 0) && s.random.IntN(20) > 0 {
			continue // nothing was charged
		}
		s.taken = keep(s.taken, taken{i, j}, 20)
		if c.Hold || c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
			s.places = keep(s.places, taken{i, j}, 20)
		}
	}
}

// keep appends v, and drops the first if there are more than n.
func keep[T any](of []T, v T, n int) []T {
	of = append(of, v)
	return of[max(len(of)-n, 0):]
}
