package ratelimit_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// A spender is a client of a limiter whose requests reserve and use units.
type spender struct {
	limiter *ratelimit.Limiter
	handler http.Handler
	reserve int
	use     []int // what the handler settles, one after another
	errs    []error
	status  int
}

func newSpender(t testing.TB, s ratelimit.Store, p ratelimit.Policy) *spender {
	t.Helper()
	c := &spender{status: http.StatusOK}
	p.Settle = true
	p.Cost = func(*http.Request) int { return c.reserve }
	c.limiter = newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: s})
	c.handler = c.limiter.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.errs = nil
		for _, n := range c.use {
			c.errs = append(c.errs, ratelimit.Settle(r.Context(), p.Name, n))
		}
		w.WriteHeader(c.status)
	}))
	return c
}

// spend sends a request that reserves and uses so many units.
func (c *spender) spend(reserve int, use ...int) *httptest.ResponseRecorder {
	c.reserve, c.use = reserve, use
	return do(c.handler)
}

// Requests of 900 units on 1,000 a minute use what the bucket earns, and no more, however
// often the client tries.
func TestAnOverrunThatIsPendingHoldsTheRate(t *testing.T) {
	const quota, cost = 1000, 900
	for where, store := range stores {
		for name, pause := range map[string]func(retryAfter string) time.Duration{
			"obeys Retry-After":        func(s string) time.Duration { return seconds(s) },
			"tries ten times a second": func(string) time.Duration { return 100 * time.Millisecond },
		} {
			for _, reserve := range []int{0, 1, cost} {
				t.Run(fmt.Sprintf("%s, reserving %d, a client that %s", where, reserve, name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						p := forAll("units", ratelimit.TokenBucket(quota, time.Minute, quota))
						p.Overrun = ratelimit.OweOverrun
						c := newSpender(t, store(), p)
						used := 0
						for began := time.Now(); time.Since(began) < time.Hour; {
							if res := c.spend(reserve, cost); res.Code == http.StatusOK {
								used += cost
							} else {
								time.Sleep(pause(res.Header().Get("Retry-After")))
							}
						}
						// The burst of the beginning, and the overrun of the last request.
						if least, most := 60*quota, 61*quota+cost; used < least || used > most {
							t.Errorf("%d units used in an hour, want %d to %d", used, least, most)
						}
					})
				})
			}
		}
	}
}

// What ForgiveOverrun gives, as its documentation says.
func TestAnOverrunThatIsForgivenIsLost(t *testing.T) {
	for where, store := range stores {
		for name, c := range map[string]struct {
			limit    ratelimit.Limit
			requests int // in the first minute
		}{
			"rolling window":  {ratelimit.RollingWindow(1000, time.Minute), 2},
			"calendar window": {ratelimit.CalendarWindow(1000, ratelimit.Minute), 2},
			// Two with the burst, and then one for each token.
			"token bucket": {ratelimit.TokenBucket(1000, time.Minute, 1000), 2 + 999},
		} {
			t.Run(where+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSpender(t, store(), forAll("units", c.limit))
					admitted := 0
					for range 1000 {
						if s.spend(0, 900).Code == http.StatusOK {
							admitted++
						}
						if c.requests == 2 && admitted == 2 {
							break
						}
						if admitted >= 2 {
							time.Sleep(60 * time.Millisecond)
						}
					}
					if c.requests == 2 {
						if res := s.spend(0, 900); res.Code != http.StatusTooManyRequests {
							t.Errorf("a third request gets %d", res.Code)
						}
					} else if admitted < 990 {
						t.Errorf("%d requests admitted", admitted)
					}
				})
			})
		}
	}
}

