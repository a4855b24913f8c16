package sessiontest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth/session"
)

// Shared has the functions with which [TestShared] opens and disturbs a store whose
// sessions several processes share. Open is required; the tests that need another function
// are skipped if it is nil.
type Shared struct {
	// Open returns another client of the server. The client must work until the given test
	// ends.
	Open func(testing.TB) session.Store
	// Block makes the server silent for all clients: it accepts calls and connections,
	// and does not respond before unblock is called.
	Block func(testing.TB) (unblock func())
	// Cut loses the response to the next call of each client, after the server has executed
	// the call.
	Cut func(testing.TB)
	// Poison makes every session on the server unreadable. Sessions that are inserted later
	// can be read.
	Poison func(testing.TB)
}

// TestShared runs the tests of the contract of [session.Store] that concern stores on a
// server. Run [TestStore] too.
func TestShared(t *testing.T, s Shared) {
	for _, test := range []struct {
		name string
		has  bool
		run  func(*testing.T, Shared)
	}{
		{"a client sees what another one has changed", true, testClients},
		{"parallel inserts of two clients leave exactly as many live sessions as the limit", true, testClientsCap},
		{"one of the parallel rotations of two clients succeeds", true, testClientsRotate},
		{"closing a client leaves the others open", true, testClientsClose},
		{"a call whose response was lost can be repeated", s.Cut != nil, testCut},
		{"a call of a silent server ends with its context", s.Block != nil, testBlock},
		{"closing a client ends its calls of a silent server", s.Block != nil, testBlockClose},
		{"unreadable data is ErrCorrupt", s.Poison != nil, testPoison},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !test.has {
				t.Skip("the store has no function for this")
			}
			test.run(t, s)
		})
	}
}

// soon is the deadline of calls to a silent server.
const soon = 100 * time.Millisecond

// patience is how long the tests wait for something that should be over by then.
var patience = 5 * time.Second

func testClients(t *testing.T, shared Shared) {
	a, b := shared.Open(t), shared.Open(t)
	r := insert(t, a, newRecord())
	want(t, b, r)
	wantList(t, "List", list(t, b, r.Subject, now()), r)
	storetest.WantError(t, "Insert by the other client", inserted(t.Context(), b, r), session.ErrConflict)
	old := r
	r = update(t, b, rotated(r))
	want(t, a, r)
	storetest.WantError(t, "Update by the client that has not seen the last one", a.Update(t.Context(), rotated(old)), session.ErrConflict)
	r = deliver(t, a, r)
	want(t, b, r)
	r.RevokedAt = now()
	wantSessions(t, "Revoke", []session.Session{revoke(t, a, r, r.RevokedAt)}, r)
	want(t, b, r)
	storetest.WantError(t, "Update by the other client", b.Update(t.Context(), rotated(r)), session.ErrConflict)
	other := newRecord()
	other.Subject = r.Subject
	insert(t, a, other)
	other.RevokedAt = now()
	wantSessions(t, "RevokeSubject", revokeSubject(t, b, r.Subject, other.RevokedAt), other)
	wantList(t, "List", list(t, a, r.Subject, now()))
}

func testClientsCap(t *testing.T, shared Shared) {
	parallelCap(t, shared.Open(t), shared.Open(t))
}

func testClientsRotate(t *testing.T, shared Shared) {
	stores := []session.Store{shared.Open(t), shared.Open(t)}
	for range 5 {
		r := insert(t, stores[0], newRecord())
		counts := each(16, func(i int) error { return stores[i%2].Update(t.Context(), rotated(r)) })
		if counts[nil] != 1 || counts[session.ErrConflict] != 15 {
			t.Fatalf("outcomes: %v, want 1 without error and 15 ErrConflict", counts)
		}
	}
}

func testClientsClose(t *testing.T, shared Shared) {
	a, b := shared.Open(t), shared.Open(t)
	r := insert(t, a, newRecord())
	testClose(t, a)
	want(t, b, r)
	want(t, shared.Open(t), r)
}

