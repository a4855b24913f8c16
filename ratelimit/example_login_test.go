package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// A login counts failures only, for each name and for each address, in one decision. The
// name is in the body, so the handler that parses it passes it on in the context, to the
// handler that the limiter wraps. The limiter of the names alone is the parent: the support
// desk shows a name with it, and resets one.
func ExamplePolicy_login() {
	type nameOf struct{}
	failed := func(status int) bool { return status == http.StatusUnauthorized }
	key := func(name string) ratelimit.Key { return ratelimit.TextKey(strings.ToLower(name)) }
	names := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "login-name",
		Key: func(r *http.Request) (ratelimit.Key, bool) {
			name, ok := r.Context().Value(nameOf{}).(string)
			return key(name), ok
		},
		Limit: ratelimit.RollingWindow(2, time.Hour),
		Count: failed,
	}}}))
	logins := usher.Must(names.With(ratelimit.Policy{
		Name: "login-address", Key: ratelimit.ByAddress(), Limit: ratelimit.RollingWindow(20, time.Hour), Count: failed,
	}))

	verify := logins.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("password") != "correct" {
			usher.Fail(w, r, &usher.Error{Status: http.StatusUnauthorized})
		}
	}))
	login := func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), nameOf{}, r.FormValue("name"))
		verify.ServeHTTP(w, r.WithContext(ctx))
	}
	try := func(passwords ...string) {
		var statuses []int
		for _, password := range passwords {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader("name=Ann&password="+password))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			login(w, r)
			statuses = append(statuses, w.Code)
		}
		fmt.Println(statuses)
	}
	show := func() {
		usage, err := names.Peek(context.Background(), key("ann"))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(usage[0].Remaining, "of", usage[0].Limit)
	}
	try("correct", "guess", "correct", "guess", "correct")
	show()
	if err := names.Reset(context.Background(), key("ann")); err != nil {
		fmt.Println(err)
	}
	show()
	try("correct")
	// Output:
	// [200 401 200 401 429]
	// 0 of 2 in any 1h0m0s
	// 2 of 2 in any 1h0m0s
	// [200]
}

// The support desk has the address of an IPv6 client. Requests count by its network.
func ExampleAddressKey() {
	limiter := usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{ratelimit.PerAddress(100, time.Minute)},
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "[2001:db8:1:2::7]:4000"
	limiter.Wrap(http.HandlerFunc(hello)).ServeHTTP(httptest.NewRecorder(), r)

	key := ratelimit.AddressKey(netip.PrefixFrom(netip.MustParseAddr("2001:db8:1:2::7"), 64))
	usage, err := limiter.Peek(context.Background(), key)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(usage[0].Remaining)
	// Output: 99
}

// Crawlers come faster than the rate. They wait for their turns, here the second and the
// third request, and are refused when the line is full. Its room is part of the burst that
// they see.
func ExamplePolicy_delay() {
	limiter := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:  "crawl",
		Key:   ratelimit.ByAddress(),
		Limit: ratelimit.TokenBucket(20, time.Second, 1),
		Delay: 500 * time.Millisecond,
	}}}))
	h := limiter.Wrap(http.HandlerFunc(hello))
	for range 3 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		fmt.Println(w.Code, w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// 200 "crawl";q=20;w=1;usher-burst=11
	// 200 "crawl";q=20;w=1;usher-burst=11
	// 200 "crawl";q=20;w=1;usher-burst=11
}

// Many clients of a partner share a key. Those that are refused come back one after another.
func ExamplePolicy_stagger() {
	limiter := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:    "partner",
		Key:     ratelimit.Global(),
		Limit:   ratelimit.RollingWindow(60, time.Hour),
		Stagger: true,
	}}}))
	if _, err := limiter.Allow(context.Background(), 60, ratelimit.Key{}); err != nil { // all of it
		fmt.Println(err)
	}
	h := limiter.Wrap(http.HandlerFunc(hello))
	for range 3 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		fmt.Println(w.Code, w.Header().Get("Retry-After"))
	}
	// Output:
	// 429 3600
	// 429 3660
	// 429 3720
}

// A program ends in this order: the server first, whose last requests still charge and
// refund, then the limiter, and the store after that.
func ExampleLimiter_Shutdown() {
	store := usher.Must(ratelimit.NewMemory(ratelimit.MemoryConfig{})) // or that of other processes too
	limiter := usher.Must(ratelimit.New(ratelimit.Config{
		Store:    store,
		Policies: []ratelimit.Policy{ratelimit.PerAddress(100, time.Minute)},
	}))
	server := &http.Server{Handler: limiter.Wrap(http.HandlerFunc(hello))}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, end := range []func(context.Context) error{
		server.Shutdown,
		limiter.Shutdown,
		func(context.Context) error { return store.Close() },
	} {
		if err := end(ctx); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
}
