package ratelimit_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// budgets has a limit of 100 for each algorithm, with a period that no test outlasts.
var budgets = map[string]ratelimit.Limit{
	"token bucket":    ratelimit.TokenBucket(100, 10_000*time.Hour, 100),
	"rolling window":  ratelimit.RollingWindow(100, 24*time.Hour),
	"calendar window": ratelimit.CalendarWindow(100, ratelimit.Year),
}

// inStores returns each limit with each of the stores.
func inStores(limits map[string]ratelimit.Limit) map[string]storedLimit {
	all := make(map[string]storedLimit)
	for name, l := range limits {
		for where, store := range stores {
			all[name+", "+where] = storedLimit{l, store}
		}
	}
	return all
}

type storedLimit struct {
	ratelimit.Limit
	store func() ratelimit.Store
}

// budget returns a handler that reserves, settles and responds as the header fields of a
// request ask.
func budget(t testing.TB, store ratelimit.Store, l ratelimit.Limit) http.Handler {
	t.Helper()
	number := func(r *http.Request, name string) int {
		n, _ := strconv.Atoi(r.Header.Get(name))
		return n
	}
	p := forAll("units", l)
	p.Settle = true
	p.Cost = func(r *http.Request) int { return number(r, "Reserve") }
	p.Count = func(status int) bool { return status < 500 }
	limiter := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store})
	return limiter.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for cost := range strings.FieldsSeq(r.Header.Get("Settle")) {
			n, _ := strconv.Atoi(cost)
			if err := ratelimit.Settle(r.Context(), "units", n); err != nil && !errors.Is(err, ratelimit.ErrExhausted) {
				t.Error(err)
			}
		}
		w.WriteHeader(max(number(r, "Status"), 200))
	}))
}

// left returns the units that are left according to a response.
func left(t testing.TB, h http.Header) int {
	t.Helper()
	_, after, _ := strings.Cut(h.Get("RateLimit"), ";r=")
	digits, _, _ := strings.Cut(after, ";")
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatalf("RateLimit: %s", h.Get("RateLimit"))
	}
	return n
}

func TestABudgetRefundsOnlyWhatWasTakenOverASocket(t *testing.T) {
	for name, l := range inStores(budgets) {
		for _, c := range []struct {
			name   string
			settle string
			status string
			left   int
		}{
			{"a request that fails after it has settled above what was left", "100", "500", 40},
			{"one that settles back", "100 10", "200", 30},
			{"one that settles back and up", "100 0 5 200 7", "200", 33},
			{"one that keeps it", "100", "200", 0},
		} {
			t.Run(name+", "+c.name, func(t *testing.T) {
				s := httptest.NewServer(budget(t, l.store(), l.Limit))
				defer s.Close()
				get(t, s.URL, "Reserve", "60")
				get(t, s.URL, "Reserve", "10", "Settle", c.settle, "Status", c.status)
				res, _ := get(t, s.URL, "Reserve", "0")
				if got := left(t, res.Header); got != c.left {
					t.Errorf("%d left, want %d", got, c.left)
				}
			})
		}
	}
}

func TestABudgetCannotBeSpentManyTimes(t *testing.T) {
	for name, l := range inStores(budgets) {
		t.Run(name, func(t *testing.T) {
			h := budget(t, l.store(), l.Limit)
			kept := 0
			for range 100 {
				if do(h, set("Reserve", "60")).Code == http.StatusOK {
					kept += 60
				}
				do(h, set("Reserve", "10"), set("Settle", "200"), set("Status", "500"))
			}
			if kept > 100 {
				t.Errorf("%d units of 100 were kept", kept)
			}
		})
	}
}

