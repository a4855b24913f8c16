package ratelimit_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
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

// Reset makes flakyStore fail as its other calls do.
func (s *flakyStore) Reset(ctx context.Context, counters []ratelimit.Counter) error {
	if err := s.Call(ctx); err != nil {
		return err
	}
	return s.Memory.Reset(ctx, counters)
}

// ofAllKinds are a policy of each algorithm, with 3 units each.
func ofAllKinds() []ratelimit.Policy {
	var policies []ratelimit.Policy
	for name, l := range map[string]ratelimit.Limit{
		"bucket": ratelimit.TokenBucket(3, time.Hour, 3), "window": ratelimit.RollingWindow(3, time.Hour),
		"day": ratelimit.CalendarWindow(3, ratelimit.Day),
	} {
		policies = append(policies, ratelimit.Policy{Name: name, Key: ratelimit.ByOwner(), Limit: l})
	}
	return policies
}

func TestAPeekChargesCountsAndStoresNothing(t *testing.T) {
	memory := newMemory()
	for name, store := range map[string]ratelimit.Store{"memory": memory, "shared store": &flakyStore{Memory: memory}} {
		for _, p := range ofAllKinds() {
			t.Run(name+", "+p.Name, func(t *testing.T) {
				p.Name += "_" + strings.Fields(name)[0]
				meter := new(oteltest.Meter)
				l := newLimiter(t, ratelimit.Config{Store: store, Policies: []ratelimit.Policy{p}, MeterProvider: meter})
				peek := func(want int64) ratelimit.Usage {
					t.Helper()
					usage, err := l.Peek(t.Context(), ratelimit.OwnerKey("acme"))
					if err != nil || len(usage) != 1 || usage[0].Policy != p.Name || usage[0].Limit != p.Limit || usage[0].Remaining != want {
						t.Fatalf("%+v, %v, want %d left", usage, err, want)
					}
					return usage[0]
				}
				for range 10 {
					if u := peek(3); (u.Reset != 0) != (u.Limit.Algorithm() == ratelimit.AlgorithmCalendarWindow) || u.Violated || u.Wait != 0 {
						t.Errorf("a new key: %+v", u)
					}
				}
				if n := memory.Len(p.Name); n != 0 {
					t.Errorf("%d keys are stored", n)
				}
				wantCodes(t, codes(2, l.Wrap(ok), owner("acme")), 200, 200)
				peek(1)
				if u := peek(1); u.Reset <= 0 || u.Violated || u.Wait != 0 {
					t.Errorf("with one left: %+v", u)
				}
				wantCodes(t, codes(2, l.Wrap(ok), owner("acme")), 200, 429)
				if u := peek(0); !u.Violated || u.Wait <= 0 || u.Wait > 24*time.Hour {
					t.Errorf("with none left: %+v", u)
				}
				if diff := compare.Diff(map[string]int64{"acquired": 3, "near_limit": 1, "refused": 1}, results(meter)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestAPeekShowsPlacesAndHiddenPoliciesButNotWhatIsUnlimited(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			hidden, shadow := forAll("hidden", ratelimit.Nothing()), forAll("shadow", ratelimit.RollingWindow(9, time.Hour))
			hidden.Hidden, shadow.Shadow = true, true
			hidden.Applies = func(*http.Request) bool { return false }
			l := newLimiter(t, ratelimit.Config{Store: store(), Policies: []ratelimit.Policy{
				forAll("places", ratelimit.Concurrency(2)), forAll("unlimited", ratelimit.Unlimited()), hidden, shadow,
			}})
			type seen struct {
				policy    string
				remaining int64
				violated  bool
				hidden    bool
			}
			check := func(want ...seen) {
				t.Helper()
				usage, err := l.Peek(t.Context(), ratelimit.Key{})
				var got []seen
				for _, u := range usage {
					got = append(got, seen{u.Policy, u.Remaining, u.Violated, u.Hidden})
				}
				if diff := compare.Diff(want, got); diff != "" || err != nil {
					t.Errorf("%v\n%s", err, diff)
				}
			}
			check(seen{"places", 2, false, false}, seen{"hidden", 0, true, true}, seen{"shadow", 9, false, true})
			do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				check(seen{"places", 1, false, false}, seen{"hidden", 0, true, true}, seen{"shadow", 8, false, true})
			})))
			check(seen{"places", 2, false, false}, seen{"hidden", 0, true, true}, seen{"shadow", 8, false, true})
		})
	}
}

