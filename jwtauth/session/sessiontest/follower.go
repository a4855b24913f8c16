package sessiontest

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/jwtauth"
)

// A follower follows a list, and records the revocations of one issuer.
type follower struct {
	t      *testing.T
	cancel context.CancelFunc
	ready  chan struct{}
	done   chan error

	mu      sync.Mutex
	got     []jwtauth.Revocation
	atReady int // how many there were before ready
}

// follow begins to follow s. The follower ends by itself after the last of the limits.
func follow(t *testing.T, s jwtauth.RevocationSource, after, issuer string, limits ...int) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{t: t, cancel: cancel, ready: make(chan struct{}), done: make(chan error, 1)}
	var readies atomic.Int32
	var inside atomic.Bool // ready or changed
	var ended atomic.Bool  // Follow has returned
	enter := func() {
		if !inside.CompareAndSwap(false, true) {
			t.Error("ready and changed are called concurrently")
		}
		if ended.Load() {
			t.Error("ready or changed is called after Follow has returned")
		}
	}
	go func() {
		err := s.Follow(ctx, after, func() {
			enter()
			defer inside.Store(false)
			f.mu.Lock()
			f.atReady = len(f.got)
			f.mu.Unlock()
			if readies.Add(1) > 1 {
				t.Error("ready is called twice")
				return
			}
			close(f.ready)
		}, func(r jwtauth.Revocation) {
			enter()
			defer inside.Store(false)
			if r.Issuer != issuer {
				return
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if ctx.Err() != nil {
				return
			}
			f.got = append(f.got, r)
			if slices.Contains(limits, len(f.got)) {
				cancel()
			}
			time.Sleep(10 * time.Microsecond) // so that concurrent calls are noticed
		})
		ended.Store(true)
		f.done <- err
	}()
	t.Cleanup(cancel)
	return f
}

// waitReady waits until f is ready.
func (f *follower) waitReady() {
	f.t.Helper()
	select {
	case <-f.ready:
	case err := <-f.done:
		f.t.Fatalf("Follow has ended before ready: %v", err)
	case <-time.After(patience):
		f.t.Fatal("Follow is not ready")
	}
}

// waitFor waits until f has n revocations.
func (f *follower) waitFor(n int) {
	f.t.Helper()
	for end := time.Now().Add(patience); len(f.revocations()) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("%d revocations were passed on, want %d", len(f.revocations()), n)
		}
	}
}

// stop ends Follow, which must return nil.
func (f *follower) stop() {
	f.t.Helper()
	f.cancel()
	select {
	case err := <-f.done:
		if err != nil {
			f.t.Errorf("Follow whose context has ended: %v", err)
		}
	case <-time.After(patience):
		f.t.Fatal("Follow has not ended with its context")
	}
}

// revocations returns the revocations that f has received.
func (f *follower) revocations() []jwtauth.Revocation {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

// want fails unless f has received exactly these revocations, apart from their positions.
func (f *follower) want(want []jwtauth.Revocation) {
	f.t.Helper()
	got := f.revocations()
	if len(got) != len(want) {
		f.t.Errorf("%d revocations were passed on, want %d", len(got), len(want))
		return
	}
	for i := range got {
		g, w := got[i], want[i]
		if g.Kind != w.Kind || g.Issuer != w.Issuer || g.Value != w.Value || !g.IssuedBefore.Equal(w.IssuedBefore) || !g.Until.Equal(w.Until) {
			f.t.Errorf("revocation %d:\n got %+v\nwant %+v", i, g, w)
			return
		}
	}
}
