package ratelimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/ratelimit"
)

var text = ratelimit.TextKey

// wantAllowed calls Allow with a cost of 1 for each of want, and compares what it admits.
func wantAllowed(t testing.TB, l *ratelimit.Limiter, key ratelimit.Key, want ...bool) {
	t.Helper()
	for i, want := range want {
		usage, err := l.Allow(t.Context(), 1, key)
		if refused, _ := errors.AsType[*ratelimit.RefusedError](err); (err == nil) != want || (refused != nil) == want {
			t.Errorf("call %d: %+v, %v, want admitted %t", i, usage, err, want)
		}
	}
}

// A login limits the attempts for each name, which stands in the body, and forgets them
// when one has succeeded.
func loginHandler(l *ratelimit.Limiter) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var login struct{ Name, Password string }
		if err := json.NewDecoder(r.Body).Decode(&login); err != nil {
			usher.Fail(w, r, err)
			return
		}
		key := ratelimit.TextKey(strings.ToLower(login.Name))
		usage, err := l.Allow(r.Context(), 1, key)
		l.SetHeader(w.Header(), usage)
		if err != nil {
			usher.Fail(w, r, err)
			return
		}
		if login.Password != "right" {
			usher.Fail(w, r, &usher.Error{Status: http.StatusUnauthorized})
			return
		}
		if err := l.Reset(r.Context(), key); err != nil {
			usher.Fail(w, r, err)
		}
	}
}

func TestLoginsAreLimitedByNameOverASocket(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(loginHandler(newLimiter(t, ratelimit.Config{
				Store: store(), Policies: []ratelimit.Policy{
					{Name: "login", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(3, time.Hour)},
				},
			})))
			defer s.Close()
			login := func(name, password string) response {
				t.Helper()
				body := strings.NewReader(`{"name":"` + name + `","password":"` + password + `"}`)
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
				if err != nil {
					t.Fatal(err)
				}
				res, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				return response{res.StatusCode, res.Header}
			}
			statuses := func(n int, name, password string) (got []int) {
				for range n {
					got = append(got, login(name, password).StatusCode)
				}
				return got
			}
			wantCodes(t, statuses(2, "Ann", "wrong"), 401, 401)
			wantCodes(t, statuses(2, "ann", "right"), 200, 200) // a success forgets the failures
			wantCodes(t, statuses(4, "ANN", "wrong"), 401, 401, 401, 429)
			wantCodes(t, statuses(1, "bob", "wrong"), 401)
			res := login("ann", "right")
			if got := res.Header.Get("RateLimit"); res.StatusCode != 429 || !strings.HasPrefix(got, `"login";r=0;t=`) {
				t.Errorf("%d with RateLimit %s", res.StatusCode, got)
			}
			if n := seconds(res.Header.Get("Retry-After")); n < 3590*time.Second || n > time.Hour {
				t.Errorf("Retry-After %v", n)
			}
		})
	}
}

// What Fail makes of the error is what the middleware responds, field by field.
func TestARefusalByAllowIsThatOfTheMiddleware(t *testing.T) {
	hour := func(name string, n int) ratelimit.Policy { return forAll(name, ratelimit.RollingWindow(n, time.Hour)) }
	coded := hour("coded", 2)
	coded.Code, coded.Message = "too_many_logins", "Too many logins."
	hidden, shadow := hour("hidden", 2), hour("shadow", 0)
	hidden.Hidden, shadow.Shadow = true, true
	for name, c := range map[string]ratelimit.Config{
		"one policy":       {Policies: []ratelimit.Policy{hour("one", 2)}},
		"two policies":     {Policies: []ratelimit.Policy{hour("b", 2), hour("a", 2), hour("plenty", 9)}},
		"a code":           {Policies: []ratelimit.Policy{coded}},
		"hidden, shadow":   {Policies: []ratelimit.Policy{hidden, shadow, hour("shown", 5)}},
		"a bucket":         {Policies: []ratelimit.Policy{forAll("b", ratelimit.TokenBucket(6, time.Minute, 2))}},
		"nothing":          {Policies: []ratelimit.Policy{forAll("n", ratelimit.Nothing())}},
		"no Retry-After":   {Policies: []ratelimit.Policy{hour("one", 2)}, OmitRetryAfter: true},
		"all fields":       {Policies: []ratelimit.Policy{hour("one", 2), hour("two", 3)}, Headers: ratelimit.StandardAndDeltaHeaders},
		"no fields":        {Policies: []ratelimit.Policy{hour("one", 2)}, Headers: ratelimit.NoHeaders},
		"the limit varies": {Policies: []ratelimit.Policy{{Name: "v", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(2, time.Hour), Plans: map[string]ratelimit.Limit{"x": ratelimit.Nothing()}}}},
	} {
		for storeName, store := range stores {
			t.Run(name+", "+storeName, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c.Store = store()
					middleware := newLimiter(t, c).Wrap(ok)
					c.Store = store()
					l := newLimiter(t, c)
					own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						usage, err := l.Allow(r.Context(), 1, ratelimit.Key{})
						l.SetHeader(w.Header(), usage)
						if err != nil {
							usher.Fail(w, r, err)
							return
						}
						ok(w, r)
					})
					for range 4 {
						want, got := do(middleware), do(own)
						if want.Code != got.Code || want.Body.String() != got.Body.String() {
							t.Errorf("%d %s, want %d %s", got.Code, got.Body, want.Code, want.Body)
						}
						if diff := compare.Diff(want.Header(), got.Header()); diff != "" {
							t.Errorf("fields of %d:\n%s", want.Code, diff)
						}
						time.Sleep(time.Second)
					}
				})
			})
		}
	}
}

