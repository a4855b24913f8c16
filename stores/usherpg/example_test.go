package usherpg_test

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherpg"
)

// keys authenticates the callers of the examples, to whom limits and idempotency keys belong.
var keys usher.Authenticator

// All processes of a service share the limits of callers and the keys of their requests.
func Example() {
	ctx := context.Background()
	pool := usher.Must(pgxpool.New(ctx, os.Getenv("DATABASE_URL")))
	config := usherpg.Config{Pool: pool}
	if err := usherpg.Migrate(ctx, config); err != nil {
		panic(err)
	}
	pg := usher.Must(usherpg.Open(config))
	limiter := usher.Must(ratelimit.New(ratelimit.Config{
		Store:    pg.Limits(),
		Policies: []ratelimit.Policy{ratelimit.PerPrincipal(100, time.Minute)},
	}))
	once := usher.Must(idempotency.New(idempotency.Config{Store: pg.Idempotency()}))

	mux := http.NewServeMux()
	mux.Handle("POST /orders", usher.Chain(usher.Authenticate(keys), limiter, once).Wrap(http.HandlerFunc(createOrder)))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := pg.Check(r.Context()); err != nil {
			http.Error(w, "the database cannot be used", http.StatusServiceUnavailable)
		}
	})
	_ = http.ListenAndServe("localhost:8080", mux)
}

func createOrder(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }

// A handler stores its order and the response to it in one transaction. Whatever crashes,
// and however often the client sends its request again, there is one order. The rollback is
// not deferred: when the handler returns, the transaction has yet to be committed.
func ExamplePostgres_Idempotency() {
	pool := usher.Must(pgxpool.New(context.Background(), os.Getenv("DATABASE_URL")))
	pg := usher.Must(usherpg.Open(usherpg.Config{Pool: pool}))
	records := pg.Idempotency()
	once := usher.Must(idempotency.New(idempotency.Config{Store: records}))

	create := func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		tx, err := pool.Begin(ctx)
		if err != nil {
			usher.Fail(w, r, err)
			return
		}
		rollback := func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }
		var order int
		if err := tx.QueryRow(ctx, "INSERT INTO orders DEFAULT VALUES RETURNING id").Scan(&order); err != nil {
			rollback()
			usher.Fail(w, r, err)
			return
		}
		err = idempotency.From(ctx).Commit(ctx, func(ctx context.Context, c idempotency.Completion) error {
			if _, err := records.FinishTx(ctx, tx, c); err != nil {
				return err
			}
			return tx.Commit(ctx)
		}, rollback)
		if err != nil { // of a request without a key
			usher.Fail(w, r, err)
			return
		}
		usher.Respond(w, r, usher.Reply{Status: http.StatusCreated, Data: map[string]int{"order": order}})
	}
	h := usher.Chain(usher.Authenticate(keys), once).Wrap(http.HandlerFunc(create))
	_ = http.ListenAndServe("localhost:8080", h)
}

// All processes of a service share its API keys. Each has a cache of its own, so most requests
// need no query, and a key that one process revokes is refused by the others a moment later.
func ExamplePostgres_Keys() {
	pool := usher.Must(pgxpool.New(context.Background(), os.Getenv("DATABASE_URL")))
	pg := usher.Must(usherpg.Open(usherpg.Config{Pool: pool}))
	keys := usher.Must(apikey.Open(apikey.ManagerConfig{
		Store:  pg.Keys(),
		Format: apikey.Native{Prefix: "shop"},
	}, apikey.Config{}))
	defer func() { _ = keys.Close() }()

	h := usher.Authenticate(keys.Authenticator).Wrap(http.HandlerFunc(createOrder))
	_ = http.ListenAndServe("localhost:8080", h)
}
