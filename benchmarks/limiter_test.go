package benchmarks_test

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/didip/tollbooth/v8"
	tollboothlimiter "github.com/didip/tollbooth/v8/limiter"
	"github.com/go-chi/httprate"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	echo4 "github.com/labstack/echo/v4"
	echo4middleware "github.com/labstack/echo/v4/middleware"
	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/sethvargo/go-limiter"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	ululelimiter "github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/middleware/stdlib"
	ululememory "github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"

	"github.com/usher-go/usher/ratelimit"
)

// plenty is a limit that is never reached: for a second, or for a minute where a new
// window makes new counters.
const plenty = 1_000_000_000

// A decider charges one request to a key and reports whether it may pass. It is for
// one goroutine.
type decider func(key string) bool

// A limiterMaker makes a limiter with capacity for so many keys, if it has a bound
// on them, and returns a function that makes a decider of it for each goroutine.
type limiterMaker func(tb testing.TB, room int) func() decider

// expiry is how soon limiters forget keys, where it can be set and keys are to
// expire.
const expiry = 300 * time.Millisecond

// shared is a limiter whose decider any goroutine may use.
func shared(d decider) func() decider { return func() decider { return d } }

var deciders = map[string]limiterMaker{
	"x-time-rate": func(testing.TB, int) func() decider {
		l := rate.NewLimiter(plenty, plenty)
		return shared(func(string) bool { return l.AllowN(time.Now(), 1) })
	},
	"x-time-rate-lru": func(_ testing.TB, room int) func() decider { return shared(newSharded(room).allow) },
	"usher": func(tb testing.TB, room int) func() decider {
		m := must(ratelimit.NewMemory(ratelimit.MemoryConfig{Keys: room}))
		ctx := tb.Context()
		return func() decider {
			d := &ratelimit.Decision{Charges: []ratelimit.Charge{
				{Policy: "p", Limit: ratelimit.TokenBucket(plenty, time.Second, plenty), Cost: 1},
			}}
			return func(key string) bool {
				d.Charges[0].Key = ratelimit.TextKey(key)
				return m.Take(ctx, d) == nil && d.Admitted
			}
		}
	},
	"go-limiter": func(tb testing.TB, _ int) func() decider {
		return goLimiterDecider(tb, memorystore.Config{Tokens: plenty, Interval: time.Minute})
	},
	"echo": func(testing.TB, int) func() decider {
		return echoDecider(middleware.RateLimiterMemoryStoreConfig{Rate: plenty, Burst: plenty})
	},
	"ulule": func(tb testing.TB, _ int) func() decider {
		return ululeDecider(tb, ululememory.NewStore(), time.Minute)
	},
	"throttled": func(tb testing.TB, room int) func() decider {
		l := must(throttled.NewGCRARateLimiterCtx(must(memstore.NewCtx(max(room, 65536))), throttled.RateQuota{
			MaxRate: throttled.PerSec(plenty), MaxBurst: plenty,
		}))
		ctx := tb.Context()
		return shared(func(key string) bool {
			limited, _, err := l.RateLimitCtx(ctx, key, 1)
			return !limited && err == nil
		})
	},
	"tollbooth": func(testing.TB, int) func() decider { return tollboothDecider(nil) },
	"httprate":  func(testing.TB, int) func() decider { return httprateDecider(time.Minute) },
}

func goLimiterDecider(tb testing.TB, c memorystore.Config) func() decider {
	store := must(memorystore.New(&c))
	tb.Cleanup(func() { _ = store.Close(context.Background()) })
	ctx := tb.Context()
	return shared(func(key string) bool {
		_, _, _, ok, err := store.Take(ctx, key)
		return ok && err == nil
	})
}

func echoDecider(c middleware.RateLimiterMemoryStoreConfig) func() decider {
	store := middleware.NewRateLimiterMemoryStoreWithConfig(c)
	return shared(func(key string) bool {
		ok, err := store.Allow(key)
		return ok && err == nil
	})
}

