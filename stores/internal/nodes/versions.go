package nodes

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// OlderRecords are the calls of a program that knows neither TakeUnknown and TakenOver nor
// Find and Delete.
type OlderRecords interface {
	Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error)
	Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error)
	Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error)
}

// TestRecords tests two programs, one of the previous version, that serve the same records
// while one replaces the other.
func TestRecords(t *testing.T, older OlderRecords, newer idempotency.Store) {
	r := records{t, older, newer}
	for _, c := range []struct {
		name string
		test func(records)
	}{
		{"each finds the claims and responses of the other", records.shared},
		{"each takes over the claims of the other", records.takeovers},
		{"each gets the keys that the other has released", records.released},
		{"what the older has left unknown can be resolved", records.unknown},
		{"what the older has stored is found and deleted", records.operators},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.T = t
			c.test(r)
		})
	}
}

type records struct {
	*testing.T
	older OlderRecords
	newer idempotency.Store
}

// pairs are the programs, each first once.
func (r records) pairs() [2][2]OlderRecords {
	return [2][2]OlderRecords{{r.older, r.newer}, {r.newer, r.older}}
}

func newClaim() (c idempotency.Claim) {
	c.Lease, c.TTL = time.Hour, 2*time.Hour
	for _, b := range [][]byte{c.Key.Owner[:], c.Key.Name[:], c.Fingerprint[:], c.Token[:]} {
		_, _ = rand.Read(b) // It never fails.
	}
	return c
}

// again returns the claim of another token for the same request.
func again(c idempotency.Claim) idempotency.Claim {
	c.Token = newClaim().Token
	c.TakeUnknown = false
	return c
}

func resolving(c idempotency.Claim) idempotency.Claim {
	c = again(c)
	c.TakeUnknown = true
	return c
}

// claim claims the key of c, and fails unless that is won or not, and the record has this
// state.
func (r records) claim(s OlderRecords, c idempotency.Claim, won bool, state idempotency.State) idempotency.Record {
	r.Helper()
	got, err := s.Claim(r.Context(), c)
	if err != nil || got.Won != won || got.State != state {
		r.Fatalf("Claim returned %+v, %v, want state %d, won %v", got, err, state, won)
	}
	return got
}

func (r records) finish(s OlderRecords, c idempotency.Claim, state idempotency.State) {
	r.Helper()
	result := idempotency.Result{State: state, Status: 201, TTL: time.Hour}
	if state == idempotency.StateDone {
		result.Payload = []byte("a response")
	}
	if kept, err := s.Finish(r.Context(), idempotency.Completion{Key: c.Key, Token: c.Token, Result: result}); kept != state || err != nil {
		r.Fatalf("Finish with state %d: kept %d, %v", state, kept, err)
	}
}

func (r records) wantLost(s OlderRecords, c idempotency.Claim) {
	r.Helper()
	lost, err := s.Renew(r.Context(), []idempotency.ClaimID{{Key: c.Key, Token: c.Token}}, time.Hour)
	if err != nil || len(lost) != 1 {
		r.Errorf("Renew: %d are lost, %v, want the claim to be lost", len(lost), err)
	}
	end := idempotency.Completion{Key: c.Key, Token: c.Token, Result: idempotency.Result{State: idempotency.StateDone, TTL: time.Hour}}
	if _, err := s.Finish(r.Context(), end); !errors.Is(err, idempotency.ErrLost) {
		r.Errorf("Finish: %v, want ErrLost", err)
	}
}

// ended waits until a lease of this length has ended.
const ended = 30 * time.Millisecond

func (r records) shared() {
	for _, p := range r.pairs() {
		for _, state := range []idempotency.State{idempotency.StateDone, idempotency.StateTombstone, idempotency.StateUnknown} {
			c := newClaim()
			first := r.claim(p[0], c, true, idempotency.StateClaimed)
			second := r.claim(p[1], again(c), false, idempotency.StateClaimed)
			if second.Generation != first.Generation || second.Lease <= 59*time.Minute {
				r.Errorf("the claim %+v is returned as %+v", first, second)
			}
			r.claim(p[0], c, true, idempotency.StateClaimed)
			r.finish(p[0], c, state)
			got := r.claim(p[1], again(c), false, state)
			if got.Status != 201 || got.Fingerprint != c.Fingerprint || (string(got.Payload) == "a response") != (state == idempotency.StateDone) {
				r.Errorf("the record is %+v", got)
			}
		}
	}
}

