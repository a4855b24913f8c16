package adaptertest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

func checkBuiltOnce(b *bench) error {
	var built atomic.Int32
	c := b.serve(App{
		Use: []Step{{Foreign: func(next http.Handler) http.Handler {
			built.Add(1)
			return next
		}}},
		Routes: []Route{get("/", ok)},
	})
	for range 3 {
		c.get("/")
	}
	return same("how often it was built", built.Load(), 1)
}

func checkLimit(b *bench) error {
	var errs []error
	for _, foreign := range []bool{false, true} {
		limiter := must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
			Name: "all", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(2, time.Hour),
		}}}))(b)
		step := Step{Usher: limiter}
		if foreign {
			step = Step{Foreign: limiter.Wrap}
		}
		var ran atomic.Int32
		c := b.serve(App{Use: []Step{step}, Routes: []Route{get("/", func(c Context) error {
			ran.Add(1)
			return ok(c)
		})}})
		for _, status := range []int{200, 200, 429, 429} {
			errs = append(errs, same("status", c.get("/").status, status))
		}
		errs = append(errs, same("how often the handler ran", ran.Load(), 2))
	}
	return errors.Join(errs...)
}

// patterns records the pattern that a middleware finds before it calls next.
type patterns chan string

func (p patterns) step() Step {
	return Step{Usher: middlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		p <- r.Pattern
		next.ServeHTTP(w, r)
	})}
}

// of returns the pattern for each of paths.
func (p patterns) of(c *client, paths ...string) ([]string, error) {
	found := make([]string, len(paths))
	for i, path := range paths {
		c.get(path)
		select {
		case found[i] = <-p:
		default:
			return nil, fmt.Errorf("the middleware did not run for %s", path)
		}
	}
	return found, nil
}

func withParameters() []Route { return []Route{get("/items/{id}", ok), get("/others/{id}", ok)} }

// checkPattern has place mount a middleware that finds the patterns of three requests,
// two of which have the same pattern.
func checkPattern(place func(*App, Step)) func(*bench) error {
	return func(b *bench) error {
		p := make(patterns, 10)
		app := App{Group: Group{Prefix: "/group", Routes: withParameters()}}
		place(&app, p.step())
		found, err := p.of(b.serve(app), "/group/items/41", "/group/items/42", "/group/others/41")
		if err != nil {
			return err
		}
		return checkApart(found[0], found[1], found[2])
	}
}

func checkApart(item, item2, other string) error {
	return all(
		same("the pattern names the route: "+item, strings.Contains(item, "/items/"), true),
		same("the pattern has the parameter: "+item, strings.Contains(item, "41"), false),
		same("the pattern of the same route", item2, item),
		same("routes have patterns of their own: "+item+", "+other, item != other, true),
	)
}

func checkPatternMounted(b *bench) error {
	p := make(patterns, 10)
	outer := http.NewServeMux()
	outer.Handle("/", b.router.Handler(b, App{Use: []Step{p.step()}, Routes: append(withParameters(), get("/", ok))}))
	found, err := p.of(b.serveHandler(outer), "/items/41", "/items/42", "/others/41", "/", "/none")
	if err != nil {
		return err
	}
	return all(
		checkApart(found[0], found[1], found[2]),
		same("the root is not what no route matches: "+found[3]+", "+found[4], found[3] != found[4], true),
	)
}

func checkPatternUnmatched(b *bench) error {
	p := make(patterns, 10)
	c := b.serve(App{
		Use:    []Step{p.step()},
		Routes: withParameters(),
		Group:  Group{Prefix: "/group", Routes: withParameters()},
	})
	// Not /items/41/none: in echo the last parameter of a pattern matches the whole rest.
	found, err := p.of(c, "/none", "/none/41", "/none/41/items", "/group/none", "/group/none/41")
	if err != nil {
		return err
	}
	return all(
		same("the second", found[1], found[0]),
		same("the third", found[2], found[0]),
		same("the second of the group", found[4], found[3]), // a group may have a pattern of its own
	)
}

func checkPathValue(place func(*App, Step)) func(*bench) error {
	return func(b *bench) error {
		found := make(chan string, 10)
		app := App{PathValues: true, Routes: []Route{get("/items/{id}", ok)}}
		place(&app, Step{Usher: middlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			found <- r.PathValue("id")
			next.ServeHTTP(w, r)
		})})
		b.serve(app).get("/items/41")
		select {
		case id := <-found:
			return same("r.PathValue before next", id, "41")
		default:
			return errors.New("the middleware did not run")
		}
	}
}

func checkPathValueInHandler(b *bench) error {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.PathValue("id"))
	})
	c := b.serve(App{
		PathValues: true,
		Use:        []Step{{Usher: authenticate()}},
		Routes:     []Route{{Method: http.MethodGet, Pattern: "/items/{id}", Handler: handler}},
	})
	return same("r.PathValue in a handler of net/http", c.get("/items/41", "Caller: ann").body, "41")
}

func checkOrder(b *bench) error {
	use := func(name string) []Step {
		return []Step{{Usher: mark(name)}, {Foreign: mark(name + " foreign").Wrap}, {Usher: mark(name + " again")}}
	}
	a := b.serve(App{Use: use("global"), Group: Group{
		Prefix: "/group",
		Use:    use("group"),
		Routes: []Route{get("/", ok, use("route")...), get("/items", ok, use("route")...)},
	}}).get("/group/items")
	want := "global, global foreign, global again, group, group foreign, group again, route, route foreign, route again"
	return same("order", strings.Join(a.header["Trace"], ", "), want)
}

func checkNested(b *bench) error {
	inner := newTee()
	return byAllWays(func(b *bench, outer *tee, step Step) error {
		c := b.serve(App{
			Use:    []Step{step, {Usher: middlewareFunc(rewrite)}},
			Routes: []Route{get("/", ok, Step{Usher: inner})},
		})
		a := c.get("/")
		seenInside, err := inner.capture()
		seenOutside, err2 := outer.capture()
		return first(err, err2, all(
			same("body", a.body, "<ok>"),
			same("captured inside", seenInside, capture{200, "ok", true}),
			same("captured outside", seenOutside, capture{200, "<ok>", true}),
		))
	})(b)
}
