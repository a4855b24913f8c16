// Package ratelimittest checks that a [ratelimit.Store] keeps its contract.
//
//	func TestStore(t *testing.T) {
//		ratelimittest.TestStore(t, func(t testing.TB) ratelimit.Store { return open(t) })
//	}
//
// [TestStore] is for every store. [TestShared] is for stores that several processes share,
// and [TestDecisions] compares what a store computes with what a [ratelimit.Memory] does.
// [TestClock] sets the clock of a store back.
package ratelimittest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// TestStore runs the suite. Open returns a store for one test, which closes it. The stores
// may share their data, since each test uses policy names of its own. The clock of the
// store may differ from that of the test by a few milliseconds.
func TestStore(t *testing.T, open func(testing.TB) ratelimit.Store) {
	for _, c := range []struct {
		name string
		test func(suite, *testing.T)
	}{
		{"a limit admits its quota and no more", suite.quota},
		{"a refused request is charged to no policy", suite.allOrNone},
		{"the order of the policies makes no difference", suite.order},
		{"a shadow policy never refuses, and counts what fits", suite.shadow},
		{"a cost takes that many units, and one above the limit never fits", suite.cost},
		{"a cost of zero fits even if nothing is left", suite.peek},
		{"a charge can require units to be left", suite.minRemaining},
		{"under a quota of zero nothing fits", suite.nothing},
		{"an unlimited key is never refused", suite.unlimited},

		{"keys and policies are counted apart", suite.apart},
		{"every text is a key of its own", suite.texts},
		{"every address is a key of its own", suite.addresses},
		{"every policy name is one of its own", suite.policies},

		{"Reset is the time until more is left", suite.reset},
		{"Wait is the time until the cost fits", suite.wait},
		{"after the wait the cost fits", suite.obey},
		{"a calendar window ends when the charge says, and the next begins", suite.nextWindow},
		{"a calendar window stays until it has ended", suite.sameWindow},
		{"calendar windows that have ended are an error", suite.noWindow},
		{"the present calendar window takes the place of a later one", suite.laterWindow},
		{"a calendar window is identified by its zone and its anchor", suite.anchors},

		{"what is refunded can be used again", suite.refund},
		{"no more is refunded than was taken", suite.refundTooMuch},
		{"nothing is refunded once the window has ended", suite.refundLate},
		{"an adjustment takes what is left, and reports how much", suite.adjustUp},
		{"what did not fit is not refunded", suite.refundTaken},
		{"every charge of an adjustment is adjusted", suite.adjustAll},

		{"a limit may change from one decision to the next", suite.changing},
		{"a limit keeps its count when the key meets another", suite.alternating},
		{"a larger limit starts with what was used and no more", suite.larger},
		{"four limits of a key count together", suite.fourLimits},
		{"a refund counts under every limit of the key", suite.refundEverywhere},

		{"a peek reports what a decision would be, and charges nothing", suite.lookOnly},
		{"a peek is not kept for a repetition", suite.lookAgain},
		{"a peek begins nothing", suite.lookBegins},

		{"an overdrawn bucket admits nothing until its debt is earned", suite.debt},
		{"only an adjustment of a token bucket overdraws", suite.debtElsewhere},
		{"other limits of an overdrawn key are charged as far as it fits", suite.debtSpreads},
		{"a debt is bounded", suite.mostDebt},

		{"what a decision holds is not left for others", suite.holds},
		{"a refused request holds nothing", suite.holdAllOrNone},
		{"a hold grows as far as units are left, and shrinks to nothing", suite.holdAdjust},
		{"the end of a hold charges what was used", suite.holdEnd},
		{"the end of a hold can overdraw a token bucket", suite.holdDebt},
		{"charges without a hold take nothing that others hold", suite.holdPlain},
		{"a hold counts under every limit of the key", suite.holdLimits},
		{"a hold ends with its lease unless it is renewed", suite.holdLease},
		{"holds count apart from places", suite.holdPlaces},
		{"a key that is reset keeps its holds", suite.holdReset},
		{"a call with a hold that is repeated has one effect", suite.repeatHold},
		{"concurrent holds take no more than the limit", suite.holdConcurrently},

		{"a key that is reset has used nothing", suite.resetKey},
		{"a key that is reset has used nothing under any limit", suite.resetLimits},
		{"places stay in use when their key is reset", suite.resetPlaces},
		{"a call resets up to MaxRenew counters", suite.resetMost},

		{"places of a concurrency limit are free again when refunded", suite.places},
		{"a place that is refunded twice frees no other", suite.refundTwice},
		{"a place is free once its lease has ended", suite.lease},
		{"a renewed place stays in use", suite.renew},
		{"a call renews up to MaxRenew places", suite.renewMost},
		{"a place that is not in use is lost, and is not renewed", suite.lost},
		{"an adjustment of places that are not in use moves nothing", suite.adjustLost},
		{"places count apart from the other limits of their key", suite.placesApart},

		{"a call of Take that is repeated charges once", suite.repeatTake},
		{"a call of Take that is repeated returns the same", suite.repeatResult},
		{"a call of Adjust that is repeated moves once", suite.repeatAdjust},
		{"a refund of places that is repeated frees once", suite.repeatPlaces},
		{"concurrent repetitions charge once", suite.repeatConcurrently},
		{"calls of other IDs are other calls", suite.otherIDs},

		{"a decision with one policy twice is an error", suite.twice},
		{"a decision has up to 16 charges", suite.most},
		{"a call whose context has ended is charged at most once", suite.ended},
		{"concurrent requests take exactly the limit", suite.concurrent},
		{"overlapping decisions in any order do not deadlock", suite.overlapping},
		{"a closed store refuses every call", suite.close},
		{"calls during Close end", suite.closing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := suite{open(t)}
			t.Cleanup(func() { _ = s.store.Close() })
			c.test(s, t)
		})
	}
}

