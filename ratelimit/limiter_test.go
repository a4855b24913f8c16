package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/ratelimit"
)

func newLimiter(t testing.TB, c ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	l, err := ratelimit.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newMemory returns a store of the usual size.
func newMemory() *ratelimit.Memory {
	m, err := ratelimit.NewMemory(ratelimit.MemoryConfig{})
	if err != nil {
		panic(err)
	}
	return m
}

// memoryOf returns a store of this size.
func memoryOf(t testing.TB, keys int) *ratelimit.Memory {
	t.Helper()
	m, err := ratelimit.NewMemory(ratelimit.MemoryConfig{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func limiterOf(t testing.TB, policies ...ratelimit.Policy) *ratelimit.Limiter {
	t.Helper()
	return newLimiter(t, ratelimit.Config{Policies: policies})
}

func forAll(name string, l ratelimit.Limit) ratelimit.Policy {
	return ratelimit.Policy{Name: name, Key: ratelimit.Global(), Limit: l}
}

func must(t testing.TB) func(*ratelimit.Limiter, error) *ratelimit.Limiter {
	return func(l *ratelimit.Limiter, err error) *ratelimit.Limiter {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
}

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })

func do(h http.Handler, mutate ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, m := range mutate {
		m(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func from(addr string) func(*http.Request) {
	return func(r *http.Request) { r.RemoteAddr = addr }
}

func as(p usher.Principal) func(*http.Request) {
	return func(r *http.Request) { *r = *usher.WithPrincipal(r, &p) }
}

// codes returns the statuses of n requests.
func codes(n int, h http.Handler, mutate ...func(*http.Request)) []int {
	var got []int
	for range n {
		got = append(got, do(h, mutate...).Code)
	}
	return got
}

func wantCodes(t *testing.T, got []int, want ...int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}
}

// Behind a proxy the address is the client's, as a resolver has found it, for anonymous
// callers too.
func TestAddressesAreThoseOfTheResolver(t *testing.T) {
	ips, err := clientip.New(clientip.Config{TrustedProxies: []string{"192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	via := func(client string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Forwarded-For", client) }
	}
	for name, key := range map[string]ratelimit.KeyFunc{
		"ByAddress": ratelimit.ByAddress(), "ByPrincipal": ratelimit.ByPrincipal(), "ByOwner": ratelimit.ByOwner(),
	} {
		t.Run(name, func(t *testing.T) {
			limiter := limiterOf(t, ratelimit.Policy{Name: "p", Key: key, Limit: ratelimit.RollingWindow(1, time.Hour)})
			proxied := usher.Chain(ips, limiter).Wrap(ok)
			wantCodes(t, codes(2, proxied, via("198.51.100.1")), 200, 429)
			wantCodes(t, codes(1, proxied, via("198.51.100.2")), 200)
			wantCodes(t, codes(1, proxied, via("2001:db8::1")), 200)
			wantCodes(t, codes(1, proxied, via("2001:db8::2")), 429) // of one subscriber
			// Without a resolver the limiter ignores a field that anybody can send.
			wantCodes(t, codes(1, limiter.Wrap(ok), via("198.51.100.3")), 200)
			wantCodes(t, codes(1, limiter.Wrap(ok), via("198.51.100.4")), 429)
		})
	}
}

func TestKeys(t *testing.T) {
	alice := as(usher.Principal{ID: "1", Kind: usher.KindAPIKey, Owner: "acme"})
	bob := as(usher.Principal{ID: "2", Kind: usher.KindAPIKey, Owner: "acme"})
	token := as(usher.Principal{ID: "1", Kind: usher.KindJWT, Owner: "other"})
	alone := as(usher.Principal{ID: "acme", Kind: usher.KindAPIKey})
	route := func(p string) func(*http.Request) { return func(r *http.Request) { r.Pattern = p } }
	for _, c := range []struct {
		name string
		key  ratelimit.KeyFunc
		// The second request is refused if it has the key of the first.
		first, second func(*http.Request)
		shared        bool
	}{
		{"everyone shares one key", ratelimit.Global(), from("192.0.2.1:1"), from("192.0.2.2:1"), true},
		{"an address whatever its port", ratelimit.ByAddress(), from("192.0.2.1:1"), from("192.0.2.1:2"), true},
		{"another address", ratelimit.ByAddress(), from("192.0.2.1:1"), from("192.0.2.2:1"), false},
		{"an IPv4-mapped address is the IPv4 one", ratelimit.ByAddress(), from("192.0.2.1:1"), from("[::ffff:192.0.2.1]:1"), true},
		{"mapped addresses are not one network", ratelimit.ByAddress(), from("[::ffff:192.0.2.1]:1"), from("[::ffff:192.0.2.2]:1"), false},
		{"one network of IPv6", ratelimit.ByAddress(), from("[2001:db8::1]:1"), from("[2001:db8::ffff:2]:1"), true},
		{"two networks of IPv6", ratelimit.ByAddress(), from("[2001:db8::1]:1"), from("[2001:db8:0:1::1]:1"), false},
		{"two callers of one account", ratelimit.ByPrincipal(), alice, bob, false},
		{"one ID in two kinds of credential", ratelimit.ByPrincipal(), alice, token, false},
		{"an anonymous caller counts by address", ratelimit.ByPrincipal(), from("192.0.2.1:1"), from("192.0.2.1:2"), true},
		{"an account over its credentials", ratelimit.ByOwner(), alice, bob, true},
		{"a credential named like an account is not it", ratelimit.ByOwner(), alice, alone, false},
		{"anonymous by account counts by address", ratelimit.ByOwner(), from("192.0.2.1:1"), from("192.0.2.2:2"), false},
		{"a route", ratelimit.ByRoute(), route("GET /a"), route("GET /a"), true},
		{"another route", ratelimit.ByRoute(), route("GET /a"), route("GET /b"), false},
		{"what matches no route shares a key", ratelimit.ByRoute(), route(""), route(""), true},
		{"each combination", ratelimit.Combine(ratelimit.ByPrincipal(), ratelimit.ByRoute()), alice, bob, false},
		{"the same combination", ratelimit.Combine(ratelimit.ByPrincipal(), ratelimit.ByRoute()), bob, bob, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := limiterOf(t, ratelimit.Policy{Name: "p", Key: c.key, Limit: ratelimit.RollingWindow(1, time.Hour)})
			h := l.Wrap(ok)
			do(h, c.first)
			if shared := do(h, c.second).Code == http.StatusTooManyRequests; shared != c.shared {
				t.Errorf("one key: %v, want %v", shared, c.shared)
			}
		})
	}
}

func TestNoTwoKeysAreTheSameText(t *testing.T) {
	each := func(a, b string) ratelimit.Key {
		text := func(s string) ratelimit.KeyFunc {
			return func(*http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(s), true }
		}
		k, _ := ratelimit.Combine(text(a), text(b))(nil)
		return k
	}
	seen := map[string]ratelimit.Key{}
	for _, k := range []ratelimit.Key{
		{}, ratelimit.TextKey(""), ratelimit.TextKey("a"), ratelimit.TextKey("1:a"),
		ratelimit.AddressKey(netip.MustParsePrefix("192.0.2.1/32")), ratelimit.TextKey("192.0.2.1"),
		each("a", "b"), each("a;1:b", ""), each("", "ab"), each("ab", ""), each("b", "a"), ratelimit.TextKey("ab"),
	} {
		if other, ok := seen[k.String()]; ok {
			t.Errorf("%#v and %#v are both %q", k, other, k)
		}
		seen[k.String()] = k
	}
}

func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := forAll("hour", ratelimit.RollingWindow(1, time.Hour))
		short := forAll("second", ratelimit.RollingWindow(1, 1500*time.Millisecond))
		short.Message, short.Code = "Slow down.", "slow_down"
		h := limiterOf(t, short, long).Wrap(ok)
		do(h)
		w := do(h)
		if w.Code != http.StatusTooManyRequests {
			t.Fatalf("status %d", w.Code)
		}
		if got := w.Header().Get("Retry-After"); got != "3600" {
			t.Errorf("Retry-After = %s, want the longest wait", got)
		}
		if got := w.Header().Get("RateLimit"); got != `"second";r=0;t=2, "hour";r=0;t=3600` {
			t.Errorf("RateLimit = %s", got)
		}
		if !strings.Contains(w.Body.String(), `"code":"rate_limited"`) {
			t.Errorf("body %s, want the code of the policy with the longest wait", w.Body)
		}

		h = limiterOf(t, short).Wrap(ok)
		do(h)
		if w := do(h); !strings.Contains(w.Body.String(), `"detail":"Slow down.","code":"slow_down"`) {
			t.Errorf("body %s, want the policy's own text and code", w.Body)
		}
	})
}

func TestAClientThatObeysIsAdmitted(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit ratelimit.Limit
	}{
		{"token bucket", ratelimit.TokenBucket(7, 10*time.Second, 3)},
		{"slow token bucket", ratelimit.TokenBucket(1, 24*time.Hour, 1000)},
		{"rolling window", ratelimit.RollingWindow(5, 7*time.Second)},
		{"rolling window of a fraction", ratelimit.RollingWindow(2, 1700*time.Millisecond)},
		{"calendar minute", ratelimit.CalendarWindow(4, ratelimit.Minute)},
		{"calendar month", ratelimit.CalendarWindow(4, ratelimit.Month)},
	} {
		for name, wait := range map[string]func(http.Header) time.Duration{
			"Retry-After": func(h http.Header) time.Duration { return seconds(h.Get("Retry-After")) },
			"RateLimit": func(h http.Header) time.Duration {
				_, after, _ := strings.Cut(h.Get("RateLimit"), ";t=")
				return seconds(after)
			},
			"X-RateLimit-Reset": func(h http.Header) time.Duration {
				return time.Until(time.Unix(int64(seconds(h.Get("X-RateLimit-Reset"))/time.Second), 0))
			},
		} {
			t.Run(c.name+" by "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newLimiter(t, ratelimit.Config{
						Policies: []ratelimit.Policy{forAll("p", c.limit)},
						Headers:  ratelimit.StandardAndEpochHeaders,
					}).Wrap(ok)
					time.Sleep(1234567 * time.Nanosecond)
					for range 20 {
						w := do(h)
						for range 2000 {
							if w.Code != http.StatusOK {
								break
							}
							time.Sleep(time.Millisecond)
							w = do(h)
						}
						time.Sleep(wait(w.Header()))
						if w := do(h); w.Code != http.StatusOK {
							t.Fatalf("refused after the wait: %v", w.Header())
						}
					}
				})
			})
		}
	}
}

