package ratelimit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/ratelimit"
)

// delaying returns a policy of 10 requests a second, of which 5 may wait.
func delaying(name string) ratelimit.Policy {
	p := forAll(name, ratelimit.TokenBucket(10, time.Second, 1))
	p.Delay = 500 * time.Millisecond
	return p
}

// A queue sends requests to a handler in a synctest bubble and records when the handler
// has served which.
type queue struct {
	handler http.Handler
	began   time.Time
	group   sync.WaitGroup

	mu     sync.Mutex
	served []string          // in order, each with its time in milliseconds
	codes  map[string]int    // of all responses
	waits  map[string]string // Retry-After
	header map[string]http.Header
}

func newQueue(m usher.Middleware) *queue {
	q := &queue{began: time.Now(), codes: map[string]int{}, waits: map[string]string{}, header: map[string]http.Header{}}
	q.handler = m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.served = append(q.served, fmt.Sprintf("%s@%d", r.URL.Path[1:], q.since().Milliseconds()))
		w.WriteHeader(http.StatusOK)
	}))
	return q
}

func (q *queue) since() time.Duration { return time.Since(q.began).Round(time.Microsecond) }

// send sends a request, and returns once it waits or has its response.
func (q *queue) send(ctx context.Context, name string) {
	q.group.Go(func() {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/"+name, nil)
		w := httptest.NewRecorder()
		q.handler.ServeHTTP(w, r)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.codes[name], q.waits[name], q.header[name] = w.Code, w.Header().Get("Retry-After"), w.Header()
	})
	synctest.Wait()
}

// sendAll sends one request for each letter.
func (q *queue) sendAll(t *testing.T, letters string) {
	for _, l := range letters {
		q.send(t.Context(), string(l))
	}
}

// want waits for all responses and checks which requests were served, in which order and
// when.
func (q *queue) want(t *testing.T, served string) {
	t.Helper()
	q.group.Wait()
	if got := strings.Join(q.served, " "); got != served {
		t.Errorf("served %s\n  want %s", got, served)
	}
}

// code returns the status of the response to a request, or 0 if it has none yet.
func (q *queue) code(name string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.codes[name]
}

// field returns a field of the response to a request.
func (q *queue) field(name, field string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.header[name].Get(field)
}

func (q *queue) refused() (n int) {
	for _, code := range q.codes {
		if code == http.StatusTooManyRequests {
			n++
		}
	}
	return n
}

func TestDelayedRequestsHaveTheirTurnsAtTheRate(t *testing.T) {
	burst := delaying("p")
	burst.Limit = ratelimit.TokenBucket(10, time.Second, 3)
	slow := delaying("p")
	slow.Limit, slow.Delay = ratelimit.TokenBucket(3, time.Second, 1), time.Second
	costly := delaying("p")
	costly.Limit = ratelimit.TokenBucket(10, time.Second, 2)
	costly.Cost = func(r *http.Request) int { n, _ := strconv.Atoi(r.URL.Path[1:2]); return n }
	for name, tt := range map[string]struct {
		policy  ratelimit.Policy
		letters string
		served  string
		refused int
	}{
		"one after another, in order":       {delaying("p"), "abcdefgh", "a@0 b@100 c@200 d@300 e@400 f@500", 2},
		"a burst needs no turns":            {burst, "abcdefghij", "a@0 b@0 c@0 d@100 e@200 f@300 g@400 h@500", 2},
		"thirds of a second":                {slow, "abcde", "a@0 b@333 c@666 d@1000", 1},
		"a cost waits for all its units":    {costly, "212", "2@0 1@100 2@300", 0},
		"a cost of 0 needs no turn":         {costly, "2010", "2@0 0@0 0@0 1@100", 0},
		"a cost above the burst never fits": {costly, "3", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(limiterOf(t, tt.policy))
				for i, l := range tt.letters {
					// Names differ, where the letter is a cost.
					name := string(l)
					if l <= '9' && i > 0 && strings.ContainsRune(tt.letters[:i], l) {
						name += strings.Repeat("'", i)
					}
					q.send(t.Context(), name)
				}
				q.group.Wait()
				if got := strings.ReplaceAll(strings.Join(q.served, " "), "'", ""); got != tt.served {
					t.Errorf("served %s\n  want %s", got, tt.served)
				}
				if got := q.refused(); got != tt.refused {
					t.Errorf("%d refused, want %d: %v", got, tt.refused, q.codes)
				}
			})
		})
	}
}

