package idempotency_test

import (
	"errors"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// The longest durations stand for "for ever" and "without a limit".
func TestDurationsOfAnyLength(t *testing.T) {
	longest := idempotency.Config{
		TTL: math.MaxInt64, Lease: math.MaxInt64, StoreTimeout: math.MaxInt64 / 4, FinishTimeout: math.MaxInt64,
		Wait: math.MaxInt64, MaxWaiters: math.MaxInt, BodyTimeout: math.MaxInt64, DisconnectTimeout: math.MaxInt64,
		ResolveTimeout: math.MaxInt64,
		Resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
			panic("nothing is unresolved")
		},
	}
	for name, c := range map[string]idempotency.Config{
		"a record that is kept forever": {TTL: math.MaxInt64},
		"all that is without a limit":   longest,
	} {
		for storeName, store := range map[string]idempotency.Store{"memory": newMemory(t, idempotency.MemoryConfig{}), "remote": newHookedStore(t)} {
			t.Run(name+"/"+storeName, func(t *testing.T) {
				c.Store = store
				calls := new(counting)
				h := newMiddleware(t, c).Wrap(calls)
				first := do(h, post("/", "x"))
				wantReplay(t, do(h, post("/", "x")), first)
				calls.want(t, 1)
			})
		}
	}
}

func TestALeaseIsNotComparedWithTheOverflowOfATimeout(t *testing.T) {
	_, err := idempotency.New(idempotency.Config{StoreTimeout: math.MaxInt64/2 + 1, Lease: time.Minute})
	if fault, ok := errors.AsType[*usher.ConfigError](err); !ok || fault.Field != "idempotency.Config.Lease" {
		t.Errorf("got %v", err)
	}
}
