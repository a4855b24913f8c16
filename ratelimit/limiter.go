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

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/telemetry"
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
	l.decisions = requests.Decisions(c.MeterProvider)
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
