package usherpg_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherpg"
)

// wantUnavailable fails the test unless every call ends with usher.ErrUnavailable, and by
// its deadline of 100 ms with a slack of ten times that.
func wantUnavailable(t *testing.T, p *usherpg.Postgres) {
	t.Helper()
	for name, call := range calls(p) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		storetest.WantError(t, name, call(ctx), usher.ErrUnavailable)
		cancel()
		if d := time.Since(began); d > 1100*time.Millisecond {
			t.Errorf("%s takes %v with a deadline of 100ms", name, d)
		}
	}
}

// wantWorking fails the test unless every call succeeds soon.
func wantWorking(t *testing.T, p *usherpg.Postgres) {
	t.Helper()
	for name, call := range calls(p) {
		eventually(t, name, call)
	}
	eventually(t, "Check", p.Check)
}

func TestAServerThatCrashesKeepsRecordsAndForgetsLimits(t *testing.T) {
	s, pool := migrated(t, "fsync=on")
	p := open(t, pool)
	limit := ratelimit.RollingWindow(1, time.Hour)
	take(t, p.Limits(), limit)
	r := p.Idempotency()
	c := claim()
	if _, err := r.Claim(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Finish(t.Context(), done(c, "response")); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	wantUnavailable(t, p)
	wantCheck(t, p, usher.ErrUnavailable, "check that it is running")
	s.Start()
	wantWorking(t, p)
	c.Token[0]++
	if got, err := r.Claim(t.Context(), c); err != nil || got.State != idempotency.StateDone || string(got.Payload) != "response" {
		t.Errorf("after the crash the record is %+v, error %v", got, err)
	}
	if !take(t, p.Limits(), limit).Admitted {
		t.Error("after the crash the limit is still used up")
	}
}

func TestCallsToAServerThatHangsEndInTime(t *testing.T) {
	s, pool := migrated(t)
	p := open(t, pool)
	wantWorking(t, p)
	before := runtime.NumGoroutine()
	resume := s.Pause()
	all := calls(p)
	errs := storetest.Each(64, func(i int) error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		err := all[[]string{"Take", "Claim", "Adjust", "Finish"}[i%4]](ctx)
		if d := time.Since(began); d > 1100*time.Millisecond {
			t.Errorf("a call takes %v with a deadline of 100ms", d)
		}
		return err
	}, usher.ErrUnavailable)
	if errs[usher.ErrUnavailable] != 64 {
		t.Errorf("errors %v, want 64 of ErrUnavailable", errs)
	}
	time.Sleep(500 * time.Millisecond)
	resume()
	wantWorking(t, p)
	// The pool closes the connections of the calls in the background.
	eventually(t, "goroutines are left", func(context.Context) error {
		if n := runtime.NumGoroutine(); n > before+4 {
			return fmt.Errorf("%d goroutines, %d before", n, before)
		}
		return nil
	})
}

// New connections are slow at first, so closing them because of a slow call makes the next
// calls slow too.
func TestAPoolThatCancelsStatementsKeepsItsConnections(t *testing.T) {
	s, admin := migrated(t)
	pool := connect(t, s.Addr, func(c *pgxpool.Config) {
		c.MaxConns = 4
		c.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: 10 * time.Second}
		}
	})
	p := open(t, pool)
	take(t, p.Limits(), ratelimit.TokenBucket(100, time.Hour, 100))
	tx, err := admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE usher.limits"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		d := decision(ratelimit.Charge{Policy: "policy", Key: ratelimit.TextKey("key"), Limit: ratelimit.TokenBucket(100, time.Hour, 100), Cost: 1})
		if err := p.Limits().Take(ctx, d); !errors.Is(err, usher.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Take: %v, want that its time is over", err)
		}
		cancel()
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := take(t, p.Limits(), ratelimit.TokenBucket(100, time.Hour, 100)); d.Charges[0].Remaining != 98 {
		t.Errorf("%d left, want 98: calls that were canceled have charged", d.Charges[0].Remaining)
	}
	if n := pool.Stat().NewConnsCount(); n > 4 {
		t.Errorf("the pool has made %d connections, want at most 4", n)
	}
}

