package usherpg_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/leak"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherpg"
)

func TestMain(m *testing.M) { leak.Main(m) }

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
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
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

// migrated returns a new server that is set up, and a pool for it.
func migrated(t testing.TB, settings ...string) (*servers.Server, *pgxpool.Pool) {
	t.Helper()
	s := servers.Postgres(t, settings...)
	pool := connect(t, s.Addr)
	if err := usherpg.Migrate(t.Context(), usherpg.Config{Pool: pool}); err != nil {
		t.Fatal(err)
	}
	return s, pool
}

func exec(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func count(t testing.TB, pool *pgxpool.Pool, sql string) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

var serial atomic.Uint64

func decision(charges ...ratelimit.Charge) *ratelimit.Decision {
	return &ratelimit.Decision{ID: ratelimit.ID{Node: 1, Seq: serial.Add(1)}, Charges: charges}
}

// take takes one unit of a key that is always the same.
func take(t testing.TB, s ratelimit.Store, l ratelimit.Limit) *ratelimit.Decision {
	t.Helper()
	d := decision(ratelimit.Charge{Policy: "policy", Key: ratelimit.TextKey("key"), Limit: l, Cost: 1, Lease: time.Minute})
	if err := s.Take(t.Context(), d); err != nil {
		t.Fatalf("Take: %v", err)
	}
	return d
}

// claim returns a claim of a new key, or of the n-th.
func claim(n ...uint64) idempotency.Claim {
	c := idempotency.Claim{Lease: time.Minute, TTL: time.Hour}
	if n == nil {
		n = []uint64{1<<32 + serial.Add(1)}
	}
	binary.BigEndian.PutUint64(c.Key.Name[:], n[0])
	binary.BigEndian.PutUint64(c.Token[:], serial.Add(1))
	return c
}

// done returns the completion of a claim with a response.
func done(c idempotency.Claim, payload string) idempotency.Completion {
	return idempotency.Completion{Key: c.Key, Token: c.Token, Result: idempotency.Result{
		State: idempotency.StateDone, Status: 201, Payload: []byte(payload), TTL: time.Hour,
	}}
}

// calls are one call of each method of the stores, by name.
func calls(p *usherpg.Postgres) map[string]func(context.Context) error {
	l, r := p.Limits(), p.Idempotency()
	charge := ratelimit.Charge{Policy: "calls", Key: ratelimit.TextKey("key"), Limit: ratelimit.TokenBucket(1000, time.Second, 1000), Cost: 1}
	return map[string]func(context.Context) error{
		"Take":   func(ctx context.Context) error { return l.Take(ctx, decision(charge)) },
		"Adjust": func(ctx context.Context) error { return l.Adjust(ctx, decision(charge)) },
		"Renew": func(ctx context.Context) error {
			_, err := l.Renew(ctx, []ratelimit.Place{{Policy: "calls"}}, time.Minute)
			return err
		},
		"Claim": func(ctx context.Context) error {
			_, err := r.Claim(ctx, claim())
			return err
		},
		"Renew of claims": func(ctx context.Context) error {
			c := claim()
			_, err := r.Renew(ctx, []idempotency.ClaimID{{Key: c.Key, Token: c.Token}}, time.Minute)
			return err
		},
		"Finish": func(ctx context.Context) error {
			_, err := r.Finish(ctx, done(claim(), ""))
			if errors.Is(err, idempotency.ErrLost) {
				err = nil
			}
			return err
		},
		"Find": func(ctx context.Context) error {
			c := claim()
			_, err := r.Find(ctx, c.Key)
			if errors.Is(err, idempotency.ErrNotFound) {
				err = nil
			}
			return err
		},
		"Delete": func(ctx context.Context) error {
			err := r.Delete(ctx, claim().Key, 1)
			if errors.Is(err, idempotency.ErrNotFound) {
				err = nil
			}
			return err
		},
		"Insert of a key": func(ctx context.Context) error { return p.Keys().Insert(ctx, newKey(), apikey.Limits{}) },
		"Touch": func(ctx context.Context) error {
			return p.Keys().Touch(ctx, map[string]apikey.Use{"k": {At: time.Now()}})
		},
		"RevokeAll": func(ctx context.Context) error {
			_, _, err := p.Keys().RevokeAll(ctx, apikey.Filter{Plan: "none"}, time.Now(), 1)
			return err
		},
		"Purge": func(ctx context.Context) error {
			_, err := p.Keys().Purge(ctx, time.Unix(0, 0), 1)
			return err
		},
		"Insert of a session": func(ctx context.Context) error {
			_, err := p.Sessions().Insert(ctx, newSession(), 1000)
			return err
		},
		"RevokeSubject": func(ctx context.Context) error {
			_, err := p.Sessions().RevokeSubject(ctx, "calls", time.Now())
			return err
		},
		"Revoked": func(ctx context.Context) error {
			_, err := p.Revocations().Revoked(ctx, &jwtauth.Token{Issuer: "calls", ID: "token"})
			return err
		},
		"RevokeToken": func(ctx context.Context) error {
			return p.Revocations().RevokeToken(ctx, "calls", "token", time.Now().Add(time.Hour))
		},
	}
}

// newKey returns a key that is new.
func newKey() apikey.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	r := apikey.Record{Key: apikey.Key{ID: rand.Text(), Owner: "calls", CreatedAt: now, UpdatedAt: now, Revision: 1}}
	_, _ = rand.Read(r.Hash[:])
	return r
}

// newSession returns a session that is new.
func newSession() session.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	r := session.Record{Revision: 1, Session: session.Session{
		ID: rand.Text(), Subject: "calls", CreatedAt: now, RefreshedAt: now, ExpiresAt: now.Add(time.Hour), EndsAt: now.Add(time.Hour),
	}}
	_, _ = rand.Read(r.Handle[:])
	return r
}

// eventually fails the test unless f returns nil within 10 seconds.
func eventually(t testing.TB, what string, f func(context.Context) error) {
	t.Helper()
	var err error
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err = f(ctx)
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}