func seconds(s string) time.Duration {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return time.Duration(n) * time.Second
}

func TestPlansAreResolvedForEachRequest(t *testing.T) {
	p := ratelimit.Policy{
		Name: "plan", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(1, time.Hour),
		Plans: map[string]ratelimit.Limit{
			"pro":       ratelimit.RollingWindow(3, time.Hour),
			"unlimited": ratelimit.Unlimited(),
		},
		LimitFor: func(r *http.Request) ratelimit.Limit {
			switch r.Header.Get("Contract") {
			case "two":
				return ratelimit.TokenBucket(2, time.Hour, 2)
			case "broken":
				return ratelimit.TokenBucket(-2, time.Hour, 2)
			case "kind":
				return ratelimit.Concurrency(100)
			}
			return ratelimit.Limit{}
		},
	}
	contract := func(s string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Contract", s) }
	}
	var faults []error
	h := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{p},
		OnError:  func(_ context.Context, err error) { faults = append(faults, err) },
	}).Wrap(ok)
	free := as(usher.Principal{ID: "k", Owner: "free"})
	pro := as(usher.Principal{ID: "k", Owner: "pro", Plan: "pro"})
	wantCodes(t, codes(2, h, free), 200, 429)
	wantCodes(t, codes(4, h, pro), 200, 200, 200, 429)
	wantCodes(t, codes(9, h, as(usher.Principal{ID: "k", Owner: "all", Plan: "unlimited"})),
		200, 200, 200, 200, 200, 200, 200, 200, 200)
	wantCodes(t, codes(3, h, contract("two"), as(usher.Principal{ID: "k", Owner: "own"})), 200, 200, 429)
	wantCodes(t, codes(1, h, contract("broken"), as(usher.Principal{ID: "k", Owner: "x"})), 503)
	wantCodes(t, codes(1, h, contract("kind"), as(usher.Principal{ID: "k", Owner: "y"})), 503)
	if len(faults) != 2 {
		t.Errorf("OnError was called with %v, want both invalid limits", faults)
	}
	// An upgrade keeps what was used.
	wantCodes(t, codes(3, h, as(usher.Principal{ID: "k", Owner: "free", Plan: "pro"})), 200, 200, 429)
	// So does a change to another algorithm.
	wantCodes(t, codes(2, h, contract("two"), as(usher.Principal{ID: "k", Owner: "free"})), 429, 429)
}

