package usher_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/ushertest"
)

// Authorization may carry a key or a token, and other places may carry each of them too:
// two credentials in one request are refused, wherever they are.
func TestAKeyAndATokenInOneRequest(t *testing.T) {
	format, store := apikey.Native{Prefix: "shop", Environments: []string{"live"}}, apikey.NewMemory()
	manager := usher.Must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}))
	keys := usher.Must(apikey.New(apikey.Config{Manager: manager, Carriers: []apikey.Carrier{
		{Header: "X-API-Key"}, {Scheme: "Bearer"}, {DangerousQueryParameter: "key"},
	}}))
	defer func() { _ = keys.Close() }()
	_, secret, err := manager.Create(t.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "acme", Name: "key", Level: usher.LevelFull})
	if err != nil {
		t.Fatal(err)
	}
	issuer := ushertest.NewIssuer(t, "https://issuer.example")
	tokens := usher.Must(jwtauth.New(jwtauth.Config{Cookie: "session", Issuers: []jwtauth.TrustedIssuer{{
		Issuer: "https://issuer.example", Audiences: []string{"notes"},
		Algorithms: []jwk.Algorithm{jwk.ES256},
		Keys:       jwk.Static{usher.Must(jwk.New(jwk.KeyConfig{ID: "ushertest", Algorithm: jwk.ES256, Material: issuer.PublicKey()}))},
	}}}))

	key := secret.Reveal()
	token := issuer.Token(map[string]any{"sub": "ann", "aud": "notes"})
	type place struct {
		field, prefix string
		query         bool
	}
	keyPlaces := map[string]place{
		"key in X-API-Key": {field: "X-API-Key"}, "key in Authorization": {field: "Authorization", prefix: "Bearer "}, "key in the query": {query: true},
	}
	tokenPlaces := map[string]place{"token in Authorization": {field: "Authorization", prefix: "Bearer "}, "token in a cookie": {field: "Cookie", prefix: "session="}}
	put := func(r *http.Request, p place, credential string) {
		if p.query {
			r.URL.RawQuery = "key=" + credential
			return
		}
		r.Header.Add(p.field, p.prefix+credential)
	}

	for order, authenticators := range map[string][]usher.Authenticator{"keys first": {keys, tokens}, "tokens first": {tokens, keys}} {
		served := 0
		server := httptest.NewServer(usher.Authenticate(authenticators...).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ })))
		send := func(t *testing.T, first, second place, credentials ...string) int {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range []place{first, second}[:len(credentials)] {
				put(r, p, credentials[i])
			}
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			return resp.StatusCode
		}
		for _, k := range slices.Sorted(maps.Keys(keyPlaces)) {
			equal(t, order+": "+k, http.StatusOK, send(t, keyPlaces[k], place{}, key))
			for _, tk := range slices.Sorted(maps.Keys(tokenPlaces)) {
				equal(t, order+": "+tk, http.StatusOK, send(t, tokenPlaces[tk], place{}, token))
				before := served
				for _, credentials := range [][]string{{key, token}, {"bad", token}, {key, "bad"}} {
					equal(t, order+": "+k+" and "+tk, http.StatusUnauthorized, send(t, keyPlaces[k], tokenPlaces[tk], credentials...))
				}
				equal(t, order+": served with a "+k+" and a "+tk, before, served)
			}
		}
		server.Close()
	}

	// Precedence lets the first that finds a credential decide, and one that has found two in
	// its own carriers refuses.
	for name, test := range map[string]struct {
		order []usher.Authenticator
		want  int
	}{
		"keys precede": {[]usher.Authenticator{keys, tokens}, http.StatusUnauthorized}, "tokens precede": {[]usher.Authenticator{tokens, keys}, http.StatusOK},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		put(r, keyPlaces["key in X-API-Key"], key)
		put(r, tokenPlaces["token in Authorization"], token)
		w := httptest.NewRecorder()
		usher.Authenticate(usher.Precedence(test.order...)).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		equal(t, name, test.want, w.Code)
	}
}
