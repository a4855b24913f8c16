package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/ratelimit"
)

// subscriptions are the plans of accounts, which an operator changes at run time.
type subscriptions struct {
	faulty.Calls
	mu    sync.Mutex
	plans map[string]string
}

func (s *subscriptions) set(owner, plan string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plans == nil {
		s.plans = make(map[string]string)
	}
	s.plans[owner] = plan
}

func (s *subscriptions) planOf(ctx context.Context, owner string) (string, error) {
	if err := s.Call(ctx); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plans[owner], nil
}

// planTTL is how long a plan is kept, and planStale how old it may get in an outage.
const (
	planTTL   = 10 * time.Second
	planStale = time.Hour
)

// planned returns a limiter of owners, of 2 an hour without a plan and 5 with the plan
// "pro".
func planned(t testing.TB, c ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	c.Policies = append(c.Policies, ratelimit.Policy{
		Name: "owner", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(2, time.Hour),
		Plans: map[string]ratelimit.Limit{"pro": ratelimit.RollingWindow(5, time.Hour)},
	})
	return newLimiter(t, c)
}

// results returns how often each outcome was counted.
func results(m *oteltest.Meter) map[string]int64 {
	counts := make(map[string]int64)
	for _, c := range m.Counts() {
		if c.Name == "usher.rate_limiting.decisions" {
			continue
		}
		result, _ := c.Attributes.Value("usher.rate_limiting.result")
		counts[result.AsString()] += c.Value
	}
	return counts
}

func owner(name string) func(*http.Request) {
	return as(usher.Principal{ID: "k", Kind: usher.KindAPIKey, Owner: name})
}

// stores are a store in this process and one that is called as a server would be.
var stores = map[string]func() ratelimit.Store{
	"memory":       func() ratelimit.Store { return newMemory() },
	"shared store": func() ratelimit.Store { return newFlakyStore() },
}

func TestAChangeOfPlanKeepsWhatWasUsed(t *testing.T) {
	rolling, bucket, calendar := ratelimit.RollingWindow, ratelimit.TokenBucket, ratelimit.CalendarWindow
	for storeName, store := range stores {
		for _, c := range []struct {
			name       string
			small, big ratelimit.Limit
		}{
			{"rolling windows", rolling(3, time.Hour), rolling(10, time.Hour)},
			{"a rolling window to a bucket", rolling(3, time.Hour), bucket(10, time.Hour, 10)},
			{"a bucket to a calendar window", bucket(3, time.Hour, 3), calendar(10, ratelimit.Day)},
			{"calendar windows", calendar(3, ratelimit.Month), calendar(10, ratelimit.Month)},
		} {
			t.Run(storeName+", "+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var subs subscriptions
					h := newLimiter(t, ratelimit.Config{
						Store: store(), PlanOf: subs.planOf,
						Policies: []ratelimit.Policy{{
							Name: "p", Key: ratelimit.ByOwner(), Limit: c.small,
							Plans: map[string]ratelimit.Limit{"pro": c.big},
						}},
					}).Wrap(ok)
					wantCodes(t, codes(4, h, owner("acme")), 200, 200, 200, 429)
					subs.set("acme", "pro")
					wantCodes(t, codes(1, h, owner("acme")), 429) // it is not known yet
					time.Sleep(planTTL)
					wantCodes(t, codes(8, h, owner("acme")), 200, 200, 200, 200, 200, 200, 200, 429)
					subs.set("acme", "")
					time.Sleep(planTTL)
					wantCodes(t, codes(1, h, owner("acme")), 429)
					wantCodes(t, codes(4, h, owner("other")), 200, 200, 200, 429)
				})
			})
		}
	}
}

