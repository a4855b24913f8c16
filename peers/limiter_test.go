package peers_test

import (
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

var served = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })

// oneASecond returns served behind a bucket of one request a second.
func oneASecond(delay time.Duration) http.Handler {
	return usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "p", Key: ratelimit.Global(), Limit: ratelimit.TokenBucket(1, time.Second, 1), Delay: delay},
	}})).Wrap(served)
}

// Of requests that come at once, a Delay admits as many as the limit_req of nginx with the
// same rate and burst.
func TestADelayAdmitsWhatNginxDoes(t *testing.T) {
	front := freeAddress(t)
	nginx(t, serve(t, served), `}
	limit_req_zone $binary_remote_addr zone=line:1m rate=1r/s;
	limit_req_status 429;
	server {
		listen `+front+`;
		location / { limit_req zone=line burst=2; proxy_pass http://BACKEND; }`)
	for name, address := range map[string]string{"nginx": front, "usher": serve(t, oneASecond(2*time.Second))} {
		t.Run(name, func(t *testing.T) {
			var all sync.WaitGroup
			var admitted, refused atomic.Int32
			for range 12 {
				all.Go(func() {
					r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", http.NoBody)
					if err != nil {
						t.Error(err)
						return
					}
					response, err := http.DefaultClient.Do(r)
					if err != nil {
						t.Error(err)
						return
					}
					_ = response.Body.Close()
					switch response.StatusCode {
					case http.StatusOK:
						admitted.Add(1)
					case http.StatusTooManyRequests:
						refused.Add(1)
					}
				})
			}
			if all.Wait(); admitted.Load() != 3 || refused.Load() != 9 {
				t.Errorf("%d admitted and %d refused, want 3 and 9", admitted.Load(), refused.Load())
			}
		})
	}
}

// Clients that obey Retry-After are never refused twice.
func TestClientsThatObeyRetryAfter(t *testing.T) {
	for name, get := range map[string]func(t *testing.T, url string){
		"go-retryablehttp": func(t *testing.T, url string) {
			c := retryablehttp.NewClient()
			c.Logger, c.RetryMax = nil, 5
			r, err := retryablehttp.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Errorf("status %d", response.StatusCode)
			}
		},
		"curl": func(t *testing.T, url string) {
			out, err := exec.CommandContext(t.Context(), program(t, "curl"), "--silent", "--fail", "--retry", "5", url).Output()
			if err != nil || string(out) != "served" {
				t.Errorf("%q, %v", out, err)
			}
		},
		"urllib3": func(t *testing.T, url string) {
			script := strings.NewReplacer("URL", url).Replace(`
import urllib3
pool = urllib3.PoolManager(retries=urllib3.Retry(total=5, status_forcelist=[429]))
print(pool.request("GET", "URL").status)`)
			python := program(t, "python3")
			if exec.CommandContext(t.Context(), python, "-c", "import urllib3").Run() != nil {
				t.Skip("urllib3 is not installed")
			}
			out, err := exec.CommandContext(t.Context(), python, "-c", script).Output()
			if err != nil || string(out) != "200\n" {
				t.Errorf("%q, %v", out, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var attempts atomic.Int32
			h := oneASecond(0)
			url := "http://" + serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				attempts.Add(1)
				h.ServeHTTP(w, r)
			}))
			const requests = 3
			for range requests {
				get(t, url)
			}
			// The first is admitted, and each of the others is refused at most once.
			if n := attempts.Load(); n < requests || n > 2*requests-1 {
				t.Errorf("%d attempts for %d requests", n, requests)
			}
		})
	}
}
