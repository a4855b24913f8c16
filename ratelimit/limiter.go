package ratelimit

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/telemetry"
)

// Config configures a [Limiter]. Policies are required.
type Config struct {
	// Policies are decided together: a request is admitted if its cost fits under all
	// of them, and a refused request is charged to none. At most 16.
	Policies []Policy
	// Store keeps the counters; nil means a [Memory] of its own. While a store that
	// processes share is deciding, other decisions of this process about the same keys,
	// limits and costs wait for at most a quarter of StoreTimeout, and then go to it as one
	// call. Each gets the result of a call of its own. Policies with Shadow or a
	// [Concurrency] limit have a call for each decision.
	Store Store
	// OnStoreFailure chooses what happens while the store fails. The zero value is
	// [FallBackToMemory].
	OnStoreFailure FailureMode
	// StoreTimeout is how long a decision may wait for the store; zero means 100
	// milliseconds. It holds even if the store ignores its context. At most 128 decisions
	// call the store at a time, including calls that hang; 16 times as many may wait for
	// their turn, for at most half the timeout.
	//
	// What a request has not used is refunded in the background, so that its response does
	// not wait for the store: places, and charges under policies with Count or Settle. A
	// decision waits for the refunds of its keys that this process is making, within the
	// timeout and for at most half of it. See [Limiter.Shutdown].
	//
	// If, of at least 10 calls within 2 seconds, half have timed out or four in five have
	// failed, decisions stop calling the store, except for one a second, until a call
	// succeeds. None of this applies to a Memory, which does not wait.
	StoreTimeout time.Duration
	// Lease is how long two things outlast this process in Store if it dies: a place of a
	// [Concurrency] limit, and what a request has reserved under a policy with Settle. Both are
	// renewed after a third of it, for as long as the handler of the request runs. Zero
	// means 10 seconds, or three times StoreTimeout if that is longer. Lease must be at
	// least three times StoreTimeout and at most a day. It has no effect on a Memory, which
	// ends with the process.
	Lease time.Duration
	// CacheDenials is for how long a refusal by Store is repeated without asking it, at
	// most until its wait has passed; zero means never. It takes the load of clients that
	// ignore refusals from the store. The refusal is exact, and its header fields are as old
	// as it is. If another process resets the key or refunds a charge, this process notices
	// that when the time is over. CacheDenials does not apply if a violated policy has Count
	// or Settle or a [Concurrency] limit, nor to a Memory.
	CacheDenials time.Duration
	// Headers are the header fields that describe the limits to clients.
	Headers Headers
	// PlanOf returns the plan of an account, in place of the Plan of the
	// [usher.Principal], which is that of its credential. It applies to policies with
	// Plans, and to callers with an Owner. All policies of a decision see the same plan.
	//
	// A plan is kept for 10 seconds, for up to 10,000 accounts, and requests of one account
	// share a call. So each process notices a change within 10 seconds. While PlanOf fails,
	// panics or takes longer than a second, the account keeps the last plan until that is an
	// hour old, and the failure is reported. Without a last plan, the request is refused with
	// 503. PlanOf must be safe for concurrent use; its context has the values of a request,
	// but does not end with it.
	PlanOf func(ctx context.Context, owner string) (plan string, err error)
	// OnError is called with the context of a request, which may have ended, for each failure
	// of the store, each place that the store has lost, each invalid limit, each unknown plan,
	// each failure of PlanOf or of a LimitOf, and each panic of Count or OnDecision. Nil
	// logs them to [log/slog.Default], at most one a second; of a panic it logs only the
	// type and the stack. It must be safe for concurrent use.
	OnError func(ctx context.Context, err error)
	// OmitRetryAfter leaves Retry-After out of refusals.
	OmitRetryAfter bool
	// Exempt reports whether a request passes without being counted, and Block whether
	// it is refused with 403. Block is called first. [clientip.In] returns such functions.
	// Behind proxies they need a [clientip.Resolver], without which every request comes from
	// the address of the proxy. They must be safe for concurrent use. Nil means no request.
	Exempt, Block func(*http.Request) bool
	// OnDecision is called for each decision about a request, before the handler runs, and
	// for each call of [Limiter.Allow]: once for each policy that counts, with its verdict.
	// It is not called for [Limiter.Peek], nor if no limit could be applied. The request
	// waits for it. [LogDecisions] returns such a function. Nil costs nothing. A panic is
	// reported to OnError, and does not change the decision. OnDecision must be safe for
	// concurrent use.
	OnDecision func(context.Context, Verdict)
	// MeterProvider counts decisions as usher.rate_limiting.requests; nil means the global
	// one. The attribute usher.rate_limiting.result says what has become of a request:
	//
	//   - acquired: it is admitted
	//   - exempt and blocked: by the functions of these names
	//   - canceled: its client disconnected, or its time ran out, before it was decided or
	//     while it waited for its turn
	//   - store_failed: Store has failed, so OnStoreFailure decides
	//   - place_lost: Store has lost a place or a reservation of a running request
	//   - plan_unknown, plan_failed and limit_invalid: what OnError reports
	//
	// What one policy decides also has the attribute usher.rate_limiting.policy:
	//
	//   - refused, and shadow_refused under Shadow
	//   - delayed: the request waits for its turn under Delay
	//   - near_limit: it is admitted, and less than a fifth of the quota is left, or of the
	//     burst of a [TokenBucket]
	//
	// A span that is being recorded has the same attributes, the policy being the one with
	// the longest wait, and usher.rate_limiting.violated_policies.
	MeterProvider metric.MeterProvider
}