func TestWithAndOnly(t *testing.T) {
	setup := func(t *testing.T) (global, with, only *ratelimit.Limiter) {
		global = limiterOf(t, forAll("global", ratelimit.RollingWindow(4, time.Hour)))
		with = must(t)(global.With(forAll("with", ratelimit.RollingWindow(2, time.Hour))))
		only = must(t)(global.Only(forAll("only", ratelimit.RollingWindow(3, time.Hour))))
		return
	}
	t.Run("With charges the parent too, but not when it refuses", func(t *testing.T) {
		global, with, _ := setup(t)
		wantCodes(t, codes(4, with.Wrap(ok)), 200, 200, 429, 429)
		wantCodes(t, codes(3, global.Wrap(ok)), 200, 200, 429)
	})
	t.Run("With refuses what the parent refuses", func(t *testing.T) {
		global, with, _ := setup(t)
		codes(4, global.Wrap(ok))
		wantCodes(t, codes(1, with.Wrap(ok)), 429)
	})
	t.Run("Only does not touch the parent", func(t *testing.T) {
		global, _, only := setup(t)
		wantCodes(t, codes(4, only.Wrap(ok)), 200, 200, 200, 429)
		wantCodes(t, codes(5, global.Wrap(ok)), 200, 200, 200, 200, 429)
	})
	t.Run("a parent around With makes one decision with it", func(t *testing.T) {
		global, with, _ := setup(t)
		nested := global.Wrap(with.Wrap(ok))
		wantCodes(t, codes(4, nested), 200, 200, 429, 429)
		wantCodes(t, codes(3, global.Wrap(ok)), 200, 200, 429)
		if got := do(nested).Header().Values("RateLimit-Policy"); len(got) != 1 {
			t.Errorf("RateLimit-Policy of a refusal by the parent: %q", got)
		}
	})
	t.Run("a parent around Only gives its charge back", func(t *testing.T) {
		global, _, only := setup(t)
		nested := global.Wrap(only.Wrap(ok))
		w := do(nested)
		if got := w.Header().Values("RateLimit-Policy"); !slices.Equal(got, []string{`"only";q=3;w=3600`}) {
			t.Errorf("RateLimit-Policy %q, want that of the replacement", got)
		}
		wantCodes(t, codes(3, nested), 200, 200, 429)
		wantCodes(t, codes(5, global.Wrap(ok)), 200, 200, 200, 200, 429)
	})
	t.Run("a limiter around itself charges once", func(t *testing.T) {
		global, _, _ := setup(t)
		wantCodes(t, codes(5, global.Wrap(global.Wrap(ok))), 200, 200, 200, 200, 429)
	})
	t.Run("a limiter that is used twice in turn charges twice", func(t *testing.T) {
		global, _, _ := setup(t)
		inner := global.Wrap(ok)
		batch := usher.Chain().Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			inner.ServeHTTP(w, r)
			inner.ServeHTTP(w, r)
		}))
		do(batch, func(r *http.Request) { *r = *usher.Track(r) })
		wantCodes(t, codes(3, inner), 200, 200, 429)
	})
	t.Run("limiters that are not related decide apart", func(t *testing.T) {
		global, _, _ := setup(t)
		other := limiterOf(t, forAll("other", ratelimit.RollingWindow(9, time.Hour)))
		h := other.Wrap(global.Wrap(ok))
		codes(5, h)
		if got := do(h).Header().Values("RateLimit-Policy"); len(got) != 2 {
			t.Errorf("RateLimit-Policy %q, want those of both", got)
		}
		wantCodes(t, codes(4, other.Wrap(ok)), 200, 200, 200, 429)
	})
	t.Run("a name is not used twice over one store", func(t *testing.T) {
		global, _, _ := setup(t)
		for _, derive := range []func(...ratelimit.Policy) (*ratelimit.Limiter, error){global.With, global.Only} {
			if _, err := derive(forAll("with", ratelimit.Concurrency(1))); err == nil {
				t.Error("a second policy of the name is accepted")
			}
		}
	})
}

