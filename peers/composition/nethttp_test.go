package composition_test

import (
	"io"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/CAFxX/httpcompression"
	"github.com/NYTimes/gziphandler"
	"github.com/alexedwards/scs/v2"
	sentryhttp "github.com/getsentry/sentry-go/http"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	chicors "github.com/go-chi/cors"
	"github.com/go-chi/httplog/v3"
	"github.com/gorilla/handlers"
	"github.com/gorilla/mux"
	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/riandyrn/otelchi"
	"github.com/rs/cors"
	sloghttp "github.com/samber/slog-http"
	"github.com/unrolled/secure"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherchi"
)

// A wrapper is a middleware of net/http.
type wrapper = func(http.Handler) http.Handler

var netHTTP = router[wrapper]{
	mount: func(m usher.Middleware) wrapper { return m.Wrap },
	serve: func(s *service, use []wrapper) http.Handler {
		mux := http.NewServeMux()
		for pattern, h := range s.routes {
			mux.Handle(pattern, h)
		}
		return wrap(mux, use)
	},
	neighbours: append(wrappers("no route", "wrong method"), elsewhere...),
}

func wrap(h http.Handler, use []wrapper) http.Handler {
	for _, m := range slices.Backward(use) {
		h = m(h)
	}
	return h
}

var chiRouter = router[wrapper]{
	mount: func(m usher.Middleware) wrapper { return m.Wrap },
	serve: func(s *service, use []wrapper) http.Handler {
		r := chi.NewRouter()
		r.Use(chimiddleware.GetHead)
		r.Use(use...)
		r.NotFound(usher.NotFound)
		r.MethodNotAllowed(usherchi.MethodNotAllowed)
		for pattern, h := range s.routes {
			r.Handle(pattern, h)
		}
		return r
	},
	neighbours: append(wrappers(), ofChi...),
}

// recoverer is the Recoverer of chi, which writes stacks to the log of the request.
func recoverer(h http.Handler) http.Handler {
	h = chimiddleware.Recoverer(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, chimiddleware.WithLogEntry(r, quiet{}))
	})
}

// quiet is the log of chi, which nobody reads.
type quiet struct{}

func (quiet) NewLogEntry(*http.Request) chimiddleware.LogEntry      { return quiet{} }
func (quiet) Write(_, _ int, _ http.Header, _ time.Duration, _ any) {}
func (quiet) Panic(any, []byte)                                     {}

var gorillaMux = router[wrapper]{
	mount: func(m usher.Middleware) wrapper { return m.Wrap },
	serve: func(s *service, use []wrapper) http.Handler {
		r := mux.NewRouter()
		r.NotFoundHandler = http.HandlerFunc(usher.NotFound)
		r.MethodNotAllowedHandler = http.HandlerFunc(usher.MethodNotAllowed)
		for pattern, h := range s.routes {
			method, path := cutPattern(pattern)
			methods := []string{method}
			if method == http.MethodGet {
				methods = append(methods, http.MethodHead)
			}
			r.Handle(path, h).Methods(methods...)
		}
		// Those of Router.Use do not run for requests that match no route.
		return wrap(r, use)
	},
	neighbours: append(wrappers(), elsewhere...),
}