func ululeDecider(tb testing.TB, store ululelimiter.Store, per time.Duration) func() decider {
	l := ululelimiter.New(store, ululelimiter.Rate{Period: per, Limit: plenty})
	ctx := tb.Context()
	return shared(func(key string) bool {
		c, err := l.Get(ctx, key)
		return !c.Reached && err == nil
	})
}

func tollboothDecider(o *tollboothlimiter.ExpirableOptions) func() decider {
	l := tollbooth.NewLimiter(plenty, o)
	return func() decider {
		keys := make([]string, 1)
		return func(key string) bool {
			keys[0] = key
			return tollbooth.LimitByKeys(l, keys) == nil
		}
	}
}

// httprateDecider writes no header fields, as its names for them are empty.
func httprateDecider(window time.Duration) func() decider {
	l := httprate.NewRateLimiter(plenty, window, httprate.WithResponseHeaders(httprate.ResponseHeaders{}))
	return func() decider {
		w, r := &sink{header: make(http.Header)}, get()
		return func(key string) bool { return !l.OnLimit(w, r, key) }
	}
}

// expiring is a limiter that forgets keys after expiry, where its configuration
// has something of the kind. The others have a bound on the number of keys.
func expiring(tb testing.TB, name string) decider {
	switch name {
	case "machine":
		return func(string) bool { return true }
	case "go-limiter":
		return goLimiterDecider(tb, memorystore.Config{Tokens: plenty, Interval: expiry, SweepInterval: expiry, SweepMinTTL: expiry})()
	case "echo":
		return echoDecider(middleware.RateLimiterMemoryStoreConfig{Rate: plenty, Burst: plenty, ExpiresIn: expiry})()
	case "ulule":
		store := ululememory.NewStoreWithOptions(ululelimiter.StoreOptions{Prefix: ululelimiter.DefaultPrefix, CleanUpInterval: expiry})
		return ululeDecider(tb, store, expiry)()
	case "tollbooth":
		return tollboothDecider(&tollboothlimiter.ExpirableOptions{DefaultExpirationTTL: expiry})()
	case "httprate":
		return httprateDecider(expiry)()
	default:
		return deciders[name](tb, 0)()
	}
}

func goLimiterStore(tb testing.TB, tokens uint64, per time.Duration) limiter.Store {
	store := must(memorystore.New(&memorystore.Config{Tokens: tokens, Interval: per}))
	tb.Cleanup(func() { _ = store.Close(context.Background()) })
	return store
}

// A sharded is x/time/rate as services use it for many keys: one limiter for each
// key, in shards of golang-lru.
type sharded struct {
	seed   maphash.Seed
	shards [64]struct {
		sync.Mutex
		limiters *simplelru.LRU[string, *rate.Limiter]
		_        [48]byte
	}
}

func newSharded(room int) *sharded {
	s := &sharded{seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].limiters = must(simplelru.NewLRU[string, *rate.Limiter](max(room, 65536)/len(s.shards)+1, nil))
	}
	return s
}

func (s *sharded) allow(key string) bool {
	shard := &s.shards[maphash.String(s.seed, key)%uint64(len(s.shards))]
	shard.Lock()
	l, ok := shard.limiters.Get(key)
	if !ok {
		l = rate.NewLimiter(plenty, plenty)
		shard.limiters.Add(key, l)
	}
	shard.Unlock()
	return l.AllowN(time.Now(), 1)
}

// addresses are n keys of the length of addresses.
func addresses(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "10." + strconv.Itoa(i>>16) + "." + strconv.Itoa(i>>8&0xff) + "." + strconv.Itoa(i&0xff)
	}
	return keys
}

// deciding is a subject that decides for keys in turn, all of them known.
func deciding(maker limiterMaker, n int) contestant {
	return func(tb testing.TB) subject {
		// Twice as many places as keys, so that no shard evicts one.
		decide, keys := maker(tb, 2*n)(), addresses(n)
		i := 0
		run := func() {
			kept.ok = decide(keys[i])
			if i++; i == len(keys) {
				i = 0
			}
		}
		admitted := func() error {
			if !kept.ok {
				return errors.New("refused")
			}
			return nil
		}
		return subject{run: run, after: admitted, check: func() error {
			for range keys {
				run()
				if err := admitted(); err != nil {
					return err
				}
			}
			return nil
		}}
	}
}