func TestCost(t *testing.T) {
	p := forAll("units", ratelimit.RollingWindow(10, time.Hour))
	p.Cost = func(r *http.Request) int { n, _ := strconv.Atoi(r.Header.Get("Units")); return n }
	h := limiterOf(t, p).Wrap(ok)
	cost := func(n int) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Units", strconv.Itoa(n)) }
	}
	wantCodes(t, codes(1, h, cost(8)), 200)
	wantCodes(t, codes(1, h, cost(3)), 429)
	wantCodes(t, codes(1, h, cost(-5)), 200) // never mints
	wantCodes(t, codes(1, h, cost(2)), 200)
	wantCodes(t, codes(1, h, cost(0)), 200)
	wantCodes(t, codes(1, h, cost(1)), 429)
	if w := do(h, cost(11)); w.Code != 429 || w.Header().Get("Retry-After") != "" {
		t.Errorf("a cost that never fits: status %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
}

func TestOnlyChosenOutcomesCount(t *testing.T) {
	p := forAll("failures", ratelimit.RollingWindow(2, time.Hour))
	p.Count = func(status int) bool { return status >= 400 }
	response := func(f http.HandlerFunc) http.Handler { return limiterOf(t, p).Wrap(f) }
	t.Run("a response that does not count is refunded", func(t *testing.T) {
		wantCodes(t, codes(5, response(ok)), 200, 200, 200, 200, 200)
	})
	t.Run("a response that counts is charged", func(t *testing.T) {
		h := response(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })
		wantCodes(t, codes(3, h), 401, 401, 429)
	})
	t.Run("an informational status is not the response", func(t *testing.T) {
		h := response(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(403) })
		codes(2, h)
		wantCodes(t, codes(1, h), 429)
	})
	t.Run("a panic counts as 500", func(t *testing.T) {
		h := response(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		for range 2 {
			func() {
				defer func() { _ = recover() }()
				do(h)
			}()
		}
		wantCodes(t, codes(1, h), 429)
	})
	t.Run("concurrent requests stay within the limit while handlers run", func(t *testing.T) {
		block := make(chan struct{})
		h := response(func(w http.ResponseWriter, _ *http.Request) { <-block })
		var wg sync.WaitGroup
		var refused atomic.Int32
		for range 10 {
			wg.Go(func() {
				if do(h).Code == 429 && refused.Add(1) == 8 {
					close(block)
				}
			})
		}
		wg.Wait()
		if refused.Load() != 8 {
			t.Errorf("%d refused, want 8", refused.Load())
		}
	})
}

