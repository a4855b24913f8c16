package adaptertest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
)

func checkRecoverOutside(b *bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		c := b.serve(App{Use: []Step{{Recover: true}, {Usher: authenticate()}, step}, Routes: []Route{get("/", panics)}})
		a := c.get("/", "Caller: ann")
		seen, err := t.capture()
		return first(err, all(
			same("status", a.status, 500),
			same("what is captured", seen, capture{}),
		))
	})(b)
}

func checkRecoverInside(b *bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		c := b.serve(App{Use: []Step{{Usher: authenticate()}, step, {Recover: true}}, Routes: []Route{get("/", panics)}})
		a := c.get("/", "Caller: ann")
		seen, err := t.capture()
		return first(err, all(
			same("status", a.status, 500),
			same("what is captured", seen, capture{500, a.body, true}),
		))
	})(b)
}

// checkChainEnds has a middleware recover from the panic of an inner middleware. If the
// inner one authorizes, for instance, what it has not admitted must not run.
func checkChainEnds(b *bench) error {
	recovers := middlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
	var ran atomic.Int32
	var errs []error
	for _, step := range []Step{{Usher: recovers}, {Foreign: recovers.Wrap}} {
		c := b.serve(App{
			Use:    []Step{step, {Native: func(c Context, _ func() error) error { return panics(c) }}},
			Routes: []Route{get("/", func(c Context) error { ran.Add(1); return ok(c) })},
		})
		errs = append(errs, same("status", c.get("/").status, 500))
	}
	return all(errors.Join(errs...), same("what ran after the panic", ran.Load(), 0))
}

func checkAbort(outer ...Step) func(*bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		c := b.serve(App{
			Use:    append(slices.Clip(outer), Step{Usher: authenticate()}, step),
			Routes: []Route{get("/", func(Context) error { panic(http.ErrAbortHandler) })},
		})
		if a, err := c.try(http.MethodGet, "/", "", "Caller: ann"); err == nil {
			return fmt.Errorf("the client got %d, want an aborted connection", a.status)
		}
		seen, err := t.capture()
		return first(err, same("what is captured", seen, capture{}))
	})
}
