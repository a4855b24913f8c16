package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/telemetry"
)

// A Policy is one limit of a [Limiter]: whom it counts, and how much they may use.
// Name, Key and Limit are required. [PerAddress] and [PerPrincipal] make simple ones.
type Policy struct {
	// Name names the policy in header fields, refusals and metrics: 1 to 64
	// letters, digits, dots, hyphens and underscores. It must be unique among all
	// limiters that share a store, in which it identifies the counters.
	Name string
	// Key returns whom the policy counts. [Limiter.Allow] does not call it.
	Key KeyFunc
	// Limit is what a key may use. [Unlimited] counts nothing, for instance where only some
	// Plans have a limit.
	Limit Limit
	// Plans are the limits for callers with these plans, in place of Limit. A plan is that
	// of the [usher.Principal], or what [Config.PlanOf] returns. Limit is that of callers
	// without a plan. It also applies to a plan that Plans does not have, which is then
	// reported to [Config.OnError].
	Plans map[string]Limit
	// LimitOf returns the limit of an account, in place of Plans and Limit, which apply if
	// it returns the zero Limit. It applies to callers with an Owner. Its results are kept
	// like those of [Config.PlanOf], for 10 seconds, with the same consequences of a failure.
	// It must be safe for concurrent use.
	LimitOf func(ctx context.Context, owner string) (Limit, error)
	// LimitFor returns the limit for a request, in place of all others, which apply if it
	// returns the zero Limit. It is called for each request, so a change of what it returns
	// applies at once. It must be safe for concurrent use.
	//
	// An invalid limit that LimitFor or LimitOf returns is reported to [Config.OnError],
	// and the request is refused with 503.
	//
	// All limits of a policy bound the same use of a key: what is charged under one
	// counts under the others too, so a change of plan neither forgets nor invents use.
	// To count requests apart, by method for instance, give them keys or policies of
	// their own.
	LimitFor func(*http.Request) Limit
	// Applies reports whether the policy counts the request; nil means always. It must be
	// safe for concurrent use.
	Applies func(*http.Request) bool
	// Cost returns how many units the request costs; nil means one. A cost of zero or
	// less is never refused, unless Settle is set. A cost above the limit can never be
	// covered: the request is refused without Retry-After, since no wait helps. If clients
	// determine the cost, refuse one that is too high with 400 before it reaches the limiter.
	// Cost must be safe for concurrent use.
	Cost func(*http.Request) int
	// Count reports whether a response with this status is charged; nil means always. The
	// cost is charged before the handler runs, so that concurrent requests stay within
	// the limit, and refunded if the response does not count. So the header fields of each
	// response say what is left with its charge, even if that is refunded. A handler that
	// panics counts as 500. If Count panics, the response is charged. Count must be safe for
	// concurrent use.
	Count func(status int) bool
	// Settle lets the handler change the cost with [Settle]. A request then needs at
	// least one unit to be left, even if its cost is zero. To keep concurrent requests
	// within the limit, let Cost reserve the most that one of them may need.
	//
	// In a store that several processes share, a cost above zero is only reserved while the
	// handler runs, and charged when it has returned. If the process dies meanwhile, the
	// reservation ends within [Config.Lease], and nothing is charged.
	Settle bool
	// Overrun is what happens to the units by which [Settle] exceeds what is left. The zero
	// value is [ForgiveOverrun].
	Overrun Overrun
	// Unit is what the policy counts, which clients find as the parameter qu of
	// RateLimit-Policy: for instance "content-bytes", the unit of bodies in bytes. Empty
	// means requests. It has up to 64 characters of printable ASCII, and must be empty for a
	// [Concurrency] limit, whose unit is "concurrent-requests".
	Unit string
	// Delay makes a request over the rate wait for its turn, for at most this long, instead
	// of being refused. Requests of a key get their turns at exactly the rate of the limit,
	// which must be a [TokenBucket] under every plan; its Burst is how many need no turn.
	// The line has room for what the key earns within Delay. If it is full, or the context
	// of the request ends before its turn, the request is refused, and Retry-After says when
	// there is room. Zero delays nothing. Count and Settle must not be set.
	//
	// A request takes its place in the line before it is charged, and waits once it is
	// admitted by all policies. If several of them delay it, it waits for the last turn. If
	// its client disconnects while it waits, it gives its charges back, and those behind it
	// move up. While it waits, a request holds a goroutine, its connection, and its places
	// of concurrency limits. At most 4,096 requests wait under a policy, and no more for a
	// key than its line has room for; further ones are refused.
	//
	// What is left for a client includes the room of the line, in the header fields and for
	// OnDecision: a bucket of 5 a second with a burst of 1 and a Delay of a second has a
	// burst of 6.
	//
	// [Limiter.Allow] and [Limiter.Peek] decide at once, as if Delay were zero.
	//
	// Each process has lines of its own. Over a store that processes share, a key has turns
	// at the rate in each process, and all of them together admit no more than the rate and
	// a burst of Burst and the room of one line.
	Delay time.Duration
	// Shadow makes the policy count, but never refuse or delay. It is reported to operators
	// only: clients, which would obey it, do not find it in the header fields. Each decision
	// of the store is then a call of its own; see [Config.Store].
	Shadow bool
	// Hidden keeps the policy out of the header fields.
	Hidden bool
	// Stagger is for keys that many clients share, such as [Global] or [ByRoute]: clients
	// that are refused are asked to wait one after another, no faster than the rate of the
	// limit, so that they do not all come back at the same time. No wait is shorter than without
	// Stagger, and none is longer by more than a minute, or by the period of the limit if
	// that is longer, up to an hour. A [Concurrency] limit is expected to free each place
	// after a second. Each process staggers the clients that it refuses itself, for the
	// last 1,024 keys or fewer of a policy.
	Stagger bool
	// Code is the code of the refusal; empty means [usher.CodeRateLimited].
	Code string
	// Message is the message of the refusal; empty means a standard text.
	Message string
}

