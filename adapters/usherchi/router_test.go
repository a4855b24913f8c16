package usherchi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/adaptertest"
	"github.com/usher-go/usher/adapters/usherchi"
)

// chiUse is chi with the middlewares of Router.Use: those of the root also run for
// requests that match no route, and all run before the route is known.
var chiUse = adaptertest.Router{
	Name:    "chi Use",
	Handler: newUse,
	Differences: map[string]adaptertest.Difference{
		"21.use": {
			Reason:   "Middlewares of Router.Use run before chi has found the route; usherchi.Pattern sets the pattern alone.",
			Observed: `r.PathValue before next is ""`,
		},
		"23.form": formsLeak,
	},
	Lacks:       lacks,
	Declaration: "testdata/chi-use.json",
}

// chiWith is chi with the middlewares of Router.With, which belong to a route.
var chiWith = adaptertest.Router{
	Name:    "chi With",
	Handler: newWith,
	Differences: map[string]adaptertest.Difference{
		"10.status":    {Reason: ofRoutes, Observed: "the middleware did not run"},
		"10.body":      {Reason: ofRoutes, Observed: "the middleware did not run"},
		"10.usher":     {Reason: ofRoutes, Observed: "the middleware did not run"},
		"11.status":    {Reason: ofRoutes, Observed: "the middleware did not run"},
		"11.allow":     {Reason: ofRoutes, Observed: "the middleware did not run"},
		"11.usher":     {Reason: ofRoutes, Observed: "the middleware did not run"},
		"20.mounted":   {Reason: ofRoutes, Observed: "the middleware did not run for /none"},
		"20.unmatched": {Reason: ofRoutes, Observed: "the middleware did not run for /none"},
		"23.form":      formsLeak,
	},
	Lacks:       lacks,
	Declaration: "testdata/chi-with.json",
}

var formsLeak = adaptertest.Difference{
	Reason:   "Chi copies the request, and leaves the temporary files of a form behind with or without middlewares.",
	Observed: "files afterwards is 1",
}

const (
	ofRoutes = "Middlewares of Router.With belong to a route and do not run without one."
	noErrors = "Handlers of chi return no errors."
)

var lacks = map[string]string{
	"7.status":  noErrors,
	"7.usher":   noErrors,
	"7.private": noErrors,
	"8.inside":  noErrors,
	"8.outside": noErrors,
	"8.foreign": noErrors,
	"9.body":    noErrors,
	"9.calls":   noErrors,
	"26.error":  noErrors,
	"29.once":   noErrors,
	"29.limits": noErrors,
	"29.use":    noErrors,
	"27.allocs": "The middlewares need no adapter.",
}

func TestUse(t *testing.T) { adaptertest.Test(t, chiUse) }

func TestWith(t *testing.T) { adaptertest.Test(t, chiWith) }

func newUse(_ testing.TB, app adaptertest.App) http.Handler {
	root := chi.NewRouter()
	root.Use(middleware.GetHead, usherchi.Pattern)
	root.Use(steps(app.Use)...)
	unmatched(root, app)
	add(root, "", nil, app.Routes)
	if len(app.Group.Routes) > 0 {
		root.Route(app.Group.Prefix, func(r chi.Router) {
			r.Use(usherchi.Pattern)
			r.Use(steps(app.Group.Use)...)
			add(r, "", nil, app.Group.Routes)
		})
	}
	return root
}

func newWith(_ testing.TB, app adaptertest.App) http.Handler {
	root := chi.NewRouter()
	root.Use(middleware.GetHead)
	unmatched(root, app)
	add(root, "", app.Use, app.Routes)
	add(root, app.Group.Prefix, slices.Concat(app.Use, app.Group.Use), app.Group.Routes)
	return root
}

func unmatched(r chi.Router, app adaptertest.App) {
	if app.Failures {
		r.NotFound(usher.NotFound)
		r.MethodNotAllowed(usherchi.MethodNotAllowed)
	}
	if app.NotFound != nil {
		r.NotFound(app.NotFound.ServeHTTP)
	}
	if app.MethodNotAllowed != nil {
		r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", strings.Join(usherchi.AllowedMethods(r), ", "))
			app.MethodNotAllowed.ServeHTTP(w, r)
		})
	}
}

func add(r chi.Router, prefix string, use []adaptertest.Step, routes []adaptertest.Route) {
	for _, route := range routes {
		r.With(steps(slices.Concat(use, route.Use))...).Method(route.Method, prefix+route.Pattern, handler(route))
	}
}

func steps(list []adaptertest.Step) []func(http.Handler) http.Handler {
	converted := make([]func(http.Handler) http.Handler, len(list))
	for i, s := range list {
		switch {
		case s.Usher != nil:
			converted[i] = s.Usher.Wrap
		case s.Foreign != nil:
			converted[i] = s.Foreign
		case s.Native != nil:
			converted[i] = native(s.Native)
		case s.Recover:
			converted[i] = recoverer
		case s.Compress:
			converted[i] = middleware.Compress(5)
		}
	}
	return converted
}

// native is a middleware that sees the response as chi's own logger does.
func native(f func(adaptertest.Context, func() error) error) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := &context{adaptertest.NetHTTP{W: middleware.NewWrapResponseWriter(w, r.ProtoMajor), R: r}}
			_ = f(c, func() error { next.ServeHTTP(c.W, c.R); return nil })
		})
	}
}

// recoverer is chi's Recoverer, which prints nothing here.
func recoverer(next http.Handler) http.Handler {
	h := middleware.Recoverer(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, middleware.WithLogEntry(r, silence{}))
	})
}

type silence struct{}

func (silence) Write(int, int, http.Header, time.Duration, any) {}
func (silence) Panic(any, []byte)                               {}

func handler(r adaptertest.Route) http.Handler {
	if r.Native == nil {
		return r.Handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := r.Native(&context{adaptertest.NetHTTP{W: w, R: req}}); err != nil {
			usher.Fail(w, req, err)
		}
	})
}

// context is the Context of handlers on chi.
type context struct{ adaptertest.NetHTTP }

func (c *context) Param(name string) string { return chi.URLParam(c.R, name) }

func (c *context) Progress() adaptertest.Progress {
	w, ok := c.W.(middleware.WrapResponseWriter)
	if !ok {
		return adaptertest.Progress{}
	}
	return adaptertest.Progress{Status: w.Status(), Size: int64(w.BytesWritten()), Written: w.Status() != 0}
}
