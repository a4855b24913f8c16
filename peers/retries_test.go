package peers_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
)

// payment is the body of every request.
const payment = `{"amount":100}`

// A shop takes payments, each once, over a network that loses replies.
type shop struct {
	url     string
	network *servers.Proxy

	mu       sync.Mutex
	running  map[string]bool
	effects  map[string]int
	receipts map[string]string // of the first effect
	waited   int               // duplicates that came while the first was running
}

// newShop returns a shop behind a network that cuts a fifth of the connections after a
// request was sent. One in ten payments takes longer than a client waits before it retries.
func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{running: make(map[string]bool), effects: make(map[string]int), receipts: make(map[string]string)}
	once := usher.Must(idempotency.New(idempotency.Config{DangerouslyAllowAnonymous: true})).Wrap(http.HandlerFunc(s.pay))
	s.network = servers.NewProxy(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.running[r.Header.Get("Idempotency-Key")] {
			s.waited++
		}
		s.mu.Unlock()
		once.ServeHTTP(w, r)
	})))
	s.network.CutReplies(0.2, payment, 5*time.Millisecond)
	s.url = "http://" + s.network.Addr + "/payments"
	return s
}

func (s *shop) pay(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	receipt := fmt.Sprintf("%s paid as %x", key, rand.Uint64())
	s.mu.Lock()
	s.running[key] = true
	s.effects[key]++
	if s.effects[key] == 1 {
		s.receipts[key] = receipt
	}
	s.mu.Unlock()
	if strings.HasSuffix(key, "0") {
		time.Sleep(1500 * time.Millisecond)
	} else {
		time.Sleep(rand.N(5 * time.Millisecond))
	}
	s.mu.Lock()
	s.running[key] = false
	s.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, receipt)
}

// check fails the test unless each of n payments was made once, and every caller has got
// the receipt for it.
func (s *shop) check(t *testing.T, n int, got map[string]string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, effects := range s.effects {
		if effects != 1 {
			t.Errorf("%s was paid %d times", key, effects)
		}
		if got[key] != s.receipts[key] {
			t.Errorf("the caller of %s got %q, want %q", key, got[key], s.receipts[key])
		}
	}
	if len(s.effects) != n || len(got) != n {
		t.Errorf("%d payments and %d callers with a response, want %d", len(s.effects), len(got), n)
	}
	// About a fifth, and two of a hundred.
	if cuts := s.network.Cuts(); cuts < n/10 || s.waited < n/200 {
		t.Errorf("only %d connections were cut, and %d duplicates waited", cuts, s.waited)
	}
	t.Logf("%d connections cut, %d duplicates came while the first was running", s.network.Cuts(), s.waited)
}

