package adaptertest

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
)

// checkReturned returns a check that an error that a handler returns becomes the response
// that a tee sees. The tee runs outside the middleware that renders errors.
func checkReturned(err error, status int, contains string) func(*bench) error {
	return checkErrorSeen(err, status, contains, func(a *App, s Step) { a.Use = []Step{s} })
}

// checkReturnedInside is checkReturned with the tee inside the middleware that renders errors.
func checkReturnedInside(err error, status int, contains string) func(*bench) error {
	return checkErrorSeen(err, status, contains, func(a *App, s Step) { a.Group.Use = []Step{s} })
}

func checkErrorSeen(err error, status int, contains string, use func(*App, Step)) func(*bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		app := App{
			Failures: true,
			Group:    Group{Prefix: "/group", Routes: []Route{get("/", func(c Context) error { return c.Return(err) })}},
		}
		use(&app, step)
		c := b.serve(app)
		a := c.get("/group/")
		seen, err := t.capture()
		return first(err, all(
			same("status", a.status, status),
			same("the body has "+contains, strings.Contains(a.body, contains), true),
			same("the body shows the private error", strings.Contains(a.body, "private"), false),
			same("what is captured", seen, capture{a.status, a.body, true}),
		))
	})
}

// checkLateRenderer checks that a foreign outer middleware can respond where the handler
// has only set a status, and that no middleware of usher responds first.
func checkLateRenderer(b *bench) error {
	renderer := Step{Native: func(c Context, next func() error) error {
		if err := next(); err != nil || c.Progress().Written {
			return err
		}
		return c.String(500, "rendered")
	}}
	return byAllWays(func(b *bench, t *tee, step Step) error {
		c := b.serve(App{Use: []Step{renderer, step}, Routes: []Route{get("/", func(c Context) error {
			return all(c.Status(400), c.Return(errors.New("private")))
		})}})
		a := c.get("/")
		seen, err := t.capture()
		return first(err, all(
			same("status", a.status, 500),
			same("body", a.body, "rendered"),
			same("captured status", seen.status, 400),
		))
	})(b)
}

func checkErrorHandlerBody(b *bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		app, _ := withErrorHandler()
		app.Use = []Step{step}
		a := b.serve(app).get("/")
		seen, err := t.capture()
		return first(err, all(
			same("body", a.body, "central"),
			same("what is captured", seen, capture{418, "central", true}),
		))
	})(b)
}

func checkErrorHandlerCalls(b *bench) error {
	app, calls := withErrorHandler()
	app.Use = []Step{{Usher: authenticate()}, {Foreign: authenticate().Wrap}}
	a := b.serve(app).get("/", "Caller: ann")
	return all(same("body", a.body, "central"), same("calls", calls.Load(), 1))
}

// withErrorHandler returns an app whose handler fails, and the number of calls of its
// central error handler. The error handler does nothing if a response was written.
func withErrorHandler() (app App, calls *atomic.Int32) {
	calls = new(atomic.Int32)
	return App{
		OnError: func(c Context, _ error) {
			calls.Add(1)
			if !c.Progress().Written {
				_ = c.String(418, "central")
			}
		},
		Routes: []Route{get("/", func(c Context) error { return c.Fail(418) })},
	}, calls
}

// checkUnrouted sends a GET request to a path without a route, or another method to
// a path whose only route is for GET.
func checkUnrouted(method string, app App, sees ...func(response, capture) error) func(*bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		app.Use, app.Routes = []Step{step}, []Route{get("/items", ok)}
		path, status := "/items", http.StatusMethodNotAllowed
		if method == http.MethodGet {
			path, status = "/none", http.StatusNotFound
		}
		a := b.serve(app).do(method, path, "")
		if err := same("status", a.status, status); err != nil {
			return err
		}
		seen, err := t.capture()
		if err != nil {
			return err
		}
		for _, see := range sees {
			if err := see(a, seen); err != nil {
				return err
			}
		}
		return nil
	})
}

func seesStatus(a response, seen capture) error {
	return same("captured status", seen.status, a.status)
}
func seesBody(a response, seen capture) error { return same("captured body", seen.body, a.body) }

func seesAllow(a response, _ capture) error {
	allow := strings.Join(a.header["Allow"], ", ")
	return same("GET in Allow: "+allow, strings.Contains(allow, http.MethodGet), true)
}

func seesProblem(a response, seen capture) error {
	return all(
		same("Content-Type", a.header.Get("Content-Type"), "application/problem+json"),
		same("what is captured", seen, capture{a.status, a.body, true}),
	)
}
