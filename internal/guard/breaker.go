package guard

import (
	"sync"
	"time"
)

// How a breaker decides. The window is short, since an outage is noticed only when half
// of the calls in the window have timed out or most have failed. Under steady traffic
// that takes half a window or a little more from the first failure, or a whole one if
// calls hang and few of them run.
const (
	// buckets times bucketLength is the window: 2 seconds, which move in steps of a
	// tenth.
	buckets      = 10
	bucketLength = 200 * time.Millisecond
	// minCalls is how many calls of the window must have an outcome. A store that is
	// called less often than 5 times a second costs little while it is down, and a few
	// failures show little about it.
	minCalls = 10
	// timeoutPercent is the share of these calls that must have timed out, and
	// failedPercent the share that must have failed in any way. A call that times out
	// costs a request its wait and one of the places; one that fails at once costs
	// nothing. So a store that is down for some tenants, or for one of its shards, is
	// called for the others. Sporadic failures stay far below these shares: of 10 calls
	// that time out in 1 % of cases, 5 do so once in 40 million times.
	timeoutPercent = 50
	failedPercent  = 80
	// pause is the time between two probes. It bounds how long the breaker stays open
	// after the end of an outage.
	pause = time.Second
)

// A breaker counts how calls end, and opens when too many of them fail. While it is open
// it admits a probe after each pause, one at a time, and closes when a probe succeeds: at
// the latest the first call that comes a pause and a timeout after the store has
// recovered, unless the client of that call disconnects.
type breaker struct {
	timeout time.Duration // of a call

	mu sync.Mutex
	// epoch changes whenever the breaker opens or closes: the outcomes of calls that
	// began before that do not count after it.
	epoch   uint64
	open    bool
	probeAt time.Time // while open

	base   time.Time // of the first bucket
	newest int64     // the number of the bucket that counts now
	counts [buckets]count
}

// A count has the calls of a bucket, those that failed, and those that timed out.
type count struct{ calls, failed, late int }

// A permit is the right to make a call.
type permit struct {
	epoch uint64
	probe bool
}

// An outcome is what a call shows about the store.
type outcome uint8

const (
	unknown   outcome = iota // nothing
	succeeded                // the store works
	failed                   // the store does not work
	late                     // it has not responded in time
	busy                     // the maximum number of calls is running already
)

// admit returns a permit for a call, whose outcome must reach done. It reports false
// while the breaker is open.
func (b *breaker) admit() (permit, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return permit{epoch: b.epoch}, true
	}
	now := time.Now()
	if now.Before(b.probeAt) {
		return permit{}, false
	}
	// When the probe has ended, after a timeout at the latest, done sets the time of the
	// next one.
	b.probeAt = now.Add(b.timeout + pause)
	return permit{epoch: b.epoch, probe: true}, true
}

func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// done counts the outcome of a call.
func (b *breaker) done(p permit, o outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch now := time.Now(); {
	case p.epoch != b.epoch:
	case p.probe && o == succeeded:
		b.open = false
		b.epoch++
		b.counts = [buckets]count{}
	case p.probe && o == unknown:
		// The client of the probe has disconnected. The next call is the probe, or
		// clients that disconnect would keep the breaker open.
		b.probeAt = now
	case p.probe:
		b.probeAt = now.Add(pause)
	case o != unknown:
		b.count(now, o)
		// While all calls that may run hang, no further call can fail.
		if o != succeeded && b.broken() {
			b.open = true
			b.epoch++
			b.probeAt = now.Add(pause)
		}
	}
}

// count begins the bucket of this time, and counts the outcome in it.
func (b *breaker) count(now time.Time, o outcome) {
	if b.base.IsZero() {
		b.base = now
	}
	n := int64(now.Sub(b.base) / bucketLength)
	for range min(n-b.newest, buckets) {
		b.newest++
		b.counts[b.newest%buckets] = count{}
	}
	b.newest = max(b.newest, n)
	c := &b.counts[b.newest%buckets]
	switch o {
	case succeeded:
		c.calls++
	case failed:
		c.calls++
		c.failed++
	case late:
		c.calls++
		c.failed++
		c.late++
	}
}

// broken reports whether too many calls of the window have failed.
func (b *breaker) broken() bool {
	var sum count
	for _, c := range b.counts {
		sum.calls += c.calls
		sum.failed += c.failed
		sum.late += c.late
	}
	return sum.calls >= minCalls &&
		(sum.late*100 >= sum.calls*timeoutPercent || sum.failed*100 >= sum.calls*failedPercent)
}
