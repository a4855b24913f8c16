package idempotencytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// together calls f n times concurrently.
func together(n int, f func(i int)) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			f(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}

func (s suite) parallelClaims(t *testing.T) {
	c := newClaim()
	s.wantOneWinner(t, c, rival, 100)
}

// wantOneWinner fails unless one of n concurrent claims that next makes of c wins.
func (s suite) wantOneWinner(t *testing.T, c idempotency.Claim, next func(idempotency.Claim) idempotency.Claim, n int) {
	t.Helper()
	var won atomic.Int32
	together(n, func(int) {
		r, err := s.store.Claim(context.Background(), next(c))
		switch {
		case err != nil:
			t.Errorf("Claim: %v", err)
		case r.Won:
			won.Add(1)
		case r.State != idempotency.StateClaimed:
			t.Errorf("a claim that lost got state %d, want StateClaimed", r.State)
		}
	})
	if n := won.Load(); n != 1 {
		t.Errorf("%d claims have won, want 1", n)
	}
}

func (s suite) parallelRepetitions(t *testing.T) {
	c := newClaim()
	var generations [50]uint64
	together(len(generations), func(i int) {
		r, err := s.store.Claim(context.Background(), c)
		if err != nil || !r.Won {
			t.Errorf("a copy of the claim has not won: %+v, %v", r, err)
		}
		generations[i] = r.Generation
	})
	if slices.Min(generations[:]) != slices.Max(generations[:]) {
		t.Errorf("the generations are %v, want one", generations)
	}
}

func (s suite) parallelTakeovers(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	wait()
	c.Lease = time.Hour
	s.wantOneWinner(t, c, successor, 50)

	c = newClaim()
	s.win(t, c)
	s.finish(t, c, release)
	s.wantOneWinner(t, c, rival, 50)

	c = newClaim()
	c.Lease, c.TTL = short, short
	s.win(t, c)
	wait()
	c.Lease, c.TTL = time.Hour, time.Hour
	s.wantOneWinner(t, c, rival, 50)
}

func (s suite) parallelFinishes(t *testing.T) {
	for range 20 {
		old := newClaim()
		old.Lease = time.Millisecond
		s.win(t, old)
		time.Sleep(5 * time.Millisecond)
		owner := successor(old)
		owner.Lease = time.Hour
		s.win(t, owner)
		together(8, func(i int) {
			if i%2 == 0 {
				if _, err := s.store.Finish(context.Background(), completion(old, release)); !errors.Is(err, idempotency.ErrLost) {
					t.Errorf("Finish of the late owner: %v, want ErrLost", err)
				}
			} else if _, err := s.store.Finish(context.Background(), completion(owner, result("owner"))); err != nil {
				t.Errorf("Finish of the owner: %v", err)
			}
		})
		s.wantRecord(t, owner, result("owner"))
	}
}

// Whichever result counts, every call returns its state.
func (s suite) parallelResults(t *testing.T) {
	for range 20 {
		c := newClaim()
		s.win(t, c)
		var kept [12]idempotency.State
		together(len(kept), func(i int) {
			r := endings[i%3] // all but release
			if r.State == idempotency.StateDone {
				r.Payload = fmt.Append(nil, i)
			}
			var err error
			if kept[i], err = s.store.Finish(context.Background(), completion(c, r)); err != nil {
				t.Errorf("Finish: %v", err)
			}
		})
		got := s.claim(t, rival(c))
		if slices.Min(kept[:]) != got.State || slices.Max(kept[:]) != got.State || bytes.Equal(got.Payload, nil) != (got.State != idempotency.StateDone) {
			t.Errorf("the calls have kept %v, and the record is %+v", kept, got)
		}
	}
}

