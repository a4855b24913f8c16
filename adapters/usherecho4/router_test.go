package usherecho4_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/adaptertest"
	"github.com/usher-go/usher/adapters/usherecho4"
)

var router = adaptertest.Router{
	Name:    "echo v4",
	Handler: adapter{usherecho4.Middleware, usherecho4.Adapt}.echo,
	Lacks: map[string]string{
		"8.inside":  "Handlers of echo return their errors; none are collected.",
		"8.outside": "Handlers of echo return their errors; none are collected.",
		"8.foreign": "Handlers of echo return their errors; none are collected.",
	},
	Allocs:      1,
	Declaration: "testdata/echo-v4.json",
}

func TestRouter(t *testing.T) { adaptertest.Test(t, router) }

func TestAllocs(t *testing.T) { adaptertest.TestAllocs(t, router) }

// An adapter mounts middlewares.
type adapter struct {
	middleware func(usher.Middleware) echo.MiddlewareFunc
	foreign    func(func(http.Handler) http.Handler) echo.MiddlewareFunc
}

func (a adapter) echo(_ testing.TB, app adaptertest.App) http.Handler {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	if app.Failures {
		e.HTTPErrorHandler = usherecho4.HTTPErrorHandler
	}
	if app.OnError != nil {
		e.HTTPErrorHandler = func(err error, c echo.Context) { app.OnError(context{c}, err) }
	}
	e.HTTPErrorHandler = unmatched(app, e.HTTPErrorHandler)
	if app.PathValues {
		e.Use(usherecho4.PathValues)
	}
	e.Use(a.steps(app.Use)...)
	for _, r := range app.Routes {
		e.Match(methods(r), pattern(r), handler(r), a.steps(r.Use)...)
	}
	if len(app.Group.Routes) > 0 {
		g := e.Group(app.Group.Prefix, a.steps(app.Group.Use)...)
		for _, r := range app.Group.Routes {
			g.Match(methods(r), pattern(r), handler(r), a.steps(r.Use)...)
		}
	}
	return e
}

// unmatched serves requests that match no route, as app asks. This version of echo has
// handlers for them only in variables of its package.
func unmatched(app adaptertest.App, next echo.HTTPErrorHandler) echo.HTTPErrorHandler {
	return func(err error, c echo.Context) {
		w := c.Response()
		switch {
		case app.NotFound != nil && errors.Is(err, echo.ErrNotFound) && !w.Committed:
			app.NotFound.ServeHTTP(w, c.Request())
		case app.MethodNotAllowed != nil && errors.Is(err, echo.ErrMethodNotAllowed) && !w.Committed:
			// echo serves OPTIONS itself, and the suite has no route for it.
			h := w.Header()
			h.Set(echo.HeaderAllow, strings.TrimPrefix(h.Get(echo.HeaderAllow), "OPTIONS, "))
			app.MethodNotAllowed.ServeHTTP(w, c.Request())
		default:
			next(err, c)
		}
	}
}

// methods returns the methods of r. A GET route needs HEAD too, as this version of echo
// does not serve HEAD with GET routes.
func methods(r adaptertest.Route) []string {
	if r.Method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{r.Method}
}

func pattern(r adaptertest.Route) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(r.Pattern)
}

func handler(r adaptertest.Route) echo.HandlerFunc {
	if r.Native == nil {
		return echo.WrapHandler(r.Handler)
	}
	return func(c echo.Context) error { return r.Native(context{c}) }
}

func (a adapter) steps(list []adaptertest.Step) []echo.MiddlewareFunc {
	converted := make([]echo.MiddlewareFunc, len(list))
	for i, s := range list {
		switch {
		case s.Usher != nil:
			converted[i] = a.middleware(s.Usher)
		case s.Foreign != nil:
			converted[i] = a.foreign(s.Foreign)
		case s.Native != nil:
			converted[i] = native(s.Native)
		case s.Recover:
			converted[i] = middleware.Recover()
		case s.Compress:
			converted[i] = middleware.Gzip()
		}
	}
	return converted
}

func native(f func(adaptertest.Context, func() error) error) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			return f(context{c}, func() error { return next(c) })
		}
	}
}

// context is the Context of handlers on echo.
type context struct{ echo.Context }

func (c context) Writer() http.ResponseWriter { return c.Response() }

func (c context) Principal() (usher.Principal, bool) { return usherecho4.PrincipalFrom(c.Context) }

func (c context) Status(status int) error { return c.NoContent(status) }

func (c context) File(path string) error {
	return c.Context.File(path)
}

func (c context) Stream(step func(io.Writer) bool) error {
	for step(c.Response()) {
		if err := http.NewResponseController(c.Response()).Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (c context) Fail(status int) error { return echo.NewHTTPError(status, "failed") }

func (c context) Return(err error) error { return err }

func (c context) Progress() adaptertest.Progress {
	r := c.Response()
	return adaptertest.Progress{Status: r.Status, Size: r.Size, Written: r.Committed}
}