// wrappers are middlewares of net/http that are used with any router. Unmatched are the
// scenarios to which the router itself responds with text.
func wrappers(unmatched ...string) []neighbour[wrapper] {
	return []neighbour[wrapper]{
		{kind: compression, name: "gorilla handlers.CompressHandler", make: func() wrapper { return handlers.CompressHandler },
			inside: []difference{compressedInside(append(unmatched, "JSON", "HEAD", "text of an error")...), storesEncoded, endsBodyAtPanic},
		},
		{kind: compression, name: "klauspost gzhttp", make: func() wrapper {
			return func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) }
		},
			inside: []difference{compressedInside()},
		},
		{kind: compression, name: "NYTimes gziphandler", make: func() wrapper { return gziphandler.GzipHandler },
			outside: []difference{keepsFirstBytes},
			inside:  []difference{compressedInside("HEAD"), keepsFirstBytes},
		},
		{kind: compression, name: "CAFxX httpcompression", make: func() wrapper {
			compress, err := httpcompression.DefaultAdapter()
			if err != nil {
				panic(err)
			}
			return compress
		},
			outside: []difference{keepsFirstBytes},
			inside:  []difference{compressedInside("HEAD"), storesEncoded, keepsFirstBytes},
		},
		{kind: compression, name: "chi middleware.Compress", make: func() wrapper { return chimiddleware.Compress(5) },
			inside: []difference{compressedInside(append(unmatched, "JSON", "HEAD", "text of an error")...), storesEncoded},
		},
		{kind: recovery, name: "gorilla handlers.RecoveryHandler", make: func() wrapper {
			return handlers.RecoveryHandler(handlers.RecoveryLogger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)))
		}},
		{kind: crossOrigin, name: "rs/cors", make: func() wrapper { return cors.AllowAll().Handler },
			outside: []difference{respondsToPreflight},
		},
		{kind: crossOrigin, name: "gorilla handlers.CORS", make: func() wrapper { return handlers.CORS(handlers.AllowedHeaders([]string{"X-API-Key"})) },
			outside: []difference{respondsToPreflight},
		},
		{kind: forgery, name: "http.CrossOriginProtection", make: func() wrapper {
			protection := http.NewCrossOriginProtection()
			if err := protection.AddTrustedOrigin(origin); err != nil {
				panic(err)
			}
			return protection.Handler
		}},
		{kind: logging, name: "gorilla handlers.CombinedLoggingHandler", make: func() wrapper {
			return func(h http.Handler) http.Handler { return handlers.CombinedLoggingHandler(io.Discard, h) }
		}},
		{kind: tracing, name: "otelhttp", make: func() wrapper { return otelhttp.NewMiddleware("notes", otelhttp.WithTracerProvider(recording)) }},
		{kind: logging, name: "samber/slog-http", make: func() wrapper {
			return sloghttp.NewWithConfig(slog.New(slog.DiscardHandler), sloghttp.Config{
				WithRequestID: true, WithRequestBody: true, WithResponseBody: true,
			})
		}},
		{kind: tracing, name: "sentryhttp", make: func() wrapper { return sentryhttp.New(sentryhttp.Options{Repanic: true}).Handle }},
		{kind: tracing, name: "promhttp", make: func() wrapper {
			requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests"}, []string{"code", "method"})
			sizes := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sizes"}, nil)
			return func(h http.Handler) http.Handler {
				return promhttp.InstrumentHandlerCounter(requests, promhttp.InstrumentHandlerResponseSize(sizes, h))
			}
		}},
		{kind: other, name: "unrolled/secure", make: func() wrapper { return secure.New(secure.Options{FrameDeny: true}).Handler }},
		{kind: other, name: "http.MaxBytesHandler", make: func() wrapper {
			return func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 1<<20) }
		}},
		{kind: other, name: "gorilla handlers.ProxyHeaders", make: func() wrapper { return handlers.ProxyHeaders }},
		{kind: other, name: "scs sessions", make: func() wrapper { return scs.New().LoadAndSave }},
	}
}

// ofChi are middlewares that chi has itself, or are made for it.
var ofChi = []neighbour[wrapper]{
	{kind: recovery, name: "middleware.Recoverer", make: func() wrapper { return recoverer }},
	{kind: recovery, name: "middleware.Recoverer with middleware.Logger", make: func() wrapper {
		return func(h http.Handler) http.Handler { return chimiddleware.RequestLogger(quiet{})(recoverer(h)) }
	}},
	{kind: requestID, name: "middleware.RequestID", make: func() wrapper { return chimiddleware.RequestID }},
	{kind: timeout, name: "middleware.Timeout", make: func() wrapper { return chimiddleware.Timeout(time.Minute) }},
	{kind: crossOrigin, name: "go-chi/cors", make: func() wrapper { return chicors.AllowAll().Handler },
		outside: []difference{respondsToPreflight},
	},
	{kind: logging, name: "middleware.Logger", make: func() wrapper { return chimiddleware.RequestLogger(quiet{}) }},
	{kind: logging, name: "go-chi/httplog", make: func() wrapper {
		return httplog.RequestLogger(slog.New(slog.DiscardHandler), &httplog.Options{RecoverPanics: true})
	}},
	{kind: tracing, name: "riandyrn/otelchi", make: func() wrapper { return otelchi.Middleware("notes", otelchi.WithTracerProvider(recording)) }},
	{kind: other, name: "middleware.CleanPath", make: func() wrapper { return chimiddleware.CleanPath }},
	{kind: other, name: "middleware.StripSlashes", make: func() wrapper { return chimiddleware.StripSlashes }},
	{kind: other, name: "middleware.Throttle", make: func() wrapper { return chimiddleware.Throttle(100) }},
}

// elsewhere are middlewares that run handlers on another goroutine, which chi forbids.
var elsewhere = []neighbour[wrapper]{
	{kind: timeout, name: "http.TimeoutHandler", make: func() wrapper {
		return func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }
	},
		outside: []difference{keepsResponse, losesLatePanic},
		inside:  []difference{keepsResponse, earlyPanic},
	},
}

// recording is a provider of tracers whose spans record everything, and are not exported.
var recording = trace.NewTracerProvider()

func TestNetHTTP(t *testing.T)    { netHTTP.test(t) }
func TestChi(t *testing.T)        { chiRouter.test(t) }
func TestGorillaMux(t *testing.T) { gorillaMux.test(t) }
