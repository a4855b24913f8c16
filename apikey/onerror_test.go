package apikey_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/apikey"
)

// A brokenWatch is a Notifier whose first watch ends.
type brokenWatch struct {
	apikey.Store
	watches atomic.Int64
}

func (w *brokenWatch) Watch(ctx context.Context, ready func(), _ func(apikey.Hash)) error {
	ready()
	if w.watches.Add(1) == 1 {
		return errors.New("the connection is lost")
	}
	<-ctx.Done()
	return ctx.Err()
}

// An OnError that hangs does not end the watch: the cache keeps keys again.
func TestAnOnErrorThatHangsDelaysNoWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		store := &brokenWatch{Store: apikey.NewMemory()}
		newCache(t, apikey.CacheConfig{Store: store, OnError: func(context.Context, error) { <-hang }})
		time.Sleep(time.Hour)
		if n := store.watches.Load(); n != 2 {
			t.Errorf("%d watches in an hour, want another one after the first has ended", n)
		}
	})
}
