package idempotencytest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// Shared is a server that keeps the records of stores for several processes. The tests that
// need a function are skipped if it is nil.
type Shared struct {
	// Open returns another client of the server. The suite closes some clients; the caller
	// closes all of them, for instance with t.Cleanup.
	Open func(testing.TB) idempotency.Store
	// Block makes the server silent for all clients: it accepts everything and responds to
	// nothing, until unblock is called.
	Block func(testing.TB) (unblock func())
	// Cut loses the reply to the next call of each client, after the server has executed
	// the call.
	Cut func(testing.TB)
	// Poison makes all records on the server unreadable. Later records can be read.
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
		{"a record is found and deleted through another client", s.Open == nil, Shared.deleted, "Open"},
		{"closing a client leaves the others alone", s.Open == nil, Shared.closeOne, "Open"},
		{"a claim whose reply is lost can be repeated", s.Cut == nil, Shared.claimCut, "Cut"},
		{"a renewal whose reply is lost can be repeated", s.Cut == nil, Shared.renewCut, "Cut"},
		{"a result whose reply is lost can be stored again", s.Cut == nil, Shared.finishCut, "Cut"},
		{"a deletion whose reply is lost can be repeated", s.Cut == nil, Shared.deleteCut, "Cut"},
		{"no call waits for a silent server after its context has ended", s.Block == nil, Shared.block, "Block"},
		{"closing ends the calls that wait for a silent server", s.Block == nil, Shared.closeBlocked, "Block"},
		{"a key whose record cannot be read is not free", s.Poison == nil, Shared.poison, "Poison"},
		{"a record that cannot be read can be deleted", s.Poison == nil, Shared.deletePoisoned, "Poison"},
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
			r, err := clients[i%len(clients)].store.Claim(context.Background(), successor(next))
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

func (s Shared) deleted(t *testing.T) {
	a := s.open(t, 3)
	c := newClaim()
	c.Lease = short
	generation := a[0].win(t, c).Generation
	wait()
	// A client must not remember the record, nor that there was none.
	for _, client := range a {
		if r := client.find(t, c.Key); r.Generation != generation || r.State != idempotency.StateClaimed {
			t.Errorf("Find returned %+v, want the claim with generation %d", r, generation)
		}
	}
	if err := a[1].store.Delete(t.Context(), c.Key, generation); err != nil {
		t.Errorf("Delete: %v", err)
	}
	for _, client := range a {
		client.wantFree(t, c, generation)
		client.wantLost(t, c)
	}
	next := resolver(c)
	a[2].winOver(t, next, false)
	for _, client := range a {
		client.lose(t, rival(c), next)
		client.wantKept(t, next, generation)
	}
	a[0].finish(t, next, ending(idempotency.StateUnknown))
	for _, client := range a {
		client.wantRecord(t, next, ending(idempotency.StateUnknown))
	}
	last := resolver(next)
	a[1].winOver(t, last, true)
	a[0].winOver(t, last, true)
	a[2].finish(t, last, result("a"))
	for _, client := range a {
		client.wantRecord(t, last, result("a"))
	}
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

func (s spread) Find(ctx context.Context, key idempotency.Key) (idempotency.Record, error) {
	return s.next().Find(ctx, key)
}

func (s spread) Delete(ctx context.Context, key idempotency.Key, generation uint64) error {
	return s.next().Delete(ctx, key, generation)
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
