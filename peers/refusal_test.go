package peers_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A client that is still sending its body gets the refusal, and neither a reset
// connection nor the 502 that a proxy makes of one.
func TestARefusalReachesAClientThatIsStillSending(t *testing.T) {
	env, err := envelope.New(envelope.Config{Wrap: true})
	if err != nil {
		t.Fatal(err)
	}
	once, err := idempotency.New(idempotency.Config{
		Owner:   func(*http.Request) (string, bool) { return "everyone", true },
		MaxBody: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	counting, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "failures", Limit: ratelimit.RollingWindow(1_000_000, time.Hour),
		Key:   ratelimit.ByAddress(),
		Count: func(status int) bool { return status >= 400 },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	read := func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1<<20))
		return err
	}
	byHand := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if read(w, r) != nil {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		}
	})
	refusals := map[string]struct {
		status  int
		handler http.Handler
	}{
		"too large, by Fail": {413, env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := read(w, r); err != nil {
				usher.Fail(w, r, err)
			}
		}))},
		"too large, by the handler":         {413, env.Wrap(byHand)},
		"too large, behind a counted limit": {413, counting.Wrap(byHand)},
		"too large for its key":             {413, once.Wrap(http.NotFoundHandler())},
		"too large, behind Authenticate":    {413, usher.Authenticate(usher.Optional(byName{})).Wrap(byHand)},
		"without a credential":              {401, usher.Authenticate().Wrap(http.NotFoundHandler())},
	}
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			backend := serve(t, refusal.handler)
			for front, address := range map[string]string{
				"direct":  backend,
				"haproxy": haproxy(t, backend),
				"nginx":   nginx(t, backend, "client_max_body_size 0; location / { proxy_pass http://BACKEND; }"),
			} {
				for client, post := range posts(t) {
					t.Run(front+", "+client, func(t *testing.T) {
						const requests = 30
						lost := map[string]int{}
						for range requests {
							if status, reason := post("http://" + address + "/"); status != refusal.status {
								lost[http.StatusText(status)+reason]++
							}
						}
						if len(lost) > 0 {
							t.Errorf("of %d refusals these came as something else: %v", requests, lost)
						}
					})
				}
			}
		})
	}
}

// posts returns ways to send 3 MB.
func posts(t *testing.T) map[string]func(url string) (status int, reason string) {
	t.Helper()
	large := bytes.Repeat([]byte("x"), 3<<20)
	file := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(file, large, 0o600); err != nil {
		t.Fatal(err)
	}
	path := program(t, "curl")
	curl := func(field string) func(string) (int, string) {
		return func(url string) (int, string) {
			output, err := exec.CommandContext(t.Context(), path, "-sS", "-o", os.DevNull, "-w", "%{http_code}",
				"-H", field, "-H", "Idempotency-Key: 1", "--data-binary", "@"+file, url).CombinedOutput()
			if err != nil {
				return 0, string(output)
			}
			status, err := strconv.Atoi(string(output))
			if err != nil {
				return 0, err.Error()
			}
			return status, ""
		}
	}
	transport := &http.Transport{ExpectContinueTimeout: 5 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	return map[string]func(string) (int, string){
		"curl":          curl("X-Any: 1"),
		"curl, chunked": curl("Transfer-Encoding: chunked"),
		"net/http": func(url string) (int, string) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(large))
			if err != nil {
				return 0, err.Error()
			}
			r.Header.Set("Idempotency-Key", "1")
			r.Header.Set("Expect", "100-continue")
			response, err := transport.RoundTrip(r)
			if err != nil {
				return 0, err.Error()
			}
			defer func() { _ = response.Body.Close() }()
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				return 0, err.Error()
			}
			return response.StatusCode, ""
		},
	}
}

// The writer of gin-contrib/gzip hides the server's writer, so the server cannot be
// notified that the body is left unread.
func TestARefusalReachesNginxThroughACompressorOfGin(t *testing.T) {
	gin.SetMode(gin.TestMode)
	engine := gin.New()
	engine.Use(gzip.Gzip(gzip.DefaultCompression), ushergin.Middleware(usher.Authenticate()))
	engine.POST("/", func(*gin.Context) {})
	address := nginx(t, serve(t, engine), "client_max_body_size 0; location / { proxy_pass http://BACKEND; }")
	for _, size := range []int{100_000, 250_000} {
		for range 40 {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/", bytes.NewReader(make([]byte, size)))
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusUnauthorized {
				t.Fatalf("%d after %d bytes", response.StatusCode, size)
			}
		}
	}
}
