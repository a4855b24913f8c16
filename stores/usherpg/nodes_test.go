package usherpg_test

import (
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/internal/nodes"
	"github.com/usher-go/usher/stores/usherpg"
)

func TestNodes(t *testing.T) {
	c := newCluster(t)
	var opened sync.Map // by store
	nodes.Test(t, nodes.Server{
		Open: func(t testing.TB) ratelimit.Store {
			p := c.open(t)
			s := p.Limits()
			opened.Store(s, p)
			return s
		},
		SetClock: func(s ratelimit.Store, now func() time.Time) {
			p, _ := opened.Load(s)
			usherpg.SetClock(p.(*usherpg.Postgres), now)
		},
		Cut:   func() { c.cut(nil) },
		Reset: func() { c.each((*servers.Proxy).Reset) },
		Pause: c.server.Pause,
	})
}