// A consumer of a queue charges the owner of each job, and puts back what must wait.
func TestAConsumerOfAQueueWaitsAsLongAsItMust(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, ratelimit.Config{Store: store(), Policies: []ratelimit.Policy{
					{Name: "jobs", Key: ratelimit.ByOwner(), Limit: ratelimit.TokenBucket(60, time.Minute, 5)},
					{Name: "day", Key: ratelimit.ByOwner(), Limit: ratelimit.CalendarWindow(1000, ratelimit.Day)},
				}})
				began := time.Now()
				for i, cost := range []int{5, 3, 1, 5} {
					for tries := 0; ; tries++ {
						_, err := l.Allow(t.Context(), cost, ratelimit.OwnerKey("acme"))
						if err == nil {
							break
						}
						refused, _ := errors.AsType[*ratelimit.RefusedError](err)
						if refused == nil || tries > 0 || !slices.Equal(refused.Policies, []string{"jobs"}) {
							t.Fatalf("job %d, try %d: %v", i, tries, err)
						}
						time.Sleep(refused.Wait)
					}
				}
				if took := time.Since(began); took != 9*time.Second {
					t.Errorf("14 units took %v, want 9s after a burst of 5", took)
				}
				_, err := l.Allow(t.Context(), 6, ratelimit.OwnerKey("acme"))
				if refused, _ := errors.AsType[*ratelimit.RefusedError](err); refused == nil || refused.Wait >= 0 {
					t.Errorf("a cost above the burst: %v, want a wait that never ends", err)
				}
				// A request of the account counts with its jobs.
				h := l.Wrap(ok)
				wantCodes(t, codes(1, h, owner("acme")), 429)
				wantCodes(t, codes(1, h, owner("other")), 200)
			})
		})
	}
}

func TestAllowChargesAllPoliciesOrNone(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			parent := newLimiter(t, ratelimit.Config{Store: store(), Policies: []ratelimit.Policy{
				forAll("address", ratelimit.RollingWindow(5, time.Hour)),
			}})
			l := must(t)(parent.With(forAll("name", ratelimit.RollingWindow(2, time.Hour))))
			allow := func(address, name string) []ratelimit.Usage {
				usage, _ := l.Allow(t.Context(), 1, text(address), text(name))
				return usage
			}
			allow("a", "ann")
			allow("b", "ann")
			for range 3 {
				usage := allow("a", "ann")
				if len(usage) != 2 || usage[0].Policy != "address" || usage[0].Violated || usage[0].Remaining != 4 || usage[0].Wait != 0 ||
					usage[1].Policy != "name" || !usage[1].Violated || usage[1].Remaining != 0 || usage[1].Wait <= 0 {
					t.Errorf("%+v", usage)
				}
			}
			if usage := allow("a", "bob"); usage[0].Remaining != 3 || usage[1].Remaining != 1 {
				t.Errorf("%+v, want nothing charged by what was refused", usage)
			}
			if usage, err := l.Allow(t.Context(), -1, text("a"), text("ann")); err != nil || usage[0].Remaining != 3 {
				t.Errorf("a cost below 0: %+v, %v", usage, err)
			}
			wantAllowed(t, parent, text("a"), true, true, true, false)
		})
	}
}

