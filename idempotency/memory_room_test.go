package idempotency_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// lasting claims keys of an owner with a TTL, until that fails, or n times. It returns the
// error.
func (u usage) lasting(ttl time.Duration, owner, from, n int) error {
	for i := range n {
		c := claimOf(owner, from+i)
		c.TTL = ttl
		if _, err := u.Claim(u.t.Context(), c); err != nil {
			return err
		}
	}
	return nil
}

// What makes room for a response is not more than that takes, and may be all that there is.
func TestMemoryMakesNoMoreRoomThanNecessary(t *testing.T) {
	const size = 6 << 10 // which the runtime does not round up
	const fixed = idempotency.FixedBytes + idempotency.OwnerBytes + size
	for _, c := range []struct {
		name    string
		records int
		config  idempotency.MemoryConfig // with room for so many records, and one response
	}{
		{"of its owner, above three quarters", 2600, idempotency.MemoryConfig{
			MaxBytes: (fixed + 2600*idempotency.RecordBytes) / 3 * 4,
		}},
		{"of anybody", 4160, idempotency.MemoryConfig{
			MaxBytes: fixed + 4160*idempotency.RecordBytes, OwnerShare: fixed + 4160*idempotency.RecordBytes,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := usage{newMemory(t, c.config), t}
			u.put(1, 0, size)
			if n, err := u.claims(1, 1, c.records-1); err != nil {
				t.Fatalf("%d claims, and then %v", n, err)
			}
			if u.state(1, 0) != idempotency.StateDone {
				t.Fatal("the first response is gone before the store is full")
			}
			if kept, err := u.Finish(t.Context(), completion(claimOf(1, 1), resultOf(size))); kept != idempotency.StateDone || err != nil {
				t.Errorf("a second response is kept in state %d, %v", kept, err)
			}
			if got := u.state(1, 0); got != idempotency.StateTombstone {
				t.Errorf("the first is in state %d", got)
			}
		})
	}
	t.Run("for a large one that has room but for a little", func(t *testing.T) {
		u := newUsage(t)
		for i := range 40 {
			u.put(1, i, 4096)
		}
		// It is 100 bytes beyond three quarters, at least.
		large := (loan - int(u.Bytes()) - idempotency.RecordBytes + 100 + 8191) / 8192 * 8192
		if u.put(1, 40, large) != idempotency.StateDone {
			t.Fatal("it is not kept")
		}
		if n := u.kept(1, 40); n > 39 || n < 37 {
			t.Errorf("of 40 older responses, %d are left", n)
		}
	})
}

// An owner that has its share, or had more, does not make room for others.
func TestAnOwnerBorrowsOnlyWhileItHasMore(t *testing.T) {
	t.Run("than its share", func(t *testing.T) {
		u := usage{newMemory(t, idempotency.MemoryConfig{OwnerShare: 20 * idempotency.RecordBytes}), t}
		_, _ = u.claims(1, 0, 20)
		if err := u.Check(); err != nil {
			t.Error(err)
		}
		_, _ = u.claims(1, 20, 1)
		if err := u.Check(); err != nil {
			t.Error(err)
		}
	})
	t.Run("and no longer when that has expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := newUsage(t)
			u.put(1, 0, 1000)
			_ = u.lasting(time.Minute, 1, 1, 1000)
			time.Sleep(2 * time.Minute)
			_, _ = u.claims(2, 0, 1000) // each removes what has expired
			if err := u.Check(); err != nil {
				t.Error(err)
			}
		})
	})
}

// RetryAfter depends on what is stored now, in whatever order that expires.
func TestRetryAfterIsTrueInAnyOrder(t *testing.T) {
	t.Run("for a new owner, if the newest expire first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := newUsage(t)
			var err error
			for owner := 1; !errors.Is(err, usher.ErrFull); owner++ {
				err = u.lasting(time.Hour-time.Duration(owner)*20*time.Second, owner, 0, 100_000)
			}
			err = u.lasting(time.Hour, 1000, 0, 1)
			left := u.retryAfter(err, usher.ErrFull)
			time.Sleep(left - time.Second)
			if err := u.lasting(time.Hour, 1000, 0, 1); !errors.Is(err, usher.ErrFull) {
				t.Errorf("a second before %v: %v", left, err)
			}
			time.Sleep(time.Second)
			if err := u.lasting(time.Hour, 1000, 0, 1); err != nil {
				t.Errorf("after %v: %v", left, err)
			}
		})
	})
	t.Run("for an owner that has taken more since it was refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := newUsage(t)
			fill := func(ttl time.Duration, from int) {
				var err error
				for owner := 2; !errors.Is(err, usher.ErrFull); owner++ {
					err = u.lasting(ttl, owner, from, 100_000)
				}
			}
			_ = u.lasting(40*time.Minute, 1, 0, 300)
			fill(20*time.Minute, 0)
			first := u.retryAfter(u.lasting(time.Hour, 1, 300, 1), idempotency.ErrOwnerFull)
			time.Sleep(21 * time.Minute)
			if err := u.lasting(50*time.Minute, 1, 1000, 500); err != nil {
				t.Fatalf("after %v: %v", first, err)
			}
			fill(50*time.Minute, 1_000_000)
			left := u.retryAfter(u.lasting(time.Hour, 1, 2000, 1), idempotency.ErrOwnerFull)
			time.Sleep(left)
			if err := u.lasting(time.Hour, 1, 2000, 1); err != nil {
				t.Errorf("after %v: %v", left, err)
			}
		})
	})
}

