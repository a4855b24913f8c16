package ratelimittest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// counterOf returns the counter of c.
func counterOf(c ratelimit.Charge) ratelimit.Counter {
	return ratelimit.Counter{Policy: c.Policy, Key: c.Key}
}

// forget resets counters, which must not fail.
func (s suite) forget(t testing.TB, counters ...ratelimit.Counter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.store.Reset(ctx, counters); err != nil {
		t.Fatalf("Reset: %v", err)
	}
}

func (s suite) resetKey(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		full := s.fill(t, c)
		otherKey := c
		otherKey.Key = ratelimit.TextKey("other")
		s.fill(t, otherKey)
		otherPolicy := s.fill(t, charge(c.Limit))
		s.forget(t, counterOf(c))
		s.wantLeft(t, c, 5)
		s.wantLeft(t, otherKey, 0)
		s.wantLeft(t, otherPolicy, 0)
		s.adjust(t, full, -5, 0)
		s.wantLeft(t, c, 5)
		// The key is that of a new client: it may use all, and no more.
		s.fill(t, c)
		s.wantLeft(t, c, 0)

		s.forget(t, counterOf(otherKey), counterOf(c), counterOf(otherPolicy), counterOf(c))
		s.forget(t)
		for _, c := range []ratelimit.Charge{c, otherKey, otherPolicy} {
			s.wantLeft(t, c, 5)
		}
	})
}

func (s suite) resetLimits(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		for _, l := range uses() {
			s.fill(t, c)
			s.wantLeft(t, under(c, l), 0)
			s.forget(t, counterOf(c))
			s.wantLeft(t, under(c, l), 5)
			s.wantLeft(t, c, 5)
		}
	})
}

func (s suite) resetPlaces(t *testing.T) {
	c := s.fill(t, charge(ratelimit.Concurrency(5)))
	s.forget(t, counterOf(c))
	s.wantLeft(t, c, 0)
	s.wantLost(t, []ratelimit.Place{place(c)}, time.Hour)
	s.adjust(t, c, -5, -5)
	s.wantLeft(t, c, 5)
}

func (s suite) resetMost(t *testing.T) {
	c := charge(ratelimit.RollingWindow(5, time.Hour))
	var counters []ratelimit.Counter
	for i := range ratelimit.MaxRenew + 1 {
		c.Key = ratelimit.TextKey(fmt.Sprint("key ", i))
		counters = append(counters, counterOf(c))
	}
	last := counters[ratelimit.MaxRenew-1]
	c.Key = last.Key
	s.fill(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.store.Reset(ctx, counters); err == nil {
		t.Errorf("Reset of %d counters returns no error", len(counters))
	}
	s.wantLeft(t, c, 0)
	s.forget(t, counters[:ratelimit.MaxRenew]...)
	s.wantLeft(t, c, 5)
}
