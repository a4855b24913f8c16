package adaptertest

import (
	"fmt"
	"net/http"
	"slices"
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

func checkAbort(outer ...Step) func(*bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		c := b.serve(App{
			Use:    append(slices.Clip(outer), Step{Usher: authenticate()}, step),
			Routes: []Route{get("/", func(Context) error { panic(http.ErrAbortHandler) })},
		})
		if a, err := c.try(http.MethodGet, "/", "", "Caller: ann"); err == nil {
			return fmt.Errorf("the client got %d instead of an end of the connection", a.status)
		}
		seen, err := t.capture()
		return first(err, same("what is captured", seen, capture{}))
	})
}