func (r records) takeovers() {
	for _, p := range r.pairs() {
		c := newClaim()
		c.Lease = ended
		last := r.claim(p[0], c, true, idempotency.StateClaimed)
		for i := range 4 {
			time.Sleep(2 * ended)
			by := p[(i+1)%2]
			next := again(c)
			next.Lease = ended
			if by == OlderRecords(r.newer) {
				other := resolving(c)
				other.Fingerprint = newClaim().Fingerprint
				r.claim(by, other, false, idempotency.StateClaimed)
			}
			got := r.claim(by, next, true, idempotency.StateClaimed)
			repeated := r.claim(by, next, true, idempotency.StateClaimed)
			if got.Generation <= last.Generation || repeated.Generation != got.Generation {
				r.Errorf("the generations are %d, %d and %d", last.Generation, got.Generation, repeated.Generation)
			}
			if by == OlderRecords(r.newer) && !(got.TakenOver && repeated.TakenOver) {
				r.Error("a claim that is taken over does not say so")
			}
			r.wantLost(p[i%2], c)
			next.Lease = time.Hour
			r.claim(by, next, true, idempotency.StateClaimed)
			r.claim(p[i%2], again(c), false, idempotency.StateClaimed)
			if lost, err := by.Renew(r.Context(), []idempotency.ClaimID{{Key: next.Key, Token: next.Token}}, ended); err != nil || len(lost) > 0 {
				r.Errorf("Renew: %d are lost, %v", len(lost), err)
			}
			c, last = next, got
		}
		r.finish(p[0], c, idempotency.StateDone)
		r.claim(p[1], again(c), false, idempotency.StateDone)
	}
}

func (r records) released() {
	for _, p := range r.pairs() {
		c := newClaim()
		r.claim(p[0], c, true, idempotency.StateClaimed)
		for i := range 4 {
			r.finish(p[i%2], c, idempotency.StateReleased)
			if _, err := r.newer.Find(r.Context(), c.Key); !errors.Is(err, idempotency.ErrNotFound) {
				r.Errorf("Find of a released record: %v, want ErrNotFound", err)
			}
			for _, s := range p {
				if _, err := s.Claim(r.Context(), c); !errors.Is(err, idempotency.ErrLost) {
					r.Errorf("Claim by a token that has released the key: %v, want ErrLost", err)
				}
			}
			c = again(c)
			if got := r.claim(p[(i+1)%2], c, true, idempotency.StateClaimed); got.TakenOver {
				r.Error("a released key says that it is taken over")
			}
		}
	}
}

func (r records) unknown() {
	for _, p := range r.pairs() {
		c := newClaim()
		r.claim(p[0], c, true, idempotency.StateClaimed)
		r.finish(p[0], c, idempotency.StateUnknown)
		for range 2 {
			r.claim(r.older, resolving(c), false, idempotency.StateUnknown) // it cannot
			r.claim(r.newer, again(c), false, idempotency.StateUnknown)
			next := resolving(c)
			if got := r.claim(r.newer, next, true, idempotency.StateClaimed); !got.TakenOver {
				r.Error("a claim of an unknown outcome does not say so")
			}
			r.claim(r.older, again(c), false, idempotency.StateClaimed)
			r.wantLost(r.older, c)
			r.finish(r.newer, next, idempotency.StateUnknown)
			c = next
		}
		last := resolving(c)
		r.claim(r.newer, last, true, idempotency.StateClaimed)
		r.finish(r.newer, last, idempotency.StateDone)
		for _, s := range p {
			r.claim(s, again(c), false, idempotency.StateDone)
		}
	}
}

func (r records) operators() {
	for _, state := range []idempotency.State{idempotency.StateDone, idempotency.StateTombstone, idempotency.StateUnknown, idempotency.StateClaimed} {
		c := newClaim()
		generation := r.claim(r.older, c, true, idempotency.StateClaimed).Generation
		if err := r.newer.Delete(r.Context(), c.Key, generation); !errors.Is(err, idempotency.ErrLost) {
			r.Errorf("Delete of a claim with a lease: %v, want ErrLost", err)
		}
		if state != idempotency.StateClaimed {
			r.finish(r.older, c, state)
		} else if lost, err := r.older.Renew(r.Context(), []idempotency.ClaimID{{Key: c.Key, Token: c.Token}}, ended); err != nil || len(lost) > 0 {
			r.Errorf("Renew: %d are lost, %v", len(lost), err)
		}
		time.Sleep(2 * ended)
		got, err := r.newer.Find(r.Context(), c.Key)
		if err != nil || got.State != state || got.Generation != generation || got.Fingerprint != c.Fingerprint || got.TTL <= 59*time.Minute {
			r.Errorf("Find returned %+v, %v, want state %d", got, err, state)
		}
		if err := r.newer.Delete(r.Context(), c.Key, generation); err != nil {
			r.Errorf("Delete of a record in state %d: %v", state, err)
		}
		r.wantLost(r.older, c)
		r.claim(r.older, again(c), true, idempotency.StateClaimed)
	}
}
