package ratelimit

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// lines combine concurrent decisions of this process. While a call of the store is running,
// decisions that ask for the same wait in a line, and then go to the store as one call.
//
// That is exact. At one instant, n decisions one after another move what a key has used as
// far as one of n times the cost. The last of them has the least left, so all fit if the
// last one fits. Limits count in units, so what is left after each of them follows from
// what is left after the last, and Reset is the same for all. If not all fit, the results
// say how many do: those are charged in another call, in the order in which they came.
//
// This does not hold for places and reserved units, which belong to one decision, nor for
// policies in shadow, under which some decisions may be charged and others not.
type lines struct {
	store    *sharedStore
	timeout  time.Duration // of a decision
	patience time.Duration // the longest time in a line
	seed     maphash.Seed

	mu      sync.Mutex
	byHash  map[uint64]*line // those with a running call
	spare   []*line
	waiting int // in all lines
}

const (
	// waitsPerTimeout: a decision waits in line for no longer than a quarter of its time, so
	// that one call that hangs does not decide for those that come after it.
	waitsPerTimeout = 4
	// maxWaiting is how many decisions may wait in all lines.
	maxWaiting = 16 * maxCalls
	// maxRounds is how many calls a group may make. One or two are usual. More are needed if
	// units are taken by other processes, or earned, between the calls.
	maxRounds = 8
)

var (
	// errLeft is the error of a decision whose request has ended before it was charged.
	errLeft = errors.New("ratelimit: the request has ended")
	// errAlone makes a decision call the store by itself.
	errAlone = errors.New("ratelimit: not decided with others")
)

// A line has the decisions that wait for the end of a running call.
type line struct {
	hash    uint64
	asks    []ask
	turn    uint64    // the number of calls that have begun
	began   time.Time // the latest call
	waiting []*waiter
	timer   *time.Timer // ends their patience
}

// An ask is what one policy asks of the store for a decision.
type ask struct {
	policy             string
	key                Key
	limit              Limit
	cost, minRemaining int64
}

// A waiter is a decision in a line. The waiter alone reads done.
type waiter struct {
	ctx      context.Context
	decision *Decision
	deadline time.Time
	done     chan error
}

func newLines(s *sharedStore, timeout time.Duration) *lines {
	return &lines{
		store: s, timeout: timeout, patience: timeout / waitsPerTimeout,
		seed: maphash.MakeSeed(), byHash: make(map[uint64]*line),
	}
}

// combines reports whether d can be decided together with others like it.
func combines(d *Decision) bool {
	costs := false
	for i := range d.Charges {
		c := &d.Charges[i]
		if c.Shadow || c.Hold || c.Limit.algorithm == AlgorithmConcurrency {
			return false
		}
		costs = costs || c.Cost > 0
	}
	return costs && !d.Peek
}

// take decides d at once if no call for the same is running, and else together with others.
// It does so before the deadline, which is zero if d has all of its time.
func (l *lines) take(ctx context.Context, d *Decision, deadline time.Time) error {
	var room [2]ask
	asks := room[:0]
	for i := range d.Charges {
		c := &d.Charges[i]
		asks = append(asks, ask{c.Policy, c.Key, c.Limit, c.Cost, c.MinRemaining})
	}
	hash, now := l.hash(asks), time.Now()
	l.mu.Lock()
	at := l.byHash[hash]
	switch {
	case at == nil:
		at = l.open(hash, asks)
		turn := at.begin(now)
		l.mu.Unlock()
		defer l.end(at, turn)
		return l.store.takeAlone(ctx, d, deadline)
	case !slices.Equal(at.asks, asks), l.store.takes.Open():
		// The line is one of others, which share the hash; or calls fail at once, and
		// nobody should wait for the one that probes the store.
		l.mu.Unlock()
		return l.store.takeAlone(ctx, d, deadline)
	default:
		if deadline.IsZero() {
			deadline = now.Add(l.timeout)
		}
		w := &waiter{ctx: ctx, decision: d, deadline: deadline, done: make(chan error, 1)}
		joined := l.join(at, w, now)
		l.mu.Unlock()
		if !joined {
			return guard.ErrBusy
		}
		return l.wait(at, w)
	}
}

