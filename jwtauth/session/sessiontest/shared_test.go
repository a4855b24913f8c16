package sessiontest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/jwtauth/session/sessiontest"
)

// A server has the sessions of its clients. It is right unless change makes it wrong.
type server struct {
	mu       sync.Mutex
	memory   store
	clients  []*client
	silent   chan struct{} // nil, or closed once the server responds again
	handles  map[handle]session.Session
	poisoned map[string]bool // handles, IDs and subjects
	faults
}

// The faults of a server.
type faults struct {
	apart          bool // each client has its own sessions
	lockPerClient  bool // two clients take one place
	patient        bool // calls outlast their context
	notFound       bool // a silent server has no sessions
	broken         bool // a client does not recover
	repeatsUpdate  bool // a client repeats an update whose response was lost, as another one
	repeatsInsert  bool // likewise an insert
	forgetsRevoked bool // a repeated revocation finds nothing
	unread         error
	unreadList     bool // what cannot be read is left out of lists
	unreadInsert   bool // what cannot be read is not counted
	allUnread      bool // nothing can be read any more
	closesAll      bool // Close closes all clients
	waits          bool // Close waits for the calls
}

func newServer(f faults) *server {
	return &server{memory: store{Memory: newMemory()}, handles: map[handle]session.Session{}, poisoned: map[string]bool{}, faults: f}
}

func (s *server) shared() sessiontest.Shared {
	return sessiontest.Shared{
		Open: func(tb testing.TB) session.Store {
			c := &client{server: s, memory: s.memory, closed: make(chan struct{})}
			if s.apart {
				c.memory = store{Memory: newMemory()}
			}
			if s.lockPerClient {
				c.memory = capped(func(live []session.Session, _ session.Record) []session.Session {
					time.Sleep(time.Millisecond)
					return live
				})
				c.memory.Memory = s.memory.Memory
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.clients = append(s.clients, c)
			tb.Cleanup(func() { _ = c.Close() })
			return c
		},
		Block: func(testing.TB) func() {
			silent := make(chan struct{})
			s.mu.Lock()
			defer s.mu.Unlock()
			s.silent = silent
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.silent = nil
				close(silent)
			}
		},
		Cut: func(testing.TB) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, c := range s.clients {
				c.cut = true
			}
		},
		Poison: func(testing.TB) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for h, r := range s.handles {
				s.poisoned[string(h[:])], s.poisoned[r.ID], s.poisoned[r.Subject] = true, true, true
			}
		},
	}
}

// A client is a store on a server.
type client struct {
	*server
	memory store
	calls  sync.Mutex
	active sync.WaitGroup
	cut    bool
	failed bool
	once   sync.Once
	closed chan struct{}
}

// call makes a call for a key.
func (c *client) call(ctx context.Context, key string, f func(context.Context) error) error {
	c.active.Add(1)
	defer c.active.Done()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.mu.Lock()
	silent, unread := c.silent, c.poisoned[key] || c.allUnread && len(c.poisoned) > 0
	c.mu.Unlock()
	if silent != nil {
		if c.notFound {
			return session.ErrNotFound
		}
		done := ctx.Done()
		if c.patient {
			done = nil
		}
		select {
		case <-silent:
		case <-c.closed:
		case <-done:
			c.mu.Lock()
			defer c.mu.Unlock()
			c.failed = true
			return fmt.Errorf("%w: %w", usher.ErrUnavailable, ctx.Err())
		}
	}
	select {
	case <-c.closed:
		return usher.ErrClosed
	default:
	}
	if unread {
		if c.unread != nil {
			return c.unread
		}
		return usher.ErrCorrupt
	}
	if c.lockPerClient {
		c.calls.Lock()
		defer c.calls.Unlock()
	} else {
		c.server.mu.Lock()
		defer c.server.mu.Unlock()
	}
	if c.broken && c.failed {
		return usher.ErrUnavailable
	}
	err := f(context.WithoutCancel(ctx))
	if c.cut {
		c.cut = false
		return usher.ErrUnavailable
	}
	return err
}

func (c *client) Insert(ctx context.Context, r session.Record, limit int) (ended []session.Session, err error) {
	key := r.Subject
	if c.unreadInsert {
		key = ""
	}
	err = c.call(ctx, key, func(ctx context.Context) (err error) {
		cut := c.cut
		ended, err = c.memory.Insert(ctx, r, limit)
		if err == nil && !c.lockPerClient {
			c.handles[r.Handle] = r.Session
		}
		if cut && c.repeatsInsert {
			c.cut = false
			again := r
			again.ID, again.Handle[0] = r.ID+"2", r.Handle[0]+1
			ended, err = c.memory.Insert(ctx, again, limit)
		}
		return err
	})
	return ended, err
}

func (c *client) Lookup(ctx context.Context, h handle) (r session.Record, err error) {
	err = c.call(ctx, string(h[:]), func(ctx context.Context) (err error) { r, err = c.memory.Lookup(ctx, h); return err })
	return r, err
}

