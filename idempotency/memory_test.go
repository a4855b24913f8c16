package idempotency_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
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
	tb.Cleanup(func() {
		if err := m.Check(); err != nil {
			tb.Error(err)
		}
		_ = m.Close()
	})
	return m
}

// claimOf returns a claim of a key, with the fingerprint that a Middleware gives it.
func claimOf(owner, name int) idempotency.Claim {
	c := idempotency.Claim{Lease: time.Minute, TTL: time.Hour}
	binary.BigEndian.PutUint64(c.Key.Owner[:], uint64(owner))
	binary.BigEndian.PutUint64(c.Key.Name[:], uint64(name))
	binary.BigEndian.PutUint64(c.Token[:], uint64(name)+1)
	copy(c.Fingerprint[:8], c.Key.Owner[:])
	copy(c.Fingerprint[8:16], c.Key.Name[:])
	return c
}

func resultOf(n int) idempotency.Result {
	return idempotency.Result{State: idempotency.StateDone, Status: 200, Payload: make([]byte, n), TTL: time.Hour}
}

func completion(c idempotency.Claim, r idempotency.Result) idempotency.Completion {
	return idempotency.Completion{Key: c.Key, Token: c.Token, Result: r}
}

// A usage is a Memory of the least size, for tests of what it does at its bounds.
type usage struct {
	*idempotency.Memory
	t testing.TB
}

const (
	smallest = 1 << 20
	loan     = smallest / 4 * 3
	share    = smallest / 64
)

func newUsage(t testing.TB) usage {
	return usage{newMemory(t, idempotency.MemoryConfig{MaxBytes: smallest}), t}
}

// put stores a response of size bytes and returns the state of the record. It fails if the
// key cannot be claimed.
func (u usage) put(owner, name, size int) idempotency.State {
	u.t.Helper()
	c := claimOf(owner, name)
	if _, err := u.Claim(u.t.Context(), c); err != nil {
		u.t.Fatalf("owner %d, key %d: %v", owner, name, err)
	}
	kept, err := u.Finish(u.t.Context(), completion(c, resultOf(size)))
	if err != nil {
		u.t.Fatal(err)
	}
	return kept
}

// claims claims keys until that fails, or n times, and returns the error and the number.
func (u usage) claims(owner, from, n int) (int, error) {
	for i := range n {
		c := claimOf(owner, from+i)
		if _, err := u.Claim(u.t.Context(), c); err != nil {
			return i, err
		}
	}
	return n, nil
}

// state returns the state of a record, or 0 if there is none.
func (u usage) state(owner, name int) idempotency.State {
	r, err := u.Find(u.t.Context(), claimOf(owner, name).Key)
	if err != nil && !errors.Is(err, idempotency.ErrNotFound) {
		u.t.Fatal(err)
	}
	return r.State
}

// kept returns how many of the first n keys of an owner have their response, and fails
// unless they are the newest.
func (u usage) kept(owner, n int) (kept int) {
	u.t.Helper()
	for i := range n {
		switch u.state(owner, i) {
		case idempotency.StateDone:
			kept++
		case idempotency.StateTombstone:
			if kept > 0 {
				u.t.Errorf("owner %d lost the response %d before an older one", owner, i)
			}
		default:
			u.t.Errorf("owner %d has no record of %d", owner, i)
		}
	}
	return kept
}

// retryAfter returns the RetryAfter of an error that matches want.
func (u usage) retryAfter(err, want error) time.Duration {
	u.t.Helper()
	var full *idempotency.FullError
	if !errors.As(err, &full) || !errors.Is(err, want) {
		u.t.Fatalf("got %v, want a FullError with %v", err, want)
	}
	if full.RetryAfter <= 0 {
		u.t.Errorf("RetryAfter = %v", full.RetryAfter)
	}
	return full.RetryAfter
}

