package idempotency_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A Middleware inside another with the same store would wait for itself.
func TestNestedMiddlewaresWithOneStoreClaimTheKeyOnce(t *testing.T) {
	for name, inner := range map[string]func(*idempotency.Middleware, idempotency.Config) *idempotency.Middleware{
		"another one": func(_ *idempotency.Middleware, c idempotency.Config) *idempotency.Middleware {
			return newMiddleware(t, c)
		},
		"the same one":     func(m *idempotency.Middleware, _ idempotency.Config) *idempotency.Middleware { return m },
		"its Require":      func(m *idempotency.Middleware, _ idempotency.Config) *idempotency.Middleware { return m.Require() },
		"with a principal": nil,
	} {
		t.Run(name, func(t *testing.T) {
			c := idempotency.Config{Store: newMemory(t, idempotency.MemoryConfig{}), Wait: idempotency.NoWait}
			outer := newMiddleware(t, c)
			calls := new(counting)
			var h http.Handler
			if inner == nil { // a request that a middleware between them copies
				h = outer.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					outer.Wrap(calls).ServeHTTP(w, usher.WithPrincipal(r, alice))
				}))
			} else {
				h = outer.Wrap(copying(inner(outer, c).Wrap(calls)))
			}
			first := do(h, post("/", "a"))
			if first.Code != 201 || first.Header().Get("Idempotency-Replayed") != "" {
				t.Errorf("got %d %s", first.Code, first.Body)
			}
			wantReplay(t, do(h, post("/", "a")), first)
			calls.want(t, 1)
		})
	}
}

// An Execution belongs to its handler. What runs later in the same request has none, and a
// second request in the place of the first gets its own.
func TestAnExecutionEndsWithItsHandler(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"that has responded": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) },
		"that was refused":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"that has flushed":   func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() },
		"that has panicked":  func(http.ResponseWriter, *http.Request) { panic("x") },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{})
			var during, after *idempotency.Execution
			var keys []string
			inner := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				during = idempotency.From(r.Context())
				keys = append(keys, during.DownstreamKey(""))
				handler(w, r)
			}))
			do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for i := range 2 {
					r.Header.Set("Idempotency-Key", fmt.Sprint("k", i))
					func() {
						defer func() { _ = recover() }()
						inner.ServeHTTP(w, r)
					}()
					if after = idempotency.From(r.Context()); after != nil {
						t.Error("there is an Execution after its handler has returned")
					}
				}
			}), post("/", ""))
			if during == nil || len(keys) != 2 || keys[0] == keys[1] {
				t.Errorf("the handlers got %q", keys)
			}
		})
	}
}

// A caller with too many keys is not a store that fails: it would get rid of the protection
// at will.
func TestAFullOwnerDoesNotFailOpen(t *testing.T) {
	for _, open := range []bool{true, false} {
		for name, err := range map[string]error{
			"plain":          idempotency.ErrOwnerFull,
			"wrapped":        fmt.Errorf("store: %w", idempotency.ErrOwnerFull),
			"with its delay": &idempotency.FullError{Err: idempotency.ErrOwnerFull, RetryAfter: 1},
		} {
			t.Run(fmt.Sprintf("%s, fails open %v", name, open), func(t *testing.T) {
				store := newHookedStore(t)
				store.set(claimFails(err))
				calls := new(counting)
				h := newMiddleware(t, idempotency.Config{
					Store: store, DangerouslyFailOpen: open, OnError: func(context.Context, error) {},
				}).Wrap(calls)
				w := do(h, post("/", ""))
				wantFailure(t, w, 429, usher.CodeIdempotencyTooManyKeys)
				if w.Header().Get("Idempotency-Status") != "" {
					t.Errorf("the response says that the key was %s", w.Header().Get("Idempotency-Status"))
				}
				calls.want(t, 0)
			})
		}
	}
}
