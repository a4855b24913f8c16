package ratelimit_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// state returns what is left and the effective window in seconds, of a response whose
// RateLimit has one item.
func state(t testing.TB, h http.Header) (left, window int64) {
	t.Helper()
	if _, err := fmt.Sscanf(h.Get("RateLimit"), `"p";r=%d;t=%d`, &left, &window); err != nil {
		t.Fatalf("RateLimit: %s: %v", h.Get("RateLimit"), err)
	}
	return left, window
}

var paced = []struct {
	name  string
	limit ratelimit.Limit
}{
	{"token bucket", ratelimit.TokenBucket(1000, time.Hour, 1000)},
	{"token bucket with a small burst", ratelimit.TokenBucket(1000, time.Hour, 10)},
	{"token bucket with a large burst", ratelimit.TokenBucket(3, 7*time.Second, 500)},
	{"token bucket of less than a second", ratelimit.TokenBucket(10, 100*time.Millisecond, 999)},
	{"rolling window", ratelimit.RollingWindow(100, time.Hour)},
	{"rolling window of a fraction", ratelimit.RollingWindow(7, 1700*time.Millisecond)},
	{"calendar minute", ratelimit.CalendarWindow(50, ratelimit.Minute)},
	{"calendar month", ratelimit.CalendarWindow(1000, ratelimit.Month)},
}

// A client that spreads what is left over the effective window is served each time, and
// stays within the average rate of the policy (draft-ietf-httpapi-ratelimit-headers-11,
// section 8.5).
func TestAClientThatPacesItselfIsServedAtTheAverageRate(t *testing.T) {
	for _, c := range paced {
		for _, cost := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, cost %d", c.name, cost), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(1234567 * time.Microsecond)
					p := forAll("p", c.limit)
					p.Cost = func(*http.Request) int { return cost }
					h := limiterOf(t, p).Wrap(ok)
					for range 3000 {
						w := do(h)
						if w.Code != http.StatusOK {
							t.Fatalf("refused: %v", w.Header())
						}
						left, window := state(t, w.Header())
						pause := time.Duration(window) * time.Second
						if left >= int64(cost) {
							pause = pause * time.Duration(cost) / time.Duration(left)
							if least := c.limit.Per() * time.Duration(cost) / time.Duration(c.limit.Quota()); pause < least {
								t.Fatalf("r=%d;t=%d is a request of cost %d each %v, more often than each %v", left, window, cost, pause, least)
							}
							time.Sleep(pause)
							continue
						}
						// A client that knows its cost waits until it is left.
						for n := left; n < int64(cost); n++ {
							time.Sleep(max(pause, c.limit.Per()/time.Duration(c.limit.Quota())))
						}
					}
				})
			})
		}
	}
}

// A client that uses all that is left at once, and nothing more within the effective
// window of the response it has read, is served each time.
func TestAClientThatUsesAllThatIsLeftIsServed(t *testing.T) {
	for _, c := range paced {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(1234567 * time.Microsecond)
				h := limiterOf(t, forAll("p", c.limit)).Wrap(ok)
				for range 30 {
					w := do(h)
					left, window := state(t, w.Header())
					for range left {
						w = do(h)
					}
					if w.Code != http.StatusOK {
						t.Fatalf("refused: %v", w.Header())
					}
					time.Sleep(time.Duration(window) * time.Second)
				}
			})
		})
	}
}

// X-RateLimit-Reset is when more is left, which other services mean by it too.
func TestTheResetIsNotTheEffectiveWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for style, now := range map[ratelimit.Headers]int64{
			ratelimit.StandardAndDeltaHeaders: 0, ratelimit.StandardAndEpochHeaders: time.Now().Unix(),
		} {
			h := newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{forAll("p", ratelimit.TokenBucket(1000, time.Hour, 1000))}, Headers: style,
			}).Wrap(ok)
			w := do(h)
			if left, window := state(t, w.Header()); left != 999 || window != 3597 {
				t.Errorf("RateLimit: %s", w.Header().Get("RateLimit"))
			}
			if got, want := w.Header().Get("X-RateLimit-Reset"), strconv.FormatInt(now+4, 10); got != want {
				t.Errorf("X-RateLimit-Reset: %s, want %s", got, want)
			}
		}
	})
}

// A store may be wrong.
func TestMoreIsLeftThanAnyLimitHas(t *testing.T) {
	// The last one times an hour is just more than 64 bits.
	for _, left := range []int64{math.MaxInt64, -1, math.MinInt64, math.MaxInt64/int64(time.Hour)*2 + 3} {
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
			Store: &script{take: func(_ context.Context, d *ratelimit.Decision) error {
				d.Admitted, d.Charges[0].Remaining, d.Charges[0].Reset = true, left, 3*time.Second
				return nil
			}},
		}).Wrap(ok)
		if w := do(h); w.Code != http.StatusOK || !strings.HasSuffix(w.Header().Get("RateLimit"), ";t=3") {
			t.Errorf("%d left: %d %v", left, w.Code, w.Header())
		}
	}
}

