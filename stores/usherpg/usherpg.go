package usherpg

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
)

// A Config determines where usher keeps its data.
type Config struct {
	// Pool has the connections. It is required, and remains the caller's: this package
	// never closes it. Its MaxConns bounds how many calls run at a time; other calls wait
	// for a connection until their contexts end.
	Pool *pgxpool.Pool
	// Schema is the schema for the tables and functions of usher, and for nothing else.
	// Several schemas of one database are as independent as several databases. Empty
	// means "usher".
	Schema string
}

// A Postgres has the stores of a database that [Migrate] has set up. It is safe for
// concurrent use and starts no goroutine.
type Postgres struct {
	store
	pool   *pgxpool.Pool
	schema string
	clock  func() time.Time // by which limits are decided in tests; nil for that of the server

	limits      *limits
	records     *records
	sqlRecords  *sqlRecords
	keys        *keys
	sessions    *sessions
	revocations *revocations
}

// Open returns the stores of a database. It does not connect, so a program can start
// before its database does: [Postgres.Check] reports whether the database can be used.
// Open reports every fault of c at once, each as a [*usher.ConfigError].
func Open(c Config) (*Postgres, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	p := &Postgres{store: newStore(context.Background()), pool: c.Pool, schema: c.schema()}
	p.limits, p.records = newLimits(p), newRecords(p)
	p.sqlRecords = &sqlRecords{newRecords(p)}
	p.keys, p.sessions, p.revocations = newKeys(p), newSessions(p), newRevocations(p)
	return p, nil
}

// check returns the faults of c.
func (c *Config) check() error {
	var faults []error
	if c.Pool == nil {
		faults = append(faults, &usher.ConfigError{Field: "usherpg.Config.Pool", Reason: "is required"})
	}
	switch name := c.schema(); {
	case len(name) > maxName || strings.ContainsRune(name, 0):
		faults = append(faults, &usher.ConfigError{Field: "usherpg.Config.Schema", Reason: "must have at most 63 bytes, none of them 0"})
	case strings.HasPrefix(name, "pg_") || name == "information_schema":
		faults = append(faults, &usher.ConfigError{Field: "usherpg.Config.Schema", Reason: "must not be a schema of PostgreSQL itself"})
	}
	return errors.Join(faults...)
}

// maxName is the length to which PostgreSQL cuts longer names.
const maxName = 63

func (c *Config) schema() string {
	if c.Schema == "" {
		return "usher"
	}
	return c.Schema
}

// now returns the argument that sets the clock of a function, in microseconds since 1970:
// null for the clock of the server.
func (p *Postgres) now() any {
	if p.clock == nil {
		return nil
	}
	return p.clock().UnixMicro()
}

// function returns the name of a function for use in SQL.
func (p *Postgres) function(name string) string {
	return pgx.Identifier{p.schema, name}.Sanitize()
}

// Limits returns the store of rate limits: the same one each time. Closing it leaves p and
// the other stores open.
func (p *Postgres) Limits() ratelimit.Store { return p.limits }

// Idempotency returns the store of idempotency keys: the same one each time. A handler that
// keeps its own data in the same database ends its claim in its own transaction, with FinishTx:
// its effect and the record of it are then stored together, or not at all. Closing the store
// leaves p and the other stores open.
func (p *Postgres) Idempotency() idempotency.TxStore[pgx.Tx] { return p.records }

// IdempotencySQL returns another store of the same keys as [Postgres.Idempotency], for handlers
// whose transactions are those of database/sql, or of a library over it.
func (p *Postgres) IdempotencySQL() idempotency.TxStore[SQLTx] { return p.sqlRecords }

// Keys returns the store of API keys: the same one each time. Each Watch has a connection
// besides those of the pool, and notices a change within a tenth of a second. Closing the store
// leaves p open.
func (p *Postgres) Keys() KeyStore { return p.keys }

// A KeyStore keeps API keys.
type KeyStore interface {
	apikey.Admin
	apikey.Notifier
}

// Sessions returns the store of sessions: the same one each time. Closing it leaves p open.
func (p *Postgres) Sessions() session.Store { return p.sessions }

// Revocations returns the list of revoked tokens, for a [jwtauth.RevocationMirror]. Each
// Follow has a connection besides those of the pool, and notices a revocation within a
// tenth of a second. It ends when p is closed.
func (p *Postgres) Revocations() jwtauth.RevocationSource { return p.revocations }

// Close closes p and all its stores: later calls return [usher.ErrClosed], and running
// calls end at once. It leaves the pool open. A second Close does nothing and returns nil.
func (p *Postgres) Close() error { return p.store.Close() }
