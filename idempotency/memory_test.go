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