func TestSettle(t *testing.T) {
	tokens := forAll("tokens", ratelimit.CalendarWindow(100, ratelimit.Month))
	tokens.Settle = true
	tokens.Cost = func(*http.Request) int { return 10 }
	fixed := forAll("fixed", ratelimit.RollingWindow(100, time.Hour))
	var settle func(ctx context.Context) error
	h := limiterOf(t, tokens, fixed).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := settle(r.Context()); err != nil {
			http.Error(w, err.Error(), 500)
		}
	}))
	left := func() string {
		settle = func(ctx context.Context) error { return ratelimit.Settle(ctx, "tokens", 0) }
		first, _, _ := strings.Cut(do(h).Header().Get("RateLimit"), ";t=")
		return first
	}
	for _, c := range []struct {
		name string
		cost []int
		left string
	}{
		{"less than was taken", []int{3}, `"tokens";r=87`}, // the look itself takes 10 meanwhile
		{"more than was taken", []int{25}, `"tokens";r=62`},
		{"several times", []int{50, 2, 7}, `"tokens";r=55`},
		{"a refund", []int{0}, `"tokens";r=55`},
		{"a negative cost mints nothing", []int{-50}, `"tokens";r=55`},
		{"beyond what is left, by 935", []int{1000}, `"tokens";r=0`},
	} {
		settle = func(ctx context.Context) (err error) {
			for _, n := range c.cost {
				err = errors.Join(err, ratelimit.Settle(ctx, "tokens", n))
			}
			if short, ok := errors.AsType[*ratelimit.ExhaustedError](err); ok && short.Shortfall == 935 {
				return nil
			}
			return err
		}
		if w := do(h); w.Code != 200 {
			t.Fatalf("%s: %d %s", c.name, w.Code, w.Body)
		}
		if got := left(); got != c.left {
			t.Errorf("%s: %s, want %s", c.name, got, c.left)
		}
	}
	t.Run("what was not charged cannot be settled", func(t *testing.T) {
		if err := ratelimit.Settle(t.Context(), "tokens", 1); !errors.Is(err, ratelimit.ErrNotSettled) {
			t.Errorf("outside a request: %v", err)
		}
		fresh := tokens
		fresh.Name = "fresh"
		h := limiterOf(t, fresh, fixed).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			for _, name := range []string{"fixed", "unknown"} {
				if err := ratelimit.Settle(r.Context(), name, 1); !errors.Is(err, ratelimit.ErrNotSettled) {
					t.Errorf("policy %s: %v", name, err)
				}
			}
		}))
		do(h)
	})
}