// A model of a line of 10 a second without a burst, in milliseconds.
type model struct {
	last    int // the turn of the request served last
	waiting []string
	served  []string
}

// pass serves those whose turns come until now.
func (m *model) pass(now int) {
	for len(m.waiting) > 0 && m.last+100 <= now {
		m.last += 100
		m.served = append(m.served, fmt.Sprintf("%s@%d", m.waiting[0], m.last))
		m.waiting = m.waiting[1:]
	}
}

func (m *model) arrive(now int, name string) {
	m.pass(now)
	if len(m.waiting) == 0 && m.last+100 <= now {
		m.last = now
		m.served = append(m.served, fmt.Sprintf("%s@%d", name, now))
	} else if m.last+100*(len(m.waiting)+1) <= now+500 {
		m.waiting = append(m.waiting, name)
	}
}

func (m *model) leave(now int, name string) {
	m.pass(now)
	if i := slices.Index(m.waiting, name); i >= 0 {
		m.waiting = slices.Delete(m.waiting, i, i+1)
	}
}

// However requests come and leave, those in line are served in order, at exactly the rate, and
// after at most Delay; those behind one that leaves move up.
func TestALineAgreesWithAModel(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			q := newQueue(limiterOf(t, delaying("p")))
			m := &model{last: -100}
			leaves := map[int]string{} // by the millisecond after which they leave
			now := 0
			advance := func(ms int) {
				for range ms {
					time.Sleep(time.Millisecond / 2)
					if name := leaves[now]; name != "" {
						m.leave(now, name)
					}
					synctest.Wait()
					time.Sleep(time.Millisecond / 2)
					now++
				}
			}
			for i := range 100 {
				name := strconv.Itoa(i)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if after := now + random.IntN(600); random.IntN(3) == 0 && leaves[after] == "" {
					leaves[after] = name
					time.AfterFunc(time.Duration(after-now)*time.Millisecond+time.Millisecond/2, cancel)
				}
				m.arrive(now, name)
				q.send(ctx, name)
				advance(random.IntN(130))
			}
			advance(600)
			m.pass(now)
			q.want(t, strings.Join(m.served, " "))
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestAFullLineReportsWhenThereIsRoom(t *testing.T) {
	p := forAll("p", ratelimit.TokenBucket(1, time.Second, 1))
	p.Delay = 3 * time.Second
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Headers: ratelimit.StandardAndDeltaHeaders}))
		q.sendAll(t, "abcdx")
		if q.code("x") != 429 || q.field("x", "Retry-After") != "1" {
			t.Fatalf("x: %d, Retry-After %q", q.code("x"), q.field("x", "Retry-After"))
		}
		for field, want := range map[string]string{
			"Ratelimit-Policy": `"p";q=1;w=1;usher-burst=4`, "Ratelimit": `"p";r=0;t=1`, "X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "1",
		} {
			if got := q.field("x", field); got != want {
				t.Errorf("%s: %s, want %s", field, got, want)
			}
		}
		time.Sleep(time.Second)
		q.sendAll(t, "ey") // e obeys
		q.want(t, "a@0 b@1000 c@2000 d@3000 e@4000")
		// What is left counts the room of the line.
		if got := q.field("a", "Ratelimit"); !strings.HasPrefix(got, `"p";r=`) {
			t.Errorf("a: RateLimit: %s", got)
		}
		if a, x := q.field("a", "Ratelimit-Policy"), q.field("x", "Ratelimit-Policy"); a != x {
			t.Errorf("RateLimit-Policy: %s when admitted, and %s when refused", a, x)
		}
	})
}

