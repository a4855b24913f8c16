// Readme is the program in the README.
package main

import (
	"context"
	"log"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/ratelimit"
)

func main() {
	issue := apikey.ManagerConfig{Store: apikey.NewMemory(), Format: apikey.Native{Prefix: "shop"}}
	keys := usher.Must(apikey.Open(issue, apikey.Config{}))
	auth := usher.Authenticate(keys.Authenticator)
	policies := []ratelimit.Policy{ratelimit.PerPrincipal(10, time.Second)}
	limit := usher.Must(ratelimit.New(ratelimit.Config{Policies: policies}))

	_, key, err := keys.Manager.Create(context.Background(), apikey.Actor{System: true}, apikey.Key{Owner: "acme", Name: "demo"})
	log.Print("X-API-Key: ", usher.Must(key, err).Reveal())
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", usher.Chain(auth, limit).Wrap(http.FileServer(http.Dir(".")))))
}
