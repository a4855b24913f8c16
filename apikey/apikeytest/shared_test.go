package apikeytest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/apikey/apikeytest"
)

// A server is a Memory that several clients share.
type server struct {
	data     *apikey.Memory
	poisoned atomic.Bool

	mu      sync.Mutex
	silence chan struct{} // closed at its end; nil unless the server is silent
	clients []*client
}

// A client of a server is a store whose calls pass through call.
type client struct {
	*store
	server *server
	call   func(ctx context.Context, f func(context.Context) error) error
	cut    atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (s *server) open(alter func(*client)) apikey.Store {
	c := &client{store: newStore(), server: s, closed: make(chan struct{})}
	c.Memory = s.data
	c.call = c.over
	s.mu.Lock()
	s.clients = append(s.clients, c)
	s.mu.Unlock()
	c.connect()
	alter(c)
	return c.store
}

// quiet returns a channel that is closed at the end of the silence, or nil.
func (s *server) quiet() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silence
}

func (s *server) block(testing.TB) (unblock func()) {
	end := make(chan struct{})
	s.mu.Lock()
	s.silence = end
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.silence = nil
		s.mu.Unlock()
		close(end)
	}
}

func (s *server) cutAll(testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		c.cut.Store(true)
	}
}

// over makes a call over the connection.
func (c *client) over(ctx context.Context, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-c.closed:
		return usher.ErrClosed
	default:
	}
	if end := c.server.quiet(); end != nil {
		select {
		case <-end:
		case <-c.closed:
			return usher.ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", usher.ErrUnavailable, ctx.Err())
		}
	}
	if c.server.poisoned.Load() {
		return usher.ErrCorrupt
	}
	err := f(ctx)
	if c.cut.Swap(false) {
		return usher.ErrUnavailable
	}
	return err
}

// connect makes each method of the store a call.
func (c *client) connect() {
	m := c.server.data
	c.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
		return c.call(ctx, func(ctx context.Context) error { return m.Insert(ctx, r, limits) })
	}
	c.lookup = func(ctx context.Context, h apikey.Hash) (r apikey.Record, err error) {
		err = c.call(ctx, func(ctx context.Context) (err error) { r, err = m.Lookup(ctx, h); return err })
		return r, err
	}
	c.find = func(ctx context.Context, owner, id string) (r apikey.Record, err error) {
		err = c.call(ctx, func(ctx context.Context) (err error) { r, err = m.Find(ctx, owner, id); return err })
		return r, err
	}
	c.list = func(ctx context.Context, owner string, offset, limit int) (keys []apikey.Key, total int, err error) {
		err = c.call(ctx, func(ctx context.Context) (err error) {
			keys, total, err = m.List(ctx, owner, offset, limit)
			return err
		})
		return keys, total, err
	}
	c.update = func(ctx context.Context, r apikey.Record) error {
		return c.call(ctx, func(ctx context.Context) error { return m.Update(ctx, r) })
	}
	c.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
		return c.call(ctx, func(ctx context.Context) error { return m.Rotate(ctx, old, next, limits) })
	}
	c.revoke = func(ctx context.Context, owner, id string, at time.Time) (r apikey.Record, err error) {
		err = c.call(ctx, func(ctx context.Context) (err error) { r, err = m.Revoke(ctx, owner, id, at); return err })
		return r, err
	}
	c.touch = func(ctx context.Context, uses map[string]apikey.Use) error {
		return c.call(ctx, func(ctx context.Context) error { return m.Touch(ctx, uses) })
	}
	c.sel = func(ctx context.Context, q apikey.Query) (keys []apikey.Key, next apikey.Cursor, err error) {
		err = c.call(ctx, func(ctx context.Context) (err error) { keys, next, err = m.Select(ctx, q); return err })
		return keys, next, err
	}
	c.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) (revoked []apikey.Record, more bool, err error) {
		err = c.call(ctx, func(ctx context.Context) (err error) { revoked, more, err = m.RevokeAll(ctx, f, at, limit); return err })
		return revoked, more, err
	}
	c.purge = func(ctx context.Context, before time.Time, limit int) (n int, err error) {
		err = c.call(ctx, func(ctx context.Context) (err error) { n, err = m.Purge(ctx, before, limit); return err })
		return n, err
	}
	c.close = func() error {
		c.once.Do(func() { close(c.closed) })
		return nil
	}
	c.watch = c.follow
}

// follow is a Watch that notices silence within a heartbeat.
func (c *client) follow(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		heartbeat := time.NewTicker(10 * time.Millisecond)
		defer heartbeat.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-c.closed:
				cancel(usher.ErrClosed)
			case <-heartbeat.C:
				if c.server.quiet() != nil {
					cancel(errors.New("the server is silent"))
				}
			}
		}
	}()
	err := c.server.data.Watch(ctx, ready, changed)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// shared returns the clients of a new server.
func shared(alter func(*client)) apikeytest.Shared {
	s := &server{data: apikey.NewMemory()}
	return apikeytest.Shared{
		Open:   func(testing.TB) apikey.Store { return s.open(alter) },
		Block:  s.block,
		Cut:    s.cutAll,
		Poison: func(testing.TB) { s.poisoned.Store(true) },
	}
}

// The clients that the wrong ones are made of fail neither suite.
func TestRightClientsPass(t *testing.T) {
	apikeytest.TestShared(t, shared(func(*client) {}))
	s := shared(func(*client) {})
	apikeytest.TestStore(t, s.Open)
	apikeytest.TestShared(t, apikeytest.Shared{Open: s.Open})
}
