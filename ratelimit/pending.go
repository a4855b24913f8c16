package ratelimit

import (
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

// held is a decision that is not over when the handler begins: it holds places,
// waits for the outcome, may be settled, or is shared with limiters further in.
type pending struct {
	limiter *Limiter
	request *http.Request
	outer   *pending // of a limiter further out

	mu       sync.Mutex
	decision *decision // nil once it is over
	taken    uint16    // the policies of the limiter that count the request, a bit each
	refunded uint16    // those of them that charge nothing after all
	shared   bool      // others than the limiter know of it
}

// pendingPool are those that nobody else has come to know, as nearly all.
var pendingPool = sync.Pool{New: func() any { return new(pending) }}

// decisions holds the innermost decision of a request that is not over.
var decisions = exchange.NewSlot[pending]()

// pendingIn returns the innermost decision that is held for a request, or nil.
func pendingIn(ctx context.Context) *pending {
	x := exchange.From(ctx)
	if x == nil {
		return nil
	}
	for {
		h := decisions.Load(x)
		if h == nil || h.share(x) {
			return h
		}
	}
}

// share notes that h is known outside its limiter. It fails if h is not, or no
// longer, a decision of this request.
func (h *pending) share(x *exchange.Exchange) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if decisions.Load(x) != h {
		return false
	}
	h.shared = true
	return true
}

// servePending runs next, and then gives back what the outcome says.
func (l *Limiter) servePending(w http.ResponseWriter, r *http.Request, next http.Handler, d *decision, outer *pending) {
	h := pendingPool.Get().(*pending)
	h.limiter, h.request, h.outer, h.decision, h.taken = l, r, outer, d, l.bits(d.charged)
	status := http.StatusInternalServerError // unless next returns
	// Deferred first, as a place must be free again whatever happens.
	defer func() { h.end(status) }()
	x, inner := exchange.Enter(r)
	decisions.Store(x, h)
	defer func() {
		exchange.Leave(r, inner)
		decisions.Store(x, outer)
	}()
	l.count(r.Context(), d)
	l.setHeader(w.Header(), d, nil)
	var watch *httpwriter.Writer
	if d.countsOutcomes() {
		watch = new(httpwriter.Writer)
		watch.Init(w, nil)
		watch.SetRequest(inner)
		w = watch
	}
	next.ServeHTTP(w, inner)
	if status = http.StatusOK; watch != nil && watch.Status() != 0 {
		status = watch.Status()
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

// bits returns the bits of policies of l, which come in its order.
func (l *Limiter) bits(charged []*policy) (bits uint16) {
	for i, p := range l.policies {
		if len(charged) > 0 && charged[0] == p {
			bits |= 1 << i
			charged = charged[1:]
		}
	}
	return bits
}

// asked reports whether h, or a decision further out, counts the request under p and
// its key as well, and then lets what that has charged be charged, whoever has
// replaced it in between. Further out, where its caller was not known yet, a policy
// may not have counted the request, or for somebody else.
func (h *pending) asked(p *policy, r *http.Request) bool {
	for ; h != nil; h = h.outer {
		if i := slices.Index(h.limiter.policies, p); i >= 0 && h.taken&(1<<i) != 0 && h.charges(p, r) {
			h.mu.Lock()
			h.refunded &^= 1 << i
			h.mu.Unlock()
			return true
		}
	}
	return false
}

// charges reports whether what h counts under p is counted for the key of r.
func (h *pending) charges(p *policy, r *http.Request) bool {
	key, ok := p.Key(r)
	if !ok {
		return true // nobody else to count it for
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.decision == nil {
		return true
	}
	i := slices.Index(h.decision.charged, p)
	return i < 0 || h.decision.charges[i].Key == key
}

// refunds reports whether what is charged under p is given back in any case.
func (h *pending) refunds(p *policy) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refunded != 0 && h.refunded&(1<<slices.Index(h.limiter.policies, p)) != 0
}

// refundAll makes h and the decisions further out, as far as their limiters are of one
// family, give back in the end what they have charged, except under the policies
// to keep. It reports whether there is any to give back.
func (h *pending) refundAll(f *family, keep []*policy) (found bool) {
	for ; h != nil; h = h.outer {
		if h.limiter.family != f {
			continue
		}
		h.mu.Lock()
		for i, p := range h.limiter.policies {
			if !slices.Contains(keep, p) {
				h.refunded |= 1 << i
				found = true
			}
		}
		h.mu.Unlock()
	}
	return found
}

// end gives back the places that the request held and what its outcome does not
// charge, and lets go of the decision: a handler that was abandoned may still
// know h, but finds nothing in it. The request no longer leads to h.
func (h *pending) end(status int) {
	h.mu.Lock()
	d, shared := h.decision, h.shared
	h.decision = nil
	h.mu.Unlock()
	defer func() {
		h.limiter.pool.Put(d)
		if !shared {
			h.limiter, h.request, h.outer, h.taken, h.refunded = nil, nil, nil, 0, 0
			pendingPool.Put(h)
		}
	}()
	var faults []error
	back := 0 // how many charges to give back, which are moved to the front
	refund := func(i int) {
		d.charges[i].Cost = -d.charges[i].Cost
		d.charges[i], d.charges[back] = d.charges[back], d.charges[i]
		d.charged[i], d.charged[back] = d.charged[back], d.charged[i]
		back++
	}
	// Deferred, as Count is not ours and may end this goroutine.
	defer func() {
		if back > 0 {
			// Whether or not the client is still there. A store that fails now leaves
			// the charge as it is, which errs on the safe side.
			if err := d.store.Adjust(context.Background(), d.charges[:back]); err != nil {
				faults = append(faults, fmt.Errorf("ratelimit: give back: %w", err))
			}
		}
		if err := errors.Join(faults...); err != nil {
			h.limiter.failures.Error(h.request.Context(), err)
		}
	}()
	// First what nobody has to be asked about.
	for i, p := range d.charged {
		c := &d.charges[i]
		if !c.Violated && c.Cost > 0 && (c.Limit.algorithm == AlgorithmConcurrency || h.refunds(p)) {
			refund(i)
		}
	}
	for i := back; i < len(d.charged); i++ {
		c, p := &d.charges[i], d.charged[i]
		if c.Violated || c.Cost == 0 || p.Count == nil {
			continue
		}
		counts, err := p.counts(status)
		if err != nil {
			faults = append(faults, err)
		}
		if !counts {
			refund(i)
		}
	}
}

// counts reports whether a response with this status is charged, as one is of
// which Count panics.
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
