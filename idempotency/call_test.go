package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// message returns a call with the key k.
func message(options ...func(*idempotency.Call)) idempotency.Call {
	c := idempotency.Call{Owner: "acme", Operation: "orders.create", Key: "k", Payload: []byte("tea")}
	for _, o := range options {
		o(&c)
	}
	return c
}

// A consumer counts how often it runs.
type consumer struct {
	n    int
	next func(ctx context.Context) ([]byte, error) // if not nil
}

func (c *consumer) run(ctx context.Context) ([]byte, error) {
	c.n++
	if c.next != nil {
		return c.next(ctx)
	}
	return fmt.Appendf(nil, "order %d", c.n), nil
}

// execute executes a call, and recovers from panics, which it returns as errPanic.
func execute(m *idempotency.Middleware, c idempotency.Call, f func(context.Context) ([]byte, error)) (reply string, replayed bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errPanic
		}
	}()
	b, replayed, err := m.Execute(context.Background(), c, f)
	return string(b), replayed, err
}

var errPanic = errors.New("panic")

// wantCode fails unless err is an error of usher with this status and code.
func wantCode(tb testing.TB, err error, status int, code string) {
	tb.Helper()
	e, ok := errors.AsType[*usher.Error](err)
	if !ok || e.Status != status || e.Code != code {
		tb.Errorf("got %v, want %d %s", err, status, code)
	}
}

func wantReply(tb testing.TB, reply string, replayed bool, err error, want string, again bool) {
	tb.Helper()
	if reply != want || replayed != again || err != nil {
		tb.Errorf("got %q, replayed: %v, %v; want %q, replayed: %v", reply, replayed, err, want, again)
	}
}

func TestACallRunsOnce(t *testing.T) {
	for name, payload := range map[string][]byte{"a payload": []byte("tea"), "no payload": nil} {
		t.Run(name, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{})
			c := new(consumer)
			for i := range 3 {
				reply, replayed, err := execute(m, message(func(c *idempotency.Call) { c.Payload = payload }), c.run)
				wantReply(t, reply, replayed, err, "order 1", i > 0)
			}
			if c.n != 1 {
				t.Errorf("%d executions", c.n)
			}
		})
	}
}

// Calls differ by all that they have, and from requests over HTTP.
func TestCallsOfOthersRun(t *testing.T) {
	for name, option := range map[string]func(*idempotency.Call){
		"another key":           func(c *idempotency.Call) { c.Key = "K" },
		"a key of any text":     func(c *idempotency.Call) { c.Key = "topic 1, partition 7\n§" },
		"a long key":            func(c *idempotency.Call) { c.Key = strings.Repeat("k", 10_000) },
		"another owner":         func(c *idempotency.Call) { c.Owner = "ACME" },
		"another operation":     func(c *idempotency.Call) { c.Operation = "orders" },
		"the same text in all":  func(c *idempotency.Call) { c.Owner, c.Operation, c.Key = "a", "b", "c" },
		"parts cut differently": func(c *idempotency.Call) { c.Operation, c.Key = "orders.", "createk" },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{})
			c := new(consumer)
			_, _, _ = execute(m, message(), c.run)
			for i := range 2 {
				reply, replayed, err := execute(m, message(option), c.run)
				wantReply(t, reply, replayed, err, "order 2", i > 0)
			}
		})
	}
	t.Run("a request over HTTP", func(t *testing.T) {
		m := newMiddleware(t, idempotency.Config{
			Owner: func(*http.Request) (string, bool) { return "acme", true },
			Route: func(*http.Request) string { return "orders.create" },
		})
		calls := new(counting)
		do(m.Wrap(calls), post("/", "tea"))
		reply, replayed, err := execute(m, message(), new(consumer).run)
		wantReply(t, reply, replayed, err, "order 1", false)
	})
}

