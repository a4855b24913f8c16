package peers_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/usher-go/usher"
)

// A response that usher has refused reaches the client through each of them.
func TestAProxyPassesRefusalsOn(t *testing.T) {
	backend := serve(t, usher.Authenticate().Wrap(http.NotFoundHandler()))
	for name, address := range map[string]func() string{
		"varnish": func() string { return varnish(t, backend) },
		"nginx":   func() string { return nginx(t, backend, "location / { proxy_pass http://BACKEND; }") },
		"haproxy": func() string { return haproxy(t, backend) },
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address()+"/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if response.StatusCode != http.StatusUnauthorized || err != nil || len(body) == 0 {
				t.Errorf("got %d, %q, %v", response.StatusCode, body, err)
			}
		})
	}
}
