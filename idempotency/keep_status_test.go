package idempotency_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// statusOnly means that a retry gets the status of the first response and nothing else.
const statusOnly = "gets the status"

// wantStatusOnly fails the test unless w replays a status alone.
func wantStatusOnly(t *testing.T, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	if w.Code != status || w.Body.Len() != 0 || w.Header().Get("Idempotency-Replayed") != "true" || len(w.Header()) != 1 {
		t.Errorf("got %d %q with %v, want %d alone, marked as a replay", w.Code, w.Body, w.Header(), status)
	}
}

// KeepStatus and Forget apply to responses of every kind.
func TestOutcomesWithoutAResponse(t *testing.T) {
	large := strings.Repeat("x", maxResponse+1)
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		status  int
		kept    string // what a retry gets after KeepStatus
		forgot  string // and after Forget
	}{
		{"a body", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/secret")
			w.WriteHeader(201)
			fmt.Fprint(w, "secret")
		}, 201, statusOnly, notKept},
		{"nothing written", func(http.ResponseWriter, *http.Request) {}, 200, statusOnly, notKept},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, 204, statusOnly, notKept},
		{"304", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, 304, statusOnly, notKept},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "secret", http.StatusUnprocessableEntity) }, 422, statusOnly, notKept},
		{"usher.Fail", func(w http.ResponseWriter, r *http.Request) {
			usher.Fail(w, r, &usher.Error{Status: 402, Code: "secret"})
		}, 402, statusOnly, notKept},
		{"an error that a profile releases", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, 503, statusOnly, notKept},
		{"too large to be stored", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, large) }, 200, statusOnly, notKept},
		{"too large and announced", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(large)))
			w.WriteHeader(201)
			fmt.Fprint(w, large)
		}, 201, statusOnly, notKept},
		{"a flush", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "secret")
			_ = http.NewResponseController(w).Flush()
			fmt.Fprint(w, "secret")
		}, 200, statusOnly, notKept},
		{"trailers", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "secret")
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		}, 200, statusOnly, notKept},
		{"a response that was cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "secret")
		}, 200, unknown, unknown},
		{"a panic", func(http.ResponseWriter, *http.Request) { panic("x") }, 0, unknown, unknown},
		{"a panic after a body that is collected", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "secret")
			panic("x")
		}, 0, unknown, unknown},
		{"a hijacked connection", func(w http.ResponseWriter, _ *http.Request) {
			_, _, _ = w.(http.Hijacker).Hijack()
		}, 200, notKept, notKept},
	} {
		for outcome, want := range map[idempotency.Outcome]string{idempotency.KeepStatus: c.kept, idempotency.Forget: c.forgot} {
			t.Run(fmt.Sprintf("%s, outcome %d", c.name, outcome), func(t *testing.T) {
				store := newHookedStore(t)
				store.set(func(s *hookedStore) {
					s.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
						if strings.Contains(string(c.Result.Payload), "secret") || strings.Contains(string(c.Result.Payload), "xx") {
							t.Errorf("%q is stored", c.Result.Payload)
						}
						return s.Store.Finish(ctx, c)
					}
				})
				calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
					idempotency.From(r.Context()).SetOutcome(outcome)
					c.handler(w, r)
				}}
				h := newMiddleware(t, idempotency.Config{Store: store, MaxResponse: maxResponse}).Wrap(calls)
				w := httptest.NewRecorder()
				func() {
					defer func() {
						if recover() != nil {
							w.Code = 0
						}
					}()
					h.ServeHTTP(hijackable{ResponseRecorder: w}, post("/", "body"))
				}()
				if w.Code != c.status {
					t.Errorf("the first client got %d, want %d", w.Code, c.status)
				}
				alone := httptest.NewRecorder()
				func() {
					defer func() { _ = recover() }()
					c.handler(hijackable{ResponseRecorder: alone}, post("/", "body"))
				}()
				if c.status != 0 && w.Body.String() != alone.Body.String() {
					t.Errorf("the first client got %q, want %q", w.Body, alone.Body)
				}
				if again := do(h, post("/", "body")); want == statusOnly {
					wantStatusOnly(t, again, c.status)
				} else {
					wantFailure(t, again, 409, want)
				}
				calls.want(t, 1)
			})
		}
	}
}

