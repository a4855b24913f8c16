package contract

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	echo4 "github.com/labstack/echo/v4"
	"github.com/labstack/echo/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherchi"
	"github.com/usher-go/usher/adapters/usherecho"
	"github.com/usher-go/usher/adapters/usherecho4"
	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/examples/internal/web"
)

// A Router serves an App.
type Router struct {
	Name  string // in names of tests
	Mount func(web.App) http.Handler
}

// Routers returns net/http and every router that has an adapter.
func Routers() []Router {
	return []Router{
		{"net_http", web.ServeMux},
		{"chi", onChi},
		{"gin", onGin},
		{"echo_v5", onEcho},
		{"echo_v4", onEcho4},
	}
}

func onChi(app web.App) http.Handler {
	root := chi.NewRouter()
	root.Use(middleware.GetHead, usherchi.Pattern)
	for _, m := range app.Middlewares {
		root.Use(m.Wrap)
	}
	if app.NotFound != nil {
		root.NotFound(app.NotFound.ServeHTTP)
	}
	if app.MethodNotAllowed != nil {
		root.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", strings.Join(usherchi.AllowedMethods(r), ", "))
			app.MethodNotAllowed.ServeHTTP(w, r)
		})
	}
	for _, route := range app.Routes {
		with := root.With()
		for _, m := range route.Middlewares {
			with = with.With(m.Wrap)
		}
		with.Method(route.Method, route.Pattern, route.Handler)
	}
	return root
}

func onGin(app web.App) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.Use(ushergin.PathValues)
	engine.Use(convert(ushergin.Middleware, app.Middlewares)...)
	if app.NotFound != nil {
		engine.NoRoute(gin.WrapH(app.NotFound))
	}
	if app.MethodNotAllowed != nil {
		engine.NoMethod(gin.WrapH(app.MethodNotAllowed))
	}
	for _, r := range app.Routes {
		handlers := append(convert(ushergin.Middleware, r.Middlewares), gin.WrapH(r.Handler))
		engine.Match(methods(r), colons(r.Pattern), handlers...)
	}
	return engine
}

func onEcho(app web.App) http.Handler {
	config := echo.RouterConfig{AutoHandleHEAD: true}
	if app.NotFound != nil {
		config.NotFoundHandler = echo.WrapHandler(app.NotFound)
	}
	if app.MethodNotAllowed != nil {
		next := echo.WrapHandler(app.MethodNotAllowed)
		config.MethodNotAllowedHandler = func(c *echo.Context) error {
			allow, _ := c.Get(echo.ContextKeyHeaderAllow).(string)
			setAllow(c.Response().Header(), allow)
			return next(c)
		}
	}
	e := echo.NewWithConfig(echo.Config{Router: echo.NewRouter(config), Logger: slog.New(slog.DiscardHandler)})
	e.Use(usherecho.PathValues)
	e.Use(convert(usherecho.Middleware, app.Middlewares)...)
	for _, r := range app.Routes {
		e.Add(r.Method, colons(r.Pattern), echo.WrapHandler(r.Handler), convert(usherecho.Middleware, r.Middlewares)...)
	}
	return e
}

func onEcho4(app web.App) http.Handler {
	e := echo4.New()
	e.Logger.SetOutput(io.Discard)
	// This version of echo has handlers of unmatched requests only in variables of
	// its package.
	next := e.HTTPErrorHandler
	e.HTTPErrorHandler = func(err error, c echo4.Context) {
		w := c.Response()
		switch {
		case app.NotFound != nil && errors.Is(err, echo4.ErrNotFound) && !w.Committed:
			app.NotFound.ServeHTTP(w, c.Request())
		case app.MethodNotAllowed != nil && errors.Is(err, echo4.ErrMethodNotAllowed) && !w.Committed:
			setAllow(w.Header(), w.Header().Get(echo4.HeaderAllow))
			app.MethodNotAllowed.ServeHTTP(w, c.Request())
		default:
			next(err, c)
		}
	}
	e.Use(usherecho4.PathValues)
	e.Use(convert(usherecho4.Middleware, app.Middlewares)...)
	for _, r := range app.Routes {
		e.Match(methods(r), colons(r.Pattern), echo4.WrapHandler(r.Handler), convert(usherecho4.Middleware, r.Middlewares)...)
	}
	return e
}

// convert mounts each of middlewares by an adapter.
func convert[M any](adapter func(usher.Middleware) M, middlewares []usher.Middleware) []M {
	converted := make([]M, len(middlewares))
	for i, m := range middlewares {
		converted[i] = adapter(m)
	}
	return converted
}

// methods returns the methods of r for routers that do not serve HEAD by the route
// of GET.
func methods(r web.Route) []string {
	if r.Method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{r.Method}
}

// colons turns the parameters of a pattern from {id} into :id.
func colons(pattern string) string { return strings.NewReplacer("{", ":", "}", "").Replace(pattern) }

// setAllow sets the field without OPTIONS, which echo serves itself and an App has no
// route for.
func setAllow(h http.Header, methods string) {
	h.Set("Allow", strings.TrimPrefix(methods, "OPTIONS, "))
}