// hash returns a hash of the most important of what is asked. Lines compare all of it.
func (l *lines) hash(asks []ask) uint64 {
	var h uint64
	for i := range asks {
		a := &asks[i]
		h = 31*h + maphash.Comparable(l.seed, struct {
			policy                  string
			key                     Key
			quota, burst, per, cost int64
		}{a.policy, a.key, a.limit.quota, a.limit.burst, int64(a.limit.per), a.cost})
	}
	return h
}

// open returns a line without turns. The caller has locked l.mu.
func (l *lines) open(hash uint64, asks []ask) *line {
	var at *line
	if n := len(l.spare); n > 0 {
		at, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		at = new(line)
	}
	at.hash, at.asks = hash, append(at.asks[:0], asks...)
	l.byHash[hash] = at
	return at
}

// close removes a line in which nobody waits. The caller has locked l.mu.
func (l *lines) close(at *line) {
	delete(l.byHash, at.hash)
	at.turn++ // no earlier turn can end once the line is used again
	if len(l.spare) < maxCalls {
		clear(at.asks) // which keep a request alive
		l.spare = append(l.spare, at)
	}
}

// begin counts a call for at.
func (at *line) begin(now time.Time) (turn uint64) {
	at.turn++
	at.began = now
	return at.turn
}

// join puts w into a line, unless too many decisions wait. The caller has locked l.mu.
func (l *lines) join(at *line, w *waiter, now time.Time) bool {
	if l.waiting == maxWaiting {
		return false
	}
	if at.timer == nil {
		turn := at.turn
		at.timer = time.AfterFunc(at.began.Add(l.patience).Sub(now), func() { l.end(at, turn) })
	}
	at.waiting = append(at.waiting, w)
	l.waiting++
	return true
}

// wait returns once w is decided, or has left the line because its request has ended. After
// w was taken out of the line, it must wait for those who decide, who write its results.
func (l *lines) wait(at *line, w *waiter) error {
	var err error
	select {
	case err = <-w.done:
	case <-w.ctx.Done():
		if l.leave(at, w) {
			return errLeft
		}
		err = <-w.done
	}
	if errors.Is(err, errAlone) {
		return l.store.takeAlone(w.ctx, w.decision, w.deadline)
	}
	return err
}

// leave reports whether w was still waiting.
func (l *lines) leave(at *line, w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(at.waiting, w)
	if i < 0 {
		return false
	}
	at.waiting = slices.Delete(at.waiting, i, i+1)
	l.waiting--
	return true
}

// end ends a turn: all who wait in the line leave together. It does nothing if the turn has
// ended already, because its call has lasted longer than others wait.
func (l *lines) end(at *line, turn uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.turn != turn {
		return
	}
	if at.timer != nil {
		at.timer.Stop()
		at.timer = nil
	}
	group := at.waiting
	if len(group) == 0 {
		l.close(at)
		return
	}
	at.waiting = nil
	l.waiting -= len(group)
	turn = at.begin(time.Now())
	go func() {
		defer l.end(at, turn)
		l.decide(group)
	}()
}

