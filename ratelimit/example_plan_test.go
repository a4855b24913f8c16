package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// Operators change limits while the service runs. LimitFor is called for each request, so
// a change applies at once, and what a key has used counts under the new limit too.
func ExamplePolicy_limitFor() {
	var table atomic.Pointer[map[string]ratelimit.Limit] // replaced as a whole
	table.Store(&map[string]ratelimit.Limit{"search": ratelimit.RollingWindow(3, time.Hour)})

	limiter := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:     "search",
		Key:      ratelimit.ByAddress(),
		Limit:    ratelimit.RollingWindow(3, time.Hour), // while the table has none
		LimitFor: func(*http.Request) ratelimit.Limit { return (*table.Load())["search"] },
	}}}))
	h := limiter.Wrap(http.HandlerFunc(hello))
	for _, quota := range []int{3, 3, 10, 2, 10} {
		table.Store(&map[string]ratelimit.Limit{"search": ratelimit.RollingWindow(quota, time.Hour)})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/search", nil))
		fmt.Println(w.Code, w.Header().Get("RateLimit-Policy"), w.Header().Get("RateLimit"))
	}
	// Output:
	// 200 "search";q=3;w=3600 "search";r=2;t=3600
	// 200 "search";q=3;w=3600 "search";r=1;t=3600
	// 200 "search";q=10;w=3600 "search";r=7;t=3600
	// 429 "search";q=2;w=3600 "search";r=0;t=3600
	// 200 "search";q=10;w=3600 "search";r=6;t=3600
}

// The plan of an account changes at run time, and its credentials stay as they are. All
// policies see the same plan.
func ExampleConfig_planOf() {
	plans := map[string]string{"acme": "pro"} // in a database
	limiter := usher.Must(ratelimit.New(ratelimit.Config{
		PlanOf: func(_ context.Context, owner string) (string, error) { return plans[owner], nil },
		Policies: []ratelimit.Policy{{
			Name:  "hour",
			Key:   ratelimit.ByOwner(),
			Limit: ratelimit.RollingWindow(100, time.Hour),
			Plans: map[string]ratelimit.Limit{"pro": ratelimit.RollingWindow(1000, time.Hour)},
		}},
	}))
	for _, owner := range []string{"acme", "initech"} {
		usage, err := limiter.Peek(context.Background(), ratelimit.OwnerKey(owner))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(owner, usage[0].Limit)
	}
	// Output:
	// acme 1000 in any 1h0m0s
	// initech 100 in any 1h0m0s
}

// Each account has the quota that it has bought, renewed on the day on which it began: here
// on the 17th of each month, by the clock of the account. Where a month is too short for
// such a day, the quota is renewed on its last day.
func ExamplePolicy_billing() {
	type subscription struct {
		quota int
		since time.Time
	}
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		fmt.Println(err)
		return
	}
	subscriptions := map[string]subscription{ // in a database
		"acme": {quota: 50_000, since: time.Date(2024, time.May, 17, 9, 0, 0, 0, newYork)},
	}
	limiter := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:  "month",
		Key:   ratelimit.ByOwner(),
		Limit: ratelimit.CalendarWindow(100, ratelimit.Month), // of accounts that have bought nothing
		LimitOf: func(_ context.Context, owner string) (ratelimit.Limit, error) {
			s, ok := subscriptions[owner]
			if !ok {
				return ratelimit.Limit{}, nil
			}
			return ratelimit.CalendarWindow(s.quota, ratelimit.Month).In(s.since.Location()).From(s.since), nil
		},
	}}}))
	usage, err := limiter.Allow(context.Background(), 1200, ratelimit.OwnerKey("acme"))
	if err != nil {
		fmt.Println(err)
		return
	}
	renewal := time.Now().Add(usage[0].Reset).Round(time.Minute).In(newYork)
	fmt.Printf("%d of %d left until the %dth at %s\n", usage[0].Remaining, usage[0].Limit.Quota(), renewal.Day(), renewal.Format("15:04"))
	// Output: 48800 of 50000 left until the 17th at 09:00
}