// An error that may only mean that time ran out is not certain to be final, and an outcome
// that this package does not have is no decision to rely on.
func TestOutcomesThatAreNotCertainAreUnknown(t *testing.T) {
	for _, outcome := range []idempotency.Outcome{idempotency.Keep, idempotency.KeepStatus, idempotency.Forget, 200} {
		t.Run(fmt.Sprint("an error after the time is over, outcome ", outcome), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 0)
			defer cancel()
			calls := &counting{next: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }}
			h := newMiddleware(t, idempotency.Config{Profile: func(int) idempotency.Outcome { return outcome }}).Wrap(calls)
			first := do(h, usher.WithPrincipal(post("/", "body").WithContext(ctx), alice))
			wantRetry(t, h, calls, first, unknown)
		})
	}
	t.Run("a 405 that a profile makes unknown", func(t *testing.T) {
		calls := &counting{next: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) }}
		h := newMiddleware(t, idempotency.Config{Profile: func(int) idempotency.Outcome { return idempotency.Unknown }}).Wrap(calls)
		wantRetry(t, h, calls, do(h, post("/", "body")), unknown)
	})
	for name, config := range map[string]idempotency.Config{
		"of a profile": {Profile: func(int) idempotency.Outcome { return 200 }},
		"of a handler": {},
	} {
		t.Run("an outcome that does not exist, "+name, func(t *testing.T) {
			calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
				if config.Profile == nil {
					idempotency.From(r.Context()).SetOutcome(200)
				}
				w.WriteHeader(201)
			}}
			h := newMiddleware(t, config).Wrap(calls)
			wantRetry(t, h, calls, do(h, post("/", "body")), unknown)
		})
	}
}

// A sender of events delivers an event again until it gets a success, and then has its
// status.
func TestADeliveryRunsAgainUntilItSucceeds(t *testing.T) {
	for _, status := range []int{200, 201, 202, 204} {
		for _, failure := range []int{0, 302, 400, 404, 409, 410, 422, 429, 499, 500, 502, 503} {
			t.Run(fmt.Sprint(failure, " and then ", status), func(t *testing.T) {
				calls := new(counting)
				calls.next = func(w http.ResponseWriter, _ *http.Request) {
					switch calls.n.Load() {
					case 1:
						if failure == 0 {
							panic("no response")
						}
						w.WriteHeader(failure)
					default:
						w.Header().Set("Content-Type", "application/json")
						w.WriteHeader(status)
						_, _ = fmt.Fprint(w, "{}")
					}
				}
				h := newMiddleware(t, idempotency.Config{Profile: idempotency.ProfileDeliveries}).Wrap(calls)
				do(h, post("/", "event"))
				if w := do(h, post("/", "event")); w.Code != status {
					t.Errorf("the second delivery got %d", w.Code)
				}
				for range 3 {
					wantStatusOnly(t, do(h, post("/", "event")), status)
				}
				calls.want(t, 2)
			})
		}
	}
}

// Within an envelope a status alone stays one, as from a handler that writes only that, with
// the request ID of its own request.
func TestAStatusAloneWithinAnEnvelope(t *testing.T) {
	env, err := envelope.New(envelope.Config{RequestID: fromHeader, Shape: envelope.Standard(), Wrap: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range responding {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // responses of one instant
				calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
					idempotency.From(r.Context()).SetOutcome(idempotency.KeepStatus)
					c.handler(w, r)
				}}
				h := env.Wrap(newMiddleware(t, idempotency.Config{}).Wrap(calls))
				if w := do(h, post("/", "", requestID("first"))); w.Code != c.status || w.Body.Len() == 0 {
					t.Errorf("the first request got %d %s", w.Code, w.Body)
				}
				w := do(h, post("/", "", requestID("second")))
				alone := do(env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(c.status) })), post("/", "", requestID("second")))
				if w.Code != c.status || w.Body.String() != alone.Body.String() || w.Header().Get("Idempotency-Replayed") != "true" {
					t.Errorf("the retry got %d %q, want %d %q", w.Code, w.Body, alone.Code, alone.Body)
				}
				if w.Header().Get("Location") != "" || w.Header().Get("X-Request-Id") != "second" {
					t.Errorf("the retry got %v", w.Header())
				}
				calls.want(t, 1)
			})
		})
	}
}
