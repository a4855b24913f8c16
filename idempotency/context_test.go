package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// endings are what handlers do once their context has ended, and what a retry then gets.
// How much was done by then is uncertain.
var endings = []struct {
	name  string
	react func(w http.ResponseWriter, r *http.Request)
	retry string
}{

	{"returns silently", func(http.ResponseWriter, *http.Request) {}, unknown},
	{"fails with the cause", func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, r.Context().Err()) }, unknown},
	{"writes 500", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "canceled", http.StatusInternalServerError)
	}, unknown},
	{"writes 504", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "canceled", http.StatusGatewayTimeout) }, unknown},
	{"writes 499", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(499) }, unknown},
	{"writes 400", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "canceled", http.StatusBadRequest) }, unknown},
	{"aborts", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unknown},
	{"writes 408", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "canceled", http.StatusRequestTimeout) }, runs},
	{"writes 503", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "canceled", http.StatusServiceUnavailable) }, runs},
	{"has done its work", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) }, replays},
}

// enveloping are the stacks in which handlers end.
var enveloping = []struct {
	name string
	wrap func(t *testing.T, h http.Handler) http.Handler
}{

	{"", func(_ *testing.T, h http.Handler) http.Handler { return h }},
	{" within an envelope", func(t *testing.T, h http.Handler) http.Handler {
		t.Helper()
		env, err := envelope.New(envelope.Config{
			Shape: envelope.Problem(""), Wrap: true, // a shape that shows the code
			OnError: func(context.Context, error) {}, OnPanic: func(*http.Request, any, []byte) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		return env.Wrap(h)
	}},
}

// hangUp posts with the key k and disconnects once entered is closed. It returns when the
// server has served the request.
func hangUp(t *testing.T, s *httptest.Server, entered, served <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "k")
	go func() {
		<-entered
		cancel()
	}()
	if resp, err := s.Client().Do(r); err == nil {
		_ = resp.Body.Close()
		t.Fatal("the client has got a response")
	}
	<-served
}

// firstOf wraps h. It closes gone when the client of the first request has disconnected,
// and served when that request has been served.
func firstOf(h http.Handler, gone, served chan struct{}) http.Handler {
	first := true
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			context.AfterFunc(r.Context(), func() { close(gone) })
			defer close(served)
		}
		h.ServeHTTP(w, r)
	})
}

// A client that times out and retries gets the response of the work that its first request
// began, whatever the handler does when its context ends.
func TestTheRetryOfAClientThatTimedOutGetsTheRealResponse(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		for _, stack := range enveloping {
			for _, c := range endings {
				t.Run(c.name+stack.name, func(t *testing.T) {
					entered, gone, served := make(chan struct{}), make(chan struct{}), make(chan struct{})
					calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
						close(entered)
						<-gone
						ctx, cancel := context.WithTimeout(r.Context(), time.Hour) // of a query for instance
						defer cancel()
						if ctx.Err() != nil {
							c.react(w, r)
							return
						}
						w.WriteHeader(http.StatusCreated)
						fmt.Fprint(w, "paid")
					}}
					h := stack.wrap(t, asAlice(newMiddleware(t, idempotency.Config{}).Wrap(calls)))
					s := serve(firstOf(h, gone, served))
					hangUp(t, s, entered, served)
					got := send(t, s, "k", strings.NewReader("body"))
					if got.status != 201 || !strings.Contains(got.text, "paid") || !got.replayed() {
						t.Errorf("the retry got %d %q, replayed %v; want the first response", got.status, got.text, got.replayed())
					}
					calls.want(t, 1)
				})
			}
		}
	})
}

// wantRetried sends the request again and fails unless it gets want.
func wantRetried(t *testing.T, s *httptest.Server, calls *counting, want string) {
	t.Helper()
	got := send(t, s, "k", strings.NewReader("body"))
	switch want {
	case runs:
		calls.want(t, 2)
		return
	case replays:
		if !got.replayed() {
			t.Errorf("the retry got %d %q, want a replay", got.status, got.text)
		}
	default:
		if got.status != 409 || !strings.Contains(got.text, want) {
			t.Errorf("the retry got %d %q, want %s", got.status, got.text, want)
		}
	}
	calls.want(t, 1)
}