func TestKeysThatTheProgramMakesAreThoseOfRequests(t *testing.T) {
	p := usher.Principal{ID: "key_1", Kind: usher.KindAPIKey, Owner: "acme"}
	alone := usher.Principal{ID: "key_2", Kind: usher.KindAPIKey}
	for name, c := range map[string]struct {
		f      ratelimit.KeyFunc
		caller usher.Principal
		key    ratelimit.Key
	}{
		"a principal":                  {ratelimit.ByPrincipal(), p, ratelimit.PrincipalKey(p)},
		"an owner":                     {ratelimit.ByOwner(), p, ratelimit.OwnerKey("acme")},
		"a principal without an owner": {ratelimit.ByOwner(), alone, ratelimit.PrincipalKey(alone)},
	} {
		t.Run(name, func(t *testing.T) {
			l := limiterOf(t, ratelimit.Policy{Name: "p", Key: c.f, Limit: ratelimit.RollingWindow(2, time.Hour)})
			wantAllowed(t, l, c.key, true)
			wantCodes(t, codes(2, l.Wrap(ok), as(c.caller)), 200, 429)
			wantAllowed(t, l, c.key, false)
		})
	}
	rotated := usher.Principal{ID: "next", Line: "first", Kind: usher.KindAPIKey}
	if ratelimit.PrincipalKey(rotated) != ratelimit.PrincipalKey(usher.Principal{ID: "first", Kind: usher.KindAPIKey}) {
		t.Error("a rotated key has another limit than the first of its line")
	}
	if ratelimit.OwnerKey("a") == ratelimit.TextKey("a") || ratelimit.OwnerKey("a") == ratelimit.PrincipalKey(usher.Principal{ID: "a"}) {
		t.Error("keys of different origins are equal")
	}
}

func TestTheFailureModeAppliesToAllow(t *testing.T) {
	for _, c := range []struct {
		name string
		mode ratelimit.FailureMode
		want []bool
	}{
		{"fall back to memory", ratelimit.FallBackToMemory, []bool{true, true, false}},
		{"open", ratelimit.DangerouslyFailOpen, []bool{true, true, true}},
		{"closed", ratelimit.FailClosed, []bool{false, false, false}},
	} {
		for name, o := range outages {
			t.Run(c.name+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newFlakyStore()
					var reported errorsOf
					meter := new(oteltest.Meter)
					l := newLimiter(t, ratelimit.Config{
						Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour))},
						Store:    store, OnStoreFailure: c.mode, StoreTimeout: storeTimeout, OnError: reported.add, MeterProvider: meter,
					})
					store.Set(o.fault)
					for i, want := range c.want {
						began := time.Now()
						usage, err := l.Allow(t.Context(), 1, ratelimit.Key{})
						if (err == nil) != want || time.Since(began) > o.took {
							t.Errorf("call %d: %v after %v", i, err, time.Since(began))
						}
						if known := c.mode == ratelimit.FallBackToMemory; (usage != nil) != known {
							t.Errorf("call %d: usage %v", i, usage)
						}
						if c.mode != ratelimit.FailClosed {
							continue
						}
						w := httptest.NewRecorder()
						usher.Fail(w, httptest.NewRequest(http.MethodGet, "/", nil), err)
						if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || !strings.Contains(err.Error(), o.cause) {
							t.Errorf("%v, which Fail writes as %d %v", err, w.Code, w.Header())
						}
					}
					if errs := reported.all(); len(errs) != 3 || !strings.Contains(errs[0].Error(), o.cause) {
						t.Errorf("OnError was called with %v", errs)
					}
					if n := results(meter)["store_failed"]; n != 3 {
						t.Errorf("counted %v", results(meter))
					}
					time.Sleep(5 * time.Minute) // until late calls and their refunds have ended
				})
			})
		}
	}
}

func TestAllowIsCountedAsRequestsAre(t *testing.T) {
	meter := new(oteltest.Meter)
	shadow := forAll("shadow", ratelimit.Nothing())
	shadow.Shadow = true
	l := newLimiter(t, ratelimit.Config{
		MeterProvider: meter, Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour)), shadow},
	})
	wantAllowed(t, l, text("a"), true, true, false)
	if diff := compare.Diff(map[string]int64{"acquired": 2, "near_limit": 1, "refused": 1, "shadow_refused": 3}, results(meter)); diff != "" {
		t.Error(diff)
	}
}