func (s suite) parallelDeletions(t *testing.T) {
	c := newClaim()
	generation := s.win(t, c).Generation
	s.finish(t, c, ending(idempotency.StateUnknown))
	var deleted atomic.Int32
	together(20, func(int) {
		switch err := s.store.Delete(context.Background(), c.Key, generation); {
		case err == nil:
			deleted.Add(1)
		case !errors.Is(err, idempotency.ErrNotFound):
			t.Errorf("Delete: %v, want ErrNotFound", err)
		}
	})
	if n := deleted.Load(); n != 1 {
		t.Errorf("%d calls have deleted one record", n)
	}
	s.wantFree(t, c, generation)
}

// A record whose outcome is unknown is either deleted, and the next claim is the first, or
// taken over and kept.
func (s suite) deletionOrTakeover(t *testing.T) {
	for range 20 {
		c := newClaim()
		generation := s.win(t, c).Generation
		s.finish(t, c, ending(idempotency.StateUnknown))
		next := resolver(c)
		var deleted, claimed error
		var r idempotency.Record
		together(2, func(i int) {
			if i == 0 {
				deleted = s.store.Delete(context.Background(), c.Key, generation)
			} else {
				r, claimed = s.store.Claim(context.Background(), next)
			}
		})
		if claimed != nil || !r.Won {
			t.Errorf("Claim: %+v, %v, want it to win", r, claimed)
		}
		if r.TakenOver && !errors.Is(deleted, idempotency.ErrLost) || !r.TakenOver && deleted != nil {
			t.Errorf("TakenOver is %v, and Delete returned %v", r.TakenOver, deleted)
		}
		s.lose(t, rival(c), next)
		s.finish(t, next, result("a"))
	}
}

func (s suite) linearizable(t *testing.T) {
	histories := 60
	if os.Getenv("USHER_SOAK") != "" {
		histories = 2000
	}
	if err := CheckLinearizable(t.Context(), s.store, histories); err != nil {
		t.Error(err)
	}
}

// wantClosed fails unless every method of the store returns ErrClosed.
func (s suite) wantClosed(t testing.TB, c idempotency.Claim) {
	t.Helper()
	r, claim := s.store.Claim(t.Context(), c)
	lost, renew := s.store.Renew(t.Context(), []idempotency.ClaimID{idOf(c)}, time.Hour)
	kept, finish := s.store.Finish(t.Context(), completion(c, release))
	found, find := s.store.Find(t.Context(), c.Key)
	remove := s.store.Delete(t.Context(), c.Key, 1)
	for method, err := range map[string]error{"Claim": claim, "Renew": renew, "Finish": finish, "Find": find, "Delete": remove} {
		if !errors.Is(err, usher.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", method, err)
		}
	}
	if r.Won || r.State != 0 || len(lost) != 0 || kept != 0 || found.State != 0 {
		t.Errorf("a closed store returns %+v, %d lost claims and state %d", r, len(lost), kept)
	}
}

func (s suite) closed(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	for range 2 {
		if err := s.store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		s.wantClosed(t, c)
		s.wantClosed(t, newClaim())
	}
}

// closeWhileCalled closes the store during calls, which must end with a result or
// ErrClosed.
func (s suite) closeWhileCalled(t *testing.T) {
	var closing atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		together(16, func(i int) {
			if i == 0 {
				time.Sleep(short)
				closing.Store(true)
				if err := s.store.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				return
			}
			for began := time.Now(); time.Since(began) < patience; {
				c := newClaim()
				_, err := s.store.Claim(context.Background(), c)
				if err == nil {
					_, err = s.store.Finish(context.Background(), completion(c, release))
				}
				if err == nil {
					continue
				}
				if !closing.Load() || !errors.Is(err, usher.ErrClosed) {
					t.Errorf("a call during Close: %v, want a result or ErrClosed", err)
				}
				return
			}
			t.Error("a store that is closed still takes claims")
		})
	}()
	select {
	case <-ended:
	case <-time.After(2 * patience):
		t.Fatal("calls have not ended after Close")
	}
	s.wantClosed(t, newClaim())
}