func TestAnUnknownPlanIsReportedAndHasTheLimitOfNone(t *testing.T) {
	for name, planOf := range map[string]func(context.Context, string) (string, error){
		"of a credential": nil,
		"of an account":   func(context.Context, string) (string, error) { return "Pro", nil },
	} {
		t.Run(name, func(t *testing.T) {
			var reported errorsOf
			meter := new(oteltest.Meter)
			h := planned(t, ratelimit.Config{PlanOf: planOf, OnError: reported.add, MeterProvider: meter}).Wrap(ok)
			wantCodes(t, codes(3, h, as(usher.Principal{ID: "k", Owner: "acme", Plan: "Pro"})), 200, 200, 429)
			errs := reported.all()
			if len(errs) != 3 || !strings.Contains(errs[0].Error(), `policy "owner" has no plan "Pro"`) {
				t.Errorf("OnError was called with %v", errs)
			}
			if n := results(meter)["plan_unknown"]; n != 3 {
				t.Errorf("counted %v", results(meter))
			}
		})
	}
	t.Run("no plan", func(t *testing.T) {
		var reported errorsOf
		h := planned(t, ratelimit.Config{OnError: reported.add}).Wrap(ok)
		wantCodes(t, codes(3, h, owner("acme")), 200, 200, 429)
		wantCodes(t, codes(3, h), 200, 200, 429)
		if errs := reported.all(); len(errs) > 0 {
			t.Errorf("OnError was called with %v", errs)
		}
	})
}

func TestAPlanIsLookedUpOnceForAllPoliciesAndRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var subs subscriptions
		subs.Set(faulty.Late(100 * time.Millisecond))
		subs.set("acme", "pro")
		hour := ratelimit.RollingWindow(1000, time.Hour)
		l := planned(t, ratelimit.Config{PlanOf: subs.planOf, Policies: []ratelimit.Policy{{
			Name: "second", Key: ratelimit.ByPrincipal(), Limit: hour, Plans: map[string]ratelimit.Limit{"pro": hour},
		}}})
		h := l.Wrap(must(t)(l.With(ratelimit.Policy{
			Name: "inner", Key: ratelimit.ByOwner(), Limit: hour, Plans: map[string]ratelimit.Limit{"pro": hour},
		})).Wrap(ok))
		var wg sync.WaitGroup
		var admitted atomic.Int64
		for range 50 {
			wg.Go(func() {
				if do(h, owner("acme")).Code == http.StatusOK {
					admitted.Add(1)
				}
			})
		}
		wg.Wait()
		if n := subs.N(); n != 1 || admitted.Load() != 5 {
			t.Errorf("%d calls and %d admitted, want 1 and the 5 of the plan", n, admitted.Load())
		}
	})
}

// A caller without an account has no plan but that of its credential.
func TestOnlyAccountsHaveAPlanThatIsLookedUp(t *testing.T) {
	var subs subscriptions
	h := planned(t, ratelimit.Config{PlanOf: subs.planOf}).Wrap(ok)
	wantCodes(t, codes(3, h), 200, 200, 429)
	wantCodes(t, codes(6, h, as(usher.Principal{ID: "k", Kind: usher.KindAPIKey, Plan: "pro"})), 200, 200, 200, 200, 200, 429)
	if n := subs.N(); n != 0 {
		t.Errorf("%d calls", n)
	}
	unlimited := limiterOf(t, forAll("all", ratelimit.RollingWindow(5, time.Hour)))
	wantCodes(t, codes(1, unlimited.Wrap(ok), owner("acme")), 200)
}

func TestWhilePlansFailTheLastOneAppliesForAnHour(t *testing.T) {
	for name, fault := range map[string]faulty.Fault{
		"an error": faulty.Fail,
		"a panic":  faulty.Panic,
		"a hang":   hang,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var subs subscriptions
				var reported errorsOf
				meter := new(oteltest.Meter)
				subs.set("acme", "pro")
				l := planned(t, ratelimit.Config{PlanOf: subs.planOf, OnError: reported.add, MeterProvider: meter})
				h := l.Wrap(ok)
				wantCodes(t, codes(1, h, owner("acme")), 200)
				began := time.Now()
				subs.Set(fault)

				// An account whose plan is not known is refused, and charged nothing.
				w := do(h, owner("new"))
				if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), usher.CodeRateLimitUnavailable) {
					t.Errorf("without a plan: %d %s", w.Code, w.Body)
				}
				if errs := reported.all(); len(errs) != 1 || !strings.Contains(errs[0].Error(), "PlanOf") {
					t.Errorf("OnError was called with %v", errs)
				}
				time.Sleep(planTTL)
				subs.Set(fault)
				before := len(reported.all())
				wantCodes(t, codes(3, h, owner("acme")), 200, 200, 200)
				if n, errs := subs.N(), reported.all()[before:]; n != 1 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "the last result applies") {
					t.Errorf("%d calls in a second, and OnError was called with %v", n, errs)
				}
				time.Sleep(planStale - time.Since(began) - 3*time.Second)
				if got := do(h, owner("acme")).Code; got != http.StatusOK {
					t.Errorf("just within an hour: %d", got)
				}
				time.Sleep(5 * time.Second)
				if got := do(h, owner("acme")).Code; got != http.StatusServiceUnavailable {
					t.Errorf("after an hour: %d", got)
				}
				if counts := results(meter); counts["plan_failed"] != int64(len(reported.all())) {
					t.Errorf("%d reports, but counted %v", len(reported.all()), counts)
				}
				subs.Set(nil)
				wantCodes(t, codes(3, h, owner("new")), 200, 200, 429)
			})
		})
	}
}