func TestAClientThatLeavesALineGivesItsChargesBack(t *testing.T) {
	hour := forAll("hour", ratelimit.RollingWindow(4, time.Hour))
	places := forAll("places", ratelimit.Concurrency(6))
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(limiterOf(t, hour, delaying("p"), places))
		q.sendAll(t, "ab")
		ctx, leave := context.WithCancel(t.Context())
		q.send(ctx, "c")
		q.sendAll(t, "d")
		leave()
		synctest.Wait()
		if q.code("c") != 499 {
			t.Errorf("the status of the client that has left is %d", q.code("c"))
		}
		q.sendAll(t, "ef") // f finds the hour used up
		q.want(t, "a@0 b@100 d@200 e@300")
		if q.code("f") != 429 {
			t.Errorf("f: %d", q.code("f"))
		}
	})
}

func TestATurnThatComesWhenNobodyTakesItIsNotLost(t *testing.T) {
	p := delaying("p")
	p.Limit = ratelimit.TokenBucket(10, time.Second, 2)
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(limiterOf(t, p))
		q.sendAll(t, "ab")
		ctx, leave := context.WithCancel(t.Context())
		q.send(ctx, "c") // at 100
		leave()
		synctest.Wait()
		time.Sleep(200 * time.Millisecond)
		q.sendAll(t, "def")
		q.want(t, "a@0 b@0 d@200 e@200 f@300")
	})
}

// A request that another policy refuses leaves no gap in the line, whether that is in the
// same decision or in a nested one.
func TestARefusalTakesNoTurn(t *testing.T) {
	byPath := func(n int) ratelimit.Policy {
		return ratelimit.Policy{
			Name: "path", Limit: ratelimit.RollingWindow(n, time.Hour),
			Key: func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path), true },
		}
	}
	for name, build := range map[string]func(t *testing.T) usher.Middleware{
		"in one decision":  func(t *testing.T) usher.Middleware { return limiterOf(t, delaying("p"), byPath(1)) },
		"in another order": func(t *testing.T) usher.Middleware { return limiterOf(t, byPath(1), delaying("p")) },
		"in a nested limiter": func(t *testing.T) usher.Middleware {
			outer := limiterOf(t, delaying("p"))
			return usher.Chain(outer, must(t)(outer.With(byPath(1))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(build(t))
				q.sendAll(t, "x") // takes the free turn
				time.Sleep(time.Second)
				for range 20 {
					q.send(t.Context(), "x")
				}
				q.sendAll(t, "abc")
				q.want(t, "x@0 a@1000 b@1100 c@1200")
			})
		})
	}
}

func TestSeveralDelaysWaitForTheLongest(t *testing.T) {
	slow := forAll("slow", ratelimit.TokenBucket(4, time.Second, 1))
	slow.Delay = time.Second
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(limiterOf(t, delaying("fast"), slow))
		q.sendAll(t, "abcdefg")
		q.want(t, "a@0 b@250 c@500 d@750 e@1000")
		if q.refused() != 2 {
			t.Errorf("%v", q.codes)
		}
	})
}

func TestNestedLimitersDelayOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := limiterOf(t, delaying("p"))
		inner := must(t)(outer.With(forAll("hour", ratelimit.RollingWindow(100, time.Hour))))
		q := newQueue(usher.Chain(outer, inner))
		q.sendAll(t, "abcdefg")
		q.want(t, "a@0 b@100 c@200 d@300 e@400 f@500")
	})
}

// A client that leaves an inner line is charged by no outer limiter either.
func TestAClientThatLeavesANestedLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := limiterOf(t, forAll("hour", ratelimit.RollingWindow(2, time.Hour)))
		q := newQueue(usher.Chain(outer, must(t)(outer.With(delaying("p")))))
		q.sendAll(t, "a")
		ctx, leave := context.WithCancel(t.Context())
		q.send(ctx, "b")
		leave()
		synctest.Wait()
		q.sendAll(t, "cd")
		q.want(t, "a@0 c@100")
	})
}