// PerAddress returns a policy named "address" that admits quota requests from each client
// address in any period of length per. See [ByAddress] and [RollingWindow]. If a request
// passes two such policies, give one of them another Name: clients read the names in the
// header fields.
func PerAddress(quota int, per time.Duration) Policy {
	return Policy{Name: "address", Key: ByAddress(), Limit: RollingWindow(quota, per)}
}

// PerPrincipal returns a policy named "principal" that admits quota requests from each
// caller in any period of length per. See [ByPrincipal] and [RollingWindow].
func PerPrincipal(quota int, per time.Duration) Policy {
	return Policy{Name: "principal", Key: ByPrincipal(), Limit: RollingWindow(quota, per)}
}

// A policy is a Policy with everything that can be computed in advance.
type policy struct {
	Policy
	holds     bool               // a cost in the store is reserved until the handler returns
	limits    *ownerCache[Limit] // of LimitOf
	varies    bool               // the limit depends on the request
	item      string             // in RateLimit-Policy, for Limit
	final     bool               // what is charged stays charged
	violated  map[string]any
	decisions *telemetry.Decisions
	verdicts  *telemetry.Decisions
	running   atomic.Int64 // requests with a place
	staggerer *staggerer   // nil without Stagger
	pacers    *pacers      // nil if the policy delays nothing
}

// validate adds the faults of p to c.
func (p *Policy) validate(c config.Faults[usher.ConfigError]) {
	c.If(!validName(p.Name), "Name", "must be 1 to 64 letters, digits, dots, hyphens or underscores")
	c.If(p.Key == nil, "Key", config.Required)
	c.If(!validText(p.Unit) || len(p.Unit) > 64, "Unit", "must be up to 64 characters of printable ASCII")
	c.If(p.Delay < 0, "Delay", config.NotNegative)
	c.If(p.Delay > 0 && (p.Count != nil || p.Settle), "Delay",
		"must be zero if Count or Settle is set, as a turn is used before the outcome is known")
	limit := func(field string, l Limit) {
		for _, reason := range p.faultsOf(l) {
			c.Add(field, reason)
		}
	}
	limit("Limit", p.Limit)
	for _, plan := range slices.Sorted(maps.Keys(p.Plans)) {
		limit(fmt.Sprintf("Plans[%q]", plan), p.Plans[plan])
	}
	c.If(p.Overrun > OweOverrun, "Overrun", "must be one of the Overruns")
	c.If(p.Overrun == OweOverrun && !p.Settle, "Overrun", "must be ForgiveOverrun unless Settle is set")
	if p.Limit.algorithm == AlgorithmConcurrency {
		c.If(p.Count != nil, "Count", "must be nil for a concurrency limit, which gives every place back")
		c.If(p.Settle, "Settle", "must be false for a concurrency limit, which gives every place back")
		c.If(p.Unit != "", "Unit", "must be empty for a concurrency limit, which counts concurrent requests")
	}
}

