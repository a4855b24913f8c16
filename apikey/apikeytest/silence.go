package apikeytest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
)

// eventually calls f until f returns no error, and fails the test if that takes too long.
func eventually(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	var err error
	for start := time.Now(); time.Since(start) < patience; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err = f(ctx)
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func testSilentWatch(t *testing.T, s Shared) {
	if s.Block == nil {
		t.Skip("without Block")
	}
	a, b := s.open(t), s.open(t)
	w := newWatch(t, notifier(t, a), nil)
	unblock := sync.OnceFunc(s.Block(t))
	defer unblock()
	// One second, and patience for a busy machine.
	select {
	case err := <-w.ended:
		if err == nil {
			t.Error("Watch returned without an error")
		}
	case <-time.After(patience):
		t.Fatal("Watch does not notice that the server is silent")
	}
	unblock()
	eventually(t, "Lookup after the silence", func(ctx context.Context) error {
		_, err := a.Lookup(ctx, newHash())
		if errors.Is(err, apikey.ErrNotFound) {
			return nil
		}
		return err
	})
	w = newWatch(t, notifier(t, a), nil)
	r := newRecord()
	eventually(t, "Insert after the silence", func(ctx context.Context) error { return b.Insert(ctx, r, apikey.Limits{}) })
	w.await("a change after the silence", r.Hash)
	w.end()
}

// An asked store counts its lookups.
type asked struct {
	apikey.Notifier
	lookups atomic.Int64
}

func (s *asked) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	s.lookups.Add(1)
	return s.Notifier.Lookup(ctx, h)
}

// testSilentCache tests a revocation that is made while no notices arrive.
func testSilentCache(t *testing.T, s Shared) {
	if s.Block == nil {
		t.Skip("without Block")
	}
	b := s.open(t)
	a := &asked{Notifier: notifier(t, s.open(t))}
	lost := make(chan struct{}, 1)
	cache, err := apikey.NewCache(apikey.CacheConfig{Store: a, TTL: time.Hour, OnError: func(context.Context, error) {
		select {
		case lost <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cache.Close() }()
	r := insert(t, b, newRecord())
	for range 3 {
		found, err := cache.Lookup(t.Context(), r.Hash)
		same(t, "Lookup", found, r, err)
	}
	unblock := sync.OnceFunc(s.Block(t))
	defer unblock()
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("the cache does not notice that the server is silent")
	}
	unblock()
	// The cache must keep the key again before it is revoked: one that does not yet would
	// not show whether the watch reports the revocation.
	eventually(t, "a cache keeps keys after the silence", func(ctx context.Context) error {
		before := a.lookups.Load()
		_, err := cache.Lookup(ctx, r.Hash)
		if err == nil && a.lookups.Load() != before {
			err = errors.New("the store is asked for a key that was just looked up")
		}
		return err
	})
	var revoked apikey.Record
	eventually(t, "Revoke after the silence", func(ctx context.Context) (err error) {
		revoked, err = b.Revoke(ctx, r.Owner, r.ID, now())
		return err
	})
	for range 20 {
		eventually(t, "Lookup of a revoked key", func(ctx context.Context) error {
			found, err := cache.Lookup(ctx, r.Hash)
			if err == nil && found.RevokedAt.IsZero() {
				err = errors.New("the cache has the key as it was")
			}
			if err == nil {
				same(t, "Lookup", found, revoked, nil)
			}
			return err
		})
		time.Sleep(10 * time.Millisecond)
	}
}
