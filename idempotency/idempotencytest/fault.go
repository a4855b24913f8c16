package idempotencytest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// again repeats f while replies are lost. A client may also do so by itself.
func again(t testing.TB, f func() error) {
	t.Helper()
	for range 3 {
		err := f()
		if err == nil {
			return
		}
		if !errors.Is(err, usher.ErrUnavailable) {
			t.Fatalf("a call whose reply is lost: %v, want ErrUnavailable", err)
		}
	}
	t.Fatal("three replies are lost, want one")
}

// claimUntil claims for as long as a reply is lost.
func (s suite) claimUntil(t testing.TB, c idempotency.Claim) (r idempotency.Record) {
	t.Helper()
	again(t, func() (err error) {
		r, err = s.store.Claim(t.Context(), c)
		return err
	})
	return r
}

func (s Shared) claimCut(t *testing.T) {
	a := s.open(t, 2)
	c, warm := newClaim(), newClaim()
	a[0].win(t, warm) // the client is connected
	s.Cut(t)
	r := a[0].claimUntil(t, c)
	if !r.Won || r.State != idempotency.StateClaimed || r.Fingerprint != c.Fingerprint {
		t.Fatalf("a claim that was repeated returns %+v, want it to win", r)
	}
	seen := a[1].claimUntil(t, rival(c))
	if seen.Won || seen.Fingerprint != c.Fingerprint || seen.Generation != r.Generation {
		t.Errorf("another client got %+v, want the claim with generation %d", seen, r.Generation)
	}
	a[0].finish(t, c, result("a"))
	a[1].wantRecord(t, c, result("a"))
	// The lost reply must not be taken for the reply to a later call.
	a[0].wantRecord(t, c, result("a"))
	a[0].lose(t, rival(warm), warm)
}

func (s Shared) renewCut(t *testing.T) {
	a := s.open(t, 1)[0]
	c, lost := newClaim(), newClaim()
	c.Lease = brief
	a.win(t, c)
	s.Cut(t)
	again(t, func() error {
		got, err := a.store.Renew(t.Context(), []idempotency.ClaimID{idOf(c), idOf(lost)}, time.Hour)
		if err == nil && (len(got) != 1 || got[0] != idOf(lost)) || err != nil && len(got) != 0 {
			t.Errorf("Renew: %d of 2 claims are lost, %v", len(got), err)
		}
		return err
	})
	waitBrief()
	a.lose(t, rival(c), c)
}

func (s Shared) finishCut(t *testing.T) {
	for _, end := range endings {
		a := s.open(t, 2)
		c := newClaim()
		a[0].win(t, c)
		s.Cut(t)
		var kept idempotency.State
		again(t, func() (err error) {
			kept, err = a[0].store.Finish(t.Context(), completion(c, end))
			return err
		})
		if kept != end.State {
			t.Errorf("Finish with state %d, repeated: kept %d", end.State, kept)
		}
		seen := a[1].claimUntil(t, rival(c))
		if end.State == idempotency.StateReleased {
			if !seen.Won {
				t.Errorf("after the release another client got %+v", seen)
			}
		} else {
			a[0].wantEnded(t, c, end)
		}
	}
}

// callTimeout is the deadline of calls to a silent server, which never responds. They must
// end within ten times that.
const callTimeout = 200 * time.Millisecond

// wantEnded fails unless ended is closed although the server is silent.
func wantEnded(t testing.TB, ended <-chan struct{}, unblock func(), what string) {
	t.Helper()
	select {
	case <-ended:
		return
	case <-time.After(25 * callTimeout):
	}
	unblock()
	select {
	case <-ended:
	case <-time.After(patience):
	}
	t.Fatalf("%s waits for a silent server", what)
}

