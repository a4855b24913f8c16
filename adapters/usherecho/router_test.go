package usherecho_test

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/adaptertest"
	"github.com/usher-go/usher/adapters/usherecho"
)

var router = adaptertest.Router{
	Name:    "echo v5",
	Handler: adapter{usherecho.Middleware, usherecho.Adapt}.echo,
	Lacks: map[string]string{
		"8.inside":  "Handlers of echo return their errors; none are collected.",
		"8.outside": "Handlers of echo return their errors; none are collected.",
		"8.foreign": "Handlers of echo return their errors; none are collected.",
	},
	Declaration: "testdata/echo-v5.json",
}

func TestRouter(t *testing.T) { adaptertest.Test(t, router) }

func TestAllocs(t *testing.T) { adaptertest.TestAllocs(t, router) }

// An adapter mounts middlewares.
type adapter struct {
	middleware func(usher.Middleware) echo.MiddlewareFunc
	foreign    func(func(http.Handler) http.Handler) echo.MiddlewareFunc
}

func (a adapter) echo(_ testing.TB, app adaptertest.App) http.Handler {
	config := echo.RouterConfig{AutoHandleHEAD: true}
	if app.NotFound != nil {
		config.NotFoundHandler = echo.WrapHandler(app.NotFound)
	}
	if app.MethodNotAllowed != nil {
		config.MethodNotAllowedHandler = withAllow(app.MethodNotAllowed)
	}
	e := echo.NewWithConfig(echo.Config{Router: echo.NewRouter(config), Logger: slog.New(slog.DiscardHandler)})
	if app.Failures {
		e.HTTPErrorHandler = usherecho.HTTPErrorHandler
	}
	if app.OnError != nil {
		e.HTTPErrorHandler = func(c *echo.Context, err error) { app.OnError(context{c}, err) }
	}
	if app.PathValues {
		e.Use(usherecho.PathValues)
	}
	e.Use(a.steps(app.Use)...)
	for _, r := range app.Routes {
		e.Add(r.Method, pattern(r), handler(r), a.steps(r.Use)...)
	}
	if len(app.Group.Routes) > 0 {
		g := e.Group(app.Group.Prefix, a.steps(app.Group.Use)...)
		for _, r := range app.Group.Routes {
			g.Add(r.Method, pattern(r), handler(r), a.steps(r.Use)...)
		}
	}
	return e
}

// withAllow does what echo's own handler does before that returns its error, except for
// OPTIONS, which echo serves itself and for which the suite has no route.
func withAllow(h http.Handler) echo.HandlerFunc {
	next := echo.WrapHandler(h)
	return func(c *echo.Context) error {
		if allow, ok := c.Get(echo.ContextKeyHeaderAllow).(string); ok {
			c.Response().Header().Set(echo.HeaderAllow, strings.TrimPrefix(allow, "OPTIONS, "))
		}
		return next(c)
	}
}

func pattern(r adaptertest.Route) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(r.Pattern)
}

func handler(r adaptertest.Route) echo.HandlerFunc {
	if r.Native == nil {
		return echo.WrapHandler(r.Handler)
	}
	return func(c *echo.Context) error { return r.Native(context{c}) }
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
		return func(c *echo.Context) error {
			return f(context{c}, func() error { return next(c) })
		}
	}
}

// context is the Context of handlers on echo.
type context struct{ *echo.Context }

func (c context) Writer() http.ResponseWriter { return c.Response() }

func (c context) Principal() (usher.Principal, bool) { return usherecho.PrincipalFrom(c.Context) }

func (c context) Status(status int) error { return c.NoContent(status) }

func (c context) File(path string) error {
	return c.FileFS(filepath.Base(path), os.DirFS(filepath.Dir(path)))
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
	r, _ := echo.UnwrapResponse(c.Response())
	return adaptertest.Progress{Status: r.Status, Size: r.Size, Written: r.Committed}
}