// A bucket of 100 that earns one a second, of which others have used 60.
func TestAnOverrunIsChargedAndRefunded(t *testing.T) {
	for where, store := range stores {
		for _, c := range []struct {
			name      string
			use       []int
			status    int
			shortfall []int64
			wait      int // until the next request, in seconds
			left      int // if there is no wait
		}{
			{"what is left is enough", []int{40}, 200, []int64{0}, 1, 0},
			{"it is exceeded", []int{100}, 200, []int64{60}, 61, 0},
			{"it is exceeded again and again", []int{30, 60, 90}, 200, []int64{0, 20, 50}, 51, 0},
			{"the same cost twice", []int{100, 100}, 200, []int64{60, 60}, 61, 0},
			{"a lower cost after it", []int{100, 50}, 200, []int64{60, 10}, 11, 0},
			{"a cost after it that fits", []int{100, 25}, 200, []int64{60, 0}, 0, 15},
			{"nothing after it", []int{100, 0}, 200, []int64{60, 0}, 0, 40},
			{"it is exceeded, after nothing", []int{100, 0, 100}, 200, []int64{60, 0, 60}, 61, 0},
			{"a failure", []int{100}, 500, []int64{60}, 0, 40},
			{"the most", []int{1e9}, 200, []int64{1e9 - 40}, 1e9 - 99, 0},
		} {
			for _, reserve := range []int{0, 10, 40} {
				t.Run(fmt.Sprintf("%s, %s, %d reserved", where, c.name, reserve), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						p := forAll("units", ratelimit.TokenBucket(100, 100*time.Second, 100))
						p.Overrun = ratelimit.OweOverrun
						p.Count = func(status int) bool { return status < 500 }
						s := newSpender(t, store(), p)
						s.spend(60)
						s.status = c.status
						s.spend(reserve, c.use...)
						for i, err := range s.errs {
							short, _ := errors.AsType[*ratelimit.ExhaustedError](err)
							if want := c.shortfall[i]; (want == 0) != (err == nil) || want > 0 && (short == nil || short.Shortfall != want) {
								t.Errorf("Settle %d: %v, want a shortfall of %d", c.use[i], err, want)
							}
						}
						res := s.spend(0)
						if c.wait > 0 {
							if got := seconds(res.Header().Get("Retry-After")); res.Code != http.StatusTooManyRequests || got != time.Duration(c.wait)*time.Second {
								t.Errorf("status %d, Retry-After %v, want %d seconds", res.Code, got, c.wait)
							}
						} else if got := left(t, res.Header()); got != c.left {
							t.Errorf("%d left, want %d", got, c.left)
						}
					})
				})
			}
		}
	}
}

func TestOverrunsThatMakeNoSenseAreFaults(t *testing.T) {
	bucket := ratelimit.TokenBucket(9, time.Second, 9)
	rolling := ratelimit.RollingWindow(9, time.Second)
	settled := forAll("p", bucket)
	settled.Settle, settled.Overrun = true, ratelimit.OweOverrun
	for name, c := range map[string]struct {
		change func(*ratelimit.Policy)
		field  string // "" for no fault
	}{
		"a token bucket":          {func(*ratelimit.Policy) {}, ""},
		"a policy without Settle": {func(p *ratelimit.Policy) { p.Settle = false }, "ratelimit.Config.Policies[0].Overrun"},
		"an unknown Overrun":      {func(p *ratelimit.Policy) { p.Overrun = 2 }, "ratelimit.Config.Policies[0].Overrun"},
		"a rolling window":        {func(p *ratelimit.Policy) { p.Limit = rolling }, "ratelimit.Config.Policies[0].Limit"},
		"a calendar window":       {func(p *ratelimit.Policy) { p.Limit = ratelimit.CalendarWindow(9, ratelimit.Day) }, "ratelimit.Config.Policies[0].Limit"},
		"unlimited plans": {func(p *ratelimit.Policy) {
			p.Plans = map[string]ratelimit.Limit{"all": ratelimit.Unlimited(), "none": ratelimit.Nothing()}
		}, ""},
		"a plan with a rolling window": {func(p *ratelimit.Policy) {
			p.Plans = map[string]ratelimit.Limit{"pro": rolling, "free": bucket}
		}, `ratelimit.Config.Policies[0].Plans["pro"]`},
	} {
		p := settled
		c.change(&p)
		_, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{p}})
		fault, ok := errors.AsType[*usher.ConfigError](err)
		if got := ""; c.field != "" {
			if ok {
				got = fault.Field
			}
			if got != c.field {
				t.Errorf("%s: %v, want a fault of %s", name, err, c.field)
			}
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Run("LimitFor", func(t *testing.T) {
		p := settled
		p.LimitFor = func(*http.Request) ratelimit.Limit { return rolling }
		var reported errorsOf
		h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, OnError: reported.add}).Wrap(ok)
		wantCodes(t, codes(1, h), 503)
		if errs := reported.all(); len(errs) != 1 || !strings.Contains(errs[0].Error(), "must be a token bucket") {
			t.Errorf("OnError was called with %v", errs)
		}
	})
}