// A client that leaves while the store decides has no place in the line.
func TestAClientThatLeavesBeforeItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flakyStore{Memory: newMemory()}
		q := newQueue(newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{delaying("p")}, Store: store}))
		for i := range 5 {
			ctx, leave := context.WithCancel(t.Context())
			store.Set(func(context.Context, int64) error { leave(); return nil })
			q.send(ctx, strconv.Itoa(i))
		}
		store.Set(nil)
		// These clients stay charged, as all that leave during a decision, until the store
		// has earned their units. The line has been empty.
		time.Sleep(time.Second)
		q.sendAll(t, "abcdefg")
		q.want(t, "a@1000 b@1100 c@1200 d@1300 e@1400 f@1500")
	})
}

func TestAResetEmptiesTheLineOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiterOf(t, delaying("p"))
		q := newQueue(l)
		q.sendAll(t, "abc")
		if err := l.Reset(t.Context(), ratelimit.Key{}); err != nil {
			t.Fatal(err)
		}
		q.sendAll(t, "de")
		q.group.Wait()
		if slices.Sort(q.served); strings.Join(q.served, " ") != "a@0 b@100 c@200 d@0 e@100" {
			t.Errorf("served %v", q.served)
		}
	})
}

// Allow does not wait: it admits what needs no turn.
func TestAllowWaitsInNoLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiterOf(t, delaying("p"))
		if _, err := l.Allow(t.Context(), 1, ratelimit.Key{}); err != nil {
			t.Error(err)
		}
		if _, err := l.Allow(t.Context(), 1, ratelimit.Key{}); err == nil {
			t.Error("a request over the rate is admitted without a turn")
		}
	})
}

func TestShadowPoliciesNeverDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := delaying("p")
		p.Shadow = true
		q := newQueue(limiterOf(t, p))
		q.sendAll(t, "abcdefgh")
		q.want(t, "a@0 b@0 c@0 d@0 e@0 f@0 g@0 h@0")
	})
}

func TestEachKeyHasALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := delaying("p")
		p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path[1:2]), true }
		q := newQueue(limiterOf(t, p))
		for _, name := range []string{"a1", "b1", "a2", "b2", "a3"} {
			q.send(t.Context(), name)
		}
		q.group.Wait()
		if slices.Sort(q.served); strings.Join(q.served, " ") != "a1@0 a2@100 a3@200 b1@0 b2@100" {
			t.Errorf("served %v", q.served)
		}
	})
}

// A request whose context ends before its turn does not wait in vain.
func TestADeadlineBeforeTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(limiterOf(t, delaying("p")))
		q.sendAll(t, "ab")
		short, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		q.send(short, "x")
		if q.code("x") != 429 {
			t.Errorf("status %d before its deadline", q.code("x"))
		} else if got := q.field("x", "RateLimit"); got != `"p";r=0` {
			t.Errorf("RateLimit: %s", got)
		}
		long, cancel := context.WithTimeout(t.Context(), 201*time.Millisecond)
		defer cancel()
		q.send(long, "c")
		q.want(t, "a@0 b@100 c@200")
	})
}

// A plan changes while requests wait: nobody waits longer than before.
func TestTheRateOfALineChangesWithThePlan(t *testing.T) {
	p := delaying("p")
	limit := p.Limit
	p.LimitFor = func(*http.Request) ratelimit.Limit { return limit }
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(limiterOf(t, p))
		q.sendAll(t, "abc")
		limit = ratelimit.TokenBucket(20, time.Second, 1)
		q.sendAll(t, "de")
		time.Sleep(time.Second)
		q.sendAll(t, "fg")
		limit = ratelimit.TokenBucket(20, time.Second, 2)
		time.Sleep(time.Second)
		q.sendAll(t, "hij")
		time.Sleep(time.Second)
		q.sendAll(t, "kl")
		q.want(t, "a@0 b@50 c@100 d@150 e@200 f@1000 g@1050 h@2000 i@2050 j@2100 k@3000 l@3000")

		limit = ratelimit.RollingWindow(1, time.Second)
		if q.sendAll(t, "x"); q.code("x") != 503 {
			t.Errorf("a limit that is no token bucket: %d", q.code("x"))
		}
		limit = ratelimit.Nothing()
		if q.sendAll(t, "y"); q.code("y") != 429 || q.field("y", "Retry-After") != "" {
			t.Errorf("nothing: %d, Retry-After %q", q.code("y"), q.field("y", "Retry-After"))
		}
		limit = ratelimit.TokenBucket(0, time.Second, 5)
		if q.sendAll(t, "n"); q.code("n") != 429 || q.field("n", "Retry-After") != "" {
			t.Errorf("nothing of a bucket: %d, Retry-After %q", q.code("n"), q.field("n", "Retry-After"))
		}
		limit = ratelimit.Unlimited()
		if q.sendAll(t, "z"); q.code("z") != 200 {
			t.Errorf("unlimited: %d", q.code("z"))
		}
	})
}