// Work that goes on for too long after its client has disconnected is ended, and its
// outcome is unknown.
func TestWorkOutlivesItsClientForABoundedTime(t *testing.T) {
	for _, stack := range enveloping {
		for _, c := range endings {
			t.Run(c.name+stack.name, func(t *testing.T) {
				entered, gone, served := make(chan struct{}), make(chan struct{}), make(chan struct{})
				calls := new(counting)
				calls.next = func(w http.ResponseWriter, r *http.Request) {
					if calls.n.Load() > 1 {
						return
					}
					close(entered)
					<-r.Context().Done()
					if cause := context.Cause(r.Context()); !errors.Is(cause, idempotency.ErrDisconnected) {
						t.Errorf("the cause is %v", cause)
					}
					if !isClosed(gone) {
						t.Error("the client is still there")
					}
					c.react(w, r)
				}
				m := newMiddleware(t, idempotency.Config{DisconnectTimeout: time.Millisecond})
				s := httptest.NewServer(firstOf(stack.wrap(t, asAlice(m.Wrap(calls))), gone, served))
				t.Cleanup(s.Close)
				hangUp(t, s, entered, served)
				wantRetried(t, s, calls, c.retry)
			})
		}
	}
}

// A stream is not stored, so it ends with its client.
func TestAStreamEndsWithItsClient(t *testing.T) {
	entered, gone, served := make(chan struct{}), make(chan struct{}), make(chan struct{})
	calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		close(entered)
		<-r.Context().Done()
		if cause := context.Cause(r.Context()); !errors.Is(cause, context.Canceled) {
			t.Errorf("the cause is %v", cause)
		}
	}}
	m := newMiddleware(t, idempotency.Config{DisconnectTimeout: 24 * time.Hour})
	s := httptest.NewServer(firstOf(asAlice(m.Wrap(calls)), gone, served))
	t.Cleanup(s.Close)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "k")
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	cancel()
	_ = resp.Body.Close()
	<-served
	wantRetried(t, s, calls, notKept)
}

type valueKey struct{}

