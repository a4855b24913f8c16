package usherpg

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/usher-go/usher"
)

// Migrations has the migrations that [Migrate] applies, for tools that apply migrations
// themselves. They name no schema: each must run in one transaction with the search_path
// set to the schema of usher alone.
//
//go:embed migrations
var Migrations embed.FS

// A migration is a numbered file.
type migration struct {
	version int
	sql     string
}

// migrations returns all migrations in the order of their versions, which are 1, 2, 3...
func migrations() ([]migration, error) {
	files, err := fs.Glob(Migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	all := make([]migration, len(files))
	for i, name := range files {
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("usherpg: %s is not migration %d", name, i+1)
		}
		b, err := Migrations.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all[i] = migration{version, string(b)}
	}
	return all, nil
}

// Migrate sets up the schema of usher, or brings it up to date. Any number of programs may
// call it at the same time, on every start. Programs of the previous version continue to
// work while it runs and afterwards. It returns [usher.ErrSchema] if a newer version has
// set up the schema in a way that this version cannot use.
//
// It needs the privilege to create objects in the schema, and to create the schema if there
// is none. Programs that connect as another role need USAGE on the schema, EXECUTE on its
// functions, and SELECT, INSERT, UPDATE and DELETE on its tables.
func Migrate(ctx context.Context, c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	all, err := migrations()
	if err != nil {
		return err
	}
	for _, m := range all {
		err := pgx.BeginFunc(ctx, c.Pool, func(tx pgx.Tx) error { return m.apply(ctx, tx, c.schema()) })
		if err != nil {
			return failed("migrate", err)
		}
	}
	return nil
}

// apply applies m, unless it was applied before.
func (m *migration) apply(ctx context.Context, tx pgx.Tx, schema string) error {
	// One program at a time: the others wait here, and then find the work done.
	_, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('usherpg:' || $1::text, 0))", schema)
	if err != nil {
		return err
	}
	at, err := versionOf(ctx, tx, schema)
	if err != nil {
		return err
	}
	if err := at.usable(schema); err != nil || at.version >= m.version {
		return err
	}
	quoted := pgx.Identifier{schema}.Sanitize()
	if !at.schema {
		if _, err := tx.Exec(ctx, "CREATE SCHEMA "+quoted); err != nil {
			return err
		}
	}
	// pg_temp must be last, or temporary objects would be found first.
	if _, err := tx.Exec(ctx, "SET LOCAL search_path TO "+quoted+", pg_temp"); err != nil {
		return err
	}
	// The simple protocol takes several statements at once.
	return tx.Conn().PgConn().Exec(ctx, m.sql).Close()
}

// A setup describes how a schema has been set up.
type setup struct {
	schema  bool // it exists
	version int  // the last migration; 0 for none
	serves  int  // the oldest program that can use it
}

// known is the last migration of this program.
const known = 15

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// versionOf returns the set-up of a schema.
func versionOf(ctx context.Context, db querier, schema string) (s setup, err error) {
	var migrated bool
	err = db.QueryRow(ctx, `SELECT to_regnamespace(quote_ident($1::text)) IS NOT NULL,
		to_regclass(quote_ident($1::text) || '.versions') IS NOT NULL`, schema).Scan(&s.schema, &migrated)
	if err != nil || !migrated {
		return s, err
	}
	table := pgx.Identifier{schema, "versions"}.Sanitize()
	err = db.QueryRow(ctx, "SELECT coalesce(max(version), 0), coalesce(max(serves), 0) FROM "+table).Scan(&s.version, &s.serves)
	return s, err
}

// usable returns an error if this program is too old for the schema.
func (s setup) usable(schema string) error {
	if s.serves <= known {
		return nil
	}
	return &failure{kind: usher.ErrSchema, text: fmt.Sprintf(
		"the schema %q was set up by version %d of usherpg, and this program has version %d: deploy a newer build of it",
		schema, s.version, known)}
}
