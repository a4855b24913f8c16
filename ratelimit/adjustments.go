package ratelimit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// adjustments are the calls of Adjust that are made after the responses of their requests.
// A client may come back as soon as it has its response, so a decision waits for those of
// its own keys: it must find the place free, or the units refunded, as if the response had
// waited for the store.
type adjustments struct {
	timeout time.Duration // of a decision

	mu sync.Mutex
	// running has the calls that have not ended, and n counts those and their reports.
	running map[Counter][]*adjustment
	n       int
}

func counterOf(c *Charge) Counter { return Counter{c.Policy, c.Key} }

// An adjustment is one call.
type adjustment struct {
	charges []Charge
	done    chan struct{}
}

// run makes a call that adjusts the charges, in the background, and reports its failure.
func (a *adjustments) run(charges []Charge, call func() error, failed func(error)) {
	one := &adjustment{charges: charges, done: make(chan struct{})}
	a.begin(one)
	go func() {
		defer a.over() // OnError may end this goroutine
		err := call()
		a.end(one)
		if err != nil {
			failed(err)
		}
	}()
}

func (a *adjustments) begin(one *adjustment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running == nil {
		a.running = make(map[Counter][]*adjustment)
	}
	a.n++
	for i := range one.charges {
		c := counterOf(&one.charges[i])
		a.running[c] = append(a.running[c], one)
	}
}

// end lets the decisions go on that wait for the call.
func (a *adjustments) end(one *adjustment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range one.charges {
		c := counterOf(&one.charges[i])
		if rest := a.running[c]; len(rest) > 1 {
			i := slices.Index(rest, one)
			a.running[c] = slices.Delete(rest, i, i+1)
		} else {
			delete(a.running, c)
		}
	}
	close(one.done)
}

func (a *adjustments) over() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n--
}

// of returns the calls that adjust what the keys of the charges have used.
func (a *adjustments) of(charges []Charge) (all []*adjustment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.running) == 0 {
		return nil
	}
	for i := range charges {
		all = append(all, a.running[counterOf(&charges[i])]...)
	}
	return all
}

// wait waits for the calls that adjust what the keys of these charges have used. It leaves
// the decision half of its time, and returns the deadline with which the decision, the wait
// included, takes no longer than if it had not waited. That is zero if there was no wait.
func (a *adjustments) wait(charges []Charge) (deadline time.Time) {
	before := a.of(charges)
	if len(before) == 0 {
		return time.Time{}
	}
	deadline = time.Now().Add(a.timeout)
	patience := time.NewTimer(a.timeout / 2)
	defer patience.Stop()
	for _, one := range before {
		select {
		case <-one.done:
		case <-patience.C:
			return deadline
		}
	}
	return deadline
}

// count returns how many calls are running or being reported.
func (a *adjustments) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.n
}

// shutdownPause is the time between two looks at the calls that are running.
const shutdownPause = 5 * time.Millisecond

// Shutdown waits for the calls of the store with which the last requests end: those that refund
// what they have not used, and charge what they have reserved. They are made after the responses
// and last no longer than StoreTimeout, or 2.5 seconds longer if a charge must be repeated. Call
// it after http.Server.Shutdown has returned, and before the store is closed. It does not wait
// for requests that are still running, as they are when ListenAndServe returns: that is when
// http.Server.Shutdown begins. Shutdown returns nil when no such call is running, and an error
// if ctx ends first. If the process ends with calls running, places and reservations end with
// their leases, uncharged, and what is not refunded stays charged. Limiters that are derived
// from one another share their calls, so one Shutdown is enough. Over a Memory it returns nil at
// once.
func (l *Limiter) Shutdown(ctx context.Context) error {
	if l.shared == nil {
		return nil
	}
	for {
		n := l.shared.adjustments.count()
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("ratelimit: %d requests have not ended in the store: %w", n, context.Cause(ctx))
		case <-time.After(shutdownPause):
		}
	}
}