// The context of a request, as its handler sees it.
func TestTheContextOfARequestWithAKey(t *testing.T) {
	for _, c := range []struct {
		name string
		// look runs in the handler; leave disconnects the client.
		look func(t *testing.T, ctx context.Context, leave func())
		// deadline is the outer deadline of the request, if any.
		deadline time.Duration
	}{
		{name: "has the values of the request, even after the client has disconnected", look: func(t *testing.T, ctx context.Context, leave func()) {
			for range 2 {
				if ctx.Value(valueKey{}) != "value" || idempotency.From(ctx) == nil {
					t.Error("a value is lost")
				}
				if p, ok := usher.PrincipalFrom(ctx); !ok || p.ID != "alice" {
					t.Error("the principal is lost")
				}
				leave()
			}
		}},
		{name: "ends 60 seconds after the client has disconnected", look: func(t *testing.T, ctx context.Context, leave func()) {
			done := ctx.Done()
			time.Sleep(time.Hour)
			leave()
			left := time.Now()
			<-done
			if d := time.Since(left); d != 60*time.Second {
				t.Errorf("the context ended after %v", d)
			}
			if !errors.Is(ctx.Err(), context.Canceled) || !errors.Is(context.Cause(ctx), idempotency.ErrDisconnected) {
				t.Errorf("with %v, %v", ctx.Err(), context.Cause(ctx))
			}
		}},
		{name: "ends so even if nothing waited for it", look: func(t *testing.T, ctx context.Context, leave func()) {
			leave()
			if ctx.Err() != nil || context.Cause(ctx) != nil {
				t.Errorf("the context has already ended with %v, %v", ctx.Err(), context.Cause(ctx))
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if !errors.Is(context.Cause(ctx), idempotency.ErrDisconnected) {
				t.Errorf("the cause is %v", context.Cause(ctx))
			}
		}},
		{name: "passes its cause on", look: func(t *testing.T, ctx context.Context, leave func()) {
			child, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			leave()
			<-child.Done()
			if !errors.Is(context.Cause(child), idempotency.ErrDisconnected) {
				t.Errorf("the cause is %v", context.Cause(child))
			}
		}},
		{name: "ends by an outer deadline", deadline: time.Second, look: func(t *testing.T, ctx context.Context, _ func()) {
			began := time.Now()
			if at, ok := ctx.Deadline(); !ok || at.Sub(began) != time.Second {
				t.Errorf("the deadline is %v, %v", at, ok)
			}
			<-ctx.Done()
			if time.Since(began) != time.Second || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Errorf("the context ended after %v with %v", time.Since(began), ctx.Err())
			}
		}},
		{name: "ends by a deadline that comes after the client has disconnected", deadline: time.Second, look: func(t *testing.T, ctx context.Context, leave func()) {
			began := time.Now()
			leave()
			<-ctx.Done()
			if time.Since(began) != time.Second || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Errorf("the context ended after %v with %v", time.Since(began), ctx.Err())
			}
		}},
		{name: "costs no goroutine while the client is there", look: func(t *testing.T, ctx context.Context, _ func()) {
			before := runtime.NumGoroutine()
			for range 10 {
				child, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				defer context.AfterFunc(child, func() {})()
			}
			if n := runtime.NumGoroutine(); n >= before+10 {
				t.Errorf("%d goroutines more", n-before)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := post("/", "")
				ctx := context.WithValue(r.Context(), valueKey{}, "value")
				ctx, leave := context.WithCancel(ctx)
				defer leave()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				var late context.Context
				h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					late = r.Context()
					c.look(t, r.Context(), leave)
				}))
				do(h, r.WithContext(ctx))
				if late.Err() == nil {
					t.Error("the context goes on after the handler has returned")
				}
			})
		})
	}
	t.Run("ends with the handler for a goroutine that is left behind", func(t *testing.T) {
		for _, looked := range []bool{false, true} {
			var late context.Context
			h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if late = r.Context(); looked && isClosed(late.Done()) {
					t.Error("the context ended before the handler")
				}
			}))
			do(h, post("/", ""))
			<-late.Done()
			if !errors.Is(late.Err(), context.Canceled) || !errors.Is(context.Cause(late), context.Canceled) {
				t.Errorf("the context ended with %v, %v", late.Err(), context.Cause(late))
			}
		}
	})
}

// A response that the handler did not write is not stored once the client has
// disconnected, even if the handler noticed that by other means than its context.
func TestAResponseThatWasNeverWrittenIsNotStored(t *testing.T) {
	for _, c := range []struct {
		name    string
		profile idempotency.Profile
		mark    idempotency.Outcome
		want    string
	}{
		{"by default", idempotency.ProfileDefault, 0, unknown},
		{"by Stripe's profile", idempotency.ProfileStripe, 0, unknown},
		{"where the handler has marked it final", idempotency.ProfileDefault, idempotency.Keep, unknown},
		{"where the handler had no effect", idempotency.ProfileDefault, idempotency.Release, runs},
		{"where errors roll back", idempotency.ProfileReleaseServerErrors, 0, runs},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			calls := &counting{next: func(_ http.ResponseWriter, r *http.Request) {
				idempotency.From(r.Context()).SetOutcome(c.mark)
				leave()
			}}
			h := newMiddleware(t, idempotency.Config{Profile: c.profile}).Wrap(calls)
			r := post("/", "body")
			first := do(h, usher.WithPrincipal(r.WithContext(ctx), alice))
			wantRetry(t, h, calls, first, c.want)
		})
	}
}
