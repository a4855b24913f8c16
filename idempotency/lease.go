package idempotency

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/internal/heartbeat"
)

// A lease is renewed after a third of it, and a twelfth later if the store has failed. A
// renewal may be early by half of that third, so that all executions of a process soon
// share one call.
const (
	renewalsPerLease = 3
	retriesPerLease  = 12
	slackPerLease    = 6
)

// splits is the number of groups into which the claims of a failed renewal are split. One
// of the claims may be why the call failed: for instance, the handler's transaction may
// have locked its record. With 4 groups, the last of 1,000 claims are apart after five
// failures, and a lease has room for eight.
const splits = 4

// A lease is what an Execution knows of the lease of its claim. Its mutex guards it.
type lease struct {
	ends      time.Time // by the clock of this process
	groupSize int       // how many claims the next call of Renew has at most; 0 means MaxRenew
	renewal   heartbeat.Item[*Execution]
}

func newHeartbeat(m *Middleware) *heartbeat.Heartbeat[*Execution] {
	return heartbeat.New(m.config.Lease/slackPerLease, MaxRenew, m.renewDue)
}

// processLifetime is the lease and the TTL of a claim in a [Memory]. Both end with the process,
// so no other can claim the key of one that has died, and a lease would protect nothing.
const processLifetime = 10 * 365 * 24 * time.Hour

// leaseAndTTL returns the lease and the TTL of a new claim.
func (m *Middleware) leaseAndTTL() (lease, ttl time.Duration) {
	if m.memory != nil {
		return processLifetime, processLifetime
	}
	return m.config.Lease, m.config.TTL
}

// keepLease begins to renew the lease of e.
func (e *Execution) keepLease() {
	if e.lease == nil {
		return
	}
	d := e.m.config.Lease
	e.m.heartbeat.Schedule(&e.lease.renewal, e.lease.ends.Add(d/renewalsPerLease-d))
}

// stopLease ends the renewals of e, unless a result is pending.
func (e *Execution) stopLease() {
	if e.lease == nil {
		return
	}
	e.mu.Lock()
	if e.pending != nil || e.leaseStopped {
		e.mu.Unlock()
		return
	}
	e.leaseStopped = true
	e.mu.Unlock()
	e.m.heartbeat.Remove(&e.lease.renewal)
}

// renewDue renews the leases of the executions that are due. Pending results are stored
// first, which delays no other renewal.
func (m *Middleware) renewDue(due []*Execution) {
	var running, pending []*Execution
	for _, e := range due {
		e.mu.Lock()
		switch {
		case e.leaseStopped:
		case e.pending != nil:
			pending = append(pending, e)
		default:
			running = append(running, e)
		}
		e.mu.Unlock()
	}
	var both sync.WaitGroup
	both.Go(func() { m.renewAll(running) })
	both.Go(func() { m.retryAll(pending) })
	both.Wait()
}

// renewAll renews the leases of executions, all in one call unless one has failed. If the
// store fails, the renewals are retried until the leases must have ended; then the claims
// count as lost.
func (m *Middleware) renewAll(all []*Execution) {
	bySize := make(map[int][]*Execution, 1)
	for _, e := range all {
		e.mu.Lock()
		size := cmp.Or(e.lease.groupSize, MaxRenew)
		e.mu.Unlock()
		bySize[size] = append(bySize[size], e)
	}
	var (
		calls  sync.WaitGroup
		failed atomic.Pointer[renewalError]
	)
	for size, all := range bySize {
		for group := range slices.Chunk(all, size) {
			calls.Go(func() {
				if err := m.renewGroup(group); err != nil {
					failed.CompareAndSwap(nil, err)
				}
			})
		}
	}
	calls.Wait()
	if f := failed.Load(); f != nil {
		m.failures.Error(f.of.request.Context(), fmt.Errorf("idempotency: renew the leases of %d requests, will retry: %w", f.group, f.err))
	}
}

// A renewalError is a failed call of Renew. One of the executions whose renewal will be
// retried reports it.
type renewalError struct {
	of    *Execution
	group int
	err   error
}

// renewGroup renews the leases of executions in one call. It returns an error if renewals
// will be retried.
func (m *Middleware) renewGroup(group []*Execution) (failed *renewalError) {
	claims := make([]ClaimID, len(group))
	for i, e := range group {
		claims[i] = ClaimID{e.key, e.token}
	}
	began := time.Now()
	lost, err := m.store.Renew(context.Background(), claims, m.config.Lease)
	isLost := make(map[ClaimID]bool, len(lost))
	for _, c := range lost {
		isLost[c] = true
	}
	for i, e := range group {
		if e.renewed(renewal{began, len(group), err == nil && isLost[claims[i]], err}) {
			failed = &renewalError{e, len(group), err}
		}
	}
	return failed
}

// A renewal is the effect of a call of Renew on one claim of a group.
type renewal struct {
	began time.Time
	group int // its size
	lost  bool
	err   error // of the call
}

// renewed schedules the next renewal of e after r. It reports whether r has failed and
// will be retried.
func (e *Execution) renewed(r renewal) (failed bool) {
	d := e.m.config.Lease
	pause := d / retriesPerLease
	e.mu.Lock()
	e.lease.groupSize = MaxRenew
	if r.err != nil {
		e.lease.groupSize = max(r.group/splits, 1)
	}
	ok := r.err == nil && !r.lost
	if ok {
		e.lease.ends = r.began.Add(d)
	}
	switch left := time.Until(e.lease.ends); {
	case e.pending != nil:
		if ok {
			e.m.pending.refuse(e.pending)
		}
	case ok:
		pause = d / renewalsPerLease
	case e.leaseStopped, e.finishing:
		// Finish finds out whether the claim is lost.
	case r.lost || left <= 0:
		e.leaseStopped = true
		e.mu.Unlock()
		go e.lose(fmt.Errorf("idempotency: the lease is lost: %w", cmp.Or(r.err, ErrLost)))
		return false
	default:
		pause, failed = min(pause, left), true
	}
	e.mu.Unlock()
	e.renewAfter(pause)
	return failed
}

// renewAfter schedules the next renewal, unless the renewals of e have ended.
func (e *Execution) renewAfter(pause time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.leaseStopped {
		e.m.heartbeat.Schedule(&e.lease.renewal, time.Now().Add(pause))
	}
}

// isLost reports whether the claim is known to be lost.
func (e *Execution) isLost() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost
}

// lose records that the claim is lost, and reports err the first time.
func (e *Execution) lose(err error) {
	e.mu.Lock()
	again := e.lost
	e.lost = true
	if e.lostCtx != nil {
		e.lostCtx.cancel()
	}
	e.mu.Unlock()
	e.m.waiters.requestEnded(e)
	if !again {
		e.m.claims.Record(e.request.Context(), leaseLost)
		e.m.failures.Error(e.request.Context(), err)
	}
}
