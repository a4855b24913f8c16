package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/httpwriter"
)

// A pending decision is not over when the handler begins: it occupies places, depends
// on the status of the response, may be settled, or is shared with inner limiters.
type pending struct {
	limiter *Limiter
	request *http.Request
	outer   *pending // of an outer limiter

	mu       sync.Mutex
	decision *decision // nil once it is over
	taken    uint16    // the policies of the limiter that count the request, a bit each
	refunded uint16    // those of them that charge nothing after all
	shared   bool      // code other than the limiter has found it
}

// pendingPool reuses pending decisions that are not shared, which are nearly all.
var pendingPool = sync.Pool{New: func() any { return new(pending) }}

// innermost is the slot of the innermost pending decision of a request.
var innermost = exchange.NewSlot[pending]()

// pendingIn returns the innermost pending decision of the request of ctx, or nil.
func pendingIn(ctx context.Context) *pending {
	x := exchange.From(ctx)
	if x == nil {
		return nil
	}
	for {
		pd := innermost.Load(x)
		if pd == nil || pd.share(x) {
			return pd
		}
	}
}

// share marks pd as shared. It fails if pd is not, or no longer, the innermost decision
// of this request.
func (pd *pending) share(x *exchange.Exchange) bool {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	if innermost.Load(x) != pd {
		return false
	}
	pd.shared = true
	return true
}

// servePending runs next, and then refunds what the response does not charge.
func (l *Limiter) servePending(w http.ResponseWriter, r *http.Request, next http.Handler, d *decision, outer *pending) {
	pd := pendingPool.Get().(*pending)
	pd.limiter, pd.request, pd.outer, pd.decision, pd.taken = l, r, outer, d, l.bits(d.charged)
	status := http.StatusInternalServerError // unless next returns
	var deadline exchange.Deadline           // that next has met without a response
	var watch *httpwriter.Writer
	// Deferred first, since a place must be free again whatever happens.
	d.run(1)
	defer func() {
		d.run(-1)
		pd.end(status)
		// What was counted must be what the client gets, however long that took.
		if deadline != nil && deadline.Missed() != 0 {
			watch.WriteHeader(status)
		}
	}()
	x, inner := exchange.Enter(r)
	innermost.Store(x, pd)
	defer innermost.Store(x, outer)
	l.count(r.Context(), d)
	if d.replaces {
		l.withdraw(w.Header(), outer)
	}
	l.setHeader(w.Header(), d, nil)
	if d.countsOutcomes() {
		watch = new(httpwriter.Writer)
		watch.Init(w, nil)
		watch.SetRequest(inner)
		w = watch
	}
	exchange.Serve(next, w, r, inner)
	status = http.StatusOK
	if watch == nil {
		return
	}
	if status = watch.Status(); status == 0 && !watch.Hijacked() {
		if around := exchange.DeadlineOf(inner.Context()); around != nil {
			if status = around.Missed(); status == 0 {
				deadline = around
			}
		}
	}
	status = cmp.Or(status, http.StatusOK) // as the server will send
}

// run adds n to the requests that run under the concurrency limits of d.
func (d *decision) run(n int64) {
	for _, p := range d.charged {
		if p.Limit.algorithm == AlgorithmConcurrency {
			p.running.Add(n)
		}
	}
}

func (d *decision) countsOutcomes() bool {
	for _, p := range d.charged {
		if p.Count != nil {
			return true
		}
	}
	return false
}

// bits returns the bits of policies of l, which are in the order of l.
func (l *Limiter) bits(charged []*policy) (bits uint16) {
	for i, p := range l.policies {
		if len(charged) > 0 && charged[0] == p {
			bits |= 1 << i
			charged = charged[1:]
		}
	}
	return bits
}

// asked reports whether pd or an outer decision has counted the request under p for
// the same key. What that decision has charged then stays charged, even if a limiter in
// between has replaced it. An outer decision may have skipped the policy, or counted
// another key, because the caller was not known yet.
func (pd *pending) asked(p *policy, r *http.Request) bool {
	for ; pd != nil; pd = pd.outer {
		if i := slices.Index(pd.limiter.policies, p); i >= 0 && pd.taken&(1<<i) != 0 && pd.charges(p, r) {
			pd.mu.Lock()
			pd.refunded &^= 1 << i
			pd.mu.Unlock()
			return true
		}
	}
	return false
}

