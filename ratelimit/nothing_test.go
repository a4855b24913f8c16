package ratelimit_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// A response is a response that has been read.
type response struct {
	StatusCode int
	Header     http.Header
}

// get sends a request over a socket and returns the response and its body.
func get(t testing.TB, url string, header ...string) (response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res.StatusCode, res.Header}, string(body)
}

func TestALimitOfNothingAdmitsNothingOverASocket(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"a token bucket of 0":    ratelimit.TokenBucket(0, time.Minute, 5),
		"a rolling window of 0":  ratelimit.RollingWindow(0, time.Minute),
		"a calendar window of 0": ratelimit.CalendarWindow(0, ratelimit.Day),
		"Nothing":                ratelimit.Nothing(),
	} {
		t.Run(name, func(t *testing.T) {
			p := forAll("suspended", ratelimit.RollingWindow(5, time.Minute))
			p.LimitFor = func(r *http.Request) ratelimit.Limit {
				if r.Header.Get("Account") == "suspended" {
					return l
				}
				return ratelimit.Limit{}
			}
			s := httptest.NewServer(newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{p}, Headers: ratelimit.StandardAndDeltaHeaders,
			}).Wrap(ok))
			defer s.Close()
			for range 3 {
				res, body := get(t, s.URL, "Account", "suspended")
				if res.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, usher.CodeRateLimited) {
					t.Fatalf("status %d: %s", res.StatusCode, body)
				}
				if got := res.Header["Retry-After"]; got != nil {
					t.Errorf("Retry-After %q, though no wait helps", got)
				}
				if got := res.Header.Get("RateLimit-Policy"); !strings.HasPrefix(got, `"suspended";q=0`) {
					t.Errorf("RateLimit-Policy: %s", got)
				}
				if got := res.Header.Get("RateLimit"); got != `"suspended";r=0` {
					t.Errorf("RateLimit: %s", got)
				}
				if h := res.Header; h.Get("X-RateLimit-Limit") != "0" || h.Get("X-RateLimit-Remaining") != "0" || h["X-Ratelimit-Reset"] != nil {
					t.Errorf("fields %v", h)
				}
			}
			if res, _ := get(t, s.URL); res.StatusCode != http.StatusOK || res.Header.Get("X-RateLimit-Remaining") != "4" {
				t.Errorf("another account: %d, %v", res.StatusCode, res.Header)
			}
		})
	}
}

func TestAPlanOfNothing(t *testing.T) {
	for name, p := range map[string]ratelimit.Policy{
		"a quota": {Limit: ratelimit.RollingWindow(9, time.Hour), Plans: map[string]ratelimit.Limit{"none": ratelimit.TokenBucket(0, time.Hour, 0)}},
		"places":  {Limit: ratelimit.Concurrency(9), Plans: map[string]ratelimit.Limit{"none": ratelimit.Concurrency(0)}},
		"Nothing": {Limit: ratelimit.Concurrency(9), Plans: map[string]ratelimit.Limit{"none": ratelimit.Nothing()}},
	} {
		t.Run(name, func(t *testing.T) {
			p.Name, p.Key = "p", ratelimit.ByOwner()
			h := limiterOf(t, p, forAll("beside", ratelimit.RollingWindow(2, time.Hour))).Wrap(ok)
			wantCodes(t, codes(3, h, as(usher.Principal{ID: "k", Owner: "a", Plan: "none"})), 429, 429, 429)
			wantCodes(t, codes(3, h, as(usher.Principal{ID: "k", Owner: "b"})), 200, 200, 429)
		})
	}
	t.Run("another plan still admits", func(t *testing.T) {
		p := forAll("p", ratelimit.Nothing())
		p.Plans = map[string]ratelimit.Limit{"paid": ratelimit.RollingWindow(1, time.Hour)}
		h := limiterOf(t, p).Wrap(ok)
		wantCodes(t, codes(1, h), 429)
		wantCodes(t, codes(2, h, as(usher.Principal{ID: "k", Plan: "paid"})), 200, 429)
	})
	t.Run("a cost of 0 is nothing", func(t *testing.T) {
		p := forAll("p", ratelimit.Nothing())
		p.Cost = func(*http.Request) int { return 0 }
		wantCodes(t, codes(1, limiterOf(t, p).Wrap(ok)), 200)
	})
}

func TestUseIsKeptWhileTheLimitIsNothing(t *testing.T) {
	limit := ratelimit.RollingWindow(2, time.Hour)
	p := forAll("p", ratelimit.RollingWindow(2, time.Hour))
	p.LimitFor = func(*http.Request) ratelimit.Limit { return limit }
	h := limiterOf(t, p).Wrap(ok)
	wantCodes(t, codes(1, h), 200)
	limit = ratelimit.Nothing()
	wantCodes(t, codes(1, h), 429)
	limit = ratelimit.Limit{}
	wantCodes(t, codes(2, h), 200, 429)
}

func TestAnInvalidLimitRefuses(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"a negative quota":     ratelimit.RollingWindow(-5, time.Hour),
		"no period":            ratelimit.RollingWindow(5, 0),
		"an empty bucket":      ratelimit.TokenBucket(5, time.Hour, 0),
		"an unknown unit":      ratelimit.CalendarWindow(5, 99),
		"another kind of it":   ratelimit.Concurrency(5),
		"a quota out of range": ratelimit.RollingWindow(2e9, time.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			var reported []error
			p := forAll("p", ratelimit.RollingWindow(9, time.Hour))
			p.LimitFor = func(*http.Request) ratelimit.Limit { return l }
			beside := forAll("beside", ratelimit.RollingWindow(1, time.Hour))
			limiter := newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{beside, p},
				OnError:  func(_ context.Context, err error) { reported = append(reported, err) },
			})
			w := do(limiter.Wrap(ok))
			if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), usher.CodeRateLimitUnavailable) {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
			if len(reported) != 1 || !strings.Contains(reported[0].Error(), `"p"`) {
				t.Errorf("OnError was called with %v", reported)
			}
			l = ratelimit.Limit{}
			wantCodes(t, codes(2, limiter.Wrap(ok)), 200, 429) // the refused request used up nothing

			p.Shadow, l = true, ratelimit.RollingWindow(-5, time.Hour)
			wantCodes(t, codes(2, limiterOf(t, p).Wrap(ok)), 200, 200)
		})
	}
}
