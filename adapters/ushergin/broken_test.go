package ushergin_test

import (
	stdcontext "context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/envelope"
)

// Gin does not forward a status that comes too late. The envelope must still see that
// status.
func TestAPanicThatRecoveryHasCaughtIsNeverAWholeSuccess(t *testing.T) {
	env, err := envelope.New(envelope.Config{Wrap: true, OnError: func(stdcontext.Context, error) {}})
	if err != nil {
		t.Fatal(err)
	}
	engine := gin.New()
	engine.Use(ushergin.Middleware(env), gin.RecoveryWithWriter(io.Discard))
	engine.GET("/", func(c *gin.Context) {
		c.Data(http.StatusOK, "application/json", []byte("[1,2]"))
		panic("a handler fails")
	})
	s := httptest.NewServer(engine)
	defer s.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a whole response: %d %s", resp.StatusCode, body)
	}
}

// As in gin.Default, Recovery is outside the envelope. It mistakes the panic that aborts
// a connection for a client that has gone.
func TestAnAbortThatRecoveryHasCaughtIsNeverAWholeSuccess(t *testing.T) {
	env, err := envelope.New(envelope.Config{Shape: envelope.Bare(), OnError: func(stdcontext.Context, error) {}})
	if err != nil {
		t.Fatal(err)
	}
	engine := gin.New()
	engine.Use(gin.RecoveryWithWriter(io.Discard), ushergin.Middleware(env))
	engine.GET("/", func(c *gin.Context) {
		c.Data(http.StatusOK, "application/json", []byte("[1,2]"))
		usher.Fail(c.Writer, c.Request, io.ErrUnexpectedEOF)
	})
	s := httptest.NewServer(engine)
	defer s.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a whole response: %d %s", resp.StatusCode, body)
	}
}
