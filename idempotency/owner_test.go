package idempotency_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// However many owners take turns, each has its own keys: what is known of an owner that came
// before is never taken for another.
func TestOwnersAreNotConfused(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	const owners = 5000 // more than are remembered
	name := func(i int) string {
		if i%10 == 0 { // too long to be remembered
			return strings.Repeat("x", 300) + fmt.Sprint(i)
		}
		return fmt.Sprint(i)
	}
	var all sync.WaitGroup
	for part := range 4 {
		all.Go(func() {
			for round := range 2 {
				for i := part; i < owners; i += 4 {
					w := do(h, post("/", name(i), as(&usher.Principal{ID: name(i)})))
					replayed := w.Header().Get("Idempotency-Replayed") == "true"
					if w.Code != 201 || !strings.Contains(w.Body.String(), fmt.Sprintf("%q", name(i))) || replayed != (round == 1) {
						t.Errorf("round %d: owner %s got %d %s", round, name(i), w.Code, w.Body)
						return
					}
				}
			}
		})
	}
	all.Wait()
	calls.want(t, owners)
}

// Two processes that share a store must agree about fingerprints. Inside one process they
// are hashed with seeds that no client knows, which belong to the Memory.
func TestWhoSharesFingerprints(t *testing.T) {
	of := func(store idempotency.Store) [32]byte {
		m := newMiddleware(t, idempotency.Config{Store: store})
		do(m.Wrap(new(counting)), post("/", "a"))
		entry, err := m.Lookup(t.Context(), idempotency.RequestKey{Principal: alice, Method: "POST", Route: "POST /test", Key: "k"})
		if err != nil {
			t.Fatal(err)
		}
		r, err := store.Find(t.Context(), entry.Key)
		if err != nil {
			t.Fatal(err)
		}
		return r.Fingerprint
	}
	remote := func() idempotency.Store { return newHookedStore(t) }
	one, two := newMemory(t, idempotency.MemoryConfig{}), newMemory(t, idempotency.MemoryConfig{})
	here, there := of(remote()), of(remote())
	if here != there {
		t.Error("two processes do not agree")
	}
	first, second := of(one), of(two)
	if first == second || first == here {
		t.Error("the seeds of two Memories are the same")
	}
	if first[16] == second[16] && first[24] == second[24] && first[31] == second[31] {
		t.Errorf("the fingerprints %x and %x differ too little", first, second)
	}
	// A second Middleware over the same Memory replays what the first has stored.
	calls := new(counting)
	wantReplay(t, do(newMiddleware(t, idempotency.Config{Store: one}).Wrap(calls), post("/", "a")),
		do(newMiddleware(t, idempotency.Config{Store: one}).Wrap(calls), post("/", "a")))
	calls.want(t, 0)
	wantFailure(t, do(newMiddleware(t, idempotency.Config{Store: one}).Wrap(calls), post("/", "b")), 422, usher.CodeIdempotencyKeyReused)
}
