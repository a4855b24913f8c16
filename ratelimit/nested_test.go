package ratelimit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ushertest"
)

// family returns a limiter of 6 an hour and limiters derived from it.
func family(t testing.TB, group, route ratelimit.Limit) (root, with, sibling, only *ratelimit.Limiter) {
	t.Helper()
	root = limiterOf(t, forAll("root", ratelimit.RollingWindow(6, time.Hour)))
	with = must(t)(root.With(forAll("group", group)))
	sibling = must(t)(root.With(forAll("route", route)))
	only = must(t)(root.Only(forAll("only", route)))
	return root, with, sibling, only
}

// admitted sends n requests over a socket and returns how many were admitted, and
// the last response.
func admitted(t testing.TB, n int, h http.Handler) (count int, last response) {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	for range n {
		last, _ = get(t, s.URL)
		if last.StatusCode == http.StatusOK {
			count++
		}
	}
	return count, last
}

// A policy that could not count a request in an outer limiter, because the caller was not
// known there, counts the request in an inner limiter.
func TestANestedLimiterCountsWhatTheOuterOneCouldNotOverASocket(t *testing.T) {
	three := ratelimit.RollingWindow(3, time.Hour)
	caller := ratelimit.Policy{Name: "caller", Limit: three, Key: func(r *http.Request) (ratelimit.Key, bool) {
		p, ok := usher.PrincipalFrom(r.Context())
		if !ok {
			return ratelimit.Key{}, false
		}
		return ratelimit.TextKey(p.Owner), true
	}}
	applies := forAll("caller", three)
	applies.Applies = func(r *http.Request) bool {
		_, ok := usher.PrincipalFrom(r.Context())
		return ok
	}
	plan := forAll("caller", ratelimit.Unlimited())
	plan.Plans = map[string]ratelimit.Limit{"": three}
	owner := ratelimit.Policy{Name: "caller", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(100, time.Hour)}
	owner.LimitFor = func(r *http.Request) ratelimit.Limit {
		if _, ok := usher.PrincipalFrom(r.Context()); ok {
			return three
		}
		return ratelimit.Limit{}
	}
	for name, p := range map[string]ratelimit.Policy{
		"no key": caller, "it does not apply": applies, "no limit": plan, "the key of an unknown caller": owner,
	} {
		plenty := ratelimit.RollingWindow(100, time.Hour)
		for _, child := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, child=%t", name, child), func(t *testing.T) {
				root := limiterOf(t, p, forAll("all", plenty))
				inner := root
				if child {
					inner = must(t)(root.With(forAll("child", plenty)))
				}
				h := root.Wrap(usher.Chain(usher.Authenticate(planOf{}), inner, inner).Wrap(ok))
				if n, _ := admitted(t, 6, h); n != 3 {
					t.Errorf("%d admitted of 6, want 3", n)
				}
			})
		}
	}
}