// A FailureMode is what a [Limiter] does while its store fails. One call that takes longer
// than [Config.StoreTimeout] is a failure too.
type FailureMode uint8

const (
	// FallBackToMemory applies the limits in this process alone, by counts of its own. These
	// know nothing of what the store has counted, and the store never learns of what is
	// charged to them. So each process admits up to the whole limit once more.
	FallBackToMemory FailureMode = iota
	// DangerouslyFailOpen admits every request, and charges nothing.
	DangerouslyFailOpen
	// FailClosed refuses every request with 503. It is the mode for a budget that must not
	// be exceeded while the store fails.
	FailClosed
)

// A Limiter decides requests over several policies at once. It is a
// [usher.Middleware], is safe for concurrent use, and never changes.
//
// To give a route its own limits, wrap it with a limiter that [Limiter.With] or
// [Limiter.Only] returns, instead of the parent. Limiters derived from one another or
// from a common parent make one decision even when nested, and so does a limiter inside
// itself. The inner limiter charges only what the outer ones have not charged, Only
// refunds what they have charged under policies other than its own, and a refusal refunds
// everything. A refusal by an outer limiter is final.
//
// A request that passes twice through one handler that Wrap has returned is charged
// twice. This happens if a handler serves the request again, or if one
// usher.Adapt(limiter.Wrap) is mounted in two places.
type Limiter struct {
	config   Config
	policies []*policy
	lasting  bool   // a policy acts after the handler
	fixed    bool   // no policy has a limit that depends on the request
	delays   bool   // a policy delays requests
	listed   string // RateLimit-Policy, if fixed
	memory   *Memory
	tables   []*table     // of policies, in memory
	shared   *sharedStore // nil if the store is a Memory
	family   *family
	plans    *ownerCache[string] // nil without Config.PlanOf
	only     bool                // its policies replace those of outer limiters

	failures  *report.Reporter
	decisions *telemetry.Decisions
	pool      *sync.Pool
	blocked   *usher.Error
	// mounted is set once l wraps a handler, and nested once l may be inside itself: it
	// wraps several handlers, or an adapter calls it.
	mounted, nested atomic.Bool
}

// A family is the state that a limiter shares with those derived from it.
type family struct {
	mu    sync.Mutex
	names map[string]bool
	// related is set once the family has two limiters.
	related atomic.Bool
}

// New returns a limiter. It reports every fault of c at once, each as a
// [*usher.ConfigError].
func New(c Config) (*Limiter, error) {
	faults := config.Of[usher.ConfigError]("ratelimit.Config")
	faults.If(c.OnStoreFailure > FailClosed, "OnStoreFailure", "must be one of the FailureModes")
	faults.If(c.StoreTimeout < 0, "StoreTimeout", config.NotNegative)
	faults.If(c.CacheDenials < 0, "CacheDenials", config.NotNegative)
	faults.If(c.Headers > NoHeaders, "Headers", "must be one of the Headers")
	c.StoreTimeout = cmp.Or(c.StoreTimeout, 100*time.Millisecond)
	c.Lease = cmp.Or(c.Lease, max(10*time.Second, 3*c.StoreTimeout))
	faults.If(c.Lease < max(3*c.StoreTimeout, 0), "Lease", "must be at least three times StoreTimeout")
	faults.If(c.Lease > 24*time.Hour, "Lease", "must be at most a day")
	l := &Limiter{config: c, family: &family{names: make(map[string]bool)}}
	l.config.Policies = nil
	if err := l.add(faults, "Policies", c.Policies); err != nil {
		return nil, err
	}
	l.failures = report.New("ratelimit", c.OnError)
	l.decisions = newDecisions(&c, limiterOutcomes, "")
	var ok bool
	if l.memory, ok = c.Store.(*Memory); !ok {
		l.memory = newMemory(defaultKeys)
	}
	if shares(c.Store) {
		l.shared = newSharedStore(&c, l.failures.Error, l.lost)
	}
	if c.PlanOf != nil {
		l.plans = newOwnerCache("PlanOf", c.PlanOf, l.stale)
	}
	l.finish()
	return l, nil
}