func TestCallsWithoutAFreeConnectionEndInTime(t *testing.T) {
	s, _ := migrated(t)
	pool := connect(t, s.Addr, func(c *pgxpool.Config) { c.MaxConns = 1 })
	p := open(t, pool)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, p)
	wantCheck(t, p, usher.ErrUnavailable, "MaxConns")
	conn.Release()
	wantWorking(t, p)
}

func TestAServerWithoutAFreeConnectionIsUnavailable(t *testing.T) {
	s, admin := migrated(t)
	for _, sql := range []string{
		"CREATE ROLE app LOGIN CONNECTION LIMIT 1", "GRANT USAGE ON SCHEMA usher TO app",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA usher TO app",
	} {
		exec(t, admin, sql)
	}
	as := func(c *pgxpool.Config) { c.ConnConfig.User = "app" }
	other := connect(t, s.Addr, as)
	if err := other.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := open(t, connect(t, s.Addr, as))
	wantUnavailable(t, p)
	wantCheck(t, p, usher.ErrUnavailable, "53300")
	other.Close()
	wantWorking(t, p)
}

func TestAServerThatCannotBeWrittenIsUnavailable(t *testing.T) {
	s, admin := migrated(t)
	var data string
	if err := admin.QueryRow(t.Context(), "SHOW data_directory").Scan(&data); err != nil {
		t.Fatal(err)
	}

	readOnly := func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on" }
	p := open(t, connect(t, s.Addr, readOnly))
	storetest.WantError(t, "read-only", calls(p)["Take"](t.Context()), usher.ErrUnavailable)
	storetest.WantError(t, "read-only", calls(p)["Claim"](t.Context()), usher.ErrUnavailable)
	wantCheck(t, p, usher.ErrUnavailable, "default_transaction_read_only")

	isolated := func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
	}
	wantCheck(t, open(t, connect(t, s.Addr, isolated)), usher.ErrUnavailable, "default_transaction_isolation")

	s.Kill()
	if err := os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Start()
	p = open(t, connect(t, s.Addr))
	storetest.WantError(t, "replica", calls(p)["Take"](t.Context()), usher.ErrUnavailable)
	storetest.WantError(t, "replica", calls(p)["Claim"](t.Context()), usher.ErrUnavailable)
	wantCheck(t, p, usher.ErrUnavailable, "primary")
}

func TestACallThatIsRolledBackForAnotherIsRepeatedOnce(t *testing.T) {
	_, pool := migrated(t)
	p := open(t, pool)
	exec(t, pool, "CREATE SEQUENCE attempts")
	exec(t, pool, `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF nextval('public.attempts') % 3 <> 0 THEN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END IF; RETURN NEW; END $$`)
	exec(t, pool, "CREATE TRIGGER fail BEFORE INSERT ON usher.records FOR EACH ROW EXECUTE FUNCTION fail()")
	storetest.WantError(t, "two conflicts", calls(p)["Claim"](t.Context()), usher.ErrUnavailable)
	exec(t, pool, "SELECT setval('attempts', 1)")
	if err := calls(p)["Claim"](t.Context()); err != nil {
		t.Errorf("one conflict: %v", err)
	}
}

// A disk without room for payloads may still have room for a few bytes.
func TestWithoutRoomForAPayloadATombstoneIsKept(t *testing.T) {
	_, pool := migrated(t)
	r := open(t, pool).Idempotency()
	c := claim()
	if _, err := r.Claim(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, `CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF TG_OP = 'INSERT' OR NEW.payload IS NOT NULL THEN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$`)
	exec(t, pool, `CREATE TRIGGER "full" BEFORE INSERT OR UPDATE ON usher.records FOR EACH ROW EXECUTE FUNCTION "full"()`)
	kept, err := r.Finish(t.Context(), done(c, "response"))
	if err != nil || kept != idempotency.StateTombstone {
		t.Errorf("Finish keeps state %d, error %v", kept, err)
	}
	c.Token[0]++
	if got, err := r.Claim(t.Context(), c); err != nil || got.State != idempotency.StateTombstone || got.Status != 201 {
		t.Errorf("the record is %+v, error %v", got, err)
	}
	_, err = r.Claim(t.Context(), claim())
	storetest.WantError(t, "a new claim", err, usher.ErrFull)
}

