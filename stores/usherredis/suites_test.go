package usherredis_test

import (
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
	"github.com/usher-go/usher/stores/usherredis"
)

func TestLimits(t *testing.T) {
	s := servers.Redis(t)
	ratelimittest.TestStore(t, func(t testing.TB) ratelimit.Store { return open(t, s.Addr, newPrefix()).Limits() })
}

func TestDecisions(t *testing.T) {
	s := servers.Redis(t)
	ratelimittest.TestDecisions(t, func(t testing.TB) (ratelimit.Store, func(time.Time)) {
		l := open(t, s.Addr, newPrefix()).Limits()
		var now time.Time
		usherredis.SetClock(l, func() time.Time { return now })
		return l, func(t time.Time) { now = t }
	})
}

func TestClock(t *testing.T) {
	s := servers.Redis(t)
	ratelimittest.TestClock(t, func(t testing.TB) (ratelimit.Store, func(time.Time)) {
		l := open(t, s.Addr, newPrefix()).Limits()
		var now time.Time
		usherredis.SetClock(l, func() time.Time { return now })
		return l, func(t time.Time) { now = t }
	})
}

func TestSharedLimits(t *testing.T) {
	n := newNetwork(t)
	ratelimittest.TestShared(t, ratelimittest.Shared{
		Open:  func(t testing.TB) ratelimit.Store { return n.open(t).Limits() },
		Block: n.block, Cut: n.cut, Poison: n.poison,
	})
}

func TestIdempotency(t *testing.T) {
	s := servers.Redis(t)
	idempotencytest.TestStore(t, func(t testing.TB) idempotency.Store { return open(t, s.Addr, newPrefix()).Idempotency() })
}

func TestSharedIdempotency(t *testing.T) {
	n := newNetwork(t)
	idempotencytest.TestShared(t, idempotencytest.Shared{
		Open:  func(t testing.TB) idempotency.Store { return n.open(t).Idempotency() },
		Block: n.block, Cut: n.cut, Poison: n.poison,
	})
}

// A network is a server with clients, each behind a proxy of its own.
type network struct {
	addr, prefix string

	mu      sync.Mutex
	proxies []*servers.Proxy
}

func newNetwork(t *testing.T) *network {
	n := &network{addr: servers.Redis(t).Addr, prefix: newPrefix()}
	// The server must know all scripts, so that a lost reply is that of a call, and not a
	// request for the script.
	useAll(t, open(t, n.addr, newPrefix()))
	return n
}

func (n *network) open(t testing.TB) *usherredis.Redis {
	p := servers.NewProxy(t, n.addr)
	n.mu.Lock()
	n.proxies = append(n.proxies, p)
	n.mu.Unlock()
	return open(t, p.Addr, n.prefix)
}

func (n *network) each(f func(*servers.Proxy)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.proxies {
		f(p)
	}
}

func (n *network) block(testing.TB) (unblock func()) {
	var all []func()
	n.each(func(p *servers.Proxy) { all = append(all, p.Block()) })
	return func() {
		for _, unblock := range all {
			unblock()
		}
	}
}

func (n *network) cut(testing.TB) {
	n.each(func(p *servers.Proxy) { p.CutReply("EVALSHA") })
}

func (n *network) poison(t testing.TB) {
	client := connect(t, n.addr)
	for _, key := range keys(t, n.addr) {
		do(t, client, "SET", key, "x")
	}
}
