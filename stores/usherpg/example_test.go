package usherpg_test

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherpg"
)

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
	mux.Handle("POST /orders", usher.Chain(limiter, once).Wrap(http.HandlerFunc(createOrder)))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := pg.Check(r.Context()); err != nil {
			http.Error(w, "the database cannot be used", http.StatusServiceUnavailable)
		}
	})
	_ = http.ListenAndServe("localhost:8080", mux)
}

func createOrder(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }

// A handler stores its order and the response to it in one transaction. Whatever crashes,
// and however often the client sends its request again, there is one order.
func ExamplePostgres_Idempotency() {
	pool := usher.Must(pgxpool.New(context.Background(), os.Getenv("DATABASE_URL")))
	pg := usher.Must(usherpg.Open(usherpg.Config{Pool: pool}))
	records := pg.Idempotency()
	once := usher.Must(idempotency.New(idempotency.Config{Store: records}))

	create := func(w http.ResponseWriter, r *http.Request) {
		body := []byte(`{"status":"ordered"}`)
		w.Header().Set("Content-Type", "application/json")
		err := pgx.BeginFunc(r.Context(), pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(r.Context(), "INSERT INTO orders DEFAULT VALUES"); err != nil {
				return err
			}
			e := idempotency.From(r.Context())
			if e == nil {
				return nil // the request has no key
			}
			_, err := records.FinishTx(r.Context(), tx, e.Completion(http.StatusCreated, w.Header(), body))
			return err
		})
		if err != nil {
			usher.Fail(w, r, err)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	}
	_ = http.ListenAndServe("localhost:8080", once.Wrap(http.HandlerFunc(create)))
}
