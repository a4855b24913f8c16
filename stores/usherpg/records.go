package usherpg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// records is the store of idempotency keys. Its calls are implemented in
// migrations/0001_records.sql and 0011_operations.sql; each is one statement.
type records struct {
	store
	pg *Postgres

	claim, renew, finish, find, remove string // statements
}

var _ idempotency.TxStore[pgx.Tx] = (*records)(nil)

func newRecords(p *Postgres) *records {
	// The casts fix the types, even where the pool sends texts.
	return &records{
		store: newStore(p.open), pg: p,
		claim: "SELECT state, won, taken_over, generation, fingerprint, lease, status, payload FROM " + p.function("claim_v2") +
			"($1::bytea, $2::bytea, $3::bytea, $4::bytea, $5::bigint, $6::bigint, $7::boolean)",
		renew: "SELECT lost FROM " + p.function("renew_claims_v1") +
			"($1::bytea[], $2::bytea[], $3::bytea[], $4::bigint) AS lost",
		finish: "SELECT " + p.function("finish_v1") +
			"($1::bytea, $2::bytea, $3::bytea, $4::smallint, $5::integer, $6::bytea, $7::bigint)",
		find: "SELECT state, generation, fingerprint, lease, ttl, status, payload FROM " + p.function("find_v1") +
			"($1::bytea, $2::bytea)",
		remove: "SELECT " + p.function("delete_v1") + "($1::bytea, $2::bytea, $3::bigint)",
	}
}

var (
	errToken  = errors.New("usherpg: empty token")
	errResult = errors.New("usherpg: a claim cannot end in this state")
	errRenew  = fmt.Errorf("usherpg: more than %d claims in one call", idempotency.MaxRenew)
)

// Claim implements [idempotency.Store].
func (s *records) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	if c.Token == (idempotency.Token{}) {
		return idempotency.Record{}, errToken
	}
	var r idempotency.Record
	lost := false
	err := s.call(ctx, "claim", func(ctx context.Context) error {
		var generation, lease int64
		var fingerprint []byte
		err := s.pg.pool.QueryRow(ctx, s.claim, c.Key.Owner[:], c.Key.Name[:], c.Token[:], c.Fingerprint[:],
			c.Lease.Microseconds(), c.TTL.Microseconds(), c.TakeUnknown).
			Scan(&r.State, &r.Won, &r.TakenOver, &generation, &fingerprint, &lease, &r.Status, &r.Payload)
		r.Generation, r.Lease = uint64(generation), time.Duration(lease)*time.Microsecond
		copy(r.Fingerprint[:], fingerprint)
		if lost = errors.Is(err, pgx.ErrNoRows); lost {
			err = nil
		}
		return err
	})
	switch {
	case err != nil:
		return idempotency.Record{}, err
	case lost:
		return idempotency.Record{}, idempotency.ErrLost
	}
	return r, nil
}

