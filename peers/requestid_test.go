package peers_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-contrib/requestid"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	echo4 "github.com/labstack/echo/v4"
	echo4middleware "github.com/labstack/echo/v4/middleware"
	"github.com/labstack/echo/v5"
	echomiddleware "github.com/labstack/echo/v5/middleware"

	"github.com/usher-go/usher/adapters/usherecho"
	"github.com/usher-go/usher/adapters/usherecho4"
	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/envelope"
)

// A numbered is a router with the middleware for request IDs that belongs to it, inside or
// outside the envelope. Its handler calls see with what the middleware has chosen.
type numbered func(env *envelope.Envelope, inside bool, see func(w http.ResponseWriter, r *http.Request, own string)) http.Handler

// order returns its first two arguments in the order of the middlewares, outside first.
func order[M any](inside bool, env, other M) (first, second M) {
	if inside {
		return env, other
	}
	return other, env
}

// ginRequestID is made once: requestid.New writes what the handlers of others read.
var ginRequestID = requestid.New()

var numbering = map[string]numbered{
	"chi": func(env *envelope.Envelope, inside bool, see func(http.ResponseWriter, *http.Request, string)) http.Handler {
		m := chi.NewRouter()
		first, second := order(inside, env.Wrap, chimiddleware.RequestID)
		m.Use(first, second)
		m.Get("/", func(w http.ResponseWriter, r *http.Request) { see(w, r, chimiddleware.GetReqID(r.Context())) })
		return m
	},
	"gin": func(env *envelope.Envelope, inside bool, see func(http.ResponseWriter, *http.Request, string)) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		e := gin.New()
		e.Use(order(inside, ushergin.Middleware(env), ginRequestID))
		e.GET("/", func(c *gin.Context) { see(c.Writer, c.Request, requestid.Get(c)) })
		return e
	},
	"echo 4": func(env *envelope.Envelope, inside bool, see func(http.ResponseWriter, *http.Request, string)) http.Handler {
		e := echo4.New()
		e.Use(order(inside, usherecho4.Middleware(env), echo4middleware.RequestID()))
		e.GET("/", func(c echo4.Context) error {
			see(c.Response(), c.Request(), c.Response().Header().Get("X-Request-Id"))
			return nil
		})
		return e
	},
	"echo 5": func(env *envelope.Envelope, inside bool, see func(http.ResponseWriter, *http.Request, string)) http.Handler {
		e := echo.New()
		e.Use(order(inside, usherecho.Middleware(env), echomiddleware.RequestID()))
		e.GET("/", func(c *echo.Context) error {
			see(c.Response(), c.Request(), c.Response().Header().Get("X-Request-Id"))
			return nil
		})
		return e
	},
}

// Beside the middleware for request IDs of a router, a request has one ID for its client:
// that of the envelope. A middleware inside takes it over, if it is forwarded.
func TestOneRequestIDBesideTheMiddlewareOfARouter(t *testing.T) {
	for name, router := range numbering {
		for _, inside := range []bool{true, false} {
			for _, forward := range []bool{true, false} {
				t.Run(name+map[bool]string{true: " inside", false: " outside"}[inside], func(t *testing.T) {
					env, err := envelope.New(envelope.Config{Wrap: true, ForwardRequestID: forward})
					if err != nil {
						t.Fatal(err)
					}
					var id, own string
					h := router(env, inside, func(w http.ResponseWriter, r *http.Request, theirs string) {
						id, own = envelope.RequestID(r.Context()), theirs
						w.Header().Set("Content-Type", "application/json")
						_, _ = w.Write([]byte("1"))
					})
					got := requestIDOf(t, h)
					if id == "" || got != id {
						t.Errorf("the client got %q, the handler has %q", got, id)
					}
					if inside && forward && own != id {
						t.Errorf("the middleware has %q, want %q", own, id)
					}
				})
			}
		}
	}
}

// A service whose logs have the IDs of another middleware can have the envelope use them.
func TestTheEnvelopeTakesOverTheRequestIDOfARouter(t *testing.T) {
	from := map[string]func(*http.Request) string{
		"chi": func(r *http.Request) string { return chimiddleware.GetReqID(r.Context()) },
		"gin": envelope.RequestIDFromHeader("X-Request-Id"),
	}
	for name, requestID := range from {
		t.Run(name, func(t *testing.T) {
			env, err := envelope.New(envelope.Config{Wrap: true, RequestID: requestID})
			if err != nil {
				t.Fatal(err)
			}
			var own string
			h := numbering[name](env, false, func(w http.ResponseWriter, _ *http.Request, theirs string) {
				own = theirs
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte("1"))
			})
			if got := requestIDOf(t, h); own == "" || got != own {
				t.Errorf("the client got %q, want %q", got, own)
			}
		})
	}
}

// requestIDOf returns the one ID in the header and the body of the response of h.
func requestIDOf(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
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
	var body struct {
		Metadata struct {
			ID string `json:"request_id"`
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	if ids := resp.Header["X-Request-Id"]; len(ids) != 1 || ids[0] != body.Metadata.ID {
		t.Errorf("header %q, body %q", ids, body.Metadata.ID)
	}
	return body.Metadata.ID
}