func testCut(t *testing.T, shared Shared) {
	s := shared.Open(t)
	// cut makes a call whose response is lost. The client may have repeated it already.
	cut := func(call func() error) {
		shared.Cut(t)
		if err := call(); err != nil {
			t.Logf("the call returned: %v", err)
		}
	}
	r := newRecords(3)
	insert(t, s, r[0])
	insert(t, s, r[1])
	cut(func() error { _, err := s.Insert(t.Context(), r[2], 2); return err })
	r[0].RevokedAt = r[2].CreatedAt
	for _, r := range r {
		want(t, s, r)
	}
	_, err := s.Insert(t.Context(), r[2], 2)
	storetest.WantError(t, "Insert repeated", err, session.ErrConflict)
	wantList(t, "List", list(t, s, r[0].Subject, now()), r[2], r[1])

	u := rotated(r[1])
	cut(func() error { return s.Update(t.Context(), u) })
	storetest.WantError(t, "Update repeated", s.Update(t.Context(), u), session.ErrConflict)
	r[1] = u
	r[1].Revision++
	want(t, s, r[1])

	cut(func() error { return s.SetDelivered(t.Context(), r[1].ID, r[1].TokenID) })
	r[1].Delivered = true
	r[1].Revision++
	want(t, s, r[1])
	want(t, s, deliver(t, s, r[1]))

	r[2].RevokedAt = now()
	cut(func() error { _, err := s.Revoke(t.Context(), r[2].Subject, r[2].ID, r[2].RevokedAt); return err })
	wantSessions(t, "Revoke repeated", []session.Session{revoke(t, s, r[2], r[2].RevokedAt)}, r[2])

	r[1].RevokedAt = r[2].RevokedAt.Add(time.Microsecond)
	cut(func() error { _, err := s.RevokeSubject(t.Context(), r[1].Subject, r[1].RevokedAt); return err })
	wantSessions(t, "RevokeSubject repeated", revokeSubject(t, s, r[1].Subject, r[1].RevokedAt), r[1])

	cut(func() error { _, err := s.Lookup(t.Context(), r[1].Handle); return err })
	want(t, s, r[1])
	cut(func() error { _, err := s.List(t.Context(), r[1].Subject, now()); return err })
	wantList(t, "List", list(t, s, r[1].Subject, now()))
}

func testBlock(t *testing.T, shared Shared) {
	s := shared.Open(t)
	r := insert(t, s, newRecord())
	unblock := sync.OnceFunc(shared.Block(t))
	defer unblock()
	began := time.Now()
	var running sync.WaitGroup
	for range 8 {
		for name, call := range calls(s, r) {
			running.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), soon)
				defer cancel()
				wantFailure(t, name, call(ctx))
			})
		}
	}
	// The test does not wait forever for a call that takes longer.
	late := time.AfterFunc(20*soon, unblock)
	running.Wait()
	late.Stop()
	if took := time.Since(began); took > 10*soon+time.Second {
		t.Errorf("calls of %v ended after %v", soon, took)
	}
	unblock()
	// The calls may still be executed, late.
	other := newRecord()
	works := func() error { return inserted(t.Context(), s, other) }
	err := works()
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); err = works() {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatalf("Insert once the server responds again: %v", err)
	}
	want(t, s, other)
}

func testBlockClose(t *testing.T, shared Shared) {
	s := shared.Open(t)
	r := insert(t, s, newRecord())
	unblock := sync.OnceFunc(shared.Block(t))
	defer unblock()
	var running sync.WaitGroup
	for name, call := range calls(s, r) {
		running.Go(func() {
			if err := call(t.Context()); err == nil {
				t.Errorf("%s: no error", name)
			}
		})
	}
	time.Sleep(soon) // until the calls are running
	closed := make(chan error, 1)
	go func() {
		err := s.Close()
		running.Wait()
		closed <- err
	}()
	select {
	case err := <-closed:
		if err != nil {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(patience):
		t.Errorf("Close, or a call of the closed store, takes longer than %v", patience)
		unblock()
		running.Wait()
	}
}

func testPoison(t *testing.T, shared Shared) {
	s := shared.Open(t)
	r := insert(t, s, newRecord())
	shared.Poison(t)
	for _, s := range []session.Store{s, shared.Open(t)} {
		all := calls(s, r)
		all["Insert"] = func(ctx context.Context) error {
			next := newRecord()
			next.Subject = r.Subject
			_, err := s.Insert(ctx, next, 1)
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			storetest.WantError(t, name, all[name](t.Context()), usher.ErrCorrupt)
		}
		// Others are not affected.
		other := newRecord()
		other.Subject = strings.ToUpper(other.Subject)
		insert(t, s, other)
		other = update(t, s, rotated(other))
		want(t, s, other)
		wantList(t, "List of another subject", list(t, s, other.Subject, now()), other)
	}
}
