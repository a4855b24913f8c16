package ratelimit_test

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// An oracle decides slowly and simply: it keeps everything that it has admitted, and
// computes with exact numbers.
type oracle struct {
	limit    ratelimit.Limit
	admitted []usage
}

type usage struct {
	at   time.Time
	cost int64
}

// fits reports whether a cost fits at now.
func (o *oracle) fits(now time.Time, cost int64) bool {
	if cost == 0 {
		return true
	}
	switch o.limit.Algorithm() {
	case ratelimit.AlgorithmRollingWindow:
		return o.within(now.Add(-o.limit.Per()), false, cost)
	case ratelimit.AlgorithmCalendarWindow:
		start, _ := o.limit.Window(now)
		return o.within(start, true, cost)
	default:
		return o.bucket(now, cost)
	}
}

// within sums what was used since start, including it or not.
func (o *oracle) within(start time.Time, included bool, cost int64) bool {
	sum := cost
	for _, u := range o.admitted {
		if u.at.After(start) || included && u.at.Equal(start) {
			sum += u.cost
		}
	}
	return sum <= o.limit.Quota()
}

func (o *oracle) bucket(now time.Time, cost int64) bool {
	burst := new(big.Rat).SetInt64(o.limit.Burst())
	perNano := new(big.Rat).SetFrac64(o.limit.Quota(), int64(o.limit.Per()))
	tokens := new(big.Rat).Set(burst)
	earn := func(d time.Duration) {
		tokens.Add(tokens, new(big.Rat).Mul(perNano, new(big.Rat).SetInt64(int64(d))))
		if tokens.Cmp(burst) > 0 {
			tokens.Set(burst)
		}
	}
	last := now
	for i, u := range o.admitted {
		if i > 0 {
			earn(u.at.Sub(last))
		}
		last = u.at
		tokens.Sub(tokens, new(big.Rat).SetInt64(u.cost))
	}
	earn(now.Sub(last))
	return tokens.Cmp(new(big.Rat).SetInt64(cost)) >= 0
}

// check runs each case of a property in a bubble of its own: rapid itself must stay
// outside, where time is real. Its panics are passed on.
func check(t *testing.T, property func(*rapid.T)) {
	rapid.Check(t, func(rt *rapid.T) {
		var panicked any
		synctest.Test(t, func(*testing.T) {
			defer func() { panicked = recover() }()
			property(rt)
		})
		if panicked != nil {
			panic(panicked)
		}
	})
}

func drawLimit(t *rapid.T) ratelimit.Limit {
	quota := rapid.IntRange(1, 6).Draw(t, "quota")
	per := rapid.SampledFrom([]time.Duration{
		time.Second, 3 * time.Second, 10 * time.Second, time.Minute, 1234567891, time.Hour,
	}).Draw(t, "per")
	switch rapid.IntRange(0, 2).Draw(t, "algorithm") {
	case 0:
		return ratelimit.TokenBucket(quota, per, rapid.IntRange(1, 8).Draw(t, "burst"))
	case 1:
		return ratelimit.RollingWindow(quota, per)
	default:
		unit := rapid.SampledFrom([]ratelimit.Unit{ratelimit.Minute, ratelimit.Hour, ratelimit.Day}).Draw(t, "unit")
		return ratelimit.CalendarWindow(quota, unit)
	}
}

// drawPause favours the times at which something happens.
func drawPause(t *rapid.T) time.Duration {
	return rapid.OneOf(
		rapid.Just(time.Duration(0)),
		rapid.SampledFrom([]time.Duration{1, time.Microsecond, time.Second, 3 * time.Second, time.Minute, time.Minute - 1, time.Hour}),
		rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(90*time.Second)).Draw(t, "nanoseconds"))
		}),
	).Draw(t, "pause")
}

// TestDecisionsAgreeWithASlowOracle draws random policies, keys, costs and
// pauses, and compares each decision with exact arithmetic over everything that was
// admitted before. That covers: no limit is ever exceeded, nothing is refused without
// need, a refused request changes nothing, and all or no policies are charged.
func TestDecisionsAgreeWithASlowOracle(t *testing.T) {
	check(t, func(t *rapid.T) {
		var limits []ratelimit.Limit
		for range rapid.IntRange(1, 4).Draw(t, "policies") {
			limits = append(limits, drawLimit(t))
		}
		forth, back := newMemory(), newMemory()
		oracles := map[string]*oracle{}
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			time.Sleep(drawPause(t))
			decideOnce(t, limits, forth, back, oracles)
		}
	})
}

func take(m *ratelimit.Memory, charges []ratelimit.Charge) (admitted bool, err error) {
	d := ratelimit.Decision{Charges: charges}
	err = m.Take(context.Background(), &d)
	return d.Admitted, err
}

