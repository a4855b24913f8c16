package usherpg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/usherpg"
)

// An effect is the transaction of a handler, with any driver.
type effect struct {
	insert   func(ctx context.Context, key, response string) error
	finish   func(context.Context, idempotency.Completion) (idempotency.State, error)
	commit   func(context.Context) error
	rollback func()
}

// A committer is one process. A process that is paused renews no lease.
type committer struct {
	idempotency.Store
	begin   func(context.Context) (*effect, error)
	handler http.Handler
	paused  atomic.Int64
	serial  *atomic.Int64
}

func (n *committer) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	if n.paused.Load() > 0 {
		return nil, errors.New("the process is paused")
	}
	return n.Store.Renew(ctx, claims, lease)
}

func newCommitter(t *testing.T, s idempotency.Store, serial *atomic.Int64, begin func(context.Context) (*effect, error)) *committer {
	n := &committer{Store: s, begin: begin, serial: serial}
	m, err := idempotency.New(idempotency.Config{
		Store: n, StoreTimeout: 250 * time.Millisecond, Lease: time.Second, FinishTimeout: 100 * time.Millisecond, Wait: 200 * time.Millisecond,
		DangerouslyAllowAnonymous: true, OnError: func(context.Context, error) {},
		// A handler that fails in any way has had no effect, as its transaction is rolled back.
		Profile: idempotency.ProfileReleaseServerErrors,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.handler = m.Wrap(http.HandlerFunc(n.serve))
	return n
}

// serve has an effect in a transaction, and leaves its end to the middleware.
func (n *committer) serve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	key, response := r.Header.Get("Idempotency-Key"), fmt.Sprint("effect ", n.serial.Add(1))
	tx, err := n.begin(context.WithoutCancel(ctx))
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if err := tx.insert(ctx, key, response); err != nil {
		tx.rollback()
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	fate := rand.N(20)
	err = idempotency.From(ctx).Commit(ctx, func(ctx context.Context, c idempotency.Completion) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if fate == 0 { // before FinishTx, for longer than the lease
			n.pause()
		}
		if _, err := tx.finish(ctx, c); err != nil {
			return err
		}
		switch fate {
		case 1:
			n.pause()
		case 2:
			panic(http.ErrAbortHandler)
		case 7:
			tx.rollback()
			return errors.New("the connection has ended before the commit")
		}
		if err := tx.commit(ctx); err != nil {
			return err
		}
		switch fate {
		case 3:
			panic(http.ErrAbortHandler)
		case 4:
			return errors.New("the reply is lost")
		}
		return nil
	}, tx.rollback)
	switch {
	case err != nil:
		w.WriteHeader(http.StatusServiceUnavailable)
	case fate == 5:
		panic(http.ErrAbortHandler)
	case fate == 6:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write([]byte(response))
}

func (n *committer) pause() {
	n.paused.Add(1)
	time.Sleep(1500 * time.Millisecond)
	n.paused.Add(-1)
}

// request sends a request until it has the response of an effect.
func (n *committer) request(key string) (status int, body string) {
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if recover() != nil {
				w.Code = 0
			}
		}()
		r := httptest.NewRequest(http.MethodPost, "/effect", strings.NewReader(key))
		r.Header.Set("Idempotency-Key", key)
		n.handler.ServeHTTP(w, r)
	}()
	return w.Code, w.Body.String()
}

func ofPgx(r idempotency.TxStore[pgx.Tx], tx pgx.Tx) *effect {
	return &effect{
		insert: func(ctx context.Context, key, response string) error {
			_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, $2)", key, response)
			return err
		},
		finish: func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
			return r.FinishTx(ctx, tx, c)
		},
		commit:   tx.Commit,
		rollback: func() { _ = tx.Rollback(context.Background()) },
	}
}

func ofSQL(r idempotency.TxStore[usherpg.SQLTx], tx *sql.Tx) *effect {
	return &effect{
		insert: func(ctx context.Context, key, response string) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES ($1, $2)", key, response)
			return err
		},
		finish: func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
			return r.FinishTx(ctx, tx, c)
		},
		commit:   func(context.Context) error { return tx.Commit() },
		rollback: func() { _ = tx.Rollback() },
	}
}

// Two processes have effects in transactions that the middleware ends. They are paused for
// longer than their leases, connections are cut at each COMMIT and anywhere else, and the
// server is killed and paused. Each effect happens once all the same, and each client gets
// the response of the one that counts.
func TestEffectsThatTheMiddlewareCommitsHappenOnce(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "database/sql"} {
		t.Run(driver, func(t *testing.T) {
			c := newCluster(t, "fsync=on")
			exec(t, c.admin, "CREATE TABLE effects (key text, response text)")
			serial := new(atomic.Int64)
			nodes := make([]*committer, 2)
			for i := range nodes {
				p := c.open(t)
				if driver == "pgx" {
					r := p.Idempotency()
					pool := connect(t, c.last().Addr)
					nodes[i] = newCommitter(t, r, serial, func(ctx context.Context) (*effect, error) {
						tx, err := pool.Begin(ctx)
						if err != nil {
							return nil, err
						}
						return ofPgx(r, tx), nil
					})
					continue
				}
				config, err := pgx.ParseConfig(servers.DSN(c.last().Addr))
				if err != nil {
					t.Fatal(err)
				}
				db := stdlib.OpenDB(*config)
				t.Cleanup(func() { _ = db.Close() })
				r := p.IdempotencySQL()
				nodes[i] = newCommitter(t, r, serial, func(ctx context.Context) (*effect, error) {
					tx, err := db.BeginTx(ctx, nil)
					if err != nil {
						return nil, err
					}
					return ofSQL(r, tx), nil
				})
			}
			c.haveEffects(t, nodes)
		})
	}
}

func (c *cluster) haveEffects(t *testing.T, nodes []*committer) {
	const keys, clients = 60, 2 // clients of each key
	stop := make(chan struct{})
	var faults, all sync.WaitGroup
	faults.Go(func() {
		for i := range 64 {
			select {
			case <-stop:
				return
			case <-time.After(50*time.Millisecond + rand.N(100*time.Millisecond)):
			}
			switch i % 16 {
			case 5:
				c.server.Kill()
				c.server.Start()
			case 10:
				resume := c.server.Pause()
				time.Sleep(400 * time.Millisecond)
				resume()
			case 15:
				c.each((*servers.Proxy).Reset)
			default:
				c.each(func(p *servers.Proxy) { p.CutReply("commit") })
			}
		}
	})
	var responses [keys * clients]string
	for i := range responses {
		all.Go(func() {
			for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(rand.N(100 * time.Millisecond)) {
				code, body := nodes[rand.N(len(nodes))].request(fmt.Sprint("effect-", i%keys))
				if code == http.StatusOK {
					responses[i] = body
					return
				}
			}
			t.Errorf("effect-%d has no response", i%keys)
		})
	}
	all.Wait()
	close(stop)
	faults.Wait()
	eventually(t, "the server is back", c.admin.Ping)
	for i := range keys {
		rows, err := c.admin.Query(t.Context(), "SELECT response FROM effects WHERE key = $1", fmt.Sprint("effect-", i))
		if err != nil {
			t.Fatal(err)
		}
		made, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(made) != 1 || made[0] != responses[i] || made[0] != responses[i+keys] {
			t.Errorf("effect-%d: %q happened, error %v, and the clients got %q and %q", i, made, err, responses[i], responses[i+keys])
		}
	}
}

// last returns the proxy of the client that was opened last.
func (c *cluster) last() *servers.Proxy {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proxies[len(c.proxies)-1]
}
