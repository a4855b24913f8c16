package idempotency_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

func newMemory(tb testing.TB, c idempotency.MemoryConfig) *idempotency.Memory {
	tb.Helper()
	m, err := idempotency.NewMemory(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.Close() })
	return m
}

func claimOf(owner, name int) idempotency.Claim {
	c := idempotency.Claim{Lease: time.Minute, TTL: time.Hour}
	binary.BigEndian.PutUint64(c.Key.Owner[:], uint64(owner)<<56|uint64(owner))
	binary.BigEndian.PutUint64(c.Key.Name[:], uint64(name))
	binary.BigEndian.PutUint64(c.Token[:], uint64(name)+1)
	return c
}

func resultOf(n int) idempotency.Result {
	return idempotency.Result{State: idempotency.StateDone, Status: 200, Payload: make([]byte, n), TTL: time.Hour}
}

func completion(c idempotency.Claim, r idempotency.Result) idempotency.Completion {
	return idempotency.Completion{Key: c.Key, Token: c.Token, Result: r}
}

// P07: one caller uses ever more keys.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := 100_000
		if soak {
			keys = 10_000_000
		}
		m := newMemory(t, idempotency.MemoryConfig{MaxRecords: 1000, MaxRecordsPerOwner: 100})
		refused := 0
		for i := range keys {
			_, err := m.Claim(t.Context(), claimOf(1, i))
			if errors.Is(err, idempotency.ErrOwnerFull) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if refused != keys-100 || m.Len() != 100 {
			t.Errorf("%d of %d were refused, %d are stored", refused, keys, m.Len())
		}
		for owner := 2; owner <= 10; owner++ {
			for i := range 100 {
				if _, err := m.Claim(t.Context(), claimOf(owner, i)); err != nil {
					t.Fatalf("owner %d suffers from another: %v", owner, err)
				}
			}
		}
		if _, err := m.Claim(t.Context(), claimOf(11, 0)); !errors.Is(err, usher.ErrFull) {
			t.Errorf("the store takes more than it may: %v", err)
		}
		// It keeps its records.
		if r, err := m.Claim(t.Context(), claimOf(2, 7)); err != nil || r.State != idempotency.StateClaimed {
			t.Errorf("a full store returns %+v, %v", r, err)
		}
		// Expired records make room.
		time.Sleep(time.Hour)
		for i := range 100 {
			for owner := range 10 {
				if _, err := m.Claim(t.Context(), claimOf(100+owner, i)); err != nil {
					t.Fatalf("after the records have expired: %v", err)
				}
			}
		}
		if m.Len() != 1000 {
			t.Errorf("%d are stored", m.Len())
		}
	})
}

// Claims remove expired records as fast as new ones are added.
func TestMemoryDropsExpiredRecordsAsItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, idempotency.MemoryConfig{MaxRecords: 1 << 20})
		for i := range 20_000 {
			c := claimOf(i%7, i)
			c.Lease, c.TTL = time.Second, time.Second
			if _, err := m.Claim(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			r := resultOf(10)
			if i%3 == 0 {
				r.State = idempotency.StateReleased
			}
			r.TTL = time.Duration(1+i%2) * time.Second
			if _, err := m.Finish(t.Context(), completion(c, r)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		// Of 100 a second, each expires within 2 seconds.
		if m.Len() > 250 || m.Bytes() > 2500 {
			t.Errorf("%d records with %d bytes are stored", m.Len(), m.Bytes())
		}
	})
}

