package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
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

// The outcome of a call follows from its error as that of a request from its status.
func TestTheOutcomeOfACall(t *testing.T) {
	const ranAgain = "runs again"
	refusal := func(status int) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) {
			return nil, fmt.Errorf("wrapped: %w", &usher.Error{Status: status, Code: "refused"})
		}
	}
	decide := func(o idempotency.Outcome, err error) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) {
			idempotency.From(ctx).SetOutcome(o)
			return []byte("secret"), err
		}
	}
	private := errors.New("private")
	for name, c := range map[string]struct {
		profile idempotency.Profile
		run     func(context.Context) ([]byte, error)
		again   string // a code, or ranAgain
		status  int
	}{
		"an error that is kept":                      {nil, refusal(402), "refused", 402},
		"an error of the client's":                   {nil, refusal(404), "refused", 404},
		"an error that is released":                  {nil, refusal(503), ranAgain, 0},
		"an error without a status":                  {nil, func(context.Context) ([]byte, error) { return nil, private }, unknown, 409},
		"which a profile keeps":                      {idempotency.ProfileStripe, func(context.Context) ([]byte, error) { return nil, private }, usher.CodeInternal, 500},
		"which a profile releases":                   {idempotency.ProfileReleaseServerErrors, func(context.Context) ([]byte, error) { return nil, private }, ranAgain, 0},
		"a panic":                                    {nil, func(context.Context) ([]byte, error) { panic("x") }, unknown, 409},
		"a panic that a profile releases":            {idempotency.ProfileKeepSuccess, func(context.Context) ([]byte, error) { panic("x") }, ranAgain, 0},
		"a released success":                         {nil, decide(idempotency.Release, nil), ranAgain, 0},
		"a released error":                           {nil, decide(idempotency.Release, private), ranAgain, 0},
		"a success that is not kept":                 {nil, decide(idempotency.Forget, nil), usher.CodeIdempotencyResponseNotKept, 409},
		"an error of which only the status is kept":  {nil, decide(idempotency.KeepStatus, &usher.Error{Status: 402, Code: "refused"}), "", 402},
		"a success of which only the status is kept": {nil, decide(idempotency.KeepStatus, nil), "", 0},
		"an error whose details cannot be stored": {nil, func(context.Context) ([]byte, error) {
			return nil, &usher.Error{Status: 402, Code: "refused", Details: map[string]any{"a": func() {}}}
		}, "refused", 402},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{Profile: c.profile})
			f := &consumer{next: c.run}
			_, _, first := execute(m, message(), f.run)
			if want := func() error { defer func() { _ = recover() }(); _, err := c.run(context.Background()); return err }(); want != nil && first.Error() != want.Error() {
				t.Errorf("the first call got %v, want %v", first, want)
			}
			reply, replayed, err := execute(m, message(), f.run)
			switch {
			case c.again == ranAgain:
				if f.n != 2 || replayed {
					t.Errorf("%d executions, replayed: %v, %v", f.n, replayed, err)
				}
				return
			case c.status == 0:
				wantReply(t, reply, replayed, err, "", true)
			default:
				wantCode(t, err, c.status, c.again)
				if want := c.status != 409; replayed != want {
					t.Errorf("replayed: %v", replayed)
				}
			}
			if f.n != 1 {
				t.Errorf("%d executions", f.n)
			}
		})
	}
}