// crowded returns a store that claims have filled, with room for a few more.
func crowded(t testing.TB, records int) *idempotency.Memory {
	u := newUsage(t)
	for owner, err := 1, error(nil); !errors.Is(err, usher.ErrFull); owner++ {
		_, err = u.claims(owner, 0, 100_000)
	}
	for i := range records {
		c := claimOf(1, i)
		if _, err := u.Finish(t.Context(), completion(c, idempotency.Result{State: idempotency.StateTombstone, TTL: time.Hour})); err != nil {
			t.Fatal(err)
		}
		r, err := u.Find(t.Context(), c.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Delete(t.Context(), c.Key, r.Generation); err != nil {
			t.Fatal(err)
		}
	}
	return u.Memory
}

// P07: one caller uses ever more keys.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsage(t)
		keys := 100_000
		if soak {
			keys = 10_000_000
		}
		borrowed, err := u.claims(1, 0, keys)
		if !errors.Is(err, idempotency.ErrOwnerFull) {
			t.Fatalf("after %d keys: %v", borrowed, err)
		}
		if left := loan - u.Bytes(); left < 0 || left >= idempotency.RecordBytes {
			t.Errorf("one owner is refused with %d bytes below three quarters", left)
		}
		for i := range keys {
			if _, err := u.Claim(t.Context(), claimOf(1, borrowed+i)); !errors.Is(err, idempotency.ErrOwnerFull) {
				t.Fatalf("owner 1 takes room from others: %v", err)
			}
		}
		owners := 0
		for err == nil || errors.Is(err, idempotency.ErrOwnerFull) {
			owners++
			var n int
			n, err = u.claims(1+owners, 0, keys)
			if errors.Is(err, idempotency.ErrOwnerFull) && n != share/idempotency.RecordBytes {
				t.Fatalf("owner %d got %d records, want its share of %d", 1+owners, n, share/idempotency.RecordBytes)
			}
		}
		if !errors.Is(err, usher.ErrFull) || owners < 15 || u.Bytes() > smallest {
			t.Errorf("after %d more owners the store has %d bytes, and returns %v", owners, u.Bytes(), err)
		}
		// It keeps its records.
		for i := range borrowed {
			if u.state(1, i) != idempotency.StateClaimed {
				t.Fatalf("record %d is gone", i)
			}
		}
		// Expired records make room.
		time.Sleep(time.Hour + time.Second)
		if n, err := u.claims(1, keys, borrowed-share/idempotency.RecordBytes); err != nil {
			t.Errorf("of new keys after all others have expired, the store took %d, and then returned %v", n, err)
		}
	})
}

