package usher_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
)

// A whole server behind a proxy that terminates TLS. The API keys of programs and the
// sessions of people give access to the same routes, and each caller stays within its own
// account.
func Example_server() {
	mux := http.NewServeMux()

	// Who calls: a key has an owner, and a session gets one from a claim.
	keys := usher.Must(apikey.Open(apikey.ManagerConfig{
		Store:  apikey.NewMemory(),
		Format: apikey.Native{Prefix: "notes", Environments: []string{"live"}},
	}, apikey.Config{}))
	defer func() { _ = keys.Close() }()
	people := usher.Must(session.New(session.Config{
		Issuer:    "notes",
		Audiences: []string{"notes"},
		Claims: func(_ context.Context, s session.Session) (map[string]any, error) {
			return map[string]any{"account": s.Data["account"]}, nil
		},
	}))
	tokens := usher.Must(jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{people.TrustedIssuer()},
		Principal: func(t *jwtauth.Token, p usher.Principal) usher.Principal {
			var claims struct {
				Account string `json:"account"`
			}
			if err := t.Claims(&claims); err == nil {
				p.Owner = claims.Account
			}
			return p
		},
	}))
	auth := usher.Authenticate(keys.Authenticator, tokens)

	// What they may do, how often, and what happens to a retry.
	account := func(r *http.Request) string { return r.PathValue("account") }
	read := usher.Require(usher.Requirement{Scopes: []string{"notes:read"}, Owner: account})
	write := usher.Require(usher.Requirement{Scopes: []string{"notes:write"}, Owner: account})
	addresses := usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{ratelimit.PerAddress(300, time.Minute)},
	}))
	calls := usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{ratelimit.PerPrincipal(60, time.Minute)},
	}))
	writes := usher.Must(calls.With(ratelimit.Policy{
		Name: "writes", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(2, time.Minute),
	}))
	once := usher.Must(idempotency.New(idempotency.Config{}))

	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "up") })
	mux.Handle("GET /accounts/{account}/notes", usher.Chain(auth, read, calls).Wrap(http.HandlerFunc(listNotes)))
	mux.Handle("POST /accounts/{account}/notes", usher.Chain(auth, write, writes, once).Wrap(http.HandlerFunc(createNote)))
	sessions := usher.Must(session.NewHandler(session.HandlerConfig{Manager: people}))
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		// ... check the password ...
		sessions.Login(w, r, session.Session{
			Subject: "ann", Scopes: []string{"notes:read"}, Data: map[string]string{"account": "acme"},
		})
	})
	mux.HandleFunc("POST /refresh", sessions.Refresh)
	mux.HandleFunc("POST /logout", sessions.Logout)

	// What every request passes through. Health checks do not come through the proxy.
	env := usher.Must(envelope.New(envelope.Config{Shape: envelope.Data(), Wrap: true}))
	ips := usher.Must(clientip.New(clientip.Config{TrustedProxies: []string{"10.0.0.0/8"}}))
	isHealth := func(r *http.Request) bool { return r.Pattern == "GET /healthz" }
	server := usher.Chain(
		usher.Pattern(mux),
		env,
		ips,
		usher.Unless(isHealth, usher.Chain(clientip.RequireTLS(), addresses, usher.Deadline(10*time.Second, nil))),
	).Wrap(mux) // http.ListenAndServe(addr, server)

	_, secret, err := keys.Manager.Create(context.Background(), apikey.Actor{System: true}, apikey.Key{
		Owner: "acme", Name: "nightly import", Scopes: []string{"notes:write"},
	})
	if err != nil {
		panic(err)
	}
	key := []string{"X-Forwarded-Proto", "https", "X-API-Key", secret.Reveal(), "Idempotency-Key", "k-1"}
	call(server, "GET", "/healthz")
	call(server, "GET", "/accounts/acme/notes")
	call(server, "GET", "/accounts/acme/notes", "X-Forwarded-Proto", "https")
	call(server, "POST", "/accounts/acme/notes", key...)
	call(server, "POST", "/accounts/acme/notes", key...) // a retry
	call(server, "POST", "/accounts/acme/notes", key...) // over the limit of writes
	call(server, "POST", "/accounts/other/notes", key...)
	call(server, "GET", "/accounts/acme/notes", key...)

	var login struct {
		Data struct {
			AccessToken string `json:"access_token"`
		}
	}
	if err := json.Unmarshal(send(server, "POST", "/login", "X-Forwarded-Proto", "https").Body.Bytes(), &login); err != nil {
		panic(err)
	}
	ann := []string{"X-Forwarded-Proto", "https", "Authorization", "Bearer " + login.Data.AccessToken}
	call(server, "GET", "/accounts/acme/notes", ann...)
	call(server, "GET", "/accounts/other/notes", ann...)
	// Output:
	// GET /healthz 200 up
	// GET /accounts/acme/notes 403 {"error":{"code":"tls_required","message":"The request must be sent over TLS."}}
	// GET /accounts/acme/notes 401 {"error":{"code":"missing_credential","message":"The request carries no credential."}}
	// POST /accounts/acme/notes 201 {"data":{"note":1}}
	// POST /accounts/acme/notes 201 {"data":{"note":1}}
	// POST /accounts/acme/notes 429 {"error":{"code":"rate_limited","message":"Rate limit exceeded.","details":{"violated-policies":["writes"]},"retry_after":60},"retry_after":60}
	// POST /accounts/other/notes 404 {"error":{"code":"not_found","message":"Not Found"}}
	// GET /accounts/acme/notes 403 {"error":{"code":"insufficient_scope","message":"The credential lacks a scope that is needed here."}}
	// GET /accounts/acme/notes 200 {"data":["milk"]}
	// GET /accounts/other/notes 404 {"error":{"code":"not_found","message":"Not Found"}}
}

// The handlers are those that the service had before.

func listNotes(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `["milk"]`)
}

func createNote(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, `{"note":1}`)
}

// send returns the response of h to a request that comes through the proxy.
func send(h http.Handler, method, path string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(`{"text":"milk"}`))
	r.RemoteAddr = "10.0.0.1:4000"
	r.Header.Set("X-Forwarded-For", "198.51.100.7")
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func call(h http.Handler, method, path string, fields ...string) {
	w := send(h, method, path, fields...)
	fmt.Println(method, path, w.Code, w.Body)
}