// Two processes over one store admit no more than the limit and the room of one line.
func TestDelayOverASharedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flakyStore{Memory: newMemory()}
		node := func() *queue {
			return newQueue(newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{delaying("p")}, Store: store}))
		}
		one, two := node(), node()
		for i := range 20 {
			one.send(t.Context(), strconv.Itoa(i))
			two.send(t.Context(), strconv.Itoa(i))
		}
		one.want(t, "0@0 1@100 2@200")
		two.want(t, "0@0 1@100 2@200")
		if n := one.refused() + two.refused(); n != 34 {
			t.Errorf("%d refused, want 34", n)
		}
	})
}

func TestDelayWhileTheStoreFails(t *testing.T) {
	for mode, want := range map[string]string{
		"falling back": "a@0 b@100 c@200", "open": "a@0 b@0 c@0", "closed": "",
	} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &flakyStore{Memory: newMemory()}
				store.Set(func(context.Context, int64) error { return faulty.ErrStore })
				q := newQueue(newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{delaying("p")}, Store: store, OnStoreFailure: modes[mode],
					OnError: func(context.Context, error) {},
				}))
				q.sendAll(t, "abc")
				q.want(t, want)
				// No place stays taken.
				store.Set(nil)
				time.Sleep(3 * time.Second)
				q.served = nil
				q.sendAll(t, "ghijklm")
				if q.group.Wait(); len(q.served) != 6 {
					t.Errorf("served %v", q.served)
				}
			})
		})
	}
}

func TestFaultsOfADelay(t *testing.T) {
	bucket := ratelimit.TokenBucket(10, time.Second, 1)
	for name, tt := range map[string]struct {
		policy ratelimit.Policy
		fault  string
	}{
		"none":                           {ratelimit.Policy{Limit: bucket, Delay: time.Second}, ""},
		"just one unit":                  {ratelimit.Policy{Limit: bucket, Delay: 100 * time.Millisecond}, ""},
		"negative":                       {ratelimit.Policy{Limit: bucket, Delay: -1}, "Delay: must not be negative"},
		"less than a unit":               {ratelimit.Policy{Limit: bucket, Delay: 100*time.Millisecond - 1}, "Limit: must earn a unit within Policy.Delay"},
		"a rolling window":               {ratelimit.Policy{Limit: ratelimit.RollingWindow(1, time.Second), Delay: time.Second}, "Limit: must be a token bucket"},
		"a calendar window":              {ratelimit.Policy{Limit: ratelimit.CalendarWindow(1, ratelimit.Day), Delay: time.Second}, "Limit: must be a token bucket"},
		"places":                         {ratelimit.Policy{Limit: ratelimit.Concurrency(1), Delay: time.Second}, "Limit: must be a token bucket"},
		"another plan":                   {ratelimit.Policy{Limit: bucket, Delay: time.Second, Plans: map[string]ratelimit.Limit{"a": ratelimit.RollingWindow(1, time.Second)}}, `Plans["a"]: must be a token bucket`},
		"plans of everything or nothing": {ratelimit.Policy{Limit: bucket, Delay: time.Second, Plans: map[string]ratelimit.Limit{"a": ratelimit.Unlimited(), "b": ratelimit.Nothing(), "c": ratelimit.TokenBucket(0, time.Second, 0)}}, ""},
		"more than a burst can be":       {ratelimit.Policy{Limit: ratelimit.TokenBucket(1e9, time.Second, 1), Delay: time.Second}, "Limit: must not earn more"},
		"the longest":                    {ratelimit.Policy{Limit: ratelimit.TokenBucket(1e9, time.Microsecond, 1), Delay: 1<<63 - 1}, "Limit: must not earn more"},
		"Count":                          {ratelimit.Policy{Limit: bucket, Delay: time.Second, Count: func(int) bool { return true }}, "Delay: must be zero"},
		"Settle":                         {ratelimit.Policy{Limit: bucket, Delay: time.Second, Settle: true}, "Delay: must be zero"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.policy.Name, tt.policy.Key = "p", ratelimit.Global()
			_, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{tt.policy}})
			if tt.fault == "" && err != nil || tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)) {
				t.Errorf("%v, want %q", err, tt.fault)
			}
		})
	}
}

