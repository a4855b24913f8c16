package ratelimit_test

import (
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/usher-go/usher/ratelimit"
)

// FuzzHeaders reads the fields with an independent parser of structured fields
// (RFC 9651).
func FuzzHeaders(f *testing.F) {
	f.Add("p", "q", int64(100), int64(60e9), int64(3), uint8(0), "")
	f.Add("A.b-c_9", "x", int64(1), int64(1), int64(1), uint8(1), "content-bytes")
	f.Add("burst", "daily", int64(1e9), int64(math.MaxInt64), int64(1e9), uint8(2), `a "unit" of \ its own`)
	f.Add("a", "b", int64(5), int64(1500*time.Millisecond), int64(2), uint8(3), "tokens")
	f.Fuzz(func(t *testing.T, name, other string, quota, per, burst int64, algorithm uint8, unit string) {
		limits := []ratelimit.Limit{
			ratelimit.TokenBucket(int(quota), time.Duration(per), int(burst)),
			ratelimit.RollingWindow(int(quota), time.Duration(per)),
			ratelimit.CalendarWindow(int(quota), ratelimit.Unit(1+uint64(per)%6)),
			ratelimit.Concurrency(int(quota)),
		}
		policies := []ratelimit.Policy{
			{Name: name, Key: ratelimit.Global(), Limit: limits[algorithm%4]},
			{Name: other, Key: ratelimit.Global(), Limit: limits[(algorithm+1)%4]},
		}
		units := []any{"concurrent-requests", "concurrent-requests"}
		for i := range policies {
			if p := &policies[i]; p.Limit.Algorithm() != ratelimit.AlgorithmConcurrency {
				p.Unit = unit
				units[i] = unit
			}
		}
		l, err := ratelimit.New(ratelimit.Config{Policies: policies})
		if err != nil {
			return
		}
		h := l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for range 3 {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			policies := items(t, w.Header(), "RateLimit-Policy")
			states := items(t, w.Header(), "RateLimit")
			if len(policies) != 2 || len(states) != 2 {
				t.Fatalf("%d policies and %d states: %v", len(policies), len(states), w.Header())
			}
			for i, want := range []string{name, other} {
				if policies[i].Value != want || states[i].Value != want {
					t.Errorf("item %d: %v and %v, want %q", i, policies[i].Value, states[i].Value, want)
				}
				atLeast(t, policies[i], "q", 0, true)
				atLeast(t, policies[i], "w", 1, false)
				atLeast(t, policies[i], "usher-burst", 1, false)
				if got, found := policies[i].Params.Get("qu"); found != (units[i] != "") || found && got != units[i] {
					t.Errorf("%v: qu = %v, want %q", policies[i].Value, got, units[i])
				}
				atLeast(t, states[i], "r", 0, true)
				atLeast(t, states[i], "t", 0, false)
			}
		}
	})
}

func items(t *testing.T, h http.Header, name string) []httpsfv.Item {
	t.Helper()
	list, err := httpsfv.UnmarshalList(h.Values(name))
	if err != nil {
		t.Fatalf("%s: %q: %v", name, h.Values(name), err)
	}
	var all []httpsfv.Item
	for _, m := range list {
		all = append(all, m.(httpsfv.Item))
	}
	return all
}

func atLeast(t *testing.T, item httpsfv.Item, param string, least int64, required bool) {
	t.Helper()
	v, found := item.Params.Get(param)
	if n, isInt := v.(int64); found && (!isInt || n < least) || !found && required {
		t.Errorf("%v: parameter %s = %v", item.Value, param, v)
	}
}
