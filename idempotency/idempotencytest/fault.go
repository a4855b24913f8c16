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

func (s Shared) deleteCut(t *testing.T) {
	a := s.open(t, 2)
	c, kept := newClaim(), newClaim()
	generation := a[0].win(t, c).Generation
	a[0].finish(t, c, ending(idempotency.StateUnknown))
	a[0].win(t, kept)
	a[0].finish(t, kept, result("kept"))
	s.Cut(t)
	again(t, func() error {
		err := a[0].store.Delete(t.Context(), c.Key, generation)
		if errors.Is(err, idempotency.ErrNotFound) {
			return nil
		}
		return err
	})
	again(t, func() error {
		r, err := a[1].store.Find(t.Context(), c.Key)
		if errors.Is(err, idempotency.ErrNotFound) {
			return nil
		}
		if err == nil {
			t.Errorf("Find returned %+v of a record that is deleted", r)
		}
		return err
	})
	for _, client := range a {
		client.wantFree(t, c, generation)
		client.wantRecord(t, kept, result("kept"))
	}
	s.Cut(t)
	again(t, func() error {
		r, err := a[0].store.Find(t.Context(), kept.Key)
		if err == nil && string(r.Payload) != "kept" || err != nil && r.State != 0 {
			t.Errorf("Find returned %+v, %v", r, err)
		}
		return err
	})
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
	c, unknown := newClaim(), newClaim()
	a.win(t, c)
	generation := a.win(t, unknown).Generation
	a.finish(t, unknown, ending(idempotency.StateUnknown))
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
		{"Find", func(ctx context.Context) error {
			r, err := a.store.Find(ctx, c.Key)
			if r.State != 0 {
				t.Errorf("Find returned %+v and %v", r, err)
			}
			return err
		}},
		{"Delete", func(ctx context.Context) error { return a.store.Delete(ctx, unknown.Key, generation) }},
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
	if err := a.store.Delete(t.Context(), unknown.Key, generation); err != nil && !errors.Is(err, idempotency.ErrNotFound) {
		t.Errorf("Delete: %v", err)
	}
	a.wantFree(t, unknown, generation)
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
