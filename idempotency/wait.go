package idempotency

import (
	"context"
	"fmt"
	"time"

	"github.com/usher-go/usher"
)

// NoWait is the [Config.Wait] with which a duplicate of a request in flight gets 409 at
// once.
const NoWait time.Duration = -1

// The first and the longest pause between two attempts.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// claim claims the key. While a duplicate is in flight it waits, for [Config.Wait] at most.
// It also returns when the call of the store began, as the lease counts from then. For a
// Memory, which responds at once, that time is zero.
func (m *Middleware) claim(ctx context.Context, c *Claim) (record Record, asked time.Time, err error) {
	if m.config.Wait < 0 || m.memory != nil {
		record, asked, err = m.ask(ctx, c)
	} else {
		// A call of this store takes a while. If this process is making one for the key, or
		// requests wait for its result, another call would find out nothing new.
		calls := m.waiters.callsFor(&c.Key)
		if calls.Add(1) > 1 || m.waiters.has(c) {
			calls.Add(-1)
			return m.wait(ctx, c, nil)
		}
		record, asked, err = m.ask(ctx, c)
		calls.Add(-1)
	}
	if m.config.Wait < 0 || err != nil || !inFlight(&record, c) {
		return record, asked, err
	}
	return m.wait(ctx, c, &record)
}

// ask calls the store.
func (m *Middleware) ask(ctx context.Context, c *Claim) (record Record, asked time.Time, err error) {
	if m.memory != nil {
		err = m.memory.claim(c, &record)
		return record, asked, err
	}
	asked = time.Now()
	record, err = m.store.Claim(ctx, *c)
	return record, asked, err
}

// inFlight reports whether r is the claim of a duplicate of c.
func inFlight(r *Record, c *Claim) bool {
	return r.State == StateClaimed && !r.Won && r.Fingerprint == c.Fingerprint
}

// wait waits until the duplicate of c that is in flight has ended. Its record is seen; nil
// means that it is not certain that there is one. If time is up, if too many requests wait,
// or if the client disconnects, wait returns the record of the request in flight.
func (m *Middleware) wait(ctx context.Context, c *Claim, seen *Record) (record Record, asked time.Time, err error) {
	f, joined := m.waiters.join(c, seen, m.config.MaxWaiters)
	switch {
	case joined:
	case seen != nil:
		return *seen, asked, nil
	case f != nil && f.seen.Load() != nil:
		return f.inFlight(), asked, nil
	default:
		return m.ask(ctx, c)
	}
	defer m.waiters.leave(c, f)
	deadline := time.NewTimer(m.config.Wait)
	defer deadline.Stop()
	select {
	case <-f.turn:
		return m.poll(ctx, c, f, deadline.C)
	case <-f.decided:
		return f.record, asked, f.err
	case <-deadline.C:
	case <-ctx.Done():
	}
	return f.inFlight(), asked, nil
}

// poll asks the store, with growing pauses, on behalf of all requests that wait for f. It
// uses the token of c: if the request in flight is released or dies, that of c runs, and
// the others wait for it in turn. Every other result decides about all of them.
func (m *Middleware) poll(ctx context.Context, c *Claim, f *flight, deadline <-chan time.Time) (record Record, asked time.Time, err error) {
	for !record.Won {
		woken, ok := f.pauseOver(ctx, deadline)
		if !ok {
			f.turn <- struct{}{}
			return f.inFlight(), asked, nil
		}
		if !woken && f.seen.Load() != nil && m.runsHere(c) {
			continue
		}
		record, asked, err = m.ask(ctx, c)
		if err != nil || !record.Won && !inFlight(&record, c) {
			m.waiters.decide(c, f, &record, err)
			return record, asked, err
		}
		f.see(&record)
	}
	if ctx.Err() != nil && !record.TakenOver {
		m.abandon(ctx, c)
		f.wake()
		record = f.inFlight()
	}
	f.turn <- struct{}{}
	return record, asked, nil
}

// abandon releases the claim of a request whose client has disconnected meanwhile. A claim
// that was taken over is not released: that would free a key whose earlier request may have
// had an effect.
func (m *Middleware) abandon(ctx context.Context, c *Claim) {
	released := Completion{c.Key, c.Token, Result{State: StateReleased, TTL: m.config.Lease}}
	if _, err := m.store.Finish(context.WithoutCancel(ctx), released); err != nil {
		m.failures.Error(ctx, fmt.Errorf("idempotency: release the claim of a client that has disconnected: %w", err))
	}
}

// runsHere reports whether a duplicate of c runs in this process, or has a result that is
// pending. Its end is reported to the waiters, so it is not necessary to ask the store. A
// Memory can be asked for less than it costs to find this out.
func (m *Middleware) runsHere(c *Claim) bool {
	return m.memory == nil && m.heartbeat.Any(func(e *Execution) bool { return e.key == c.Key && e.fingerprint == c.Fingerprint })
}

// stillInProgress returns the error for a duplicate of a request in flight whose record is
// r. It asks for a retry when the lease of that request ends: if its process has died, the
// retry takes the key then.
func (m *Middleware) stillInProgress(r *Record) *usher.Error {
	e := *m.refusals.inProgress
	e.RetryAfter = max(min(r.Lease, m.config.Lease), retryAfter)
	return &e
}