// RetryAfter counts what would be evicted, and what others leave.
func TestRetryAfterIsNotLaterThanNecessary(t *testing.T) {
	t.Run("if a response can be evicted as well", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const records, size = 4200, 128
			const all = idempotency.FixedBytes + idempotency.OwnerBytes + records*idempotency.RecordBytes + size
			u := usage{newMemory(t, idempotency.MemoryConfig{MaxBytes: all, OwnerShare: all}), t}
			u.put(1, 0, size)
			for i := 1; i < records; i++ {
				if err := u.lasting(time.Duration(i)*10*time.Second, 1, i, 1); err != nil {
					t.Fatal(err)
				}
			}
			err := u.lasting(time.Hour, 2, 0, 1)
			if left := u.retryAfter(err, usher.ErrFull); left > 11*time.Second {
				t.Errorf("RetryAfter = %v, but one record that expires is enough", left)
			}
			time.Sleep(11 * time.Second)
			if err := u.lasting(time.Hour, 2, 0, 1); err != nil {
				t.Errorf("after the first record has expired: %v", err)
			}
		})
	})
	for _, order := range [][3]int{{10, 20, 30}, {10, 30, 20}, {20, 10, 30}, {20, 30, 10}, {30, 10, 20}, {30, 20, 10}} {
		t.Run(fmt.Sprint("if two records must expire, of which those to come have ", order, " seconds"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const records = 4200
				const all = idempotency.FixedBytes + idempotency.OwnerBytes + records*idempotency.RecordBytes
				u := usage{newMemory(t, idempotency.MemoryConfig{MaxBytes: all, OwnerShare: all}), t}
				for i := range records {
					ttl := time.Hour
					if i < len(order) {
						ttl = time.Duration(order[i]) * time.Second
					}
					if err := u.lasting(ttl, 1, i, 1); err != nil {
						t.Fatal(err)
					}
				}
				left := u.retryAfter(u.lasting(time.Hour, 2, 0, 1), usher.ErrFull)
				if left < 20*time.Second || left > 21*time.Second {
					t.Errorf("RetryAfter = %v, want 20 s", left)
				}
			})
		})
	}
	t.Run("if another owner has a record that expires", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := newUsage(t)
			_ = u.lasting(10*time.Minute, 2, 0, 1)
			err := u.lasting(time.Hour, 1, 0, 100_000)
			if left := u.retryAfter(err, idempotency.ErrOwnerFull); left > 10*time.Minute+time.Second {
				t.Errorf("RetryAfter = %v", left)
			}
		})
	})
}

// A record of which a store knows the whole fingerprint takes more room, and no more than there
// is.
func TestRecordsThatNoMiddlewareHasMadeAreBounded(t *testing.T) {
	u := newUsage(t)
	var err error
	for owner := 1; !errors.Is(err, usher.ErrFull); owner++ {
		for i := 0; err == nil || i == 0; i++ {
			c := claimOf(owner, i)
			c.Fingerprint[0]++
			_, err = u.Claim(t.Context(), c)
		}
		if u.Bytes() > smallest {
			t.Fatalf("%d bytes are stored", u.Bytes())
		}
	}
}

// What has expired since the key was claimed is no reason to lose the response.
func TestExpiredRecordsMakeRoomForAResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsage(t)
		c := claimOf(1, 0)
		if _, err := u.Claim(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		_ = u.lasting(10*time.Minute, 1, 1, 100_000)
		time.Sleep(11 * time.Minute)
		if kept, err := u.Finish(t.Context(), completion(c, resultOf(4096))); kept != idempotency.StateDone || err != nil {
			t.Errorf("the response is kept in state %d, %v", kept, err)
		}
	})
}

// Owners whose hashes begin alike have nothing else in common.
func TestOwnersWhoseHashesBeginAlike(t *testing.T) {
	const owners = 3
	of := func(last byte) idempotency.Claim {
		c := claimOf(7, 0)
		c.Key.Owner[31], c.Token[15] = last, last
		return c
	}
	for first := range byte(owners) { // is deleted first
		u := newUsage(t)
		generations := make(map[byte]uint64)
		for last := range byte(owners) {
			r, err := u.Claim(t.Context(), of(last))
			if err != nil || !r.Won {
				t.Fatalf("owner %d: %+v, %v", last, r, err)
			}
			generations[last] = r.Generation
			if _, err := u.Finish(t.Context(), completion(of(last), resultOf(int(last)))); err != nil {
				t.Fatal(err)
			}
		}
		for i := range byte(owners) {
			gone := (first + i) % owners
			if err := u.Delete(t.Context(), of(gone).Key, generations[gone]); err != nil {
				t.Errorf("owner %d: %v", gone, err)
			}
			if err := u.Check(); err != nil {
				t.Error(err)
			}
			for j := i + 1; j < owners; j++ {
				last := (first + j) % owners
				if r, err := u.Find(t.Context(), of(last).Key); err != nil || len(r.Payload) != int(last) {
					t.Errorf("owner %d has %+v, %v", last, r, err)
				}
			}
		}
	}
}
