package ratelimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// A login limits the attempts for each name. The handler knows the name only after it has
// parsed the body, so it asks the limiter itself. A success forgets the failures.
func ExampleLimiter_Allow() {
	logins := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:    "login",
		Key:     ratelimit.ByAddress(), // of requests, if logins also wraps a handler
		Limit:   ratelimit.RollingWindow(2, time.Hour),
		Message: "Too many attempts for this name.",
	}}}))
	login := func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Name, Password string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			usher.Fail(w, r, &usher.Error{Status: http.StatusBadRequest, Cause: err})
			return
		}
		name := ratelimit.TextKey(strings.ToLower(in.Name))
		if _, err := logins.Allow(r.Context(), 1, name); err != nil {
			usher.Fail(w, r, err)
			return
		}
		if in.Password != "correct" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if err := logins.Reset(r.Context(), name); err != nil {
			usher.Fail(w, r, err)
		}
	}
	for _, password := range []string{"guess", "correct", "guess", "guess", "correct"} {
		body := fmt.Sprintf(`{"name":"Ann","password":%q}`, password)
		w := httptest.NewRecorder()
		login(w, httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(body)))
		fmt.Printf("%d, retry after %q\n", w.Code, w.Header().Get("Retry-After"))
	}
	// Output:
	// 401, retry after ""
	// 200, retry after ""
	// 401, retry after ""
	// 401, retry after ""
	// 429, retry after "3600"
}

// A consumer of a queue has no requests. It charges each job to its account, puts back what
// does not fit until it does, and drops what can never fit.
func ExampleLimiter_Allow_queue() {
	jobs := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:  "jobs",
		Key:   ratelimit.ByOwner(),
		Limit: ratelimit.TokenBucket(60, time.Hour, 10),
	}}}))
	consume := func(ctx context.Context, account string, pages int) error {
		_, err := jobs.Allow(ctx, pages, ratelimit.OwnerKey(account))
		refused, ok := errors.AsType[*ratelimit.RefusedError](err)
		switch {
		case ok && refused.Wait < 0:
			fmt.Println(account, "can never print", pages, "pages")
			return nil
		case ok:
			fmt.Println(account, "waits for", refused.Wait.Round(time.Minute))
			return nil // back into the queue
		case err != nil:
			return err // the store has failed, and Config.OnStoreFailure is FailClosed
		}
		fmt.Println(account, "prints", pages, "pages")
		return nil
	}
	for _, job := range []struct {
		account string
		pages   int
	}{{"acme", 8}, {"acme", 5}, {"initech", 5}, {"acme", 2}, {"acme", 50}} {
		if err := consume(context.Background(), job.account, job.pages); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// acme prints 8 pages
	// acme waits for 3m0s
	// initech prints 5 pages
	// acme prints 2 pages
	// acme can never print 50 pages
}

// A page of the support desk shows what an account has left, and lifts its limits. Another
// route could show callers their own usage.
func ExampleLimiter_Peek() {
	limiter := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "minute", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(3, time.Minute)},
		{Name: "day", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(1000, 24*time.Hour)},
	}}))
	acme := ratelimit.OwnerKey("acme")
	ctx := context.Background()
	show := func() {
		usage, err := limiter.Peek(ctx, acme)
		if err != nil {
			fmt.Println(err)
		}
		for _, u := range usage {
			fmt.Printf("%s: %d of %d left\n", u.Policy, u.Remaining, u.Limit.Quota())
		}
	}
	for range 4 {
		_, err := limiter.Allow(ctx, 1, acme)
		fmt.Println(err)
	}
	show()
	if err := limiter.Reset(ctx, acme); err != nil {
		fmt.Println(err)
	}
	show()
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// ratelimit: refused by minute
	// minute: 0 of 3 left
	// day: 997 of 1000 left
	// minute: 3 of 3 left
	// day: 1000 of 1000 left
}
