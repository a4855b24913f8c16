package composition_test

import (
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho"
)

var echo5Router = router[echo.MiddlewareFunc]{
	mount: usherecho.Middleware,
	serve: func(s *service, use []echo.MiddlewareFunc) http.Handler {
		e := echo.New()
		e.Logger = slog.New(slog.DiscardHandler)
		e.HTTPErrorHandler = usherecho.HTTPErrorHandler
		e.Use(use...)
		for pattern, h := range s.routes {
			method, path := cutPattern(pattern)
			e.Add(method, path, echo.WrapHandler(h))
			if method == http.MethodGet {
				e.HEAD(path, echo.WrapHandler(h))
			}
		}
		e.GET("/native/json", func(c *echo.Context) error { return c.JSON(200, map[string]string{"a": long}) })
		e.GET("/native/error", func(*echo.Context) error {
			return &usher.Error{Status: 409, Code: "taken", Message: "The name is taken."}
		})
		e.GET("/native/private", func(*echo.Context) error { return errors.New(secret) })
		e.GET("/native/refusal", func(*echo.Context) error { return echo.NewHTTPError(403, "This is not yours.") })
		e.GET("/native/status", func(c *echo.Context) error { return c.NoContent(202) })
		return e
	},
	native: nativeOfEcho,
	neighbours: []neighbour[echo.MiddlewareFunc]{
		{kind: compression, name: "middleware.Gzip", make: middleware.Gzip,
			inside: []difference{compressedInside("JSON", "HEAD", "text of an error", "JSON of echo"), storesEncoded},
		},
		{kind: recovery, name: "middleware.Recover", make: middleware.Recover},
		{kind: requestID, name: "middleware.RequestID", make: middleware.RequestID},
		{kind: timeout, name: "middleware.ContextTimeout", make: func() echo.MiddlewareFunc { return middleware.ContextTimeout(time.Minute) }},
		{kind: crossOrigin, name: "middleware.CORS", make: func() echo.MiddlewareFunc { return middleware.CORS("*") },
			outside: []difference{respondsToPreflight},
		},
		{kind: logging, name: "middleware.RequestLogger", make: func() echo.MiddlewareFunc {
			return middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
				LogStatus: true, LogValuesFunc: func(*echo.Context, middleware.RequestLoggerValues) error { return nil },
			})
		}},
		{kind: logging, name: "middleware.RequestLogger with HandleError", make: func() echo.MiddlewareFunc {
			return middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
				LogStatus: true, HandleError: true, LogValuesFunc: func(*echo.Context, middleware.RequestLoggerValues) error { return nil },
			})
		}},
		{kind: logging, name: "middleware.BodyDump", make: func() echo.MiddlewareFunc {
			return middleware.BodyDump(func(*echo.Context, []byte, []byte, error) {})
		}},
		{kind: other, name: "middleware.Secure", make: middleware.Secure},
		{kind: other, name: "middleware.BodyLimit", make: func() echo.MiddlewareFunc { return middleware.BodyLimit(1 << 20) }},
		{kind: other, name: "middleware.Decompress", make: middleware.Decompress},
		{kind: other, name: "middleware.RateLimiter", make: func() echo.MiddlewareFunc {
			return middleware.RateLimiter(middleware.NewRateLimiterMemoryStore(1_000_000))
		}},
	},
}

// nativeOfEcho are the scenarios of handlers of echo.
var nativeOfEcho = []scenario{
	{name: "JSON of echo", status: 200, request: "GET /native/json"},
	{name: "returned error", status: 409, request: "GET /native/error"},
	{name: "returned private error", status: 500, request: "GET /native/private"},
	{name: "echo.HTTPError", status: 403, request: "GET /native/refusal"},
	{name: "c.NoContent", status: 202, request: "GET /native/status"},
}

func TestEcho5(t *testing.T) { echo5Router.test(t) }
