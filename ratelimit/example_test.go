package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ushertest"
)

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }

// Every address may make three requests in any minute.
func Example() {
	limiter, err := ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{ratelimit.PerAddress(3, time.Minute)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := limiter.Wrap(http.HandlerFunc(hello))
	for range 4 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		fmt.Printf("%d %s, retry after %q\n", w.Code, w.Header().Get("RateLimit"), w.Header().Get("Retry-After"))
	}
	// Output:
	// 200 "address";r=2;t=60, retry after ""
	// 200 "address";r=1;t=60, retry after ""
	// 200 "address";r=0;t=60, retry after ""
	// 429 "address";r=0;t=60, retry after "60"
}

// An idle client may send a burst of three requests, and then one each second.
func ExampleTokenBucket() {
	limiter, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:  "caller",
		Key:   ratelimit.ByPrincipal(),
		Limit: ratelimit.TokenBucket(60, time.Minute, 3),
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := limiter.Wrap(http.HandlerFunc(hello))
	for range 4 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		fmt.Println(w.Code, w.Header().Get("RateLimit"))
	}
	// Output:
	// 200 "caller";r=2;t=2
	// 200 "caller";r=1;t=1
	// 200 "caller";r=0;t=1
	// 429 "caller";r=0;t=1
}

// A plan with two windows at once: ten requests a second and six hundred a minute, or ten
// times that for another plan. Limit is that of callers without a plan.
func ExamplePolicy_plans() {
	limiter, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
		{
			Name: "second", Key: ratelimit.ByOwner(),
			Limit: ratelimit.RollingWindow(10, time.Second),
			Plans: map[string]ratelimit.Limit{"pro": ratelimit.RollingWindow(100, time.Second)},
		}, {
			Name: "minute", Key: ratelimit.ByOwner(),
			Limit: ratelimit.RollingWindow(600, time.Minute),
			Plans: map[string]ratelimit.Limit{"pro": ratelimit.RollingWindow(6000, time.Minute)},
		},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, plan := range []string{"", "pro"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r = usher.WithPrincipal(r, &usher.Principal{ID: "key", Owner: "acme", Plan: plan})
		w := httptest.NewRecorder()
		limiter.Wrap(http.HandlerFunc(hello)).ServeHTTP(w, r)
		fmt.Println(w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// "second";q=10;w=1, "minute";q=600;w=60
	// "second";q=100;w=1, "minute";q=6000;w=60
}

// A route with a stricter limit of its own: a request is decided once over both limits,
// and a refused one is charged to neither.
func ExampleLimiter_With() {
	forAll := func(name string, n int) ratelimit.Policy {
		return ratelimit.Policy{Name: name, Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(n, time.Hour)}
	}
	limiter, _ := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{forAll("global", 100)}})
	search, err := limiter.With(forAll("search", 1))
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/", limiter.Wrap(http.HandlerFunc(hello)))
	mux.Handle("/search", search.Wrap(http.HandlerFunc(hello)))
	for _, path := range []string{"/search", "/search", "/"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(path, w.Code, w.Header().Get("RateLimit"))
	}
	// Output:
	// /search 200 "global";r=99;t=3600, "search";r=0;t=3600
	// /search 429 "global";r=99;t=3600, "search";r=0;t=3600
	// / 200 "global";r=98;t=3600
}

// Each caller has an allowance of its own for each route. Outside the router, usher.Pattern
// makes the route known.
func ExampleByRoute() {
	limiter, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:  "route",
		Key:   ratelimit.Combine(ratelimit.ByPrincipal(), ratelimit.ByRoute()),
		Limit: ratelimit.RollingWindow(1, time.Minute),
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes/{id}", hello)
	mux.HandleFunc("GET /tags/{id}", hello)
	auth := usher.Authenticate(ushertest.Authenticator(usher.Principal{ID: "alice", Kind: usher.KindAPIKey}))
	h := usher.Chain(auth, usher.Pattern(mux), limiter).Wrap(mux)

	for _, path := range []string{"/notes/1", "/notes/2", "/tags/1"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(path, w.Code)
	}
	// Output:
	// /notes/1 200
	// /notes/2 429
	// /tags/1 200
}

// A common mistake is to put a limiter of callers outside authentication, where no caller
// is known yet, so that it counts by address. Package ushertest finds the mistake.
func ExampleByPrincipal_incorrect() {
	limits, _ := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerPrincipal(100, time.Minute)}})
	limiter := ushertest.Watch(limits)
	auth := usher.Authenticate(ushertest.Authenticator(usher.Principal{ID: "alice", Kind: usher.KindAPIKey}))
	wrong := usher.Chain(limiter, auth).Wrap(http.HandlerFunc(hello))
	right := usher.Chain(auth, limiter).Wrap(http.HandlerFunc(hello))

	for _, h := range []http.Handler{wrong, right} {
		arrived, err := limiter.Reached(h, httptest.NewRequest(http.MethodGet, "/notes", nil))
		if err != nil {
			fmt.Println(err)
			return
		}
		caller, _ := usher.PrincipalFrom(arrived.Context())
		fmt.Printf("%q\n", caller.ID)
	}
	// Output:
	// ""
	// "alice"
}

