package usherpg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/stores/usherpg"
)

func TestRecords(t *testing.T) {
	t.Parallel()
	s, _ := migrated(t)
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			pool := connect(t, s.Addr, inMode(mode))
			idempotencytest.TestStore(t, func(t testing.TB) idempotency.Store { return open(t, pool).Idempotency() })
		})
	}
}

func TestAKeyWhoseRecordCannotBeReadIsNeitherFreeNorReplayed(t *testing.T) {
	_, pool := migrated(t)
	r := open(t, pool).Idempotency()
	for name, poison := range map[string]string{
		"an unknown state":          "state = 6",
		"a state of zero":           "state = 0",
		"a response without a text": "state = 2, payload = NULL",
		"a claim with a response":   "payload = 'x'",
		"a short token":             "token = '\\x01', state = 3",
		"a short fingerprint":       "fingerprint = ''",
		"a negative generation":     "generation = -1",
		"an infinite lease":         "lease_ends = 'infinity'",
		"an infinite TTL":           "expires = 'infinity'",
		"a claim with a status":     "status = 2",
	} {
		t.Run(name, func(t *testing.T) {
			c := claim()
			if _, err := r.Claim(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			exec(t, pool, "UPDATE usher.records SET "+poison+" WHERE name = $1", c.Key.Name[:])
			for _, token := range []byte{c.Token[0], 99} {
				c.Token[0] = token
				_, err := r.Claim(t.Context(), c)
				storetest.WantError(t, "Claim", err, usher.ErrCorrupt)
			}
			_, err := r.Find(t.Context(), c.Key)
			storetest.WantError(t, "Find", err, usher.ErrCorrupt)
			storetest.WantError(t, "Delete", r.Delete(t.Context(), c.Key, 1), usher.ErrCorrupt)
			if err := r.Delete(t.Context(), c.Key, 0); err != nil {
				t.Errorf("Delete of what cannot be read: %v", err)
			}
			storetest.WantError(t, "Delete of nothing", r.Delete(t.Context(), c.Key, 0), idempotency.ErrNotFound)
		})
	}
}

// Even if two claims have the same token, each ends only the claim of its owner.
func TestAClaimOfOneOwnerDoesNotEndThatOfAnother(t *testing.T) {
	_, pool := migrated(t)
	r := open(t, pool).Idempotency()
	a := claim()
	b := a
	b.Key.Owner[31]++
	for _, c := range []idempotency.Claim{a, b} {
		if _, err := r.Claim(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Finish(t.Context(), done(a, "response")); err != nil {
		t.Fatal(err)
	}
	if lost, err := r.Renew(t.Context(), []idempotency.ClaimID{{Key: a.Key, Token: a.Token}, {Key: b.Key, Token: b.Token}}, time.Minute); err != nil || len(lost) != 1 || lost[0].Key != a.Key {
		t.Errorf("Renew: lost %v, error %v, want the claim that has ended", lost, err)
	}
	b.Token[0]++
	if got, err := r.Claim(t.Context(), b); err != nil || got.State != idempotency.StateClaimed {
		t.Errorf("the claim of the other owner is %+v, error %v", got, err)
	}
}

func TestGenerationsGrowEvenIfTheClockIsSetBack(t *testing.T) {
	_, pool := migrated(t)
	r := open(t, pool).Idempotency()
	c := claim()
	last := uint64(0)
	for range 3 {
		c.Token[0]++
		got, err := r.Claim(t.Context(), c)
		if err != nil || !got.Won || got.Generation <= last {
			t.Fatalf("the claim is %+v, error %v, want a generation after %d", got, err, last)
		}
		release := done(c, "")
		release.Result.State = idempotency.StateReleased
		if _, err := r.Finish(t.Context(), release); err != nil {
			t.Fatal(err)
		}
		// As if a clock that was a day ahead had claimed it.
		const day = 86_400_000_000
		exec(t, pool, "UPDATE usher.records SET generation = generation + $1", int64(day))
		last = got.Generation + day
	}
}

func TestExpiredRecordsAreRemoved(t *testing.T) {
	_, pool := migrated(t)
	r := open(t, pool).Idempotency()
	exec(t, pool, `INSERT INTO usher.records SELECT '', int4send(i), '', '', 1, 0, 1, now(), now() - interval '1 second', NULL
		FROM generate_series(1, 500) AS i`)
	live := claim()
	if _, err := r.Claim(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	eventually(t, "expired records are left", func(ctx context.Context) error {
		for range 50 {
			if _, err := r.Claim(ctx, claim()); err != nil {
				return err
			}
		}
		if n := count(t, pool, "SELECT count(*) FROM usher.records WHERE owner = ''"); n > 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
	if _, err := r.Finish(t.Context(), done(live, "")); err != nil {
		t.Errorf("a record that has not expired: %v", err)
	}
}

// transactions are the ways to finish in a transaction: each calls f with a FinishTx that
// works in it, and commits unless f returns an error.
func transactions(t *testing.T, p *usherpg.Postgres, s *sql.DB, begin func(context.Context, func(pgx.Tx) error) error) map[string]func(func(finish finish) error) error {
	t.Helper()
	return map[string]func(func(finish) error) error{
		"pgx": func(f func(finish) error) error {
			r := p.Idempotency()
			return begin(t.Context(), func(tx pgx.Tx) error {
				return f(func(c idempotency.Completion) (idempotency.State, error) { return r.FinishTx(t.Context(), tx, c) })
			})
		},
		"database/sql": func(f func(finish) error) error {
			r := p.IdempotencySQL()
			tx, err := s.BeginTx(t.Context(), nil)
			if err != nil {
				return err
			}
			err = f(func(c idempotency.Completion) (idempotency.State, error) { return r.FinishTx(t.Context(), tx, c) })
			if err != nil {
				return errors.Join(err, tx.Rollback())
			}
			return tx.Commit()
		},
	}
}

type finish func(idempotency.Completion) (idempotency.State, error)

func TestATransactionEndsAClaimWithItsEffectOrNotAtAll(t *testing.T) {
	s, pool := migrated(t)
	p := open(t, pool)
	r := p.Idempotency()
	exec(t, pool, "CREATE TABLE effects (n int)")
	config, err := pgx.ParseConfig("postgres://postgres@" + s.Addr + "/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*config)
	defer func() { _ = db.Close() }()
	undo := errors.New("undo")
	for name, transaction := range transactions(t, p, db, func(ctx context.Context, f func(pgx.Tx) error) error {
		return pgx.BeginFunc(ctx, pool, f)
	}) {
		t.Run(name, func(t *testing.T) {
			c := claim()
			other := c
			other.Token[0]++
			if _, err := r.Claim(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			inFlight := func() {
				t.Helper()
				got, err := r.Claim(t.Context(), other)
				if err != nil || got.State != idempotency.StateClaimed || got.Won {
					t.Errorf("before the commit another request finds %+v, error %v", got, err)
				}
			}
			err := transaction(func(finish finish) error {
				if kept, err := finish(done(c, "never")); err != nil || kept != idempotency.StateDone {
					t.Errorf("FinishTx keeps %d, error %v", kept, err)
				}
				inFlight()
				return undo
			})
			storetest.WantError(t, "the transaction", err, undo)
			inFlight()
			err = transaction(func(finish finish) error {
				_, err := finish(done(c, "response"))
				inFlight()
				return err
			})
			if err != nil {
				t.Errorf("the transaction: %v", err)
			}
			got, err := r.Claim(t.Context(), other)
			if err != nil || got.State != idempotency.StateDone || string(got.Payload) != "response" {
				t.Errorf("after the commit another request finds %+v, error %v", got, err)
			}
			err = transaction(func(finish finish) error {
				if kept, err := finish(done(c, "again")); err != nil || kept != idempotency.StateDone {
					t.Errorf("again: FinishTx keeps %d, error %v", kept, err)
				}
				_, err := finish(done(other, "another"))
				return err
			})
			storetest.WantError(t, "a claim of another", err, idempotency.ErrLost)
		})
	}
}

// A handler may take its time between FinishTx and the commit.
func TestAnOpenTransactionDelaysNeitherRenewalsNorDuplicates(t *testing.T) {
	_, pool := migrated(t)
	r := open(t, pool).Idempotency()
	a, b, gone := claim(), claim(), claim()
	for _, c := range []idempotency.Claim{a, b} {
		if _, err := r.Claim(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := r.FinishTx(t.Context(), tx, done(a, "response")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	ids := []idempotency.ClaimID{{Key: gone.Key, Token: gone.Token}, {Key: a.Key, Token: a.Token}, {Key: b.Key, Token: b.Token}}
	lost, err := r.Renew(ctx, ids, time.Hour)
	if err != nil || len(lost) != 1 || lost[0] != ids[0] {
		t.Errorf("Renew: lost %v, error %v, want only the claim that never was", lost, err)
	}
	b.Token[0]++
	if got, err := r.Claim(ctx, b); err != nil || got.Lease < 30*time.Minute {
		t.Errorf("the other claim is not renewed: %+v, error %v", got, err)
	}
	a.Token[0]++
	if got, err := r.Claim(ctx, a); err != nil || got.State != idempotency.StateClaimed {
		t.Errorf("a duplicate finds %+v, error %v", got, err)
	}
}

// Under these levels a transaction fails if anything that it writes has changed since it
// began. The error says that it can be run again.
func TestAConflictInATransactionHasItsSQLSTATE(t *testing.T) {
	_, pool := migrated(t)
	r := open(t, pool).Idempotency()
	c := claim()
	if _, err := r.Claim(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	run := func(between func()) error {
		return pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SELECT 1"); err != nil {
				return err
			}
			between()
			_, err := r.FinishTx(t.Context(), tx, done(c, "response"))
			return err
		})
	}
	err := run(func() {
		if _, err := r.Renew(t.Context(), []idempotency.ClaimID{{Key: c.Key, Token: c.Token}}, time.Minute); err != nil {
			t.Fatal(err)
		}
	})
	storetest.WantError(t, "FinishTx", err, usher.ErrUnavailable)
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "40001" {
		t.Errorf("FinishTx: %v, want SQLSTATE 40001", err)
	}
	if err := run(func() {}); err != nil {
		t.Errorf("again: %v", err)
	}
}

// The server is killed again and again while handlers work. Each has its effect exactly
// once, and all requests of one key have one response.
func TestAnEffectInTheTransactionHappensExactlyOnceOverCrashes(t *testing.T) {
	t.Parallel()
	s, pool := migrated(t, "fsync=on")
	r := open(t, pool).Idempotency()
	exec(t, pool, "CREATE TABLE effects (key bigint, made_by bigint)")
	const keys = 400
	var next, kills atomic.Uint64
	stop := make(chan struct{})
	var killer, clients sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				s.Kill()
				s.Start()
				kills.Add(1)
			}
		}
	})
	for range 8 {
		clients.Go(func() {
			for {
				n := next.Add(1)
				if n > keys {
					return
				}
				first, second := request(t, r, pool.Begin, n), request(t, r, pool.Begin, n)
				if first != second {
					t.Errorf("key %d has the responses %q and %q", n, first, second)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	killer.Wait()
	eventually(t, "the server is back", pool.Ping)
	if n := count(t, pool, "SELECT count(*) FROM effects"); n != keys {
		t.Errorf("%d effects of %d keys", n, keys)
	}
	if n := count(t, pool, "SELECT count(DISTINCT key) FROM effects"); n != keys {
		t.Errorf("%d of %d keys have an effect", n, keys)
	}
	if kills.Load() < 3 {
		t.Errorf("only %d crashes", kills.Load())
	}
}

// request sends a request again until it has a response, as a client does.
func request(t *testing.T, r idempotency.TxStore[pgx.Tx], begin func(context.Context) (pgx.Tx, error), n uint64) string {
	for attempt := 0; ; attempt++ {
		if attempt > 2000 {
			t.Errorf("key %d has no response", n)
			return ""
		}
		response, ok := try(t, r, begin, n)
		if ok {
			return response
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func try(t *testing.T, r idempotency.TxStore[pgx.Tx], begin func(context.Context) (pgx.Tx, error), n uint64) (string, bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	c := claim(n)
	c.Lease = 500 * time.Millisecond
	got, err := r.Claim(ctx, c)
	switch {
	case err != nil:
		return "", false
	case got.State == idempotency.StateDone:
		return string(got.Payload), true
	case !got.Won:
		return "", false
	}
	tx, err := begin(ctx)
	if err != nil {
		return "", false
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	response := fmt.Sprintf("made by %x", c.Token)
	if _, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, $2)", int64(n), int64(got.Generation)); err != nil {
		return "", false
	}
	time.Sleep(10 * time.Millisecond) // the handler works
	if _, err := r.FinishTx(ctx, tx, done(c, response)); err != nil {
		return "", false
	}
	if tx.Commit(ctx) != nil {
		return "", false // it may have been committed: the client asks again
	}
	return response, true
}
