package usherpg_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/usherpg"
)

func TestSharedRecords(t *testing.T) {
	c := newCluster(t)
	idempotencytest.TestShared(t, idempotencytest.Shared{
		Open:  func(t testing.TB) idempotency.Store { return c.open(t).Idempotency() },
		Block: c.block, Cut: c.cut, Poison: c.poison,
	})
}

func TestTransactionsOfPgx(t *testing.T) {
	_, pool := migrated(t)
	idempotencytest.TestTx(t, func(t testing.TB) (idempotency.TxStore[pgx.Tx], func(testing.TB) idempotencytest.Transaction[pgx.Tx]) {
		return open(t, pool).Idempotency(), func(t testing.TB) idempotencytest.Transaction[pgx.Tx] {
			// Not t.Context: some transactions are ended after it.
			tx, err := pool.Begin(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return idempotencytest.Transaction[pgx.Tx]{
				Tx:       tx,
				Commit:   func() error { return tx.Commit(context.Background()) },
				Rollback: func() error { return tx.Rollback(context.Background()) },
				Crash: func() {
					_ = tx.Conn().PgConn().Conn().Close()
					_ = tx.Rollback(context.Background())
				},
			}
		}
	})
}

func TestTransactionsOfDatabaseSQL(t *testing.T) {
	s, pool := migrated(t)
	config, err := pgx.ParseConfig(servers.DSN(s.Addr))
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = db.Close() })
	idempotencytest.TestTx(t, func(t testing.TB) (idempotency.TxStore[usherpg.SQLTx], func(testing.TB) idempotencytest.Transaction[usherpg.SQLTx]) {
		return open(t, pool).IdempotencySQL(), func(t testing.TB) idempotencytest.Transaction[usherpg.SQLTx] {
			tx, err := db.BeginTx(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			return idempotencytest.Transaction[usherpg.SQLTx]{Tx: tx, Commit: tx.Commit, Rollback: tx.Rollback}
		}
	})
}

// A handler that defers its rollback, as most do without this package, learns what is wrong.
func TestFinishTxAfterTheEndOfItsTransaction(t *testing.T) {
	s, pool := migrated(t)
	ctx := t.Context()
	config, err := pgx.ParseConfig(servers.DSN(s.Addr))
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = db.Close() })
	c := idempotency.Completion{Token: idempotency.Token{1}, Result: idempotency.Result{State: idempotency.StateTombstone}}
	finish := map[string]func() error{
		"pgx": func() error {
			tx, err := pool.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_ = tx.Rollback(ctx)
			_, err = open(t, pool).Idempotency().FinishTx(ctx, tx, c)
			return err
		},
		"database/sql": func() error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = tx.Rollback()
			_, err = open(t, pool).IdempotencySQL().FinishTx(ctx, tx, c)
			return err
		},
	}
	for driver, finish := range finish {
		if err := finish(); err == nil || !strings.Contains(err.Error(), "the transaction has ended already") {
			t.Errorf("%s: got %v", driver, err)
		}
	}
}