// lost counts and reports that a request has lost its place in the store.
func (l *Limiter) lost(ctx context.Context, err error) {
	l.decisions.Count(ctx, placeLost)
	l.failures.Error(ctx, err)
}

// With returns a limiter that decides the policies of l and the given ones together, for
// a route with additional limits. It shares the rest of the configuration of l, and the
// counters. The names of the given policies must be new to all limiters derived from one
// another.
//
// A limiter of fewer policies than another one uses must therefore be the parent. If a login
// is limited by name and by address, for instance, the support desk needs a limiter of the
// names alone, to peek at them and to reset them.
func (l *Limiter) With(policies ...Policy) (*Limiter, error) {
	return l.derive(false, policies)
}

// Only returns a limiter for a route whose policies replace those of l. It shares the
// rest of the configuration of l, its store included. The names of the policies must be
// new, as for [Limiter.With].
func (l *Limiter) Only(policies ...Policy) (*Limiter, error) {
	return l.derive(true, policies)
}

func (l *Limiter) derive(only bool, policies []Policy) (*Limiter, error) {
	d := &Limiter{
		config: l.config, memory: l.memory, shared: l.shared, family: l.family,
		plans: l.plans, only: only, failures: l.failures, decisions: l.decisions,
	}
	method := "Only"
	if !only {
		method = "With"
		d.policies = slices.Clone(l.policies)
	}
	if err := d.add(config.Of[usher.ConfigError]("ratelimit.Limiter"), method, policies); err != nil {
		return nil, err
	}
	d.finish()
	l.family.related.Store(true)
	return d, nil
}

// add validates and compiles the policies of a field, and records their names. It returns
// all faults.
func (l *Limiter) add(faults config.Faults[usher.ConfigError], field string, policies []Policy) error {
	faults.If(len(policies) == 0, field, config.Required)
	faults.If(len(l.policies)+len(policies) > maxCharges, field,
		fmt.Sprintf("must not have more than %d policies in one decision", maxCharges))
	l.family.mu.Lock()
	defer l.family.mu.Unlock()
	names := make(map[string]bool)
	for i := range policies {
		p := &policies[i]
		at := faults.In(fmt.Sprintf("%s[%d]", field, i))
		p.validate(at)
		at.If(l.family.names[p.Name] || names[p.Name], "Name",
			fmt.Sprintf("must be unique: another policy over this store is named %q", p.Name))
		names[p.Name] = true
	}
	if err := faults.Err(); err != nil {
		return err
	}
	for i := range policies {
		l.policies = append(l.policies, compile(policies[i], &l.config))
		l.family.names[policies[i].Name] = true
	}
	return nil
}

// finish computes what requests need.
func (l *Limiter) finish() {
	l.lasting = slices.ContainsFunc(l.policies, (*policy).outlives)
	l.delays = slices.ContainsFunc(l.policies, func(p *policy) bool { return p.pacers != nil })
	l.fixed = !slices.ContainsFunc(l.policies, func(p *policy) bool { return p.varies })
	l.listed = listed(l.policies)
	l.tables = make([]*table, len(l.policies))
	for i, p := range l.policies {
		l.tables[i] = l.memory.table(p.Name)
		if p.LimitOf != nil && p.limits == nil {
			p.limits = newOwnerCache(fmt.Sprintf("LimitOf of policy %q", p.Name), p.LimitOf, l.stale)
		}
	}
	l.pool = &sync.Pool{New: func() any {
		return &decision{
			slots:   make([]Charge, len(l.policies)),
			charged: make([]*policy, 0, len(l.policies)),
			account: account{plans: l.plans},
		}
	}}
	l.blocked = &usher.Error{
		Status: http.StatusForbidden, Code: usher.CodeBlocked, Message: "Requests from here are blocked.",
	}
}