// What is evicted: the oldest responses, and nothing else.
func TestMemoryEvictsTheOldestResponses(t *testing.T) {
	const size = 4096
	for _, c := range []struct {
		name string
		run  func(u usage)
	}{
		{"one owner loses its own at three quarters", func(u usage) {
			for i := range 1000 {
				if u.put(1, i, size) != idempotency.StateDone || u.Bytes() > loan {
					u.t.Fatalf("response %d is not kept, or %d bytes are", i, u.Bytes())
				}
			}
			if n := u.kept(1, 1000); n < (loan-1000*idempotency.RecordBytes-idempotency.FixedBytes)/size-2 {
				u.t.Errorf("%d are left", n)
			}
		}},
		{"an owner that borrows makes room for others, the largest first", func(u usage) {
			for i := range 45 {
				u.put(1, i, size)
			}
			for i := range 25 {
				u.put(2, i, size)
			}
			for i := range 3 {
				for owner := 3; owner < 9; owner++ {
					if u.put(owner, i, size) != idempotency.StateDone {
						u.t.Fatalf("response %d of owner %d is not kept", i, owner)
					}
				}
			}
			for i := range 100 {
				if u.put(100+i, 0, size) != idempotency.StateDone {
					u.t.Fatalf("the response of owner %d is not kept", 100+i)
				}
			}
			one, two := u.kept(1, 45), u.kept(2, 25)
			if one == 45 || two == 25 || one-two > 1 || two-one > 1 {
				u.t.Errorf("the borrowers have %d and %d", one, two)
			}
			for owner := 3; owner < 9; owner++ {
				if n := u.kept(owner, 3); n != 3 {
					u.t.Errorf("owner %d has %d of 3", owner, n)
				}
			}
		}},
		{"an owner with its share does not lose it to one that wants more", func(u usage) {
			for i := range 3 {
				u.put(1, i, size)
			}
			for i := range 500 {
				for owner := 2; owner < 5; owner++ {
					u.put(owner, i, size)
				}
			}
			if n := u.kept(1, 3); n != 3 {
				u.t.Errorf("it has %d of 3", n)
			}
		}},
		{"without borrowers the oldest of all go", func(u usage) {
			for i := range 600 {
				u.put(i, 0, size/4)
			}
			kept := 0
			for i := range 600 {
				if n := u.kept(i, 1); n < 1 && kept > 0 {
					u.t.Errorf("response %d went before an older one", i)
				} else {
					kept += n
				}
			}
			if kept < 300 || kept == 600 {
				u.t.Errorf("%d are left", kept)
			}
		}},
		{"claims, tombstones and unknown outcomes stay", func(u usage) {
			want := map[int]idempotency.State{}
			for i, state := range []idempotency.State{idempotency.StateClaimed, idempotency.StateTombstone, idempotency.StateUnknown} {
				c := claimOf(1, i)
				if _, err := u.Claim(u.t.Context(), c); err != nil {
					u.t.Fatal(err)
				}
				if want[i] = state; state != idempotency.StateClaimed {
					if _, err := u.Finish(u.t.Context(), completion(c, idempotency.Result{State: state, TTL: time.Hour})); err != nil {
						u.t.Fatal(err)
					}
				}
			}
			for i := range 1000 {
				u.put(1, 10+i, size)
			}
			for i, state := range want {
				if got := u.state(1, i); got != state {
					u.t.Errorf("record %d is in state %d, want %d", i, got, state)
				}
			}
		}},
		{"a response larger than what it may replace becomes a tombstone itself", func(u usage) {
			for i := range 20 {
				u.put(1, i, size)
			}
			if u.put(2, 0, smallest) != idempotency.StateTombstone || u.put(1, 20, smallest) != idempotency.StateTombstone {
				u.t.Error("it is kept")
			}
			if n := u.kept(1, 20); n != 20 {
				u.t.Errorf("for nothing, others were evicted: %d of 20 are left", n)
			}
		}},
		{"no more go than there must", func(u usage) {
			n := 0
			for ; u.Bytes() < loan-30_000; n++ {
				u.put(1, n, size)
			}
			if u.put(1, n, 40_960) != idempotency.StateDone {
				u.t.Error("it is not kept")
			}
			if evicted := n - u.kept(1, n); evicted < 3 || evicted > 4 {
				u.t.Errorf("%d of %d bytes were evicted for 11 KB", evicted, size)
			}
		}},
		{"an empty response takes no room", func(u usage) {
			if _, err := u.claims(1, 100, 100_000); err == nil {
				u.t.Error("owner 1 is not refused")
			}
			if u.put(2, 0, 0) != idempotency.StateDone {
				u.t.Error("it is not kept")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.run(newUsage(t)) })
		})
	}
}

// An evicted response is a tombstone with the status, and its key is not free.
func TestAnEvictedResponseIsATombstone(t *testing.T) {
	u := newUsage(t)
	for i := range 200 {
		u.put(1, i, 10_000)
	}
	c := claimOf(1, 0)
	c.Token[0]++
	r, err := u.Claim(t.Context(), c)
	if err != nil || r.Won || r.State != idempotency.StateTombstone || r.Status != 200 || r.Payload != nil || r.Fingerprint != c.Fingerprint {
		t.Errorf("got %+v, %v", r, err)
	}
	if kept, err := u.Finish(t.Context(), completion(claimOf(1, 0), resultOf(1))); kept != idempotency.StateTombstone || err != nil {
		t.Errorf("the token that has stored it gets %d, %v", kept, err)
	}
}

