// Readme is the program that stands in the README.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/ratelimit"
)

func main() {
	format := apikey.Native{Prefix: "shop", Environments: []string{"live"}}
	store := apikey.NewMemory()
	keys, err := apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format})
	check(err)
	auth, err := apikey.New(apikey.Config{Manager: keys})
	check(err)
	limits, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "second", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(10, time.Second)},
		{Name: "minute", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(60, time.Minute)},
	}})
	check(err)
	shape, err := envelope.New(envelope.Config{Wrap: true})
	check(err)

	_, secret, err := keys.Create(context.Background(), apikey.Actor{System: true}, apikey.Key{Owner: "acme", Name: "demo"})
	check(err)
	fmt.Printf("curl -i 127.0.0.1:8080/orders -H 'X-API-Key: %s'\n", secret.Reveal())

	mux := http.NewServeMux() // your server, as it is
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		caller, _ := usher.PrincipalFrom(r.Context())
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"account":%q}`, caller.Owner)
	})
	handler := usher.Chain(shape, usher.Authenticate(auth), limits).Wrap(mux)
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", handler))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
