package ratelimittest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// deadline is the time until the context of a call to a silent server ends. The call must
// end within ten times that.
const deadline = 100 * time.Millisecond

// block makes the server silent until the function that it returns is called, or the test
// ends.
func (s shared) block(t *testing.T) (unblock func()) {
	unblock = sync.OnceFunc(s.server.Block(t))
	t.Cleanup(unblock)
	return unblock
}

// A started call is one that may still be running.
type started struct {
	name  string
	ended chan error
}

func start(name string, call func() error) started {
	c := started{name, make(chan error, 1)}
	go func() { c.ended <- call() }()
	return c
}

// wantEnd fails the test unless each call ends within ten times the deadline, counted from
// now, with an error for which ok holds.
func wantEnd(t *testing.T, calls []started, want string, ok func(error) bool) {
	t.Helper()
	timeout := time.After(10 * deadline)
	for _, c := range calls {
		select {
		case err := <-c.ended:
			if !ok(err) {
				t.Errorf("%s: error %v, want %s", c.name, err, want)
			}
		case <-timeout:
			t.Fatalf("%s has not ended after %v", c.name, 10*deadline)
		}
	}
}

func failed(err error) bool { return err != nil }

// everyCall starts calls of each method with a context of its own.
func (s suite) everyCall(c ratelimit.Charge, ctx func() context.Context) (calls []started, takes []*ratelimit.Decision) {
	for i := range 8 {
		d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
		takes = append(takes, &ratelimit.Decision{ID: d.ID, Charges: []ratelimit.Charge{c}})
		calls = append(calls, start(fmt.Sprintf("call %d of Take", i+1), func() error { return s.store.Take(ctx(), d) }))
	}
	nothing := c
	nothing.Cost = 0
	d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{nothing}}
	place := ratelimit.Place{Policy: c.Policy, Key: c.Key, TakenBy: newID()}
	return append(calls,
		start("Adjust", func() error { return s.store.Adjust(ctx(), d) }),
		start("Renew", func() error {
			_, err := s.store.Renew(ctx(), []ratelimit.Place{place}, time.Hour)
			return err
		}),
		start("Reset", func() error {
			return s.store.Reset(ctx(), []ratelimit.Counter{{Policy: "another-" + c.Policy, Key: c.Key}})
		})), takes
}

func (s shared) silent(t *testing.T) {
	for name, end := range map[string]func(context.Context) context.Context{
		"whose deadline passes": func(ctx context.Context) context.Context {
			ctx, cancel := context.WithTimeout(ctx, deadline)
			context.AfterFunc(ctx, cancel)
			return ctx
		},
		"that is canceled": func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(deadline, cancel)
			return ctx
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.open(t)
			c := charge(ratelimit.RollingWindow(100, time.Hour))
			a.take(t, c)
			s.block(t)
			ctx := context.WithoutCancel(t.Context())
			calls, _ := a.everyCall(c, func() context.Context { return end(ctx) })
			wantEnd(t, calls, "one", failed)
		})
	}
}

func (s shared) worksAgain(t *testing.T) {
	a, b := s.open(t), s.open(t)
	c := charge(ratelimit.RollingWindow(100, time.Hour))
	for _, client := range []suite{a, b} {
		client.wantLeft(t, c, 100)
	}
	began := time.Now()
	unblock := s.block(t)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	calls, takes := a.everyCall(c, func() context.Context { return ctx })
	wantEnd(t, calls, "one", failed)
	unblock()
	for _, client := range []suite{a, b} {
		client.repeat(t, take, &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}})
	}
	for _, d := range takes {
		a.repeat(t, take, d)
		if !d.Admitted {
			t.Error("a call that is repeated is refused though enough is left")
		}
	}
	// The server may execute late what it has received.
	time.Sleep(deadline / 2)
	if time.Since(began) > 4*time.Second {
		t.Skip("too slow: calls can be repeated within 5 seconds")
	}
	b.wantLeft(t, c, 100-2-int64(len(takes)))
}

func (s shared) closeSilent(t *testing.T) {
	a, b := s.open(t), s.open(t)
	c := charge(ratelimit.RollingWindow(100, time.Hour))
	a.take(t, c)
	b.take(t, c)
	s.block(t)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	calls, _ := a.everyCall(c, func() context.Context { return ctx })
	time.Sleep(deadline / 4)
	wantEnd(t, []started{start("Close", a.store.Close)}, "none", func(err error) bool { return err == nil })
	wantEnd(t, calls, "usher.ErrClosed", func(err error) bool { return errors.Is(err, usher.ErrClosed) })
	wantClosed(t, a.store)
	// A client without a running call.
	wantEnd(t, []started{start("Close", b.store.Close)}, "none", func(err error) bool { return err == nil })
}