func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// What is charged only at the end still meets the limit, and the handler learns when.
func TestAReservationOfNothingNeedsSomethingToBeLeft(t *testing.T) {
	for name, l := range inStores(budgets) {
		t.Run(name, func(t *testing.T) {
			h := budget(t, l.store(), l.Limit)
			for i := range 2 {
				if code := do(h, set("Reserve", "0"), set("Settle", "50")).Code; code != http.StatusOK {
					t.Fatalf("request %d: status %d", i+1, code)
				}
			}
			w := do(h, set("Reserve", "0"), set("Settle", "50"))
			if w.Code != http.StatusTooManyRequests || left(t, w.Header()) != 0 || seconds(w.Header().Get("Retry-After")) <= 0 {
				t.Errorf("with nothing left: %d %v", w.Code, w.Header())
			}
		})
	}
}

func TestAStreamLearnsWhenItsBudgetIsOver(t *testing.T) {
	for name, l := range inStores(budgets) {
		t.Run(name, func(t *testing.T) {
			p := forAll("units", l.Limit)
			p.Settle, p.Message = true, "Budget used up."
			p.Cost = func(*http.Request) int { return 0 }
			chunks := 0
			limiter := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: l.store()})
			s := httptest.NewServer(limiter.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for chunks = 1; ; chunks++ {
					err := ratelimit.Settle(r.Context(), "units", 30*chunks)
					if err == nil {
						continue
					}
					short, _ := errors.AsType[*ratelimit.ExhaustedError](err)
					if !errors.Is(err, ratelimit.ErrExhausted) || short == nil || short.Policy != "units" || short.Shortfall != 20 {
						t.Errorf("got %v, want a shortfall of 20", err)
					}
					usher.Fail(w, r, fmt.Errorf("chunk %d: %w", chunks, err))
					return
				}
			})))
			defer s.Close()
			res, body := get(t, s.URL)
			if chunks != 4 || res.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "Budget used up.") {
				t.Errorf("after %d chunks: %d %s", chunks, res.StatusCode, body)
			}
		})
	}
}

// Units that are charged after the request began are in the window of the request.
func TestAnExtraCostExpiresWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := forAll("units", ratelimit.RollingWindow(100, time.Minute))
		p.Settle = true
		limiter := limiterOf(t, p)
		do(limiter.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			time.Sleep(10 * time.Second)
			do(limiter.Wrap(ok))
			if err := ratelimit.Settle(r.Context(), "units", 90); err != nil {
				t.Error(err)
			}
			if got := left(t, do(limiter.Wrap(ok)).Header()); got != 8 {
				t.Errorf("%d left, want 8", got)
			}
		})))
		time.Sleep(50 * time.Second)
		if got := left(t, do(limiter.Wrap(ok)).Header()); got != 97 {
			t.Errorf("a minute after the request %d left, want 97", got)
		}
	})
	t.Run("an extra cost counts in the present window if that of the request has ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := forAll("units", ratelimit.RollingWindow(100, time.Minute))
			p.Settle = true
			limiter := limiterOf(t, p)
			do(limiter.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				time.Sleep(2 * time.Minute)
				if err := ratelimit.Settle(r.Context(), "units", 91); err != nil {
					t.Error(err)
				}
			})))
			if got := left(t, do(limiter.Wrap(ok)).Header()); got != 9 {
				t.Errorf("%d left, want 9", got)
			}
		})
	})
}