// charges reports whether pd has counted the key of r under p.
func (pd *pending) charges(p *policy, r *http.Request) bool {
	key, ok := p.Key(r)
	if !ok {
		return true // there is no other key to count
	}
	pd.mu.Lock()
	defer pd.mu.Unlock()
	if pd.decision == nil {
		return true
	}
	i := slices.Index(pd.decision.charged, p)
	return i < 0 || pd.decision.Charges[i].Key == key
}

// refunds reports whether what is charged under p is refunded in any case.
func (pd *pending) refunds(p *policy) bool {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	return pd.refunded != 0 && pd.refunded&(1<<slices.Index(pd.limiter.policies, p)) != 0
}

// refundAll marks the charges of pd and the outer decisions of family f to be refunded at
// the end, except those under the policies in keep. It reports whether there is anything
// to refund.
func (pd *pending) refundAll(f *family, keep []*policy) (found bool) {
	for ; pd != nil; pd = pd.outer {
		if pd.limiter.family != f {
			continue
		}
		pd.mu.Lock()
		for i, p := range pd.limiter.policies {
			if !slices.Contains(keep, p) {
				pd.refunded |= 1 << i
				found = true
			}
		}
		pd.mu.Unlock()
	}
	return found
}

// end frees the places of the request, refunds what its status does not charge, and
// drops the decision: an abandoned handler may still have pd, but finds nothing in it.
// The request no longer leads to pd.
func (pd *pending) end(status int) {
	pd.mu.Lock()
	d, shared := pd.decision, pd.shared
	pd.decision = nil
	pd.mu.Unlock()
	defer func() {
		pd.limiter.pool.Put(d)
		if !shared {
			pd.limiter, pd.request, pd.outer, pd.taken, pd.refunded = nil, nil, nil, 0, 0
			pendingPool.Put(pd)
		}
	}()
	var (
		faults   []error
		used     [maxCharges]int64
		refunded [maxCharges]bool
	)
	// Deferred, since Count may end this goroutine.
	defer func() {
		if d.compact() {
			pd.limiter.refund(pd.request.Context(), d)
		}
		if err := errors.Join(faults...); err != nil {
			pd.limiter.failures.Error(pd.request.Context(), err)
		}
	}()
	// First what does not depend on Count.
	for i, p := range d.charged {
		c := &d.Charges[i]
		used[i] = c.Cost + c.overrun
		refunded[i] = used[i] == 0 || c.Limit.algorithm == AlgorithmConcurrency || pd.refunds(p)
		c.Overdraw = p.Overrun == OweOverrun
		c.finish(used[i], !refunded[i])
		if refunded[i] {
			d.giveTurnBack(p)
		}
	}
	for i, p := range d.charged {
		if refunded[i] || d.Charges[i].Violated || p.Count == nil {
			continue
		}
		counts, err := p.counts(status)
		if err != nil {
			faults = append(faults, err)
		}
		d.Charges[i].finish(used[i], counts)
	}
}

// finish makes c the change with which its request ends: what it has used is charged, or
// refunded. What it has only reserved is not charged yet.
func (c *Charge) finish(used int64, charged bool) {
	switch {
	case c.Hold:
		c.EndHold, c.Cost = true, 0
		if charged {
			c.Cost = used
		}
	case charged:
		c.Cost = 0
	default:
		c.Cost = -used
	}
}

// compact removes the charges that have changed nothing, and those with which a request
// ends that change nothing. It reports whether there are others.
func (d *Decision) compact() bool {
	d.Charges = slices.DeleteFunc(d.Charges, func(c Charge) bool { return c.Violated || c.Cost == 0 && !c.EndHold })
	return len(d.Charges) > 0
}

// refund adjusts the charges of d for a request that has ended. If the store fails now,
// they stay, which errs on the safe side, but for what is only reserved.
func (l *Limiter) refund(request context.Context, d *decision) {
	failed := func(err error) { l.failures.Error(request, fmt.Errorf("ratelimit: refund: %w", err)) }
	if s, ok := d.store.(*sharedStore); ok {
		s.finish(&d.Decision, failed)
		return
	}
	// The context of the request may have ended with its client.
	if err := d.store.Adjust(context.Background(), &d.Decision); err != nil {
		failed(err)
	}
}

// counts reports whether a response with this status is charged. It is charged if Count
// panics.
func (p *policy) counts(status int) (counts bool, err error) {
	counts = true
	if err = guard.Run(func() error {
		counts = p.Count(status)
		return nil
	}); err != nil {
		err = fmt.Errorf("ratelimit: Count of policy %q: %w", p.Name, err)
	}
	return counts, err
}
