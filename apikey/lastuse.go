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
// requests of a key share only the [pending] of that key, and hardly ever write to it.
type lastUse struct {
	store  Store
	report *report.Reporter

	mu     sync.Mutex
	noted  map[string]*pending
	closed bool

	cancel   context.CancelFunc
	ended    chan struct{} // closed when the goroutine has ended
	finished chan struct{} // closed when the last write is done
	err      error         // of the last write
}

const (
	// maxNoted bounds how many keys have a use that is not written yet. Until those are
	// written, uses of other keys are not recorded.
	maxNoted = 1 << 16
	// maxBatch bounds one write.
	maxBatch = 1000
	// flushTimeout bounds how long the writes of one interval may take.
	flushTimeout = 10 * time.Second
	// resolution is how much later a use must be than the one that is recorded, in
	// microseconds. It bounds how often the processors that serve one key contend.
	resolution = 1000
)

// A pending is the last use of a key that is not written yet.
type pending struct {
	at atomic.Int64 // microseconds since 1970; changes under mu

	mu    sync.Mutex
	from  netip.Addr
	taken bool // by a write, so that nothing is recorded here any more
}

// record records a use unless a later one is recorded. It returns false if p is taken.
func (p *pending) record(at int64, from netip.Addr) bool {
	if at-p.at.Load() < resolution {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken {
		return false
	}
	if at > p.at.Load() {
		p.at.Store(at)
		p.from = from
	}
	return true
}

// take returns the use, after which nothing is recorded in p.
func (p *pending) take() Use {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = true
	return Use{At: time.UnixMicro(p.at.Load()).UTC(), From: p.from}
}

// A used is a key whose uses are recorded.
type used struct {
	id string
	// verified is when the key was last verified, in microseconds since 1970. A use is
	// recorded with this time, so that a request needs no second reading of the clock.
	verified atomic.Int64
	pending  atomic.Pointer[pending] // of this key, or nil
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

// noted reports whether the last verification, or a later one, is recorded as a use.
func (k *used) noted() bool {
	p := k.pending.Load()
	return p != nil && k.verified.Load()-p.at.Load() < resolution
}

func newLastUse(store Store, interval time.Duration, report *report.Reporter) *lastUse {
	ctx, cancel := context.WithCancel(context.Background())
	l := &lastUse{
		store: store, report: report, noted: make(map[string]*pending),
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
	at := k.verified.Load()
	if p := k.pending.Load(); p != nil && p.record(at, from) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		k.pending.Store(l.keep(k.id, at, from))
	}
}

// keep records a use if there is room, and returns where. It needs l.mu.
func (l *lastUse) keep(id string, at int64, from netip.Addr) *pending {
	p := l.noted[id]
	switch {
	case p != nil:
		p.record(at, from)
	case len(l.noted) < maxNoted:
		p = &pending{from: from}
		p.at.Store(at)
		l.noted[id] = p
	}
	return p
}

// flush writes the recorded uses. Those that cannot be written are recorded again.
func (l *lastUse) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, flushTimeout, guard.ErrTimeout)
	defer cancel()
	l.mu.Lock()
	noted := l.noted
	l.noted = make(map[string]*pending, len(noted))
	l.mu.Unlock()
	uses := make(map[string]Use, len(noted))
	for id, p := range noted {
		uses[id] = p.take()
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

func (l *lastUse) restore(uses map[string]Use) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, use := range uses {
		l.keep(id, use.At.UnixMicro(), use.From)
	}
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
