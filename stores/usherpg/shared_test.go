package usherpg_test

import (
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
	"github.com/usher-go/usher/stores/usherpg"
)

// A cluster is one server whose clients each have a proxy.
type cluster struct {
	server *servers.Server
	admin  *pgxpool.Pool

	mu      sync.Mutex
	proxies []*servers.Proxy
}

func newCluster(t testing.TB, settings ...string) *cluster {
	s, pool := migrated(t, settings...)
	return &cluster{server: s, admin: pool}
}

// open returns another client.
func (c *cluster) open(t testing.TB) *usherpg.Postgres {
	t.Helper()
	p := servers.NewProxy(t, c.server.Addr)
	c.mu.Lock()
	c.proxies = append(c.proxies, p)
	c.mu.Unlock()
	// In this mode each call is one packet with the statement, so the proxy can find it.
	return open(t, connect(t, p.Addr, inMode(pgx.QueryExecModeExec)))
}

func (c *cluster) each(f func(*servers.Proxy)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.proxies {
		f(p)
	}
}

func (c *cluster) block(testing.TB) (unblock func()) {
	var all []func()
	c.each(func(p *servers.Proxy) { all = append(all, p.Block()) })
	return func() {
		for _, f := range all {
			f()
		}
	}
}

func (c *cluster) cut(testing.TB) {
	c.each(func(p *servers.Proxy) { p.CutReply(`"usher".`) })
}

func (c *cluster) poison(t testing.TB) {
	t.Helper()
	for _, sql := range []string{
		"UPDATE usher.limits SET usages = ARRAY[ROW(99, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::usher.usage], expires = -1",
		"UPDATE usher.places SET taken = -1, lease_ends = -1",
		"UPDATE usher.calls SET violated = NULL, moved = NULL",
		"UPDATE usher.records SET state = 77, fingerprint = '', payload = '\\xff'",
	} {
		exec(t, c.admin, sql)
	}
}

func TestSharedLimits(t *testing.T) {
	c := newCluster(t)
	ratelimittest.TestShared(t, ratelimittest.Shared{
		Open:  func(t testing.TB) ratelimit.Store { return c.open(t).Limits() },
		Block: c.block, Cut: c.cut, Poison: c.poison,
	})
}

// At the same instants, PostgreSQL decides as a Memory does.
func TestDecisions(t *testing.T) {
	t.Parallel() // It takes the longest.
	_, pool := migrated(t)
	ratelimittest.TestDecisions(t, func(t testing.TB) (ratelimit.Store, func(time.Time)) {
		p := open(t, pool)
		now := time.Now()
		usherpg.SetClock(p, func() time.Time { return now })
		return p.Limits(), func(t time.Time) { now = t }
	})
}

func TestTheClockOfTheServerMayGoBack(t *testing.T) {
	_, pool := migrated(t)
	ratelimittest.TestClock(t, func(t testing.TB) (ratelimit.Store, func(time.Time)) {
		p := open(t, pool)
		now := time.Now()
		usherpg.SetClock(p, func() time.Time { return now })
		return p.Limits(), func(t time.Time) { now = t }
	})
}
