package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.opentelemetry.io/otel/trace"

	"github.com/usher-go/usher/internal/guard"
)

// A decision is one request under the policies of a limiter.
type decision struct {
	// Decision has the charges of the policies that count the request. Admitted is the
	// decision of the store, or that of the failure mode.
	Decision
	slots    []Charge  // room for one charge of each policy
	charged  []*policy // the policies of Charges
	account  account
	seats    []seat   // in the lines of policies that delay the request
	store    adjuster // which has decided
	failed   bool     // nothing was decided
	cause    error    // of the failure
	canceled bool     // the request has ended during the decision
	replaces bool     // policies of outer limiters, which have described them in header fields
	text     []byte   // the header fields
}

// begin makes d ready for another decision.
func (d *decision) begin() {
	d.Charges, d.charged, d.seats = d.slots[:0], d.charged[:0], d.seats[:0]
	d.Admitted, d.Peek, d.store = true, false, nil
	d.failed, d.cause, d.canceled, d.replaces = false, nil, false, false
	d.account.begun = false
}

// An adjuster is the part of a store that a decision needs afterwards.
type adjuster interface {
	Adjust(ctx context.Context, d *Decision) error
}

// decide decides r under all policies that count it and that no outer limiter has counted
// already.
func (l *Limiter) decide(d *decision, r *http.Request, outer *pending) {
	d.begin()
	for i, p := range l.policies {
		if outer != nil && outer.asked(p, r) {
			continue
		}
		n := len(d.Charges)
		c := &d.slots[n]
		c.table = l.tables[i]
		counts, err := p.charge(c, r, &d.account)
		if err != nil && !l.tolerates(r.Context(), d, p, err) {
			return
		}
		if counts {
			d.Charges = d.slots[:n+1]
			d.charged = append(d.charged, p)
		}
	}
	if l.delays && !d.join(r.Context()) {
		return
	}
	if len(d.Charges) > 0 {
		l.take(r.Context(), d)
	}
	if len(d.seats) > 0 && (!d.Admitted || d.failed || d.canceled) {
		d.withdraw()
	}
	if l.only && d.Admitted && !d.failed {
		d.replaces = outer.refundAll(l.family, l.policies)
	}
}

// take lets the store decide, or applies the failure mode if the store fails. The client
// may disconnect while a shared store decides.
func (l *Limiter) take(ctx context.Context, d *decision) {
	var err error
	if l.shared != nil {
		if ctx.Err() == nil {
			d.store = l.shared
			if err = l.shared.Take(ctx, &d.Decision); err == nil {
				d.canceled = d.Admitted && ctx.Err() != nil
				return
			}
			if !errors.Is(err, errLeft) {
				if errors.Is(err, guard.ErrTimeout) {
					err = fmt.Errorf("ratelimit: %w: StoreTimeout is %v", err, l.config.StoreTimeout)
				}
				l.decisions.Record(ctx, storeFailed)
				l.failures.Error(ctx, err)
			}
		}
		if ctx.Err() != nil {
			d.fail(context.Cause(ctx), false)
			d.canceled = true
			return
		}
		if l.config.OnStoreFailure != FallBackToMemory {
			d.fail(err, l.config.OnStoreFailure == DangerouslyFailOpen)
			return
		}
		for i := range d.Charges {
			d.Charges[i].Hold = false // what is charged here ends with this process anyway
		}
	}
	d.store = l.memory
	// A Memory fails only if its contract is broken; the request is then refused.
	if err = l.memory.Take(ctx, &d.Decision); err != nil {
		d.fail(err, false)
	}
}

// fail records that nothing was decided or charged.
func (d *decision) fail(cause error, admitted bool) {
	d.failed, d.cause, d.Admitted = true, cause, admitted
	d.Charges, d.charged = d.Charges[:0], d.charged[:0]
}

// count counts the decision: once if it admits the request, and once for each policy that
// is violated or near its limit. It notes the violated policies on the span. Before that,
// it gives a refused client the wait of its turn.
func (l *Limiter) count(ctx context.Context, d *decision) {
	if !d.Admitted && !d.failed {
		d.stagger()
		d.note(ctx)
	}
	for i := range d.Charges {
		switch c := &d.Charges[i]; {
		case c.Violated && c.Shadow:
			d.charged[i].decisions.Count(ctx, shadowed)
			d.charged[i].verdicts.Count(ctx, shadows)
		case c.Violated:
			d.charged[i].decisions.Count(ctx, refused)
			d.charged[i].verdicts.Count(ctx, refuses)
		case d.Admitted:
			d.charged[i].verdicts.Count(ctx, admits)
			if c.nearLimit() {
				d.charged[i].decisions.Count(ctx, nearLimit)
			}
		}
	}
	if d.Admitted && !d.failed {
		l.decisions.Record(ctx, acquired)
	}
	if l.config.OnDecision != nil {
		l.observe(ctx, d)
	}
}

// nearLimit reports whether less than a fifth is left after an admitted charge.
func (c *Charge) nearLimit() bool {
	most := c.Limit.quota
	if c.Limit.algorithm == AlgorithmTokenBucket {
		most = c.Limit.burst
	}
	return 5*c.Remaining < most && c.Cost > 0
}

// note notes on the current span which policies are violated, and that of them to whose
// refusal the response belongs.
func (d *decision) note(ctx context.Context) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		worst, _ := d.worst()
		d.charged[worst].decisions.Note(ctx, refused)
		span.SetAttributes(violatedPolicyNames.Strings(violatedNames(d)))
	}
}
