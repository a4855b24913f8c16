package canary_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
)

// TestNoKeyMaterialAnywhere sends key material in every way through a whole stack
// and then searches everything that the stack has sent, stored, logged or exported.
//
// What a client puts into the path of a URL, into its request ID or into the name
// of a key or of a member of JSON is its own text and no place for a secret: the
// response to that client may repeat it. Logs, spans and metrics must not hold a path either, and neither
// responses nor they may hold the value of a query parameter for secrets.
func TestNoKeyMaterialAnywhere(t *testing.T) {
	w := newWorld(t)

	// The one response that shows a key.
	made := w.call("POST", "/api-keys", `{"name":"k","level":"full"}`, "X-Session: ada")
	valid := member(t, made, "api_key")
	w.own["valid key"] = valid
	w.secrets["valid key"] = valid
	id := member(t, made, "key.id")
	rotated := w.call("POST", "/api-keys/"+id+"/rotate", `{"grace_seconds":60}`, "X-Session: ada")
	w.own["rotated key"] = member(t, rotated, "api_key")
	w.secrets["rotated key"] = member(t, rotated, "api_key")
	_, secret, err := w.manager.Create(t.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ada", Name: "k"})
	if err != nil {
		t.Fatal(err)
	}
	w.secrets["revoked key"] = secret.Reveal()
	w.show("secret", secret, &secret, []any{secret}, map[string]any{"k": secret})

	last, err := w.manager.Find(t.Context(), "ada", member(t, rotated, "key.id"))
	if err != nil {
		t.Fatal(err)
	}
	keys, _, err := w.manager.List(t.Context(), "ada", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.ID != id && k.ID != last.ID {
			w.call("DELETE", "/api-keys/"+k.ID, "", "X-Session: ada")
		}
	}
	w.secrets["checksummed garbage"], err = native.Generate(strings.NewReader(strings.Repeat("canary", 500)), "live")
	if err != nil {
		t.Fatal(err)
	}
	w.secrets["garbage"] = "acme_live_garbagegarbagegarbagegarbagegarbagegarb"
	w.session()
	w.secrets["token"] = "eyJhbGciOiJub25lIn0.canarycanarycanarycanary.signature"

	for _, s := range w.secrets {
		for _, header := range []string{
			"X-API-Key: " + s, "Authorization: Bearer " + s, "Authorization: Basic " + s, "Cookie: key=" + s, "X_API_Key: " + s,
			"Proxy-Authorization: Bearer " + s, "X-Forwarded-For: " + s, "Forwarded: for=" + s, "User-Agent: " + s, "Referer: https://x/?api_key=" + s,
		} {
			w.call("GET", "/notes", "", header)
		}
		for _, path := range []string{"/notes", "/query", "/nowhere", "/panic", "/fail"} {
			w.call("GET", path+"?api_key="+s+"&access_token="+s, "")
		}
		w.call("GET", "/notes", "", "X-API-Key: "+s, "X-API-Key: "+s)
		w.call("GET", "/notes", "", "X-API-Key: "+s, "Authorization: Bearer "+s)
		w.call("POST", "/notes", `{"api_key":"`+s+`"}`, "X-API-Key: "+s)
		w.call("POST", "/api-keys", `{"name":7,"api_key":"x","scopes":["a b"]}`, "X-Session: ada", "X-API-Key: "+s)
		w.call("GET", "/panic", "", "X-Panic: "+s)
		w.call("GET", "/panic", "", "X-Panic: "+s, "X-Late: 1")
		w.call("GET", "/limited", "", "X-API-Key: "+s)
		w.call("GET", "/limited", "", "X-API-Key: "+s)
		for _, path := range []string{"/refresh", "/logout"} {
			w.call("POST", path, `{"refresh_token":"`+s+`"}`)
			w.call("POST", path, `{"refresh_token":"`+s+`","token":"`+s+`"}`)
			w.call("POST", path, "", "Cookie: __Host-refresh_token="+s)
		}
		w.call("GET", "/session", "", "Authorization: Bearer "+s)
		w.call("GET", "/session", "", "Authorization: Bearer "+s, "Authorization: Bearer "+s)
		w.call("GET", "/session", "", "Authorization: Bearer "+s+"."+s+"."+s)
		w.orders(s)
		w.path = true
		w.call("GET", "/notes/"+s, "", "X-API-Key: "+s)
		w.call("GET", "/panic/"+s, "")
		w.path = false

		for _, name := range []string{"X-API-Key", "Authorization", "Cookie"} {
			r := httptest.NewRequest(http.MethodGet, "/notes", nil)
			r.Header.Set(name, s)
			p, err := w.auth.Authenticate(r)
			w.show("verdict", p, err)
			p, err = w.tokens.Authenticate(r)
			w.show("verdict", p, err)
		}
		_, err := w.issuer.Refresh(t.Context(), session.RefreshRequest{Token: s})
		w.show("verdict", err)
	}
	w.close()
	w.collect()
	w.check()
}

// session takes the tokens of a session and uses them.
func (w *world) session() {
	w.t.Helper()
	tokens, err := w.issuer.Login(w.t.Context(), session.Session{Subject: "ada", Scopes: []string{"orders"}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.show("tokens", tokens, &tokens, []any{tokens}, map[string]any{"t": tokens})
	w.secrets["refresh token"] = tokens.RefreshToken()
	next := w.call("POST", "/refresh", `{"refresh_token":"`+tokens.RefreshToken()+`"}`)
	for what, name := range map[string]string{"next refresh token": "refresh_token", "next access token": "access_token"} {
		w.secrets[what] = member(w.t, next, name)
		w.own[what] = w.secrets[what]
	}
	access := tokens.AccessToken()
	part := strings.Split(access, ".")
	w.secrets["access token"], w.secrets["claims of a token"], w.secrets["signature of a token"] = access, part[1], part[2]
	w.call("GET", "/session", "", "Authorization: Bearer "+access)

	stolen, err := w.issuer.Login(w.t.Context(), session.Session{Subject: "ada"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.secrets["stolen refresh token"] = stolen.RefreshToken()
	w.call("POST", "/refresh", `{"refresh_token":"`+stolen.RefreshToken()+`"}`)
	w.call("POST", "/refresh", `{"refresh_token":"`+stolen.RefreshToken()+`"}`)

	w.secrets["idempotency key"] = "canary-of-a-key-8e03978e-40d5-43dd-bc93-6894a57f9324"
	w.secrets["body"] = "canary-of-a-body-4111-1111-1111-1111"
	w.orders(w.secrets["idempotency key"], "Authorization: Bearer "+access)
}

// orders uses s as an idempotency key, and in bodies.
func (w *world) orders(s string, header ...string) {
	w.t.Helper()
	order := func(path, key, body string, more ...string) {
		w.call("POST", path, body, slices.Concat(header, more, []string{"X-Session: ada", "Idempotency-Key: " + key})...)
	}
	body := `{"card":"` + w.secrets["body"] + s + `"}`
	order("/orders", s, body)
	order("/orders", s, body)             // is replayed
	order("/orders", s, `{"again":`+body) // is another request
	order("/orders", s, body, "Idempotency-Key: "+s)
	order("/orders", s+" ", body)
	order("/orders", "panic-"+s, body, "X-Panic: "+s)
	order("/orders", "panic-"+s, body, "X-Panic: "+s) // the outcome is unknown
	order("/orders?api_key="+s, "query-"+s, body)
	w.claims.failing.Store(true)
	order("/orders", s, body)
	w.claims.failing.Store(false)
}

// A spyingStore records everything that an idempotency store is given.
type spyingStore struct {
	idempotency.Store
	show    func(where string, values ...any) // not the world, which would be printed with it
	failing atomic.Bool
}

func (s *spyingStore) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	if s.failing.Load() {
		return idempotency.Record{}, fmt.Errorf("claim %v: %w", c.Key, io.ErrUnexpectedEOF)
	}
	r, err := s.Store.Claim(ctx, c)
	s.show("records", c, &c, r, err)
	return r, err
}

func (s *spyingStore) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	s.show("records", c, &c, string(c.Result.Payload))
	return s.Store.Finish(ctx, c)
}

// A spyingSessions records everything that a store of sessions is given.
type spyingSessions struct {
	session.Store
	show func(where string, values ...any)
}

func (s spyingSessions) Insert(ctx context.Context, r session.Record, limit int) ([]session.Session, error) {
	s.show("sessions", r, &r, string(r.Response))
	return s.Store.Insert(ctx, r, limit)
}

func (s spyingSessions) Update(ctx context.Context, r session.Record) error {
	s.show("sessions", r, &r, string(r.Response))
	return s.Store.Update(ctx, r)
}

var native = apikey.Native{Prefix: "acme", Environments: []string{"live"}}

const (
	tokenSecret = "secret-canary-secret-canary-secret-canary"
	self        = "https://acme.example"
)

const pepper = "pepper-canary-pepper-canary-pepper-canary"

// A world is a whole stack and everything that it has shown.
type world struct {
	t       *testing.T
	server  *httptest.Server
	close   func() // ends all that goes on, so that everything can be printed
	store   *apikey.Memory
	auth    *apikey.Authenticator
	manager *apikey.Manager
	issuer  *session.Manager
	tokens  *jwtauth.Verifier
	claims  *spyingStore
	parts   []any // configurations and what was made of them
	spans   *tracetest.SpanRecorder
	reader  *metric.ManualReader
	logs    *buffer

	secrets map[string]string // by what they are
	own     map[string]string // keys that one response may show
	path    bool              // the secret stands in the path

	mu    sync.Mutex
	shown map[string]string // by where
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, store: apikey.NewMemory(), logs: new(buffer), shown: make(map[string]string), own: make(map[string]string),
		secrets: map[string]string{"pepper": pepper, "secret of tokens": tokenSecret},
		spans:   tracetest.NewSpanRecorder(), reader: metric.NewManualReader(),
	}
	logger := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{AddSource: true, Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(logger) })
	tracers := trace.NewTracerProvider(trace.WithSpanProcessor(w.spans))
	meters := metric.NewMeterProvider(metric.WithReader(w.reader))
	otel.SetTracerProvider(tracers)
	otel.SetMeterProvider(meters)

	audit := func(_ context.Context, e apikey.Event) { w.show("audit", e, &e) }
	ips := usher.Must(clientip.New(clientip.Config{TrustedProxies: []string{"127.0.0.1"}}))
	peppers := []apikey.Pepper{{Version: 1, Key: apikey.NewSecret(pepper)}}
	cacheConfig := apikey.CacheConfig{Store: w.store}
	cache := usher.Must(apikey.NewCache(cacheConfig))
	managerConfig := apikey.ManagerConfig{Store: cache, Format: native, Peppers: peppers, Audit: audit}
	w.manager = usher.Must(apikey.NewManager(managerConfig))
	keyConfig := apikey.Config{
		Manager: w.manager, Carriers: []apikey.Carrier{{Header: "X-API-Key"}, {Scheme: "Bearer"}},
		Environment: "live", Audit: audit,
	}
	w.auth = usher.Must(apikey.New(keyConfig))
	queryConfig := keyConfig
	queryConfig.Carriers = append(queryConfig.Carriers, apikey.Carrier{DangerousQueryParameter: "api_key"})
	byQuery := usher.Must(apikey.New(queryConfig))
	handlerConfig := apikey.HandlerConfig{Manager: w.manager, IDIsOwner: []usher.Kind{usher.KindJWT}}
	envConfig := envelope.Config{Wrap: true}
	env := usher.Must(envelope.New(envConfig))
	limitConfig := ratelimit.Config{
		Policies: []ratelimit.Policy{{Name: "address", Key: ratelimit.ByAddress(), Limit: ratelimit.TokenBucket(10_000, time.Second, 10_000)}},
		Headers:  ratelimit.StandardAndEpochHeaders,
	}
	limit := usher.Must(ratelimit.New(limitConfig))
	tight := usher.Must(limit.With(ratelimit.Policy{Name: "tight", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(1, time.Hour)}))
	w.parts = []any{
		peppers, envConfig, limitConfig, // without state
		keyConfig, queryConfig, cacheConfig, managerConfig, handlerConfig, w.auth, byQuery, w.manager, cache, w.store, env, limit, tight, ips,
	}

	ended := new(jwtauth.RevocationList)
	sign := usher.Must(jwk.New(jwk.KeyConfig{ID: "1", Algorithm: jwk.HS256, Secret: []byte(tokenSecret)}))
	issuerConfig := session.Config{
		Issuer: self, Audiences: []string{self}, Keys: []session.SigningKey{{Key: sign}}, Grace: -1, Revocations: ended,
		Store: spyingSessions{usher.Must(session.NewMemory(session.MemoryConfig{})), w.show},
		Audit: func(_ context.Context, e session.Event) { w.show("audit of sessions", e, &e, e.Err) },
	}
	w.issuer = usher.Must(session.New(issuerConfig))
	tokenConfig := jwtauth.Config{Revocations: ended, Issuers: []jwtauth.TrustedIssuer{{
		Issuer: self, Audiences: []string{self}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: w.issuer.Keys(), Profile: jwtauth.ProfileSession,
	}}}
	w.tokens = usher.Must(jwtauth.New(tokenConfig))
	sessionConfig := session.HandlerConfig{Manager: w.issuer}
	sessions := usher.Must(session.NewHandler(sessionConfig))
	memory := usher.Must(idempotency.NewMemory(idempotency.MemoryConfig{}))
	w.claims = &spyingStore{Store: memory, show: w.show}
	onceConfig := idempotency.Config{Store: w.claims, OnError: func(_ context.Context, err error) { w.show("failures of the store", err) }}
	once := usher.Must(idempotency.New(onceConfig))
	w.parts = append(w.parts, sign, []any{sign}, issuerConfig, tokenConfig, sessionConfig, onceConfig, w.issuer, w.tokens, sessions, memory, once, ended)

	either := usher.Authenticate(w.auth)
	use := func(m ...usher.Middleware) []usher.Middleware { return m }
	keys := http.StripPrefix("/api-keys", usher.Must(apikey.NewHandler(handlerConfig)))
	login := usher.Authenticate(login{})
	app := web.App{
		Middlewares: use(env, ips, limit),
		Routes: []web.Route{
			{Method: "GET", Pattern: "/notes", Middlewares: use(either, usher.Require(usher.Requirement{Level: usher.LevelReadOnly})), Handler: w.notes()},
			{Method: "POST", Pattern: "/notes", Middlewares: use(either), Handler: w.notes()},
			{Method: "GET", Pattern: "/notes/{id}", Middlewares: use(either), Handler: w.notes()},
			{Method: "GET", Pattern: "/query", Middlewares: use(usher.Authenticate(byQuery)), Handler: w.notes()},
			{Method: "GET", Pattern: "/limited", Middlewares: use(either, tight), Handler: w.notes()},
			{Method: "GET", Pattern: "/session", Middlewares: use(usher.Authenticate(w.tokens)), Handler: w.notes()},
			{Method: "POST", Pattern: "/refresh", Handler: http.HandlerFunc(sessions.Refresh)},
			{Method: "POST", Pattern: "/logout", Handler: http.HandlerFunc(sessions.Logout)},
			{Method: "POST", Pattern: "/orders", Middlewares: use(login, once), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Panic") != "" {
					panics(rw, r)
				}
				e := idempotency.From(r.Context())
				w.show("execution", e.Generation(), e.DownstreamKey("bank"))
				err := e.Commit(r.Context(), func(_ context.Context, c idempotency.Completion) error {
					w.show("completion", c)
					return nil
				}, nil)
				if err != nil {
					panic(err)
				}
				_, _ = io.Copy(io.Discard, r.Body)
				rw.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(rw, `{"order":1}`)
			})},
			{Method: "GET", Pattern: "/fail", Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				usher.Fail(rw, r, io.ErrUnexpectedEOF)
			})},
			{Method: "GET", Pattern: "/panic", Handler: http.HandlerFunc(panics)},
			{Method: "GET", Pattern: "/panic/{id}", Handler: http.HandlerFunc(panics)},
			{Method: "POST", Pattern: "/api-keys", Middlewares: use(login), Handler: keys},
			{Method: "POST", Pattern: "/api-keys/{id}/rotate", Middlewares: use(login), Handler: keys},
			{Method: "DELETE", Pattern: "/api-keys/{id}", Middlewares: use(login), Handler: keys},
		},
		NotFound:         http.HandlerFunc(env.NotFound),
		MethodNotAllowed: http.HandlerFunc(env.MethodNotAllowed),
	}
	mounted := web.ServeMux(app)
	tracer := tracers.Tracer("server")
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ctx, span := tracer.Start(r.Context(), "request")
		defer span.End()
		mounted.ServeHTTP(rw, r.WithContext(ctx))
	}))
	w.close = func() {
		w.server.Close()
		for _, c := range []io.Closer{w.auth, byQuery, cache} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	return w
}

// login authenticates people by a header field of the test.
type login struct{}

func (login) Authenticate(r *http.Request) (*usher.Principal, error) {
	if name := r.Header.Get("X-Session"); name != "" {
		return &usher.Principal{ID: name, Kind: usher.KindJWT, Level: usher.LevelFull}, nil
	}
	return nil, usher.ErrNoCredential
}

func (w *world) notes() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		w.show("principal", p, &p, p.Details)
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `[]`)
	})
}

func panics(rw http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Late") != "" {
		rw.WriteHeader(200)
		_ = http.NewResponseController(rw).Flush()
	}
	panic(fmt.Errorf("could not use %s%s", r.Header.Get("X-Panic"), r.PathValue("id")))
}

// show records values in every form in which a program prints them.
func (w *world) show(where string, values ...any) {
	var b strings.Builder
	for _, v := range values {
		encoded, _ := json.Marshal(v)
		fmt.Fprintf(&b, "%v\n%+v\n%#v\n%s\n%q\n%x\n%s\n", v, v, v, v, v, v, encoded)
		slog.Info("shown", "value", v)
	}
	w.add(where, b.String())
}

// add records a text. Calls of a store that clean up after a request may still be running
// when the test has ended its requests.
func (w *world) add(where, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shown[where] += text
}

// call sends a request, records the response except the one that shows a key, and
// returns its data.
func (w *world) call(method, path, body string, header ...string) json.RawMessage {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	resp, err := w.server.Client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body) // a panic after the status ends the connection
	where := "responses"
	if w.path {
		where = "responses to requests with it in the path"
	}
	var response struct{ Data json.RawMessage }
	_ = json.Unmarshal(b, &response)
	if resp.StatusCode == http.StatusCreated || path == "/refresh" && resp.StatusCode == http.StatusOK {
		where = "responses that show a key"
	}
	w.add(where, fmt.Sprintf("%d %v %v %s\n", resp.StatusCode, resp.Header, resp.Trailer, b))
	return response.Data
}

// collect takes what telemetry, logs and the store hold.
func (w *world) collect() {
	for _, span := range w.spans.Ended() {
		stub := tracetest.SpanStubFromReadOnlySpan(span)
		w.add("spans", fmt.Sprintf("%s %v %v %v\n", stub.Name, stub.Attributes, stub.Events, stub.Status))
	}
	var metrics metricdata.ResourceMetrics
	if err := w.reader.Collect(w.t.Context(), &metrics); err != nil {
		w.t.Fatal(err)
	}
	encoded, err := json.Marshal(metrics)
	if err != nil {
		w.t.Fatal(err)
	}
	w.add("metrics", string(encoded))
	keys, _, err := w.store.List(w.t.Context(), "ada", 0, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, k := range keys {
		record, err := w.store.Find(w.t.Context(), "ada", k.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		w.show("store", k, record, &record)
	}
	// Printing reads without a lock what was written under one, which the race
	// detector rightly reports.
	if race.Enabled {
		w.show("configurations", w.parts[:3]...)
	} else {
		w.show("configurations", w.parts...)
	}
	w.logs.mu.Lock()
	logs := w.logs.b.String()
	w.logs.mu.Unlock()
	w.add("logs", logs)
}

// check looks for every secret in every place.
func (w *world) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Each place must have been filled, or nothing was looked at.
	for where, word := range map[string]string{
		"responses": "Too Many Requests",
		"responses to requests with it in the path": "metadata",
		"responses that show a key":                 w.secrets["valid key"],
		"spans":                                     "usher.apikey.result",
		"metrics":                                   "usher.apikey.verifications",
		"logs":                                      "envelope: handler panicked",
		"audit":                                     "revoke",
		"store":                                     "last_four",
		"configurations":                            "RequestIDPrefix",
		"verdict":                                   "apikey: revoked",
		"principal":                                 "api_key",
		"secret":                                    "[redacted]",
		"tokens":                                    "AccessLifetime",
		"sessions":                                  "RefreshedAt",
		"audit of sessions":                         "reused",
		"records":                                   `{"order":1}`,
		"failures of the store":                     "unexpected EOF",
		"execution":                                 `"`,
		"completion":                                "Payload",
	} {
		if where == "responses" {
			word = "429"
		}
		if !strings.Contains(w.shown[where], word) {
			w.t.Errorf("%s: nothing shown of %q", where, word)
		}
	}
	for what, secret := range w.secrets {
		// The prefix, four characters and the last four may be shown.
		hidden := secret[14 : len(secret)-4]
		for _, form := range []string{
			hidden, base64.StdEncoding.EncodeToString([]byte(hidden)), base64.RawURLEncoding.EncodeToString([]byte(hidden)),
			hex.EncodeToString([]byte(hidden)), fmt.Sprintf("%X", hidden), fmt.Sprint([]byte(hidden)),
		} {
			for where, text := range w.shown {
				at := strings.Index(text, form)
				switch {
				case at < 0:
				case where == "responses to requests with it in the path":
				case where == "responses that show a key" && w.own[what] != "" && strings.Count(text, form) == 1:
				default:
					w.t.Errorf("the %s is in %s: ...%s", what, where, text[max(0, at-300):min(len(text), at+100)])
				}
			}
		}
	}
}

// member returns a member of the data of a response.
func member(t *testing.T, data json.RawMessage, path string) string {
	t.Helper()
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(data, &object); err != nil || object[name] == nil {
			t.Fatalf("no %s in %s", path, data)
		}
		data = object[name]
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		t.Fatal(err)
	}
	return text
}
