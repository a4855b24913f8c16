package idempotency_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/guard"
)

// A results collects what OnResult gets.
type results struct {
	mu     sync.Mutex
	events []idempotency.Event
}

func (r *results) add(_ context.Context, e idempotency.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// take returns the events since the last call.
func (r *results) take() []idempotency.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}

var digestOfKey = regexp.MustCompile(`^[0-9a-f]{32}$`)

// OnResult is called once for each request with a key, whatever becomes of it, and for no
// other request.
func TestOnResultIsCalledOncePerRequestWithAKey(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			close(entered)
			<-leave
		case "/panics":
			panic(http.ErrAbortHandler)
		}
	})
	got := new(results)
	store := newHookedStore(t)
	c := idempotency.Config{Store: store, Wait: idempotency.NoWait, OnResult: got.add, OnError: func(context.Context, error) {}}
	h := newMiddleware(t, c).Wrap(handler)
	c.Required, c.DangerouslyFailOpen = true, true
	strict := newMiddleware(t, c).Wrap(handler)
	type want struct {
		result, code string
		status       int
		generation   bool
	}
	send := func(name string, h http.Handler, r *http.Request, wants ...want) {
		t.Helper()
		w := do(h, r)
		events := got.take()
		if len(events) != len(wants) {
			t.Errorf("%s: got %+v, want %d events", name, events, len(wants))
			return
		}
		for i, want := range wants {
			e := events[i]
			if e.Result != want.result || (e.Generation != 0) != want.generation || (want.code != "") != (e.Err != nil) ||
				w.Code != want.status || !digestOfKey.MatchString(e.Key.String()) {
				t.Errorf("%s: got %d and %+v, want %+v", name, w.Code, e, want)
			}
			if failure, ok := errors.AsType[*usher.Error](e.Err); want.code != "" && (!ok || failure.Code != want.code || code(w) != want.code) {
				t.Errorf("%s: the error is %v, the client got %s; want %s", name, e.Err, w.Body, want.code)
			}
		}
	}
	send("no key", h, post("/", "", key()))
	send("a method that does not count", h, post("/", "", func(r *http.Request) { r.Method = "GET" }))
	send("first", h, post("/", ""), want{"executed", "", 200, true})
	send("retry", h, post("/", ""), want{"replayed", "", 200, false})
	send("another body", h, post("/", "x"), want{"mismatched", usher.CodeIdempotencyKeyReused, 422, false})
	send("an invalid key", h, post("/", "", key("a b")), want{"refused", usher.CodeIdempotencyKeyInvalid, 400, false})
	send("a missing key", strict, post("/", "", key()), want{"refused", usher.CodeIdempotencyKeyMissing, 400, false})
	send("a panic", h, post("/panics", "", key("panics")), want{"executed", "", 0, true})
	send("a panic, retried", h, post("/panics", "", key("panics")), want{"not_replayable", unknown, 409, false})

	var slow sync.WaitGroup
	slow.Go(func() { do(h, post("/slow", "", key("slow"))) })
	<-entered
	got.take()
	send("in flight", h, post("/slow", "", key("slow")), want{"in_progress", usher.CodeIdempotencyInProgress, 409, false})
	close(leave)
	slow.Wait()

	store.set(func(f *hookedStore) {
		f.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			return idempotency.Record{}, errDown
		}
	})
	send("a store that is down", h, post("/", ""), want{"store_failed", usher.CodeIdempotencyUnavailable, 503, false})
	send("a store that is down, fail open", strict, post("/", ""), want{"unprotected", "", 200, false})
	store.set(func(f *hookedStore) {
		f.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			return idempotency.Record{}, usher.ErrCorrupt
		}
	})
	send("a damaged record", h, post("/", ""), want{"unreadable", usher.CodeIdempotencyRecordUnreadable, 500, false})
	store.set(func(f *hookedStore) {
		f.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			return idempotency.Record{}, idempotency.ErrOwnerFull
		}
	})
	send("too many keys", h, post("/", ""), want{"refused", usher.CodeIdempotencyTooManyKeys, 429, false})
}

