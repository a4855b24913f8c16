package ratelimit_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// errorsOf collects the errors that OnError is called with.
type errorsOf struct {
	mu   sync.Mutex
	errs []error
}

func (e *errorsOf) add(_ context.Context, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.errs = append(e.errs, err)
}

func (e *errorsOf) all() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.errs)
}

func TestACountThatPanicsLeaksNoPlaceOverASocket(t *testing.T) {
	for name, order := range map[string]func(a, b ratelimit.Policy) []ratelimit.Policy{
		"after the places":  func(a, b ratelimit.Policy) []ratelimit.Policy { return []ratelimit.Policy{a, b} },
		"before the places": func(a, b ratelimit.Policy) []ratelimit.Policy { return []ratelimit.Policy{b, a} },
	} {
		t.Run(name, func(t *testing.T) {
			counted := forAll("counted", ratelimit.RollingWindow(3, time.Hour))
			counted.Count = func(status int) bool {
				if status == http.StatusTeapot {
					panic("secret")
				}
				return false
			}
			var reported errorsOf
			s := httptest.NewServer(newLimiter(t, ratelimit.Config{
				Policies: order(forAll("places", ratelimit.Concurrency(1)), counted),
				OnError:  reported.add,
			}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Panic") != "" {
					w.WriteHeader(http.StatusTeapot)
				}
			})))
			defer s.Close()
			var got []int
			for _, header := range []string{"", "yes", "", ""} {
				res, _ := get(t, s.URL, "Panic", header)
				got = append(got, res.StatusCode)
			}
			wantCodes(t, got, 200, 418, 200, 200)
			res, _ := get(t, s.URL)
			if h := res.Header.Get("RateLimit"); !strings.Contains(h, `"counted";r=1;`) {
				t.Errorf("RateLimit %s, want the response of which Count panicked to be charged and no other", h)
			}
			if errs := reported.all(); len(errs) != 1 || !strings.Contains(errs[0].Error(), `Count of policy "counted"`) {
				t.Errorf("OnError was called with %v", errs)
			}
		})
	}
}

// Whenever a callback panics or ends its goroutine, no place leaks, and what was charged
// stays charged.
func TestCallbacksThatDoNotReturnLeakNothing(t *testing.T) {
	fails := map[string]func(){
		"panics":              func() { panic("callback") },
		"aborts":              func() { panic(http.ErrAbortHandler) },
		"ends its goroutine":  runtime.Goexit,
		"panics with nothing": func() { panic(nil) },
	}
	type callbacks struct {
		config *ratelimit.Config
		policy *ratelimit.Policy
	}
	for name, set := range map[string]func(c callbacks, fail func()){
		"Block":   func(c callbacks, fail func()) { c.config.Block = func(*http.Request) bool { fail(); return false } },
		"Exempt":  func(c callbacks, fail func()) { c.config.Exempt = func(*http.Request) bool { fail(); return false } },
		"Applies": func(c callbacks, fail func()) { c.policy.Applies = func(*http.Request) bool { fail(); return true } },
		"Cost":    func(c callbacks, fail func()) { c.policy.Cost = func(*http.Request) int { fail(); return 1 } },
		"LimitFor": func(c callbacks, fail func()) {
			c.policy.LimitFor = func(*http.Request) ratelimit.Limit { fail(); return ratelimit.Limit{} }
		},
		"Count": func(c callbacks, fail func()) { c.policy.Count = func(int) bool { fail(); return true } },
		"Key": func(c callbacks, fail func()) {
			c.policy.Key = func(*http.Request) (ratelimit.Key, bool) { fail(); return ratelimit.Key{}, true }
		},
		"OnError before the decision": func(c callbacks, fail func()) {
			first := true
			c.policy.LimitFor = func(*http.Request) ratelimit.Limit {
				if first {
					first = false
					return ratelimit.RollingWindow(-1, time.Hour)
				}
				return ratelimit.Limit{}
			}
			c.config.OnError = func(context.Context, error) { fail() }
		},
		"OnError after the handler": func(c callbacks, fail func()) {
			first := true
			c.policy.Count = func(int) bool {
				if first {
					first = false
					panic("Count")
				}
				return true
			}
			c.config.OnError = func(context.Context, error) { fail() }
		},
	} {
		for how, fail := range fails {
			t.Run(name+" "+how, func(t *testing.T) {
				broken := true
				p := forAll("counted", ratelimit.RollingWindow(100, time.Hour))
				c := ratelimit.Config{OnError: func(context.Context, error) {}}
				set(callbacks{&c, &p}, func() {
					if broken {
						fail()
					}
				})
				c.Policies = []ratelimit.Policy{forAll("places", ratelimit.Concurrency(1)), p}
				h := newLimiter(t, c).Wrap(ok)
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer func() { _ = recover() }()
					do(h)
				}()
				<-done
				broken = false
				wantCodes(t, codes(2, h), 200, 200)
			})
		}
	}
}

func TestACountRunsThoughAnotherPanics(t *testing.T) {
	var reported errorsOf
	counted := func(name string, count func(int) bool) ratelimit.Policy {
		p := forAll(name, ratelimit.RollingWindow(1, time.Hour))
		p.Count = count
		return p
	}
	first, last := false, false
	h := newLimiter(t, ratelimit.Config{
		OnError: reported.add,
		Policies: []ratelimit.Policy{
			counted("first", func(int) bool { first = true; return false }),
			{Name: "broken", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(2, time.Hour), Count: func(int) bool { panic("count") }},
			counted("last", func(int) bool { last = true; return false }),
		},
	}).Wrap(ok)
	wantCodes(t, codes(3, h), 200, 200, 429)
	if !first || !last || len(reported.all()) != 2 {
		t.Errorf("first asked %v, last asked %v, OnError was called with %v", first, last, reported.all())
	}
}