func TestACallForAContextThatHasEndedChargesNothing(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			l := newLimiter(t, ratelimit.Config{Store: store(), Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))}})
			cause := errors.New("shutting down")
			ended, end := context.WithCancelCause(t.Context())
			end(cause)
			if _, err := l.Allow(ended, 1, ratelimit.Key{}); !errors.Is(err, cause) {
				t.Errorf("Allow: %v", err)
			}
			if _, err := l.Peek(ended, ratelimit.Key{}); !errors.Is(err, cause) {
				t.Errorf("Peek: %v", err)
			}
			wantAllowed(t, l, ratelimit.Key{}, true, false)
			if err := l.Reset(ended, ratelimit.Key{}); !errors.Is(err, cause) {
				t.Errorf("Reset: %v", err)
			}
			wantAllowed(t, l, ratelimit.Key{}, false)
		})
	}
}

// A store that has decided has charged: the caller learns it even if its time is over.
func TestADecisionCountsThoughItsContextHasEndedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFlakyStore()
		meter := new(oteltest.Meter)
		l := newLimiter(t, ratelimit.Config{
			Store: store, MeterProvider: meter, Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
		})
		store.Set(faulty.Late(20 * time.Millisecond))
		for _, want := range []bool{true, false} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			_, err := l.Allow(ctx, 1, ratelimit.Key{})
			if refused, _ := errors.AsType[*ratelimit.RefusedError](err); (err == nil) != want || (refused != nil) == want {
				t.Errorf("%v, want admitted %t", err, want)
			}
		}
		store.Set(hang)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := l.Allow(ctx, 1, ratelimit.Key{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the end of the context, as nothing was decided", err)
		}
		if n := results(meter)["canceled"]; n != 1 {
			t.Errorf("counted %v", results(meter))
		}
	})
}

// A call that the program must change fails, and charges nothing.
func TestCallsThatCannotBeDecided(t *testing.T) {
	hour := ratelimit.RollingWindow(5, time.Hour)
	perRequest := forAll("p", hour)
	perRequest.LimitFor = func(*http.Request) ratelimit.Limit { return ratelimit.Limit{} }
	plans := ratelimit.Policy{Name: "p", Key: ratelimit.ByOwner(), Limit: hour, Plans: map[string]ratelimit.Limit{"pro": hour}}
	agent := usher.WithPrincipal(httptest.NewRequest(http.MethodGet, "/", nil), &usher.Principal{ID: "agent", Owner: "us", Plan: "pro"}).Context()
	first := forAll("first", ratelimit.RollingWindow(5, time.Hour))
	for _, c := range []struct {
		name        string
		policy      ratelimit.Policy
		keys        []ratelimit.Key
		want        string
		peeks, call bool
	}{
		{"no key", forAll("p", hour), nil, "0 keys for 2 policies", false, false},
		{"too many keys", forAll("p", hour), make([]ratelimit.Key, 3), "3 keys for 2 policies", false, false},
		{"a concurrency limit", forAll("p", ratelimit.Concurrency(5)), []ratelimit.Key{text("a")}, `policy "p" is a concurrency limit`, true, false},
		{"a limit for requests", perRequest, []ratelimit.Key{text("a")}, `LimitFor of policy "p"`, false, false},
		{"an account whose plan is not known", plans, []ratelimit.Key{ratelimit.OwnerKey("acme")}, "the plan of the key is not known", false, false},
		{"a principal whose plan is not known", plans, []ratelimit.Key{ratelimit.PrincipalKey(usher.Principal{ID: "k", Kind: "x"})}, "the plan of the key is not known", false, false},
		{"the account of the caller", plans, []ratelimit.Key{ratelimit.OwnerKey("us")}, "", true, true},
		{"the caller", plans, []ratelimit.Key{ratelimit.PrincipalKey(usher.Principal{ID: "agent"})}, "", true, true},
		{"a text", plans, []ratelimit.Key{text("a")}, "", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := limiterOf(t, first, c.policy)
			_, err := l.Allow(agent, 1, c.keys...)
			if refused, _ := errors.AsType[*ratelimit.RefusedError](err); (err == nil) != c.call || refused != nil {
				t.Errorf("Allow: %v", err)
			}
			if !c.call && !strings.Contains(err.Error(), c.want) {
				t.Errorf("Allow: %v, want %q", err, c.want)
			}
			usage, err := l.Peek(agent, c.keys...)
			if (err == nil) != c.peeks {
				t.Errorf("Peek: %v", err)
			}
			if want := int64(5); c.peeks && !c.call && usage[0].Remaining != want {
				t.Errorf("%d left, want %d", usage[0].Remaining, want)
			}
		})
	}
}