// An error that concerns one account stops the calls for no other.
func TestAnAccountWithoutAPlanStopsNoOther(t *testing.T) {
	h := planned(t, ratelimit.Config{
		OnError: func(context.Context, error) {},
		PlanOf: func(_ context.Context, owner string) (string, error) {
			if owner == "deleted" {
				return "", errors.New("no such account")
			}
			return "pro", nil
		},
	}).Wrap(ok)
	for range 100 {
		wantCodes(t, codes(1, h, owner("deleted")), 503)
	}
	wantCodes(t, codes(6, h, owner("acme")), 200, 200, 200, 200, 200, 429)
}

func TestAClientThatDisconnectsDuringALookupIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var subs subscriptions
		var reported errorsOf
		subs.Set(faulty.Late(500 * time.Millisecond))
		meter := new(oteltest.Meter)
		h := planned(t, ratelimit.Config{PlanOf: subs.planOf, OnError: reported.add, MeterProvider: meter}).Wrap(ok)
		w := do(h, func(r *http.Request) {
			ctx, leave := context.WithCancel(r.Context())
			time.AfterFunc(100*time.Millisecond, leave)
			*r = *r.WithContext(ctx)
		}, owner("acme"))
		if w.Code != usher.StatusClientClosedRequest || len(reported.all()) > 0 || results(meter)["canceled"] != 1 {
			t.Errorf("%d, %v, counted %v", w.Code, reported.all(), results(meter))
		}
		time.Sleep(time.Second)
		subs.Set(faulty.Fail) // the lookup has outlived the client
		wantCodes(t, codes(3, h, owner("acme")), 200, 200, 429)
	})
}

func TestAShadowPolicyWithoutAPlanRefusesNothing(t *testing.T) {
	var subs subscriptions
	subs.Set(faulty.Fail)
	var reported errorsOf
	h := newLimiter(t, ratelimit.Config{PlanOf: subs.planOf, OnError: reported.add, Policies: []ratelimit.Policy{{
		Name: "trial", Key: ratelimit.ByOwner(), Limit: ratelimit.Nothing(), Shadow: true,
		Plans: map[string]ratelimit.Limit{"pro": ratelimit.Nothing()},
	}}}).Wrap(ok)
	wantCodes(t, codes(1, h, owner("acme")), 200)
	if len(reported.all()) != 1 {
		t.Errorf("OnError was called with %v", reported.all())
	}
}

func TestThePlansOfABoundedNumberOfAccountsAreKept(t *testing.T) {
	var subs subscriptions
	h := planned(t, ratelimit.Config{PlanOf: subs.planOf}).Wrap(ok)
	const accounts = 12_000
	for range 2 {
		for i := range accounts {
			do(h, owner(fmt.Sprint(i)))
		}
	}
	if n := subs.N(); n < accounts+2000 {
		t.Errorf("%d calls for %d accounts twice: more than 10,000 are kept", n, accounts)
	}
}