func decideOnce(t *rapid.T, limits []ratelimit.Limit, forth, back *ratelimit.Memory, oracles map[string]*oracle) {
	now := time.Now()
	cost := rapid.SampledFrom([]int64{1, 1, 1, 2, 3, 0, 7}).Draw(t, "cost")
	var charges []ratelimit.Charge
	var asked []*oracle
	want := true
	for i, l := range limits {
		key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
		c := ratelimit.Charge{Policy: fmt.Sprint("p", i), Key: ratelimit.TextKey(key), Limit: l, Cost: cost}
		charges = append(charges, c)
		name := c.Policy + key
		if oracles[name] == nil {
			oracles[name] = &oracle{limit: l}
		}
		o := oracles[name]
		asked = append(asked, o)
		want = want && o.fits(now, cost)
	}
	reversed := slices.Clone(charges)
	slices.Reverse(reversed)

	got, err := take(forth, charges)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("admitted %v at %v, the oracle says %v: %+v", got, now, want, charges)
	}
	gotBack, _ := take(back, reversed)
	slices.Reverse(reversed)
	if got != gotBack {
		t.Fatalf("admitted %v, in reverse order %v", got, gotBack)
	}
	for i := range charges {
		a, b := charges[i], reversed[i]
		if a.Violated != b.Violated || a.Remaining != b.Remaining || a.Wait != b.Wait || a.Reset != b.Reset {
			t.Fatalf("the order of policies changed the outcome: %+v and %+v", a, b)
		}
	}
	if got {
		for _, o := range asked {
			if cost > 0 {
				o.admitted = append(o.admitted, usage{now, cost})
			}
		}
		return
	}
	obey(t, charges, forth, back, asked)
}

// obey waits as long as the refusal says, not a nanosecond less, and
// must then be admitted.
func obey(t *rapid.T, charges []ratelimit.Charge, forth, back *ratelimit.Memory, asked []*oracle) {
	var wait time.Duration
	for _, c := range charges {
		if c.Violated && c.Wait < 0 {
			return
		}
		if c.Violated {
			wait = max(wait, c.Wait)
		}
	}
	if !rapid.Bool().Draw(t, "obey") {
		return
	}
	time.Sleep(wait)
	// A nanosecond earlier was too early: the oracle has checked that kind of moment
	// through drawPause.
	got, _ := take(forth, charges)
	gotBack, _ := take(back, slices.Clone(charges))
	if !got || !gotBack {
		t.Fatalf("refused after the wait of %v: %+v", wait, charges)
	}
	for i, o := range asked {
		if charges[i].Cost > 0 {
			o.admitted = append(o.admitted, usage{time.Now(), charges[i].Cost})
		}
	}
}

// TestRollingWindowNeverExceedsItsQuota checks every span, not only those that end with
// a request.
func TestRollingWindowNeverExceedsItsQuota(t *testing.T) {
	check(t, func(t *rapid.T) {
		const quota, per = 5, 10 * time.Second
		m := newMemory()
		var admitted []time.Time
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			time.Sleep(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "pause")))
			c := ratelimit.Charge{Policy: "p", Limit: ratelimit.RollingWindow(quota, per), Cost: 1}
			if ok, _ := take(m, []ratelimit.Charge{c}); ok {
				admitted = append(admitted, time.Now())
			}
		}
		for i := quota; i < len(admitted); i++ {
			if span := admitted[i].Sub(admitted[i-quota]); span < per {
				t.Fatalf("%d requests within %v", quota+1, span)
			}
		}
	})
}

// TestNoLimitIsForgottenForAnother draws limits for each request of one key, and
// holds what each of them has admitted against an oracle of its own.
func TestNoLimitIsForgottenForAnother(t *testing.T) {
	check(t, func(t *rapid.T) {
		limits := make([]ratelimit.Limit, rapid.IntRange(2, 4).Draw(t, "limits"))
		oracles := make([]*oracle, len(limits))
		for i := range limits {
			limits[i] = drawLimit(t)
			oracles[i] = &oracle{limit: limits[i]}
		}
		m := usher.Must(ratelimit.NewMemory(ratelimit.MemoryConfig{}))
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			time.Sleep(drawPause(t))
			i := rapid.IntRange(0, len(limits)-1).Draw(t, "limit")
			c := ratelimit.Charge{Policy: "p", Limit: limits[i], Cost: 1}
			admitted, err := take(m, []ratelimit.Charge{c})
			if err != nil {
				t.Fatal(err)
			}
			if admitted && !oracles[i].fits(time.Now(), 1) {
				t.Fatalf("%v has admitted more than it may", limits[i])
			}
			if admitted {
				oracles[i].admitted = append(oracles[i].admitted, usage{time.Now(), 1})
			}
		}
	})
}

func newMemory() *ratelimit.Memory { return usher.Must(ratelimit.NewMemory(ratelimit.MemoryConfig{})) }
