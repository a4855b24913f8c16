package idempotencytest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// Shared is a store whose records are on a server that several processes share. A function
// that is nil skips the tests that need it.
type Shared struct {
	// Open returns another client of the one server. The suite closes some clients; the
	// caller closes all of them, for instance with t.Cleanup.
	Open func(testing.TB) idempotency.Store
	// Block makes the server silent for all clients: it accepts everything and responds to
	// nothing, until unblock is called.
	Block func(testing.TB) (unblock func())
	// Cut loses the reply to the next call of each client, after the server has executed
	// the call.
	Cut func(testing.TB)
	// Poison makes all records on the server unreadable. Those that are made later can be
	// read.
	Poison func(testing.TB)
}

// TestShared tests what the contract of [idempotency.Store] promises to several processes
// with one server, and what it promises while that server fails. It takes a few seconds.
func TestShared(t *testing.T, s Shared) {
	for _, r := range []struct {
		name  string
		skip  bool
		test  func(Shared, *testing.T)
		needs string
	}{
		{"clients see each other's claims and responses", s.Open == nil, Shared.seen, "Open"},
		{"of claims by several clients one wins", s.Open == nil, Shared.oneWinner, "Open"},
		{"a claim can be ended through another client", s.Open == nil, Shared.otherClient, "Open"},
		{"histories of several clients are linearizable", s.Open == nil, Shared.linearizable, "Open"},
		{"closing a client leaves the others alone", s.Open == nil, Shared.closeOne, "Open"},
		{"a claim whose reply is lost can be repeated", s.Cut == nil, Shared.claimCut, "Cut"},
		{"a renewal whose reply is lost can be repeated", s.Cut == nil, Shared.renewCut, "Cut"},
		{"a result whose reply is lost can be stored again", s.Cut == nil, Shared.finishCut, "Cut"},
		{"no call waits for a silent server after its context has ended", s.Block == nil, Shared.block, "Block"},
		{"closing ends the calls that wait for a silent server", s.Block == nil, Shared.closeBlocked, "Block"},
		{"a record that cannot be read is no free key", s.Poison == nil, Shared.poison, "Poison"},
	} {
		t.Run(r.name, func(t *testing.T) {
			if r.skip {
				t.Skipf("%s is nil", r.needs)
			}
			r.test(s, t)
		})
	}
}

// open returns n clients.
func (s Shared) open(t testing.TB, n int) []suite {
	clients := make([]suite, n)
	for i := range clients {
		clients[i] = suite{s.Open(t)}
	}
	return clients
}

func (s Shared) seen(t *testing.T) {
	a := s.open(t, 3)
	for _, end := range endings[:3] {
		c := newClaim()
		for _, other := range a {
			// A client must not remember that the key was free, or claimed.
			if other != a[0] {
				other.win(t, c)
			} else {
				first := a[0].win(t, c)
				if r := a[1].lose(t, rival(c), c); r.Generation != first.Generation {
					t.Errorf("the generation is %d, want %d", r.Generation, first.Generation)
				}
			}
		}
		a[0].finish(t, c, end)
		for _, other := range a {
			other.wantRecord(t, c, end)
		}
	}
	c := newClaim()
	a[0].win(t, c)
	a[1].lose(t, rival(c), c)
	a[0].finish(t, c, release)
	next := rival(c)
	a[1].win(t, next)
	a[0].lose(t, rival(c), next)
	a[0].wantLost(t, c)
	if _, err := a[2].store.Claim(t.Context(), c); err == nil {
		a[2].lose(t, c, next)
	}
}

func (s Shared) oneWinner(t *testing.T) {
	clients := s.open(t, 4)
	c := newClaim()
	c.Lease = short
	for range 2 { // the second is a takeover
		var won atomic.Int32
		next := c
		next.Lease = time.Hour
		together(100, func(i int) {
			r, err := clients[i%len(clients)].store.Claim(context.Background(), rival(next))
			if err != nil {
				t.Errorf("Claim: %v", err)
			}
			if r.Won {
				won.Add(1)
			}
		})
		if n := won.Load(); n != 1 {
			t.Errorf("%d claims have won, want 1", n)
		}
		c = newClaim()
		c.Lease = short
		clients[0].win(t, c)
		wait()
	}
}

func (s Shared) otherClient(t *testing.T) {
	a := s.open(t, 2)
	c := newClaim()
	c.Lease = short
	a[0].win(t, c)
	a[1].wantRenewed(t, time.Hour, c)
	wait()
	a[0].lose(t, rival(c), c)
	a[1].finish(t, c, result("a"))
	if kept, err := a[0].store.Finish(t.Context(), completion(c, release)); kept != idempotency.StateDone || err != nil {
		t.Errorf("Finish again: kept %d, %v", kept, err)
	}
	a[0].wantRecord(t, c, result("a"))
}

// A spread is a store whose calls go to several clients in turn.
type spread struct {
	idempotency.Store
	clients []suite
	n       *atomic.Int64
}

func (s spread) next() idempotency.Store { return s.clients[int(s.n.Add(1))%len(s.clients)].store }

func (s spread) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	return s.next().Claim(ctx, c)
}

func (s spread) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	return s.next().Renew(ctx, claims, lease)
}

func (s spread) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	return s.next().Finish(ctx, c)
}

func (s Shared) linearizable(t *testing.T) {
	if err := CheckLinearizable(t.Context(), spread{clients: s.open(t, 3), n: new(atomic.Int64)}, 30); err != nil {
		t.Error(err)
	}
}

func (s Shared) closeOne(t *testing.T) {
	a := s.open(t, 2)
	done, claimed := newClaim(), newClaim()
	a[0].win(t, done)
	a[0].finish(t, done, result("a"))
	a[0].win(t, claimed)
	if err := a[0].store.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	a[0].wantClosed(t, claimed)
	a[1].wantRecord(t, done, result("a"))
	a[1].lose(t, rival(claimed), claimed)
	a[1].wantRenewed(t, time.Hour, claimed)
	a[1].finish(t, claimed, result("b"))
	a[1].win(t, newClaim())
}

// again calls f again for as long as a reply is lost. A client may do so by itself.
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
	// The reply that was lost is not that to a later call.
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

// callTimeout is the deadline of calls that a silent server never responds to. They end
// after 10 times as long at the latest.
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
