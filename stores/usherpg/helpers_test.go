package usherpg_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/usherpg"
)

// connect returns a pool for the server at addr, with these changes to its configuration.
func connect(t testing.TB, addr string, change ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	c, err := pgxpool.ParseConfig(servers.DSN(addr))
	if err != nil {
		t.Fatal(err)
	}
	c.MaxConns = 16
	for _, f := range change {
		f(c)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// open returns the stores of a pool.
func open(t testing.TB, pool *pgxpool.Pool) *usherpg.Postgres {
	t.Helper()
	p, err := usherpg.Open(usherpg.Config{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// migrated returns a pool for a new server that is set up.
func migrated(t testing.TB) (*servers.Server, *pgxpool.Pool) {
	t.Helper()
	s := servers.Postgres(t)
	pool := connect(t, s.Addr)
	if err := usherpg.Migrate(t.Context(), usherpg.Config{Pool: pool}); err != nil {
		t.Fatal(err)
	}
	return s, pool
}
