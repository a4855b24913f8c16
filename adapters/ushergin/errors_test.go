package ushergin_test

import (
	stdcontext "context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// must returns v; constructors do not fail here.
func must[T any](v T, err error) T {
	check(err)
	return v
}

func newEnvelope() usher.Middleware {
	return must(envelope.New(envelope.Config{
		Shape: envelope.Data(), Wrap: true,
		OnError: func(stdcontext.Context, error) {}, OnPanic: func(*http.Request, any, []byte) {},
	}))
}

func newOnce(p idempotency.Profile) gin.HandlerFunc {
	return ushergin.Middleware(must(idempotency.New(idempotency.Config{Profile: p, DangerouslyAllowAnonymous: true})))
}

// sender returns a function that posts to engine over a connection, with one
// idempotency key, and returns status and body.
func sender(t *testing.T, engine http.Handler) func(method string) string {
	t.Helper()
	s := httptest.NewServer(engine)
	t.Cleanup(s.Close)
	return func(method string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/orders", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Idempotency-Key", "k")
		response, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(response.StatusCode, " ", string(body))
	}
}

var errNoCredit = &usher.Error{Status: 402, Code: "no_credit", Message: "No credit is left."}

const noCredit = `402 {"error":{"code":"no_credit","message":"No credit is left."}}`

// Idempotency stores the response to what a handler leaves in c.Errors, and a retry gets
// it, wherever inside the envelope Errors is.
func TestErrorsAreWhatIdempotencyStores(t *testing.T) {
	private := errors.New("private")
	internal := `500 {"error":{"code":"internal","message":"Internal Server Error"}}`
	unknown := "409 "
	add := func(errs ...error) gin.HandlerFunc {
		return func(c *gin.Context) {
			for _, err := range errs {
				_ = c.Error(err)
			}
		}
	}
	status := func(status int, errs ...error) gin.HandlerFunc {
		return func(c *gin.Context) {
			c.Status(status)
			add(errs...)(c)
		}
	}
	// inner is a middleware between idempotency and the handler.
	type inner []gin.HandlerFunc
	tests := []struct {
		name    string
		inner   inner
		handler gin.HandlerFunc
		first   string
		retry   string // a beginning of it
		runs    int
	}{
		{"a refusal", nil, add(errNoCredit), noCredit, noCredit, 1},
		{"a refusal that is wrapped", nil, add(fmt.Errorf("private: %w", errNoCredit)), noCredit, noCredit, 1},
		{"the last of several errors", nil, add(private, errNoCredit), noCredit, noCredit, 1},
		{"a private error", nil, add(private), internal, unknown, 1},
		{"a private error after a status of an error", nil, status(422, private), `422 {"error":{"code":"unprocessable_entity","message":"Unprocessable Entity"}}`, "422 ", 1},
		{"a private error after the status of a success", nil, status(201, private), internal, unknown, 1},
		{"a refusal that had no effect", nil, add(&usher.Error{Status: 503, Code: "busy"}), `503 {"error":{"code":"busy","message":"Service Unavailable"}}`, "503 ", 2},
		{"AbortWithError", nil, func(c *gin.Context) { _ = c.AbortWithError(402, private) }, `402 {"error":{"code":"payment_required","message":"Payment Required"}}`, "402 ", 1},
		{"an error beside a response", nil, func(c *gin.Context) { c.JSON(201, 1); _ = c.Error(private) }, `201 {"data":1}`, `201 {"data":1}`, 1},
		{"a panic after an error", nil, func(c *gin.Context) { _ = c.Error(errNoCredit); panic("a handler fails") }, internal, unknown, 1},
		{
			"an error that a middleware adds after the handler",
			inner{func(c *gin.Context) { c.Next(); _ = c.Error(errNoCredit) }},
			func(c *gin.Context) { c.Status(200) }, noCredit, noCredit, 1,
		},
		{
			"an error that a middleware makes of another",
			inner{func(c *gin.Context) { c.Next(); _ = c.Error(errNoCredit) }},
			add(private), noCredit, noCredit, 1,
		},
		{
			"an error of a middleware that aborts",
			inner{func(c *gin.Context) { _ = c.Error(errNoCredit); c.Abort() }},
			add(private), noCredit, noCredit, 0,
		},
		{"within another middleware that replaces the writer", inner{ushergin.Middleware(hook{})}, add(errNoCredit), noCredit, noCredit, 1},
		{"within a middleware that does not", inner{ushergin.Middleware(usher.Chain())}, add(errNoCredit), noCredit, noCredit, 1},
		{"within Errors once more", inner{ushergin.Errors}, add(errNoCredit), noCredit, noCredit, 1},
	}
	orders := []struct {
		name string
		use  func(once gin.HandlerFunc) (engine, group []gin.HandlerFunc)
	}{
		{"Errors outside", func(once gin.HandlerFunc) (engine, group []gin.HandlerFunc) {
			return []gin.HandlerFunc{ushergin.Errors}, []gin.HandlerFunc{once}
		}},
		{"Errors outside, in nested groups", func(once gin.HandlerFunc) (engine, group []gin.HandlerFunc) {
			return nil, []gin.HandlerFunc{ushergin.Errors, ushergin.Middleware(hook{}), once}
		}},
		{"Errors inside", func(once gin.HandlerFunc) (engine, group []gin.HandlerFunc) {
			return nil, []gin.HandlerFunc{once, ushergin.Errors}
		}},
	}
	for _, order := range orders {
		for _, tt := range tests {
			t.Run(order.name+"/"+tt.name, func(t *testing.T) {
				use, group := order.use(newOnce(idempotency.ProfileDefault))
				engine := gin.New()
				engine.Use(ushergin.Middleware(newEnvelope()))
				engine.Use(use...)
				runs := 0
				handler := func(c *gin.Context) { runs++; tt.handler(c) }
				engine.Group("", group...).Group("", tt.inner...).POST("/orders", handler)
				send := sender(t, engine)
				if got := send(http.MethodPost); got != tt.first {
					t.Errorf("the first request got %s, want %s", got, tt.first)
				}
				if got := send(http.MethodPost); !strings.HasPrefix(got, tt.retry) {
					t.Errorf("the retry got %s, want %s", got, tt.retry)
				}
				if runs != tt.runs {
					t.Errorf("the handler ran %d times, want %d", runs, tt.runs)
				}
			})
		}
	}
}

