package idempotency

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// An owed result is how a claim ends that the store has not taken in time. The
// heartbeat goes on to keep the lease and to try again, until the store takes the
// result, somebody else has the key, or the life of the record is over.
type owed struct {
	result  Result
	end     int       // of the claim, for the counter
	until   time.Time // when the life is over
	refused int       // how often the store took a renewal, but not the result
}

// bury gives up the response and leaves that there was one.
func (o *owed) bury() {
	o.result.State, o.result.Payload, o.end = StateTombstone, nil, tombstoned
}

// The bounds of what a Middleware owes. A response beyond the bytes becomes a
// tombstone; a result beyond the number is given up, so its key is free after its
// lease.
const (
	maxOwed      = 1024
	maxOwedBytes = 16 << 20
)

// maxRefused is how often a store may take renewals and not the result until a
// tombstone is tried instead, which is after five leases. The response may be too
// large for the store.
const maxRefused = 5 * soon

// debts are the executions of a [Middleware] that owe a result.
type debts struct {
	mu    sync.Mutex
	of    map[*Execution]struct{}
	bytes int // of their responses
}

// add reports whether there is room for what e owes.
func (d *debts) add(e *Execution, o *owed) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.of) == maxOwed {
		return false
	}
	if o.result.State == StateDone && d.bytes+len(o.result.Payload) > maxOwedBytes {
		o.bury()
	}
	if d.of == nil {
		d.of = make(map[*Execution]struct{})
	}
	d.of[e] = struct{}{}
	d.bytes += len(o.result.Payload)
	return true
}

// bury buries what is owed.
func (d *debts) bury(o *owed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes -= len(o.result.Payload)
	o.bury()
}

func (d *debts) remove(e *Execution, o *owed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.of, e)
	d.bytes -= len(o.result.Payload)
}

func (d *debts) all() []*Execution {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*Execution, 0, len(d.of))
	for e := range d.of {
		all = append(all, e)
	}
	return all
}

// Shutdown stores the results that are still owed: those of requests that ended
// while the store failed, which m goes on to store in the background. Call it when
// the server has shut down, before the store is closed. It returns nil once none is
// left, and an error if ctx ends before. The keys of results that are lost with the
// process are free after their leases, and a retry runs again.
func (m *Middleware) Shutdown(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		all := m.debts.all()
		if len(all) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("idempotency: %d results are not stored: %w", len(all), context.Cause(ctx))
		}
		var payments sync.WaitGroup
		for _, e := range all {
			payments.Go(e.pay)
		}
		payments.Wait()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// owe leaves r to the heartbeat, and reports whether that has room for it.
func (e *Execution) owe(r Result, end int) bool {
	o := &owed{result: r, end: end, until: time.Now().Add(r.TTL)}
	if !e.m.debts.add(e, o) {
		return false
	}
	e.mu.Lock()
	// The beats have ended if the lease seemed lost. Whether it is, Finish will say.
	e.owed, e.over = o, false
	e.mu.Unlock()
	e.beatAgain(e.m.config.Lease / soon)
	return true
}

// pay tries once to store what is owed.
func (e *Execution) pay() {
	e.mu.Lock()
	o := e.owed
	if o == nil {
		e.mu.Unlock()
		return
	}
	r := o.result
	e.mu.Unlock()

	ctx := e.request.Context()
	err := e.m.store.Finish(ctx, e.key, e.token, r)
	if err == nil || errors.Is(err, ErrLost) || time.Now().After(o.until) {
		e.paid(o, err)
		return
	}
	// Until then nobody else may have the key. If somebody has, Finish says so.
	renewed := e.m.store.Renew(ctx, e.key, e.token, e.m.config.Lease) == nil

	e.mu.Lock()
	defer e.mu.Unlock()
	if renewed && e.owed == o && o.result.State == StateDone {
		if o.refused++; o.refused == maxRefused {
			e.m.debts.bury(o)
		}
	}
}

// paid ends the execution that owed o: there is nothing more to try.
func (e *Execution) paid(o *owed, err error) {
	e.mu.Lock()
	mine := e.owed == o // and not that of another payment at the same time
	if mine {
		e.owed = nil
	}
	e.mu.Unlock()
	if mine {
		e.m.debts.remove(e, o)
		e.leaveLease()
		e.settle(err, o.end)
	}
}