// After RetryAfter there is room, and not much earlier.
func TestRetryAfterIsTrue(t *testing.T) {
	for _, c := range []struct {
		name  string
		fill  func(u usage) (owner int, err error)
		want  error
		exact bool // not earlier
	}{
		{"one owner at three quarters", func(u usage) (int, error) {
			_, err := u.claims(1, 0, 100_000)
			return 1, err
		}, idempotency.ErrOwnerFull, true},
		{"an owner at its share, in a full store", func(u usage) (int, error) {
			_, _ = u.claims(1, 0, share/idempotency.RecordBytes)
			time.Sleep(time.Minute)
			_, _ = u.claims(2, 0, 100_000)
			time.Sleep(time.Minute)
			for i := range 10 {
				_, _ = u.claims(3+i, 0, 100_000)
			}
			_, err := u.claims(1, 1000, 1)
			return 1, err
		}, idempotency.ErrOwnerFull, true},
		{"an owner above its share, in a full store", func(u usage) (int, error) {
			for i := range 50 {
				_, _ = u.claims(1, 100*i, 50)
				time.Sleep(10 * time.Second)
			}
			for i := range 100 {
				_, _ = u.claims(2+i, 0, 100_000)
			}
			_, err := u.claims(1, 100_000, 1)
			return 1, err
		}, idempotency.ErrOwnerFull, false}, // others leave room as well
		{"a known owner in a full store", func(u usage) (int, error) {
			_, _ = u.claims(1000, 0, 1)
			time.Sleep(time.Second)
			for i := range 100 {
				_, _ = u.claims(1+i, 0, 100_000)
			}
			_, err := u.claims(1000, 1, 1)
			return 1000, err
		}, usher.ErrFull, true},
		{"a new owner in a full store", func(u usage) (int, error) {
			for i := range 100 {
				_, _ = u.claims(1+i, 0, 100_000)
				time.Sleep(time.Second)
			}
			_, err := u.claims(1000, 0, 1)
			return 1000, err
		}, usher.ErrFull, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUsage(t)
				owner, err := c.fill(u)
				left := u.retryAfter(err, c.want)
				if left > time.Hour+time.Second {
					t.Errorf("RetryAfter = %v, although all records expire within an hour", left)
				}
				if time.Sleep(left - time.Second); c.exact {
					if _, err := u.claims(owner, 1_000_000, 1); !errors.Is(err, c.want) {
						t.Errorf("a second earlier: %v", err)
					}
				}
				time.Sleep(time.Second)
				if _, err := u.claims(owner, 2_000_000, 1); err != nil {
					t.Errorf("after %v: %v", left, err)
				}
			})
		})
	}
}

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

// Capacity returns how many responses are kept at the same time.
func TestCapacity(t *testing.T) {
	for _, size := range []int{0, 64, 65, 100, 1000, 4096, 32 << 10, 40_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			u := usage{newMemory(t, idempotency.MemoryConfig{MaxBytes: 4 << 20}), t}
			stored := size + idempotency.HeadBytes
			const owners = 200 // which take room as well
			n := u.Capacity(size) - owners*idempotency.OwnerBytes/(idempotency.RecordBytes+stored) - 1
			evicted := func() (n int) {
				for i := range u.Len() {
					if u.state(i%owners, i) != idempotency.StateDone {
						n++
					}
				}
				return n
			}
			for i := range n {
				u.put(i%owners, i, stored)
			}
			if got := evicted(); got > 0 {
				t.Errorf("of %d responses, %d are not kept", n, got)
			}
			for i := range n/50 + 3 {
				u.put((n+i)%owners, n+i, stored)
			}
			if evicted() == 0 {
				t.Errorf("more than %d responses fit", n)
			}
		})
	}
}

func TestLimitsAsClientsSeeThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := new(counting)
		u := newUsage(t)
		h := newMiddleware(t, idempotency.Config{Store: u.Memory, OnError: func(context.Context, error) {}}).Wrap(calls)
		first := do(h, post("/", strings.Repeat("x", 1000), key("1")))
		// Others fill the store, and only claims are left.
		_, _ = u.claims(1, 0, 100_000)
		time.Sleep(20 * time.Minute)
		for i := range 100 {
			_, _ = u.claims(2+i, 0, 100_000)
		}
		wantFailure(t, do(h, post("/", strings.Repeat("x", 1000), key("1"))), 409, usher.CodeIdempotencyResponseNotKept)
		if first.Code != 201 {
			t.Errorf("the first client got %d", first.Code)
		}
		w := do(h, post("/", "", key("2")))
		wantFailure(t, w, 503, usher.CodeIdempotencyUnavailable)
		if after := w.Header().Get("Retry-After"); after != "2401" { // 40 minutes and a tick
			t.Errorf("Retry-After: %s", after)
		}
		calls.want(t, 1)

		// One caller beyond its share, all of it claims that stay.
		busy := newUsage(t)
		h = newMiddleware(t, idempotency.Config{Store: busy.Memory, Profile: idempotency.ProfileDefault}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
		}))
		for i := range 100_000 {
			if w = do(h, post("/", "", key(fmt.Sprint(i)))); w.Code == 429 {
				break
			}
		}
		wantFailure(t, w, 429, usher.CodeIdempotencyTooManyKeys)
		if after := w.Header().Get("Retry-After"); after != "86401" {
			t.Errorf("Retry-After: %s", after)
		}
	})
}

// A Memory needs no lease: however short the TTL, a request has its key until it ends.
func TestARequestHasItsKeyInAMemoryUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsage(t)
		calls := new(counting)
		calls.next = func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(48 * time.Hour)
			w.WriteHeader(201)
		}
		m := newMiddleware(t, idempotency.Config{
			Store: u.Memory, Lease: 20 * time.Second, TTL: time.Minute, Wait: idempotency.NoWait, DisconnectTimeout: 100 * time.Hour,
		})
		h := m.Wrap(calls)
		go do(h, post("/", ""))
		for range 47 {
			time.Sleep(time.Hour)
			w := do(h, post("/", ""))
			wantFailure(t, w, 409, usher.CodeIdempotencyInProgress)
			if after := w.Header().Get("Retry-After"); after != "20" {
				t.Errorf("Retry-After: %s, want the lease", after)
			}
			entry, err := m.Lookup(t.Context(), idempotency.RequestKey{Principal: alice, Method: "POST", Route: "POST /test", Key: "k"})
			if err != nil || entry.Lease != 20*time.Second || entry.TTL != time.Minute {
				t.Errorf("Lookup returns %+v, %v", entry, err)
			}
		}
		if m.Leases() != 0 {
			t.Error("a lease is kept")
		}
		time.Sleep(time.Hour + time.Second)
		if w := do(h, post("/", "")); w.Code != 201 || w.Header().Get("Idempotency-Replayed") != "true" {
			t.Errorf("a retry gets %d", w.Code)
		}
		calls.want(t, 1)
		time.Sleep(time.Minute)
		go do(h, post("/", ""))
		synctest.Wait()
		calls.want(t, 2)
		time.Sleep(48 * time.Hour)

		call := idempotency.Call{Owner: "alice", Operation: "pay", Key: "k"}
		go func() {
			_, _, err := m.Execute(t.Context(), call, func(context.Context) ([]byte, error) {
				time.Sleep(time.Hour)
				return nil, nil
			})
			if err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(59 * time.Minute)
		_, _, err := m.Execute(t.Context(), call, func(context.Context) ([]byte, error) {
			t.Error("a call runs twice")
			return nil, nil
		})
		if failure, ok := errors.AsType[*usher.Error](err); !ok || failure.Code != usher.CodeIdempotencyInProgress {
			t.Errorf("a duplicate of a call gets %v", err)
		}
		time.Sleep(time.Hour)
	})
}

