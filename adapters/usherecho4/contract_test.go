package usherecho4_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho4"
	"github.com/usher-go/usher/internal/contract"
)

func TestServices(t *testing.T) { contract.TestServices(t, mount) }

func TestHostile(t *testing.T) { contract.TestHostile(t, mount) }

// mount is the [contract.Mount] of echo.
func mount(_ testing.TB, app contract.App) http.Handler {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		switch {
		case c.Response().Committed:
		case err == error(echo.ErrNotFound) && app.NotFound != nil:
			app.NotFound.ServeHTTP(c.Response(), c.Request())
		case err == error(echo.ErrMethodNotAllowed) && app.MethodNotAllowed != nil:
			// echo answers OPTIONS itself, which the contracts do not know of.
			h := c.Response().Header()
			h.Set(echo.HeaderAllow, strings.TrimPrefix(h.Get(echo.HeaderAllow), "OPTIONS, "))
			app.MethodNotAllowed.ServeHTTP(c.Response(), c.Request())
		default:
			usherecho4.HTTPErrorHandler(err, c)
		}
	}
	e.Use(middlewares(app.Middlewares)...)
	e.Use(usherecho4.PathValues)
	for _, r := range app.Routes {
		pattern := strings.NewReplacer("{", ":", "}", "").Replace(r.Pattern)
		methods := []string{r.Method}
		if r.Method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		e.Match(methods, pattern, echo.WrapHandler(r.Handler), middlewares(r.Middlewares)...)
	}
	return e
}

func middlewares(list []usher.Middleware) []echo.MiddlewareFunc {
	converted := make([]echo.MiddlewareFunc, len(list))
	for i, m := range list {
		converted[i] = usherecho4.Wrap(m)
	}
	return converted
}
