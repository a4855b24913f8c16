package nodes

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// A mortal store is that of a process that can die: from then on, no call has an effect.
type mortal struct {
	ratelimit.Store
	dead atomic.Bool
}

func (m *mortal) die(f func() error) error {
	if m.dead.Load() {
		return usher.ErrUnavailable
	}
	return f()
}

func (m *mortal) Take(ctx context.Context, d *ratelimit.Decision) error {
	return m.die(func() error { return m.Store.Take(ctx, d) })
}

func (m *mortal) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	return m.die(func() error { return m.Store.Adjust(ctx, d) })
}

func (m *mortal) Renew(ctx context.Context, places []ratelimit.Place, lease time.Duration) (lost []ratelimit.Place, err error) {
	err = m.die(func() error {
		lost, err = m.Store.Renew(ctx, places, lease)
		return err
	})
	return lost, err
}

// settled returns a policy whose requests reserve what they cost.
func settled(name string, l ratelimit.Limit) ratelimit.Policy {
	p := costs(counts(name, l))
	p.Settle = true
	return p
}

// reserving returns a policy for each algorithm, whose requests reserve what they cost.
func reserving(quota int) (policies []ratelimit.Policy) {
	for _, l := range limits(quota) {
		policies = append(policies, settled(unique("reserving"), l))
	}
	return policies
}

func deadNodes(t *testing.T, s Server) {
	t.Parallel()
	policies := reserving(10)
	store := &mortal{Store: s.Open(t)}
	a := node(t, store, func(c *ratelimit.Config) {
		c.StoreTimeout, c.Lease = 500*time.Millisecond, 1500*time.Millisecond
		c.OnError = func(context.Context, error) {} // A dead node reports nothing.
	}, policies...)
	b := node(t, s.Open(t), nil, policies...)
	begun, over, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		request(a, 8, func(http.ResponseWriter, *http.Request) {
			close(begun)
			<-over
		})
	}()
	<-begun
	wantLeft(t, 2, b)
	if allow(t, b, 3) {
		t.Error("what another node has reserved is taken")
	}
	store.dead.Store(true)
	eventually(t, "a dead node keeps what it has reserved", func() bool { return allow(t, b, 10) })
	close(over)
	<-ended
	end(t, a)
	wantLeft(t, 0, b)
}

func liveNodes(t *testing.T, s Server) {
	const lease = 1500 * time.Millisecond
	t.Parallel()
	policies := reserving(10)
	all := pair(t, s, func(c *ratelimit.Config) { c.StoreTimeout, c.Lease = lease/3, lease }, policies...)
	a, b := all[0], all[1]
	request(a, 8, func(_ http.ResponseWriter, r *http.Request) {
		for end := time.Now().Add(3 * lease / 2); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if allow(t, b, 3) {
				t.Error("what another node has reserved is taken")
				return
			}
		}
		for _, p := range policies {
			if err := ratelimit.Settle(r.Context(), p.Name, 5); err != nil {
				t.Error(err)
			}
		}
	})
	end(t, a)
	wantLeft(t, 5, b)
}

// Each request reserves what it needs at first, asks for more, and uses what it has got.
// What the handlers report to have used is what the store has charged, even if replies are
// lost.
func budgets(t *testing.T, s Server) {
	const (
		quota    = 600
		clients  = 32 // of each node
		requests = 2  // of each client
	)
	for name, l := range limits(quota) {
		t.Run(name, func(t *testing.T) {
			p := settled(unique("budget"), l)
			p.Count = func(status int) bool { return status < 500 }
			all := pair(t, s, nil, p)
			var used, refused atomic.Int64
			stop := cut(s, &used, quota)
			each(all, clients, func(l *ratelimit.Limiter, _, _ int) {
				for range requests {
					code := request(l, 1+rand.IntN(20), func(w http.ResponseWriter, r *http.Request) {
						cost := rand.IntN(40)
						err := ratelimit.Settle(r.Context(), p.Name, cost)
						var exhausted *ratelimit.ExhaustedError
						switch {
						case errors.As(err, &exhausted):
							cost -= int(exhausted.Shortfall)
						case err != nil:
							t.Errorf("Settle: %v", err)
						}
						if rand.IntN(8) == 0 {
							w.WriteHeader(http.StatusInternalServerError)
							return
						}
						used.Add(int64(cost))
					})
					if code == http.StatusTooManyRequests {
						refused.Add(1)
					}
				}
			})
			stop()
			end(t, all...)
			if used.Load() > quota || refused.Load() == 0 {
				t.Errorf("%d units of %d are used, %d requests are refused, want some", used.Load(), quota, refused.Load())
			}
			wantLeft(t, quota-used.Load(), all...)
		})
	}
}

// cut loses the reply to the next call of each store when n has reached a third of most. The
// call is repeated, so nobody notices.
func cut(s Server, n *atomic.Int64, most int64) (stop func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n.Load() < most/3 {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
			}
		}
		s.Cut()
	}()
	return func() {
		close(over)
		<-ended
	}
}

func debts(t *testing.T, s Server) {
	const (
		burst   = 500
		clients = 16 // of each node
	)
	p := settled(unique("debt"), ratelimit.TokenBucket(1, time.Hour, burst))
	p.Overrun = ratelimit.OweOverrun
	all := pair(t, s, nil, p)
	var used atomic.Int64
	each(all, clients, func(l *ratelimit.Limiter, _, client int) {
		for range 5 {
			request(l, 5*(client%2), func(_ http.ResponseWriter, r *http.Request) {
				var exhausted *ratelimit.ExhaustedError
				if err := ratelimit.Settle(r.Context(), p.Name, 40); err != nil && !errors.As(err, &exhausted) {
					t.Errorf("Settle: %v", err)
				}
				used.Add(40)
			})
		}
	})
	end(t, all...)
	if used.Load() <= burst {
		t.Errorf("%d units of %d are used, want more", used.Load(), burst)
	}
	for i, l := range all {
		u := peek(t, l)[0]
		// The next unit is left when what is beyond the burst is earned, and one more.
		lacks := int64((u.Reset + time.Hour - 1) / time.Hour)
		if want := used.Load() - burst + 1; u.Remaining != 0 || lacks != want {
			t.Errorf("node %d: %d left, and one more after %d units, want none, and %d", i, u.Remaining, lacks, want)
		}
		if allow(t, l, 1) {
			t.Errorf("node %d admits a key that is in debt", i)
		}
	}
}
