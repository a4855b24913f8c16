package ratelimit

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// A Usage is what a key has left under one policy.
type Usage struct {
	// Policy is the name of the policy.
	Policy string
	// Limit is what the key may use, for instance under its plan.
	Limit Limit
	// Remaining is how many units are left.
	Remaining int64
	// Reset is the time until more are left, and for a [CalendarWindow] always the time
	// until the window ends. It is 0 if all are left, and for a [Concurrency] limit, whose
	// places become free at no known time.
	Reset time.Duration
	// Violated reports that the cost of [Limiter.Allow] does not fit, or to [Limiter.Peek]
	// that nothing is left.
	Violated bool
	// Wait is the time until the cost fits, or until a unit is left, if nothing else is
	// charged. It is 0 unless Violated is set and if that time is unknown, and negative if
	// no wait helps.
	Wait time.Duration
	// Hidden is set for a policy that is Hidden or in Shadow: do not show it to clients.
	Hidden bool

	policy *policy
}

// usages returns what is left under the policies of d. The caller may keep it.
func (d *decision) usages() []Usage {
	if len(d.Charges) == 0 {
		return nil
	}
	usages := make([]Usage, len(d.Charges))
	for i, p := range d.charged {
		c := &d.Charges[i]
		usages[i] = Usage{
			Policy: c.Policy, Limit: c.Limit, Remaining: c.Remaining, Reset: c.Reset,
			Violated: c.Violated, Hidden: p.Hidden, policy: p,
		}
		if c.Violated {
			usages[i].Wait = c.Wait
		}
	}
	return usages
}

// Peek returns what keys have left, and charges, counts and stores nothing. It is for a
// route that shows callers their usage, and for support:
//
//	usage, err := limiter.Peek(ctx, ratelimit.OwnerKey("acme"))
//
// Keys are as for [Limiter.Allow], and so are its errors, with two differences. Peek also
// reports how many places of a [Concurrency] limit are free. If the store fails, its error
// is returned whatever [Config.OnStoreFailure] is. A policy that does not limit its key
// has no Usage.
func (l *Limiter) Peek(ctx context.Context, keys ...Key) ([]Usage, error) {
	if ctx.Err() != nil {
		return nil, l.canceledError(ctx)
	}
	d := l.pool.Get().(*decision)
	defer l.pool.Put(d)
	if err := l.gather(ctx, d, keys, 0, 1); err != nil {
		return nil, err
	}
	if len(d.Charges) == 0 {
		return nil, nil
	}
	d.Peek = true
	take := l.memory.Take
	if l.shared != nil {
		take = l.shared.Take
	}
	if err := take(ctx, &d.Decision); err != nil {
		return nil, l.unavailable(fmt.Errorf("ratelimit: peek: %w", err))
	}
	return d.usages(), nil
}

// SetHeader sets the header fields that [Config.Headers] names, as for a request with this
// usage: what [Limiter.Allow] or [Limiter.Peek] of l has returned.
func (l *Limiter) SetHeader(h http.Header, usage []Usage) {
	d := l.pool.Get().(*decision)
	defer l.pool.Put(d)
	d.begin()
	for i := range usage {
		u := &usage[i]
		if u.policy == nil || len(d.charged) == len(l.policies) {
			continue
		}
		d.charged = append(d.charged, u.policy)
		d.Charges = d.slots[:len(d.charged)]
		d.slots[len(d.charged)-1] = Charge{
			Policy: u.Policy, Limit: u.Limit, Shadow: u.policy.Shadow,
			Remaining: u.Remaining, Reset: u.Reset, Violated: u.Violated, Wait: u.Wait,
		}
	}
	l.setHeader(h, d, nil)
}