func TestCloseEndsTheCallsOfEachStore(t *testing.T) {
	s, pool := migrated(t)
	for name, closeIt := range map[string]func(*usherpg.Postgres){
		"the store":    func(p *usherpg.Postgres) { _, _ = p.Limits().Close(), p.Idempotency().Close() },
		"the Postgres": func(p *usherpg.Postgres) { _ = p.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, pool)
			l, r := p.Limits(), p.Idempotency()
			resume := s.Pause()
			var wg sync.WaitGroup
			errs := make([]error, 32)
			for i := range errs {
				wg.Go(func() {
					if i%2 == 0 {
						errs[i] = l.Take(t.Context(), decision(ratelimit.Charge{Policy: "p", Limit: ratelimit.RollingWindow(1, time.Hour), Cost: 1}))
						return
					}
					_, errs[i] = r.Claim(t.Context(), claim())
				})
			}
			time.Sleep(50 * time.Millisecond)
			closeIt(p)
			wg.Wait()
			resume()
			for _, err := range errs {
				storetest.WantError(t, "a call that is running", err, usher.ErrClosed)
			}
			storetest.WantError(t, "a later Take", l.Take(t.Context(), decision()), usher.ErrClosed)
			_, err := r.Renew(t.Context(), nil, time.Minute)
			storetest.WantError(t, "a later Renew", err, usher.ErrClosed)
			if err := errors.Join(l.Close(), r.Close()); err != nil {
				t.Errorf("Close: %v", err)
			}
			_, err = p.IdempotencySQL().Claim(t.Context(), claim())
			if open := name == "the store"; open != (err == nil) {
				t.Errorf("another store: %v", err)
			}
			if err := pool.Ping(t.Context()); err != nil {
				t.Errorf("the pool: %v", err)
			}
		})
	}
}

func TestNoErrorHasAPassword(t *testing.T) {
	const secret = "hunter2"
	for name, dsn := range map[string]string{
		"nothing listens":     "postgres://user:" + secret + "@127.0.0.1:1/db?sslmode=disable",
		"the host is unknown": "postgres://user:" + secret + "@no.such.host.invalid/db",
		"no socket":           "postgres://user:" + secret + "@/db?host=/nowhere",
	} {
		t.Run(name, func(t *testing.T) {
			pool, err := pgxpool.New(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			p := open(t, pool)
			all := calls(p)
			all["Check"] = p.Check
			all["Migrate"] = func(ctx context.Context) error { return usherpg.Migrate(ctx, usherpg.Config{Pool: pool}) }
			for name, call := range all {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				err := call(ctx)
				cancel()
				storetest.WantError(t, name, err, usher.ErrUnavailable)
				if text := fmt.Sprintf("%v %+v %#v", err, err, chain(err)); strings.Contains(text, secret) || strings.Contains(text, "user") {
					t.Errorf("%s: %s", name, text)
				}
			}
		})
	}
}

// chain returns all errors that err wraps.
func chain(err error) (all []error) {
	switch e := err.(type) { //nolint:errorlint // It looks at each error by itself.
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			all = append(all, chain(err)...)
		}
	case interface{ Unwrap() error }:
		all = chain(e.Unwrap())
	}
	return append(all, err)
}

func TestErrorsHaveTheirSQLSTATE(t *testing.T) {
	_, pool := migrated(t)
	p := open(t, pool)
	exec(t, pool, "DROP TABLE usher.places CASCADE")
	exec(t, pool, "DROP TABLE usher.records CASCADE")
	err := calls(p)["Claim"](t.Context())
	storetest.WantError(t, "Claim", err, usher.ErrSchema)
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "42883" && e.Code != "42P01" {
		t.Errorf("the error wraps no PgError: %v", err)
	}
}