// However many clients wait, the process keeps a bounded number of them.
func TestTheNumberOfWaitingRequestsIsBounded(t *testing.T) {
	p := forAll("p", ratelimit.TokenBucket(10, time.Second, 1))
	p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path[:3]), true }
	p.Delay = time.Minute
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(limiterOf(t, p))
		for range 2 {
			q.served = nil
			for i := range 5000 {
				name := fmt.Sprintf("%02d-%d", i%10, i)
				q.group.Go(func() {
					w := do(q.handler, func(r *http.Request) { r.URL.Path = "/" + name })
					q.mu.Lock()
					defer q.mu.Unlock()
					q.codes[name], q.waits[name] = w.Code, w.Header().Get("Retry-After")
				})
			}
			if q.group.Wait(); len(q.served) != 4096+10 {
				t.Errorf("%d served, want 4,096 that have waited and 10 that have not", len(q.served))
			}
			time.Sleep(time.Second)
		}
		for name, code := range q.codes {
			if code == 429 && q.waits[name] == "" {
				t.Errorf("a refusal has no Retry-After")
				break
			}
		}
	})
}

// asOfHeader returns the limit that a request names: its rate a second and its burst.
func asOfHeader(r *http.Request) ratelimit.Limit {
	var quota, burst int
	if _, err := fmt.Sscan(r.Header.Get("Limit"), &quota, &burst); err != nil {
		return ratelimit.Limit{}
	}
	return ratelimit.TokenBucket(quota, time.Second, burst)
}

// byFirst returns the digit with which the path of a request begins.
func byFirst(r *http.Request) int { return int(r.URL.Path[1] - '0') }

// However the plan changes while requests wait, nobody waits longer than before, and those
// who have moved up stay there.
func TestNoTurnIsPutOff(t *testing.T) {
	for name, tt := range map[string]struct {
		leaves bool // the second request, at once
		then   ratelimit.Limit
		served string
	}{
		"by a slower plan":                         {false, ratelimit.TokenBucket(5, time.Second, 1), "a@0 b@100 c@200 d@600"},
		"by a slower plan after one has left":      {true, ratelimit.TokenBucket(15, 2*time.Second, 1), "a@0 c@100 d@266"},
		"nor is one early after one has left":      {true, ratelimit.TokenBucket(20, time.Second, 1), "a@0 c@50 d@100"},
		"by a plan that is as fast and has a room": {true, ratelimit.TokenBucket(10, time.Second, 2), "a@0 c@100 d@200"},
	} {
		t.Run(name, func(t *testing.T) {
			p := delaying("p")
			p.Delay = time.Second
			limit := p.Limit
			p.LimitFor = func(*http.Request) ratelimit.Limit { return limit }
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(limiterOf(t, p))
				q.sendAll(t, "a")
				ctx, leave := context.WithCancel(t.Context())
				if !tt.leaves {
					ctx = t.Context()
				}
				q.send(ctx, "b")
				q.sendAll(t, "c")
				leave()
				synctest.Wait()
				limit = tt.then
				q.sendAll(t, "d")
				q.want(t, tt.served)
			})
		})
	}
}