func TestACallThatIsRefusedDoesNotRun(t *testing.T) {
	never := func(context.Context) ([]byte, error) { panic("runs") }
	down := func(err error) idempotency.Store {
		s := newHookedStore(t)
		s.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) { return idempotency.Record{}, err }
		return s
	}
	for name, c := range map[string]struct {
		config idempotency.Config
		call   idempotency.Call
		status int
		code   string
	}{
		"another payload": {idempotency.Config{}, message(func(c *idempotency.Call) { c.Payload = []byte("coffee") }), 422, usher.CodeIdempotencyKeyReused},
		"no key":          {idempotency.Config{}, message(func(c *idempotency.Call) { c.Key = "" }), 400, usher.CodeIdempotencyKeyMissing},
		"a key that is not valid": {
			idempotency.Config{ValidKey: func(key string) bool { return key != "bad" }},
			message(func(c *idempotency.Call) { c.Key = "bad" }), 400, usher.CodeIdempotencyKeyInvalid,
		},
		"a store that fails": {idempotency.Config{Store: down(usher.ErrUnavailable)}, message(), 503, usher.CodeIdempotencyUnavailable},
		"a full owner":       {idempotency.Config{Store: down(idempotency.ErrOwnerFull)}, message(), 429, usher.CodeIdempotencyTooManyKeys},
		"a damaged record":   {idempotency.Config{Store: down(usher.ErrCorrupt)}, message(), 500, usher.CodeIdempotencyRecordUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			var events []idempotency.Event
			c.config.OnError = func(context.Context, error) {}
			m := newMiddleware(t, c.config)
			if c.config.Store == nil {
				_, _, _ = execute(m, message(), new(consumer).run)
			}
			c.config.OnResult = func(_ context.Context, e idempotency.Event) { events = append(events, e) }
			m = newMiddleware(t, c.config)
			if c.config.Store == nil {
				_, _, _ = execute(m, message(), new(consumer).run)
				events = nil
			}
			reply, replayed, err := execute(m, c.call, never)
			wantCode(t, err, c.status, c.code)
			if reply != "" || replayed {
				t.Errorf("got %q, replayed: %v", reply, replayed)
			}
			if len(events) != 1 || !errors.Is(events[0].Err, err) {
				t.Errorf("OnResult got %+v", events)
			}
		})
	}
	for _, option := range []func(*idempotency.Call){
		func(c *idempotency.Call) { c.Owner = "" }, func(c *idempotency.Call) { c.Operation = "" },
	} {
		_, _, err := execute(newMiddleware(t, idempotency.Config{}), message(option), never)
		if _, public := errors.AsType[*usher.Error](err); err == nil || public || errors.Is(err, errPanic) {
			t.Errorf("a fault of the program is %v", err)
		}
	}
}

// A Config that lets requests run while the store fails does the same for calls.
func TestACallRunsUnprotected(t *testing.T) {
	s := newHookedStore(t)
	s.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
		return idempotency.Record{}, usher.ErrUnavailable
	}
	m := newMiddleware(t, idempotency.Config{Store: s, DangerouslyFailOpen: true, OnError: func(context.Context, error) {}})
	failure := errors.New("no")
	reply, replayed, err := execute(m, message(), func(ctx context.Context) ([]byte, error) {
		if idempotency.From(ctx) != nil {
			t.Error("it has an Execution")
		}
		return []byte("done"), failure
	})
	if reply != "done" || replayed || !errors.Is(err, failure) {
		t.Errorf("got %q, %v, %v", reply, replayed, err)
	}
}

// Duplicates of a call that is running wait for its result.
func TestDuplicateCallsRunOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMiddleware(t, idempotency.Config{Store: newHookedStore(t)})
		f := &consumer{next: func(context.Context) ([]byte, error) {
			time.Sleep(time.Second)
			return []byte("done"), nil
		}}
		var all sync.WaitGroup
		var mu sync.Mutex
		first := 0
		for range 100 {
			all.Go(func() {
				reply, replayed, err := execute(m, message(), f.run)
				mu.Lock()
				defer mu.Unlock()
				if !replayed {
					first++
				}
				wantReply(t, reply, replayed, err, "done", replayed)
			})
		}
		all.Wait()
		if f.n != 1 || first != 1 {
			t.Errorf("%d executions, %d first replies", f.n, first)
		}
		slow := &consumer{next: func(context.Context) ([]byte, error) { time.Sleep(time.Minute); return nil, nil }}
		other := message(func(c *idempotency.Call) { c.Key = "other" })
		go func() { _, _, _ = execute(m, other, slow.run) }()
		synctest.Wait()
		_, _, err := execute(m, other, slow.run)
		wantCode(t, err, 409, usher.CodeIdempotencyInProgress)
		if e, _ := errors.AsType[*usher.Error](err); e.RetryAfter == 0 {
			t.Error("the error has no RetryAfter")
		}
		time.Sleep(time.Minute)
	})
}

