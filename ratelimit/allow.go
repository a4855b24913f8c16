package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/usher-go/usher"
)

// Allow charges a cost under all policies of l, or under none if it does not fit. It is
// for code that has no request, such as the consumer of a queue, and for a handler that
// knows a key only after it has parsed the body:
//
//	if _, err := limiter.Allow(r.Context(), 1, ratelimit.TextKey(login)); err != nil {
//		usher.Fail(w, r, err)
//		return
//	}
//
// Keys are one key for all policies, or one for each, in their order; the policies of a
// parent come first. They and the cost stand for what Key, Applies and Cost of a policy
// return for a request. What is charged stays charged, so Count and Settle have no effect.
// Each call charges, whatever middlewares have charged for the same request. A cost of zero
// or less charges nothing and is never refused.
//
// Allow returns what is left under each policy that limits its key, for
// [Limiter.SetHeader] for instance. If the cost does not fit, it returns that and a
// [*RefusedError]. If the store fails, [Config.OnStoreFailure] decides, as it does for
// requests: the error of [FailClosed] matches what the store has returned, and under
// [DangerouslyFailOpen] nothing is known of what is left. If ctx has ended, Allow charges
// nothing and returns an error that matches the cause. [usher.Fail] responds to all these
// errors as the middleware does.
//
// Any other error is one of the program: for a wrong number of keys, for a [Concurrency]
// limit, whose place nobody would free, for LimitFor, which needs a request, and for the
// key of an account whose plan only its own requests carry; see [Config.PlanOf]. Log such
// errors: clients see no more than a 500.
func (l *Limiter) Allow(ctx context.Context, cost int, keys ...Key) ([]Usage, error) {
	if ctx.Err() != nil {
		return nil, l.canceledError(ctx)
	}
	for _, p := range l.policies {
		if p.Limit.algorithm == AlgorithmConcurrency {
			return nil, fmt.Errorf("%w: policy %q is a concurrency limit", errNoRequest, p.Name)
		}
	}
	d := l.pool.Get().(*decision)
	defer l.pool.Put(d)
	if err := l.gather(ctx, d, keys, cost, 0); err != nil {
		return nil, err
	}
	if len(d.Charges) > 0 {
		l.take(ctx, d)
	}
	switch {
	case d.Admitted:
		// A store that has decided has charged, even if ctx has ended meanwhile.
		l.count(ctx, d)
		return d.usages(), nil
	case d.canceled:
		l.decisions.Record(ctx, canceled)
		return nil, l.canceledError(ctx)
	case d.failed:
		return nil, l.refusal(d)
	default:
		l.count(ctx, d)
		return d.usages(), l.refusedError(d)
	}
}

// A RefusedError means that a cost does not fit under a policy, and that nothing was
// charged. [usher.Fail] responds to it as the middleware does to a refused request: with
// 429, Retry-After, and the code, the message and the names of the violated policies.
type RefusedError struct {
	// Policies are the names of the violated policies, sorted.
	Policies []string
	// Wait is the time until the cost fits, if nothing else is charged. It is negative if
	// the cost never fits, and 0 if the time is unknown, since running requests have
	// reserved what is missing. [Policy.Stagger] makes it longer.
	Wait time.Duration

	refusal *usher.Error
}

func (e *RefusedError) Error() string {
	return "ratelimit: refused by " + strings.Join(e.Policies, " and ")
}

// Unwrap returns the refusal for clients, an [*usher.Error].
func (e *RefusedError) Unwrap() error { return e.refusal }

// refusedError returns the error for a decision that is not admitted.
func (l *Limiter) refusedError(d *decision) *RefusedError {
	e := &RefusedError{Policies: violatedNames(d), refusal: l.refusal(d)}
	for i := range d.Charges {
		if c := &d.Charges[i]; c.Violated && !c.Shadow && longer(c.Wait, e.Wait) {
			e.Wait = c.Wait
		}
	}
	return e
}

// gather makes the charges of d for these keys. It returns the errors of a call that its
// caller must change, and those of limits that are not known.
func (l *Limiter) gather(ctx context.Context, d *decision, keys []Key, cost int, least int64) error {
	if err := l.accepts(keys); err != nil {
		return err
	}
	d.begin()
	var of Key // whose account that of d is
	for i, p := range l.policies {
		key := keys[min(i, len(keys)-1)]
		n := len(d.Charges)
		c := &d.slots[n]
		var err error
		c.Limit = p.Limit
		if p.varies {
			if !d.account.begun || key != of {
				d.account.ofKey(ctx, key)
				of = key
			}
			c.Limit, err = p.limit(ctx, nil, &d.account)
		}
		switch {
		case err == nil:
		case errors.Is(err, errNoRequest), errors.Is(err, errPlanOfKey):
			return err
		case !l.tolerates(ctx, d, p, err):
			if d.canceled {
				return l.canceledError(ctx)
			}
			return l.refusal(d)
		case !errors.Is(err, errPlanUnknown):
			continue // a shadow policy without a limit
		}
		if c.Limit.algorithm != AlgorithmUnlimited {
			p.fill(c, key)
			c.table = l.tables[i]
			c.Cost, c.MinRemaining = units(cost), least
			d.Charges = d.slots[:n+1]
			d.charged = append(d.charged, p)
		}
	}
	return nil
}

// accepts reports whether there are as many keys as there must be.
func (l *Limiter) accepts(keys []Key) error {
	if len(keys) != 1 && len(keys) != len(l.policies) {
		return fmt.Errorf("ratelimit: %d keys for %d policies: one for all is needed, or one for each", len(keys), len(l.policies))
	}
	return nil
}
