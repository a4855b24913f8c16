package usherredis_test

import (
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/usherredis"
)

// If the clock of the server is set back, a claim still gets a greater generation than the
// one before.
func TestGenerationsGrowEvenIfTheClockIsSetBack(t *testing.T) {
	i := open(t, servers.Redis(t).Addr, newPrefix()).Idempotency()
	now := time.Unix(1_800_000_000, 0)
	usherredis.SetClock(i, func() time.Time { return now })
	c := newClaim()
	last := uint64(0)
	for range 3 {
		c.Token[15]++
		r, err := i.Claim(t.Context(), c)
		if err != nil || !r.Won || r.Generation <= last {
			t.Fatalf("%+v, %v, want a claim with a generation above %d", r, err, last)
		}
		last = r.Generation
		release := done(c, "")
		release.Result.State = idempotency.StateReleased
		if _, err := i.Finish(t.Context(), release); err != nil {
			t.Fatal(err)
		}
		now = now.Add(-time.Hour)
	}
}

func TestARepeatedClaimChangesNothingButItsLease(t *testing.T) {
	s := servers.Redis(t)
	i := open(t, s.Addr, newPrefix()).Idempotency()
	c := newClaim()
	c.Fingerprint = [32]byte{1}
	first, err := i.Claim(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	id := idempotency.ClaimID{Key: c.Key, Token: c.Token}
	if lost, err := i.Renew(t.Context(), []idempotency.ClaimID{id}, 3*time.Hour); err != nil || len(lost) > 0 {
		t.Fatal(lost, err)
	}
	other := c
	other.Fingerprint = [32]byte{2}
	again, err := i.Claim(t.Context(), other)
	if err != nil || !again.Won || again.Generation != first.Generation || again.Fingerprint != c.Fingerprint || again.Lease != c.Lease {
		t.Errorf("%+v, %v, want %+v", again, err, first)
	}
	for _, key := range keys(t, s.Addr) {
		m := must(t, s.Addr, "PTTL", key)
		if ttl, err := m.AsInt64(); err != nil || ttl < 2*time.Hour.Milliseconds() {
			t.Errorf("the record expires in %d ms, want 3 hours: %v", ttl, err)
		}
	}
}