func TestARefundStaysInItsWindow(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"calendar window": ratelimit.CalendarWindow(3, ratelimit.Minute),
		"rolling window":  ratelimit.RollingWindow(3, time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := forAll("p", l)
				p.Settle = true
				limiter := limiterOf(t, p)
				slow := limiter.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					time.Sleep(61 * time.Second)
					wantCodes(t, codes(2, limiter.Wrap(ok)), 200, 200)
					if err := ratelimit.Settle(r.Context(), "p", 0); err != nil {
						t.Error(err)
					}
				}))
				do(slow)
				wantCodes(t, codes(2, limiter.Wrap(ok)), 200, 429)
			})
		})
	}
}

func TestEveryPlaceOfAConcurrencyLimitIsFreed(t *testing.T) {
	p := forAll("places", ratelimit.Concurrency(2))
	var handler http.HandlerFunc
	var mu sync.Mutex
	current := func(h http.HandlerFunc) { mu.Lock(); handler = h; mu.Unlock() }
	limiter := limiterOf(t, p)
	mux := limiter.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		h := handler
		mu.Unlock()
		h(w, r)
	}))
	server := httptest.NewServer(mux)
	defer server.Close()
	timeout := httptest.NewServer(http.TimeoutHandler(mux, 10*time.Millisecond, "late"))
	defer timeout.Close()
	get := func(url string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res.StatusCode
	}
	for _, c := range []struct {
		name    string
		url     string
		handler http.HandlerFunc
	}{
		{"after a response", server.URL, ok},
		{"after http.ErrAbortHandler", server.URL, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"after a hijack", server.URL, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
		}},
		{"after a stream", server.URL, func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = io.WriteString(w, "data: x\n\n")
				w.(http.Flusher).Flush()
			}
		}},
		{"after a timeout", timeout.URL, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			current(c.handler)
			for range 5 {
				get(c.url)
			}
			// Both places must become free, once the server has noticed.
			block, in := make(chan struct{}), make(chan struct{}, 2)
			current(func(http.ResponseWriter, *http.Request) { in <- struct{}{}; <-block })
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					for get(server.URL) == http.StatusTooManyRequests && t.Context().Err() == nil {
						time.Sleep(time.Millisecond)
					}
				})
			}
			for range 2 {
				select {
				case <-in:
				case <-time.After(10 * time.Second):
					t.Fatal("a place was not returned")
				}
			}
			if code := get(server.URL); code != http.StatusTooManyRequests {
				t.Errorf("the status of a third request is %d", code)
			}
			close(block)
			wg.Wait()
		})
	}
}

