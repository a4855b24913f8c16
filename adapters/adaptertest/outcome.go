package adaptertest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// returning serves POST /orders/ inside step and inside the middleware that renders
// errors. The handler returns err, and ran counts how often it has run.
func (b *bench) returning(err error, step Step) (c *client, ran *atomic.Int32) {
	ran = new(atomic.Int32)
	return b.serve(App{
		Failures: true,
		Group: Group{Prefix: "/orders", Use: []Step{step}, Routes: []Route{post("/", func(c Context) error {
			ran.Add(1)
			return c.Return(err)
		})}},
	}), ran
}

// checkReturnedOnce checks that idempotency treats a request whose handler returned an
// error like a request that was refused with the status of that error.
func checkReturnedOnce(b *bench) error {
	private := errors.New("private")
	fail := func(status int) error { return &usher.Error{Status: status, Code: "refused"} }
	tests := []struct {
		name    string
		profile idempotency.Profile
		err     error
		first   int
		retry   int
		runs    int32
	}{
		{"default", nil, fail(402), 402, 402, 1},
		{"default", nil, fail(503), 503, 503, 2},
		{"default", nil, fail(500), 500, 409, 1},
		{"default", nil, private, 500, 409, 1},
		{"Stripe", idempotency.ProfileStripe, fail(402), 402, 402, 1},
		{"Stripe", idempotency.ProfileStripe, fail(400), 400, 400, 2},
		{"Stripe", idempotency.ProfileStripe, private, 500, 500, 1},
		{"release server errors", idempotency.ProfileReleaseServerErrors, fail(402), 402, 402, 1},
		{"release server errors", idempotency.ProfileReleaseServerErrors, private, 500, 500, 2},
		{"only success", idempotency.ProfileKeepSuccess, fail(402), 402, 402, 2},
		{"only success", idempotency.ProfileKeepSuccess, private, 500, 500, 2},
		{"deliveries", idempotency.ProfileDeliveries, fail(402), 402, 402, 2},
		{"deliveries", idempotency.ProfileDeliveries, private, 500, 500, 2},
	}
	var errs []error
	for _, tt := range tests {
		// Authenticate inside idempotency, in the same Chain, does not hide the outcome.
		for _, inner := range []usher.Middleware{usher.Chain(), usher.Authenticate(usher.Optional(byName{}))} {
			once := must(idempotency.New(idempotency.Config{Profile: tt.profile, DangerouslyAllowAnonymous: true}))(b)
			c, ran := b.returning(tt.err, Step{Usher: usher.Chain(once, inner)})
			first := c.do(http.MethodPost, "/orders/", "{}", "Idempotency-Key: k")
			retry := c.do(http.MethodPost, "/orders/", "{}", "Idempotency-Key: k")
			err := all(
				same("first status", first.status, tt.first),
				same("status of the retry", retry.status, tt.retry),
				same("runs", ran.Load(), tt.runs),
				same("the body is empty", first.body == "" || retry.body == "", false),
				same("the body shows the private error", strings.Contains(first.body+retry.body, "private"), false),
			)
			if tt.first == tt.retry {
				err = all(err, same("body of the retry", retry.body, first.body))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("profile %s, %T inside, %w: %w", tt.name, inner, tt.err, err))
			}
		}
	}
	return errors.Join(errs...)
}

// checkReturnedCounted checks that a limit that counts some outcomes counts an error that
// a handler returns by its status.
func checkReturnedCounted(b *bench) error {
	limit := func(count func(status int) bool) Step {
		return Step{Usher: must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
			Name: "outcomes", Key: ratelimit.ByAddress(), Limit: ratelimit.RollingWindow(3, time.Hour), Count: count,
		}}}))(b)}
	}
	statuses := func(err error, step Step) string {
		c, _ := b.returning(err, step)
		var got []string
		for range 6 {
			got = append(got, fmt.Sprint(c.do(http.MethodPost, "/orders/", "{}").status))
		}
		return strings.Join(got, " ")
	}
	unauthorized := &usher.Error{Status: http.StatusUnauthorized, Code: "wrong_password"}
	failedLogin := func(status int) bool { return status == http.StatusUnauthorized }
	success := func(status int) bool { return status < http.StatusBadRequest }
	return all(
		same("six failed logins", statuses(unauthorized, limit(failedLogin)), "401 401 401 429 429 429"),
		same("six failures where successes count", statuses(unauthorized, limit(success)), "401 401 401 401 401 401"),
		same("six private failures where successes count", statuses(errors.New("private"), limit(success)), "500 500 500 500 500 500"),
	)
}

