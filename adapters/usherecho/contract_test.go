package usherecho_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho"
	"github.com/usher-go/usher/internal/contract"
)

func TestServices(t *testing.T) { contract.TestServices(t, mount) }

func TestHostile(t *testing.T) { contract.TestHostile(t, mount) }

// mount is the [contract.Mount] of echo.
func mount(_ testing.TB, app contract.App) http.Handler {
	c := echo.RouterConfig{AutoHandleHEAD: true}
	if app.NotFound != nil {
		c.NotFoundHandler = echo.WrapHandler(app.NotFound)
	}
	if app.MethodNotAllowed != nil {
		c.MethodNotAllowedHandler = withAllow(app.MethodNotAllowed)
	}
	e := echo.NewWithConfig(echo.Config{
		Router:           echo.NewRouter(c),
		HTTPErrorHandler: usherecho.HTTPErrorHandler,
		Logger:           slog.New(slog.DiscardHandler),
	})
	e.Use(middlewares(app.Middlewares)...)
	e.Use(usherecho.PathValues)
	for _, r := range app.Routes {
		pattern := strings.NewReplacer("{", ":", "}", "").Replace(r.Pattern)
		e.Add(r.Method, pattern, echo.WrapHandler(r.Handler), middlewares(r.Middlewares)...)
	}
	return e
}

func middlewares(list []usher.Middleware) []echo.MiddlewareFunc {
	converted := make([]echo.MiddlewareFunc, len(list))
	for i, m := range list {
		converted[i] = usherecho.Wrap(m)
	}
	return converted
}