func TestTheEffectiveWindowOfARefusalIsItsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := forAll("p", ratelimit.TokenBucket(1, time.Second, 100))
		p.Cost = func(r *http.Request) int { n, _ := strconv.Atoi(r.Header.Get("Cost")); return n }
		h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Headers: ratelimit.StandardAndDeltaHeaders}).Wrap(ok)
		do(h, set("Cost", "60"))
		w := do(h, set("Cost", "45"))
		if left, window := state(t, w.Header()); left != 40 || window != 5 {
			t.Errorf("RateLimit: %s", w.Header().Get("RateLimit"))
		}
		if h := w.Header(); h.Get("Retry-After") != "5" || h.Get("X-RateLimit-Reset") != "5" {
			t.Errorf("%v", h)
		}
	})
}

// No field of any limit that New accepts is negative or absurd.
func TestFieldsOfTheLargestLimits(t *testing.T) {
	const decade = 10 * 366 * 24 * time.Hour
	for name, limit := range map[string]ratelimit.Limit{
		"one in ten years":              ratelimit.RollingWindow(1, decade),
		"a bucket of one in ten years":  ratelimit.TokenBucket(1, decade, 1),
		"a bucket of nearly a century":  ratelimit.TokenBucket(1, decade, 9),
		"the largest quota and burst":   ratelimit.TokenBucket(1e9, decade, 1e9),
		"the shortest period":           ratelimit.TokenBucket(1e9, time.Microsecond, 1e9),
		"a burst far over a quota of 1": ratelimit.TokenBucket(1, time.Second, 1e9),
		"the largest window":            ratelimit.RollingWindow(1e9, decade),
		"a calendar year":               ratelimit.CalendarWindow(1e9, ratelimit.Year),
	} {
		for _, style := range []ratelimit.Headers{ratelimit.StandardAndEpochHeaders, ratelimit.StandardAndDeltaHeaders} {
			t.Run(fmt.Sprint(name, style), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := forAll("p", limit)
					p.Cost = func(r *http.Request) int { n, _ := strconv.Atoi(r.Header.Get("Cost")); return n }
					h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Headers: style}).Wrap(ok)
					most := int64(100 * 366 * 24 * time.Hour / time.Second)
					all := max(limit.Burst(), 1)
					if limit.Algorithm() != ratelimit.AlgorithmTokenBucket {
						all = limit.Quota()
					}
					for i, cost := range []int64{1, all - 1, all} {
						w := do(h, set("Cost", strconv.FormatInt(cost, 10)))
						if want := []int{200, 200, 429}[i]; w.Code != want {
							t.Fatalf("status %d of request %d, want %d", w.Code, i, want)
						}
						reset, err := strconv.ParseInt(w.Header().Get("X-RateLimit-Reset"), 10, 64)
						if style == ratelimit.StandardAndEpochHeaders {
							reset -= time.Now().Unix()
						}
						if err != nil || reset < 1 || reset > most {
							t.Errorf("X-RateLimit-Reset in %d s: %v", reset, w.Header())
						}
						if _, window := state(t, w.Header()); window < reset && i < 2 || window < 1 || window > most {
							t.Errorf("t=%d, reset in %d s", window, reset)
						}
						if after := seconds(w.Header().Get("Retry-After")); i == 2 && (after < time.Second || int64(after/time.Second) != reset) {
							t.Errorf("Retry-After %v, reset in %d s", after, reset)
						}
					}
				})
			})
		}
	}
}

