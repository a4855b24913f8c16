package apikeytest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
)

// patience bounds how long the suite waits for anything.
var patience = 10 * time.Second

// A watch is a running Watch.
type watch struct {
	t     testing.TB
	ready chan struct{}
	ended chan error
	stop  context.CancelFunc
	slow  func() // called with each change

	calls atomic.Int64 // running ones
	over  atomic.Bool  // Watch has returned
	mu    sync.Mutex
	seen  map[apikey.Hash]bool
	// unchanged is the hash of a key that nobody changes.
	unchanged apikey.Hash
	more      chan struct{} // has a value if seen has changed
}

// newWatch calls Watch and waits until it is ready. A Watch may call slow, if not nil, with
// each change.
func newWatch(t testing.TB, n apikey.Notifier, slow func()) *watch {
	t.Helper()
	w := &watch{t: t, slow: slow, ready: make(chan struct{}), ended: make(chan error, 1), seen: map[apikey.Hash]bool{}, more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	w.stop = cancel
	t.Cleanup(cancel)
	go func() {
		err := n.Watch(ctx, w.call(sync.OnceFunc(func() { close(w.ready) })), func(h apikey.Hash) { w.call(func() { w.change(h) })() })
		w.over.Store(true)
		w.ended <- err
	}()
	select {
	case <-w.ready:
	case err := <-w.ended:
		t.Fatalf("Watch: %v", err)
	case <-time.After(patience):
		t.Fatal("Watch is not ready")
	}
	return w
}

// call returns f with the rules for calls by a Watch.
func (w *watch) call(f func()) func() {
	return func() {
		if w.over.Load() {
			w.t.Error("Watch makes a call after it has returned")
		}
		if w.calls.Add(1) > 1 {
			w.t.Error("Watch makes two calls concurrently")
		}
		defer w.calls.Add(-1)
		f()
	}
}

func (w *watch) change(h apikey.Hash) {
	if w.slow != nil {
		w.slow()
	}
	w.mu.Lock()
	w.seen[h] = true
	if h == w.unchanged {
		w.t.Error("Watch reports a key that was only used")
	}
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// await fails unless there are notices of these hashes, and forgets them. It ignores
// others, which may come from another test.
func (w *watch) await(what string, hashes ...apikey.Hash) {
	w.t.Helper()
	late := time.After(patience)
	for {
		if w.missing(hashes) == 0 {
			w.mu.Lock()
			clear(w.seen)
			w.mu.Unlock()
			return
		}
		select {
		case <-w.more:
		case err := <-w.ended:
			w.t.Fatalf("Watch ended before the notice of %s: %v", what, err)
		case <-late:
			w.t.Fatalf("there was no notice of %s", what)
		}
	}
}

func (w *watch) missing(hashes []apikey.Hash) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range hashes {
		if !w.seen[h] {
			n++
		}
	}
	return n
}

// end ends the context of the watch, and fails unless it then returns an error.
func (w *watch) end() {
	w.t.Helper()
	w.stop()
	select {
	case err := <-w.ended:
		if err == nil {
			w.t.Error("Watch returned without an error")
		}
	case <-time.After(patience):
		w.t.Error("Watch does not end with its context")
	}
}

func notifier(t testing.TB, s apikey.Store) apikey.Notifier {
	t.Helper()
	n, ok := s.(apikey.Notifier)
	if !ok {
		t.Skip("the store is not a Notifier")
	}
	return n
}

func testWatch(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	n := notifier(t, s)
	used := insert(t, s, newRecord())
	w := newWatch(t, n, nil)
	w.mu.Lock()
	w.unchanged = used.Hash
	w.mu.Unlock()
	r, old, next := rotation(t, s)
	w.await("Insert", r.Hash)
	if err := s.Touch(ctx, map[string]apikey.Use{used.ID: use(now())}); err != nil {
		t.Fatal(err)
	}
	r.Name = "new"
	if err := s.Update(ctx, r); err != nil {
		t.Fatal(err)
	}
	w.await("Update", r.Hash)
	old.Revision = 2
	if err := s.Rotate(ctx, old, next, apikey.Limits{}); err != nil {
		t.Fatal(err)
	}
	w.await("Rotate", old.Hash, next.Hash)
	if _, err := s.Revoke(ctx, old.Owner, old.ID, now()); err != nil {
		t.Fatal(err)
	}
	w.await("Revoke", old.Hash)
	if a := admin(s); a != nil {
		if _, _, err := a.RevokeAll(ctx, apikey.Filter{Owner: next.Owner}, now(), 10); err != nil {
			t.Fatal(err)
		}
		w.await("RevokeAll", next.Hash)
		gone := ancientRecord(t, a)
		w.await("Insert", gone.Hash)
		if _, err := a.Purge(ctx, ancient, 10); err != nil {
			t.Fatal(err)
		}
		w.await("Purge", gone.Hash)
	}
	w.end()
}

func testWatchers(t *testing.T, s apikey.Store) {
	n := notifier(t, s)
	// So that calls that overlap are noticed.
	slow := func() { time.Sleep(200 * time.Microsecond) }
	// A watch that polls for new changes may miss one that is committed after a later one,
	// but only if it polls while changes are under way. So there are several watches, and
	// many changes.
	var watches []*watch
	for range 4 {
		watches = append(watches, newWatch(t, n, slow))
	}
	hashes := make([]apikey.Hash, 600)
	counts := each(len(hashes), func(i int) error {
		r := newRecord()
		hashes[i] = r.Hash
		return s.Insert(t.Context(), r, apikey.Limits{})
	})
	if counts[nil] != len(hashes) {
		t.Fatalf("outcomes: %v", counts)
	}
	for i, w := range watches {
		w.await(fmt.Sprintf("each change for watcher %d", i), hashes...)
	}
	last := watches[0]
	for _, w := range watches[1:] {
		w.end()
	}
	r := insert(t, s, newRecord())
	last.await("a change after the other watches have ended", r.Hash)
	last.end()
}

// A watcher that cannot keep up gets all changes late, or Watch returns an error. No change
// is lost without an error.
func testSlowWatcher(t *testing.T, s apikey.Store) {
	const changes, writers = 5000, 10
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	w := newWatch(t, notifier(t, s), func() { <-release })
	t.Cleanup(free)
	hashes := make([]apikey.Hash, changes)
	counts := each(writers, func(i int) error {
		for j := i; j < changes; j += writers {
			r := newRecord()
			hashes[j] = r.Hash
			if err := s.Insert(t.Context(), r, apikey.Limits{}); err != nil {
				return fmt.Errorf("a slow watcher stops changes: %w", err)
			}
		}
		return nil
	})
	if counts[nil] != writers {
		t.Fatalf("outcomes: %v", counts)
	}
	free()
	late := time.After(patience)
	for w.missing(hashes) > 0 {
		select {
		case <-w.more:
		case err := <-w.ended:
			if err == nil {
				t.Error("Watch returned without an error")
			}
			return
		case <-late:
			t.Fatalf("%d of %d changes are lost, and the watch goes on", w.missing(hashes), changes)
		}
	}
	w.end()
}
