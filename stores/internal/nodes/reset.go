package nodes

import (
	"context"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// resets shows that a Reset takes effect at once in the node that makes it, and in another
// one when it asks the server again: after CacheDenials.
func resets(t *testing.T, s Server) {
	const cached = 2 * time.Second
	t.Parallel()
	var policies []ratelimit.Policy
	for _, l := range limits(5) {
		policies = append(policies, counts(unique("reset"), l))
	}
	all := pair(t, s, func(c *ratelimit.Config) { c.CacheDenials = cached }, policies...)
	a, b := all[0], all[1]
	if !allow(t, a, 5) || allow(t, a, 1) || allow(t, b, 1) {
		t.Fatal("the quota is not five")
	}
	refused := time.Now() // at the latest
	wantLeft(t, 0, a, b)
	if err := a.Reset(context.Background(), somebody); err != nil {
		t.Fatal(err)
	}
	if !allow(t, a, 1) {
		t.Error("the node that has reset the key still refuses it")
	}
	wantLeft(t, 4, a, b)
	for !allow(t, b, 1) {
		if time.Since(refused) > cached+patience/4 {
			t.Fatal("a refusal is repeated for too long")
		}
		time.Sleep(10 * time.Millisecond)
	}
	wantLeft(t, 3, a, b)
}

func pausedResets(t *testing.T, s Server) {
	const timeout = 200 * time.Millisecond
	slow := pair(t, s, nil, counts(unique("paused"), ratelimit.RollingWindow(5, time.Hour)))
	p := counts(unique("paused"), ratelimit.RollingWindow(5, time.Hour))
	store := s.Open(t)
	fast := node(t, store, func(c *ratelimit.Config) { c.StoreTimeout = timeout }, p)
	patient := node(t, s.Open(t), nil, p)
	allow(t, slow[0], 1)
	if !allow(t, patient, 5) {
		t.Fatal("refused")
	}
	eventually(t, "the node does not connect", func() bool {
		_, err := fast.Peek(context.Background(), somebody)
		return err == nil
	})
	resume := s.Pause()
	for what, call := range map[string]func() error{
		"Peek": func() error {
			_, err := fast.Peek(context.Background(), somebody)
			return err
		},
		"Reset": func() error { return fast.Reset(context.Background(), somebody) },
	} {
		began := time.Now()
		if err := call(); !unavailable(err) {
			t.Errorf("%s: %v, want ErrUnavailable", what, err)
		}
		if took := time.Since(began); took > timeout+patience/4 {
			t.Errorf("%s took %v", what, took)
		}
	}
	resume()
	// The server may execute the call that has failed, now or never, but as a whole.
	if left := peek(t, patient)[0].Remaining; left != 0 && left != 5 {
		t.Errorf("%d left, want none or all", left)
	}
	eventually(t, "the key cannot be reset", func() bool { return fast.Reset(context.Background(), somebody) == nil })
	wantLeft(t, 5, patient)
	wantLeft(t, 4, slow...)
}
