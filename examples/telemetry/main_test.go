package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ushertest"
)

// The stores of the tests are not the Memory of their package, so their calls are bounded
// and measured as those of a database are.
type (
	keyStore     struct{ apikey.Store }
	counterStore struct{ ratelimit.Store }
	sessionStore struct{ session.Store }
	revoker      struct{ *jwtauth.RevocationList }
)

// brokenStore is a store that can be down.
type brokenStore struct {
	idempotency.Store
	down atomic.Bool
}

func (s *brokenStore) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	if s.down.Load() {
		return idempotency.Record{}, errors.New("no connection")
	}
	return s.Store.Claim(ctx, c)
}

// output is what a program prints, for many goroutines.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// authorizationServer publishes keys, and introspects opaque tokens.
func authorizationServer(t *testing.T) (*issuer, *ushertest.Issuer) {
	t.Helper()
	mux := http.NewServeMux()
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	signer := ushertest.NewIssuer(t, s.URL)
	write := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		write(w, map[string]any{"issuer": s.URL, "jwks_uri": s.URL + "/jwks"})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) { write(w, json.RawMessage(signer.JWKS())) })
	mux.HandleFunc("POST /introspect", func(w http.ResponseWriter, r *http.Request) {
		write(w, map[string]any{"active": r.FormValue("token") == "opaque", "iss": s.URL, "aud": "orders", "sub": "otto", "exp": time.Now().Add(time.Hour).Unix()})
	})
	return &issuer{s.URL, s.URL + "/introspect", "orders", "secret", s.Client()}, signer
}

// A client sends requests to one server.
type client struct {
	t   *testing.T
	url string
}

func (c client) do(want int, method, path, body string, header ...string) []byte {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	response, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != want {
		c.t.Errorf("%s %s: %d, %v, want %d: %s", method, path, res.StatusCode, err, want, response)
	}
	return response
}

// observation is what operators see of a service whose callers did all that its telemetry
// reports.
type observation struct {
	metrics string           // as Prometheus gets them
	log     []map[string]any // the lines
	spans   []map[string]any
}

func observe(t *testing.T) (seen observation) {
	t.Helper()
	var log, spans output
	telemetry, err := startTelemetry(&log, &spans)
	if err != nil {
		t.Fatal(err)
	}
	trusted, signer := authorizationServer(t)
	broken := &brokenStore{Store: usher.Must(idempotency.NewMemory(idempotency.MemoryConfig{}))}
	s := newServer(config{
		keys:     keyStore{apikey.NewMemory()},
		counters: counterStore{usher.Must(ratelimit.NewMemory(ratelimit.MemoryConfig{}))},
		records:  broken,
		sessions: session.Config{
			Store:       sessionStore{usher.Must(session.NewMemory(session.MemoryConfig{}))},
			Keys:        []session.SigningKey{{Key: usher.Must(jwk.Generate(jwk.EdDSA))}},
			Revocations: revoker{new(jwtauth.RevocationList)},
		},
		issuer: trusted,
		limit:  5,
		login: func(r *http.Request) (string, bool) {
			if r.FormValue("user") == "" {
				panic("no user")
			}
			return r.FormValue("user"), true
		},
	})
	_, secret, err := s.keys.Manager.Create(t.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "acme", Name: "test", Level: usher.LevelReadWrite})
	if err != nil {
		t.Fatal(err)
	}
	key := []string{"X-API-Key", secret.Reveal()}
	server := httptest.NewServer(s)
	c := client{t, server.URL}

	c.do(401, "GET", "/orders", "")
	c.do(200, "GET", "/orders", "", key...)
	c.do(200, "GET", "/orders", "", "Authorization", "Bearer "+signer.Token(map[string]any{"sub": "ann", "aud": "orders"}))
	c.do(200, "GET", "/orders", "", "Authorization", "Bearer opaque")
	c.do(401, "GET", "/orders", "", "Authorization", "Bearer closed")
	var tokens struct {
		Data struct {
			Access  string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		} `json:"data"`
	}
	if err := json.Unmarshal(c.do(200, "POST", "/login?user=ann", ""), &tokens); err != nil {
		t.Fatal(err)
	}
	c.do(500, "POST", "/login", "")
	c.do(200, "GET", "/orders", "", "Authorization", "Bearer "+tokens.Data.Access)
	c.do(403, "POST", "/orders", `{"item":"pen"}`, "Authorization", "Bearer "+tokens.Data.Access)
	c.do(200, "POST", "/refresh", fmt.Sprintf(`{"refresh_token":%q}`, tokens.Data.Refresh), "Content-Type", "application/json")
	for range 2 {
		c.do(201, "POST", "/orders", `{"item":"pen"}`, append(key, "Idempotency-Key", "one")...)
	}
	broken.down.Store(true)
	c.do(503, "POST", "/orders", `{"item":"pen"}`, append(key, "Idempotency-Key", "two")...)
	c.do(200, "GET", "/orders", "", key...)
	c.do(429, "GET", "/orders", "", key...)

	fillMemory()

	w := httptest.NewRecorder()
	telemetry.metrics.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	seen.metrics = w.Body.String()
	server.Close()
	ctx := context.WithoutCancel(t.Context())
	if err := errors.Join(s.close(ctx), telemetry.shutdown(ctx)); err != nil {
		t.Error(err)
	}
	seen.log, seen.spans = lines(t, log.String()), lines(t, spans.String())
	return seen
}

