package session_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
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

// exampleIssuer is an issuer with everything that an example needs.
func exampleIssuer(change func(*session.Config)) *session.Manager {
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	key, _ := jwk.New(jwk.KeyConfig{ID: "2026-11", Algorithm: jwk.EdDSA, Material: private})
	store, _ := session.NewMemory(session.MemoryConfig{})
	c := session.Config{
		Issuer:    "https://shop.example",
		Audiences: []string{"https://api.shop.example"},
		Keys:      []session.SigningKey{{Key: key}},
		Store:     store,
	}
	if change != nil {
		change(&c)
	}
	issuer, err := session.New(c)
	if err != nil {
		panic(err)
	}
	return issuer
}

// call sends a request to an example and returns its answer.
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
	var revocations jwtauth.RevocationList
	issuer := exampleIssuer(func(c *session.Config) { c.Revocations = &revocations })
	verifier, err := jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer:     "https://shop.example",
			Audiences:  []string{"https://api.shop.example"},
			Algorithms: []jwk.Algorithm{jwk.EdDSA},
			Keys:       issuer, // in the same process; elsewhere it is a JWKS
			Profile:    jwtauth.ProfileSession,
		}},
		Revocations: &revocations,
	})
	if err != nil {
		panic(err)
	}
	sessions, err := session.NewHandler(session.HandlerConfig{Manager: issuer})
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
	mux.HandleFunc("GET /.well-known/jwks.json", issuer.ServeJWKS)
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

// The answer of a service whose pages keep the refresh token in a cookie.
func ExampleHandlerConfig() {
	issuer := exampleIssuer(nil)
	sessions, err := session.NewHandler(session.HandlerConfig{
		Manager:        issuer,
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

// The next key is published at once and signs from its time on; the tokens of its
// predecessor are good until they expire.
func ExampleSigningKey() {
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	next, err := jwk.New(jwk.KeyConfig{ID: "2026-12", Algorithm: jwk.EdDSA, Material: private})
	if err != nil {
		panic(err)
	}
	issuer := exampleIssuer(func(c *session.Config) {
		c.Keys = append(c.Keys, session.SigningKey{Key: next, From: time.Now().Add(time.Hour)})
	})
	w := call(http.HandlerFunc(issuer.ServeJWKS), "GET", "/", "", "")
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		}
	}
	_ = json.Unmarshal(w.Body.Bytes(), &set)
	fmt.Println(set.Keys)
	// Output: [{2026-11} {2026-12}]
}

// The mistake is to refresh before each call instead of when the access token
// ends, from two places, each with the token that it found: the second comes with
// one that was exchanged twice since, and that looks like theft.
func ExampleManager_Refresh_incorrect() {
	issuer := exampleIssuer(nil)
	login, _ := issuer.Login(context.Background(), session.Session{Subject: "ann"})

	one, _ := issuer.Refresh(context.Background(), login.RefreshToken())
	two, _ := issuer.Refresh(context.Background(), one.RefreshToken())
	_, err := issuer.Refresh(context.Background(), login.RefreshToken()) // from the other place
	fmt.Println(err)
	_, err = issuer.Refresh(context.Background(), two.RefreshToken())
	fmt.Println(err)
	// Output:
	// session: the refresh token is not valid: reused
	// session: the refresh token is not valid: revoked
}
