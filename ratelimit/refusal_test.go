package ratelimit_test

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/ratelimit"
)

// The problem types and their member are those of the IETF draft.
func TestARefusalIsAProblemOfTheDraft(t *testing.T) {
	const quota = `{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,`
	down := &script{take: func(context.Context, *ratelimit.Decision) error { return usher.ErrUnavailable }}
	invalid := forAll("p", ratelimit.RollingWindow(1, time.Hour))
	invalid.LimitFor = func(*http.Request) ratelimit.Limit { return ratelimit.RollingWindow(1, -1) }
	for _, tt := range []struct {
		name   string
		config ratelimit.Config
		want   string // the body
	}{
		{
			"of the policy that is violated, and no other",
			ratelimit.Config{Policies: []ratelimit.Policy{
				forAll("ten", ratelimit.RollingWindow(10, time.Hour)), forAll("one", ratelimit.RollingWindow(1, time.Hour)),
			}},
			quota + `"detail":"Rate limit exceeded.","code":"rate_limited","violated-policies":["one"]}`,
		},
		{
			"of all policies that are violated, in the order of their names, but for shadow policies",
			ratelimit.Config{Policies: []ratelimit.Policy{
				forAll("second", ratelimit.RollingWindow(1, time.Hour)), forAll("first", ratelimit.RollingWindow(1, time.Minute)),
				{Name: "shadow", Key: ratelimit.Global(), Limit: ratelimit.Nothing(), Shadow: true},
			}},
			quota + `"detail":"Rate limit exceeded.","code":"rate_limited","violated-policies":["first","second"]}`,
		},
		{
			"that could not be decided, since the store is down",
			ratelimit.Config{
				Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
				Store:    down, OnStoreFailure: ratelimit.FailClosed, OnError: func(context.Context, error) {},
			},
			unavailable,
		},
		{
			"that could not be decided, since the limit is invalid",
			ratelimit.Config{Policies: []ratelimit.Policy{invalid}, OnError: func(context.Context, error) {}},
			unavailable,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newLimiter(t, tt.config).Wrap(ok)
			do(h)
			w := do(h)
			if diff := compare.Diff(tt.want, w.Body.String()); diff != "" {
				t.Error(diff)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type %q", got)
			}
		})
	}
}

const unavailable = `{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",` +
	`"title":"Service Unavailable","status":503,` +
	`"detail":"The request could not be checked against its limits. Please try again.","code":"rate_limit_unavailable"}`

func TestAnExhaustedBudgetIsAProblemOfTheDraft(t *testing.T) {
	p := forAll("budget", ratelimit.RollingWindow(10, time.Hour))
	p.Settle = true
	w := do(limiterOf(t, p).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		usher.Fail(w, r, ratelimit.Settle(r.Context(), "budget", 20))
	})))
	const want = `{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,` +
		`"detail":"Rate limit exceeded.","code":"rate_limited","violated-policies":["budget"]}`
	if diff := compare.Diff(want, w.Body.String()); diff != "" {
		t.Error(diff)
	}
}

// A refusal is that of a policy that refuses, of several the one with the longest wait, and
// of equal ones the first.
func TestTheRefusalIsThatOfTheWorstPolicy(t *testing.T) {
	none, place := ratelimit.Nothing(), ratelimit.Concurrency(1)
	minute, hour := ratelimit.RollingWindow(0, time.Minute), ratelimit.TokenBucket(1, time.Hour, 1)
	for _, c := range []struct {
		want   string
		limits map[string]ratelimit.Limit // by code, in the order of codes
	}{
		{"b", map[string]ratelimit.Limit{"a": ratelimit.RollingWindow(9, time.Hour), "b": place, "shadow": none}},
		{"b", map[string]ratelimit.Limit{"b": none, "c": none}},
		{"a", map[string]ratelimit.Limit{"a": hour, "b": place, "shadow": none}},
		{"b", map[string]ratelimit.Limit{"a": place, "b": hour, "shadow": none}},
		{"b", map[string]ratelimit.Limit{"a": ratelimit.RollingWindow(9, 24*time.Hour), "b": minute, "c": minute}},
	} {
		var policies []ratelimit.Policy
		for _, code := range slices.Sorted(maps.Keys(c.limits)) {
			p := forAll(code, c.limits[code])
			p.Code, p.Shadow = code, code == "shadow"
			policies = append(policies, p)
		}
		l := limiterOf(t, policies...)
		var second *httptest.ResponseRecorder
		w := do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { second = do(l.Wrap(ok)) })))
		if second != nil {
			w = second
		}
		if w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), `"code":"`+c.want+`"`) {
			t.Errorf("%v: %d %s, want the code %s", c.limits, w.Code, w.Body, c.want)
		}
	}
}