// LimitOf is for limits that are agreed with an account: it has the cache of PlanOf.
func TestLimitsOfAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		calls, limits := 0, map[string]ratelimit.Limit{
			"acme": ratelimit.RollingWindow(3, time.Hour), "typo": ratelimit.RollingWindow(-3, time.Hour),
		}
		var fault error
		var reported errorsOf
		h := planned(t, ratelimit.Config{OnError: reported.add, Policies: []ratelimit.Policy{{
			Name: "agreed", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(1, time.Hour),
			LimitOf: func(_ context.Context, owner string) (ratelimit.Limit, error) {
				mu.Lock()
				defer mu.Unlock()
				calls++
				return limits[owner], fault
			},
		}}}).Wrap(ok)
		pro := func(name string) func(*http.Request) {
			return as(usher.Principal{ID: "k", Owner: name, Plan: "pro"})
		}
		wantCodes(t, codes(4, h, pro("acme")), 200, 200, 200, 429)
		wantCodes(t, codes(2, h, pro("other")), 200, 429)
		wantCodes(t, codes(2, h), 200, 429) // no account, so no call
		wantCodes(t, codes(2, h, pro("typo")), 503, 503)
		if errs := reported.all(); calls != 3 || len(errs) != 2 || !strings.Contains(errs[0].Error(), `LimitOf of policy "agreed"`) {
			t.Errorf("%d calls, and OnError was called with %v", calls, errs)
		}
		limits["acme"] = ratelimit.RollingWindow(5, time.Hour)
		time.Sleep(planTTL)
		wantCodes(t, codes(3, h, pro("acme")), 200, 200, 429)
		fault = faulty.ErrStore
		time.Sleep(planTTL)
		wantCodes(t, codes(1, h, pro("acme")), 429)
		wantCodes(t, codes(1, h, pro("unknown")), 503)
		if errs := reported.all(); !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, faulty.ErrStore) }) {
			t.Errorf("OnError was called with %v", errs)
		}
	})
}

// While a source is unavailable, or takes too long, most requests of unknown accounts fail
// at once. Other errors concern one account.
func TestASourceOfPlansThatIsDownIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		down bool
	}{
		"unavailable": {fmt.Errorf("plans: %w", usher.ErrUnavailable), true},
		"a timeout":   {fmt.Errorf("plans: %w", context.DeadlineExceeded), true},
		"not found":   {errors.New("plans: no such account"), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var subs subscriptions
				subs.Set(func(context.Context, int64) error { return c.err })
				h := planned(t, ratelimit.Config{PlanOf: subs.planOf, OnError: func(context.Context, error) {}}).Wrap(ok)
				for i := range 100 {
					wantCodes(t, codes(1, h, owner(fmt.Sprint(i))), 503)
				}
				if n := subs.N(); n == 100 == c.down {
					t.Errorf("%d calls for 100 accounts", n)
				}
			})
		})
	}
}

// One decision asks once for the plan of its account, even if that fails.
func TestAPlanThatIsNotKnownIsLookedUpOnce(t *testing.T) {
	var subs subscriptions
	subs.Set(faulty.Fail)
	var policies []ratelimit.Policy
	for i := range 3 {
		policies = append(policies, ratelimit.Policy{
			Name: fmt.Sprint("shadow", i), Key: ratelimit.ByOwner(), Limit: ratelimit.Nothing(), Shadow: true,
			Plans: map[string]ratelimit.Limit{"pro": ratelimit.Nothing()},
		})
	}
	h := planned(t, ratelimit.Config{PlanOf: subs.planOf, OnError: func(context.Context, error) {}, Policies: policies}).Wrap(ok)
	wantCodes(t, codes(1, h, owner("acme")), 503)
	if n := subs.N(); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// The limit of callers without a plan is Limit, whatever Plans has for a plan without a name.
func TestAnonymousCallersHaveNoPlan(t *testing.T) {
	l := limiterOf(t, ratelimit.Policy{
		Name: "p", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(1, time.Hour),
		Plans: map[string]ratelimit.Limit{"": ratelimit.RollingWindow(2, time.Hour)},
	})
	wantCodes(t, codes(2, l.Wrap(ok)), 200, 429)
	wantCodes(t, codes(3, l.Wrap(ok), owner("acme")), 200, 200, 429)
}