// The plan is that of the account whose key it is, not that of the caller who asks.
func TestTheLimitIsThatOfTheAccountOfTheKey(t *testing.T) {
	var subs subscriptions
	subs.set("acme", "pro")
	subs.set("other", "pro")
	l := planned(t, ratelimit.Config{PlanOf: subs.planOf, Policies: []ratelimit.Policy{{
		Name: "agreed", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(50, time.Hour),
		LimitOf: func(_ context.Context, owner string) (ratelimit.Limit, error) {
			if owner == "acme" {
				return ratelimit.RollingWindow(7, time.Hour), nil
			}
			return ratelimit.Limit{}, nil
		},
	}}})
	agent := usher.WithPrincipal(httptest.NewRequest(http.MethodGet, "/", nil), &usher.Principal{ID: "agent", Owner: "us"}).Context()
	for owner, want := range map[string][]int64{"acme": {7, 5}, "us": {50, 2}, "other": {50, 5}} {
		usage, err := l.Peek(agent, ratelimit.OwnerKey(owner))
		if err != nil || usage[0].Remaining != want[0] || usage[1].Remaining != want[1] {
			t.Errorf("%s: %+v, %v, want %v left", owner, usage, err, want)
		}
		if usage, err = l.Allow(agent, 1, ratelimit.OwnerKey(owner)); err != nil || usage[1].Limit.Quota() != want[1] {
			t.Errorf("%s: %+v, %v", owner, usage, err)
		}
	}
	subs.Set(faulty.Fail)
	_, err := l.Allow(agent, 1, ratelimit.OwnerKey("new"))
	if e, _ := errors.AsType[*usher.Error](err); e == nil || e.Status != http.StatusServiceUnavailable || !errors.Is(err, faulty.ErrStore) {
		t.Errorf("%v, want 503, as the plan is not known", err)
	}
}

// Errors of the program are not those of a decision: nobody else learns of them, and no
// client gets them as a 503.
func TestAnErrorOfTheProgramIsNoFailure(t *testing.T) {
	hour := ratelimit.RollingWindow(5, time.Hour)
	perRequest := forAll("p", hour)
	perRequest.LimitFor = func(*http.Request) ratelimit.Limit { return hour }
	plans := ratelimit.Policy{Name: "p", Key: ratelimit.ByOwner(), Limit: hour, Plans: map[string]ratelimit.Limit{"pro": hour}}
	limits := ratelimit.Policy{Name: "p", Key: ratelimit.ByOwner(), Limit: hour, LimitOf: func(context.Context, string) (ratelimit.Limit, error) {
		return ratelimit.Limit{}, nil
	}}
	planOf := func(context.Context, string) (string, error) { return "pro", nil }
	for name, c := range map[string]struct {
		policy ratelimit.Policy
		planOf func(context.Context, string) (string, error)
		key    ratelimit.Key
	}{
		"LimitFor":                          {perRequest, nil, text("a")},
		"a plan of an account":              {plans, nil, ratelimit.OwnerKey("acme")},
		"a plan of a long name":             {plans, planOf, ratelimit.OwnerKey(strings.Repeat("x", 65))},
		"a plan of another credential":      {plans, planOf, ratelimit.PrincipalKey(usher.Principal{ID: "k", Kind: usher.KindAPIKey})},
		"the limit of a long name":          {limits, nil, ratelimit.OwnerKey(strings.Repeat("x", 65))},
		"the limit of another credential":   {limits, nil, ratelimit.PrincipalKey(usher.Principal{ID: "k", Kind: usher.KindAPIKey})},
		"the plan of one of the same owner": {plans, nil, ratelimit.PrincipalKey(usher.Principal{ID: "other", Kind: usher.KindAPIKey, Owner: "us"})},
	} {
		t.Run(name, func(t *testing.T) {
			var reported errorsOf
			meter := new(oteltest.Meter)
			l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{c.policy}, PlanOf: c.planOf, OnError: reported.add, MeterProvider: meter})
			caller := usher.Principal{ID: "k1", Kind: usher.KindAPIKey, Owner: "us", Plan: "pro"}
			ctx := usher.WithPrincipal(httptest.NewRequest(http.MethodGet, "/", nil), &caller).Context()
			_, err := l.Allow(ctx, 1, c.key)
			if e, ok := errors.AsType[*usher.Error](err); err == nil || ok {
				t.Errorf("%v, %+v", err, e)
			}
			if len(reported.all()) > 0 || len(results(meter)) > 0 {
				t.Errorf("reported %v, counted %v", reported.all(), results(meter))
			}
			if name != "LimitFor" {
				if _, err := l.Allow(ctx, 1, ratelimit.PrincipalKey(caller)); err != nil {
					t.Errorf("the caller itself: %v", err)
				}
			}
		})
	}
}