func decidingAll(n int) map[string]contestant {
	all := make(map[string]contestant)
	for name, maker := range deciders {
		all[name] = deciding(maker, n)
	}
	return all
}

// policies is one decision over n policies, each with a key of its own.
func policies(n int) contestant {
	return func(tb testing.TB) subject {
		m := must(ratelimit.NewMemory(ratelimit.MemoryConfig{}))
		d := &ratelimit.Decision{Charges: make([]ratelimit.Charge, n)}
		for i, key := range addresses(n) {
			d.Charges[i] = ratelimit.Charge{
				Policy: fmt.Sprint("p", i), Key: ratelimit.TextKey(key),
				Limit: ratelimit.TokenBucket(plenty, time.Second, plenty), Cost: 1,
			}
		}
		ctx := tb.Context()
		run := func() { kept.ok = m.Take(ctx, d) == nil && d.Admitted }
		return subject{run: run, check: func() error {
			run()
			if !kept.ok {
				return errors.New("refused")
			}
			return nil
		}}
	}
}

// inTurn asks n limiters, one after another.
func inTurn(n int) contestant {
	return func(testing.TB) subject {
		limiters := make([]*rate.Limiter, n)
		for i := range limiters {
			limiters[i] = rate.NewLimiter(plenty, plenty)
		}
		run := func() {
			kept.ok = true
			for _, l := range limiters {
				kept.ok = l.AllowN(time.Now(), 1) && kept.ok
			}
		}
		return subject{run: run, check: func() error {
			run()
			if !kept.ok {
				return errors.New("refused")
			}
			return nil
		}}
	}
}

// A limited handler admits plenty of requests in a second or, with once, one
// request in a day.
type limited func(tb testing.TB, once bool) http.Handler

// ip is the key of those that leave it to the caller.
func ip(r *http.Request) (string, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return httprate.CanonicalizeIP(host), err
}

var limitedHandlers = map[string]limited{
	"usher": usherLimited(ratelimit.StandardHeaders),
	"go-limiter": func(tb testing.TB, once bool) http.Handler {
		store := goLimiterStore(tb, plenty, time.Minute)
		if once {
			store = goLimiterStore(tb, 1, 24*time.Hour)
		}
		return must(httplimit.NewMiddleware(store, httplimit.IPKeyFunc())).Handle(http.HandlerFunc(nothing))
	},
	"ulule": func(_ testing.TB, once bool) http.Handler {
		quota := ululelimiter.Rate{Period: time.Minute, Limit: plenty}
		if once {
			quota = ululelimiter.Rate{Period: 24 * time.Hour, Limit: 1}
		}
		return stdlib.NewMiddleware(ululelimiter.New(ululememory.NewStore(), quota)).Handler(http.HandlerFunc(nothing))
	},
	"throttled": func(_ testing.TB, once bool) http.Handler {
		quota := throttled.RateQuota{MaxRate: throttled.PerSec(plenty), MaxBurst: plenty}
		if once {
			quota = throttled.RateQuota{MaxRate: throttled.PerDay(1)}
		}
		l := throttled.HTTPRateLimiterCtx{
			RateLimiter: must(throttled.NewGCRARateLimiterCtx(must(memstore.NewCtx(65536)), quota)),
			VaryBy:      &throttled.VaryBy{RemoteAddr: true},
		}
		return l.RateLimit(http.HandlerFunc(nothing))
	},
	"tollbooth": func(_ testing.TB, once bool) http.Handler {
		l := tollbooth.NewLimiter(plenty, nil)
		if once {
			l = tollbooth.NewLimiter(1.0/86400, nil).SetBurst(1)
		}
		l.SetIPLookup(tollboothlimiter.IPLookup{Name: "RemoteAddr"})
		return tollbooth.HTTPMiddleware(l)(http.HandlerFunc(nothing))
	},
	"httprate": func(_ testing.TB, once bool) http.Handler {
		quota, window := plenty, time.Minute
		if once {
			quota, window = 1, 24*time.Hour
		}
		return httprate.LimitBy(quota, window, ip)(http.HandlerFunc(nothing))
	},
	"echo": func(_ testing.TB, once bool) http.Handler {
		config := middleware.RateLimiterMemoryStoreConfig{Rate: plenty, Burst: plenty}
		if once {
			config.Rate, config.Burst = 1.0/86400, 1
		}
		return echoWith(middleware.RateLimiter(middleware.NewRateLimiterMemoryStoreWithConfig(config)))
	},
	"bare":      func(testing.TB, bool) http.Handler { return http.HandlerFunc(nothing) },
	"echo-bare": func(testing.TB, bool) http.Handler { return echoWith() },
}