// decide decides a group of waiters that ask for the same, in their order.
func (l *lines) decide(group []*waiter) {
	want := &Decision{Charges: slices.Clone(group[0].decision.Charges)}
	n := fitting(want.Charges, func(i int) int64 { return want.Charges[i].Limit.most() })
	for range maxRounds {
		group = slices.DeleteFunc(group, func(w *waiter) bool {
			left := w.ctx.Err() != nil
			if left {
				w.done <- errLeft
			}
			return left
		})
		if len(group) == 0 {
			return
		}
		n = min(max(n, 1), len(group))
		asked := l.store.denials.now()
		first := slices.MinFunc(group, func(a, b *waiter) int { return a.deadline.Compare(b.deadline) })
		own, err := l.store.call(first.ctx, want, n, first.deadline)
		if err != nil {
			finish(group, err)
			return
		}
		if !own.Admitted && n == 1 {
			l.refuse(group, own, asked)
			return
		}
		fits := fitting(want.Charges, func(i int) int64 { return own.Charges[i].Remaining })
		if own.Admitted {
			for i, w := range group[:n] {
				own.share(w.decision, i, n)
			}
			finish(group[:n], nil)
			group = group[n:]
		}
		n = fits
		if refusal := own.next(want.Charges); refusal != nil {
			l.refuse(group, refusal, asked)
			return
		}
	}
	finish(group, errAlone)
}

// refuse gives the results of one refused decision to all of a group.
func (l *lines) refuse(group []*waiter, refusal *Decision, asked moment) {
	l.store.denials.keep(refusal, asked)
	for _, w := range group {
		refusal.share(w.decision, 0, 1)
	}
	finish(group, nil)
}

// finish ends the waits of a group, whose results are set unless err says otherwise.
func finish(group []*waiter, err error) {
	for _, w := range group {
		w.done <- err
	}
}

// most returns the largest number of units that can be left.
func (l *Limit) most() int64 {
	if l.algorithm == AlgorithmTokenBucket {
		return l.burst
	}
	return l.quota
}

// fitting returns how many decisions with these charges fit one after another, if left
// units are left for the i-th charge.
func fitting(want []Charge, left func(i int) int64) int {
	n := int64(math.MaxInt32)
	for i := range want {
		c := &want[i]
		if c.need() == 0 {
			continue
		}
		more := left(i) - c.need()
		if more < 0 {
			return 0
		}
		if c.Cost > 0 {
			n = min(n, more/c.Cost+1)
		}
	}
	return int(n)
}

// times makes d n decisions in one.
func (d *Decision) times(n int) {
	for i := range d.Charges {
		c := &d.Charges[i]
		others := int64(n-1) * c.Cost
		c.Cost, c.MinRemaining = others+c.Cost, others+c.need()
	}
}

// share sets the results of to, which is the i-th of n decisions that d has made in one,
// counted from 0.
func (d *Decision) share(to *Decision, i, n int) {
	to.Admitted = d.Admitted
	for j := range to.Charges {
		c, o := &to.Charges[j], &d.Charges[j]
		c.Violated, c.Remaining, c.Reset, c.Wait = o.Violated, o.Remaining, o.Reset, o.Wait
		if d.Admitted {
			c.Remaining += int64(n-1-i) * c.Cost
		}
		c.TakenBy, c.TakenAt = d.ID, o.TakenAt
	}
}

// next returns the results that a decision with these charges would have had right after
// own, if they follow from own and are a refusal. It returns nil otherwise.
//
// Reset is the time until more than Remaining is left. That is the time to wait for a
// charge that lacks one unit, as all do that cost one. The exception is a policy with
// MinRemaining: others may hold units under it, which are left again at an unknown time.
func (d *Decision) next(want []Charge) *Decision {
	more := &Decision{ID: d.ID, Charges: slices.Clone(want)}
	refused := false
	for i := range more.Charges {
		c, o := &more.Charges[i], &d.Charges[i]
		c.Violated, c.Remaining, c.Reset, c.Wait, c.TakenAt = false, o.Remaining, o.Reset, 0, o.TakenAt
		if c.need() <= c.Remaining || c.need() == 0 {
			continue
		}
		if c.need() != c.Remaining+1 || c.MinRemaining > 0 || c.Reset <= 0 {
			return nil
		}
		c.Violated, c.Wait, refused = true, c.Reset, true
	}
	if !refused {
		return nil
	}
	return more
}