// Renew implements [idempotency.Store].
func (s *records) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) (lost []idempotency.ClaimID, err error) {
	switch {
	case len(claims) > idempotency.MaxRenew:
		return nil, errRenew
	case len(claims) == 0:
		return nil, s.closed()
	}
	owners, names, tokens := make([][]byte, len(claims)), make([][]byte, len(claims)), make([][]byte, len(claims))
	for i := range claims {
		c := &claims[i]
		if c.Token == (idempotency.Token{}) {
			return nil, errToken
		}
		owners[i], names[i], tokens[i] = c.Key.Owner[:], c.Key.Name[:], c.Token[:]
	}
	err = s.call(ctx, "renew claims", func(ctx context.Context) error {
		lost = lost[:0]
		rows, err := s.pg.pool.Query(ctx, s.renew, owners, names, tokens, lease.Microseconds())
		if err != nil {
			return err
		}
		var i int
		_, err = pgx.ForEachRow(rows, []any{&i}, func() error {
			if i < 1 || i > len(claims) {
				return errReply
			}
			lost = append(lost, claims[i-1])
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return lost, nil
}

// Finish implements [idempotency.Store]. If the database has no room for a payload, it
// keeps a tombstone.
func (s *records) Finish(ctx context.Context, c idempotency.Completion) (kept idempotency.State, err error) {
	kept, err = s.finishOn(ctx, c, func(ctx context.Context, sql string, args ...any) row {
		return s.pg.pool.QueryRow(ctx, sql, args...)
	})
	if errors.Is(err, usher.ErrFull) && c.Result.State == idempotency.StateDone {
		c.Result.State = idempotency.StateTombstone
		return s.Finish(ctx, c)
	}
	return kept, err
}

// Find implements [idempotency.Store].
func (s *records) Find(ctx context.Context, key idempotency.Key) (idempotency.Record, error) {
	var r idempotency.Record
	found := true
	err := s.call(ctx, "find", func(ctx context.Context) error {
		var generation, lease, ttl int64
		var fingerprint []byte
		err := s.pg.pool.QueryRow(ctx, s.find, key.Owner[:], key.Name[:]).
			Scan(&r.State, &generation, &fingerprint, &lease, &ttl, &r.Status, &r.Payload)
		if found = !errors.Is(err, pgx.ErrNoRows); !found {
			return nil
		}
		r.Generation = uint64(generation)
		r.Lease, r.TTL = time.Duration(lease)*time.Microsecond, time.Duration(ttl)*time.Microsecond
		copy(r.Fingerprint[:], fingerprint)
		return err
	})
	switch {
	case err != nil:
		return idempotency.Record{}, err
	case !found:
		return idempotency.Record{}, idempotency.ErrNotFound
	}
	return r, nil
}

// Delete implements [idempotency.Store].
func (s *records) Delete(ctx context.Context, key idempotency.Key, generation uint64) error {
	var removed sql.NullBool
	err := s.call(ctx, "delete", func(ctx context.Context) error {
		return s.pg.pool.QueryRow(ctx, s.remove, key.Owner[:], key.Name[:], int64(generation)).Scan(&removed)
	})
	switch {
	case err != nil:
		return err
	case !removed.Valid:
		return idempotency.ErrNotFound
	case !removed.Bool:
		return idempotency.ErrLost
	}
	return nil
}

// FinishTx implements [idempotency.TxStore].
//
// Under REPEATABLE READ and SERIALIZABLE it fails with SQLSTATE 40001 if the claim was
// renewed since the transaction began, as any write of the record would. Then roll back and
// run the transaction again, as always under these levels, or use READ COMMITTED.
func (s *records) FinishTx(ctx context.Context, tx pgx.Tx, c idempotency.Completion) (kept idempotency.State, err error) {
	if c.IsZero() {
		return 0, nil
	}
	return s.finishOn(ctx, c, func(ctx context.Context, sql string, args ...any) row {
		return onlyOnce{tx.QueryRow(ctx, sql, args...)}
	})
}

// row is a row of pgx or of database/sql.
type row interface{ Scan(into ...any) error }

// onlyOnce is the row of a statement in a transaction of the caller. The statement cannot
// be repeated, because the transaction has failed.
type onlyOnce struct{ row }

func (o onlyOnce) Scan(into ...any) error {
	if err := o.row.Scan(into...); err != nil {
		return failed("finish in a transaction", err)
	}
	return nil
}

// finishOn runs the statement of Finish.
func (s *records) finishOn(ctx context.Context, c idempotency.Completion, query func(context.Context, string, ...any) row) (idempotency.State, error) {
	r := &c.Result
	switch {
	case c.Token == (idempotency.Token{}):
		return 0, errToken
	case r.State < idempotency.StateDone || r.State > idempotency.StateUnknown:
		return 0, errResult
	}
	var payload any // null unless there is a response, which may be empty
	if r.State == idempotency.StateDone {
		payload = r.Payload
		if r.Payload == nil {
			payload = []byte{}
		}
	}
	var kept sql.NullInt16
	err := s.call(ctx, "finish", func(ctx context.Context) error {
		return query(ctx, s.finish, c.Key.Owner[:], c.Key.Name[:], c.Token[:], int16(r.State), int32(r.Status),
			payload, r.TTL.Microseconds()).Scan(&kept)
	})
	switch {
	case err != nil:
		return 0, err
	case !kept.Valid:
		return 0, idempotency.ErrLost
	}
	return idempotency.State(kept.Int16), nil
}

// SQLTx is a transaction of database/sql: [*sql.Tx], [*sql.Conn], or a type of a library
// over them.
type SQLTx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// sqlRecords is records with another FinishTx.
type sqlRecords struct{ *records }

// FinishTx implements [idempotency.TxStore].
func (s *sqlRecords) FinishTx(ctx context.Context, tx SQLTx, c idempotency.Completion) (kept idempotency.State, err error) {
	if c.IsZero() {
		return 0, nil
	}
	return s.finishOn(ctx, c, func(ctx context.Context, sql string, args ...any) row {
		return onlyOnce{tx.QueryRowContext(ctx, sql, args...)}
	})
}
