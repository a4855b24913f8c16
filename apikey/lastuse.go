package apikey

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
)

// A lastUse records in memory when keys were used, and writes the times in batches.
type lastUse struct {
	store  Store
	report *report.Reporter

	mu     sync.Mutex
	noted  map[string]noted
	closed bool

	cancel   context.CancelFunc
	ended    chan struct{} // closed when the goroutine has ended
	finished chan struct{} // closed when the last write is done
	err      error         // of the last write
}

// A noted is a [Use] that is not written yet.
type noted struct {
	at   int64 // microseconds since 1970
	from netip.Addr
}

const (
	// maxNoted bounds how many keys have a use that is not written yet. Until those are
	// written, uses of other keys are not recorded.
	maxNoted = 1 << 16
	// maxBatch bounds one write.
	maxBatch = 1000
	// flushTimeout bounds how long the writes of one interval may take.
	flushTimeout = 10 * time.Second
)

func newLastUse(store Store, interval time.Duration, report *report.Reporter) *lastUse {
	ctx, cancel := context.WithCancel(context.Background())
	l := &lastUse{
		store: store, report: report, noted: make(map[string]noted),
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

// note records that the key with this ID is used now, from this address.
func (l *lastUse) note(id string, from netip.Addr) {
	use := noted{time.Now().UnixMicro(), from}
	l.mu.Lock()
	if !l.closed {
		l.keep(id, use)
	}
	l.mu.Unlock()
}

// keep records a use if there is room. It needs l.mu.
func (l *lastUse) keep(id string, use noted) {
	if last, ok := l.noted[id]; (ok || len(l.noted) < maxNoted) && use.at > last.at {
		l.noted[id] = use
	}
}

// flush writes the recorded uses. Those that cannot be written are recorded again.
func (l *lastUse) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, flushTimeout, guard.ErrTimeout)
	defer cancel()
	l.mu.Lock()
	uses := l.noted
	l.noted = make(map[string]noted, len(uses))
	l.mu.Unlock()

	for len(uses) > 0 {
		batch := make(map[string]Use, min(len(uses), maxBatch))
		for id, use := range uses {
			batch[id] = Use{At: time.UnixMicro(use.at).UTC(), From: use.from}
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

func (l *lastUse) restore(uses map[string]noted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, use := range uses {
		l.keep(id, use)
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
