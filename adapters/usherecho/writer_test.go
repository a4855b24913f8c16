package usherecho_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho"
)

// funcWriter cannot be compared.
type funcWriter struct {
	http.ResponseWriter
	before func()
}

func (w funcWriter) Write(p []byte) (int, error) {
	w.before()
	return w.ResponseWriter.Write(p)
}

func (w funcWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestWriterThatCannotBeCompared(t *testing.T) {
	e := echo.New()
	ran := false
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			c.SetResponse(funcWriter{c.Response(), func() { ran = true }})
			return next(c)
		}
	}, usherecho.Middleware(usher.Chain()))
	e.GET("/", func(c *echo.Context) error { return c.String(200, "ok") })
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != 200 || w.Body.String() != "ok" || !ran {
		t.Errorf("status %d, body %s, the writer was used: %t", w.Code, w.Body, ran)
	}
}