// A hook gets the context of the request, and the same Key for each request with one key.
func TestOnResultKnowsTheCallerAndTheKey(t *testing.T) {
	var keys []idempotency.Key
	h := newMiddleware(t, idempotency.Config{OnResult: func(ctx context.Context, e idempotency.Event) {
		if p, ok := usher.PrincipalFrom(ctx); !ok || p.ID != "alice" {
			t.Errorf("the context has the principal %+v", p)
		}
		keys = append(keys, e.Key)
		if text := fmt.Sprintf("%+v %s", e, e.Key); strings.Contains(text, "visible") || strings.Contains(text, "alice") {
			t.Errorf("the event has the key of the client: %s", text)
		}
	}}).Wrap(new(counting))
	for _, k := range []string{"visible-a", "visible-a", "visible-b"} {
		do(h, post("/", "", key(k)))
	}
	if len(keys) != 3 || keys[0] != keys[1] || keys[1] == keys[2] || keys[0].String() == keys[2].String() {
		t.Errorf("got %v", keys)
	}
}

// A hook that panics changes nothing for the client, and is reported.
func TestAnOnResultThatPanicsChangesNothing(t *testing.T) {
	var reported []error
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{
		OnResult: func(context.Context, idempotency.Event) { panic("bug") },
		OnError:  func(_ context.Context, err error) { reported = append(reported, err) },
	}).Wrap(calls)
	first := do(h, post("/", ""))
	wantReplay(t, do(h, post("/", "")), first)
	calls.want(t, 1)
	if len(reported) != 2 || !strings.Contains(reported[0].Error(), "Config.OnResult") {
		t.Fatalf("OnError got %v", reported)
	}
	if p, ok := errors.AsType[*guard.PanicError](reported[0]); !ok || p.Value != "bug" {
		t.Errorf("OnError got %v", reported)
	}
}

// Each 409 says whether a new key is safe. It is only if the first request was refused.
func TestAConflictSaysWhetherANewKeyIsSafe(t *testing.T) {
	flush := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_ = http.NewResponseController(w).Flush()
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		code    string
		safe    bool
	}{
		{"a success that was streamed", flush(200), usher.CodeIdempotencyResponseNotKept, false},
		{"a redirect that was streamed", flush(303), usher.CodeIdempotencyResponseNotKept, false},
		{"a refusal that was streamed", flush(422), usher.CodeIdempotencyResponseNotKept, true},
		{"a refusal that is too large", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, strings.Repeat("x", maxResponse+1))
		}, usher.CodeIdempotencyResponseNotKept, true},
		{"a timeout that the handler keeps", func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Keep)
			flush(http.StatusRequestTimeout)(w, r)
		}, usher.CodeIdempotencyResponseNotKept, false},
		{"a disconnect that the handler keeps", func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Keep)
			flush(usher.StatusClientClosedRequest)(w, r)
		}, usher.CodeIdempotencyResponseNotKept, false},
		{"an error that the handler keeps", func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Keep)
			flush(http.StatusBadGateway)(w, r)
		}, usher.CodeIdempotencyResponseNotKept, false},
		{"an error", flush(500), unknown, false},
		{"a refusal whose outcome is unknown", func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Unknown)
			w.WriteHeader(422)
		}, unknown, false},
		{"a panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unknown, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newMiddleware(t, idempotency.Config{MaxResponse: maxResponse}).Wrap(c.handler)
			do(h, post("/", ""))
			w := do(h, post("/", ""))
			wantFailure(t, w, 409, c.code)
			wantNewKeySafe(t, w.Body.Bytes(), c.safe)
		})
	}
	t.Run("in flight", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				time.Sleep(time.Minute)
			}))
			var first sync.WaitGroup
			first.Go(func() { do(h, post("/", "")) })
			defer first.Wait()
			synctest.Wait()
			w := do(h, post("/", ""))
			wantFailure(t, w, 409, usher.CodeIdempotencyInProgress)
			wantNewKeySafe(t, w.Body.Bytes(), false)
		})
	})
	t.Run("only in a 409", func(t *testing.T) {
		h := newMiddleware(t, idempotency.Config{}).Wrap(new(counting))
		do(h, post("/", ""))
		if w := do(h, post("/", "x")); strings.Contains(w.Body.String(), "new_key_safe") {
			t.Errorf("got %s", w.Body)
		}
	})
}

func wantNewKeySafe(tb testing.TB, body []byte, want bool) {
	tb.Helper()
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		tb.Fatal(err)
	}
	if got["new_key_safe"] != want {
		tb.Errorf("got %s, want new_key_safe %v", body, want)
	}
}
