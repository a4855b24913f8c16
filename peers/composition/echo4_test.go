package composition_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	sentryecho "github.com/getsentry/sentry-go/echo"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	slogecho "github.com/samber/slog-echo"
	"go.opentelemetry.io/contrib/instrumentation/github.com/labstack/echo/otelecho"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho4"
)

var echo4Router = router[echo.MiddlewareFunc]{
	mount: usherecho4.Middleware,
	serve: func(s *service, use []echo.MiddlewareFunc) http.Handler {
		e := echo.New()
		e.Logger.SetOutput(io.Discard)
		e.HTTPErrorHandler = usherecho4.HTTPErrorHandler
		e.Use(use...)
		for pattern, h := range s.routes {
			method, path := cutPattern(pattern)
			e.Add(method, path, echo.WrapHandler(h))
			if method == http.MethodGet {
				e.HEAD(path, echo.WrapHandler(h))
			}
		}
		e.GET("/native/json", func(c echo.Context) error { return c.JSON(200, map[string]string{"a": long}) })
		e.GET("/native/error", func(echo.Context) error {
			return &usher.Error{Status: 409, Code: "taken", Message: "The name is taken."}
		})
		e.GET("/native/private", func(echo.Context) error { return errors.New(secret) })
		e.GET("/native/refusal", func(echo.Context) error { return echo.NewHTTPError(403, "This is not yours.") })
		e.GET("/native/status", func(c echo.Context) error { return c.NoContent(202) })
		return e
	},
	native: nativeOfEcho,
	neighbours: []neighbour[echo.MiddlewareFunc]{
		{kind: compression, name: "middleware.Gzip", make: func() echo.MiddlewareFunc { return middleware.Gzip() },
			inside: []difference{compressedInside("JSON", "HEAD", "text of an error", "JSON of echo"), storesEncoded},
		},
		{kind: recovery, name: "middleware.Recover", make: middleware.Recover},
		{kind: requestID, name: "middleware.RequestID", make: middleware.RequestID},
		{kind: timeout, name: "middleware.ContextTimeout", make: func() echo.MiddlewareFunc { return middleware.ContextTimeout(time.Minute) }},
		{kind: crossOrigin, name: "middleware.CORS", make: middleware.CORS,
			outside: []difference{respondsToPreflight},
		},
		{kind: logging, name: "middleware.RequestLogger", make: func() echo.MiddlewareFunc {
			return middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
				LogStatus: true, LogValuesFunc: func(echo.Context, middleware.RequestLoggerValues) error { return nil },
			})
		}},
		{kind: logging, name: "middleware.RequestLogger with HandleError", make: func() echo.MiddlewareFunc {
			return middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
				LogStatus: true, HandleError: true, LogValuesFunc: func(echo.Context, middleware.RequestLoggerValues) error { return nil },
			})
		}},
		{kind: logging, name: "middleware.BodyDump", make: func() echo.MiddlewareFunc {
			return middleware.BodyDump(func(echo.Context, []byte, []byte) {})
		}},
		{kind: logging, name: "middleware.Logger", make: func() echo.MiddlewareFunc {
			return middleware.LoggerWithConfig(middleware.LoggerConfig{Output: io.Discard}) //nolint:staticcheck // many services use it
		}},
		{kind: logging, name: "samber/slog-echo", make: func() echo.MiddlewareFunc {
			return slogecho.NewWithConfig(slog.New(slog.DiscardHandler), slogecho.Config{
				WithRequestID: true, WithRequestBody: true, WithResponseBody: true,
			})
		}},
		{kind: tracing, name: "sentryecho", make: func() echo.MiddlewareFunc { return sentryecho.New(sentryecho.Options{Repanic: true}) }},
		{kind: tracing, name: "otelecho", make: func() echo.MiddlewareFunc {
			return otelecho.Middleware("notes", otelecho.WithTracerProvider(recording))
		}},
		{kind: other, name: "middleware.Secure", make: middleware.Secure},
		{kind: other, name: "middleware.BodyLimit", make: func() echo.MiddlewareFunc { return middleware.BodyLimit("1M") }},
		{kind: other, name: "middleware.Decompress", make: middleware.Decompress},
		{kind: other, name: "middleware.RateLimiter", make: func() echo.MiddlewareFunc {
			return middleware.RateLimiter(middleware.NewRateLimiterMemoryStore(1_000_000))
		}},
	},
}

func TestEcho4(t *testing.T) { echo4Router.test(t) }
