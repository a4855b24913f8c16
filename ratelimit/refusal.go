package ratelimit

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// The problem types of draft-ietf-httpapi-ratelimit-headers-11, sections 5.1 and 5.2. Both
// define the member "violated-policies".
const (
	quotaExceeded   = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	reducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
)

// refusal returns the error for a refused request: that of the policy with the longest
// wait, with the names of all violated policies.
func (l *Limiter) refusal(d *decision) *usher.Error {
	if d.failed {
		return l.unavailable(d.cause)
	}
	worst, violations := d.worst()
	p, c := d.charged[worst], &d.Charges[worst]
	e := p.refusal()
	if violations > 1 {
		e.Details = violatedPolicies(violatedNames(d)...)
	}
	if !l.config.OmitRetryAfter {
		e.RetryAfter = retryAfter(c)
	}
	return e
}

// worst returns the index of the violated policy with the longest wait, and the number of
// violated policies.
func (d *decision) worst() (worst, violations int) {
	for i := range d.Charges {
		c := &d.Charges[i]
		if !c.Violated || c.Shadow {
			continue
		}
		if violations++; violations == 1 || longer(c.Wait, d.Charges[worst].Wait) {
			worst = i
		}
	}
	return worst, violations
}

// refusal returns the error for a request that violates p.
func (p *policy) refusal() *usher.Error {
	return &usher.Error{
		Status: http.StatusTooManyRequests, Code: p.Code, Type: quotaExceeded, Message: p.Message, Details: p.violated,
	}
}

// violatedPolicies returns the details of a refusal.
func violatedPolicies(policies ...string) map[string]any {
	return map[string]any{"violated-policies": policies}
}

// unavailable returns the error for a request that could not be decided.
func (l *Limiter) unavailable(cause error) *usher.Error {
	e := &usher.Error{
		Status:  http.StatusServiceUnavailable,
		Code:    usher.CodeRateLimitUnavailable,
		Type:    reducedCapacity,
		Message: "The request could not be checked against its limits. Please try again.",
		Cause:   cause,
	}
	if !l.config.OmitRetryAfter {
		e.RetryAfter = time.Second
	}
	return e
}

// canceledError returns the error for a request that ended during its decision.
func (l *Limiter) canceledError(ctx context.Context) *usher.Error {
	if !exchange.Left(ctx) {
		return l.unavailable(context.Cause(ctx))
	}
	return &usher.Error{
		Status: usher.StatusClientClosedRequest, Code: usher.CodeClientClosedRequest,
		Message: "The client has closed the request.", Cause: context.Cause(ctx),
	}
}

// longer reports whether the wait a is longer than b; a negative wait never ends.
func longer(a, b time.Duration) bool {
	if a < 0 || b < 0 {
		return a < 0 && b >= 0
	}
	return a > b
}

// retryAfter returns how long to wait, or 0 if no wait would help. A place of a
// concurrency limit may become free at any time.
func retryAfter(c *Charge) time.Duration {
	switch {
	case c.Wait < 0:
		return 0
	case c.Wait == 0:
		return freePlace
	default:
		return c.Wait
	}
}

func violatedNames(d *decision) []string {
	var names []string
	for i := range d.Charges {
		if c := &d.Charges[i]; c.Violated && !c.Shadow {
			names = append(names, c.Policy)
		}
	}
	slices.Sort(names)
	return names
}