// Failed logins that a handler leaves in c.Errors are counted.
func TestErrorsAreWhatLimitsCount(t *testing.T) {
	logins := must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "failed-logins", Key: ratelimit.ByAddress(), Limit: ratelimit.RollingWindow(3, time.Hour),
		Count: func(status int) bool { return status == http.StatusUnauthorized },
	}}}))
	engine := gin.New()
	engine.Use(ushergin.Middleware(newEnvelope()), ushergin.Errors, ushergin.Middleware(logins))
	engine.POST("/orders", func(c *gin.Context) {
		_ = c.Error(&usher.Error{Status: http.StatusUnauthorized, Code: "wrong_password"})
	})
	send := sender(t, engine)
	got := make(map[string]int)
	for range 20 {
		got[send(http.MethodPost)[:3]]++
	}
	if got["401"] != 3 || got["429"] != 17 {
		t.Errorf("20 failed logins got %v, want 3 times 401 and 17 times 429", got)
	}
}

// silent is a middleware that drops all of a response but the status.
type silent struct{}

func (silent) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { silent{}.ServeNext(w, r, next) })
}

func (silent) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	next.ServeHTTP(silentWriter{w}, r)
}

type silentWriter struct{ http.ResponseWriter }

func (silentWriter) Write(p []byte) (int, error) { return len(p), nil }

// To gin, a response of which a middleware passes on only the status is not Written.
// Errors must not respond again: the middleware dropped that response on purpose.
func TestErrorsRespondOnce(t *testing.T) {
	engine := gin.New()
	engine.Use(ushergin.Errors, ushergin.Middleware(silent{}))
	engine.POST("/orders", func(c *gin.Context) { _ = c.Error(errNoCredit) })
	if got := sender(t, engine)(http.MethodPost); got != "402 " {
		t.Errorf("got %s, want 402 without a body", got)
	}
}

// Another renderer of c.Errors responds, even if Errors is inside it.
func TestErrorsOfOthersAreLeftAlone(t *testing.T) {
	render := func(c *gin.Context) {
		c.Next()
		if len(c.Errors) > 0 && !c.Writer.Written() {
			c.String(418, "rendered")
		}
	}
	late := func(c *gin.Context) { c.Next(); _ = c.Error(errNoCredit) }
	tests := []struct {
		name string
		use  []gin.HandlerFunc
	}{
		{"without Errors", []gin.HandlerFunc{render, ushergin.Middleware(hook{}), late}},
		{"with an inner Errors that has returned", []gin.HandlerFunc{render, ushergin.Middleware(hook{}), late, ushergin.Errors}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			engine := gin.New()
			engine.Use(tt.use...)
			engine.POST("/orders", func(c *gin.Context) { c.Status(200) })
			if got := sender(t, engine)(http.MethodPost); got != "418 rendered" {
				t.Errorf("got %s", got)
			}
		})
	}
}

// A compressor announces its encoding, and ends before Errors responds without it.
func TestAnErrorIsNotInTheEncodingOfAnInnerCompressor(t *testing.T) {
	announce := func(encoding string) gin.HandlerFunc {
		return func(c *gin.Context) {
			c.Header("Content-Encoding", encoding)
			c.Next()
		}
	}
	for name, test := range map[string]struct {
		use  []gin.HandlerFunc
		want string
	}{
		"inside Errors":               {[]gin.HandlerFunc{ushergin.Errors, announce("gzip")}, ""},
		"inside a writer":             {[]gin.HandlerFunc{ushergin.Errors, ushergin.Middleware(newEnvelope()), announce("gzip")}, ""},
		"outside":                     {[]gin.HandlerFunc{announce("gzip"), ushergin.Errors}, "gzip"},
		"outside, and another inside": {[]gin.HandlerFunc{announce("br"), ushergin.Errors, announce("gzip")}, "br"},
	} {
		t.Run(name, func(t *testing.T) {
			engine := gin.New()
			engine.Use(ushergin.Middleware(newEnvelope()))
			engine.Use(test.use...)
			engine.GET("/", func(c *gin.Context) { _ = c.Error(errors.New("private")) })
			w := httptest.NewRecorder()
			engine.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if got := w.Header().Get("Content-Encoding"); w.Code != 500 || got != test.want {
				t.Errorf("%d in the encoding %q, want 500 in %q", w.Code, got, test.want)
			}
		})
	}
}