func TestNestedLimitersChargeOnceOverASocket(t *testing.T) {
	plenty := ratelimit.RollingWindow(200, time.Hour)
	for _, c := range []struct {
		name  string
		stack func(*testing.T) http.Handler
		want  int // of 12
	}{
		{"a bare limiter inside itself", func(t *testing.T) http.Handler {
			l := limiterOf(t, forAll("p", ratelimit.RollingWindow(10, time.Hour)))
			return l.Wrap(l.Wrap(ok))
		}, 10},
		{"three times, with a router between", func(t *testing.T) http.Handler {
			l := limiterOf(t, forAll("p", ratelimit.RollingWindow(10, time.Hour)))
			mux := http.NewServeMux()
			mux.Handle("/", l.Wrap(l.Wrap(ok)))
			return l.Wrap(mux)
		}, 10},
		{"by ServeNext, as adapters do", func(t *testing.T) http.Handler {
			l := limiterOf(t, forAll("p", ratelimit.RollingWindow(10, time.Hour)))
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				usher.Chain(l, l).ServeNext(w, r, ok)
			})
		}, 10},
		{"with a copy of the request between", func(t *testing.T) http.Handler {
			l := limiterOf(t, forAll("p", ratelimit.RollingWindow(10, time.Hour)))
			inner := l.Wrap(ok)
			return l.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				inner.ServeHTTP(w, r.Clone(r.Context()))
			}))
		}, 10},
		{"inside authentication", func(t *testing.T) http.Handler {
			l := limiterOf(t, forAll("p", ratelimit.RollingWindow(10, time.Hour)))
			return usher.Chain(usher.Authenticate(planOf{}), l, l).Wrap(ok)
		}, 10},
		{"two children of one parent", func(t *testing.T) http.Handler {
			_, group, route, _ := family(t, plenty, plenty)
			return group.Wrap(route.Wrap(ok))
		}, 6},
		{"a child of a child", func(t *testing.T) http.Handler {
			_, group, _, _ := family(t, plenty, plenty)
			return group.Wrap(must(t)(group.With(forAll("deep", plenty))).Wrap(ok))
		}, 6},
		{"Only inside a child of its parent", func(t *testing.T) http.Handler {
			_, group, _, only := family(t, plenty, plenty)
			return group.Wrap(only.Wrap(ok))
		}, 12},
		{"Only inside itself", func(t *testing.T) http.Handler {
			_, _, _, only := family(t, plenty, ratelimit.RollingWindow(10, time.Hour))
			return only.Wrap(only.Wrap(ok))
		}, 10},
		{"Only inside its own child", func(t *testing.T) http.Handler {
			_, _, _, only := family(t, plenty, ratelimit.RollingWindow(10, time.Hour))
			return must(t)(only.With(forAll("deep", plenty))).Wrap(only.Wrap(ok))
		}, 10},
		{"a parent inside the Only that has replaced it", func(t *testing.T) http.Handler {
			root, _, _, only := family(t, plenty, plenty)
			return root.Wrap(only.Wrap(root.Wrap(ok)))
		}, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, last := admitted(t, 12, c.stack(t))
			if n != c.want {
				t.Errorf("%d of 12 admitted, want %d", n, c.want)
			}
			policies := last.Header.Values("RateLimit-Policy")
			if sorted := slices.Sorted(slices.Values(policies)); len(slices.Compact(sorted)) != len(policies) {
				t.Errorf("a policy is named twice: %q", policies)
			}
		})
	}
}

func TestARefusedRequestUsesUpNothingOfNestedLimitersOverASocket(t *testing.T) {
	plenty, two := ratelimit.RollingWindow(200, time.Hour), ratelimit.RollingWindow(2, time.Hour)
	for _, c := range []struct {
		name  string
		stack func(root, group, route, only *ratelimit.Limiter) http.Handler
		left  int // of root, after 2 were admitted and 10 refused
	}{
		{"two children", func(_, group, route, _ *ratelimit.Limiter) http.Handler {
			return group.Wrap(route.Wrap(ok))
		}, 4},
		{"their parent around them", func(root, group, route, _ *ratelimit.Limiter) http.Handler {
			return root.Wrap(group.Wrap(route.Wrap(ok)))
		}, 4},
		{"Only inside a child", func(_, group, _, only *ratelimit.Limiter) http.Handler {
			return group.Wrap(only.Wrap(ok))
		}, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, group, route, only := family(t, plenty, two)
			if n, last := admitted(t, 12, c.stack(root, group, route, only)); n != 2 || last.StatusCode != http.StatusTooManyRequests {
				t.Errorf("%d of 12 admitted, want 2", n)
			}
			if n, _ := admitted(t, 8, root.Wrap(ok)); n != c.left {
				t.Errorf("%d left of the parent, want %d", n, c.left)
			}
			if n, _ := admitted(t, 3, group.Wrap(ok)); n != 0 {
				t.Errorf("%d admitted by a child of a parent that is used up", n)
			}
		})
	}
}

// Limiters that are not derived from one another decide independently: the outer one also
// counts what the inner one refuses.
func TestLimitersOfTwoFamiliesDecideIndependently(t *testing.T) {
	outer := limiterOf(t, forAll("outer", ratelimit.RollingWindow(6, time.Hour)))
	must(t)(outer.With(forAll("relative", ratelimit.RollingWindow(6, time.Hour))))
	inner := limiterOf(t, forAll("inner", ratelimit.RollingWindow(2, time.Hour)))
	h := outer.Wrap(inner.Wrap(ok))
	wantCodes(t, codes(6, h), 200, 200, 429, 429, 429, 429)
	if got := do(h).Header().Get("RateLimit"); got != `"outer";r=0;t=3600` {
		t.Errorf("RateLimit %s, want a refusal by the outer limiter", got)
	}
}

