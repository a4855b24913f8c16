package session_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// call sends a request to an example and returns the response.
func call(h http.Handler, method, path, body, accessToken string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if accessToken != "" {
		r.Header.Set("Authorization", "Bearer "+accessToken)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Log in, call with the access token, refresh, and log out.
func ExampleHandler() {
	manager, err := session.New(session.Config{Issuer: "https://shop.example", Audiences: []string{"https://api.shop.example"}})
	if err != nil {
		panic(err)
	}
	verifier, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{manager.TrustedIssuer()}})
	if err != nil {
		panic(err)
	}
	sessions, err := session.NewHandler(session.HandlerConfig{Manager: manager})
	if err != nil {
		panic(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		// ... check the password ...
		sessions.Login(w, r, session.Session{Subject: "ann", Scopes: []string{"orders"}})
	})
	mux.HandleFunc("POST /refresh", sessions.Refresh)
	mux.HandleFunc("POST /logout", sessions.Logout)
	mux.HandleFunc("/.well-known/jwks.json", manager.ServeJWKS)
	mux.Handle("GET /orders", usher.Authenticate(verifier).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		fmt.Fprint(w, "orders of ", p.ID, " ", p.Scopes)
	})))

	var tokens struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	read := func(w *httptest.ResponseRecorder) int {
		_ = json.Unmarshal(w.Body.Bytes(), &tokens)
		return w.Code
	}
	fmt.Println("login", read(call(mux, "POST", "/login", "", "")))
	fmt.Println(call(mux, "GET", "/orders", "", tokens.AccessToken).Body)
	fmt.Println("refresh", read(call(mux, "POST", "/refresh", `{"refresh_token":"`+tokens.RefreshToken+`"}`, "")))
	fmt.Println("logout", call(mux, "POST", "/logout", `{"refresh_token":"`+tokens.RefreshToken+`"}`, "").Code)
	fmt.Println("orders", call(mux, "GET", "/orders", "", tokens.AccessToken).Code)
	fmt.Println("refresh", call(mux, "POST", "/refresh", `{"refresh_token":"`+tokens.RefreshToken+`"}`, "").Code)
	// Output:
	// login 200
	// orders of https://shop.example|ann [orders]
	// refresh 200
	// logout 204
	// orders 401
	// refresh 401
}

// A session belongs to an account. A claim carries the account to the principal's Owner,
// which usher.Require and ratelimit.ByOwner read.
func ExampleConfig_account() {
	manager := usher.Must(session.New(session.Config{
		Issuer:    "https://shop.example",
		Audiences: []string{"https://api.shop.example"},
		Claims: func(_ context.Context, s session.Session) (map[string]any, error) {
			return map[string]any{"account": s.Data["account"]}, nil // or from a database
		},
	}))
	verifier := usher.Must(jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{manager.TrustedIssuer()},
		Principal: func(t *jwtauth.Token, p usher.Principal) usher.Principal {
			var claims struct {
				Account string `json:"account"`
			}
			if err := t.Claims(&claims); err == nil {
				p.Owner = claims.Account // without an Owner, Require admits it to no account
			}
			return p
		},
	}))
	own := usher.Require(usher.Requirement{Owner: func(r *http.Request) string { return r.PathValue("account") }})
	mux := http.NewServeMux()
	mux.Handle("GET /{account}/orders", usher.Chain(usher.Authenticate(verifier), own).Wrap(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "orders") })))

	tokens, err := manager.Login(context.Background(), session.Session{
		Subject: "ann", Data: map[string]string{"account": "acme"},
	})
	if err != nil {
		panic(err)
	}
	for _, account := range []string{"acme", "other"} {
		fmt.Println(account, call(mux, "GET", "/"+account+"/orders", "", tokens.AccessToken()).Code)
	}
	// Output:
	// acme 200
	// other 404
}