type suite struct{ store ratelimit.Store }

var (
	serial  atomic.Uint64
	process = rand.Uint64()
)

// newID returns an ID that no other call has.
func newID() ratelimit.ID { return ratelimit.ID{Node: process, Seq: serial.Add(1)} }

// charge returns a charge of one unit under a policy that no other test uses.
func charge(l ratelimit.Limit) ratelimit.Charge {
	c := ratelimit.Charge{
		Policy: fmt.Sprintf("test-%x-%d", process, serial.Add(1)),
		Key:    ratelimit.TextKey("key"),
		Cost:   1,
	}
	return under(c, l)
}

// under returns c with another limit, and with the windows or the lease that a store needs
// for it.
func under(c ratelimit.Charge, l ratelimit.Limit) ratelimit.Charge {
	c.Limit, c.Windows, c.Lease = l, [2]ratelimit.Window{}, 0
	switch l.Algorithm() {
	case ratelimit.AlgorithmCalendarWindow:
		c.Windows = windows(l, time.Now())
	case ratelimit.AlgorithmConcurrency:
		c.Lease = time.Hour
	}
	return c
}

// windows returns the window of a calendar limit that contains t, and the next.
func windows(l ratelimit.Limit, t time.Time) (w [2]ratelimit.Window) {
	for i := range w {
		w[i].Start, w[i].End = l.Window(t)
		t = w[i].End
	}
	return w
}

// limits returns one limit of each algorithm, with a quota of five and a period that no
// test outlasts.
func limits() map[string]ratelimit.Limit {
	all := uses()
	all["concurrency"] = ratelimit.Concurrency(5)
	return all
}

// uses returns the limits that count what was used, without those that count places in use.
func uses() map[string]ratelimit.Limit {
	return map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(5, 1000*time.Hour, 5),
		"rolling window":  ratelimit.RollingWindow(5, time.Hour),
		"calendar window": ratelimit.CalendarWindow(5, ratelimit.Year),
	}
}

// each runs a test with a new charge under each limit.
func each(t *testing.T, limits map[string]ratelimit.Limit, test func(*testing.T, ratelimit.Charge)) {
	for name, l := range limits {
		t.Run(name, func(t *testing.T) { test(t, charge(l)) })
	}
}

// patience is how long a call may take before the test gives up. A slower store is not
// wrong, but it cannot be tested.
const patience = 30 * time.Second

// take decides charges in a new call, which must not fail.
func (s suite) take(t testing.TB, charges ...ratelimit.Charge) *ratelimit.Decision {
	t.Helper()
	d := &ratelimit.Decision{ID: newID(), Charges: charges}
	if err := s.call(t, s.store.Take, d); err != nil {
		t.Fatalf("Take: %v", err)
	}
	return d
}

// call calls one of the methods of the store.
func (s suite) call(t testing.TB, method func(context.Context, *ratelimit.Decision) error, d *ratelimit.Decision) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return method(ctx, d)
}

// fill takes all five units of c, which must fit.
func (s suite) fill(t testing.TB, c ratelimit.Charge) ratelimit.Charge {
	t.Helper()
	c.Cost = 5
	d := s.take(t, c)
	if !d.Admitted || d.Charges[0].Remaining != 0 {
		t.Fatalf("a cost of 5 of 5: admitted %v, remaining %d", d.Admitted, d.Charges[0].Remaining)
	}
	return d.Charges[0]
}

// wantLeft fails the test unless exactly n more units can be taken under c.
func (s suite) wantLeft(t testing.TB, c ratelimit.Charge, n int64) {
	t.Helper()
	c.Cost, c.MinRemaining, c.Shadow = 0, 0, false
	if got := s.take(t, c).Charges[0].Remaining; got != n {
		t.Errorf("Remaining = %d, want %d", got, n)
	}
	c.Cost = n + 1
	if s.take(t, c).Admitted {
		t.Errorf("a cost of %d is admitted, want %d to be left", n+1, n)
	}
}

// adjust fails the test unless an adjustment by cost moves this many units.
func (s suite) adjust(t testing.TB, c ratelimit.Charge, cost, moved int64) {
	t.Helper()
	c.Cost, c.Moved = cost, -99
	d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
	if err := s.call(t, s.store.Adjust, d); err != nil {
		t.Fatalf("Adjust: %v", err)
	}
	if got := d.Charges[0].Moved; got != moved {
		t.Errorf("an adjustment by %d has moved %d units, want %d", cost, got, moved)
	}
}

// soon calls test with a short period, within which all calls of test must end. If they
// take longer, the result of test means nothing, and soon calls it again with a longer
// period. It returns the period, and the end of a period that begins with the last call.
func soon(t *testing.T, test func(period time.Duration) error) (period time.Duration, due time.Time) {
	t.Helper()
	for period = 100 * time.Millisecond; ; period *= 2 {
		began := time.Now()
		err := test(period)
		switch took := time.Since(began); {
		case took < period && err != nil:
			t.Fatal(err)
		case took < period:
			return period, time.Now().Add(period)
		case period > patience:
			t.Fatalf("the calls took %v", took)
		}
	}
}

// eventually fails the test unless ok holds at the time due, or soon after.
func eventually(t *testing.T, due time.Time, what string, ok func() bool) {
	t.Helper()
	wait := max(time.Until(due), 10*time.Millisecond)
	time.Sleep(wait)
	for end := due.Add(10 * wait); !ok(); time.Sleep(wait / 10) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
