package apikey

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
)

// A lastUse records in memory when keys were used, and writes the times in batches. The
// requests of a key share only the [used] of that key, and hardly ever write to it.
type lastUse struct {
	store  Store
	report *report.Reporter

	mu     sync.Mutex
	noted  map[string]*used // by the ID of the key; with a use that is not written yet
	failed map[string]Use   // by the ID of the key; their write has failed
	closed bool

	cancel   context.CancelFunc
	ended    chan struct{} // closed when the goroutine has ended
	finished chan struct{} // closed when the last write is done
	err      error         // of the last write
}

const (
	// maxNoted bounds how many keys have a use that is not written yet, and how many have
	// one whose write has failed. Until those are written, uses of other keys are not
	// recorded.
	maxNoted = 1 << 16
	// maxBatch bounds one write.
	maxBatch = 1000
	// flushTimeout bounds how long the writes of one interval may take.
	flushTimeout = 10 * time.Second
	// resolution is how much later a use must be than the one that is recorded, in
	// microseconds. It bounds how often the processors that serve one key contend.
	resolution = 1000
)

// A used is a key whose uses are recorded.
type used struct {
	id string
	// verified is when the key was last verified, in microseconds since 1970. A use is
	// recorded with this time, so that a request needs no second reading of the clock.
	verified atomic.Int64
	at       atomic.Int64 // of the last use; changes under mu

	mu    sync.Mutex
	from  netip.Addr
	noted bool // among lastUse.noted
}

// verify records that the key is verified now, unless it was within the resolution.
func (k *used) verify(now time.Time) {
	at := now.UnixMicro()
	for last := k.verified.Load(); at-last >= resolution; last = k.verified.Load() {
		if k.verified.CompareAndSwap(last, at) {
			return
		}
	}
}

// recorded reports whether the last verification is already recorded as a use.
func (k *used) recorded() bool { return k.verified.Load()-k.at.Load() < resolution }

// record records the last verification as a use, and reports whether k is noted.
func (k *used) record(from netip.Addr) (noted bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if at := k.verified.Load(); at > k.at.Load() {
		k.at.Store(at)
		k.from = from
	}
	return k.noted
}

// merge records the last use of other, which is the same key, unless k has a later one.
func (k *used) merge(other *used) {
	other.mu.Lock()
	at, from := other.at.Load(), other.from
	other.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if at > k.at.Load() {
		k.at.Store(at)
		k.from = from
	}
}

// take returns the last use, which is noted no longer.
func (k *used) take() Use {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.noted = false
	return Use{At: time.UnixMicro(k.at.Load()).UTC(), From: k.from}
}

func newLastUse(store Store, interval time.Duration, report *report.Reporter) *lastUse {
	ctx, cancel := context.WithCancel(context.Background())
	l := &lastUse{
		store: store, report: report,
		cancel: cancel, ended: make(chan struct{}), finished: make(chan struct{}),
	}
	go func() {
		defer close(l.ended)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := l.flush(ctx); err != nil && ctx.Err() == nil {
					l.report.Background(ctx, err)
				}
			}
		}
	}()
	return l
}

// note records that k, which was verified for this request, is used from this address.
func (l *lastUse) note(k *used, from netip.Addr) {
	if k.record(from) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	// A key that was looked up anew has another used, and without a cache each request has.
	if other := l.noted[k.id]; other != nil && other != k {
		other.merge(k)
		return
	}
	if len(l.noted) >= maxNoted {
		return
	}
	if l.noted == nil {
		l.noted = make(map[string]*used)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.noted = true
	l.noted[k.id] = k
}

// flush writes the recorded uses. Those that cannot be written are kept for the next time.
func (l *lastUse) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, flushTimeout, guard.ErrTimeout)
	defer cancel()
	l.mu.Lock()
	noted, uses := l.noted, l.failed
	l.noted, l.failed = nil, nil
	l.mu.Unlock()
	if uses == nil {
		uses = make(map[string]Use, len(noted))
	}
	for _, k := range noted {
		// A later use may be among those whose write has failed.
		if use := k.take(); use.At.After(uses[k.id].At) {
			uses[k.id] = use
		}
	}

	for len(uses) > 0 {
		batch := make(map[string]Use, min(len(uses), maxBatch))
		for id, use := range uses {
			batch[id] = use
			if len(batch) == maxBatch {
				break
			}
		}
		if err := l.store.Touch(ctx, batch); err != nil {
			l.restore(uses)
			return fmt.Errorf("apikey: the times of last use were not written: %w", err)
		}
		for id := range batch {
			delete(uses, id)
		}
	}
	return nil
}

// restore keeps uses for the next flush, as many as there is room for.
func (l *lastUse) restore(uses map[string]Use) {
	for id := range uses {
		if len(uses) <= maxNoted {
			break
		}
		delete(uses, id)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = uses
}

// close writes the recorded uses for the last time. All of its callers get the error of
// that write.
func (l *lastUse) close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if first {
		l.cancel()
		<-l.ended // soon, as no write outlasts its context
		l.err = l.flush(context.Background())
		close(l.finished)
	}
	<-l.finished
	return l.err
}