// Config.Resolve is asked about a call whose outcome is unknown, and gets all of it.
func TestACallIsResolved(t *testing.T) {
	for o, want := range map[idempotency.Outcome]string{
		idempotency.Keep: "resolved", idempotency.Release: "order 2", idempotency.Unknown: unknown,
	} {
		m := newMiddleware(t, idempotency.Config{
			OnError: func(context.Context, error) {},
			Resolve: func(r *http.Request, e *idempotency.Execution) (idempotency.Resolution, error) {
				body, err := io.ReadAll(r.Body)
				if r.Pattern != "orders.create" || r.Header.Get("Idempotency-Key") != "k" || string(body) != "tea" || err != nil {
					t.Errorf("Resolve got %q, key %q, %q, %v", r.Pattern, r.Header.Get("Idempotency-Key"), body, err)
				}
				if e.Commit(r.Context(), func(context.Context, idempotency.Completion) error { return nil }, nil) == nil {
					t.Error("Commit returns no error")
				}
				return idempotency.Resolution{Outcome: o, Response: &idempotency.Response{Status: 200, Body: []byte("resolved")}}, nil
			},
		})
		f := new(consumer)
		f.next = func(context.Context) ([]byte, error) {
			if f.n == 1 {
				panic("x")
			}
			return []byte("order 2"), nil
		}
		_, _, _ = execute(m, message(), f.run)
		reply, replayed, err := execute(m, message(), f.run)
		if o == idempotency.Unknown {
			wantCode(t, err, 409, want)
			continue
		}
		wantReply(t, reply, replayed, err, want, o == idempotency.Keep)
	}
}

// An operator can look up, resolve and delete the record of a call.
func TestTheRecordOfACall(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{})
	k := idempotency.RequestKey{Owner: "acme", Route: "orders.create", Key: "k"}
	f := &consumer{next: func(context.Context) ([]byte, error) { panic("x") }}
	_, _, _ = execute(m, message(), f.run)
	if entry, err := m.Lookup(t.Context(), k); entry.State != idempotency.StateUnknown || err != nil {
		t.Errorf("Lookup: %+v, %v", entry, err)
	}
	resolution := idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{Status: 200, Body: []byte("resolved")}}
	if err := m.Resolve(t.Context(), k, resolution); err != nil {
		t.Error(err)
	}
	reply, replayed, err := execute(m, message(), f.run)
	wantReply(t, reply, replayed, err, "resolved", true)
	if err := m.Delete(t.Context(), k); err != nil {
		t.Error(err)
	}
	if _, _, err := execute(m, message(), f.run); !errors.Is(err, errPanic) {
		t.Errorf("after Delete: %v", err)
	}
}

// A 404 of a call is that of its function, whatever its operation is named: no router is
// involved, and Config.Route is not asked.
func TestA404OfACallIsKept(t *testing.T) {
	for _, operation := range []string{"orders/", "/*", "/{rest...}"} {
		m := newMiddleware(t, idempotency.Config{Route: func(*http.Request) string {
			t.Error("Route is asked")
			return ""
		}})
		c := message(func(c *idempotency.Call) { c.Operation = operation })
		f := &consumer{next: func(context.Context) ([]byte, error) { return nil, &usher.Error{Status: 404, Code: "no_order"} }}
		for i := range 2 {
			_, replayed, err := execute(m, c, f.run)
			wantCode(t, err, 404, "no_order")
			if replayed != (i > 0) {
				t.Errorf("call %d of %q: replayed: %v", i, operation, replayed)
			}
		}
	}
}
