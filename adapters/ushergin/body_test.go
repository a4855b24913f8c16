package ushergin_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/idempotency"
)

// A limit that a body exceeds while idempotency reads it keeps its status, as without a
// key; so does an error of usher that gin wraps.
func TestALimitKeepsItsStatus(t *testing.T) {
	failing := func(err error) gin.HandlerFunc {
		return func(c *gin.Context) {
			c.Request.Body = io.NopCloser(io.MultiReader(strings.NewReader("some"), errReader{err}))
		}
	}
	for _, tt := range []struct {
		name   string
		outer  gin.HandlerFunc
		status int
		code   string
	}{
		{"MaxBytesReader", func(c *gin.Context) {
			c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, 1000)
		}, http.StatusRequestEntityTooLarge, usher.CodePayloadTooLarge},
		{"an error of gin", failing(&gin.Error{Err: &usher.Error{Status: http.StatusTeapot, Code: "tea"}}), http.StatusTeapot, "tea"},
		{"an error without a status", failing(&gin.Error{Err: errors.New("private")}), http.StatusBadRequest, usher.CodeBodyUnreadable},
		{"a body that is short enough", func(*gin.Context) {}, http.StatusCreated, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := gin.New()
			e.POST("/", tt.outer, newOnce(idempotency.ProfileDefault), ushergin.Errors, func(c *gin.Context) {
				if _, err := io.ReadAll(c.Request.Body); err != nil {
					_ = c.Error(err)
					return
				}
				c.Status(http.StatusCreated)
			})
			s := httptest.NewServer(e)
			t.Cleanup(s.Close)
			for _, key := range []string{"k", ""} {
				// In chunks, as a length could be refused before the body is read.
				body := io.MultiReader(strings.NewReader(strings.Repeat("x", 4000)))
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
				if err != nil {
					t.Fatal(err)
				}
				if key != "" {
					r.Header.Set("Idempotency-Key", key)
				}
				resp, err := s.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				var got struct{ Code string }
				_ = json.NewDecoder(resp.Body).Decode(&got)
				_ = resp.Body.Close()
				if key == "" && tt.code == usher.CodeBodyUnreadable {
					continue // which only a middleware that reads the body finds
				}
				if resp.StatusCode != tt.status || got.Code != tt.code {
					t.Errorf("key %q: %d %s, want %d %s", key, resp.StatusCode, got.Code, tt.status, tt.code)
				}
			}
		})
	}
}

// A body that stalls ends at its deadline through the writer of gin, too.
func TestABodyThatStallsIsRefused(t *testing.T) {
	once, err := idempotency.New(idempotency.Config{DangerouslyAllowAnonymous: true, BodyTimeout: 30 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	e := gin.New()
	e.POST("/", ushergin.Middleware(once), func(c *gin.Context) { c.Status(http.StatusCreated) })
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	body, _ := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "k")
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = resp.Body.Close(), body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("status %d", resp.StatusCode)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }
