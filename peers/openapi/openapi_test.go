package openapi_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// A description is docs/openapi.json with the handlers that it describes.
type description struct {
	t         *testing.T
	document  *v3.Document
	validator validator.Validator
	manager   *apikey.Manager
	owner     string // of the last key that was changed
	keys      *failingKeys
	sessions  *failingSessions
	json      http.Handler // delivers tokens in the bodies of responses
	cookies   http.Handler // delivers them in cookies, and gives nobody an account of keys
	seen      map[string]bool
}

// failingKeys and failingSessions are stores that return err once it is set.
type failingKeys struct {
	*apikey.Memory
	err error
}

func (s *failingKeys) Insert(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
	if s.err != nil {
		return s.err
	}
	return s.Memory.Insert(ctx, r, limits)
}

func (s *failingKeys) Find(ctx context.Context, owner, id string) (apikey.Record, error) {
	if s.err != nil {
		return apikey.Record{}, s.err
	}
	return s.Memory.Find(ctx, owner, id)
}

func (s *failingKeys) List(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
	if s.err != nil {
		return nil, 0, s.err
	}
	return s.Memory.List(ctx, owner, offset, limit)
}

type failingSessions struct {
	*session.Memory
	err error
}

func (s *failingSessions) Insert(ctx context.Context, r session.Record, limit int) ([]session.Session, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Memory.Insert(ctx, r, limit)
}

func (s *failingSessions) Lookup(ctx context.Context, handle [32]byte) (session.Record, error) {
	if s.err != nil {
		return session.Record{}, s.err
	}
	return s.Memory.Lookup(ctx, handle)
}

func (s *failingSessions) RevokeSubject(ctx context.Context, subject string, at time.Time) ([]session.Session, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Memory.RevokeSubject(ctx, subject, at)
}

func openDescription(t *testing.T) *description {
	text, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	model, err := document.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(document, config.WithFormatAssertions(), config.WithURLEncodedBodyValidation())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	t.Cleanup(v.Release)
	d := &description{t: t, document: &model.Model, validator: v, seen: map[string]bool{}}
	d.serve()
	return d
}

// serve makes the handlers as a service does.
func (d *description) serve() {
	fatal := func(err error) {
		if err != nil {
			d.t.Helper()
			d.t.Fatal(err)
		}
	}
	memory, err := session.NewMemory(session.MemoryConfig{})
	fatal(err)
	d.sessions = &failingSessions{Memory: memory}
	d.keys = &failingKeys{Memory: apikey.NewMemory()}
	quiet := func(context.Context, error) {}
	_, material, err := ed25519.GenerateKey(rand.Reader)
	fatal(err)
	key, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.EdDSA, ID: "1", Material: material})
	fatal(err)
	logins, err := session.New(session.Config{
		Issuer: "notes", Audiences: []string{"notes"}, Store: d.sessions, OnError: quiet,
		Keys: []session.SigningKey{{Key: key}},
	})
	fatal(err)
	verifier, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{logins.TrustedIssuer()}})
	fatal(err)
	manager, err := apikey.NewManager(apikey.ManagerConfig{
		Store: d.keys, Format: apikey.Native{Prefix: "nt", Environments: []string{"live", "test"}}, OnError: quiet,
		Change: func(_ context.Context, _ apikey.Actor, _, k *apikey.Key) error {
			d.owner = k.Owner
			if k.Name == "gold" {
				return &usher.Error{Status: http.StatusPaymentRequired, Code: "payment_required"}
			}
			return nil
		},
	})
	fatal(err)
	d.manager = manager
	signedIn := usher.Authenticate(verifier)
	serve := func(c session.HandlerConfig, accounts ...usher.Kind) http.Handler {
		keys, err := apikey.NewHandler(apikey.HandlerConfig{
			Manager: manager, IDIsOwner: accounts, Level: usher.LevelReadWrite, Scopes: []string{"read", "write"},
		})
		fatal(err)
		c.Manager = logins
		h, err := session.NewHandler(c)
		fatal(err)
		mux := http.NewServeMux()
		mounted := signedIn.Wrap(http.StripPrefix("/api-keys", keys))
		mux.Handle("/api-keys", mounted)
		mux.Handle("/api-keys/", mounted)
		mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
			h.Login(w, r, session.Session{Subject: "ann", Scopes: []string{"read"}})
		})
		mux.HandleFunc("/refresh", h.Refresh)
		mux.HandleFunc("/logout", h.Logout)
		mux.Handle("/logout-all", usher.Authenticate(usher.Optional(verifier)).Wrap(http.HandlerFunc(h.LogoutAll)))
		return mux
	}
	d.json = serve(session.HandlerConfig{}, usher.KindJWT)
	d.cookies = serve(session.HandlerConfig{RefreshCookie: &session.Cookie{}})
}

// An exchange is a request and what is expected of its response.
type exchange struct {
	method, target, body string
	header               map[string]string
	token                string // of the person who sends it
	cookies              bool   // send it to the handler that delivers tokens in cookies
	wrong                bool   // the request is not as the document describes it
	status               int
}

var (
	elsewhere = map[string]string{"Sec-Fetch-Site": "cross-site"}
	plain     = map[string]string{"Content-Type": "text/plain"}
)

// do sends a request, and checks it and the response against the document. It returns the
// decoded response.
func (d *description) do(e exchange) (body map[string]any, w *httptest.ResponseRecorder) {
	d.t.Helper()
	name := e.method + " " + e.target + " " + e.body
	request := func() *http.Request {
		r := httptest.NewRequest(e.method, e.target, strings.NewReader(e.body))
		if e.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		if e.token != "" {
			r.Header.Set("Authorization", "Bearer "+e.token)
		}
		for field, value := range e.header {
			r.Header.Set(field, value)
		}
		return r
	}
	w = httptest.NewRecorder()
	if e.cookies {
		d.cookies.ServeHTTP(w, request())
	} else {
		d.json.ServeHTTP(w, request())
	}
	if w.Code != e.status {
		d.t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, e.status)
	}
	if ok, errs := d.validator.ValidateHttpRequestSync(request()); ok == e.wrong {
		d.t.Errorf("%s: the request is valid: %v, %v", name, ok, errs)
	}
	response := w.Result()
	if ok, errs := d.validator.ValidateHttpResponse(request(), response); !ok {
		d.t.Errorf("%s: %d %s: %v", name, w.Code, w.Body, errs)
	}
	d.note(e, w)
	if w.Body.Len() > 0 && w.Body.Bytes()[0] == '{' {
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			d.t.Error(err)
		}
	}
	return body, w
}

// note notes that a response of the document has been seen, and checks its header.
func (d *description) note(e exchange, w *httptest.ResponseRecorder) {
	path, _, _ := strings.Cut(e.target, "?")
	if rest, found := strings.CutPrefix(path, "/api-keys/"); found {
		_, action, nested := strings.Cut(rest, "/")
		path = "/api-keys/{id}"
		if nested {
			path += "/" + action
		}
	}
	item, ok := d.document.Paths.PathItems.Get(path)
	if !ok {
		d.t.Fatalf("no path %s", path)
	}
	operation, ok := item.GetOperations().Get(strings.ToLower(e.method))
	if !ok {
		d.t.Fatalf("no operation %s %s", e.method, path)
	}
	status := strconv.Itoa(w.Code)
	response := operation.Responses.FindResponseByCode(w.Code)
	if response == nil {
		status, response = "default", operation.Responses.Default
	}
	d.seen[e.method+" "+path+" "+status] = true
	declared := map[string]bool{}
	for field, header := range response.Headers.FromOldest() {
		declared[http.CanonicalHeaderKey(field)] = true
		if header.Required && w.Header().Get(field) == "" {
			d.t.Errorf("%s %s: %d lacks the field %s", e.method, path, w.Code, field)
		}
	}
	for field := range w.Header() {
		if !declared[field] && !slices.Contains([]string{"Content-Type", "X-Content-Type-Options", "Vary", "Connection"}, field) {
			d.t.Errorf("%s %s: %d has the field %s, which is not described", e.method, path, w.Code, field)
		}
	}
}

func TestTheOpenAPIDocumentIsValid(t *testing.T) {
	d := openDescription(t)
	if ok, errs := d.validator.ValidateDocument(); !ok {
		t.Error(errs)
	}
	if !strings.HasPrefix(d.document.Version, "3.1.") {
		t.Errorf("version %s", d.document.Version)
	}
}

// Every operation and every status of the document occurs, and each request and response
// is as the document says.
func TestTheHandlersAreAsTheOpenAPIDocumentSays(t *testing.T) {
	d := openDescription(t)
	d.sendToKeys()
	d.sendToSessions()

	for path, item := range d.document.Paths.PathItems.FromOldest() {
		for method, operation := range item.GetOperations().FromOldest() {
			for status := range operation.Responses.Codes.FromOldest() {
				if response := strings.ToUpper(method) + " " + path + " " + status; !d.seen[response] {
					t.Errorf("%s is in the document, and no response was", response)
				}
			}
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(d.seen)), func(s string) bool { return strings.HasSuffix(s, " default") }) {
		t.Error("no response was another failure")
	}
}

// The methods of each path are those of the document, and HEAD beside GET.
func TestThePathsHaveTheMethodsOfTheOpenAPIDocument(t *testing.T) {
	d := openDescription(t)
	token := d.logIn()
	for path, item := range d.document.Paths.PathItems.FromOldest() {
		var want []string
		for method := range item.GetOperations().FromOldest() {
			want = append(want, strings.ToUpper(method))
			if method == "get" {
				want = append(want, "HEAD")
			}
		}
		slices.Sort(want)
		r := httptest.NewRequest(http.MethodPut, strings.Replace(path, "{id}", "k1", 1), nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		d.json.ServeHTTP(w, r)
		if got := w.Header().Get("Allow"); w.Code != 405 || got != strings.Join(want, ", ") {
			t.Errorf("%s: %d, Allow %q, want %q", path, w.Code, got, want)
		}
	}
}

// logIn returns an access token.
func (d *description) logIn() string {
	d.t.Helper()
	tokens, _ := d.do(exchange{method: "POST", target: "/login", body: `{}`, status: 200})
	token, _ := tokens["access_token"].(string)
	return token
}

// strong returns the path of a key of the account that grants more than its people hold.
func (d *description) strong() string {
	d.t.Helper()
	k, _, err := d.manager.Create(d.t.Context(), apikey.Actor{System: true}, apikey.Key{Owner: d.owner, Name: "strong", Level: usher.LevelFull})
	if err != nil {
		d.t.Fatal(err)
	}
	return "/api-keys/" + k.ID
}

// sendToKeys causes each response of the API for keys.
func (d *description) sendToKeys() {
	token := d.logIn()
	do := func(method, target, body string, status int) map[string]any {
		got, _ := d.do(exchange{method: method, target: target, body: body, token: token, status: status})
		return got
	}
	refused := func(method, target, body string, status int) {
		d.do(exchange{method: method, target: target, body: body, token: token, status: status, wrong: true})
	}
	create := func(body string) string {
		return do("POST", "/api-keys", body, 201)["key"].(map[string]any)["id"].(string)
	}

	id := create(`{"name":"ci","description":"nightly\nexport","scopes":["read"],"level":"read_only","environment":"test",` +
		`"allowed_networks":["192.0.2.0/24","2001:db8::1"],"expires_at":"2100-01-01T00:00:00Z"}`)
	one := "/api-keys/" + id
	create(`{"name":"x"}`)
	do("GET", "/api-keys", "", 200)
	do("GET", "/api-keys?page=2&limit=1", "", 200)
	do("GET", one, "", 200)
	do("PATCH", one, `{"disabled":true}`, 200)
	do("PATCH", one, `{"name":"build","description":"","scopes":[],"level":"none","allowed_networks":[],"expires_at":null,"disabled":false}`, 200)
	rotated := do("POST", one+"/rotate", `{"grace_seconds":60}`, 201)
	next := "/api-keys/" + rotated["key"].(map[string]any)["id"].(string)
	do("GET", one, "", 200)
	do("POST", next+"/derive", `{"name":"job","scopes":[],"level":"none","allowed_networks":["192.0.2.7"]}`, 201)
	do("POST", next+"/rotate", "", 201)
	do("DELETE", one+"?line=false", "", 204)
	do("GET", one, "", 200)

	// Keys that have ended, unknown keys, and an account that is full.
	do("PATCH", one, `{"name":"y"}`, 409)
	do("POST", one+"/rotate", "", 409)
	do("POST", one+"/derive", `{"name":"y"}`, 409)
	for _, call := range []struct{ method, target, body string }{
		{"GET", "", ""}, {"PATCH", "", `{"name":"y"}`}, {"DELETE", "", ""}, {"POST", "/rotate", ""}, {"POST", "/derive", `{"name":"y"}`},
	} {
		do(call.method, "/api-keys/unknown"+call.target, call.body, 404)
	}
	d.keys.err = apikey.ErrLimit
	do("POST", "/api-keys", `{"name":"x"}`, 409)
	d.keys.err = apikey.ErrFull
	do("POST", "/api-keys", `{"name":"x"}`, 409)
	d.keys.err = apikey.ErrConflict
	do("DELETE", one, "", 409)
	d.keys.err = nil

	// More than the caller holds. A service may also refuse what it likes.
	strong := d.strong()
	do("POST", "/api-keys", `{"name":"x","level":"full"}`, 403)
	do("POST", "/api-keys", `{"name":"x","scopes":["admin"]}`, 403)
	do("PATCH", strong, `{"name":"y"}`, 403)
	do("DELETE", strong, "", 403)
	do("POST", strong+"/rotate", "", 403)
	do("POST", strong+"/derive", `{"name":"y","level":"full"}`, 403)
	d.do(exchange{method: "POST", target: next + "/rotate", token: token, header: elsewhere, status: 403})
	do("POST", "/api-keys", `{"name":"gold"}`, 402)

	// What the document does not permit, and what it cannot express.
	refused("GET", "/api-keys?page=0", "", 400)
	refused("GET", "/api-keys?limit=x", "", 400)
	refused("POST", "/api-keys", `{"name":7,"owner":"bob"}`, 400)
	refused("POST", "/api-keys", `{}`, 400)
	refused("POST", "/api-keys", `{"name":"x","level":"god"}`, 400)
	refused("POST", "/api-keys", `{"name":"x","scopes":["a b"]}`, 400)
	refused("POST", "/api-keys", `{"name":"x","allowed_networks":["office"]}`, 400)
	refused("POST", "/api-keys", `{"name":"x","expires_at":"soon"}`, 400)
	refused("PATCH", next, `{}`, 400)
	refused("PATCH", next, `{"environment":"test"}`, 400)
	refused("PATCH", next, `{"disabled":null}`, 400)
	refused("POST", next+"/rotate", `{"grace_seconds":-1}`, 400)
	refused("POST", next+"/derive", `{"name":"x","environment":"test"}`, 400)
	refused("DELETE", next+"?line=yes", "", 400)
	do("POST", "/api-keys", `{"name":"x","name":"y"}`, 400)
	do("POST", "/api-keys", `{"name":" x"}`, 400)
	do("POST", "/api-keys", `{"name":"x","expires_at":"2000-01-01T00:00:00Z"}`, 400)

	long := `{"name":"` + strings.Repeat("x", 20<<10) + `"}`
	for _, call := range []struct{ method, target, body string }{
		{"GET", "/api-keys", ""}, {"POST", "/api-keys", `{"name":"x"}`},
		{"GET", next, ""}, {"PATCH", next, `{"name":"x"}`}, {"DELETE", next, ""}, {"POST", next + "/rotate", `{}`},
		{"POST", next + "/derive", `{"name":"x"}`},
	} {
		d.do(exchange{method: call.method, target: call.target, body: call.body, status: 401, wrong: true})
		d.do(exchange{method: call.method, target: call.target, body: call.body, token: token, cookies: true, status: 403})
		d.keys.err = errors.New("down")
		do(call.method, call.target, call.body, 503)
		d.keys.err = nil
		if call.body != "" {
			d.do(exchange{method: call.method, target: call.target, body: call.body, token: token, header: plain, status: 415, wrong: true})
			refused(call.method, call.target, long, 413)
		}
	}
}

// sendToSessions causes each response of the handlers of sessions.
func (d *description) sendToSessions() {
	do := func(target, body string, status int) map[string]any {
		got, _ := d.do(exchange{method: "POST", target: target, body: body, status: status})
		return got
	}
	const browser = `{}`
	tokens := do("/login", browser, 200)
	refresh := func(name string) string {
		return `{"refresh_token":"` + tokens["refresh_token"].(string) + `"` + name + `}`
	}
	do("/refresh", refresh(`,"scope":"admin"`), 400)
	tokens = do("/refresh", refresh(`,"scope":"read"`), 200)
	do("/refresh", `{"refresh_token":"unknown"}`, 401)
	do("/refresh", "", 400)
	d.do(exchange{method: "POST", target: "/refresh", body: `{"refresh_token":7}`, status: 400, wrong: true})
	d.do(exchange{method: "POST", target: "/refresh", body: refresh(""), header: plain, status: 415, wrong: true})
	long := `{"refresh_token":"` + strings.Repeat("x", 5<<10) + `"}`
	do("/refresh", long, 413)
	do("/logout", long, 413)
	do("/logout", "", 400)
	d.sessions.err = errors.New("down")
	do("/login", browser, 503)
	do("/refresh", refresh(""), 503)
	do("/logout", refresh(""), 503)
	d.do(exchange{method: "POST", target: "/logout-all", token: tokens["access_token"].(string), status: 503})
	d.sessions.err = nil
	do("/logout", refresh(""), 204)
	d.do(exchange{method: "POST", target: "/logout-all", status: 401, wrong: true})
	d.do(exchange{method: "POST", target: "/logout-all", token: d.logIn(), status: 204})

	// Tokens in cookies.
	_, w := d.do(exchange{method: "POST", target: "/login", body: browser, cookies: true, status: 200})
	cookie, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
	for _, target := range []string{"/login", "/refresh", "/logout"} {
		header := map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site"}
		d.do(exchange{method: "POST", target: target, body: browser, cookies: true, header: header, status: 403})
	}
	d.do(exchange{method: "POST", target: "/logout-all", cookies: true, header: elsewhere, status: 403, wrong: true})
	d.do(exchange{method: "POST", target: "/refresh", cookies: true, header: map[string]string{"Cookie": cookie}, status: 200})
	d.do(exchange{method: "POST", target: "/logout", cookies: true, header: map[string]string{"Cookie": cookie}, status: 204})
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	d.do(exchange{method: "POST", target: "/logout", body: "refresh_token=unknown", header: form, status: 204})
}