// A request whose inner callback panics has failed, and counts.
func TestAPanicOfAnInnerHandlerRefundsNothing(t *testing.T) {
	root := limiterOf(t, forAll("root", ratelimit.RollingWindow(3, time.Hour)))
	p := forAll("only", ratelimit.RollingWindow(100, time.Hour))
	p.Key = func(*http.Request) (ratelimit.Key, bool) { panic("key") }
	only := must(t)(root.Only(p))
	h := root.Wrap(only.Wrap(ok))
	refused := 0
	for range 5 {
		func() {
			defer func() { _ = recover() }()
			if do(h).Code == http.StatusTooManyRequests {
				refused++
			}
		}()
	}
	if refused != 2 {
		t.Errorf("%d of 5 refused, want 2", refused)
	}
}

// However a limiter is wrapped, it charges once inside itself. Passing twice through one
// handler that Wrap has returned charges twice, as the documentation warns.
func TestALimiterInsideItselfChargesOnceInAnyWrapping(t *testing.T) {
	always := func(*http.Request) bool { return true }
	tests := map[string]struct {
		nest func(l *ratelimit.Limiter) usher.Middleware
		want string
	}{
		"by itself": {func(l *ratelimit.Limiter) usher.Middleware { return usher.Chain(l, l) }, "2"},
		"a chain of chains": {func(l *ratelimit.Limiter) usher.Middleware {
			c := usher.Chain(l)
			return usher.Chain(c, usher.Chain(c))
		}, "2"},
		"watched":         {func(l *ratelimit.Limiter) usher.Middleware { w := ushertest.Watch(l); return usher.Chain(w, w) }, "2"},
		"watched inside":  {func(l *ratelimit.Limiter) usher.Middleware { return usher.Chain(l, ushertest.Watch(l)) }, "2"},
		"on condition":    {func(l *ratelimit.Limiter) usher.Middleware { m := usher.When(always, l); return usher.Chain(m, m) }, "2"},
		"adapted inside":  {func(l *ratelimit.Limiter) usher.Middleware { return usher.Chain(l, usher.Adapt(l.Wrap)) }, "2"},
		"adapted outside": {func(l *ratelimit.Limiter) usher.Middleware { return usher.Chain(usher.Adapt(l.Wrap), l) }, "2"},
		"one handler":     {func(l *ratelimit.Limiter) usher.Middleware { m := usher.Adapt(l.Wrap); return usher.Chain(m, m) }, "1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := must(t)(ratelimit.New(ratelimit.Config{
				Policies: []ratelimit.Policy{ratelimit.PerAddress(3, time.Hour)}, Headers: ratelimit.DeltaHeaders,
			}))
			h := tt.nest(l).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if got := w.Header().Get("X-RateLimit-Remaining"); got != tt.want {
				t.Errorf("%s of 3 left, want %s", got, tt.want)
			}
		})
	}
}

// A Resolver inside the limiter comes too late, and a test of the order can show it.
func TestALimiterOutsideTheResolverCountsTheProxy(t *testing.T) {
	resolver, err := clientip.New(clientip.Config{TrustedProxies: []string{"192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	from := func(client string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/", nil) // from 192.0.2.1
		r.Header.Set("X-Forwarded-For", client)
		return r
	}
	for _, inside := range []bool{true, false} {
		limiter := ushertest.Watch(must(t)(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerAddress(1, time.Hour)}})))
		chain, counted, second := usher.Chain(resolver, limiter), "203.0.113.7", http.StatusOK
		if !inside {
			chain, counted, second = usher.Chain(limiter, resolver), "192.0.2.1", http.StatusTooManyRequests
		}
		h := chain.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		arrived, err := limiter.Reached(h, from("203.0.113.7"))
		if err != nil || clientip.Of(arrived).String() != counted {
			t.Errorf("inside %v: %v, %v counts, want %s", inside, err, clientip.Of(arrived), counted)
		}
		for i, want := range []int{http.StatusOK, second} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, from(fmt.Sprintf("203.0.113.%d", i)))
			if w.Code != want {
				t.Errorf("inside %v: client %d gets %d, want %d", inside, i, w.Code, want)
			}
		}
	}
}
