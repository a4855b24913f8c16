package ratelimittest

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/ratelimit"
)

func (s suite) twice(t *testing.T) {
	beside, c := charge(ratelimit.RollingWindow(5, time.Hour)), charge(ratelimit.RollingWindow(5, time.Hour))
	other := c
	other.Key = ratelimit.TextKey("other")
	for name, charges := range map[string][]ratelimit.Charge{
		"with one key":      {beside, c, c},
		"with two keys":     {beside, c, other},
		"not next to it":    {c, beside, other},
		"with another cost": {beside, c, func() ratelimit.Charge { c := c; c.Cost = 0; return c }()},
		"with two limits":   {beside, c, under(other, ratelimit.TokenBucket(5, time.Hour, 5))},
		"with an algorithm": {beside, c, under(c, ratelimit.Concurrency(5))},
	} {
		t.Run(name, func(t *testing.T) {
			d := &ratelimit.Decision{ID: newID(), Charges: slices.Clone(charges)}
			if err := s.call(t, s.store.Take, d); err == nil {
				t.Errorf("Take returns no error, and admitted is %v", d.Admitted)
			}
			d = &ratelimit.Decision{ID: newID(), Charges: slices.Clone(charges)}
			if err := s.call(t, s.store.Adjust, d); err == nil {
				t.Error("Adjust returns no error")
			}
		})
	}
	for _, c := range []ratelimit.Charge{beside, c, other, under(c, ratelimit.Concurrency(5))} {
		s.wantLeft(t, c, 5)
	}
}

func (s suite) most(t *testing.T) {
	var charges []ratelimit.Charge
	for i := range 17 {
		names := []string{"token bucket", "rolling window", "calendar window", "concurrency"}
		charges = append(charges, charge(limits()[names[i%len(names)]]))
	}
	d := &ratelimit.Decision{ID: newID(), Charges: slices.Clone(charges)}
	if err := s.call(t, s.store.Take, d); err == nil {
		t.Errorf("17 charges: Take returns no error, and admitted is %v", d.Admitted)
	}
	if d = s.take(t, slices.Clone(charges[:16])...); !d.Admitted {
		t.Error("16 charges that fit are refused")
	}
	for i, c := range d.Charges {
		if c.Remaining != 4 {
			t.Errorf("charge %d of 16: Remaining = %d, want 4", i+1, c.Remaining)
		}
		d.Charges[i].Cost = 1
	}
	d = &ratelimit.Decision{ID: newID(), Charges: d.Charges}
	if err := s.call(t, s.store.Adjust, d); err != nil {
		t.Fatalf("16 charges: Adjust: %v", err)
	}
	for _, c := range d.Charges {
		s.wantLeft(t, c, 3)
	}
}

// ended calls a store with a context that has ended, as that of a client that has
// disconnected. The store may decide, or return an error.
func (s suite) ended(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
		if err := s.store.Take(ctx, d); err == nil && !d.Admitted {
			t.Error("Take returns neither an error nor a decision")
		}
		d = &ratelimit.Decision{ID: d.ID, Charges: []ratelimit.Charge{c}}
		if err := s.call(t, s.store.Take, d); err != nil || !d.Admitted {
			t.Fatalf("Take, repeated: admitted %v, error %v", d.Admitted, err)
		}
		s.wantLeft(t, c, 4)

		c = d.Charges[0]
		c.Cost = 2
		d = &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
		if err := s.store.Adjust(ctx, d); err == nil && d.Charges[0].Moved != 2 {
			t.Errorf("Adjust returns no error, and has moved %d units, want 2", d.Charges[0].Moved)
		}
		d = &ratelimit.Decision{ID: d.ID, Charges: []ratelimit.Charge{c}}
		if err := s.call(t, s.store.Adjust, d); err != nil || d.Charges[0].Moved != 2 {
			t.Fatalf("Adjust, repeated: moved %d, error %v; want 2", d.Charges[0].Moved, err)
		}
		s.wantLeft(t, c, 2)
	})
}

func (s suite) concurrent(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		if n := race(t, c, s.store); n != 5 {
			t.Errorf("%d admitted, want 5", n)
		}
	})
}

// race takes single units of c through all stores concurrently, and returns how many are
// admitted.
func race(t *testing.T, c ratelimit.Charge, stores ...ratelimit.Store) int64 {
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		s := suite{stores[i%len(stores)]}
		wg.Go(func() {
			for range 5 {
				d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
				if err := s.call(t, s.store.Take, d); err != nil {
					t.Error(err)
				} else if d.Admitted {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return admitted.Load()
}

func (s suite) overlapping(t *testing.T) { overlap(t, s.store) }

// overlap decides over some of five policies, in random order, through all stores
// concurrently.
func overlap(t *testing.T, stores ...ratelimit.Store) {
	var all []ratelimit.Charge
	for range 5 {
		all = append(all, charge(ratelimit.RollingWindow(100, time.Hour)))
	}
	var charged [5]atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		s := suite{stores[g%len(stores)]}
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 7))
			for range 40 {
				order := random.Perm(len(all))[:1+random.IntN(len(all))]
				d := &ratelimit.Decision{ID: newID()}
				for _, i := range order {
					d.Charges = append(d.Charges, all[i])
				}
				if err := s.call(t, s.store.Take, d); err != nil {
					t.Error(err)
					return
				}
				for _, i := range order {
					if d.Admitted {
						charged[i].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	for i, c := range all {
		n := charged[i].Load()
		if n == 0 || n > 100 {
			t.Errorf("%d requests are admitted, want up to 100", n)
		}
		suite{stores[0]}.wantLeft(t, c, 100-n)
	}
}

// wantClosed fails the test unless every call returns usher.ErrClosed.
func wantClosed(t *testing.T, s ratelimit.Store) {
	t.Helper()
	c := charge(ratelimit.RollingWindow(5, time.Hour))
	d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
	storetest.WantError(t, "Take", s.Take(t.Context(), d), usher.ErrClosed)
	if d.Admitted {
		t.Error("a closed store admits a request")
	}
	d = &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
	storetest.WantError(t, "Adjust", s.Adjust(t.Context(), d), usher.ErrClosed)
	_, err := s.Renew(t.Context(), []ratelimit.Place{place(c)}, time.Hour)
	storetest.WantError(t, "Renew", err, usher.ErrClosed)
	storetest.WantError(t, "Reset", s.Reset(t.Context(), []ratelimit.Counter{counterOf(c)}), usher.ErrClosed)
}

func (s suite) close(t *testing.T) {
	s.take(t, charge(ratelimit.RollingWindow(5, time.Hour)))
	for range 2 {
		if err := s.store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		wantClosed(t, s.store)
	}
}

func (s suite) closing(t *testing.T) {
	c := charge(ratelimit.TokenBucket(1_000_000_000, time.Hour, 1_000_000_000))
	var decided, ended sync.WaitGroup
	for range 16 {
		decided.Add(1)
		first := sync.OnceFunc(decided.Done)
		ended.Go(func() {
			defer first()
			for {
				d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
				if err := s.call(t, s.store.Take, d); err != nil {
					storetest.WantError(t, "Take", err, usher.ErrClosed)
					return
				}
				first()
			}
		})
	}
	decided.Wait()
	if err := s.store.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	ended.Wait()
}
