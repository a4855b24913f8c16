package apikeytest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
)

// Shared opens clients of one server, and disturbs them. Open is required; a test that
// needs another function is skipped if it is nil.
type Shared struct {
	// Open returns another client of the server. The client is closed at the end of the
	// test.
	Open func(testing.TB) apikey.Store
	// Block makes the server silent for all clients: it accepts what they send, and sends
	// nothing, until unblock is called.
	Block func(testing.TB) (unblock func())
	// Cut loses the reply to the next call of each open client, after the server has
	// executed the call.
	Cut func(testing.TB)
	// Poison makes all data unreadable that the server keeps for the store. The suite calls
	// it once, at the end.
	Poison func(testing.TB)
}

// TestShared tests that an [apikey.Store] fulfils its contract for several processes that
// share a server, whatever happens to their connections.
func TestShared(t *testing.T, s Shared) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Shared)
	}{
		{"each client finds what another has stored", testClients},
		{"every limit holds across clients", testSharedLimits},
		{"one of the parallel changes by two clients succeeds", testSharedChanges},
		{"a client is notified of the changes by another", testSharedNotices},
		{"a call whose reply is lost fails, and can be repeated", testCut},
		{"no call outlasts its context while the server is silent", testBlock},
		{"a watch ends when the server is silent", testSilentWatch},
		{"no key in a cache outlasts a silent watch", testSilentCache},
		{"a client that is closed leaves the others open", testClosedClient},
		{"unreadable data is never taken for missing", testPoison},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

func (s Shared) open(t *testing.T) apikey.Store {
	t.Helper()
	c := s.Open(t)
	t.Cleanup(func() {
		if err := try(t, "Close", c.Close); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

func testClients(t *testing.T, s Shared) {
	a, b := s.open(t), s.open(t)
	r := insert(t, a, newRecord())
	want(t, b, r)
	want(t, a, r)
	update := r
	update.Name, update.Level, update.Scopes = "new", usher.LevelNone, nil
	if err := b.Update(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	set(&r, update)
	want(t, a, r)
	revoked, err := b.Revoke(t.Context(), r.Owner, r.ID, now())
	if err != nil {
		t.Fatal(err)
	}
	want(t, a, revoked)
}

func testSharedLimits(t *testing.T, s Shared) { parallelChanges(t, s.open(t), s.open(t)) }

func testSharedChanges(t *testing.T, s Shared) {
	clients := []apikey.Store{s.open(t), s.open(t)}
	for name, change := range map[string]func(apikey.Store, apikey.Record) error{
		"Update": func(c apikey.Store, r apikey.Record) error { return c.Update(t.Context(), r) },
		"Rotate": func(c apikey.Store, r apikey.Record) error {
			next := newRecord()
			next.Owner, r.ReplacedBy = r.Owner, next.ID
			return c.Rotate(t.Context(), r, next, apikey.Limits{})
		},
	} {
		r := insert(t, clients[0], newRecord())
		counts := each(20, func(i int) error { return change(clients[i%2], r) })
		if counts[nil] != 1 || counts[apikey.ErrConflict] != 19 {
			t.Errorf("%s: outcomes: %v, want 1 without error and 19 ErrConflict", name, counts)
		}
		found, err := clients[1].Find(t.Context(), r.Owner, r.ID)
		if err != nil || found.Revision != 2 {
			t.Errorf("%s: revision %d, %v; want 2", name, found.Revision, err)
		}
	}
}

func testSharedNotices(t *testing.T, s Shared) {
	a, b := s.open(t), s.open(t)
	w := newWatch(t, notifier(t, a), nil)
	r, old, next := rotation(t, b)
	w.await("Insert by another client", r.Hash)
	if err := b.Rotate(t.Context(), old, next, apikey.Limits{}); err != nil {
		t.Fatal(err)
	}
	w.await("Rotate by another client", old.Hash, next.Hash)
	if _, err := b.Revoke(t.Context(), next.Owner, next.ID, now()); err != nil {
		t.Fatal(err)
	}
	w.await("Revoke by another client", next.Hash)
	w.end()
}

func testBlock(t *testing.T, s Shared) {
	if s.Block == nil {
		t.Skip("without Block")
	}
	const deadline = 200 * time.Millisecond
	c := s.open(t)
	r := insert(t, c, newRecord())
	unblock := sync.OnceFunc(s.Block(t))
	defer unblock()
	type result struct {
		name string
		err  error
		took time.Duration
	}
	all := calls(c, r)
	results := make(chan result, len(all))
	for name, call := range all {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			start := time.Now()
			err := guarded(func() error { return call(ctx) })
			results <- result{name, err, time.Since(start)}
		}()
	}
	late := time.After(patience)
	for range len(all) {
		select {
		case got := <-results:
			delete(all, got.name)
			if errors.Is(got.err, errors.ErrUnsupported) {
				continue
			}
			wantFailure(t, got.name, got.err)
			if !errors.Is(got.err, usher.ErrUnavailable) && !errors.Is(got.err, context.DeadlineExceeded) {
				t.Errorf("%s: error %v, want %v or the end of the context", got.name, got.err, usher.ErrUnavailable)
			}
			if got.took > 10*deadline {
				t.Errorf("%s took %v, with a deadline of %v", got.name, got.took, deadline)
			}
		case <-late:
			t.Fatalf("of a silent server, %v have not ended", slices.Sorted(maps.Keys(all)))
		}
	}
	unblock()
	again := newRecord()
	eventually(t, "Insert after the silence", func(ctx context.Context) error {
		err := c.Insert(ctx, again, apikey.Limits{})
		if errors.Is(err, apikey.ErrConflict) { // by an attempt before
			err = nil
		}
		return err
	})
	want(t, c, again)
}

func testClosedClient(t *testing.T, s Shared) {
	a, b := s.open(t), s.open(t)
	r := insert(t, a, newRecord())
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := a.Lookup(t.Context(), r.Hash)
	storetest.WantError(t, "Lookup after Close", err, usher.ErrClosed)
	want(t, b, r)
	insert(t, b, newRecord())
}