// An error that is replayed is written as the first one, and has no private part.
func TestAnErrorThatIsReplayedIsWrittenAsTheFirst(t *testing.T) {
	type detail struct {
		Text string `json:"text"`
		N    int64  `json:"n"`
	}
	for name, e := range map[string]usher.Error{
		"little": {Status: 402},
		"all": {
			Status: 422, Code: "no_money", Type: "https://example.com/no_money", Message: "There is no <money>.", Param: "amount",
			Fields:     []usher.Field{{Name: "a", Message: "b"}},
			Details:    map[string]any{"balance": 9007199254740993, "rate": 0.1, "list": []string{"a"}, "more": detail{"x & y", 1 << 60}},
			RetryAfter: 90 * time.Second, Challenges: []string{`Basic realm="a"`}, Cause: errors.New("private"),
		},
		"a struct":          {Status: 400, Details: detail{"a", 1}},
		"a list":            {Status: 400, Details: []string{"a", "b"}},
		"an impossible one": {Status: 200, Code: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			written := func(err error) string {
				w := httptest.NewRecorder()
				usher.Fail(w, httptest.NewRequest(http.MethodPost, "/", nil), err)
				return fmt.Sprint(w.Code, w.Header(), w.Body)
			}
			m := newMiddleware(t, idempotency.Config{Profile: idempotency.ProfileStripe})
			f := &consumer{next: func(ctx context.Context) ([]byte, error) {
				idempotency.From(ctx).SetOutcome(idempotency.Keep)
				return nil, &e
			}}
			_, _, first := execute(m, message(), f.run)
			if !errors.Is(first, &e) {
				t.Errorf("the first error is %v", first)
			}
			_, replayed, again := execute(m, message(), f.run)
			if got, want := written(again), written(&e); got != want || !replayed {
				t.Errorf("got %s, replayed: %v, want %s", got, replayed, want)
			}
			if strings.Contains(again.Error(), "private") || f.n != 1 {
				t.Errorf("got %v, %d executions", again, f.n)
			}
		})
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

// A reply belongs to its caller.
func TestTheReplyOfACallBelongsToItsCaller(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{})
	shared := []byte("done")
	f := func(context.Context) ([]byte, error) { return shared, nil }
	payload := []byte("tea")
	c := message(func(c *idempotency.Call) { c.Payload = payload })
	for range 3 {
		c.Payload = bytes.Clone([]byte("tea"))
		reply, _, err := m.Execute(t.Context(), c, f)
		if string(reply) != "done" || err != nil {
			t.Errorf("got %q, %v", reply, err)
		}
		reply = append(reply, "!"...)
		c.Payload[0] = 'T'
		_ = reply
	}
	shared[0] = 'D'
	reply, replayed, err := execute(m, message(), f)
	wantReply(t, reply, replayed, err, "done", true)
}

// A reply that is too long to be stored is returned all the same, and not again.
func TestALongReplyOfACall(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{MaxResponse: 8})
	f := func(context.Context) ([]byte, error) { return []byte("123456789"), nil }
	reply, replayed, err := execute(m, message(), f)
	wantReply(t, reply, replayed, err, "123456789", false)
	_, _, err = execute(m, message(), f)
	wantCode(t, err, 409, usher.CodeIdempotencyResponseNotKept)
}

// The context of a call has the values of its caller's, and outlives it.
func TestTheContextOfACall(t *testing.T) {
	type value struct{}
	t.Run("has the values and the principal", func(t *testing.T) {
		m := newMiddleware(t, idempotency.Config{})
		ctx := context.WithValue(usher.WithPrincipal(post("/", ""), alice).Context(), value{}, "of the caller")
		_, _, err := m.Execute(ctx, message(), func(ctx context.Context) ([]byte, error) {
			if p, ok := usher.PrincipalFrom(ctx); ctx.Value(value{}) != "of the caller" || !ok || p.ID != alice.ID {
				t.Errorf("it has the value %v and the principal %v", ctx.Value(value{}), p)
			}
			e := idempotency.From(ctx)
			if e.Generation() == 0 || len(e.DownstreamKey("bank")) != 64 {
				t.Error("it has no Execution")
			}
			return nil, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("outlives that of the caller", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{DisconnectTimeout: time.Minute})
			ctx, cancel := context.WithCancel(t.Context())
			_, _, err := m.Execute(ctx, message(), func(ctx context.Context) ([]byte, error) {
				done := ctx.Done()
				cancel()
				began := time.Now()
				time.Sleep(time.Second)
				if ctx.Err() != nil {
					t.Error(ctx.Err())
				}
				<-done
				if d := time.Since(began); d != time.Minute || !errors.Is(context.Cause(ctx), idempotency.ErrDisconnected) {
					t.Errorf("it ends after %v: %v", d, context.Cause(ctx))
				}
				return []byte("done"), nil
			})
			if err != nil {
				t.Error(err)
			}
			reply, replayed, err := execute(m, message(), nil)
			wantReply(t, reply, replayed, err, "done", true)
		})
	})
	t.Run("ends at the deadline of the caller", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := m.Execute(ctx, message(), func(ctx context.Context) ([]byte, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			_, _, err = execute(m, message(), nil)
			wantCode(t, err, 409, unknown)
		})
	})
}