// A request that leaves a line gives all its units to those behind it.
func TestAClientThatLeavesALineGivesItsUnitsBack(t *testing.T) {
	p := delaying("p")
	p.Limit, p.Cost = ratelimit.TokenBucket(10, time.Second, 2), byFirst
	for name, tt := range map[string]struct{ before, leaves, after, served string }{
		"a dear one":            {"2a", "2b", "1c", "2a@0 1c@100"},
		"a cheap one":           {"2a", "1b", "1c 2d", "2a@0 1c@100 2d@300"},
		"one behind a dear one": {"2a 2b", "1c", "1d", "2a@0 2b@200 1d@300"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(limiterOf(t, p))
				for name := range strings.FieldsSeq(tt.before) {
					q.send(t.Context(), name)
				}
				ctx, leave := context.WithCancel(t.Context())
				q.send(ctx, tt.leaves)
				for name := range strings.FieldsSeq(tt.after) {
					q.send(t.Context(), name)
				}
				leave()
				q.want(t, tt.served)
			})
		})
	}
}

// The burst becomes smaller than a cost while the store decides: the request has a turn
// nevertheless.
func TestABurstThatBecomesTooSmall(t *testing.T) {
	p := delaying("p")
	p.Limit, p.Cost, p.LimitFor = ratelimit.TokenBucket(10, time.Second, 2), byFirst, asOfHeader
	synctest.Test(t, func(t *testing.T) {
		store := &flakyStore{Memory: newMemory()}
		q := newQueue(newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store}))
		store.Set(faulty.Late(20 * time.Millisecond))
		q.send(t.Context(), "2a")
		store.Set(nil)
		do(q.handler, set("Limit", "10 1"), path("/1x"))
		time.Sleep(time.Second)
		if q.code("2a") != 200 {
			t.Errorf("status %d after a second", q.code("2a"))
		}
	})
}

// Requests that are being decided are ahead of those that come later.
func TestARequestCountsThoseThatTheStoreDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flakyStore{Memory: newMemory()}
		p := delaying("p")
		// Apart from each other in the store, so that they make calls of their own.
		apart := ratelimit.Policy{Name: "apart", Limit: ratelimit.RollingWindow(9, time.Hour), Key: func(r *http.Request) (ratelimit.Key, bool) {
			return ratelimit.TextKey(r.URL.Path), true
		}}
		q := newQueue(newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p, apart}, Store: store}))
		store.Set(faulty.Late(20 * time.Millisecond))
		for _, name := range []string{"a", "b", "c"} {
			ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
			defer cancel()
			q.send(ctx, name)
		}
		if q.code("c") != 429 {
			t.Errorf("c: %d, though two are ahead of it and its deadline is before its turn", q.code("c"))
		}
		if q.group.Wait(); len(q.served) != 2 {
			t.Errorf("served %v", q.served)
		}
	})
}

// A full line says so whatever other policies the limiter has, and their header fields say
// nothing about a request that they did not decide.
func TestARefusalByALineNamesItsPolicy(t *testing.T) {
	hour := forAll("hour", ratelimit.RollingWindow(100, time.Hour))
	for name, policies := range map[string][]ratelimit.Policy{
		"first": {delaying("p"), hour}, "last": {hour, delaying("p")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				meter := new(oteltest.Meter)
				q := newQueue(newLimiter(t, ratelimit.Config{Policies: policies, MeterProvider: meter}))
				q.sendAll(t, "abcdefx")
				if got, want := q.field("x", "Ratelimit"), `"p";r=0;t=1`; got != want {
					t.Errorf("RateLimit: %s, want %s", got, want)
				}
				q.group.Wait()
				if diff := compare.Diff(map[string]int64{"acquired": 6, "delayed": 5, "refused": 1, "near_limit": 2}, results(meter)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// A wait would not help: the line never has room for a cost above the burst.
func TestACostAboveTheBurstHasNoRetryAfter(t *testing.T) {
	p := delaying("p")
	p.Cost = byFirst
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(limiterOf(t, p))
		if q.send(t.Context(), "2"); q.code("2") != 429 || q.field("2", "Retry-After") != "" {
			t.Errorf("%d, Retry-After %q", q.code("2"), q.field("2", "Retry-After"))
		}
	})
}

// A request that needs no turn is decided as without Delay, even if its time is over.
func TestADeadlineThatHasPassedNeedsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(limiterOf(t, delaying("p")))
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		q.send(ctx, "a")
		q.send(ctx, "b")
		if q.code("a") != 200 || q.code("b") != 429 {
			t.Errorf("%d and %d, want 200, and 429 for the one that has to wait", q.code("a"), q.code("b"))
		}
	})
}

