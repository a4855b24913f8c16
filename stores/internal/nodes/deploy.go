package nodes

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/usher-go/usher/ratelimit"
)

// deploys gives one node the limit of yesterday, and another that of today. Each limit keeps
// its bound, and counts what is charged under the other.
func deploys(t *testing.T, s Server) {
	for _, c := range []struct {
		from, to string
		holds    bool // the policy of today reserves
	}{
		{"token bucket", "token bucket", false},
		{"rolling window", "rolling window", true},
		{"calendar window", "calendar window", false},
		{"token bucket", "rolling window", false},
		{"rolling window", "calendar window", false},
		{"calendar window", "token bucket", true},
	} {
		name := c.from + " to " + c.to
		if c.holds {
			name += ", which reserves"
		}
		t.Run(name, func(t *testing.T) { deploy(t, s, c.from, c.to, c.holds) })
	}
}

func deploy(t *testing.T, s Server, from, to string, holds bool) {
	const old, more, clients, requests = 100, 250, 64, 4
	policy := unique("deploy")
	before := counts(policy, limits(old)[from])
	after := counts(policy, limits(more)[to])
	after.Settle = holds
	all := []*ratelimit.Limiter{node(t, s.Open(t), nil, before), node(t, s.Open(t), nil, after)}
	var admitted [2]atomic.Int64
	each(all, clients, func(l *ratelimit.Limiter, node, _ int) {
		for range requests {
			if request(l, 1, func(http.ResponseWriter, *http.Request) {}) == http.StatusOK {
				admitted[node].Add(1)
			}
		}
	})
	end(t, all...)
	a, b := admitted[0].Load(), admitted[1].Load()
	if a > old || a+b > more {
		t.Errorf("%d admitted under %d, and %d under %d", a, old, b, more)
	}
	for i, most := range []int64{old, more} {
		if u := peek(t, all[i])[0]; u.Remaining != max(most-a-b, 0) {
			t.Errorf("%d left after %d and %d, want %d", u.Remaining, a, b, max(most-a-b, 0))
		}
	}
}
