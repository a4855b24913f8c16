package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/usher-go/usher"
)

// An account is on whose behalf a decision is made. All policies of the decision see one
// plan, which is looked up at most once, and only if a policy needs it.
type account struct {
	plans *ownerCache[string] // nil without Config.PlanOf

	begun   bool // the fields below are set
	known   bool
	owner   string
	plan    string
	updated bool  // plan and err are the result of Config.PlanOf, if it applies
	err     error // why the plan, or the owner, is not known
}

// The errors of plans and limits, by which they are counted.
var (
	errPlanUnknown  = errors.New("ratelimit: unknown plan")
	errPlanFailed   = errors.New("ratelimit: the plan is not known")
	errLimitInvalid = errors.New("ratelimit: invalid limit")
)

// The errors of a call that its caller must change.
var (
	errNoRequest = errors.New("ratelimit: this needs a request")
	errPlanOfKey = errors.New("ratelimit: the plan of the key is not known: without Config.PlanOf, " +
		"only requests of its account carry it")
)

// ofCaller makes a the account of the caller of ctx, unless it is one already.
func (a *account) ofCaller(ctx context.Context) {
	if a.begun {
		return
	}
	*a = account{plans: a.plans, begun: true}
	if p, ok := usher.PrincipalFrom(ctx); ok {
		a.known, a.owner, a.plan = true, p.Owner, p.Plan
	}
}

// ofKey makes a the account of a key. It is that of the caller of ctx unless the key names
// another one.
func (a *account) ofKey(ctx context.Context, key Key) {
	*a = account{plans: a.plans}
	p, ok := usher.PrincipalFrom(ctx)
	switch o, _, _, text := key.parts(); o {
	case addressOrigin, textOrigin, routeOrigin, combinedOrigin:
	case ownerOrigin:
		if !ok || key != OwnerKey(p.Owner) {
			a.begun, a.known, a.owner = true, true, text
			// A key has only the digest of a long name.
			if a.plans == nil || a.owner == "" {
				a.updated, a.err = true, errPlanOfKey
			}
		}
	default:
		if !ok || key != PrincipalKey(p) {
			a.begun, a.known, a.updated, a.err = true, true, true, errPlanOfKey
		}
	}
	a.ofCaller(ctx)
}

// currentPlan returns the plan of the account.
func (a *account) currentPlan(ctx context.Context) (string, error) {
	if !a.updated && a.plans != nil && a.owner != "" {
		if a.plan, a.err = a.plans.of(ctx, a.owner); a.err != nil {
			a.err = fmt.Errorf("%w: %w", errPlanFailed, a.err)
		}
	}
	a.updated = true
	return a.plan, a.err
}

// limit returns the limit of p for r or, if r is nil, for what belongs to no request. An
// error that matches errPlanUnknown comes with the limit that applies nevertheless.
func (p *policy) limit(ctx context.Context, r *http.Request, a *account) (Limit, error) {
	if p.LimitFor != nil {
		if r == nil {
			return Limit{}, fmt.Errorf("%w: LimitFor of policy %q needs one", errNoRequest, p.Name)
		}
		if l := p.LimitFor(r); l != (Limit{}) {
			return l, p.check(l, "LimitFor")
		}
	}
	if p.Plans == nil && p.limits == nil {
		return p.Limit, nil
	}
	a.ofCaller(ctx)
	if p.limits != nil {
		if a.owner == "" && a.err != nil {
			return Limit{}, a.err
		}
		if a.owner != "" {
			l, err := p.limits.of(ctx, a.owner)
			if err != nil {
				return Limit{}, fmt.Errorf("%w: %w", errPlanFailed, err)
			}
			if l != (Limit{}) {
				return l, p.check(l, "LimitOf")
			}
		}
	}
	if p.Plans == nil || !a.known {
		return p.Limit, nil
	}
	plan, err := a.currentPlan(ctx)
	if err != nil {
		return Limit{}, err
	}
	l, ok := p.Plans[plan]
	switch {
	case ok:
		return l, nil
	case plan == "":
		return p.Limit, nil
	default:
		return p.Limit, fmt.Errorf("%w: policy %q has no plan %q, so its Limit applies", errPlanUnknown, p.Name, plan)
	}
}

// check reports what is wrong with a limit that a function has returned.
func (p *policy) check(l Limit, source string) error {
	if reasons := p.faultsOf(l); len(reasons) > 0 {
		return fmt.Errorf("%w: what %s of policy %q has returned %s",
			errLimitInvalid, source, p.Name, strings.Join(reasons, " and "))
	}
	return nil
}

// tolerates counts and reports an error of policy.limit, and reports whether d can be
// decided nevertheless. If not, d has failed.
func (l *Limiter) tolerates(ctx context.Context, d *decision, p *policy, err error) bool {
	if errors.Is(err, errPlanUnknown) {
		l.decisions.Count(ctx, planUnknown)
		l.failures.Error(ctx, err)
		return true
	}
	outcome := limitInvalid
	if errors.Is(err, errPlanFailed) {
		outcome = planFailed
		if ctx.Err() != nil {
			// The client did not wait, so nothing is known about PlanOf.
			d.fail(context.Cause(ctx), false)
			d.canceled = true
			return false
		}
	}
	l.decisions.Record(ctx, outcome)
	l.failures.Error(ctx, err)
	if !p.Shadow {
		d.fail(err, false)
	}
	return p.Shadow
}

// stale counts and reports that an old plan or limit is used.
func (l *Limiter) stale(ctx context.Context, err error) {
	l.decisions.Count(ctx, planFailed)
	l.failures.Error(ctx, fmt.Errorf("%w: the last result applies", err))
}
