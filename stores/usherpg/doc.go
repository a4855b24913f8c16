// Package usherpg keeps rate limits, idempotency keys, API keys, sessions and revoked tokens
// in PostgreSQL, so that all processes of a service share them.
//
//	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
//	config := usherpg.Config{Pool: pool}
//	err = usherpg.Migrate(ctx, config) // on every start, by every process
//	pg, err := usherpg.Open(config)
//
//	limiter, err := ratelimit.New(ratelimit.Config{Store: pg.Limits(), Policies: policies})
//	once, err := idempotency.New(idempotency.Config{Store: pg.Idempotency()})
//	keys, err := apikey.Open(apikey.ManagerConfig{Store: pg.Keys(), Format: format}, apikey.Config{})
//	mirror, err := jwtauth.NewRevocationMirror(jwtauth.RevocationMirrorConfig{Source: pg.Revocations()})
//
// [Postgres.Check] belongs in the health check of the program.
//
// # Guarantees
//
//   - Each call is one statement and one round trip. It takes effect entirely or not at all,
//     by the clock of the server.
//   - A decision has exactly the results that a [ratelimit.Memory] would have at the same
//     instant. Concurrent decisions, in any order of their policies, wait for each other's
//     keys at most, and never deadlock.
//   - Records of idempotency keys survive a crash of the server. With FinishTx, the effect
//     of a handler that uses the same database and the record of it are stored together or
//     not at all, so that the effect happens exactly once.
//   - API keys, sessions and revocations survive a crash of the server too. Changes of API
//     keys take effect one after the other in the whole database, as do revocations. So code
//     that follows them gets each of them, in one order.
//   - A [apikey.Cache] and a [jwtauth.RevocationMirror] notice a change within a tenth of a
//     second, and a server that does not respond within one. Each of them has one connection
//     besides those of the pool, also behind PgBouncer.
//   - Limits are forgotten when the server crashes, or when a replica of it is promoted:
//     their tables are not logged, and have no index on what changes, which makes decisions
//     cheap. Every key then begins with its whole allowance.
//   - Every call ends with its context. Errors match those of package usher, and wrap the
//     error of PostgreSQL where there is one. None contains a part of the DSN. Data that
//     cannot be read is [usher.ErrCorrupt], never an allowance or a free key.
//   - Later calls remove expired rows, a few at a time, without waiting for other
//     transactions. There is no goroutine. API keys stay until [apikey.Manager.Purge]
//     removes them.
//   - Programs of one version and the next work side by side: the functions in the
//     database have versions in their names.
//
// A [ratelimit.TokenBucket] costs the least. A decision under a [ratelimit.RollingWindow]
// writes 16 bytes for each request in the window, so it suits quotas of up to a few
// hundred here.
//
// # The pool
//
// Transactions of the pool must be READ COMMITTED, which is the default of PostgreSQL.
// [Postgres.Check] reports another default. Behind PgBouncer in transaction mode, set
// DefaultQueryExecMode to pgx.QueryExecModeCacheDescribe or pgx.QueryExecModeExec. Set the
// parameter statement_timeout to somewhat more than the StoreTimeout of the middlewares.
// Then a statement that nobody waits for also ends if the request to cancel it is lost.
//
// By default pgx closes a connection when the context of a call ends. The first statements
// on a new connection take much longer than later ones, so a service that begins under load
// may close its connections before they are fast enough, again and again. Let the pool
// cancel the statement instead, which keeps the connection:
//
//	c, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
//	c.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
//		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
//	}
//	pool, err := pgxpool.NewWithConfig(ctx, c)
package usherpg