// A call within a request with a key is another execution.
func TestACallWithinARequest(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{})
	f := new(consumer)
	h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer := idempotency.From(r.Context())
		reply, _, err := m.Execute(r.Context(), message(), func(ctx context.Context) ([]byte, error) {
			if inner := idempotency.From(ctx); inner == outer || inner == nil {
				t.Error("the call has no execution of its own")
			}
			return f.run(ctx)
		})
		if idempotency.From(r.Context()) != outer {
			t.Error("the request has lost its execution")
		}
		if err != nil {
			usher.Fail(w, r, err)
			return
		}
		_, _ = w.Write(reply)
	}))
	for _, k := range []string{"a", "b", "a"} {
		if w := do(h, post("/", "", key(k))); w.Code != 200 || w.Body.String() != "order 1" {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
}

// With Commit the transaction of a call is committed with its result, or rolled back.
func TestCommitInACall(t *testing.T) {
	failure := errors.New("deadlock")
	for name, c := range map[string]struct {
		run       func(ctx context.Context, begin func() error) ([]byte, error)
		around    func(ctx context.Context, commit func() error) error
		committed int
		first     string // what the first error says
		again     string // the code of the second, or runs
	}{
		"committed": {nil, nil, 1, "", ""},
		"an error that is kept": {func(_ context.Context, begin func() error) ([]byte, error) {
			return nil, errors.Join(begin(), &usher.Error{Status: 402, Code: "refused"})
		}, nil, 1, "refused", "refused"},
		"an error that is released": {func(_ context.Context, begin func() error) ([]byte, error) {
			return nil, errors.Join(begin(), &usher.Error{Status: 503, Code: "busy"})
		}, nil, 0, "busy", runs},
		"an error that is kept, and the commit fails": {func(_ context.Context, begin func() error) ([]byte, error) {
			return nil, errors.Join(begin(), &usher.Error{Status: 402, Code: "refused"})
		}, func(context.Context, func() error) error { return failure }, 0, "deadlock", runs},
		"a panic": {func(_ context.Context, begin func() error) ([]byte, error) {
			_ = begin()
			panic("x")
		}, nil, 0, "panic", unknown},
		"a long reply": {func(_ context.Context, begin func() error) ([]byte, error) {
			return bytes.Repeat([]byte("x"), 65), begin()
		}, nil, 0, "longer than MaxResponse", runs},
		"the commit fails": {nil, func(context.Context, func() error) error { return failure }, 0, "deadlock", runs},
		"the commit of an error that is kept fails": {func(_ context.Context, begin func() error) ([]byte, error) {
			return nil, errors.Join(begin(), &usher.Error{Status: 402, Code: "refused"})
		}, func(context.Context, func() error) error { return failure }, 0, "deadlock", runs},
		"the reply to the commit is lost": {nil, func(_ context.Context, commit func() error) error {
			return errors.Join(commit(), failure)
		}, 1, "", ""},
		"the claim is lost": {nil, func(context.Context, func() error) error { return idempotency.ErrLost }, 0, usher.CodeIdempotencyInProgress, runs},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			b.around = c.around
			m := newMiddleware(t, idempotency.Config{Store: b, MaxResponse: 64, OnError: func(context.Context, error) {}})
			f := &consumer{next: func(ctx context.Context) ([]byte, error) {
				begin := func() error { return b.begin(post("/", "").WithContext(ctx)) }
				if c.run != nil {
					return c.run(ctx, begin)
				}
				return []byte("paid"), begin()
			}}
			reply, replayed, err := execute(m, message(), f.run)
			b.want(t, c.committed, 1-c.committed)
			switch {
			case c.first == "":
				wantReply(t, reply, replayed, err, "paid", false)
			case err == nil || !strings.Contains(err.Error(), c.first) || reply != "":
				t.Errorf("got %q, %v", reply, err)
			}
			b.around = nil
			reply, replayed, err = execute(m, message(), f.run)
			switch c.again {
			case "":
				wantReply(t, reply, replayed, err, "paid", true)
			case runs:
				if f.n != 2 {
					t.Errorf("%d executions", f.n)
				}
			default:
				if e, ok := errors.AsType[*usher.Error](err); !ok || e.Code != c.again {
					t.Errorf("the second call got %v", err)
				}
			}
		})
	}
}

// A call that ends its goroutine ends its claim as well.
func TestACallThatExits(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _ = m.Execute(context.Background(), message(), func(context.Context) ([]byte, error) {
			runtime.Goexit()
			return nil, nil
		})
	}()
	<-ended
	_, _, err := execute(m, message(), nil)
	wantCode(t, err, 409, unknown)
	if m.Leases() != 0 {
		t.Error("the lease is still kept")
	}
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