func (c *client) List(ctx context.Context, subject string, now time.Time) (list []session.Session, err error) {
	key := subject
	if c.unreadList {
		key = ""
	}
	err = c.call(ctx, key, func(ctx context.Context) (err error) {
		list, err = c.memory.List(ctx, subject, now)
		return err
	})
	return list, err
}

func (c *client) Update(ctx context.Context, r session.Record) error {
	return c.call(ctx, r.ID, func(ctx context.Context) error {
		cut := c.cut
		err := c.memory.Update(ctx, r)
		if cut && c.repeatsUpdate {
			c.cut = false
			r.Revision++
			return c.memory.Update(ctx, r)
		}
		return err
	})
}

func (c *client) SetDelivered(ctx context.Context, sessionID, tokenID string) error {
	return c.call(ctx, sessionID, func(ctx context.Context) error { return c.memory.SetDelivered(ctx, sessionID, tokenID) })
}

func (c *client) Revoke(ctx context.Context, subject, id string, at time.Time) (s session.Session, err error) {
	err = c.call(ctx, id, func(ctx context.Context) (err error) {
		s, err = c.memory.Revoke(ctx, subject, id, at)
		if was := c.poisoned["revoked "+id]; was && c.forgetsRevoked {
			return session.ErrNotFound
		}
		if c.forgetsRevoked {
			c.poisoned["revoked "+id] = true
		}
		return err
	})
	return s, err
}

func (c *client) RevokeSubject(ctx context.Context, subject string, at time.Time) (ended []session.Session, err error) {
	err = c.call(ctx, subject, func(ctx context.Context) (err error) {
		ended, err = c.memory.RevokeSubject(ctx, subject, at)
		return err
	})
	return ended, err
}

func (c *client) Close() error {
	if c.closesAll {
		c.server.mu.Lock()
		defer c.server.mu.Unlock()
		for _, other := range c.clients {
			other.once.Do(func() { close(other.closed) })
		}
		return nil
	}
	if c.waits {
		c.active.Wait()
	}
	c.once.Do(func() { close(c.closed) })
	return nil
}

type wrongServer struct {
	faults faults
	fails  string
}

var sharedStores = map[string]wrongServer{
	"keeps the sessions of each client apart":  {faults{apart: true}, "a client sees what another one has changed"},
	"locks in the client":                      {faults{lockPerClient: true}, "parallel inserts of two clients leave exactly as many live sessions as the limit"},
	"ignores the context of a call":            {faults{patient: true}, "a call of a silent server ends with its context"},
	"finds nothing on a silent server":         {faults{notFound: true}, "a call of a silent server ends with its context"},
	"does not recover":                         {faults{broken: true}, "a call of a silent server ends with its context"},
	"repeats an update as another one":         {faults{repeatsUpdate: true}, "a call whose response was lost can be repeated"},
	"repeats an insert as another one":         {faults{repeatsInsert: true}, "a call whose response was lost can be repeated"},
	"forgets what it revoked":                  {faults{forgetsRevoked: true}, "a call whose response was lost can be repeated"},
	"does not find what it cannot read":        {faults{unread: session.ErrNotFound}, "unreadable data is ErrCorrupt"},
	"reports conflicts of what it cannot read": {faults{unread: session.ErrConflict}, "unreadable data is ErrCorrupt"},
	"is unavailable if it cannot read":         {faults{unread: usher.ErrUnavailable}, "unreadable data is ErrCorrupt"},
	"leaves out what it cannot read":           {faults{unreadList: true}, "unreadable data is ErrCorrupt"},
	"does not count what it cannot read":       {faults{unreadInsert: true}, "unreadable data is ErrCorrupt"},
	"reads nothing any more":                   {faults{allUnread: true}, "unreadable data is ErrCorrupt"},
	"closes all clients":                       {faults{closesAll: true}, "closing a client leaves the others open"},
	"waits for calls when it is closed":        {faults{waits: true}, "closing a client ends its calls of a silent server"},
}

func TestWrongSharedStoresFail(t *testing.T) {
	storetest.WantFailures(t, "TestWrongSharedStore", sharedStores, func(w wrongServer) string { return w.fails })
}

func TestWrongSharedStore(t *testing.T) {
	w := sharedStores[storetest.Wrong(t)]
	patience()
	sessiontest.TestShared(t, newServer(w.faults).shared())
}

// The code that the wrong servers share does not itself fail the suites.
func TestARightSharedStorePasses(t *testing.T) {
	sessiontest.TestShared(t, newServer(faults{}).shared())
	sessiontest.TestStore(t, newServer(faults{}).shared().Open)
}

func TestSharedSkipsWhatAStoreCannotDo(t *testing.T) {
	sessiontest.TestShared(t, sessiontest.Shared{Open: newServer(faults{}).shared().Open})
}
