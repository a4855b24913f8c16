package adaptertest

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
)

// A way is a way to mount a tee in a chain.
type way struct {
	name string
	step func(*tee) Step
}

var ways = []way{
	{"usher", func(t *tee) Step { return Step{Usher: t} }},
	{"foreign", func(t *tee) Step { return Step{Foreign: plainTee(t)} }},
}

// byAllWays returns a check that runs check with a tee mounted in each way.
func byAllWays(check func(b *bench, t *tee, step Step) error) func(*bench) error {
	return func(b *bench) error {
		var errs []error
		for _, w := range ways {
			t := newTee()
			if err := check(b, t, w.step(t)); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", w.name, err))
			}
		}
		return errors.Join(errs...)
	}
}

func get(pattern string, handler func(Context) error, use ...Step) Route {
	return Route{Method: http.MethodGet, Pattern: pattern, Use: use, Native: handler}
}

func post(pattern string, handler func(Context) error) Route {
	return Route{Method: http.MethodPost, Pattern: pattern, Native: handler}
}

func ok(c Context) error { return c.String(200, "ok") }

func checkPrincipal(b *bench, step Step) error {
	c := b.serve(App{Use: []Step{step}, Routes: []Route{get("/", func(c Context) error {
		p, ok := c.Principal()
		return c.String(200, fmt.Sprint(p.ID, " ", ok))
	})}})
	return all(
		same("response to ann", c.get("/", "Caller: ann").body, "ann true"),
		same("status without a caller", c.get("/").status, 401),
	)
}

func checkRestored(b *bench, panics bool) error {
	var request, writer atomic.Bool
	outer := Step{Native: func(c Context, next func() error) (err error) {
		r, w := c.Request(), c.Writer()
		defer func() {
			v := recover()
			request.Store(c.Request() == r)
			writer.Store(c.Writer() == w)
			if v != nil {
				err = c.String(500, "recovered")
			}
		}()
		return next()
	}}
	handler := func(c Context) error {
		if panics {
			panic("a handler fails")
		}
		return c.String(200, "returned")
	}
	return byAllWays(func(b *bench, t *tee, step Step) error {
		use := []Step{outer, {Usher: authenticate()}, step}
		c := b.serve(App{Use: use, Routes: []Route{get("/", handler)}})
		want := map[bool]string{false: "returned", true: "recovered"}[panics]
		err := same("body", c.get("/", "Caller: ann").body, want)
		return all(err, same("the request is restored", request.Load(), true), same("the writer is restored", writer.Load(), true))
	})(b)
}

func checkRefused(b *bench, step Step) error {
	var ran atomic.Int32
	var aborted atomic.Value
	outer := func(c Context, next func() error) error {
		err := next()
		if a, ok := c.(interface{ IsAborted() bool }); ok {
			aborted.Store(a.IsAborted())
		}
		return err
	}
	inner := func(_ Context, next func() error) error { ran.Add(1); return next() }
	handler := func(c Context) error { ran.Add(1); return ok(c) }
	c := b.serve(App{
		Use:    []Step{{Native: outer}, step, {Native: inner}},
		Routes: []Route{get("/", handler, Step{Native: inner})},
	})
	a := c.get("/")
	err := all(same("status", a.status, 429), same("what ran inside", ran.Load(), 0))
	if v := aborted.Load(); v != nil {
		err = all(err, same("IsAborted", v.(bool), true))
	}
	return err
}

func checkRefusalSeen(b *bench, step Step) error {
	seen := make(chan Progress, 1)
	outer := func(c Context, next func() error) error {
		err := next()
		seen <- c.Progress()
		return err
	}
	c := b.serve(App{Use: []Step{{Native: outer}, step}, Routes: []Route{get("/", ok)}})
	a := c.get("/")
	return same("what the outer middleware sees", <-seen, Progress{429, int64(len(a.body)), true})
}

// captures returns a check that a tee sees what the client gets.
func captures(handler func(Context) error, status int) func(*bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		c := b.serve(App{Use: []Step{step}, Routes: []Route{get("/", handler)}})
		a := c.get("/")
		seen, err := t.capture()
		return first(err, all(
			same("status", a.status, status),
			same("what is captured", seen, capture{a.status, a.body, true}),
		))
	})
}

func checkHead(b *bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		c := b.serve(App{Use: []Step{step}, Routes: []Route{get("/", ok)}})
		a := c.do(http.MethodHead, "/", "")
		seen, err := t.capture()
		return first(err, all(
			same("status", a.status, 200),
			same("body", a.body, ""),
			same("captured status", seen.status, 200),
		))
	})(b)
}
