package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/guard"
)

// A Profile that panics after the work neither frees the key nor leaves it to the
// lease, and the first client gets its response.
func TestAProfileThatPanicsMeansUnknown(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		first   bool // the first client gets a response
		retry   string
	}{
		{"after a response", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }, true, unknown},
		{"after an error that would be released", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}, true, unknown},
		{"at a flush", func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() }, true, unknown},
		{"at a response that is too large", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Repeat("x", maxResponse+1))
		}, true, unknown},
		{"after a panic of the handler", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, unknown},
		{"after SetOutcome, which comes first", func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Keep)
			w.WriteHeader(http.StatusCreated)
		}, true, replays},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var reported []error
			m := newMiddleware(t, idempotency.Config{
				MaxResponse: maxResponse,
				Profile:     func(int) idempotency.Outcome { panic("bug") },
				OnError: func(_ context.Context, err error) {
					mu.Lock()
					defer mu.Unlock()
					reported = append(reported, err)
				},
			})
			calls := &counting{next: c.handler}
			s := httptest.NewServer(asAlice(m.Wrap(calls)))
			t.Cleanup(s.Close)
			r := request(t, s.URL, "k", body("body"))
			resp, err := s.Client().Do(r)
			if err == nil {
				_ = resp.Body.Close()
			}
			if (err == nil) != c.first {
				t.Errorf("the first client has %v", err)
			}
			wantRetried(t, s, calls, c.retry)
			mu.Lock()
			defer mu.Unlock()
			if c.retry == replays {
				if len(reported) != 0 {
					t.Errorf("OnError got %v", reported)
				}
				return
			}
			if len(reported) == 0 {
				t.Fatal("OnError was not called")
			}
			if p, ok := errors.AsType[*guard.PanicError](reported[0]); !ok || p.Value != "bug" {
				t.Errorf("OnError got %v", reported)
			}
		})
	}
}

// The same holds for a Profile that ends its goroutine.
func TestAProfileThatDoesNotReturnMeansUnknown(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{
		Profile: func(int) idempotency.Outcome { runtime.Goexit(); return idempotency.Release },
	}).Wrap(calls)
	var wg sync.WaitGroup
	wg.Go(func() { do(h, post("/", "")) })
	wg.Wait()
	wantFailure(t, do(h, post("/", "")), 409, unknown)
	calls.want(t, 1)
}

// An outer writer that panics when the response is sent changes nothing.
func TestAWriterThatPanicsChangesNothing(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	func() {
		defer func() { _ = recover() }()
		h.ServeHTTP(panicking{httptest.NewRecorder()}, post("/", ""))
	}()
	if w := do(h, post("/", "")); w.Code != 201 || w.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("the retry got %d %s", w.Code, w.Body)
	}
	calls.want(t, 1)
}

type panicking struct{ *httptest.ResponseRecorder }

func (panicking) Write([]byte) (int, error) { panic("writer") }

// logged redirects the default logger for a test.
func logged(t *testing.T) *bytes.Buffer {
	var b bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return &b
}

// An OnError that panics ends neither the process nor the request, whichever
// goroutine it is called on.
func TestAnOnErrorThatPanicsIsHarmless(t *testing.T) {
	for _, c := range []struct {
		name   string
		fail   func(*hookedStore)
		status int
		retry  string
	}{
		{"when the key cannot be claimed", func(f *hookedStore) {
			f.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
				return idempotency.Record{}, errDown
			}
		}, 503, ""},
		{"when a record cannot be read", func(f *hookedStore) {
			f.claim = func(_ context.Context, c idempotency.Claim) (idempotency.Record, error) {
				return idempotency.Record{State: idempotency.StateDone, Fingerprint: c.Fingerprint}, nil
			}
		}, 500, ""},
		{"when the result cannot be stored", func(f *hookedStore) {
			f.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) {
				f.set(func(f *hookedStore) { f.finish = nil })
				return 0, errDown
			}
		}, 201, replays},
		{"when the claim is lost, on the heartbeat's goroutine", func(f *hookedStore) {
			f.renew = func(context.Context) error { return idempotency.ErrLost }
		}, 201, replays},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := logged(t)
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				c.fail(store)
				calls := &counting{next: func(w http.ResponseWriter, _ *http.Request) {
					time.Sleep(lease)
					w.WriteHeader(http.StatusCreated)
				}}
				h := newMiddleware(t, idempotency.Config{
					Store: store, FinishTimeout: time.Nanosecond, OnError: func(context.Context, error) { panic("secret") },
				}).Wrap(calls)
				first := do(h, post("/", "body"))
				if first.Code != c.status {
					t.Errorf("the first client got %d %s", first.Code, first.Body)
				}
				time.Sleep(lease)
				if c.retry != "" {
					wantRetry(t, h, calls, first, c.retry)
				}
			})
			if n := strings.Count(log.String(), "OnError panicked"); n != 1 || strings.Contains(log.String(), "secret") {
				t.Errorf("logged %d times: %s", n, log)
			}
		})
	}
}

// A callback that panics before the key is claimed aborts the request as in any handler,
// and leaves nothing behind.
func TestACallbackThatPanicsBeforeTheClaimLeavesNothing(t *testing.T) {
	for name, config := range map[string]func(bug func()) idempotency.Config{
		"Owner": func(bug func()) idempotency.Config {
			return idempotency.Config{Owner: func(*http.Request) (string, bool) { bug(); return "a", true }}
		},
		"Route": func(bug func()) idempotency.Config {
			return idempotency.Config{Route: func(*http.Request) string { bug(); return "a" }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var called atomic.Bool
			c := config(func() {
				if !called.Swap(true) {
					panic(http.ErrAbortHandler)
				}
			})
			store := newMemory(t, idempotency.MemoryConfig{})
			c.Store = store
			m := newMiddleware(t, c)
			calls := new(counting)
			s := httptest.NewServer(asAlice(m.Wrap(calls)))
			t.Cleanup(s.Close)
			// The transport would resend a request whose connection has been used before.
			if resp, err := s.Client().Do(request(t, s.URL, "k")); err == nil {
				_ = resp.Body.Close()
				t.Errorf("the request got %d", resp.StatusCode)
			}
			if store.Len() != 0 || m.Leases() != 0 {
				t.Errorf("%d records and %d leases are left", store.Len(), m.Leases())
			}
			if got := roundTrip(t, s, request(t, s.URL, "k")); got.status != 201 || got.replayed() {
				t.Errorf("the retry got %d %s", got.status, got.text)
			}
			calls.want(t, 1)
		})
	}
}