func TestMemoryKeepsATombstoneIfAResponseDoesNotFit(t *testing.T) {
	m := newMemory(t, idempotency.MemoryConfig{MaxBytes: 1000, MaxBytesPerOwner: 600})
	put := func(owner, name, size int) idempotency.State {
		c := claimOf(owner, name)
		if _, err := m.Claim(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		kept, err := m.Finish(t.Context(), completion(c, resultOf(size)))
		if err != nil {
			t.Fatal(err)
		}
		c.Token[15]++
		r, err := m.Claim(t.Context(), c)
		if err != nil || r.Won || r.State != kept || r.Status != 200 || r.State == idempotency.StateTombstone && r.Payload != nil {
			t.Fatalf("got %+v, %v", r, err)
		}
		return r.State
	}
	for i, c := range []struct {
		owner, size int
		want        idempotency.State
	}{
		{1, 600, idempotency.StateDone}, {1, 1, idempotency.StateTombstone}, {2, 400, idempotency.StateDone},
		{2, 1, idempotency.StateTombstone}, {3, 1, idempotency.StateTombstone}, {3, 0, idempotency.StateDone},
	} {
		if got := put(c.owner, i, c.size); got != c.want {
			t.Errorf("%d bytes of owner %d: state %d, want %d", c.size, c.owner, got, c.want)
		}
	}
	if m.Bytes() != 1000 {
		t.Errorf("%d bytes are stored", m.Bytes())
	}
}

// What has expired takes no room, even of an owner that has other records.
func TestMemoryGivesTheBytesOfExpiredResponsesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, idempotency.MemoryConfig{MaxBytes: 1000, MaxBytesPerOwner: 600})
		keeper := claimOf(1, 0)
		keeper.TTL = 24 * time.Hour
		if _, err := m.Claim(t.Context(), keeper); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			c := claimOf(1, i+1)
			if _, err := m.Claim(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			kept, err := m.Finish(t.Context(), completion(c, resultOf(600)))
			if kept != idempotency.StateDone || err != nil || m.Bytes() != 600 {
				t.Fatalf("response %d: kept %d, %v, %d bytes are stored", i, kept, err, m.Bytes())
			}
			time.Sleep(time.Hour)
		}
	})
}

// A record that expires earlier than it was claimed for is dropped then.
func TestMemoryDropsRecordsThatExpireEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, idempotency.MemoryConfig{MaxRecords: 1000})
		first := claimOf(1, 0)
		first.TTL = 24 * time.Hour
		if _, err := m.Claim(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		for i := range 5000 {
			c := claimOf(1, i+1)
			c.TTL = 24 * time.Hour
			if _, err := m.Claim(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			r := idempotency.Result{State: idempotency.StateReleased, TTL: time.Second}
			if _, err := m.Finish(t.Context(), completion(c, r)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := m.Len(); n > 102 {
			t.Errorf("%d records are stored", n)
		}
	})
}

func TestLimitsAsClientsSeeThem(t *testing.T) {
	calls := new(counting)
	m := newMemory(t, idempotency.MemoryConfig{MaxRecords: 3, MaxRecordsPerOwner: 2, MaxBytes: 150})
	h := newMiddleware(t, idempotency.Config{Store: m}).Wrap(calls)
	bob := &usher.Principal{ID: "bob"}
	carol := &usher.Principal{ID: "carol"}
	do(h, post("/", "", key("1")))
	first := do(h, post("/", "", key("2")))
	wantFailure(t, do(h, post("/", "", key("3"))), 429, usher.CodeIdempotencyTooManyKeys)
	calls.want(t, 2)
	wantFailure(t, do(h, post("/", "", key("2"))), 409, usher.CodeIdempotencyResponseNotKept)
	if first.Code != 201 {
		t.Errorf("the first client got %d", first.Code)
	}
	do(h, post("/", "", as(bob)))
	wantFailure(t, do(h, post("/", "", as(carol))), 503, usher.CodeIdempotencyUnavailable)
	calls.want(t, 3)
}

func TestAClosedMemory(t *testing.T) {
	m := newMemory(t, idempotency.MemoryConfig{})
	c := claimOf(1, 1)
	if _, err := m.Claim(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil || m.Len() != 0 {
		t.Errorf("Close: %v, %d records", err, m.Len())
	}
	_, claim := m.Claim(t.Context(), c)
	_, renew := m.Renew(t.Context(), nil, time.Hour)
	_, finish := m.Finish(t.Context(), completion(c, resultOf(1)))
	for _, err := range []error{claim, renew, finish} {
		if !errors.Is(err, usher.ErrClosed) {
			t.Errorf("a closed Memory returns %v", err)
		}
	}
	calls := new(counting)
	wantFailure(t, do(newMiddleware(t, idempotency.Config{Store: m}).Wrap(calls), post("/", "")), 503, usher.CodeIdempotencyUnavailable)
	calls.want(t, 0)
}
