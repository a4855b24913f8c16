package ratelimit

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A handler that was abandoned, by http.TimeoutHandler for instance, may be about
// to settle when its decision ends, which then serves another request.
func TestEndedDecisionSettlesNothing(t *testing.T) {
	l, err := New(Config{Policies: []Policy{{
		Name: "tokens", Key: Global(), Limit: RollingWindow(10, time.Hour), Settle: true,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	var h *pending
	l.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		h = pendingIn(r.Context())
		if done, err := h.settle("tokens", 3); !done || err != nil {
			t.Errorf("while the handler runs: %v, %v", done, err)
		}
	})).ServeHTTP(httptest.NewRecorder(), r)

	second := httptest.NewRecorder()
	l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if done, err := h.settle("tokens", 9); done || err != nil {
			t.Errorf("after it has returned: %v, %v", done, err)
		}
	})).ServeHTTP(second, r)
	third := httptest.NewRecorder()
	l.ServeNext(third, r, http.NotFoundHandler())
	if got, want := third.Header().Get("RateLimit"), `"tokens";r=5;t=3600`; got != want {
		t.Errorf("RateLimit is %s, want %s", got, want)
	}
}

// The abandoned handler may also be about to call an inner limiter.
func TestEndedDecisionSharesNothing(t *testing.T) {
	l, err := New(Config{Policies: []Policy{{Name: "p", Key: Global(), Limit: RollingWindow(10, time.Hour), Settle: true}}})
	if err != nil {
		t.Fatal(err)
	}
	var pd *pending
	var inner *http.Request
	l.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		pd, inner = pendingIn(r.Context()), r
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if !pd.asked(l.policies[0], inner) {
		t.Error("the request, which is charged, would be charged again")
	}
	if pendingIn(inner.Context()) != nil {
		t.Error("the request leads to a decision that is over")
	}
}
