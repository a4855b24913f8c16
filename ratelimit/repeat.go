package ratelimit

import (
	"errors"
	"sync"
	"time"
)

// repeatable is the shortest time for which a store remembers the results of a call.
const repeatable = 5 * time.Second

// errReused is returned to a caller that breaks the contract.
var errReused = errors.New("ratelimit: two different calls have the same ID")

// repeats are the results of recent calls by their ID. A repeated call gets the same
// results.
type repeats struct {
	mu    sync.Mutex
	calls map[ID]*call
	// recent has the calls in the order in which they began; those before first are
	// forgotten.
	recent []*call
	first  int
}

// A call is locked until it ends. It then has results, or has failed and may be made again.
type call struct {
	sync.Mutex
	id       ID
	began    int64
	adjusts  bool
	done     bool
	admitted bool
	results  []outcome
}

// An outcome has the results that a call has set in a charge.
type outcome struct {
	violated    bool
	remaining   int64
	reset, wait time.Duration
	at, moved   int64
}

// begin returns the call with the ID of d, locked, for the caller to make and to end. If
// that call already has results, begin sets them in d instead, and returns nil.
func (r *repeats) begin(d *Decision, adjusts bool, now int64) (*call, error) {
	r.mu.Lock()
	r.forget(now)
	c, known := r.calls[d.ID]
	if !known {
		if r.calls == nil {
			r.calls = make(map[ID]*call)
		}
		c = &call{id: d.ID, began: now, adjusts: adjusts}
		r.calls[d.ID] = c
		r.recent = append(r.recent, c)
	}
	r.mu.Unlock()
	c.Lock()
	switch {
	case c.adjusts != adjusts || c.done && len(c.results) != len(d.Charges):
		c.Unlock()
		return nil, errReused
	case c.done:
		defer c.Unlock()
		c.repeat(d)
		return nil, nil
	default: // it is new, or has failed
		return c, nil
	}
}

// repeat sets the results of the call in d.
func (c *call) repeat(d *Decision) {
	if c.adjusts {
		for i := range d.Charges {
			d.Charges[i].Moved = c.results[i].moved
		}
		return
	}
	d.Admitted = c.admitted
	for i := range d.Charges {
		to, o := &d.Charges[i], &c.results[i]
		to.Violated, to.Remaining, to.Reset, to.Wait = o.violated, o.remaining, o.reset, o.wait
		to.TakenBy, to.TakenAt = d.ID, o.at
	}
}

// forget drops the calls that began too long ago.
func (r *repeats) forget(now int64) {
	for r.first < len(r.recent) && now-r.recent[r.first].began > int64(repeatable) {
		delete(r.calls, r.recent[r.first].id)
		r.recent[r.first] = nil
		r.first++
	}
	if r.first > len(r.recent)/2 {
		n := copy(r.recent, r.recent[r.first:])
		clear(r.recent[n:])
		r.recent, r.first = r.recent[:n], 0
	}
}

// end keeps the results of a call, unless it has failed.
func (c *call) end(d *Decision, err error) {
	defer c.Unlock()
	if err != nil {
		return
	}
	c.done, c.admitted = true, d.Admitted
	c.results = make([]outcome, len(d.Charges))
	for i := range d.Charges {
		o := &d.Charges[i]
		c.results[i] = outcome{o.Violated, o.Remaining, o.Reset, o.Wait, o.TakenAt, o.Moved}
	}
}
