package apikey_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/ratelimit"
)

// A service gives a job a key of its own, which may only read, has the limit of its own
// plan, and ends with the key of the customer or after ten minutes.
func ExampleManager_Derive() {
	ctx, system := context.Background(), apikey.Actor{System: true}
	keys, err := apikey.Open(apikey.ManagerConfig{
		Store:  apikey.NewMemory(),
		Format: apikey.Native{Prefix: "shop"},
	}, apikey.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = keys.Close() }()

	parent, parentText, _ := keys.Manager.Create(ctx, system, apikey.Key{
		Owner: "acme", Name: "production", Scopes: []string{"orders:read", "orders:write"}, Plan: "pro",
	})
	_, childText, err := keys.Manager.Derive(ctx, system, "acme", parent.ID, apikey.Key{
		Name: "nightly export", Scopes: []string{"orders:read"}, PlanOverride: "job",
		ExpiresAt: time.Now().Add(10 * time.Minute),
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	limiter, _ := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "key", Key: ratelimit.ByPrincipal(),
		Limit: ratelimit.RollingWindow(10, time.Minute),
		Plans: map[string]ratelimit.Limit{
			"pro": ratelimit.RollingWindow(600, time.Minute),
			"job": ratelimit.RollingWindow(60, time.Minute),
		},
	}}})
	server := usher.Chain(usher.Authenticate(keys.Authenticator), limiter).Wrap(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			p, _ := usher.PrincipalFrom(r.Context())
			fmt.Println(p.Name, p.Scopes)
		}))
	call := func(key apikey.Secret) {
		r := httptest.NewRequest(http.MethodGet, "/orders", nil)
		r.Header.Set("X-API-Key", key.Reveal())
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("RateLimit-Policy"))
	}
	call(parentText)
	call(childText)
	_, err = keys.Manager.Revoke(ctx, system, "acme", parent.ID)
	fmt.Println(err)
	call(childText)
	// Output:
	// production [orders:read orders:write]
	// 200 "key";q=600;w=60
	// nightly export [orders:read]
	// 200 "key";q=60;w=60
	// <nil>
	// 401
}
