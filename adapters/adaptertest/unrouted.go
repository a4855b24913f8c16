package adaptertest

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/usher-go/usher/idempotency"
)

// checkForgotten checks that idempotency, which place mounts, does not remember the response
// to a request that no route took: once a new version of the service has the route, a
// retry runs.
func checkForgotten(app App, place func(*App, Step)) func(*bench) error {
	return func(b *bench) error {
		records := must(idempotency.NewMemory(idempotency.MemoryConfig{}))(b)
		var ran atomic.Int32
		serve := func(routes ...Route) *client {
			app := app
			app.Group = Group{Prefix: "/orders", Routes: append(routes, get("/items", ok))}
			place(&app, Step{Usher: must(idempotency.New(idempotency.Config{Store: records, DangerouslyAllowAnonymous: true}))(b)})
			return b.serve(app)
		}
		run := func(c Context) error {
			ran.Add(1)
			return ok(c)
		}
		older, newer := serve(), serve(post("/items", run), post("/more", run))
		var errs []error
		for i, path := range []string{"/orders/items", "/orders/more"} {
			key := fmt.Sprint("Idempotency-Key: ", i)
			for range 2 {
				a := older.do(http.MethodPost, path, "{}", key)
				errs = append(errs,
					same(fmt.Sprintf("the status without the route %s is 404 or 405: %d", path, a.status), a.status == 404 || a.status == 405, true),
					same("replayed", a.header.Get("Idempotency-Replayed"), ""),
				)
			}
			errs = append(errs,
				same("status with the route "+path, newer.do(http.MethodPost, path, "{}", key).status, 200),
				same("how often the handlers ran", int(ran.Load()), i+1),
			)
		}
		return errors.Join(errs...)
	}
}

// checkRemembered checks that idempotency, which place mounts, replays the 404 of a route.
func checkRemembered(place func(*App, Step)) func(*bench) error {
	return func(b *bench) error {
		var ran atomic.Int32
		app := App{Group: Group{Prefix: "/orders", Routes: []Route{post("/{id}/items", func(c Context) error {
			ran.Add(1)
			return c.String(http.StatusNotFound, "no such order")
		})}}}
		place(&app, Step{Usher: must(idempotency.New(idempotency.Config{DangerouslyAllowAnonymous: true}))(b)})
		c := b.serve(app)
		first := c.do(http.MethodPost, "/orders/7/items", "{}", "Idempotency-Key: k")
		again := c.do(http.MethodPost, "/orders/7/items", "{}", "Idempotency-Key: k")
		return all(
			same("status", first.status, 404),
			same("body", again.body, first.body),
			same("replayed", again.header.Get("Idempotency-Replayed"), "true"),
			same("how often the handler ran", ran.Load(), 1),
		)
	}
}
