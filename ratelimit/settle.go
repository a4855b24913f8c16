package ratelimit

import (
	"context"
	"errors"
	"fmt"

	"github.com/usher-go/usher"
)

// The errors of [Settle].
var (
	// ErrNotSettled means that the request has no charge to settle, or that its handler has
	// returned.
	ErrNotSettled = errors.New("ratelimit: not settled")
	// ErrExhausted is wrapped by every [*ExhaustedError].
	ErrExhausted = errors.New("ratelimit: exhausted")
)

// An Overrun is what happens to the units by which [Settle] exceeds what is left. Under
// either, the next request is refused until at least one unit is left again.
type Overrun uint8

// The overruns.
const (
	// ForgiveOverrun charges what is left, and nothing for the rest. So each request may use
	// more than the limit by as much as it has not reserved. Under a [RollingWindow] or a
	// [CalendarWindow], requests that reserve nothing and use 900 units each use 1,800 of
	// 1,000. Under a [TokenBucket], they come one for each token that is earned, and nothing
	// bounds what they use.
	ForgiveOverrun Overrun = iota
	// OweOverrun charges all units under a [TokenBucket], which must earn the missing ones
	// before it admits another request: over time a key uses no more than the bucket earns.
	// All limits of the policy must be token buckets.
	OweOverrun
)

// An ExhaustedError means that a key had less left than a request costs: everything that
// was left has been charged. It matches [ErrExhausted], and [usher.Fail] responds to it
// with the policy's 429.
type ExhaustedError struct {
	// Policy is the name of the policy.
	Policy string
	// Shortfall is the number of units of the cost that were not left. They are not charged,
	// or are charged beyond the limit if the policy has [OweOverrun].
	Shortfall int64

	refusal *usher.Error
}

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("ratelimit: policy %q is exhausted: %d units were not left", e.Policy, e.Shortfall)
}

// Unwrap returns ErrExhausted and the refusal for clients.
func (e *ExhaustedError) Unwrap() []error { return []error{ErrExhausted, e.refusal} }

// Settle sets what the request of ctx costs under a policy, once the handler has
// determined it. A lower cost than was charged refunds units, and a higher one charges
// more, as far as the key has any left. A cost of zero refunds everything. Settle may be
// called more than once and from any goroutine until the handler has returned; calls take
// effect one after another, and the last one counts. Units of a window that has ended are
// not refunded.
//
// A lower cost also gives up the rest of what [Policy.Cost] has reserved, to other requests.
// So a stream that reserves the most that it may need, and must not be cut, calls Settle
// once, at its end: in a deferred function, as its client may disconnect. A stream that
// reserves nothing calls Settle as units are used, and ends when nothing is left. A request
// that is not settled is charged its Cost. Settle has the same effect after ctx has ended.
//
// If less than the cost was left, Settle charges what was left, and the rest as
// [Policy.Overrun] says. It returns an [*ExhaustedError] under either Overrun, so that the
// handler can end a stream. The policy must have Settle set and must have admitted the
// request: otherwise Settle returns an error that matches [ErrNotSettled]. Any other error
// comes from the store, which may or may not have changed the charge; what it may have
// refunded is not refunded again.
func Settle(ctx context.Context, policy string, cost int) error {
	for pd := pendingIn(ctx); pd != nil; pd = pd.outer {
		if done, err := pd.settle(policy, int64(min(max(cost, 0), maxQuota))); done {
			return err
		}
	}
	return fmt.Errorf("%w: the request of this context has no charge of a policy %q with Settle", ErrNotSettled, policy)
}

func (pd *pending) settle(policy string, cost int64) (done bool, err error) {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	d := pd.decision
	if d == nil {
		return false, nil
	}
	for i := range d.Charges {
		if c := &d.Charges[i]; c.Policy == policy && !c.Violated && d.charged[i].Settle {
			return true, c.settle(d.store, d.charged[i], cost)
		}
	}
	return false, nil
}

// settle changes the charge to this cost, as far as the store permits.
func (c *Charge) settle(store adjuster, p *policy, cost int64) error {
	settle := c.settleCharge
	if c.Hold {
		settle = c.settleHold
	}
	short, err := settle(store, p, cost)
	if err != nil {
		return fmt.Errorf("ratelimit: settle policy %q: %w", c.Policy, err)
	}
	if short > 0 {
		return &ExhaustedError{Policy: c.Policy, Shortfall: short, refusal: p.refusal()}
	}
	return nil
}

// settleCharge changes what c has charged, its Cost and the overrun, to this cost. It returns
// how much of the cost was not left.
func (c *Charge) settleCharge(store adjuster, p *policy, cost int64) (short int64, err error) {
	change := cost - c.Cost - c.overrun
	moved, err := c.adjustBy(store, change, false)
	if err != nil {
		c.overrun = min(c.overrun, max(cost-c.Cost, 0))
		c.Cost = min(c.Cost, cost)
		return 0, err
	}
	if moved < 0 { // the overrun is refunded first
		back := min(c.overrun, -moved)
		c.overrun -= back
		moved += back
	}
	c.Cost += moved
	if change > 0 && p.Overrun == OweOverrun {
		beyond, err := c.adjustBy(store, change-moved, true)
		if err != nil {
			return 0, err
		}
		c.overrun += beyond
	}
	return max(cost-c.Cost, 0), nil
}

// settleHold changes what c has reserved to this cost, which is charged when the request
// ends. It returns how much of the cost was not left.
func (c *Charge) settleHold(store adjuster, p *policy, cost int64) (short int64, err error) {
	if cost == 0 {
		return 0, c.endHold(store)
	}
	change := cost - c.Cost
	moved, err := c.adjustBy(store, change, false)
	if change < 0 {
		moved = change // whatever has become of the reservation, no more is charged
	}
	c.Cost += moved
	c.overrun = 0
	if err != nil {
		return 0, err
	}
	short = cost - c.Cost
	if p.Overrun == OweOverrun {
		c.overrun = short
	}
	return short, nil
}

// endHold frees what c has reserved. What is settled after that is charged at once.
func (c *Charge) endHold(store adjuster) error {
	if s, ok := store.(*sharedStore); ok {
		s.leases.end(c)
	}
	end := *c
	end.finish(0, false)
	c.Cost, c.overrun = 0, 0
	err := store.Adjust(context.Background(), &Decision{Charges: []Charge{end}})
	c.Hold = err != nil
	return err
}

// adjustBy adjusts by this number of units what c has charged or reserved, and returns how many
// have moved.
func (c *Charge) adjustBy(store adjuster, units int64, overdraw bool) (moved int64, err error) {
	if units == 0 {
		return 0, nil
	}
	change := *c
	change.Cost, change.Overdraw = units, overdraw
	d := Decision{Charges: []Charge{change}}
	if err := store.Adjust(context.Background(), &d); err != nil {
		return 0, err
	}
	return d.Charges[0].Moved, nil
}
