package usherpg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/usher-go/usher"
)

var _ usher.Checker = (*Postgres)(nil)

// Check implements [usher.Checker]. It returns nil if all stores of p can be used.
func (p *Postgres) Check(ctx context.Context) error {
	return p.call(ctx, "check", func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error { return p.check(ctx, tx) })
	})
}

func (p *Postgres) check(ctx context.Context, tx pgx.Tx) error {
	var replica, readOnly bool
	var isolation string
	err := tx.QueryRow(ctx, `SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
		current_setting('transaction_isolation')`).Scan(&replica, &readOnly, &isolation)
	if err != nil {
		return err
	}
	switch {
	case replica:
		return &failure{kind: usher.ErrUnavailable, text: "the server is a replica, which cannot be written: connect to the primary, for instance with target_session_attrs=read-write"}
	case readOnly:
		return &failure{kind: usher.ErrUnavailable, text: "the database is read-only: set default_transaction_read_only of the server, the database and the role to off"}
	case isolation != "read committed":
		return &failure{kind: usher.ErrUnavailable, text: fmt.Sprintf("transactions are %s, in which concurrent calls fail: set default_transaction_isolation of the pool to read committed", isolation)}
	}
	s, err := versionOf(ctx, tx, p.schema)
	if err != nil {
		return err
	}
	if s.version < known {
		return &failure{kind: usher.ErrSchema, text: fmt.Sprintf("the schema %q has migration %d of %d: call usherpg.Migrate before the program serves", p.schema, s.version, known)}
	}
	return s.usable(p.schema)
}
