package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/loader"
)

// What is kept of the results of Config.PlanOf and Policy.LimitOf. Their documentation
// names these numbers.
const (
	ownerCapacity = 10_000
	ownerTTL      = 10 * time.Second
	ownerStale    = time.Hour   // how old a result may get while refreshes fail
	ownerRetry    = time.Second // the pause between attempts to refresh it
	ownerTimeout  = time.Second
)

// An ownerCache keeps what a function returns for each account: its plan, or its limit.
// Requests of one account share a call.
type ownerCache[V any] struct {
	name   string
	source func(ctx context.Context, owner string) (V, error)
	cache  *loader.Cache[string, owned[V]]
}

// An owned value is a result of the function.
type owned[V any] struct {
	value V
	since time.Time
	ttl   time.Duration
}

// newOwnerCache returns a cache for the function with this name. Failed is called when an
// old result is used because the function has failed.
func newOwnerCache[V any](
	name string, source func(context.Context, string) (V, error), failed func(context.Context, error),
) *ownerCache[V] {
	c := &ownerCache[V]{name: name, source: source}
	c.cache = loader.New[string](loader.Config[owned[V]]{
		Lifetime: func(v owned[V]) (time.Duration, bool) { return v.ttl, false },
		Capacity: ownerCapacity, Timeout: ownerTimeout, MaxFetches: maxCalls,
		// An error that concerns one account must not stop the calls for all others.
		IsResult: func(err error) bool {
			return !errors.Is(err, usher.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded)
		},
		Stale: func(ctx context.Context, last owned[V], err error) (owned[V], error) {
			if time.Since(last.since) >= ownerStale {
				return last, err
			}
			failed(ctx, c.failure(err))
			last.ttl = ownerRetry
			return last, nil
		},
	})
	return c
}

// of returns the value of an account. It allocates nothing if that is kept.
func (c *ownerCache[V]) of(ctx context.Context, owner string) (V, error) {
	if v, ok := c.cache.Cached(owner, time.Now()); ok {
		return v.value, nil
	}
	v, err := c.cache.Load(ctx, owner, func(ctx context.Context) (owned[V], error) {
		since := time.Now()
		value, err := c.source(ctx, owner)
		return owned[V]{value, since, ownerTTL}, err
	})
	if err != nil {
		return v.value, c.failure(err)
	}
	return v.value, nil
}

func (c *ownerCache[V]) failure(err error) error { return fmt.Errorf("ratelimit: %s: %w", c.name, err) }
