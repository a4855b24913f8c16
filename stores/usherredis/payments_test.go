package usherredis_test

import (
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/internal/nodes"
)

// A server that waits for its disk with each record loses none in a crash.
func TestRequestsWhileTheServerFails(t *testing.T) {
	s := servers.Redis(t, "appendonly", "yes", "appendfsync", "always")
	n := &network{addr: s.Addr, prefix: newPrefix()}
	useAll(t, open(t, s.Addr, newPrefix()))
	server := nodes.RecordServer{
		Open: func(t testing.TB) idempotency.Store { return n.open(t).Idempotency() },
		Faults: []func(){
			func() { n.cut(t) },
			func() { n.each((*servers.Proxy).Reset) },
			func() { s.Kill(); s.Start() },
			func() {
				resume := s.Pause()
				time.Sleep(400 * time.Millisecond)
				resume()
			},
			func() {
				unblock := n.block(t)
				time.Sleep(400 * time.Millisecond)
				unblock()
			},
		},
	}
	t.Run("payments are made once", func(t *testing.T) { nodes.TestPayments(t, server) })
	t.Run("duplicates wait for the response", func(t *testing.T) { nodes.TestDuplicates(t, server) })
}

func TestRequestsOnceTheMemoryIsFull(t *testing.T) {
	s := servers.Redis(t, "maxmemory-policy", "noeviction")
	nodes.TestFull(t, open(t, s.Addr, newPrefix()).Idempotency(),
		func() { must(t, s.Addr, "CONFIG", "SET", "maxmemory", "1mb") },
		func() { must(t, s.Addr, "CONFIG", "SET", "maxmemory", "0") })
}