func TestUnit(t *testing.T) {
	policy := func(unit string, l ratelimit.Limit) ratelimit.Policy {
		p := forAll("p", l)
		p.Unit = unit
		return p
	}
	for _, tt := range []struct {
		name   string
		policy ratelimit.Policy
		want   string
	}{
		{"bytes", policy("content-bytes", ratelimit.RollingWindow(1000, time.Minute)), `"p";q=1000;qu="content-bytes";w=60`},
		{"quotes and backslashes", policy(`a "b" \c`, ratelimit.RollingWindow(1000, time.Minute)), `"p";q=1000;qu="a \"b\" \\c";w=60`},
		{"no unit", policy("", ratelimit.RollingWindow(1000, time.Minute)), `"p";q=1000;w=60`},
		{"places", policy("", ratelimit.Concurrency(2)), `"p";q=2;qu="concurrent-requests"`},
		{"a burst beside the quota", policy("tokens", ratelimit.TokenBucket(1000, time.Hour, 10)), `"p";q=1000;qu="tokens";w=3600;usher-burst=10`},
		{"the burst is the quota", policy("", ratelimit.TokenBucket(10, time.Hour, 10)), `"p";q=10;w=3600`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := do(limiterOf(t, tt.policy).Wrap(ok)).Header().Get("RateLimit-Policy"); got != tt.want {
				t.Errorf("RateLimit-Policy: %s, want %s", got, tt.want)
			}
		})
	}
	other := policy("content-bytes", ratelimit.RollingWindow(1, time.Minute))
	other.LimitFor = func(*http.Request) ratelimit.Limit { return ratelimit.RollingWindow(5, time.Minute) }
	if got := do(limiterOf(t, other).Wrap(ok)).Header().Get("RateLimit-Policy"); got != `"p";q=5;qu="content-bytes";w=60` {
		t.Errorf("a limit for one request: RateLimit-Policy: %s", got)
	}
	for name, p := range map[string]ratelimit.Policy{
		"a control character":                    policy("a\n", ratelimit.RollingWindow(1, time.Minute)),
		"beyond ASCII":                           policy("octets²", ratelimit.RollingWindow(1, time.Minute)),
		"invalid UTF-8":                          policy("\xff", ratelimit.RollingWindow(1, time.Minute)),
		"DEL":                                    policy("\x7f", ratelimit.RollingWindow(1, time.Minute)),
		"65 characters":                          policy(strings.Repeat("a", 65), ratelimit.RollingWindow(1, time.Minute)),
		"a concurrency limit has one of its own": policy("requests", ratelimit.Concurrency(1)),
	} {
		if _, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{p}}); err == nil || !strings.Contains(err.Error(), "Unit") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// If no wait helps a request, or all is left, t is about other requests, or is left out.
func TestTheEffectiveWindowOfWhatNeverFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := forAll("p", ratelimit.RollingWindow(10, time.Minute))
		p.Cost = func(r *http.Request) int { n, _ := strconv.Atoi(r.Header.Get("Cost")); return n }
		h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Headers: ratelimit.StandardAndDeltaHeaders}).Wrap(ok)
		for _, c := range []struct{ cost, state, retry, reset string }{
			{"0", `"p";r=10`, "", "0"},
			{"11", `"p";r=10`, "", "0"},
			{"3", `"p";r=7;t=60`, "", "60"},
			{"11", `"p";r=7;t=60`, "", "60"},
		} {
			f := do(h, set("Cost", c.cost)).Header()
			if f.Get("RateLimit") != c.state || f.Get("Retry-After") != c.retry || f.Get("X-RateLimit-Reset") != c.reset {
				t.Errorf("cost %s: %v, want %v", c.cost, f, c)
			}
		}
	})
}

// X-RateLimit fields describe the policy that limits the client first.
func TestTheTightestPolicy(t *testing.T) {
	hour := ratelimit.RollingWindow(5, time.Hour)
	dear := forAll("dear", ratelimit.RollingWindow(9, time.Hour))
	dear.Cost = func(*http.Request) int { return 7 }
	for name, c := range map[string]struct {
		policies []ratelimit.Policy
		outer    string // X-RateLimit-Remaining of an outer handler
		want     string // limit, remaining and reset of the second response
	}{
		"not a concurrency limit":                        {[]ratelimit.Policy{forAll("places", ratelimit.Concurrency(1)), forAll("p", hour)}, "", "5 3 3600"},
		"a limit of nothing of those with nothing left":  {[]ratelimit.Policy{forAll("one", ratelimit.RollingWindow(1, time.Hour)), forAll("none", ratelimit.Nothing())}, "", "0 0 "},
		"one that refuses, though another has less left": {[]ratelimit.Policy{dear, forAll("one", ratelimit.RollingWindow(2, time.Hour))}, "", "9 2 3600"},
		"one that refuses, though an outer one has less": {[]ratelimit.Policy{dear}, "1", "9 2 3600"},
		"an outer one with less":                         {[]ratelimit.Policy{forAll("p", hour)}, "2", " 2 "},
		"not an outer one that cannot be read":           {[]ratelimit.Policy{forAll("p", hour)}, "many", "5 3 3600"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := newLimiter(t, ratelimit.Config{Policies: c.policies, Headers: ratelimit.DeltaHeaders}).Wrap(ok)
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if c.outer != "" {
						w.Header().Set("X-RateLimit-Remaining", c.outer)
					}
					inner.ServeHTTP(w, r)
				})
				do(h)
				f := do(h).Header()
				if got := f.Get("X-RateLimit-Limit") + " " + f.Get("X-RateLimit-Remaining") + " " + f.Get("X-RateLimit-Reset"); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}
