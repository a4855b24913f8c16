package ratelimit

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/httpwriter"
)

// held is a decision that is not over when the handler begins: it holds places,
// waits for the outcome, or may be settled.
type held struct {
	limiter *Limiter
	outer   *held // of a limiter further out

	mu       sync.Mutex
	decision *decision // nil once it is over
	undone   bool
}

// decisions holds the innermost decision of a request that is not over.
var decisions = exchange.NewSlot[held]()

// serveHeld runs next, and then gives back what the outcome says.
func (l *Limiter) serveHeld(w http.ResponseWriter, r *http.Request, next http.Handler, h *held) {
	x, inner := exchange.Enter(r)
	decisions.Store(x, h)
	var watch *httpwriter.Writer
	if h.countsOutcomes() {
		watch = new(httpwriter.Writer)
		watch.Init(w, nil)
		watch.SetRequest(inner)
		w = watch
	}
	status := http.StatusInternalServerError // unless next returns
	// Deferred, as a place must be free again whatever happens.
	defer func() {
		exchange.Leave(r, inner)
		decisions.Store(x, h.outer)
		h.end(status)
	}()
	next.ServeHTTP(w, inner)
	if status = http.StatusOK; watch != nil && watch.Status() != 0 {
		status = watch.Status()
	}
}

func (h *held) countsOutcomes() bool {
	for _, p := range h.decision.charged {
		if p.Count != nil {
			return true
		}
	}
	return false
}

// asked reports whether h, or a decision further out, is over p as well.
func (h *held) asked(p *policy) bool {
	for ; h != nil; h = h.outer {
		if slices.Contains(h.limiter.policies, p) {
			return true
		}
	}
	return false
}

// forgo makes the limiters further out that l derives from, which decide
// together with l, give back what they have charged. It reports whether there
// are any.
func (h *held) forgo(l *Limiter) (found bool) {
	for ; h != nil; h = h.outer {
		for p := l.parent; p != nil; p = p.parent {
			if h.limiter == p {
				h.mu.Lock()
				h.undone = true
				h.mu.Unlock()
				found = true
			}
		}
	}
	return found
}

// end gives back the places that the request held and what its outcome does not
// charge, and lets go of the decision: a handler that was abandoned may still
// know h, but finds nothing in it.
func (h *held) end(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.decision
	h.decision = nil
	defer h.limiter.pool.Put(d)
	back := d.charges[:0]
	for i, p := range d.charged {
		c := d.charges[i]
		place := c.Limit.algorithm == AlgorithmConcurrency
		if c.Violated || c.Cost == 0 || !place && !h.undone && (p.Count == nil || p.Count(status)) {
			continue
		}
		c.Cost = -c.Cost
		back = append(back, c)
	}
	if len(back) == 0 {
		return
	}
	// Whether or not the client is still there. A store that fails now leaves the
	// charge as it is, which errs on the safe side.
	_ = d.store.Adjust(context.Background(), back)
}
