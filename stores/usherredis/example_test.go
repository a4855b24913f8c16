package usherredis_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherredis"
)

// All processes of a service share their limits and idempotency records.
func Example() {
	redis := usher.Must(usherredis.Open(usherredis.Config{
		URL:    "redis://user:password@redis.internal:6379/0",
		Prefix: "orders",
	}))
	defer func() { _ = redis.Close() }()

	limits := usher.Must(ratelimit.New(ratelimit.Config{
		Store:    redis.Limits(),
		Policies: []ratelimit.Policy{ratelimit.PerPrincipal(100, time.Minute)},
	}))
	retries := usher.Must(idempotency.New(idempotency.Config{Store: redis.Idempotency()}))

	orders := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	http.Handle("POST /orders", usher.Chain(limits, retries).Wrap(orders))
}

// A health check reports why the server cannot be used. It costs one round trip, so a
// service that is probed often checks from time to time.
func ExampleRedis_Check() {
	redis := usher.Must(usherredis.Open(usherredis.Config{URL: "redis://127.0.0.1:1", Prefix: "orders"}))
	defer func() { _ = redis.Close() }()

	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	fmt.Println(redis.Check(ctx))
	// Output:
	// usherredis: no connection to the server: the store is unavailable: dial tcp 127.0.0.1:1: connect: connection refused; start the Redis server, or correct Config.URL
}

// A client of one's own reaches a cluster, or a primary that Sentinel names.
func ExampleConfig_client() {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:      []string{"node1.internal:6379", "node2.internal:6379"},
		ConnWriteTimeout: time.Second,
		DisableCache:     true,
		AlwaysPipelining: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	redis := usher.Must(usherredis.Open(usherredis.Config{Client: client, Prefix: "orders"}))
	defer func() { _ = redis.Close() }()
}
