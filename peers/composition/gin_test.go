package composition_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"

	sentrygin "github.com/getsentry/sentry-go/gin"
	"github.com/gin-contrib/cors"
	gingzip "github.com/gin-contrib/gzip"
	"github.com/gin-contrib/requestid"
	"github.com/gin-contrib/secure"
	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-gonic/gin"
	sloggin "github.com/samber/slog-gin"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/ushergin"
)

var ginRouter = router[gin.HandlerFunc]{
	mount:  ushergin.Middleware,
	errors: func() gin.HandlerFunc { return ushergin.Errors },
	serve: func(s *service, use []gin.HandlerFunc) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		engine := gin.New()
		engine.HandleMethodNotAllowed = true
		engine.Use(use...)
		engine.NoRoute(ushergin.NoRoute)
		engine.NoMethod(ushergin.NoMethod)
		for pattern, h := range s.routes {
			method, path := cutPattern(pattern)
			engine.Handle(method, path, gin.WrapF(h))
			if method == http.MethodGet {
				engine.HEAD(path, gin.WrapF(h))
			}
		}
		engine.GET("/native/json", func(c *gin.Context) { c.JSON(200, gin.H{"a": long}) })
		engine.GET("/native/error", func(c *gin.Context) {
			_ = c.Error(&usher.Error{Status: 409, Code: "taken", Message: "The name is taken."})
		})
		engine.GET("/native/private", func(c *gin.Context) { _ = c.Error(errors.New(secret)) })
		engine.GET("/native/refusal", func(c *gin.Context) { c.AbortWithStatusJSON(403, gin.H{"reason": long}) })
		engine.GET("/native/status", func(c *gin.Context) { c.Status(202) })
		return engine
	},
	native: []scenario{
		{name: "JSON of gin", status: 200, request: "GET /native/json"},
		{name: "error in c.Errors", status: 409, request: "GET /native/error"},
		{name: "private error in c.Errors", status: 500, request: "GET /native/private"},
		{name: "c.AbortWithStatusJSON", status: 403, request: "GET /native/refusal"},
		{name: "c.Status", status: 202, request: "GET /native/status"},
	},
	neighbours: []neighbour[gin.HandlerFunc]{
		{kind: compression, name: "gin-contrib/gzip", make: func() gin.HandlerFunc { return gingzip.Gzip(gingzip.DefaultCompression) },
			outside: []difference{removesVary},
			inside: []difference{
				encodedInside("JSON", "long JSON", "tagged JSON", "HEAD", "created", "late panic", "replay", "JSON of gin"),
				removesVary,
			},
		},
		{kind: recovery, name: "gin.Recovery", make: func() gin.HandlerFunc { return gin.RecoveryWithWriter(io.Discard) }},
		{kind: requestID, name: "gin-contrib/requestid", make: func() gin.HandlerFunc { return ginRequestID }},
		{kind: crossOrigin, name: "gin-contrib/cors", make: func() gin.HandlerFunc { return cors.Default() },
			outside: []difference{respondsToPreflight},
		},
		{kind: logging, name: "gin.Logger", make: func() gin.HandlerFunc { return gin.LoggerWithWriter(io.Discard) }},
		{kind: logging, name: "samber/slog-gin", make: func() gin.HandlerFunc {
			return sloggin.NewWithConfig(slog.New(slog.DiscardHandler), sloggin.Config{
				WithRequestID: true, WithRequestBody: true, WithResponseBody: true,
			})
		}},
		{kind: tracing, name: "sentrygin", make: func() gin.HandlerFunc { return sentrygin.New(sentrygin.Options{Repanic: true}) }},
		{kind: tracing, name: "otelgin", make: func() gin.HandlerFunc { return otelgin.Middleware("notes", otelgin.WithTracerProvider(recording)) }},
		{kind: other, name: "gin-contrib/secure", make: func() gin.HandlerFunc { return secure.New(secure.Config{FrameDeny: true}) }},
		{kind: other, name: "gin-contrib/sessions", make: func() gin.HandlerFunc {
			return sessions.Sessions("session", cookie.NewStore([]byte("a key of the test")))
		}},
		{kind: other, name: "gin.ErrorLogger", make: gin.ErrorLogger,
			outside: []difference{rendersErrors},
			inside:  []difference{rendersErrors},
		},
	},
}

// ginRequestID is made once: requestid.New writes what the handlers of others read.
var ginRequestID = requestid.New()

func TestGin(t *testing.T) { ginRouter.test(t) }
