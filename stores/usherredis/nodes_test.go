package usherredis_test

import (
	"testing"
	"time"

	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/internal/nodes"
	"github.com/usher-go/usher/stores/usherredis"
)

func TestNodes(t *testing.T) {
	s := servers.Redis(t, "appendonly", "yes", "appendfsync", "always")
	n := &network{addr: s.Addr, prefix: newPrefix()}
	useAll(t, open(t, s.Addr, newPrefix()))
	nodes.Test(t, nodes.Server{
		Open:     func(t testing.TB) ratelimit.Store { return n.open(t).Limits() },
		SetClock: func(s ratelimit.Store, now func() time.Time) { usherredis.SetClock(s, now) },
		Cut:      func() { n.each(func(p *servers.Proxy) { p.CutReply("EVALSHA") }) },
		Reset:    func() { n.each((*servers.Proxy).Reset) },
		Crash: func() {
			s.Kill()
			s.Start()
		},
		Pause: s.Pause,
	})
}
