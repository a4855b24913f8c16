package peers_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getsentry/sentry-go"
	sentryhttp "github.com/getsentry/sentry-go/http"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"

	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/envelope"
)

// A service that has a recoverer keeps it: it gets the value of each panic, and its client gets
// the 500 in the shape of the service.
func TestAPanicReachesTheRecovererOutside(t *testing.T) {
	fault := errors.New("db: connection lost")
	tests := map[string]func(t *testing.T, env *envelope.Envelope, seen chan<- string) http.Handler{
		"chi Recoverer": func(_ *testing.T, env *envelope.Envelope, seen chan<- string) http.Handler {
			m := chi.NewRouter()
			m.Use(chimiddleware.RequestLogger(recordingFormatter{seen}), chimiddleware.Recoverer, env.Wrap)
			m.Get("/", func(http.ResponseWriter, *http.Request) { panic(fault) })
			return m
		},
		"gin Recovery": func(_ *testing.T, env *envelope.Envelope, seen chan<- string) http.Handler {
			gin.SetMode(gin.ReleaseMode)
			e := gin.New()
			e.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, v any) {
				seen <- v.(error).Error()
				c.AbortWithStatus(http.StatusInternalServerError)
			}), ushergin.Middleware(env))
			e.GET("/", func(*gin.Context) { panic(fault) })
			return e
		},
		"Sentry": func(t *testing.T, env *envelope.Envelope, seen chan<- string) http.Handler {
			return sentrySees(t, seen, false, env.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(fault) })))
		},
		"Sentry, which panics again": func(t *testing.T, env *envelope.Envelope, seen chan<- string) http.Handler {
			return sentrySees(t, seen, true, env.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(fault) })))
		},
	}
	for name, router := range tests {
		t.Run(name, func(t *testing.T) {
			env, err := envelope.New(envelope.Config{
				Shape: envelope.Data(), Wrap: true, PassPanics: true,
				OnPanic: func(_ *http.Request, v any, _ []byte) { t.Errorf("OnPanic got %v, too", v) },
			})
			if err != nil {
				t.Fatal(err)
			}
			seen := make(chan string, 1)
			s := httptest.NewUnstartedServer(router(t, env, seen))
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.Start()
			defer s.Close()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			const want = `{"error":{"code":"internal","message":"Internal Server Error"}}`
			if err != nil || resp.StatusCode != http.StatusInternalServerError || string(body) != want {
				t.Errorf("the client got %d %s, %v", resp.StatusCode, body, err)
			}
			if got := <-seen; !strings.Contains(got, fault.Error()) {
				t.Errorf("the recoverer got %q", got)
			}
		})
	}
}

// sentrySees returns a handler whose panics Sentry sends to seen in place of its server.
func sentrySees(t *testing.T, seen chan<- string, again bool, next http.Handler) http.Handler {
	t.Helper()
	client, err := sentry.NewClient(sentry.ClientOptions{
		BeforeSend: func(event *sentry.Event, hint *sentry.EventHint) *sentry.Event {
			seen <- hint.RecoveredException.(error).Error()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := sentryhttp.New(sentryhttp.Options{Repanic: again}).Handle(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hub := sentry.NewHub(client, sentry.NewScope())
		h.ServeHTTP(w, r.WithContext(sentry.SetHubOnContext(r.Context(), hub)))
	})
}

// A recordingFormatter keeps what the Recoverer of chi reports.
type recordingFormatter struct{ seen chan<- string }

func (f recordingFormatter) NewLogEntry(*http.Request) chimiddleware.LogEntry { return f }

func (recordingFormatter) Write(int, int, http.Header, time.Duration, any) {}

func (f recordingFormatter) Panic(v any, _ []byte) { f.seen <- v.(error).Error() }