// A handler learns only at the end what a request has cost.
func ExampleSettle() {
	limiter, _ := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:   "tokens",
		Key:    ratelimit.ByOwner(),
		Limit:  ratelimit.CalendarWindow(100_000, ratelimit.Month),
		Cost:   func(*http.Request) int { return 4096 }, // the most that one request may use
		Settle: true,
	}}})
	chat := limiter.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		used := 1234
		if err := ratelimit.Settle(r.Context(), "tokens", used); err != nil {
			fmt.Println(err)
		}
	}))
	for range 2 {
		w := httptest.NewRecorder()
		chat.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/chat", nil))
		remaining, _, _ := strings.Cut(w.Header().Get("RateLimit"), ";t=")
		fmt.Println(remaining)
	}
	// Output:
	// "tokens";r=95904
	// "tokens";r=94670
}

// A stream that reserves nothing ends when its budget does. Its status has been sent by then,
// so an event says why it ends. Before its first byte, usher.Fail responds to the error with
// 429.
func ExampleSettle_stream() {
	limiter, _ := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:   "tokens",
		Key:    ratelimit.ByOwner(),
		Limit:  ratelimit.CalendarWindow(70, ratelimit.Month),
		Cost:   func(*http.Request) int { return 0 }, // needs something to be left
		Settle: true,
	}}})
	chat := limiter.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i, word := range []string{"to", "be", "or", "not"} {
			used := 20 * (i + 1)
			if err := ratelimit.Settle(r.Context(), "tokens", used); errors.Is(err, ratelimit.ErrExhausted) {
				fmt.Fprint(w, "event: error\ndata: rate_limited\n\n")
				return
			}
			fmt.Fprintf(w, "data: %s\n\n", word)
		}
	}))
	w := httptest.NewRecorder()
	chat.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/chat", nil))
	fmt.Print(w.Body)
	// Output:
	// data: to
	//
	// data: be
	//
	// data: or
	//
	// event: error
	// data: rate_limited
}

// A timedStore measures how long decisions take. It embeds the store, and so passes all
// other calls on.
type timedStore struct {
	ratelimit.Store
	observe func(took time.Duration, err error)
}

func (s timedStore) Take(ctx context.Context, d *ratelimit.Decision) error {
	began := time.Now()
	err := s.Store.Take(ctx, d)
	s.observe(time.Since(began), err)
	return err
}

// A store wraps another to see or to change its calls.
func ExampleStore() {
	memory := usher.Must(ratelimit.NewMemory(ratelimit.MemoryConfig{}))
	limiter := usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{ratelimit.PerAddress(2, time.Minute)},
		Store: timedStore{memory, func(took time.Duration, err error) {
			fmt.Println("a decision within a second:", took < time.Second, err)
		}},
	}))
	h := limiter.Wrap(http.HandlerFunc(hello))
	for range 3 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		fmt.Println(w.Code)
	}
	// Output:
	// a decision within a second: true <nil>
	// 200
	// a decision within a second: true <nil>
	// 200
	// a decision within a second: true <nil>
	// 429
}

// The limits of a proxy and of the server behind it: the lists of both reach the client,
// and X-RateLimit fields are those of the proxy.
func ExampleHeaders_proxy() {
	limiter, err := ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{ratelimit.PerAddress(100, time.Minute)},
		Headers:  ratelimit.StandardAndDeltaHeaders,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit", `"upstream";r=2;t=10`)
		w.Header().Set("X-RateLimit-Remaining", "2")
	}))
	defer upstream.Close()
	target, _ := url.Parse(upstream.URL)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(res *http.Response) error {
			for _, name := range []string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"} {
				res.Header.Del(name)
			}
			return nil
		},
	}
	w := httptest.NewRecorder()
	limiter.Wrap(proxy).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(w.Header().Values("RateLimit"))
	fmt.Println(w.Header().Values("X-RateLimit-Remaining"))
	// Output:
	// ["address";r=99;t=60 "upstream";r=2;t=10]
	// [99]
}

// A log of every decision while its level is Debug, in which no key can be read.
func ExampleLogDecisions() {
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelDebug, // a *slog.LevelVar changes at run time
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	limiter, err := ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{{
			Name: "login", Key: ratelimit.ByAddress(), Limit: ratelimit.RollingWindow(5, time.Hour),
		}},
		OnDecision: ratelimit.LogDecisions(log, []byte("the same in all processes")),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	limiter.Wrap(http.HandlerFunc(hello)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	// Output:
	// level=DEBUG msg="ratelimit: decision" policy=login key=b8a4c65ddd02ce27d6567b9cf7f6bc3f limit="5 in any 1h0m0s" cost=1 remaining=4 admitted=true violated=false shadow=false wait=0s
}
