package ratelimit

import (
	"context"
	"errors"
	"fmt"

	"github.com/usher-go/usher"
)

// The errors of [Settle].
var (
	// ErrNotSettled means that the request has no charge to settle.
	ErrNotSettled = errors.New("ratelimit: not settled")
	// ErrExhausted is wrapped by every [*ExhaustedError].
	ErrExhausted = errors.New("ratelimit: exhausted")
)

// An ExhaustedError means that a key had less left than a request costs: everything that
// was left has been charged. It matches [ErrExhausted], and [usher.Fail] responds to it
// with the policy's 429.
type ExhaustedError struct {
	Policy string
	// Shortfall is the number of units of the cost that are not charged.
	Shortfall int64

	refusal *usher.Error
}

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("ratelimit: policy %q is exhausted: %d units are not charged", e.Policy, e.Shortfall)
}

// Unwrap returns ErrExhausted and the refusal for clients.
func (e *ExhaustedError) Unwrap() []error { return []error{ErrExhausted, e.refusal} }

// Settle sets what the request of ctx costs under a policy, once the handler has
// determined it. A lower cost than was charged refunds units, and a higher one charges
// more, as far as the key has any left. A cost of zero refunds everything. Settle may be
// called more than once and from any goroutine until the handler has returned. Units of a
// window that has ended are not refunded.
//
// If less than the cost was left, Settle charges what was left and returns an
// [*ExhaustedError], so that the handler can end a stream. The policy must have Settle
// set and must have admitted the request: otherwise Settle returns an error that matches
// [ErrNotSettled]. Any other error comes from the store, which may or may not have
// changed the charge; what it may have refunded is not refunded again.
func Settle(ctx context.Context, policy string, cost int) error {
	for pd := pendingIn(ctx); pd != nil; pd = pd.outer {
		if done, err := pd.settle(policy, int64(min(max(cost, 0), maxQuota))); done {
			return err
		}
	}
	return fmt.Errorf("%w: no charge of policy %q", ErrNotSettled, policy)
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
	if cost == c.Cost {
		return nil
	}
	change := *c
	change.Cost = cost - c.Cost
	d := Decision{Charges: []Charge{change}}
	if err := store.Adjust(context.Background(), &d); err != nil {
		c.Cost = min(c.Cost, cost)
		return fmt.Errorf("ratelimit: settle policy %q: %w", c.Policy, err)
	}
	c.Cost += d.Charges[0].Moved
	if short := cost - c.Cost; short > 0 {
		return &ExhaustedError{Policy: c.Policy, Shortfall: short, refusal: p.refusal()}
	}
	return nil
}
