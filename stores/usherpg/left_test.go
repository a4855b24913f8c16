package usherpg_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/servers"
)

// A handler fails with what its driver returns if the context of a query has ended.
func TestFailKnowsWhyAQueryHasStopped(t *testing.T) {
	s := servers.Postgres(t)
	pool := connect(t, s.Addr)
	canceling := connect(t, s.Addr, func(c *pgxpool.Config) {
		c.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Minute}
		}
	})
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()

	const query = "select pg_sleep(60)"
	for name, run := range map[string]func(context.Context) error{
		"pgx": func(ctx context.Context) error {
			_, err := pool.Exec(ctx, query)
			return err
		},
		"pgx that cancels queries": func(ctx context.Context) error {
			_, err := canceling.Exec(ctx, query)
			return err
		},
		"database/sql": func(ctx context.Context) error {
			_, err := db.ExecContext(ctx, query)
			return err
		},
	} {
		fail := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, run(r.Context())) })
		respond := func(ctx context.Context) int {
			w := httptest.NewRecorder()
			fail(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
			return w.Code
		}
		t.Run(name+", a client that leaves", func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			status := make(chan int, 1)
			go func() { status <- respond(ctx) }()
			for count(t, pool, "select count(*) from pg_stat_activity where state = 'active' and query = '"+query+"'") == 0 {
				time.Sleep(time.Millisecond)
			}
			leave()
			if got := <-status; got != usher.StatusClientClosedRequest {
				t.Errorf("status %d", got)
			}
		})
		t.Run(name+", a deadline", func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if status := respond(ctx); status != http.StatusGatewayTimeout {
				t.Errorf("status %d", status)
			}
		})
	}
}
