package ratelimittest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

// A server is a store behind clients. It can be silent, lose replies, and have values
// that cannot be read.
type server struct {
	store ratelimit.Store
	flaws flaws

	mu     sync.Mutex
	silent chan struct{} // closed when it is no longer silent; nil if it is not
	cuts   int
	kept   map[slot]bool // true for what cannot be read
}

// A slot is where a server keeps the usage of one key under one policy.
type slot struct {
	policy string
	key    ratelimit.Key
}

// flaws are mistakes of a server or of its clients that no wrapper can make.
type flaws struct {
	absent          bool // what cannot be read counts as absent
	panics          bool // what cannot be read makes a client panic
	unavailable     bool // what cannot be read is reported as usher.ErrUnavailable
	firstAlone      bool // only the first charge of a call is checked
	hidesPlaces     bool // places that cannot be read are not reported as lost
	failsRenewal    bool // a renewal fails if it cannot read a place, and renews the others
	renewsNone      bool // no place is renewed beside one that cannot be read
	repairs         bool // the failed call removes what cannot be read
	keepsUnreadable bool // a Reset does not remove what cannot be read
	staysDown       bool // a client never works again after a call has failed
	closesServer    bool // Close of a client closes the server
	leavesCalls     bool // Close leaves the calls that are running
	awaitsCalls     bool // Close waits for the calls that are running
}

func newServer(s ratelimit.Store, f flaws) *server {
	return &server{store: s, flaws: f, kept: make(map[slot]bool)}
}

// shared returns the server for the suite, with clients that wrap changes.
func (s *server) shared(wrap wrap) ratelimittest.Shared {
	return ratelimittest.Shared{
		Open: func(testing.TB) ratelimit.Store {
			s.mu.Lock()
			defer s.mu.Unlock()
			return wrap(&client{server: s, cuts: s.cuts, closed: make(chan struct{})})
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
			s.cuts++
		},
		Poison: func(testing.TB) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for k := range s.kept {
				s.kept[k] = true
			}
		},
	}
}

// execute runs f unless data that f needs cannot be read.
func (s *server) execute(f func(ratelimit.Store) error, slots []slot) error {
	if err := s.readable(slots); err != nil {
		return err
	}
	return f(s.store)
}

// repair makes what a Reset removes readable.
func (s *server) repair(counters []ratelimit.Counter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range counters {
		if k := (slot{c.Policy, c.Key}); !s.flaws.keepsUnreadable {
			delete(s.kept, k)
		}
	}
}

// readable returns an error if one of the slots cannot be read.
func (s *server) readable(slots []slot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, k := range slots {
		if unreadable := s.kept[k]; !unreadable || i > 0 && s.flaws.firstAlone {
			s.kept[k] = unreadable
			continue
		}
		switch {
		case s.flaws.panics:
			panic("index out of range")
		case s.flaws.repairs:
			s.kept[k] = false
		case s.flaws.unavailable:
			return usher.ErrUnavailable
		case s.flaws.absent:
			s.kept[k] = false
			continue
		}
		return fmt.Errorf("%q: %w", k.policy, usher.ErrCorrupt)
	}
	return nil
}

// A client is a store. Only its own Close closes it.
type client struct {
	*server
	cuts  int // those that it has met
	down  bool
	close sync.Once
	// closed is closed by Close.
	closed chan struct{}
	calls  sync.WaitGroup
}

// call lets the server execute f and waits for the reply.
func (c *client) call(ctx context.Context, f func(ratelimit.Store) error, slots []slot) error {
	select {
	case <-c.closed:
		return usher.ErrClosed
	default:
	}
	c.calls.Add(1)
	defer c.calls.Done()
	c.mu.Lock()
	silent, lost := c.silent, c.cuts != c.server.cuts
	c.cuts = c.server.cuts
	down := c.down
	c.mu.Unlock()
	if down {
		return usher.ErrUnavailable
	}
	if silent == nil {
		err := c.execute(f, slots)
		if lost {
			err = usher.ErrUnavailable
		}
		return err
	}
	executed := make(chan error, 1)
	go func() {
		<-silent
		executed <- c.execute(f, slots)
	}()
	closed := c.closed
	if c.flaws.leavesCalls || c.flaws.awaitsCalls {
		closed = nil
	}
	select {
	case err := <-executed:
		return err
	case <-closed:
		return usher.ErrClosed
	case <-ctx.Done():
		c.mu.Lock()
		c.down = c.flaws.staysDown
		c.mu.Unlock()
		return fmt.Errorf("%w: %w", usher.ErrUnavailable, ctx.Err())
	}
}

// decide calls a method of the server's store with a copy of d, which the server may keep
// for longer than the call takes.
func (c *client) decide(ctx context.Context, method func(ratelimit.Store, context.Context, *ratelimit.Decision) error, d *ratelimit.Decision) error {
	own := &ratelimit.Decision{ID: d.ID, Peek: d.Peek, Charges: slices.Clone(d.Charges)}
	slots := make([]slot, len(d.Charges))
	for i, charge := range d.Charges {
		slots[i] = slot{charge.Policy, charge.Key}
	}
	err := c.call(ctx, func(s ratelimit.Store) error { return method(s, context.WithoutCancel(ctx), own) }, slots)
	if err == nil {
		d.Admitted = own.Admitted
		copy(d.Charges, own.Charges)
	}
	return err
}

func (c *client) Take(ctx context.Context, d *ratelimit.Decision) error {
	return c.decide(ctx, ratelimit.Store.Take, d)
}

func (c *client) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	return c.decide(ctx, ratelimit.Store.Adjust, d)
}

func (c *client) Renew(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
	own := slices.Clone(places)
	lost := make(chan []ratelimit.Place, 1)
	err := c.call(ctx, func(s ratelimit.Store) error {
		var readable, unreadable []ratelimit.Place
		var corrupt error
		for i, p := range own {
			err := c.readable([]slot{{p.Policy, p.Key}})
			switch {
			case err == nil || i > 0 && c.flaws.firstAlone:
				readable = append(readable, p)
			case c.flaws.failsRenewal:
				corrupt = err
			case !c.flaws.hidesPlaces:
				unreadable = append(unreadable, p)
			}
		}
		if unreadable != nil && c.flaws.renewsNone {
			readable = nil
		}
		some, err := s.Renew(context.WithoutCancel(ctx), readable, lease)
		lost <- append(some, unreadable...)
		return errors.Join(corrupt, err)
	}, nil)
	if err != nil {
		return nil, err
	}
	return <-lost, nil
}

func (c *client) Reset(ctx context.Context, counters []ratelimit.Counter) error {
	own := slices.Clone(counters)
	return c.call(ctx, func(s ratelimit.Store) error {
		c.repair(own)
		return s.Reset(context.WithoutCancel(ctx), own)
	}, nil)
}

func (c *client) Close() error {
	c.close.Do(func() { close(c.closed) })
	if c.flaws.awaitsCalls {
		c.calls.Wait()
	}
	if c.flaws.closesServer {
		return c.store.Close()
	}
	return nil
}
