package ratelimit

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/telemetry"
)

// A Policy is one limit of a [Limiter]: whom it counts, and how much they may
// use. Name, Key and Limit are required.
type Policy struct {
	// Name names the policy in header fields, refusals and metrics: 1 to 64
	// letters, digits, dots, hyphens and underscores. It is unique among all
	// limiters that share a store, as the store tells counters apart by it.
	Name string
	// Key says whom the policy counts.
	Key KeyFunc
	// Limit is how much a key may use.
	Limit Limit
	// Plans are the limits for callers with these plans ([usher.Principal]), in
	// place of Limit.
	Plans map[string]Limit
	// LimitFor returns the limit for a request, in place of Limit and Plans; for
	// the zero Limit these apply. An invalid one is reported to Config.OnError, and
	// the request is refused with 503. It must be safe for concurrent use.
	//
	// All limits of a policy bound the same use of a key: what is charged under one
	// counts under the others too, so that a change of plan neither forgets nor
	// invents use. What should be counted apart, for instance each method, needs keys
	// or policies of its own.
	LimitFor func(*http.Request) Limit
	// Applies reports whether the policy counts the request; nil means always.
	Applies func(*http.Request) bool
	// Cost returns how many units the request takes; nil means one. A cost of
	// zero or less takes nothing and is never refused, unless Settle is set.
	Cost func(*http.Request) int
	// Count reports whether a response with this status is charged; nil means
	// always. The cost is taken before the handler runs, so that nobody gets past
	// the limit meanwhile, and given back if the response does not count. A handler
	// that panics counts as 500. If Count panics, the response is charged.
	Count func(status int) bool
	// Settle lets the handler change the cost by [Settle]. A request then needs at
	// least one unit to be left, also if its cost is zero. To keep requests at the
	// same time within the limit, let Cost reserve the most that one may need.
	Settle bool
	// Shadow makes the policy watch: it counts and reports but never refuses.
	Shadow bool
	// Unlisted keeps the policy out of the header fields.
	Unlisted bool
	// Code is the code of the refusal; empty means [usher.CodeRateLimited].
	Code string
	// Message is what a refused client is told; empty means a standard text.
	Message string
}

// policy is a Policy with all that can be made beforehand.
type policy struct {
	Policy
	item      string // in RateLimit-Policy, for Limit
	violated  map[string]any
	decisions *telemetry.Decisions
}

// The outcomes that are counted for a policy, and those counted for a limiter.
const (
	refused = iota
	shadowed
)

var policyOutcomes = []string{refused: "refused", shadowed: "shadow_refused"}

// validate returns every fault of p, whose place in the configuration is at.
func (p *Policy) validate(at string) error {
	var errs []error
	fault := func(bad bool, field, reason string) {
		if bad {
			errs = append(errs, &usher.ConfigError{Field: at + "." + field, Reason: reason})
		}
	}
	limit := func(field string, l Limit) {
		if err := p.accept(l); err != nil {
			fault(true, field, err.Error())
		}
	}
	fault(!validName(p.Name), "Name", "must be 1 to 64 letters, digits, dots, hyphens or underscores")
	fault(p.Key == nil, "Key", "required")
	limit("Limit", p.Limit)
	for plan, l := range p.Plans {
		limit(fmt.Sprintf("Plans[%q]", plan), l)
	}
	if p.Limit.algorithm == AlgorithmConcurrency {
		fault(p.Count != nil, "Count", "a concurrency limit holds no cost that an answer could give back")
		fault(p.Settle, "Settle", "a concurrency limit holds no cost to settle")
	}
	return errors.Join(errs...)
}

// accept returns every fault of l as a limit of p.
func (p *Policy) accept(l Limit) error {
	if err := l.validate(); err != nil {
		return err
	}
	places := l.algorithm == AlgorithmConcurrency
	always := l.algorithm == AlgorithmUnlimited || l.algorithm == AlgorithmNothing
	if places != (p.Limit.algorithm == AlgorithmConcurrency) && !always {
		return errors.New("a concurrency limit cannot stand in for another kind of limit")
	}
	return nil
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func compile(p Policy, c *Config) *policy {
	p.Plans = maps.Clone(p.Plans)
	if p.Code == "" {
		p.Code = usher.CodeRateLimited
		if p.Limit.algorithm == AlgorithmConcurrency {
			p.Code = usher.CodeTooManyConcurrent
		}
	}
	if p.Message == "" {
		p.Message = "Rate limit exceeded."
		if p.Limit.algorithm == AlgorithmConcurrency {
			p.Message = "Too many requests at the same time."
		}
	}
	return &policy{
		Policy:    p,
		item:      string(appendPolicyItem(nil, p.Name, &p.Limit)),
		violated:  map[string]any{"violated-policies": []string{p.Name}},
		decisions: newDecisions(c, policyOutcomes, p.Name),
	}
}

// limit returns the limit for r.
func (p *policy) limit(r *http.Request) (Limit, error) {
	if p.LimitFor != nil {
		if l := p.LimitFor(r); l != (Limit{}) {
			if err := p.accept(l); err != nil {
				return Limit{}, fmt.Errorf("ratelimit: LimitFor of policy %q: %w", p.Name, err)
			}
			return l, nil
		}
	}
	if p.Plans != nil {
		if caller, ok := usher.PrincipalFrom(r.Context()); ok {
			if l, ok := p.Plans[caller.Plan]; ok {
				return l, nil
			}
		}
	}
	return p.Limit, nil
}

// charge fills in c for r and reports whether the policy counts r.
func (p *policy) charge(c *Charge, r *http.Request) (bool, error) {
	if p.Applies != nil && !p.Applies(r) {
		return false, nil
	}
	key, ok := p.Key(r)
	if !ok {
		return false, nil
	}
	c.Key = key
	c.Limit = p.Limit
	if p.varies() {
		var err error
		if c.Limit, err = p.limit(r); err != nil {
			return false, err
		}
	}
	c.Cost = 1
	if p.Cost != nil {
		c.Cost = int64(min(max(p.Cost(r), 0), maxQuota))
	}
	c.Least = 0
	if p.Settle {
		c.Least = 1
	}
	c.Policy, c.Shadow = p.Name, p.Shadow
	return c.Limit.algorithm != AlgorithmUnlimited, nil
}

// varies reports whether the limit depends on the request.
func (p *policy) varies() bool { return p.LimitFor != nil || p.Plans != nil }

// outlives reports whether there is something to do after the handler.
func (p *policy) outlives() bool {
	return p.Count != nil || p.Settle || p.Limit.algorithm == AlgorithmConcurrency
}

// appendPolicyItem appends an item of RateLimit-Policy.
func appendPolicyItem(b []byte, name string, l *Limit) []byte {
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, `";q=`...)
	b = strconv.AppendInt(b, l.quota, 10)
	if l.algorithm == AlgorithmConcurrency {
		return append(b, `;qu="concurrent-requests"`...)
	}
	// A window must be a whole number of seconds, and may be left out.
	if w := l.Per(); w >= time.Second && w%time.Second == 0 {
		b = append(b, ";w="...)
		b = strconv.AppendInt(b, int64(w/time.Second), 10)
	}
	return b
}