func TestSettleFailsWhereNothingWasCharged(t *testing.T) {
	settled := func(l ratelimit.Limit, change func(*ratelimit.Policy)) (err error) {
		p := forAll("units", l)
		p.Settle = true
		change(&p)
		do(limiterOf(t, p).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			err = ratelimit.Settle(r.Context(), "units", 5)
		})))
		return err
	}
	for name, err := range map[string]error{
		"a policy that does not apply": settled(ratelimit.RollingWindow(9, time.Hour), func(p *ratelimit.Policy) {
			p.Applies = func(*http.Request) bool { return false }
		}),
		"an unlimited one": settled(ratelimit.Unlimited(), func(*ratelimit.Policy) {}),
		"one in shadow that could not cover it": settled(ratelimit.RollingWindow(0, time.Hour), func(p *ratelimit.Policy) {
			p.Shadow = true
		}),
	} {
		if !errors.Is(err, ratelimit.ErrNotSettled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// However many requests run at a time, they use no more than the budget: those that reserve
// the most that they may need, and those that end when Settle reports that it is over.
func TestConcurrentRequestsNeverOverspend(t *testing.T) {
	const budget, clients, requests, reserve = 100_000, 64, 20, 4000
	limits := map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(budget, 10_000*time.Hour, budget),
		"rolling window":  ratelimit.RollingWindow(budget, 24*time.Hour),
		"calendar window": ratelimit.CalendarWindow(budget, ratelimit.Year),
	}
	for name, l := range inStores(limits) {
		for use, most := range map[string]int{"at most what they reserve": reserve, "more than they reserve": 2 * reserve} {
			t.Run(name+", "+use, func(t *testing.T) {
				for range 10 {
					var spent atomic.Int64
					p := forAll("units", l.Limit)
					p.Settle, p.Cost = true, func(*http.Request) int { return reserve }
					store := l.store()
					limiter := newLimiter(t, ratelimit.Config{
						Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: time.Minute, OnStoreFailure: ratelimit.FailClosed,
					})
					h := limiter.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						cost := 1 + rand.IntN(most)
						for used := 0; used < cost; {
							used = min(used+reserve/2, cost)
							runtime.Gosched()
							err := ratelimit.Settle(r.Context(), "units", max(used, reserve))
							if over, ok := errors.AsType[*ratelimit.ExhaustedError](err); ok {
								spent.Add(int64(used) - over.Shortfall)
								return
							} else if err != nil {
								t.Error(err)
							}
						}
						if err := ratelimit.Settle(r.Context(), "units", cost); err != nil {
							t.Error(err)
						}
						spent.Add(int64(cost))
					}))
					var running sync.WaitGroup
					for range clients {
						running.Go(func() { codes(requests, h) })
					}
					running.Wait()
					shutDown(t, limiter)
					if n := spent.Load(); n > budget || n < budget-2*reserve {
						t.Errorf("%d units of %d were used", n, budget)
					}
					charges := []ratelimit.Charge{{Policy: "units", Limit: l.Limit}}
					if _, err := take(t.Context(), store, charges); err != nil || charges[0].Remaining != budget-spent.Load() {
						t.Errorf("%d left after %d were used (%v)", charges[0].Remaining, spent.Load(), err)
					}
				}
			})
		}
	}
}

// Settle may be called from several goroutines. The last call counts.
func TestSettleFromSeveralGoroutines(t *testing.T) {
	for name, l := range inStores(budgets) {
		for _, reserve := range []int{0, 40} {
			t.Run(fmt.Sprintf("%s, %d reserved", name, reserve), func(t *testing.T) {
				p := forAll("units", l.Limit)
				p.Settle, p.Cost = true, func(*http.Request) int { return reserve }
				store := l.store()
				limiter := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: time.Minute, OnStoreFailure: ratelimit.FailClosed,
				})
				do(limiter.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					var workers sync.WaitGroup
					for range 8 {
						workers.Go(func() {
							for range 25 {
								if err := ratelimit.Settle(r.Context(), "units", rand.IntN(150)); err != nil && !errors.Is(err, ratelimit.ErrExhausted) {
									t.Error(err)
								}
							}
						})
					}
					workers.Wait()
					if err := ratelimit.Settle(r.Context(), "units", 30); err != nil {
						t.Error(err)
					}
				})))
				shutDown(t, limiter)
				charges := []ratelimit.Charge{{Policy: "units", Limit: l.Limit}}
				if _, err := take(t.Context(), store, charges); err != nil || charges[0].Remaining != 70 {
					t.Errorf("%d left, want 70 (%v)", charges[0].Remaining, err)
				}
			})
		}
	}
}
