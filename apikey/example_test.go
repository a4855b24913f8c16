package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// An existing route accepts API keys.
func Example() {
	keys, err := apikey.Open(apikey.ManagerConfig{
		Store:  apikey.NewMemory(),
		Format: apikey.Native{Prefix: "shop", Environments: []string{"live", "test"}},
	}, apikey.Config{Environment: "live"})
	if err != nil {
		panic(err)
	}
	defer func() { _ = keys.Close() }()

	mux := http.NewServeMux()
	mux.Handle("GET /orders", usher.Authenticate(keys.Authenticator).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := usher.PrincipalFrom(r.Context())
		_, _ = fmt.Fprintf(w, "orders of %s, by %s", caller.Owner, caller.Name)
	})))

	_, secret, err := keys.Manager.Create(context.Background(), apikey.Actor{System: true}, apikey.Key{Owner: "ann", Name: "nightly export"})
	if err != nil {
		panic(err)
	}
	fmt.Println("logged:", secret)
	for _, key := range []string{secret.Reveal(), "shop_live_guess"} {
		r := httptest.NewRequest("GET", "/orders", nil)
		r.Header.Set("X-API-Key", key)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// logged: [redacted]
	// 200 orders of ann, by nightly export
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"detail":"The API key is not valid.","code":"invalid_api_key"}
}

// The first key of a new service, with which it creates all others, comes from its
// configuration. Every process imports it at every start; one of them adds it.
func ExampleManager_ImportText() {
	database := apikey.NewMemory() // stands for a database that all processes share
	format := apikey.Native{Prefix: "shop"}
	fromConfiguration := apikey.NewSecret("shop_7TtQvguemuk9NBYVmDBV3ovQHD2af4taSWk7ebIiCIP3IdEWO")

	start := func() error {
		keys, err := apikey.Open(apikey.ManagerConfig{Store: database, Format: format}, apikey.Config{})
		if err != nil {
			return err
		}
		defer func() { _ = keys.Close() }()
		first := apikey.Key{Owner: "ops", Name: "first key", Level: usher.LevelFull}
		k, err := keys.Manager.ImportText(context.Background(), apikey.Actor{System: true}, first, fromConfiguration)
		switch {
		case errors.Is(err, apikey.ErrConflict):
			fmt.Println("the key is there")
		case err != nil:
			return err
		default:
			fmt.Println("added", k.Prefix+"..."+k.LastFour)
		}
		return nil
	}
	for range 2 {
		if err := start(); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// added shop_7TtQ...dEWO
	// the key is there
}

// The mistake is a second Manager over the store behind the Cache: the Cache does not see
// its revocation, and keeps the key until its TTL ends. (A store that is a Notifier would
// notify it.)
func ExampleCache_incorrect() {
	format := apikey.Native{Prefix: "shop"}
	store := struct{ apikey.Store }{apikey.NewMemory()} // not a Notifier
	cache, err := apikey.NewCache(apikey.CacheConfig{Store: store})
	if err != nil {
		panic(err)
	}
	defer func() { _ = cache.Close() }()
	keys, err := apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}) // want Store: cache
	if err != nil {
		panic(err)
	}
	verified, err := apikey.NewManager(apikey.ManagerConfig{Store: cache, Formats: []apikey.Format{format}})
	if err != nil {
		panic(err)
	}
	auth, err := apikey.New(apikey.Config{Manager: verified}) // want Manager: keys
	if err != nil {
		panic(err)
	}
	defer func() { _ = auth.Close() }()

	ctx := context.Background()
	k, secret, err := keys.Create(ctx, apikey.Actor{System: true}, apikey.Key{Owner: "ann", Name: "x"})
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-API-Key", secret.Reveal())
	_, before := auth.Authenticate(r)
	if _, err := keys.Revoke(ctx, apikey.Actor{System: true}, "ann", k.ID); err != nil {
		panic(err)
	}
	_, after := auth.Authenticate(r)
	fmt.Println("valid:", before == nil, "- still valid when revoked:", after == nil)
	// Output: valid: true - still valid when revoked: true
}

// A revocation through the Cache takes effect at once.
func ExampleCache() {
	cache, err := apikey.NewCache(apikey.CacheConfig{Store: apikey.NewMemory()})
	if err != nil {
		panic(err)
	}
	defer func() { _ = cache.Close() }()
	keys, err := apikey.NewManager(apikey.ManagerConfig{Store: cache, Format: apikey.Native{Prefix: "shop"}})
	if err != nil {
		panic(err)
	}
	auth, err := apikey.New(apikey.Config{Manager: keys})
	if err != nil {
		panic(err)
	}
	defer func() { _ = auth.Close() }()

	ctx := context.Background()
	k, secret, err := keys.Create(ctx, apikey.Actor{System: true}, apikey.Key{Owner: "ann", Name: "x"})
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-API-Key", secret.Reveal())
	_, before := auth.Authenticate(r)
	if _, err := keys.Revoke(ctx, apikey.Actor{System: true}, "ann", k.ID); err != nil {
		panic(err)
	}
	_, after := auth.Authenticate(r)
	fmt.Println(before == nil, errors.Is(after, apikey.Revoked))
	// Output: true true
}

// People manage their keys behind the server's own session.
func ExampleNewHandler() {
	keys, err := apikey.NewManager(apikey.ManagerConfig{
		Store:     apikey.NewMemory(),
		Format:    apikey.Native{Prefix: "shop"},
		MaxActive: 5,
	})
	if err != nil {
		panic(err)
	}
	handler, err := apikey.NewHandler(apikey.HandlerConfig{
		Manager: keys,
		// Here each person has an account and may do everything with its keys.
		IDIsOwner: []usher.Kind{usher.KindJWT},
		Level:     usher.LevelFull,
	})
	if err != nil {
		panic(err)
	}
	session := func(next http.Handler) http.Handler { // in place of the server's own
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, usher.WithPrincipal(r, &usher.Principal{ID: "ann", Kind: usher.KindJWT}))
		})
	}
	api := session(http.StripPrefix("/api-keys", handler))
	mux := http.NewServeMux()
	mux.Handle("/api-keys", api)
	mux.Handle("/api-keys/", api)

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/api-keys", nil))
	fmt.Println(w.Code, w.Body)
	w = httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("DELETE", "/api-keys/unknown", nil))
	fmt.Println(w.Code, w.Body)
	// Output:
	// 200 []
	// 404 {"type":"about:blank","title":"Not Found","status":404,"detail":"API key not found.","code":"api_key_not_found"}
}
