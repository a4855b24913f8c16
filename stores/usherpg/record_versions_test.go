package usherpg_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/internal/nodes"
	"github.com/usher-go/usher/stores/usherpg"
)

// olderRecords calls the functions of the version before Find and Delete.
type olderRecords struct{ pool *pgxpool.Pool }

func (s olderRecords) Claim(ctx context.Context, c idempotency.Claim) (r idempotency.Record, err error) {
	var generation, lease int64
	var fingerprint []byte
	err = s.pool.QueryRow(ctx, "SELECT state, won, generation, fingerprint, lease, status, payload FROM usher.claim_v1($1, $2, $3, $4, $5, $6)",
		c.Key.Owner[:], c.Key.Name[:], c.Token[:], c.Fingerprint[:], c.Lease.Microseconds(), c.TTL.Microseconds()).
		Scan(&r.State, &r.Won, &generation, &fingerprint, &lease, &r.Status, &r.Payload)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, idempotency.ErrLost
	}
	r.Generation, r.Lease = uint64(generation), time.Duration(lease)*time.Microsecond //nolint:gosec // It is positive.
	copy(r.Fingerprint[:], fingerprint)
	return r, err
}

func (s olderRecords) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) (lost []idempotency.ClaimID, err error) {
	var owners, names, tokens [][]byte
	for _, c := range claims {
		owners, names, tokens = append(owners, c.Key.Owner[:]), append(names, c.Key.Name[:]), append(tokens, c.Token[:])
	}
	rows, err := s.pool.Query(ctx, "SELECT usher.renew_claims_v1($1, $2, $3, $4)", owners, names, tokens, lease.Microseconds())
	if err != nil {
		return nil, err
	}
	positions, err := pgx.CollectRows(rows, pgx.RowTo[int])
	for _, i := range positions {
		lost = append(lost, claims[i-1])
	}
	return lost, err
}

func (s olderRecords) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	r := &c.Result
	var kept *int16
	err := s.pool.QueryRow(ctx, "SELECT usher.finish_v1($1, $2, $3, $4, $5, $6, $7)",
		c.Key.Owner[:], c.Key.Name[:], c.Token[:], int16(r.State), r.Status, r.Payload, r.TTL.Microseconds()).Scan(&kept)
	switch {
	case err != nil:
		return 0, err
	case kept == nil:
		return 0, idempotency.ErrLost
	}
	return idempotency.State(*kept), nil //nolint:gosec // It is a State.
}

// While a service is deployed, programs of two versions share its records. The newer one
// migrates the schema while the older one serves.
func TestProgramsOfTwoVersionsShareRecords(t *testing.T) {
	pool := connect(t, servers.Postgres(t).Addr)
	migrateTo(t, pool, 10)
	older := olderRecords{pool}
	before := claim()
	if r, err := older.Claim(t.Context(), before); err != nil || !r.Won {
		t.Fatalf("Claim before the migration: %+v, %v", r, err)
	}
	if err := usherpg.Migrate(t.Context(), usherpg.Config{Pool: pool}); err != nil {
		t.Fatal(err)
	}
	newer := open(t, pool).Idempotency()
	if r, err := newer.Find(t.Context(), before.Key); err != nil || r.State != idempotency.StateClaimed {
		t.Errorf("Find after the migration: %+v, %v", r, err)
	}
	if kept, err := older.Finish(t.Context(), done(before, "a response")); err != nil || kept != idempotency.StateDone {
		t.Errorf("Finish after the migration: kept %d, %v", kept, err)
	}
	nodes.TestRecords(t, older, newer)
}

// migrateTo sets the schema up as an earlier version of this package has.
func migrateTo(t *testing.T, pool *pgxpool.Pool, version int) {
	t.Helper()
	files, err := usherpg.Migrations.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, pool, "CREATE SCHEMA usher")
	for _, file := range files[:version] {
		sql, err := usherpg.Migrations.ReadFile("migrations/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SET LOCAL search_path TO usher, pg_temp"); err != nil {
				return err
			}
			return tx.Conn().PgConn().Exec(t.Context(), string(sql)).Close()
		})
		if err != nil {
			t.Fatalf("%s: %v", file.Name(), err)
		}
	}
}