// A request that waits as long as Delay is admitted, though a rate is no whole number of
// requests in any unit of time.
func TestTheLastPlaceOfALine(t *testing.T) {
	for quota := 1; quota < 60; quota++ {
		for _, wait := range []int{1, 2, 7} {
			p := forAll("p", ratelimit.TokenBucket(quota, 7*time.Second, 1))
			p.Delay = time.Duration(wait) * 7 * time.Second
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(limiterOf(t, p))
				for i := range quota*wait + 2 {
					q.send(t.Context(), strconv.Itoa(i))
				}
				if q.group.Wait(); q.refused() != 1 {
					t.Errorf("%d in 7s, with a Delay of %v: %d refused, want 1", quota, p.Delay, q.refused())
				}
			})
		}
	}
}

// Requests that leave a line before their turn, or find it empty after all, no longer count
// as waiting.
func TestOnlyThoseThatWaitCount(t *testing.T) {
	p := delaying("p")
	p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path), true }
	for name, during := range map[string]func(ctx context.Context, n int64) error{
		"after a refusal":               func(context.Context, int64) error { return faulty.ErrStore },
		"after the store has been slow": faulty.Late(150 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &flakyStore{Memory: newMemory()}
				l := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: time.Second, OnStoreFailure: ratelimit.FailClosed,
					OnError: func(context.Context, error) {},
				})
				h := l.Wrap(ok)
				for range 50 {
					var group sync.WaitGroup
					for i := range 100 {
						h := func() { do(h, path(fmt.Sprint("/", i))) }
						h()
						group.Go(func() {
							time.Sleep(time.Millisecond)
							h()
						})
					}
					store.Set(during)
					group.Wait()
					store.Set(nil)
					time.Sleep(5 * time.Second)
				}
				wantCodes(t, codes(3, h, path("/new")), 200, 200, 200)
			})
		})
	}
}

// A flood of other keys takes no line in which requests wait.
func TestALineInWhichRequestsWaitOutlivesAFlood(t *testing.T) {
	if race.Enabled {
		t.Skip("too slow, in one goroutine")
	}
	p := delaying("p")
	p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path[1:]), true }
	synctest.Test(t, func(t *testing.T) {
		l := limiterOf(t, p)
		q, flood := newQueue(l), l.Wrap(nothing)
		send := func() { q.send(t.Context(), "a") }
		send()
		send()
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		for i := range 2 * 65_536 {
			r.URL.Path = "/" + strconv.Itoa(i)
			clear(w.Header())
			flood.ServeHTTP(w, r)
		}
		send()
		q.want(t, "a@0 a@100 a@200")
	})
}

// A request that must wait, because one that has asked later was decided sooner, counts as
// one that waits.
func TestARequestThatIsOvertakenCounts(t *testing.T) {
	p := forAll("p", ratelimit.TokenBucket(1, 10*time.Minute, 1))
	p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path[2:]), true }
	p.Delay = 10 * time.Minute
	apart := forAll("apart", ratelimit.RollingWindow(100, time.Hour)) // so that each makes a call of its own
	apart.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path), true }
	synctest.Test(t, func(t *testing.T) {
		store := &flakyStore{Memory: newMemory()}
		h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p, apart}, Store: store}).Wrap(ok)
		var group sync.WaitGroup
		for batch := range 64 {
			store.Set(faulty.Late(20 * time.Millisecond))
			for i := range 64 {
				group.Go(func() { do(h, path(fmt.Sprint("/1", batch, "-", i))) })
			}
			synctest.Wait()
			store.Set(nil)
			for i := range 64 {
				wantCodes(t, codes(1, h, path(fmt.Sprint("/2", batch, "-", i))), 200)
			}
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
		}
		wantCodes(t, codes(2, h, path("/1new")), 200, 429)
		group.Wait()
		wantCodes(t, codes(3, h, path("/1later")), 200, 200, 200)
	})
}
