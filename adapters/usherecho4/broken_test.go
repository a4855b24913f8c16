package usherecho4_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/usher-go/usher/adapters/usherecho4"
)

// Echo cannot report a failure after the first byte: neither its Recover nor its error
// handler writes a second body. The envelope aborts the connection.
func TestAFailureAfterTheFirstByteIsNeverAWholeSuccess(t *testing.T) {
	for name, h := range map[string]echo.HandlerFunc{
		"an error": func(c echo.Context) error {
			_ = c.JSONBlob(http.StatusOK, []byte("[1,2"))
			return errors.New("db: connection lost")
		},
		"a panic that Recover has caught": func(c echo.Context) error {
			_ = c.JSONBlob(http.StatusOK, []byte("[1,2]"))
			panic("a handler fails")
		},
	} {
		for _, foreign := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, with echo's own error handler: %t", name, foreign), func(t *testing.T) {
				e := echo.New()
				if !foreign {
					e.HTTPErrorHandler = usherecho4.HTTPErrorHandler
				}
				// Otherwise Recover hands a panic to the error handler alone.
				recovery := middleware.DefaultRecoverConfig
				recovery.DisableErrorHandler = foreign
				e.Use(usherecho4.Middleware(newEnvelope(t)), middleware.RecoverWithConfig(recovery))
				e.GET("/", h)
				s := httptest.NewServer(e)
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
			})
		}
	}
}