// A route that shows callers their usage is not limited, and has the fields of one that is.
func TestAUsageRouteHasTheFieldsOfTheMiddlewareOverASocket(t *testing.T) {
	l := limiterOf(t, ratelimit.Policy{Name: "owner", Key: ratelimit.ByOwner(), Limit: ratelimit.TokenBucket(5, 5*time.Hour, 5)})
	auth := usher.Authenticate(planOf{})
	mux := http.NewServeMux()
	mux.Handle("/", usher.Chain(auth, l).Wrap(ok))
	mux.Handle("/usage", auth.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := usher.PrincipalFrom(r.Context())
		usage, err := l.Peek(r.Context(), ratelimit.OwnerKey(caller.Owner))
		if err != nil {
			usher.Fail(w, r, err)
			return
		}
		l.SetHeader(w.Header(), usage)
	})))
	s := httptest.NewServer(mux)
	defer s.Close()
	last := ""
	for range 6 {
		res, _ := get(t, s.URL)
		shown, _ := get(t, s.URL+"/usage")
		if shown.StatusCode != http.StatusOK || shown.Header.Get("RateLimit-Policy") != res.Header.Get("RateLimit-Policy") ||
			strings.Split(shown.Header.Get("RateLimit"), ";t=")[0] != strings.Split(res.Header.Get("RateLimit"), ";t=")[0] {
			t.Errorf("%d with %v, want the fields of %v", shown.StatusCode, shown.Header, res.Header)
		}
		last = shown.Header.Get("RateLimit")
	}
	if !strings.HasPrefix(last, `"owner";r=0;t=3`) {
		t.Errorf("RateLimit %s", last)
	}
}

func TestAResetAdmitsAtOnce(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				policies := append(ofAllKinds(), forAll("places", ratelimit.Concurrency(1)))
				l := newLimiter(t, ratelimit.Config{Store: store(), Policies: policies})
				h := l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					// The place of a running request stays taken.
					if err := l.Reset(t.Context(), ratelimit.Key{}); err != nil {
						t.Error(err)
					}
					wantCodes(t, codes(1, l.Wrap(ok), owner("other")), 429)
				}))
				wantCodes(t, codes(4, l.Wrap(ok), owner("acme")), 200, 200, 200, 429)
				wantCodes(t, codes(1, l.Wrap(ok), owner("other")), 200)
				for range 2 { // it may be repeated
					if err := l.Reset(t.Context(), ratelimit.OwnerKey("acme")); err != nil {
						t.Error(err)
					}
				}
				wantCodes(t, codes(4, l.Wrap(ok), owner("acme")), 200, 200, 200, 429)
				wantCodes(t, codes(3, l.Wrap(ok), owner("other")), 200, 200, 429) // it keeps its use
				if err := l.Reset(t.Context(), ratelimit.OwnerKey("acme")); err != nil {
					t.Error(err)
				}
				do(h, owner("acme"))
			})
		})
	}
}

// One key for each policy resets that key alone under each of them.
func TestAResetOfAKeyForEachPolicy(t *testing.T) {
	l := limiterOf(t, forAll("a", ratelimit.RollingWindow(1, time.Hour)), forAll("b", ratelimit.RollingWindow(1, time.Hour)))
	allow := func(a, b string) bool { _, err := l.Allow(t.Context(), 1, text(a), text(b)); return err == nil }
	if !allow("x", "y") || !allow("y", "x") || allow("x", "new") || allow("new", "y") {
		t.Fatal("the limits do not hold")
	}
	if err := l.Reset(t.Context(), text("x"), text("y")); err != nil {
		t.Fatal(err)
	}
	if !allow("x", "y") || allow("y", "new") || allow("new", "x") {
		t.Error("what was reset is refused, or what was not is admitted")
	}
	if err := l.Reset(t.Context()); err == nil || !strings.Contains(err.Error(), "0 keys for 2 policies") {
		t.Errorf("no key: %v", err)
	}
}

// What a process has counted during an outage is reset too, even if the store still fails.
func TestAResetCoversWhatWasCountedDuringAnOutage(t *testing.T) {
	store := newFlakyStore()
	l := newLimiter(t, ratelimit.Config{
		Store: store, OnError: func(context.Context, error) {},
		Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
	})
	store.Set(faulty.Fail)
	wantAllowed(t, l, text("a"), true, false)
	if err := l.Reset(t.Context(), text("a")); !errors.Is(err, faulty.ErrStore) {
		t.Errorf("%v, want the error of the store", err)
	}
	wantAllowed(t, l, text("a"), true, false)
	store.Set(nil)
	if err := l.Reset(t.Context(), text("a")); err != nil {
		t.Error(err)
	}
}

// Peek and Reset return the error of the store, whatever the failure mode.
func TestPeekAndResetReturnTheErrorOfTheStore(t *testing.T) {
	for _, mode := range []ratelimit.FailureMode{ratelimit.FallBackToMemory, ratelimit.DangerouslyFailOpen, ratelimit.FailClosed} {
		for name, o := range outages {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newFlakyStore()
					var reported errorsOf
					l := newLimiter(t, ratelimit.Config{
						Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour))},
						Store:    store, OnStoreFailure: mode, StoreTimeout: storeTimeout, OnError: reported.add,
					})
					store.Set(o.fault)
					for call, f := range map[string]func() error{
						"Peek":  func() error { _, err := l.Peek(t.Context(), text("a")); return err },
						"Reset": func() error { return l.Reset(t.Context(), text("a")) },
					} {
						began := time.Now()
						err := f()
						e, _ := errors.AsType[*usher.Error](err)
						if e == nil || e.Status != http.StatusServiceUnavailable || !strings.Contains(err.Error(), o.cause) || time.Since(began) > o.took {
							t.Errorf("%s: %v after %v, want 503 for %s", call, err, time.Since(began), o.cause)
						}
					}
					if errs := reported.all(); len(errs) > 0 {
						t.Errorf("OnError was called with %v, though the caller has the error", errs)
					}
					time.Sleep(5 * time.Minute) // until late calls have ended
				})
			})
		}
	}
}

// Refusals that are repeated without asking the store end with a reset.
func TestAResetEndsRefusalsThatAreRepeated(t *testing.T) {
	store := newFlakyStore()
	l := newLimiter(t, ratelimit.Config{
		Store: store, CacheDenials: time.Minute, Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
	})
	wantAllowed(t, l, text("a"), true, false, false, false)
	if err := l.Reset(t.Context(), text("a")); err != nil {
		t.Error(err)
	}
	wantAllowed(t, l, text("a"), true, false)
}

// A reset whose first attempt finds the store unavailable is repeated.
func TestAResetIsRepeatedOnce(t *testing.T) {
	store := newFlakyStore()
	l := newLimiter(t, ratelimit.Config{Store: store, Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))}})
	wantAllowed(t, l, text("a"), true, false)
	store.Set(func(_ context.Context, n int64) error {
		if n == 1 {
			return usher.ErrUnavailable
		}
		return nil
	})
	if err := l.Reset(t.Context(), text("a")); err != nil {
		t.Error(err)
	}
	wantAllowed(t, l, text("a"), true, false)
}

// Where no policy limits the key, there is nothing to ask a store.
func TestWhatIsNotLimitedAsksNoStore(t *testing.T) {
	store := newFlakyStore()
	l := newLimiter(t, ratelimit.Config{Store: store, Policies: []ratelimit.Policy{forAll("p", ratelimit.Unlimited())}})
	store.Set(faulty.Fail)
	for name, call := range map[string]func(context.Context, ...ratelimit.Key) ([]ratelimit.Usage, error){
		"Peek": l.Peek,
		"Allow": func(ctx context.Context, keys ...ratelimit.Key) ([]ratelimit.Usage, error) {
			return l.Allow(ctx, 1, keys...)
		},
	} {
		if usage, err := call(t.Context(), text("a")); err != nil || usage != nil {
			t.Errorf("%s: %v, %v", name, usage, err)
		}
	}
	if n := store.N(); n != 0 {
		t.Errorf("%d calls of the store", n)
	}
}

// SetHeader takes whatever slice of usages it is given.
func TestSetHeaderOfOtherUsages(t *testing.T) {
	l := limiterOf(t, forAll("p", ratelimit.RollingWindow(5, time.Hour)))
	usage, err := l.Peek(t.Context(), text("a"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		usage []ratelimit.Usage
		want  string
	}{
		"none":                  {nil, ""},
		"not made by a limiter": {make([]ratelimit.Usage, 3), ""},
		"more than policies":    {append(usage, usage...), `"p";r=5`},
	} {
		h := http.Header{}
		if l.SetHeader(h, c.usage); h.Get("RateLimit") != c.want {
			t.Errorf("%s: %v", name, h)
		}
	}
}

// A reset that takes effect too late ends the refusals that are repeated since.
func TestALateResetEndsRefusalsThatAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFlakyStore()
		l := newLimiter(t, ratelimit.Config{
			Store: lateResets{store}, StoreTimeout: storeTimeout, CacheDenials: time.Hour,
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
		})
		wantAllowed(t, l, text("a"), true, false)
		if err := l.Reset(t.Context(), text("a")); err == nil {
			t.Error("the timeout is no error")
		}
		wantAllowed(t, l, text("a"), false, false)
		time.Sleep(storeTimeout)
		wantAllowed(t, l, text("a"), true, false)
	})
}

// lateResets is a store whose Reset ignores its context and takes too long.
type lateResets struct{ *flakyStore }

func (s lateResets) Reset(_ context.Context, counters []ratelimit.Counter) error {
	time.Sleep(storeTimeout * 3 / 2)
	return s.Memory.Reset(context.Background(), counters)
}

// An error that another attempt does not change is returned at once.
func TestAResetThatFailsIsNotRepeated(t *testing.T) {
	store := newFlakyStore()
	store.Set(faulty.Fail)
	l := newLimiter(t, ratelimit.Config{Store: store, Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))}})
	if err := l.Reset(t.Context(), text("a")); !errors.Is(err, faulty.ErrStore) || store.N() != 1 {
		t.Errorf("%v after %d calls", err, store.N())
	}
}
