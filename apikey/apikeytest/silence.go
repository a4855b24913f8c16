package apikeytest

import (
	"context"
	"errors"
	"sync"
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

// testSilentCache tests a revocation that is made while no notices arrive.
func testSilentCache(t *testing.T, s Shared) {
	if s.Block == nil {
		t.Skip("without Block")
	}
	a, b := s.open(t), s.open(t)
	lost := make(chan struct{}, 1)
	cache, err := apikey.NewCache(apikey.CacheConfig{Store: notifier(t, a), TTL: time.Hour, OnError: func(context.Context, error) {
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
	// A client uses the key all the time, so that the cache keeps it as soon as the watch is
	// ready again, which is usually before the revocation.
	stop := make(chan struct{})
	var client sync.WaitGroup
	client.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_, _ = cache.Lookup(t.Context(), r.Hash)
			}
		}
	})
	defer client.Wait()
	defer close(stop)
	time.Sleep(300 * time.Millisecond)
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