// faultsOf returns what is wrong with l as a limit of p.
func (p *Policy) faultsOf(l Limit) []string {
	if reasons := l.faults(); len(reasons) > 0 {
		return reasons
	}
	places := l.algorithm == AlgorithmConcurrency
	always := l.algorithm == AlgorithmUnlimited || l.algorithm == AlgorithmNothing
	if places != (p.Limit.algorithm == AlgorithmConcurrency) && !always {
		return []string{"must be a concurrency limit if and only if Policy.Limit is one"}
	}
	if p.Overrun == OweOverrun && l.algorithm != AlgorithmTokenBucket && !always {
		return []string{"must be a token bucket, since Overrun is OweOverrun"}
	}
	if !always {
		return p.faultsOfDelay(l)
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
	p.Hidden = p.Hidden || p.Shadow
	code, message := usher.CodeRateLimited, "Rate limit exceeded."
	if p.Limit.algorithm == AlgorithmConcurrency {
		code, message = usher.CodeTooManyConcurrent, "Too many requests at the same time."
	}
	p.Code, p.Message = cmp.Or(p.Code, code), cmp.Or(p.Message, message)
	compiled := &policy{
		Policy:    p,
		varies:    p.LimitFor != nil || p.LimitOf != nil || p.Plans != nil,
		final:     !p.outlives() && p.Delay == 0,
		holds:     p.Settle && shares(c.Store),
		violated:  violatedPolicies(p.Name),
		decisions: requests.Decisions(c.MeterProvider, policyName.String(p.Name)),
		verdicts:  policyDecisions.Decisions(c.MeterProvider, policyName.String(p.Name)),
	}
	if p.Limit.algorithm == AlgorithmConcurrency {
		telemetry.Observe(concurrentRequests, c.MeterProvider, compiled,
			func(p *policy) int64 { return p.running.Load() }, policyName.String(p.Name))
	}
	if p.Stagger {
		compiled.staggerer = newStaggerer()
	}
	limit := p.Limit.delayed(p.Delay)
	compiled.item = string(compiled.appendItem(nil, &limit))
	if p.Delay > 0 && !p.Shadow {
		compiled.pacers = newPacers()
	}
	return compiled
}

// charge fills in c for r, which a makes, and reports whether the policy counts r. An
// error that matches errPlanUnknown changes neither.
func (p *policy) charge(c *Charge, r *http.Request, a *account) (bool, error) {
	if p.Applies != nil && !p.Applies(r) {
		return false, nil
	}
	key, ok := p.Key(r)
	if !ok {
		return false, nil
	}
	var err error
	c.Limit = p.Limit
	if p.varies {
		c.Limit, err = p.limit(r.Context(), r, a)
		if err != nil && !errors.Is(err, errPlanUnknown) {
			return false, err
		}
	}
	if p.Delay > 0 {
		c.Limit = c.Limit.delayed(p.Delay)
	}
	c.Cost = 1
	if p.Cost != nil {
		c.Cost = units(p.Cost(r))
	}
	c.MinRemaining = 0
	if p.Settle {
		c.MinRemaining = 1
	}
	p.fill(c, key)
	c.Hold = p.holds && c.Cost > 0
	return c.Limit.algorithm != AlgorithmUnlimited, err
}

// fill sets what every charge under p has in common, and what an earlier one may have left.
func (p *policy) fill(c *Charge, key Key) {
	c.Policy, c.Key, c.Shadow, c.final = p.Name, key, p.Shadow, p.final
	c.Hold, c.EndHold, c.Overdraw, c.overrun = false, false, false, 0
}

// units returns a cost in the range of costs.
func units(cost int) int64 { return int64(min(max(cost, 0), maxQuota)) }

// outlives reports whether the policy acts after the handler.
func (p *Policy) outlives() bool {
	return p.Count != nil || p.Settle || p.Limit.algorithm == AlgorithmConcurrency
}

// appendItem appends the item of RateLimit-Policy for p under l.
func (p *policy) appendItem(b []byte, l *Limit) []byte {
	b = append(b, '"')
	b = append(b, p.Name...)
	b = append(b, `";q=`...)
	b = strconv.AppendInt(b, l.quota, 10)
	if l.algorithm == AlgorithmConcurrency {
		return append(b, `;qu="concurrent-requests"`...)
	}
	if p.Unit != "" {
		b = append(b, ";qu="...)
		b = appendText(b, p.Unit)
	}
	// A window must be a whole number of seconds, and may be left out.
	if w := l.Per(); w >= time.Second && w%time.Second == 0 {
		b = append(b, ";w="...)
		b = strconv.AppendInt(b, int64(w/time.Second), 10)
	}
	if l.algorithm == AlgorithmTokenBucket && l.burst != l.quota && l.quota > 0 {
		b = append(b, ";usher-burst="...)
		b = strconv.AppendInt(b, l.burst, 10)
	}
	return b
}

// validText reports whether a String of RFC 9651, section 3.3.3 can hold s.
func validText(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// appendText appends s as a String of RFC 9651, section 4.1.6.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}