func (s Shared) block(t *testing.T) {
	a := s.open(t, 1)[0]
	c := newClaim()
	a.win(t, c)
	unblock := sync.OnceFunc(s.Block(t))
	defer unblock()
	calls := []struct {
		name string
		call func(ctx context.Context) error
	}{
		{"Claim", func(ctx context.Context) error {
			r, err := a.store.Claim(ctx, newClaim())
			if r.Won || r.State != 0 {
				t.Errorf("Claim returned %+v and %v", r, err)
			}
			return err
		}},
		{"a repeated Claim", func(ctx context.Context) error {
			_, err := a.store.Claim(ctx, c)
			return err
		}},
		{"Renew", func(ctx context.Context) error {
			lost, err := a.store.Renew(ctx, []idempotency.ClaimID{idOf(c)}, time.Hour)
			if len(lost) != 0 {
				t.Errorf("Renew returned a lost claim and %v", err)
			}
			return err
		}},
		{"Finish", func(ctx context.Context) error {
			kept, err := a.store.Finish(ctx, completion(c, result("a")))
			if kept != 0 {
				t.Errorf("Finish returned state %d and %v", kept, err)
			}
			return err
		}},
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		together(10*len(calls), func(i int) {
			call := calls[i%len(calls)]
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			defer cancel()
			began := time.Now()
			err := call.call(ctx)
			if !errors.Is(err, usher.ErrUnavailable) {
				t.Errorf("%s: %v, want ErrUnavailable", call.name, err)
			}
			if d := time.Since(began); d > 10*callTimeout {
				t.Errorf("%s took %v with a deadline of %v", call.name, d, callTimeout)
			}
		})
	}()
	wantEnded(t, ended, unblock, "a call whose context has ended")
	unblock()
	wantBack(t, a)
	// The calls that had no result may have taken effect.
	switch r, err := a.store.Claim(t.Context(), c); {
	case err != nil:
		t.Errorf("Claim: %v", err)
	case !r.Won && r.State != idempotency.StateDone:
		t.Errorf("Claim returned %+v, want the claim or its record", r)
	}
	a.finish(t, c, result("a"))
	a.wantRecord(t, c, result("a"))
}

// wantBack fails unless keys can be claimed again, now that the server responds.
func wantBack(t testing.TB, a suite) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(short) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*callTimeout)
		r, err := a.store.Claim(ctx, newClaim())
		cancel()
		if err == nil && r.Won {
			return
		}
		if time.Since(began) > 25*callTimeout {
			t.Fatalf("the server responds again, but a claim got %+v, %v", r, err)
		}
	}
}

func (s Shared) closeBlocked(t *testing.T) {
	a := s.open(t, 1)[0]
	c := newClaim()
	a.win(t, c)
	unblock := sync.OnceFunc(s.Block(t))
	defer unblock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		together(8, func(i int) {
			if i == 0 {
				time.Sleep(short)
				if err := a.store.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
			defer cancel()
			if _, err := a.store.Claim(ctx, newClaim()); !errors.Is(err, usher.ErrClosed) && !errors.Is(err, usher.ErrUnavailable) {
				t.Errorf("Claim: %v, want ErrClosed", err)
			}
		})
	}()
	wantEnded(t, ended, unblock, "Close, or a call that it should end,")
	a.wantClosed(t, c)
}

func (s Shared) poison(t *testing.T) {
	a := s.open(t, 2)
	claimed, done := newClaim(), newClaim()
	a[0].win(t, claimed)
	a[0].win(t, done)
	a[0].finish(t, done, result("a"))
	s.Poison(t)
	for _, client := range a {
		for name, c := range map[string]idempotency.Claim{
			"a claim": claimed, "a rival of a claim": rival(claimed), "the token of a record": done, "a rival of a record": rival(done),
		} {
			if r, err := client.store.Claim(t.Context(), c); !errors.Is(err, usher.ErrCorrupt) || r.Won || r.State != 0 {
				t.Errorf("Claim by %s: %+v, %v, want ErrCorrupt", name, r, err)
			}
		}
		for _, end := range endings {
			if kept, err := client.store.Finish(t.Context(), completion(claimed, end)); !errors.Is(err, usher.ErrCorrupt) || kept != 0 {
				t.Errorf("Finish with state %d: kept %d, %v, want ErrCorrupt", end.State, kept, err)
			}
		}
		// Such a record concerns no other.
		fresh := newClaim()
		fresh.Lease = brief
		client.win(t, fresh)
		lost, err := client.store.Renew(t.Context(), []idempotency.ClaimID{idOf(claimed), idOf(fresh)}, time.Hour)
		if err != nil || len(lost) != 1 || lost[0] != idOf(claimed) {
			t.Errorf("Renew of a claim whose record cannot be read and another: %d are lost, %v, want the first", len(lost), err)
		}
		waitBrief()
		client.lose(t, rival(fresh), fresh)
		client.finish(t, fresh, result("b"))
		client.wantRecord(t, fresh, result("b"))
	}
}