func usherLimited(headers ratelimit.Headers) limited {
	return func(_ testing.TB, once bool) http.Handler {
		limit := ratelimit.TokenBucket(plenty, time.Second, plenty)
		if once {
			limit = ratelimit.TokenBucket(1, 24*time.Hour, 1)
		}
		return must(ratelimit.New(ratelimit.Config{
			Headers:  headers,
			Policies: []ratelimit.Policy{{Name: "p", Key: ratelimit.ByAddress(), Limit: limit}},
		})).Wrap(http.HandlerFunc(nothing))
	}
}

func echoWith(m ...echo.MiddlewareFunc) http.Handler {
	e := echo.New()
	e.GET("/", func(*echo.Context) error { return nil }, m...)
	return e
}

func echo4With(m ...echo4.MiddlewareFunc) http.Handler {
	e := echo4.New()
	e.GET("/", func(echo4.Context) error { return nil }, m...)
	return e
}

// remainingFields are the names that limiters give to the field with the rest of
// the quota.
var remainingFields = []string{"RateLimit", "RateLimit-Remaining", "X-RateLimit-Remaining"}

func limitedAll(once bool) map[string]contestant {
	all := make(map[string]contestant)
	for name, make := range limitedHandlers {
		all[name] = func(tb testing.TB) subject {
			bare := name == "bare" || name == "echo-bare"
			c := call{handler: make(tb, once), request: get(), want: http.StatusOK}
			switch {
			case bare:
			case once:
				c.handler.ServeHTTP(httptest.NewRecorder(), c.request)
				c.want = http.StatusTooManyRequests
				c.look = func(w *httptest.ResponseRecorder) error {
					if w.Body.Len() == 0 {
						return errors.New("no body")
					}
					return nil
				}
			default:
				c.look = func(w *httptest.ResponseRecorder) error { return hasOneOf(w, remainingFields...) }
			}
			return c.subject()
		}
	}
	return all
}

var limiterWorks = suite{
	"LimiterDecision/hot":                   decidingAll(1),
	"LimiterDecision/keys-10k":              decidingAll(10_000),
	"LimiterDecision/three-policies":        {"usher": policies(3), "x-time-rate": inTurn(3)},
	"LimiterMiddleware/allowed-with-fields": limitedAll(false),
	"LimiterMiddleware/refused":             limitedAll(true),
	"LimiterMiddleware/allowed-without-fields": {
		"bare":       serving(http.HandlerFunc(nothing)),
		"echo4-bare": serving(echo4With()),
		"usher":      func(tb testing.TB) subject { return silently(usherLimited(ratelimit.NoHeaders)(tb, false)) },
		"echo4": func(testing.TB) subject {
			return silently(echo4With(echo4middleware.RateLimiter(echo4middleware.NewRateLimiterMemoryStoreWithConfig(
				echo4middleware.RateLimiterMemoryStoreConfig{Rate: plenty, Burst: plenty},
			))))
		},
	},
}

// serving responds with 200 to GET requests.
func serving(h http.Handler) contestant {
	return func(testing.TB) subject {
		return call{handler: h, request: get(), want: http.StatusOK}.subject()
	}
}

// silently is a limiter without header fields, whose refusals are checked instead.
func silently(h http.Handler) subject {
	return call{handler: h, request: get(), want: http.StatusOK, look: func(w *httptest.ResponseRecorder) error {
		if hasOneOf(w, remainingFields...) == nil {
			return errors.New("header fields report the limit")
		}
		return nil
	}}.subject()
}
