package idempotency_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// D13: what has expired counts against no owner, however much of others has expired before.
func TestExpiredRecordsRefuseNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsage(t)
		_, _ = u.claims(1, 0, 100_000)
		time.Sleep(time.Second)
		for i := range 100 {
			_, _ = u.claims(2+i, 0, 100_000)
		}
		time.Sleep(time.Hour + time.Second)
		for i := range share / idempotency.RecordBytes {
			if _, err := u.claims(2, 1000+i, 1); err != nil {
				t.Fatalf("claim %d: %v", i, err)
			}
		}
	})
}

// Claims remove expired records as fast as new ones are added.
func TestMemoryDropsExpiredRecordsAsItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, idempotency.MemoryConfig{})
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
		if used := m.Bytes() - idempotency.FixedBytes; m.Len() > 250 || used > 250*(idempotency.RecordBytes+16)+7*idempotency.OwnerBytes {
			t.Errorf("%d records with %d bytes are stored", m.Len(), used)
		}
	})
}

// What has expired takes no room, even of an owner that has other records.
func TestMemoryGivesTheBytesOfExpiredResponsesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsage(t)
		keeper := claimOf(1, 0)
		keeper.TTL = 24 * time.Hour
		if _, err := u.Claim(t.Context(), keeper); err != nil {
			t.Fatal(err)
		}
		var first int64
		for i := range 20 {
			if kept := u.put(1, i+1, 300_000); kept != idempotency.StateDone {
				t.Fatalf("response %d: kept %d", i, kept)
			}
			if i == 0 {
				first = u.Bytes()
			} else if u.Bytes() != first {
				t.Fatalf("response %d: %d bytes are stored, want %d", i, u.Bytes(), first)
			}
			time.Sleep(time.Hour + time.Second)
		}
	})
}

// A record that expires earlier than it was claimed for is dropped then.
func TestMemoryDropsRecordsThatExpireEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, idempotency.MemoryConfig{})
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
		if n := m.Len(); n > 104 {
			t.Errorf("%d records are stored", n)
		}
	})
}
