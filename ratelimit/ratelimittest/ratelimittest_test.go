package ratelimittest_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

var wrong = flag.String("wrong", "", "the wrong store that TestWrongStore runs the suite against")

// A store changes the arguments and the results of a Memory.
type store struct {
	*ratelimit.Memory
	take, taken     func(*ratelimit.Charge)
	adjust          func(*ratelimit.Charge)
	adjusted        func(charge *ratelimit.Charge, cost int64)
	onlyFirstAdjust bool
}

func (s store) Take(ctx context.Context, d *ratelimit.Decision) error {
	own := *d
	own.Charges = slices.Clone(d.Charges)
	each(own.Charges, s.take)
	err := s.Memory.Take(ctx, &own)
	each(own.Charges, s.taken)
	d.Admitted = own.Admitted
	for i := range d.Charges {
		c, o := &d.Charges[i], &own.Charges[i]
		c.Violated, c.Remaining, c.Reset, c.Wait, c.TakenBy, c.TakenAt =
			o.Violated, o.Remaining, o.Reset, o.Wait, o.TakenBy, o.TakenAt
		if o.Violated && !o.Shadow {
			d.Admitted = false
		}
	}
	return err
}

func (s store) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	own := *d
	own.Charges = slices.Clone(d.Charges)
	if s.onlyFirstAdjust {
		own.Charges = own.Charges[:1]
	}
	each(own.Charges, s.adjust)
	err := s.Memory.Adjust(ctx, &own)
	for i := range own.Charges {
		d.Charges[i].Moved = own.Charges[i].Moved
		if s.adjusted != nil {
			s.adjusted(&d.Charges[i], own.Charges[i].Cost)
		}
	}
	return err
}

func each(charges []ratelimit.Charge, f func(*ratelimit.Charge)) {
	for i := range charges {
		if f != nil {
			f(&charges[i])
		}
	}
}

// stores are stores that are wrong in one way each, with the test of the suite that must
// fail.
var stores = map[string]struct {
	store store
	fails string
}{
	"does not report what it has moved": {
		store{adjusted: func(c *ratelimit.Charge, _ int64) { c.Moved = 0 }},
		"an_adjustment_takes_what_is_left",
	},
	"reports that it has moved all it was asked to": {
		store{adjusted: func(c *ratelimit.Charge, cost int64) { c.Moved = cost }},
		"an_adjustment_takes_what_is_left",
	},
	"takes nothing upwards": {
		store{adjust: func(c *ratelimit.Charge) { c.Cost = min(c.Cost, 0) }},
		"an_adjustment_takes_what_is_left",
	},
	"stamps what it takes later at another instant": {
		store{adjust: func(c *ratelimit.Charge) {
			if c.Cost > 0 {
				c.TakenAt = 0
			}
		}},
		"what_did_not_fit_is_not_refunded",
	},
	"refunds nothing": {
		store{adjust: func(c *ratelimit.Charge) { c.Cost = max(c.Cost, 0) }},
		"what_is_refunded_can_be_used_again",
	},
	"adjusts only the first charge": {
		store{onlyFirstAdjust: true},
		"every_charge_of_an_adjustment_is_adjusted",
	},
	"does not look at MinRemaining": {
		store{take: func(c *ratelimit.Charge) { c.MinRemaining = 0 }},
		"a_charge_of_zero_can_require",
	},
	"charges what MinRemaining asks for": {
		store{take: func(c *ratelimit.Charge) { c.Cost = max(c.Cost, c.MinRemaining) }},
		"a_charge_of_zero_can_require",
	},
	"takes a quota of 0 for none": {
		store{take: func(c *ratelimit.Charge) {
			if c.Limit.Quota() == 0 {
				c.Limit = ratelimit.Unlimited()
			}
		}},
		"under_a_quota_of_zero_nothing_fits",
	},
	"reports a wait under a quota of 0": {
		store{taken: func(c *ratelimit.Charge) { c.Wait = max(c.Wait, 0) }},
		"under_a_quota_of_zero_nothing_fits",
	},
	"counts each limit of a key apart": {
		store{
			take:   func(c *ratelimit.Charge) { c.Policy += c.Limit.String() },
			adjust: func(c *ratelimit.Charge) { c.Policy += c.Limit.String() },
		},
		"a_larger_limit_starts_with_what_was_used",
	},
}

// TestWrongStoresFail runs the suite in a process of its own for each wrong store.
func TestWrongStoresFail(t *testing.T) {
	for name, c := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWrongStore$", "-wrong", name) //nolint:gosec // this test itself
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatal("the suite passes")
			}
			if !strings.Contains(string(out), "--- FAIL: TestWrongStore/"+c.fails) {
				t.Errorf("another test than %s fails:\n%s", c.fails, out)
			}
		})
	}
}

func newMemory() *ratelimit.Memory {
	m, err := ratelimit.NewMemory(ratelimit.MemoryConfig{})
	if err != nil {
		panic(err)
	}
	return m
}

func TestWrongStore(t *testing.T) {
	if *wrong == "" {
		t.Skip("run by TestWrongStoresFail")
	}
	c, ok := stores[*wrong]
	if !ok {
		t.Skip("no such store")
	}
	ratelimittest.TestStore(t, func(testing.TB) ratelimit.Store {
		s := c.store
		s.Memory = newMemory()
		return s
	})
}

// The wrapper that the wrong stores share does not itself fail the suite.
func TestARightStorePasses(t *testing.T) {
	ratelimittest.TestStore(t, func(testing.TB) ratelimit.Store { return store{Memory: newMemory()} })
}
