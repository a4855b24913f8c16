package idempotency

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// waiters are the requests that wait for a duplicate. While there are none, a request that
// ends pays for the look at a counter and no more.
type waiters struct {
	// calls counts the calls of Claim that are running, by a part of the key.
	calls [1024]atomic.Int32

	count   atomic.Int64 // of all waiters
	mu      sync.Mutex
	flights map[flightID]*flight
	owners  map[[32]byte]int // the number of waiters of each owner
}

// ownersShare is the part of all waiters that may belong to one owner.
const ownersShare = 10

// A flightID identifies a request: two requests with one key may differ.
type flightID struct {
	key         Key
	fingerprint [32]byte
}

func (c *Claim) flight() flightID { return flightID{c.Key, c.Fingerprint} }

// A flight is a request in flight, as seen by its duplicates in this process. One of them
// asks the store for all: the one that has the turn.
type flight struct {
	fingerprint [32]byte
	waiters     int           // guarded by waiters.mu
	turn        chan struct{} // contains an element while nobody has the turn
	ended       chan struct{} // gets an element when the request ends in this process
	seen        atomic.Pointer[sighting]

	// These belong to the waiter that has the turn: when the next call of the store is due,
	// and the pause after it.
	due   time.Time
	pause time.Duration

	// The result is set before decided is closed.
	decided chan struct{}
	record  Record
	err     error
}

// A sighting is the record of a request in flight, and when the store returned it.
type sighting struct {
	record Record
	at     time.Time
}

func newFlight(c *Claim, seen *Record) *flight {
	f := &flight{
		fingerprint: c.Fingerprint,
		turn:        make(chan struct{}, 1),
		ended:       make(chan struct{}, 1),
		decided:     make(chan struct{}),
		pause:       firstPause,
	}
	f.turn <- struct{}{}
	if seen != nil {
		f.see(seen)
		f.due = time.Now().Add(f.pause)
	}
	return f
}

// see records the claim r of the request in flight.
func (f *flight) see(r *Record) {
	s := &sighting{*r, time.Now()}
	s.record.Won = false
	f.seen.Store(s)
}

// inFlight returns the record of the request in flight, with what must be left of its lease
// by now.
func (f *flight) inFlight() Record {
	s := f.seen.Load()
	if s == nil {
		return Record{State: StateClaimed, Fingerprint: f.fingerprint}
	}
	r := s.record
	r.Lease = max(r.Lease-time.Since(s.at), 0)
	return r
}

// pauseOver returns when the next call of the store is due, which is at once if the request
// has ended in this process. It returns false if the waiter gives up first.
func (f *flight) pauseOver(ctx context.Context, deadline <-chan time.Time) (woken, ok bool) {
	due := time.NewTimer(time.Until(f.due))
	defer due.Stop()
	select {
	case <-due.C:
	case <-f.ended:
		woken, f.pause = true, firstPause
	case <-deadline:
		return false, false
	case <-ctx.Done():
		return false, false
	}
	f.due = time.Now().Add(f.pause)
	f.pause = min(2*f.pause, lastPause)
	return woken, ctx.Err() == nil
}

// wake lets the waiter that has the turn ask the store at once.
func (f *flight) wake() {
	select {
	case f.ended <- struct{}{}:
	default: // It will.
	}
}

// callsFor returns the counter of calls for the key. A few keys share each counter.
func (w *waiters) callsFor(key *Key) *atomic.Int32 {
	return &w.calls[int(binary.NativeEndian.Uint16(key.Name[:]))%len(w.calls)]
}

// has reports whether duplicates of c are waiting.
func (w *waiters) has(c *Claim) bool {
	if w.count.Load() == 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flights[c.flight()] != nil
}

// join adds a request to those that wait for a duplicate, whose record is seen if that is
// not nil. If there is no room for it, join returns what others wait for, if there is that.
func (w *waiters) join(c *Claim, seen *Record, limit int) (f *flight, joined bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f = w.flights[c.flight()]
	if w.count.Load() >= int64(limit) || w.owners[c.Key.Owner] >= max(limit/ownersShare, 1) {
		return f, false
	}
	if w.flights == nil {
		w.flights, w.owners = make(map[flightID]*flight), make(map[[32]byte]int)
	}
	if f == nil {
		f = newFlight(c, seen)
		w.flights[c.flight()] = f
	}
	f.waiters++
	w.owners[c.Key.Owner]++
	w.count.Add(1)
	return f, true
}

// leave removes a request from those that wait for f.
func (w *waiters) leave(c *Claim, f *flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count.Add(-1)
	if w.owners[c.Key.Owner]--; w.owners[c.Key.Owner] == 0 {
		delete(w.owners, c.Key.Owner)
	}
	if f.waiters--; f.waiters == 0 && w.flights[c.flight()] == f {
		delete(w.flights, c.flight())
	}
}

// decide ends f with a result for all that wait for it.
func (w *waiters) decide(c *Claim, f *flight, r *Record, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.flights, c.flight())
	f.record, f.err = *r, err
	close(f.decided)
}

// requestEnded wakes the waiter that asks the store for the duplicates of a request, after
// that has ended in this process. A duplicate that has just seen it in flight and does not
// wait yet is not woken: it asks the store after the first pause.
func (w *waiters) requestEnded(e *Execution) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	f := w.flights[flightID{e.key, e.fingerprint}]
	w.mu.Unlock()
	if f != nil {
		f.wake()
	}
}
