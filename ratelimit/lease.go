package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/heartbeat"
)

// A lease is renewed after a third of its time. A renewal that has failed is retried after
// a twelfth. A renewal may be early by a sixth, so that all places of a process soon share
// one call.
const (
	renewalsPerLease = 3
	retriesPerLease  = 12
	slackPerLease    = 6
)

// MaxRenew is the largest number of places in one call of [Store.Renew], and of counters in
// one call of [Store.Reset].
const MaxRenew = 1000

// errPlaceLost is reported if a request goes on without the place that it had taken, and
// errHoldLost if it does so without what it had reserved. Another request may have it now.
var (
	errPlaceLost = errors.New("the store has lost the place of a running request")
	errHoldLost  = errors.New("the store has lost what a running request has reserved")
)

// leases renews the places that requests take in a shared store, and the units that they
// reserve there, for as long as their handlers run.
type leases struct {
	store     Store
	lease     time.Duration
	guard     *guard.Guard
	heartbeat *heartbeat.Heartbeat[*leasedPlace]
	// failed is called when a call has failed, and lost when a place is lost, each with the
	// context of a request.
	failed, lost func(context.Context, error)
}

// leased reports whether what c takes in a shared store ends with a lease.
func (c *Charge) leased() bool { return c.Hold || c.Limit.algorithm == AlgorithmConcurrency }

// A leasedPlace is the place of a request, or what it has reserved.
type leasedPlace struct {
	Place
	request context.Context
	gone    error // what to report if the store has lost it
	renewal heartbeat.Item[*leasedPlace]

	mu   sync.Mutex
	over bool // it is no longer renewed
}

func newLeases(c *Config, failed, lost func(context.Context, error)) *leases {
	l := &leases{
		store: c.Store, lease: c.Lease, failed: failed, lost: lost,
		// A call that hangs times out early enough for others before the leases end.
		guard: guard.New(max(c.StoreTimeout, c.Lease/slackPerLease), maxCalls).NeverOpen().Measured(c.MeterProvider, guard.Limits),
	}
	l.heartbeat = heartbeat.New(c.Lease/slackPerLease, MaxRenew, l.renew)
	return l
}

// begin starts to renew the place that c has taken, or what it has reserved.
func (l *leases) begin(request context.Context, c *Charge, taken time.Time) {
	p := &leasedPlace{Place: Place{c.Policy, c.Key, c.TakenBy}, request: request, gone: errPlaceLost}
	if c.Hold {
		p.gone = errHoldLost
	}
	p.renewal.Value = p
	c.place = p
	l.heartbeat.Schedule(&p.renewal, taken.Add(l.lease/renewalsPerLease))
}

// end stops renewing the place of c. A call that is running may still renew it.
func (l *leases) end(c *Charge) {
	p := c.place
	if p == nil {
		return
	}
	c.place = nil
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	l.heartbeat.Remove(&p.renewal)
}

// renew renews the places that are due, and schedules their next renewal.
func (l *leases) renew(due []*leasedPlace) {
	places := make([]Place, 0, len(due))
	for _, p := range due {
		p.mu.Lock()
		if !p.over {
			places = append(places, p.Place)
		}
		p.mu.Unlock()
	}
	if len(places) == 0 {
		return
	}
	lost, err := guard.Call(context.Background(), l.guard, "renew", func(ctx context.Context) ([]Place, error) {
		return l.store.Renew(ctx, places, l.lease)
	}, nil)
	pause := l.lease / renewalsPerLease
	if err != nil {
		pause = l.lease / retriesPerLease
	}
	gone := make(map[Place]bool, len(lost))
	for _, p := range lost {
		gone[p] = true
	}
	next := time.Now().Add(pause)
	var reports []*leasedPlace
	for _, p := range due {
		p.mu.Lock()
		switch {
		case p.over:
		case gone[p.Place]:
			p.over = true
			reports = append(reports, p)
		default:
			l.heartbeat.Schedule(&p.renewal, next)
		}
		p.mu.Unlock()
	}
	// OnError may be slow, so it is called without a lock.
	if err != nil {
		l.failed(due[0].request, fmt.Errorf("ratelimit: renew the places of %d requests, will retry: %w", len(places), err))
	}
	for _, p := range reports {
		l.lost(p.request, fmt.Errorf("ratelimit: policy %q: %w", p.Policy, p.gone))
	}
}
