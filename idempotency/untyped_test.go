package idempotency_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A handler that sets Content-Type to nil keeps the server from detecting a type. What was
// harmless in the first response must not be a page in the replay.
func TestAReplayHasNoTypeIfTheFirstResponseHadNone(t *testing.T) {
	for name, c := range map[string]struct {
		config   idempotency.Config
		replayed string
	}{
		"as it was sent": {idempotency.Config{}, ""},
		"sanitized": {idempotency.Config{Sanitize: func(_ *http.Request, resp *idempotency.Response) {
			resp.Body = append(resp.Body, '!')
		}}, ""},
		"sanitized, with a type": {idempotency.Config{Sanitize: func(_ *http.Request, resp *idempotency.Response) {
			resp.Header.Set("Content-Type", "text/plain")
		}}, "text/plain"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newMiddleware(t, c.config).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				_, _ = io.WriteString(w, "<html><script>")
			}))
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, usher.WithPrincipal(r, alice))
			}))
			defer s.Close()
			for i, want := range []string{"", c.replayed} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("x"))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Idempotency-Key", "k")
				resp, err := s.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if got := resp.Header.Get("Content-Type"); got != want || (resp.Header.Get("Idempotency-Replayed") != "") != (i == 1) {
					t.Errorf("response %d has the type %q, want %q", i, got, want)
				}
			}
			s.Client().CloseIdleConnections()
		})
	}
}
