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

// MaxRenew is the largest number of places in one call of [Store.Renew].
const MaxRenew = 1000

// errPlaceLost is reported if a request goes on without the place that it had taken.
// Another request may have that place now.
var errPlaceLost = errors.New("the store has lost the place of a running request")

// leases renews the places that requests take in a shared store, for as long as their
// handlers run.
type leases struct {
	store     Store
	lease     time.Duration
	guard     *guard.Guard
	heartbeat *heartbeat.Heartbeat[*leasedPlace]
	// failed is called when a call has failed, and lost when a place is lost, each with the
	// context of a request.
	failed, lost func(context.Context, error)
}

// A leasedPlace is the place of a request.
type leasedPlace struct {
	Place
	request context.Context
	renewal heartbeat.Item[*leasedPlace]

	mu   sync.Mutex
	over bool // it is no longer renewed
}

func newLeases(s Store, lease, timeout time.Duration, failed, lost func(context.Context, error)) *leases {
	l := &leases{
		store: s, lease: lease, failed: failed, lost: lost,
		// A call that hangs times out early enough for others before the leases end.
		guard: guard.New(max(timeout, lease/slackPerLease), maxCalls).NeverOpen(),
	}
	l.heartbeat = heartbeat.New(lease/slackPerLease, MaxRenew, l.renew)
	return l
}

// begin starts to renew the place that c has taken.
func (l *leases) begin(request context.Context, c *Charge, taken time.Time) {
	p := &leasedPlace{Place: Place{c.Policy, c.Key, c.TakenBy}, request: request}
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
	lost, err := guard.Call(context.Background(), l.guard, func(ctx context.Context) ([]Place, error) {
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
		l.lost(p.request, fmt.Errorf("ratelimit: policy %q: %w", p.Policy, errPlaceLost))
	}
}