// uses is an authenticator that records the uses of its credentials: the status, and
// whether the pattern names the route.
type uses struct {
	byName
	recorded chan string
}

func newUses() uses { return uses{recorded: make(chan string, 10)} }

func (u uses) Authenticate(r *http.Request) (*usher.Principal, error) {
	p, err := u.byName.Authenticate(r)
	if p != nil {
		p.OnUse = func(r *http.Request, status int) {
			u.recorded <- fmt.Sprint(status, " ", strings.Contains(r.Pattern, "/orders"))
		}
	}
	return p, err
}

// all returns the uses that were recorded until now.
func (u uses) all() string {
	var found []string
	for len(u.recorded) > 0 {
		found = append(found, <-u.recorded)
	}
	return strings.Join(found, ", ")
}

// checkReturnedUse checks that the use of a credential has the status of the error that
// the handler returns.
func checkReturnedUse(b *bench) error {
	var errs []error
	for _, inner := range []usher.Middleware{usher.Chain(), usher.Authenticate(usher.Optional(byName{}))} {
		for _, status := range []int{401, 403, 404, 409, 429, 503} {
			u := newUses()
			c, _ := b.returning(&usher.Error{Status: status, Code: "refused"}, Step{Usher: usher.Chain(usher.Authenticate(u), inner)})
			a := c.do(http.MethodPost, "/orders/", "{}", "Caller: ann")
			errs = append(errs,
				same("status", a.status, status),
				same(fmt.Sprintf("recorded uses after a %d", status), u.all(), fmt.Sprintf("%d true", status)),
			)
		}
	}
	return errors.Join(errs...)
}

// checkUse checks that the use of a credential has the status of the response.
func checkUse(handler func(Context) error, want int) func(*bench) error {
	return func(b *bench) error {
		var errs []error
		for _, foreign := range []bool{false, true} {
			u := newUses()
			step := Step{Usher: usher.Authenticate(u)}
			if foreign {
				step = Step{Foreign: step.Usher.Wrap}
			}
			c := b.serve(App{Group: Group{Prefix: "/orders", Use: []Step{step}, Routes: []Route{get("/", handler)}}})
			if _, err := c.try(http.MethodGet, "/orders/", "", "Caller: ann"); err != nil && want != 0 {
				errs = append(errs, err)
			}
			errs = append(errs, same("recorded uses", u.all(), fmt.Sprintf("%d true", cmp.Or(want, 500))))
		}
		return errors.Join(errs...)
	}
}

// checkStreamUse checks that the use of a credential is recorded when a stream begins.
func checkStreamUse(b *bench) error {
	u := newUses()
	early := make(chan string, 1)
	c := b.serve(App{Group: Group{Prefix: "/orders", Use: []Step{{Usher: usher.Authenticate(u)}}, Routes: []Route{
		get("/", func(c Context) error {
			_, err := io.WriteString(c.Writer(), "first")
			if err := all(err, flushByController(c.Writer())); err != nil {
				return err
			}
			early <- u.all()
			_, err = io.WriteString(c.Writer(), "second")
			return err
		}),
	}}})
	body := c.get("/orders/", "Caller: ann").body
	return all(
		same("body", body, "firstsecond"),
		same("recorded uses of a stream", <-early, "200 true"),
		same("recorded uses after a stream", u.all(), ""),
	)
}