// A site keeps both tokens in cookies. A Verifier takes the access token from its cookie, and
// pages of other origins cannot make the browser change anything with it.
func ExampleCookie() {
	manager := must(session.New(session.Config{Issuer: "notes", Audiences: []string{"notes"}}))
	sessions := must(session.NewHandler(session.HandlerConfig{
		Manager:       manager,
		AccessCookie:  &session.Cookie{Name: "__Host-token", SameSite: http.SameSiteLaxMode},
		RefreshCookie: &session.Cookie{Path: "/session"},
	}))
	verifier := must(jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{manager.TrustedIssuer()},
		Cookie:  "__Host-token",
	}))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		// ... check the password ...
		sessions.Login(w, r, session.Session{Subject: "ann", Data: map[string]string{"device": r.UserAgent()}})
	})
	mux.HandleFunc("POST /session/refresh", sessions.Refresh)
	mux.HandleFunc("POST /session/logout", sessions.Logout)
	mux.Handle("DELETE /devices/{id}", usher.Authenticate(verifier).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := usher.PrincipalFrom(r.Context())
		token := caller.Details.(*jwtauth.Token) //nolint:forcetypeassert // A Verifier has authenticated the caller.
		_, err := manager.Logout(r.Context(), token.Subject, r.PathValue("id"))
		switch {
		case errors.Is(err, session.ErrNotFound):
			usher.NotFound(w, r)
		case err != nil:
			usher.Fail(w, r, err)
		default:
			usher.Respond(w, r, usher.Reply{})
		}
	})))

	login := call(mux, "POST", "/login", "", "")
	for _, cookie := range login.Result().Cookies() {
		fmt.Println(cookie.Name, cookie.Path)
	}
	id := must(manager.Sessions(context.Background(), "ann"))[0].ID
	for _, tt := range []struct{ path, origin string }{
		{"/devices/" + id, "https://other.example"},
		{"/devices/of-somebody-else", "https://example.com"},
		{"/devices/" + id, "https://example.com"},
		{"/devices/" + id, "https://example.com"},
	} {
		r := httptest.NewRequest("DELETE", tt.path, nil) // to the host example.com
		r.Header.Set("Origin", tt.origin)
		for _, cookie := range login.Result().Cookies() {
			r.AddCookie(cookie)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// __Secure-refresh_token /session
	// __Host-token /
	// 403
	// 404
	// 204
	// 401
}

// The response of a service whose pages keep the refresh token in a cookie.
func ExampleHandlerConfig() {
	manager := must(session.New(session.Config{Issuer: "https://shop.example", Audiences: []string{"https://api.shop.example"}}))
	sessions, err := session.NewHandler(session.HandlerConfig{
		Manager:        manager,
		RefreshCookie:  &session.Cookie{},
		TrustedOrigins: []string{"https://www.shop.example"},
		TokensView: func(t session.Tokens) any {
			return map[string]any{"access_token": "(" + fmt.Sprint(len(strings.Split(t.AccessToken(), "."))) + " parts)"}
		},
	})
	if err != nil {
		panic(err)
	}
	w := call(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sessions.Login(w, r, session.Session{Subject: "ann"})
	}), "POST", "/login", "", "")
	cookie := w.Result().Cookies()[0]
	fmt.Println(w.Body)
	fmt.Println(cookie.Name, cookie.HttpOnly, cookie.Secure, cookie.MaxAge)
	// Output:
	// {"access_token":"(3 parts)"}
	// __Host-refresh_token true true 604800
}

