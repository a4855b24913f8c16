// Readme is the program in the README.
package main

import (
	"context"
	"fmt"
	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/ratelimit"
	"net/http"
	"time"
)

func main() {
	keys := usher.Must(apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: apikey.Native{Prefix: "shop"}}))
	auth := usher.Authenticate(usher.Must(apikey.New(apikey.Config{Manager: keys})))
	limit := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerPrincipal(10, time.Second)}}))
	_, secret, err := keys.Create(context.Background(), apikey.Actor{System: true}, apikey.Key{Owner: "acme", Name: "demo"})
	fmt.Println("X-API-Key:", usher.Must(secret, err).Reveal())
	panic(http.ListenAndServe("127.0.0.1:8080", usher.Chain(auth, limit).Wrap(http.FileServer(http.Dir(".")))))
}
