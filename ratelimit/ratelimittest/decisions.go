package ratelimittest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// TestDecisions makes 100,000 random calls at random instants, first to a
// [ratelimit.Memory] and then to the store that open returns, whose clock setClock sets.
// Every result must be the same, with times rounded up to whole microseconds. The instants
// are whole microseconds and never go back; setClock is called before a call, and not
// during one. What the store keeps must not end by any other clock.
//
// A failed test reports its seed: set USHER_SEED to it to repeat the calls. With -short
// there are fewer calls, and more if USHER_SOAK is set.
func TestDecisions(t *testing.T, open func(testing.TB) (store ratelimit.Store, setClock func(time.Time))) {
	scripts := 100
	switch {
	case testing.Short():
		scripts = 5
	case os.Getenv("USHER_SOAK") != "":
		scripts = 1000
	}
	seed := rand.Uint64()
	if s := os.Getenv("USHER_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("USHER_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("USHER_SEED=%d", seed)

	store, setClock := open(t)
	t.Cleanup(func() { _ = store.Close() })
	for n := range scripts {
		s := &script{random: rand.New(rand.NewPCG(seed, uint64(n)))}
		synctest.Test(t, func(t *testing.T) { s.record(t, n) })
		if t.Failed() {
			return
		}
		s.replay(t, store, setClock)
	}
}

// A step is one call of a script, with what a Memory has returned.
type step struct {
	at     time.Time
	first  time.Time // when the same call was first made
	method method
	call   ratelimit.Decision // of Take or Adjust
	places []ratelimit.Place  // of Renew
	lease  time.Duration
	lost   []ratelimit.Place
	resets []ratelimit.Counter // of Reset
	err    error
	// takes are the charges of earlier steps that an Adjust changes.
	takes []taken
}

// A taken is a charge of an earlier step.
type taken struct{ step, charge int }

// replay makes the calls of a script to a store and compares the results.
func (s *script) replay(t *testing.T, store ratelimit.Store, setClock func(time.Time)) {
	var now time.Time
	at := make([][]int64, len(s.steps)) // what the store has set as TakenAt
	ctx := t.Context()
	for i := range s.steps {
		want := &s.steps[i]
		if !want.at.Equal(now) {
			now = want.at
			setClock(now)
		}
		got := want.request()
		for j, earlier := range want.takes {
			got.call.Charges[j].TakenAt = at[earlier.step][earlier.charge]
		}
		got.do(ctx, store)
		for _, c := range got.call.Charges {
			at[i] = append(at[i], c.TakenAt)
		}
		if wrong, concerns := want.compare(&got); wrong != "" {
			t.Fatalf("call %d of %d, at %v: %s\n%s", i+1, len(s.steps), now, wrong, s.history(i, concerns))
		}
	}
}

// request returns the arguments of a step.
func (w *step) request() step {
	return step{
		at: w.at, method: w.method, call: w.method.request(&w.call), places: w.places, lease: w.lease,
		resets: w.resets, takes: w.takes,
	}
}

// do makes the call, and keeps the results.
func (w *step) do(ctx context.Context, store ratelimit.Store) {
	switch w.method {
	case renew:
		w.lost, w.err = store.Renew(ctx, w.places, w.lease)
	case reset:
		w.err = store.Reset(ctx, w.resets)
	default:
		w.err = w.method.of(store)(ctx, &w.call)
	}
}

// compare describes how got differs from w, and returns the counters that are concerned.
func (w *step) compare(got *step) (wrong string, concerns []ratelimit.Counter) {
	for _, c := range w.call.Charges {
		concerns = append(concerns, counterOf(c))
	}
	switch {
	case (got.err != nil) != (w.err != nil):
		return fmt.Sprintf("error %v, want %v", got.err, w.err), concerns
	case w.err != nil:
		return "", nil
	case w.method == renew:
		for _, p := range w.places {
			if is, want := slices.Contains(got.lost, p), slices.Contains(w.lost, p); is != want {
				return fmt.Sprintf("a place that %x has taken is lost: %v, want %v", p.TakenBy, is, want), []ratelimit.Counter{{Policy: p.Policy, Key: p.Key}}
			}
		}
		if len(got.lost) != len(w.lost) {
			return fmt.Sprintf("%d places are lost, want %d", len(got.lost), len(w.lost)), nil
		}
		return "", nil
	}
	for i := range w.call.Charges {
		if g, w := w.method.result(&got.call.Charges[i]), w.method.result(&w.call.Charges[i]); g != w {
			return fmt.Sprintf("charge %d: %s\nwant %s", i+1, g, w), concerns[i : i+1]
		}
	}
	if got.call.Admitted != w.call.Admitted {
		return fmt.Sprintf("admitted %v, want %v", got.call.Admitted, w.call.Admitted), concerns
	}
	return "", nil
}

// history describes the last steps up to the n-th that concern some counters.
func (s *script) history(n int, concerns []ratelimit.Counter) string {
	var lines []string
	at := s.steps[n].at
	add := func(i int, c ratelimit.Counter, format string, args ...any) {
		if slices.Contains(concerns, c) {
			w := &s.steps[i]
			lines = append(lines, fmt.Sprintf("%4d %14v %-6v %s %v: ", i+1, w.at.Sub(at), w.method, c.Policy, c.Key)+
				fmt.Sprintf(format, args...))
		}
	}
	for i := n; i >= 0 && len(lines) < 40; i-- {
		w := &s.steps[i]
		for _, c := range w.call.Charges {
			known := ""
			switch c.Limit.Algorithm() {
			case ratelimit.AlgorithmCalendarWindow:
				known = fmt.Sprintf(", windows to %v and %v", c.Windows[0].End.Sub(at), c.Windows[1].End.Sub(at))
			case ratelimit.AlgorithmConcurrency:
				known = fmt.Sprintf(", lease %v", c.Lease)
			}
			if c.Hold {
				known += fmt.Sprintf(", hold for %v, ends %v", c.Lease, c.EndHold)
			}
			add(i, counterOf(c), "cost %d of %v%s, at least %d, shadow %v, peek %v, overdraw %v, taken by %x: admitted %v, %s, error %v",
				c.Cost, c.Limit, known, c.MinRemaining, c.Shadow, w.call.Peek, c.Overdraw, c.TakenBy,
				w.call.Admitted, w.method.result(&c), w.err)
		}
		for _, c := range w.resets {
			add(i, c, "error %v", w.err)
		}
		for _, p := range w.places {
			add(i, ratelimit.Counter{Policy: p.Policy, Key: p.Key}, "taken by %x, for %v: lost %v", p.TakenBy, w.lease, slices.Contains(w.lost, p))
		}
	}
	slices.Reverse(lines)
	return strings.Join(lines, "\n")
}