// The next key is published at once and signs from its From on. The tokens of its
// predecessor are valid until they expire.
func ExampleSigningKey() {
	key := func(id string) *jwk.Key {
		_, private, _ := ed25519.GenerateKey(rand.Reader) // from a secret manager
		return must(jwk.New(jwk.KeyConfig{ID: id, Algorithm: jwk.EdDSA, Material: private}))
	}
	manager, err := session.New(session.Config{
		Issuer:    "https://shop.example",
		Audiences: []string{"https://api.shop.example"},
		Keys: []session.SigningKey{
			{Key: key("2026-11")},
			{Key: key("2026-12"), From: time.Now().Add(time.Hour)},
		},
	})
	if err != nil {
		panic(err)
	}
	w := call(http.HandlerFunc(manager.ServeJWKS), "GET", "/", "", "")
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		}
	}
	_ = json.Unmarshal(w.Body.Bytes(), &set)
	fmt.Println(set.Keys)
	// Output: [{2026-11} {2026-12}]
}

// The mistake is to refresh before each call, not when the access token expires, and to
// do so in two places, each with a refresh token of its own. The second place uses a
// token that has since been exchanged twice, which looks like theft.
func ExampleManager_Refresh_incorrect() {
	manager := must(session.New(session.Config{
		Issuer: "https://shop.example", Audiences: []string{"https://api.shop.example"},
		Grace: -1, // or the uses are further apart than the grace
	}))
	login, _ := manager.Login(context.Background(), session.Session{Subject: "ann"})

	one, _ := manager.Refresh(context.Background(), session.RefreshRequest{Token: login.RefreshToken()})
	two, _ := manager.Refresh(context.Background(), session.RefreshRequest{Token: one.RefreshToken()})
	_, err := manager.Refresh(context.Background(), session.RefreshRequest{Token: login.RefreshToken()}) // from the other place
	fmt.Println(err)
	_, err = manager.Refresh(context.Background(), session.RefreshRequest{Token: two.RefreshToken()})
	fmt.Println(err)
	// Output:
	// session: the refresh token is not valid: reused
	// session: the refresh token is not valid: revoked
}

// An OAuth server introspects and revokes refresh tokens for its clients, and issues access
// tokens with fewer scopes.
func ExampleManager_FindByToken() {
	manager, err := session.New(session.Config{Issuer: "https://shop.example", Audiences: []string{"https://api.shop.example"}})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	login, err := manager.Login(ctx, session.Session{Subject: "ann", Client: "web", Scopes: []string{"orders", "invoices"}})
	if err != nil {
		panic(err)
	}
	// POST /token, of a client that has authenticated as web
	tokens, err := manager.Refresh(ctx, session.RefreshRequest{Token: login.RefreshToken(), Scopes: []string{"orders"}, Client: "web"})
	fmt.Println(tokens.Scopes, err)
	// POST /introspect: the token is active if there is no error, and if it is this client's.
	s, err := manager.FindByToken(ctx, tokens.RefreshToken())
	fmt.Println(s.Client, s.Scopes, err)
	// POST /revoke
	_, err = manager.LogoutByToken(ctx, tokens.RefreshToken())
	fmt.Println(err)
	_, err = manager.FindByToken(ctx, tokens.RefreshToken())
	fmt.Println(errors.Is(err, session.ErrInvalidRefreshToken))
	// Output:
	// [orders] <nil>
	// web [orders invoices] <nil>
	// <nil>
	// true
}

// Users see where they are logged in, and end one device.
func ExampleManager_Sessions() {
	manager := must(session.New(session.Config{Issuer: "notes", Audiences: []string{"notes"}}))
	ctx := context.Background()
	for _, device := range []string{"laptop", "phone"} {
		must(manager.Login(ctx, session.Session{Subject: "ann", Data: map[string]string{"device": device}}))
	}
	show := func() {
		var names []string
		for _, s := range must(manager.Sessions(ctx, "ann")) {
			names = append(names, s.Data["device"])
		}
		fmt.Println(names)
	}
	show()
	// The ID is from the page that shows the list. If it is not one of Ann's sessions, the
	// error is session.ErrNotFound.
	id := must(manager.Sessions(ctx, "ann"))[0].ID
	must(manager.Logout(ctx, "ann", id))
	show()
	// Output:
	// [phone laptop]
	// [laptop]
}
