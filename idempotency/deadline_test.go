package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// An outer deadline ends the work even if the client is still connected.
func TestAnOuterDeadlineEndsTheWork(t *testing.T) {
	for name, limit := range map[string]func(http.Handler) http.Handler{
		"of http.TimeoutHandler": func(h http.Handler) http.Handler {
			return http.TimeoutHandler(h, 10*time.Millisecond, "too late")
		},
		"of a context": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithTimeout(r.Context(), 10*time.Millisecond)
				defer cancel()
				h.ServeHTTP(w, r.WithContext(ctx))
			})
		},
	} {
		for _, c := range endings {
			t.Run(name+": "+c.name, func(t *testing.T) {
				served := make(chan struct{})
				calls := new(counting)
				calls.next = func(w http.ResponseWriter, r *http.Request) {
					if calls.n.Load() > 1 {
						return
					}
					<-r.Context().Done()
					if err := r.Context().Err(); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the context ended with %v", err)
					}
					c.react(w, r)
				}
				once := asAlice(newMiddleware(t, idempotency.Config{}).Wrap(calls))
				limited := limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer close(served)
					once.ServeHTTP(w, r)
				}))
				first := true
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if first {
						first = false
						limited.ServeHTTP(w, r)
						return
					}
					once.ServeHTTP(w, r)
				}))
				t.Cleanup(s.Close)
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Idempotency-Key", "k")
				if resp, err := s.Client().Do(r); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				<-served
				wantRetried(t, s, calls, c.retry)
			})
		}
	}
}

// A profile may leave what it does not know to another one by the status that it gets.
func TestAMissedDeadlineIsNotRepeatedBecauseOfAProfile(t *testing.T) {
	for _, outside := range []bool{true, false} {
		for _, responds := range []bool{true, false} {
			t.Run(fmt.Sprintf("outside %v, responds %v", outside, responds), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					once := newMiddleware(t, idempotency.Config{Profile: func(status int) idempotency.Outcome {
						if status != 0 {
							t.Errorf("the status is %d, want 0", status)
						}
						return idempotency.ProfileDefault(status)
					}})
					deadline := usher.Deadline(time.Second, nil)
					chain := usher.Chain(once, deadline)
					if outside {
						chain = usher.Chain(deadline, once)
					}
					effects := &counting{next: func(w http.ResponseWriter, r *http.Request) {
						<-r.Context().Done()
						if responds {
							usher.Fail(w, r, r.Context().Err())
						}
					}}
					h := chain.Wrap(effects)
					do(h, post("/", `{}`, key("1")))
					do(h, post("/", `{}`, key("1")))
					effects.want(t, 1)
				})
			})
		}
	}
}

// The error of a Deadline has a status that profiles release, but the handler may have
// had its effect in time.
func TestAMissedDeadlineIsNotRepeated(t *testing.T) {
	deadlines := map[string]*usher.Error{
		"503": nil,
		"504": {Status: http.StatusGatewayTimeout, Code: "upstream_timeout"},
		"408": {Status: http.StatusRequestTimeout, Code: "too_slow"},
	}
	for name, e := range deadlines {
		for _, outside := range []bool{true, false} {
			for _, returns := range []string{"with the error", "with its cause", "with a 503 of its own", "without a response"} {
				for _, c := range []struct {
					name    string
					profile idempotency.Profile
					runs    int64
				}{
					{"default", idempotency.ProfileDefault, 1}, {"Stripe", idempotency.ProfileStripe, 1},
					{"only success", idempotency.ProfileKeepSuccess, 2}, {"none", nil, 1},
				} {
					t.Run(fmt.Sprintf("%s, outside %v, %s, profile %s", name, outside, returns, c.name), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							once, deadline := newMiddleware(t, idempotency.Config{Profile: c.profile}), usher.Deadline(time.Second, e)
							chain := usher.Chain(once, deadline)
							if outside {
								chain = usher.Chain(deadline, once)
							}
							effects := &counting{next: func(w http.ResponseWriter, r *http.Request) {
								<-r.Context().Done()
								switch returns {
								case "with the error":
									usher.Fail(w, r, fmt.Errorf("query: %w", r.Context().Err()))
								case "with its cause":
									usher.Fail(w, r, fmt.Errorf("query: %w", context.Cause(r.Context())))
								case "with a 503 of its own":
									usher.Fail(w, r, &usher.Error{Status: 503, Cause: r.Context().Err()})
								}
							}}
							h := chain.Wrap(effects)
							first := do(h, post("/", `{}`, key("1")))
							want := 503
							if e != nil && returns != "with a 503 of its own" {
								want = e.Status
							}
							if first.Code != want {
								t.Errorf("the client gets %d, want %d", first.Code, want)
							}
							do(h, post("/", `{}`, key("1")))
							effects.want(t, c.runs)
						})
					})
				}
			}
		}
	}
}
