package apikey_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/race"
)

// The bounds that the documentation of CacheConfig states.
func TestTheDefaultsOfACache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 1)
		c := newCache(t, apikey.CacheConfig{Store: silent{s}})
		lookups := func(h apikey.Hash) int64 {
			t.Helper()
			before := s.lookups.Load()
			if _, err := c.Lookup(t.Context(), h); err != nil && !errors.Is(err, apikey.ErrNotFound) {
				t.Fatal(err)
			}
			return s.lookups.Load() - before
		}
		for name, test := range map[string]struct {
			h   apikey.Hash
			ttl time.Duration
		}{
			"a key":                {record(0).Hash, 10 * time.Second},
			"a hash without a key": {record(1).Hash, 5 * time.Second},
		} {
			if lookups(test.h) != 1 {
				t.Errorf("%s is kept before its first lookup", name)
			}
			time.Sleep(test.ttl - 1)
			if lookups(test.h) != 0 {
				t.Errorf("%s is kept for less than %v", name, test.ttl)
			}
			time.Sleep(time.Nanosecond)
			if lookups(test.h) != 1 {
				t.Errorf("%s is kept for more than %v", name, test.ttl)
			}
		}
		s.lookup = func(ctx context.Context, _ apikey.Hash) (apikey.Record, error) {
			<-ctx.Done()
			return apikey.Record{}, ctx.Err()
		}
		start := time.Now()
		if _, err := c.Lookup(t.Context(), record(2).Hash); !errors.Is(err, usher.ErrUnavailable) || time.Since(start) != 3*time.Second {
			t.Errorf("a store that hangs: %v after %v, want 3s", err, time.Since(start))
		}
	})
}

func TestTheDefaultCapacitiesOfACache(t *testing.T) {
	if race.Enabled {
		t.Skip("takes long, on one goroutine")
	}
	const known = 70_000
	s := newScripted(t, known)
	c := newCache(t, apikey.CacheConfig{Store: silent{s}, TTL: time.Hour, NegativeTTL: time.Hour})
	for i := range known + 20_000 {
		if _, err := c.Lookup(t.Context(), record(i).Hash); (err == nil) != (i < known) {
			t.Fatal(i, err)
		}
	}
	keys, unknown := c.Kept()
	if keys > 65_536 || keys < 60_000 {
		t.Errorf("%d keys are kept, want 65,536", keys)
	}
	if unknown > 16_384 || unknown < 15_000 {
		t.Errorf("%d hashes without a key are kept, want 16,384", unknown)
	}
}

// impatient is a Notifier whose watch ends at once, or once it was ready.
type impatient struct {
	apikey.Store
	calls []time.Time
	ready func(n int) bool
}

func (s *impatient) Watch(_ context.Context, ready func(), _ func(apikey.Hash)) error {
	s.calls = append(s.calls, time.Now())
	if s.ready(len(s.calls)) {
		ready()
	}
	return errors.New("lost")
}

// A watch that fails is called again after a pause that doubles from 100 ms to 5 s, and
// that begins again once a watch was ready.
func TestAWatchThatFailsIsCalledAgainAtGrowingIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ready = 10
		s := &impatient{Store: newScripted(t, 0), ready: func(n int) bool { return n == ready }}
		c, err := apikey.NewCache(apikey.CacheConfig{Store: s, OnError: func(context.Context, error) {}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		want := 100 * time.Millisecond
		for i, at := range s.calls[1:] {
			if i+1 == ready {
				want = 100 * time.Millisecond
			}
			if pause := at.Sub(s.calls[i]); pause != want {
				t.Errorf("the pause before call %d is %v, want %v", i+2, pause, want)
			}
			want = min(2*want, 5*time.Second)
		}
		if len(s.calls) < 15 {
			t.Errorf("%d calls", len(s.calls))
		}
	})
}