// The outcomes that are counted for a limiter rather than a policy.
const (
	acquired = iota
	exempt
	blocked
	storeFailed
	limitInvalid
	planUnknown
	planFailed
	canceled
	placeLost
)

var limiterOutcomes = []string{
	acquired: "acquired", exempt: "exempt", blocked: "blocked", storeFailed: "store_failed",
	limitInvalid: "limit_invalid", planUnknown: "plan_unknown", planFailed: "plan_failed", canceled: "canceled", placeLost: "place_lost",
}

func newDecisions(c *Config, outcomes []string, policy string) *telemetry.Decisions {
	t := telemetry.Config{
		MeterProvider: c.MeterProvider,
		Scope:         "github.com/usher-go/usher/ratelimit",
		Counter:       "usher.rate_limiting.requests",
		Description: "Requests by the outcome of their rate limits. A request is counted once without a policy, " +
			"unless it is refused, and once for each policy that it violates or under which less than a fifth is left.",
		Attribute: "usher.rate_limiting.result",
		Outcomes:  outcomes,
	}
	if policy != "" {
		t.Fixed = []attribute.KeyValue{attribute.String("usher.rate_limiting.policy", policy)}
	}
	return telemetry.NewDecisions(t)
}

// Wrap returns a handler that serves next the requests that l admits.
func (l *Limiter) Wrap(next http.Handler) http.Handler {
	if !l.mounted.CompareAndSwap(false, true) {
		l.nested.Store(true)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.serve(w, r, next) })
}

// ServeNext passes the request to next if l admits it, and responds with 429 if not.
// Either response has the header fields that [Config.Headers] names.
func (l *Limiter) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	// The caller may have mounted l elsewhere too.
	if !l.nested.Load() {
		l.nested.Store(true)
	}
	l.serve(w, r, next)
}

func (l *Limiter) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if l.config.Block != nil && l.config.Block(r) {
		l.decisions.Record(r.Context(), blocked)
		usher.Fail(w, r, l.blocked)
		return
	}
	if l.config.Exempt != nil && l.config.Exempt(r) {
		l.decisions.Record(r.Context(), exempt)
		next.ServeHTTP(w, r)
		return
	}
	outer := pendingIn(r.Context())
	d := l.pool.Get().(*decision)
	l.decide(d, r, outer)
	if d.canceled {
		l.abandon(w, r, d, outer)
		return
	}
	if len(d.seats) > 0 && !d.wait(r.Context()) {
		l.leave(w, r, d, outer)
		return
	}
	if d.Admitted && l.defers() {
		l.servePending(w, r, next, d, outer)
		return
	}
	l.count(r.Context(), d)
	var refusal *usher.Error
	if !d.Admitted {
		outer.refundAll(l.family, nil)
		refusal = l.refusal(d)
	}
	if d.replaces {
		l.withdraw(w.Header(), outer)
	}
	l.setHeader(w.Header(), d, refusal)
	l.pool.Put(d)
	if refusal != nil {
		usher.Fail(w, r, refusal)
		return
	}
	next.ServeHTTP(w, r)
}

// abandon ends a request whose client disconnected, or whose time ran out, during the
// decision: next does not run.
func (l *Limiter) abandon(w http.ResponseWriter, r *http.Request, d *decision, outer *pending) {
	l.decisions.Record(r.Context(), canceled)
	e := l.canceledError(r.Context())
	if d.Admitted {
		// The request stays charged, except for places and under policies that do not
		// count its status.
		pd := &pending{limiter: l, request: r, outer: outer, decision: d}
		pd.end(e.Status)
	} else {
		l.pool.Put(d)
	}
	usher.Fail(w, r, e)
}

// leave ends a request whose client disconnected, or whose time ran out, while it waited
// for its turn. It gives back all that it was charged.
func (l *Limiter) leave(w http.ResponseWriter, r *http.Request, d *decision, outer *pending) {
	l.decisions.Record(r.Context(), canceled)
	e := l.canceledError(r.Context())
	outer.refundAll(l.family, nil)
	pd := &pending{limiter: l, request: r, outer: outer, decision: d, refunded: 1<<len(l.policies) - 1}
	pd.end(e.Status)
	usher.Fail(w, r, e)
}

// defers reports whether decisions of l must stay pending while the handler runs: because
// a policy acts after the handler, or because an inner limiter may share the decision.
// How l is mounted matters, since a limiter that is mounted once must not copy requests.
func (l *Limiter) defers() bool {
	return l.lasting || l.nested.Load() || l.family.related.Load()
}