// Requests in flight do not make RetryAfter untrue, and nobody knows when they end.
func TestRetryAfterWithRequestsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsage(t)
		leave := make(chan struct{})
		h := newMiddleware(t, idempotency.Config{Store: u.Memory, Wait: idempotency.NoWait}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Slow") != "" {
				<-leave
			}
			w.WriteHeader(500)
		}))
		slow := func(r *http.Request) { r.Header.Set("Slow", "yes") }
		for i := range 100 {
			go do(h, post("/", "", key(fmt.Sprint("slow", i)), slow))
		}
		synctest.Wait()
		for owner, err := 1, error(nil); !errors.Is(err, usher.ErrFull); owner++ {
			_, err = u.claims(owner, 0, 100_000)
		}
		// Alice is above her share only by requests in flight.
		w := do(h, post("/", "", key("more")))
		wantFailure(t, w, 429, usher.CodeIdempotencyTooManyKeys)
		if after := w.Header().Get("Retry-After"); after != "" {
			t.Errorf("Retry-After: %s, although nobody knows", after)
		}
		close(leave) // they become records of 24 hours
		synctest.Wait()
		w = do(h, post("/", "", key("more")))
		if after := w.Header().Get("Retry-After"); after != "86401" {
			t.Errorf("Retry-After: %q", after)
		}
	})
}

// Evictions are reported with their number, not each, and are counted.
func TestEvictionsAreReportedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, name := range []string{"one middleware", "two middlewares"} {
			var reports []string
			meter := newMeter()
			u := newUsage(t)
			c := idempotency.Config{Store: u.Memory, MeterProvider: meter, OnError: func(_ context.Context, err error) {
				if !errors.Is(err, usher.ErrFull) {
					t.Errorf("OnError got %v", err)
				}
				reports = append(reports, err.Error())
			}}
			large := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 4000)) })
			all := []http.Handler{newMiddleware(t, c).Wrap(large)}
			if name == "two middlewares" {
				all = append(all, newMiddleware(t, c).Wrap(large))
			}
			const requests = 1000 // 100 a second
			for i := range requests {
				do(all[i%len(all)], post("/", "", key(fmt.Sprint(i))))
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(time.Second)
			do(all[0], post("/", "", key("last")))
			if len(reports) < 5 || len(reports) > 11 {
				t.Errorf("%s: %d reports in 10 seconds: %q", name, len(reports), reports)
			}
			sum := 0
			for _, r := range reports {
				var n int
				if _, err := fmt.Sscanf(r, "idempotency: %d responses", &n); err != nil {
					t.Error(err)
				}
				sum += n
			}
			evicted := 0
			for i := range requests {
				if w := do(all[0], post("/", "", key(fmt.Sprint(i)))); w.Code == 409 {
					evicted++
				}
			}
			var counted int64
			for _, c := range meter.Counts() {
				if c.Name == "usher.idempotency.evictions" {
					counted += c.Value
				}
			}
			if sum != evicted || counted != int64(evicted) {
				t.Errorf("%s: %d are reported and %d counted, want %d", name, sum, counted, evicted)
			}
		}
	})
}

// NewMemory logs what fits, at the level Debug.
func TestNewMemoryLogsWhatFits(t *testing.T) {
	var text strings.Builder
	before := slog.Default()
	defer slog.SetDefault(before)
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})))
	m := newMemory(t, idempotency.MemoryConfig{})
	if want := fmt.Sprintf("bytes=201326592 with_100_bytes=%d with_4_KiB=%d", m.Capacity(100), m.Capacity(4096)); strings.Count(text.String(), "\n") != 1 || !strings.Contains(text.String(), want) {
		t.Errorf("logged %q, want %s", text.String(), want)
	}
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
	_, find := m.Find(t.Context(), c.Key)
	for _, err := range []error{claim, renew, finish, find, m.Delete(t.Context(), c.Key, 1)} {
		if !errors.Is(err, usher.ErrClosed) {
			t.Errorf("a closed Memory returns %v", err)
		}
	}
	calls := new(counting)
	wantFailure(t, do(newMiddleware(t, idempotency.Config{Store: m}).Wrap(calls), post("/", "")), 503, usher.CodeIdempotencyUnavailable)
	calls.want(t, 0)
}