// payAll has many callers make n payments, each with a call of pay. A caller whose client
// gives up calls again, with the same key.
func payAll(n, atATime int, pay func(key string) (receipt string, err error)) map[string]string {
	var mu sync.Mutex
	got := make(map[string]string)
	var next atomic.Int64
	var all sync.WaitGroup
	for range atATime {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				key := fmt.Sprint("key-", i)
				receipt, err := pay(key)
				for tries := 1; err != nil && tries < 20; tries++ {
					receipt, err = pay(key)
				}
				if err != nil {
					receipt = err.Error()
				}
				mu.Lock()
				got[key] = receipt
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return got
}

// receipt returns the body of a response, or an error if it was lost.
func receipt(response *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusCreated {
		return fmt.Sprint(response.StatusCode, " ", string(b)), nil
	}
	return string(b), err
}

// Clients that repeat a request by themselves, over a network that cuts a fifth of all
// connections after the request was sent: each payment is made once, and each caller ends
// with the response of the first attempt, even if the retry comes while that is running.
// None of these clients retries 409.
func TestClientsThatRetryPayOnce(t *testing.T) {
	const payments = 2000
	t.Run("go-retryablehttp", func(t *testing.T) {
		t.Parallel()
		s := newShop(t)
		c := retryablehttp.NewClient()
		c.Logger = nil
		got := payAll(payments, 90, func(key string) (string, error) {
			r, err := retryablehttp.NewRequestWithContext(t.Context(), http.MethodPost, s.url, strings.NewReader(payment))
			if err != nil {
				return "", err
			}
			r.Header.Set("Idempotency-Key", key)
			return receipt(c.Do(r)) //nolint:bodyclose // receipt closes it.
		})
		s.check(t, payments, got)
	})
	// It repeats a request with a key if a connection that it uses again breaks.
	t.Run("the Transport of net/http", func(t *testing.T) {
		t.Parallel()
		s := newShop(t)
		transport := &http.Transport{MaxIdleConnsPerHost: 90}
		defer transport.CloseIdleConnections()
		c := &http.Client{Transport: transport}
		var failed atomic.Int64
		got := payAll(payments, 90, func(key string) (string, error) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, strings.NewReader(payment))
			if err != nil {
				return "", err
			}
			r.Header.Set("Idempotency-Key", key)
			text, err := receipt(c.Do(r)) //nolint:bodyclose // receipt closes it.
			if err != nil {
				failed.Add(1)
			}
			return text, err
		})
		s.check(t, payments, got)
		if n, cuts := failed.Load(), s.network.Cuts(); n >= int64(cuts) {
			t.Errorf("%d connections were cut, and %d requests failed: the Transport has repeated none", cuts, n)
		}
	})
	t.Run("curl", func(t *testing.T) {
		t.Parallel()
		s := newShop(t)
		curl := program(t, "curl")
		payWith(t, s, payments, 40, func(ctx context.Context, keys []string) *exec.Cmd {
			var config strings.Builder
			for i, key := range keys {
				if i > 0 {
					config.WriteString("next\n")
				}
				fmt.Fprintf(&config, "silent\nretry = 10\nretry-delay = 1\nretry-all-errors\nurl = %q\ndata = %q\nheader = \"Idempotency-Key: %s\"\nwrite-out = \"\\n\"\n",
					s.url, payment, key)
			}
			cmd := exec.CommandContext(ctx, curl, "--config", "-")
			cmd.Stdin = strings.NewReader(config.String())
			return cmd
		})
	})
	t.Run("urllib3", func(t *testing.T) {
		t.Parallel()
		python := program(t, "python3")
		if exec.CommandContext(t.Context(), python, "-c", "import urllib3").Run() != nil {
			t.Skip("urllib3 is not installed")
		}
		s := newShop(t)
		script := strings.NewReplacer("URL", s.url, "PAYMENT", payment).Replace(`
import concurrent.futures, sys, urllib3
pool = urllib3.PoolManager(maxsize=40, retries=urllib3.Retry(total=10, allowed_methods=None))
def pay(key):
    return pool.request("POST", "URL", body='PAYMENT', headers={"Idempotency-Key": key}).data.decode()
with concurrent.futures.ThreadPoolExecutor(40) as callers:
    for receipt in callers.map(pay, sys.argv[1:]):
        print(receipt)`)
		payWith(t, s, payments, 1, func(ctx context.Context, keys []string) *exec.Cmd {
			return exec.CommandContext(ctx, python, append([]string{"-c", script}, keys...)...)
		})
	})
}

// payWith makes n payments with programs, each of which makes a part of them and prints
// their receipts in the order of the keys, one a line.
func payWith(t *testing.T, s *shop, n, programs int, command func(ctx context.Context, keys []string) *exec.Cmd) {
	t.Helper()
	var mu sync.Mutex
	got := make(map[string]string)
	var all sync.WaitGroup
	for p := range programs {
		all.Go(func() {
			var keys []string
			for i := p * n / programs; i < (p+1)*n/programs; i++ {
				keys = append(keys, fmt.Sprint("key-", i))
			}
			out, err := command(t.Context(), keys).Output()
			if err != nil {
				t.Error(err)
			}
			lines := bufio.NewScanner(strings.NewReader(string(out)))
			for i := 0; lines.Scan() && i < len(keys); i++ {
				mu.Lock()
				got[keys[i]] = lines.Text()
				mu.Unlock()
			}
		})
	}
	all.Wait()
	s.check(t, n, got)
}

// Proxies that repeat a request to the same or another server, because the first has not
// responded: each payment is made once, and the caller sees nothing of it.
func TestProxiesThatRetryPayOnce(t *testing.T) {
	const payments = 500
	for name, before := range map[string]func(t *testing.T, backend string) string{
		"nginx": func(t *testing.T, backend string) string {
			return nginx(t, "upstreams", "location / { proxy_pass http://BACKEND; proxy_next_upstream error non_idempotent; }\n}\n"+
				"upstream upstreams {"+strings.Repeat("server "+backend+" max_fails=0;", 8))
		},
		"haproxy": func(t *testing.T, backend string) string {
			return haproxyWith(t, backend, "retries 8", "retry-on all-retryable-errors")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			address := before(t, s.network.Addr)
			transport := &http.Transport{MaxIdleConnsPerHost: 40}
			defer transport.CloseIdleConnections()
			c := &http.Client{Transport: transport}
			got := payAll(payments, 40, func(key string) (string, error) {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/payments", strings.NewReader(payment))
				if err != nil {
					return "", err
				}
				r.Header.Set("Idempotency-Key", key)
				text, err := receipt(c.Do(r)) //nolint:bodyclose // receipt closes it.
				if err != nil {
					t.Errorf("the caller of %s: %v", key, err)
				}
				return text, err
			})
			s.check(t, payments, got)
		})
	}
}