// fillMemory makes a Memory remove responses: the store of the service is not a Memory.
func fillMemory() {
	once := usher.Must(idempotency.New(idempotency.Config{
		Store:                     usher.Must(idempotency.NewMemory(idempotency.MemoryConfig{MaxBytes: 1 << 20})),
		DangerouslyAllowAnonymous: true,
		OnError:                   func(context.Context, error) {},
	}))
	large := once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 50<<10)) }))
	for i := range 40 {
		r := httptest.NewRequest("POST", "/", nil)
		r.Pattern = "POST /"
		r.Header.Set("Idempotency-Key", strconv.Itoa(i))
		large.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// lines returns the values of lines of JSON.
func lines(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var line map[string]any
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, line)
	}
}

func TestOperatorsSeeWhatUsherDecides(t *testing.T) {
	seen := observe(t)

	t.Run("every line about a request has the IDs of its trace, span and response", func(t *testing.T) {
		messages := make(map[string]bool)
		for _, line := range seen.log {
			messages[line["msg"].(string)] = true
			for _, id := range []string{"trace_id", "span_id", "request_id"} {
				if text, _ := line[id].(string); text == "" {
					t.Errorf("no %s in %v", id, line)
				}
			}
		}
		for _, want := range []string{"request", "order placed", "envelope: handler panicked", "envelope: request failed", "idempotency: failure"} {
			if !messages[want] {
				t.Errorf("no line says %q: %v", want, messages)
			}
		}
	})

	t.Run("spans have the route as their name and say why a request was refused", func(t *testing.T) {
		found := make(map[string]bool)
		for _, span := range seen.spans {
			for _, a := range span["Attributes"].([]any) {
				a := a.(map[string]any)
				found[fmt.Sprint(span["Name"], " ", a["Key"], "=", a["Value"].(map[string]any)["Value"])] = true
			}
		}
		for _, want := range []string{
			"GET /orders usher.authentication.result=missing",
			"GET /orders usher.error.code=missing_credential",
			"GET /orders usher.introspection.result=inactive",
			"GET /orders usher.rate_limiting.policy=principal",
			"POST /orders usher.authorization.result=insufficient_permission",
			"POST /orders usher.idempotency.result=replayed",
			"POST /login usher.envelope.panic.outcome=responded",
		} {
			if !found[want] {
				t.Errorf("no span has %s", want)
			}
		}
	})
}

// TestTheFilesForOperatorsFitTheProgram looks for the metrics that the dashboard and the
// alerts use in what Prometheus gets.
func TestTheFilesForOperatorsFitTheProgram(t *testing.T) {
	metrics := observe(t).metrics
	metric := regexp.MustCompile(`(?:^|[^:\w])(usher_\w+_(?:total|bucket|count|sum|open|entries|places))\b`)
	for _, name := range []string{"dashboard.json", "rules.yaml"} {
		text, err := os.ReadFile("../../docs/telemetry/" + name)
		if err != nil {
			t.Fatal(err)
		}
		found := metric.FindAllSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s names no metric", name)
		}
		for _, m := range found {
			if !strings.Contains(metrics, "\n"+string(m[1])+"{") {
				t.Errorf("%s names %s, which the program does not export", name, m[1])
			}
		}
	}
}

func TestTheProgramServesUntilItsContextEnds(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out output
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-addr", "127.0.0.1:0", "-metrics", "127.0.0.1:0"}, &out) }()
	printed := regexp.MustCompile(`(?s)curl -H '(X-API-Key): (\S+)' (\S+)/orders\ncurl (\S+)/metrics\n`)
	var found []string
	for found == nil {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
		found = printed.FindStringSubmatch(out.String())
	}
	client{t, found[3]}.do(200, "GET", "/orders", "", found[1], found[2])
	text := client{t, found[4]}.do(200, "GET", "/metrics", "")
	if !bytes.Contains(text, []byte("usher_apikey_verifications_total{")) {
		t.Errorf("the metrics are %s", text)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