func TestConcurrencyRefusalHasRetryAfter(t *testing.T) {
	l := limiterOf(t, forAll("places", ratelimit.Concurrency(1)))
	h := l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		w := do(l.Wrap(ok), func(r *http.Request) {})
		if w.Code != 429 || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), usher.CodeTooManyConcurrent) {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		if got := w.Header().Get("RateLimit-Policy"); got != `"places";q=1;qu="concurrent-requests"` {
			t.Errorf("RateLimit-Policy = %s", got)
		}
		if got := w.Header().Get("RateLimit"); got != `"places";r=0` {
			t.Errorf("RateLimit = %s", got)
		}
	}))
	do(h)
}

func TestListsAndExceptions(t *testing.T) {
	allowed := clientip.In(netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::ffff:172.16.0.0/108"))
	banned := clientip.In(netip.MustParsePrefix("10.6.6.0/24"), netip.MustParsePrefix("2001:db8:bad::/48"))
	p := forAll("p", ratelimit.RollingWindow(1, time.Hour))
	p.Applies = func(r *http.Request) bool { return r.Method != http.MethodOptions }
	h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Exempt: allowed, Block: banned}).Wrap(ok)
	wantCodes(t, codes(3, h, from("10.1.2.3:1")), 200, 200, 200)
	wantCodes(t, codes(1, h, from("172.16.5.5:1")), 200)
	wantCodes(t, codes(1, h, from("10.6.6.6:1")), 403) // the block list is asked first
	wantCodes(t, codes(1, h, from("[2001:db8:bad::1]:1")), 403)
	options := func(r *http.Request) { r.Method = http.MethodOptions }
	wantCodes(t, codes(2, h, options), 200, 200)
	if w := do(h, options); len(w.Header()["Ratelimit"]) != 0 {
		t.Errorf("the fields name a policy that does not apply: %v", w.Header())
	}
	wantCodes(t, codes(2, h), 200, 429)
}

func TestShadowPoliciesWatch(t *testing.T) {
	shadow := forAll("shadow", ratelimit.RollingWindow(1, time.Hour))
	shadow.Shadow = true
	h := limiterOf(t, shadow, forAll("real", ratelimit.RollingWindow(3, time.Hour))).Wrap(ok)
	wantCodes(t, codes(4, h), 200, 200, 200, 429)
}

// A client that obeys its header fields would stop because of a policy that is only tried.
func TestClientsSeeNothingOfAShadowPolicy(t *testing.T) {
	shadow := forAll("shadow", ratelimit.RollingWindow(1, time.Hour))
	shadow.Shadow = true
	for _, beside := range [][]ratelimit.Policy{{shadow}, {shadow, forAll("real", ratelimit.RollingWindow(3, time.Minute))}} {
		h := newLimiter(t, ratelimit.Config{Policies: beside, Headers: ratelimit.StandardAndDeltaHeaders}).Wrap(ok)
		for range 4 {
			header := do(h).Header()
			if fields := fmt.Sprint(header); strings.Contains(fields, "shadow") || header.Get("X-Ratelimit-Limit") == "1" {
				t.Errorf("the fields describe the shadow policy: %v", header)
			}
			if len(beside) == 1 && (len(header["Ratelimit"]) > 0 || len(header["X-Ratelimit-Remaining"]) > 0) {
				t.Errorf("the shadow policy alone has header fields: %v", header)
			}
		}
	}
}

func TestHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The bubble's clock begins at midnight.
		minute := forAll("minute", ratelimit.CalendarWindow(1000, ratelimit.Minute))
		places := forAll("places", ratelimit.Concurrency(10))
		day := forAll("day", ratelimit.RollingWindow(5, 24*time.Hour))
		hidden := forAll("hidden", ratelimit.RollingWindow(1000000, time.Hour))
		hidden.Hidden = true
		now := time.Now().Unix()
		for _, c := range []struct {
			name    string
			headers ratelimit.Headers
			want    map[string]string
		}{
			{"standard", ratelimit.StandardHeaders, map[string]string{
				"Ratelimit-Policy": `"minute";q=1000;w=60, "places";q=10;qu="concurrent-requests", "day";q=5;w=86400`,
				"Ratelimit":        `"minute";r=999;t=60, "places";r=9, "day";r=4;t=86400`,
			}},
			{"epoch", ratelimit.EpochHeaders, map[string]string{
				"X-Ratelimit-Limit": "5", "X-Ratelimit-Remaining": "4", "X-Ratelimit-Reset": fmt.Sprint(now + 86400),
			}},
			{"delta", ratelimit.DeltaHeaders, map[string]string{
				"X-Ratelimit-Limit": "5", "X-Ratelimit-Remaining": "4", "X-Ratelimit-Reset": "86400",
			}},
			{"both", ratelimit.StandardAndDeltaHeaders, map[string]string{
				"Ratelimit-Policy":  `"minute";q=1000;w=60, "places";q=10;qu="concurrent-requests", "day";q=5;w=86400`,
				"Ratelimit":         `"minute";r=999;t=60, "places";r=9, "day";r=4;t=86400`,
				"X-Ratelimit-Limit": "5", "X-Ratelimit-Remaining": "4", "X-Ratelimit-Reset": "86400",
			}},
			{"none", ratelimit.NoHeaders, map[string]string{}},
		} {
			l := newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{minute, places, day, hidden}, Headers: c.headers,
			})
			got := map[string]string{}
			for k, v := range do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))).Header() {
				got[k] = strings.Join(v, " | ")
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("%s:\ngot  %v\nwant %v", c.name, got, c.want)
			}
		}
	})
}

func TestHeaderValuesBelongToOneResponse(t *testing.T) {
	h := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(100, time.Hour))},
		Headers:  ratelimit.StandardAndEpochHeaders,
	}).Wrap(ok)
	first := do(h).Header()
	for k := range first {
		first[k][0] = "changed"
		first[k] = append(first[k], "added")
	}
	for k, v := range do(h).Header() {
		if slices.Contains(v, "changed") || slices.Contains(v, "added") {
			t.Errorf("%s: %q", k, v)
		}
	}
}

func TestRetryAfterCanBeLeftOut(t *testing.T) {
	h := newLimiter(t, ratelimit.Config{
		Policies:       []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
		Headers:        ratelimit.NoHeaders,
		OmitRetryAfter: true,
	}).Wrap(ok)
	do(h)
	w := do(h)
	if w.Code != 429 || len(w.Header()["Retry-After"]) != 0 {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	failing := newLimiter(t, ratelimit.Config{
		Policies:       []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
		Store:          &script{take: func(context.Context, *ratelimit.Decision) error { return usher.ErrUnavailable }},
		OnStoreFailure: ratelimit.FailClosed,
		OmitRetryAfter: true,
	}).Wrap(ok)
	if w := do(failing); w.Code != 503 || len(w.Header()["Retry-After"]) != 0 {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	late := do(failing, func(r *http.Request) {
		ctx, cancel := context.WithDeadline(r.Context(), time.Now())
		t.Cleanup(cancel)
		*r = *r.WithContext(ctx)
	})
	if late.Code != 503 || len(late.Header()["Retry-After"]) != 0 {
		t.Errorf("after its deadline: %d %v", late.Code, late.Header())
	}
}

// RateLimit-Policy names the policies that count the request and no others.
func TestPoliciesThatDoNotCountARequestAreNotListed(t *testing.T) {
	second := forAll("second", ratelimit.RollingWindow(10, time.Second))
	second.Applies = func(r *http.Request) bool { return r.Method == http.MethodPost }
	h := limiterOf(t, forAll("first", ratelimit.RollingWindow(10, time.Second)), second).Wrap(nothing)
	for method, want := range map[string]string{
		http.MethodGet:  `"first";q=10;w=1`,
		http.MethodPost: `"first";q=10;w=1, "second";q=10;w=1`,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		if got := w.Header().Get("RateLimit-Policy"); got != want {
			t.Errorf("%s: %s, want %s", method, got, want)
		}
	}
}