// Each key has the limit of its own account.
func TestKeysOfSeveralAccounts(t *testing.T) {
	var subs subscriptions
	subs.set("acme", "pro")
	five := ratelimit.Policy{
		Name: "five", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(2, time.Hour),
		Plans: map[string]ratelimit.Limit{"pro": ratelimit.RollingWindow(5, time.Hour)},
	}
	l := planned(t, ratelimit.Config{PlanOf: subs.planOf, Policies: []ratelimit.Policy{five}})
	for range 2 {
		usage, err := l.Peek(t.Context(), ratelimit.OwnerKey("acme"), ratelimit.OwnerKey("other"))
		if err != nil || usage[0].Remaining != 5 || usage[1].Remaining != 2 {
			t.Errorf("%+v, %v", usage, err)
		}
		usage, err = l.Peek(t.Context(), text("a"), ratelimit.OwnerKey("acme"))
		if err != nil || usage[0].Remaining != 2 || usage[1].Remaining != 5 {
			t.Errorf("%+v, %v", usage, err)
		}
	}
}

// Allow handles plans that are not known as requests do.
func TestAllowWithoutAKnownPlan(t *testing.T) {
	pro := map[string]ratelimit.Limit{"pro": ratelimit.RollingWindow(5, time.Hour)}
	shadow := ratelimit.Policy{Name: "shadow", Key: ratelimit.ByOwner(), Limit: ratelimit.Nothing(), Plans: pro, Shadow: true}
	var subs subscriptions
	subs.set("acme", "unknown")
	var reported errorsOf
	l := planned(t, ratelimit.Config{PlanOf: subs.planOf, OnError: reported.add})
	wantAllowed(t, l, ratelimit.OwnerKey("acme"), true, true, false) // its Limit applies
	if n := len(reported.all()); n != 3 {
		t.Errorf("OnError was called with %v", reported.all())
	}

	subs.Set(faulty.Fail)
	l = newLimiter(t, ratelimit.Config{
		PlanOf: subs.planOf, OnError: func(context.Context, error) {},
		Policies: []ratelimit.Policy{shadow, forAll("p", ratelimit.RollingWindow(1, time.Hour))},
	})
	usage, err := l.Allow(t.Context(), 1, ratelimit.OwnerKey("new"))
	if err != nil || len(usage) != 1 || usage[0].Policy != "p" {
		t.Errorf("a shadow policy without a plan: %+v, %v", usage, err)
	}

	synctest.Test(t, func(t *testing.T) {
		var slow subscriptions
		slow.Set(hang)
		meter := new(oteltest.Meter)
		l := planned(t, ratelimit.Config{PlanOf: slow.planOf, MeterProvider: meter, OnError: func(_ context.Context, err error) {
			t.Errorf("a client that leaves is a failure: %v", err)
		}})
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, leave)
		_, err := l.Allow(ctx, 1, ratelimit.OwnerKey("acme"))
		if e, _ := errors.AsType[*usher.Error](err); e == nil || e.Status != usher.StatusClientClosedRequest {
			t.Errorf("%v after its context has ended", err)
		}
		time.Sleep(time.Minute)
	})
}

// A wait is that of the policies that refuse: one in shadow lengthens none.
func TestTheWaitOfARefusedErrorIsThatOfItsPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shadow, never := forAll("shadow", ratelimit.RollingWindow(0, time.Hour)), forAll("never", ratelimit.Nothing())
		shadow.Shadow, never.Shadow = true, true
		l := limiterOf(t, shadow, forAll("minute", ratelimit.RollingWindow(1, time.Minute)), forAll("hour", ratelimit.RollingWindow(1, time.Hour)), forAll("day", ratelimit.RollingWindow(9, 24*time.Hour)), never)
		wantAllowed(t, l, text("a"), true)
		_, err := l.Allow(t.Context(), 1, text("a"))
		refused, _ := errors.AsType[*ratelimit.RefusedError](err)
		if refused == nil || refused.Wait != time.Hour || !slices.Equal(refused.Policies, []string{"hour", "minute"}) {
			t.Errorf("%+v", refused)
		}
	})
}
