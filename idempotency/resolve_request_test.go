package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A record that cannot be right is not resolved.
func TestADamagedRecordIsNotResolved(t *testing.T) {
	store, calls := newHookedStore(t), orders()
	asks := always(idempotency.Resolution{Outcome: idempotency.Release})
	h := newMiddleware(t, idempotency.Config{
		Store: store, Resolve: asks.Resolve, OnError: func(context.Context, error) {},
	}).Wrap(calls)
	panics(store, h, post("/", "body"))
	store.set(func(f *hookedStore) {
		f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			r, err := f.Store.Claim(ctx, c)
			r.Payload = []byte("payload") // of an outcome that has none
			return r, err
		}
	})
	wantFailure(t, do(h, post("/", "body")), 500, usher.CodeIdempotencyRecordUnreadable)
	asks.want(t, 0)
	calls.want(t, 0)
}

// Resolve gets the request of the retry and its Execution: the caller, the body, and the
// key that the first execution passed on.
func TestResolveKnowsTheRequest(t *testing.T) {
	var downstream []string
	asks := &resolver{resolve: func(r *http.Request, e *idempotency.Execution) (idempotency.Resolution, error) {
		p, ok := usher.PrincipalFrom(r.Context())
		content, err := io.ReadAll(r.Body)
		if !ok || p.ID != "alice" || string(content) != "body" || err != nil || r.URL.Path != "/pay" || e.Generation() == 0 {
			t.Errorf("got %+v, %q, %v for %s", p, content, err, r.URL)
		}
		if idempotency.From(r.Context()) != nil {
			t.Error("the handler seems to run")
		}
		downstream = append(downstream, e.DownstreamKey("bank"))
		r.Header.Set("X-Changed", "yes")
		e.SetOutcome(idempotency.Forget)
		return idempotency.Resolution{Outcome: idempotency.Release}, nil
	}}
	store, calls := newHookedStore(t), new(counting)
	h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve}).Wrap(calls)
	calls.next = func(w http.ResponseWriter, r *http.Request) {
		e := idempotency.From(r.Context())
		downstream = append(downstream, e.DownstreamKey("bank"))
		if r.Header.Get("X-Panic") != "" {
			panic(http.ErrAbortHandler)
		}
		content, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s, %v, %q", content, err, r.Header.Get("X-Changed"))
	}
	panics(store, h, post("/pay", "body"))
	w := do(h, post("/pay", "body"))
	if w.Body.String() != `body, <nil>, ""` {
		t.Errorf("the handler got %s", w.Body)
	}
	wantReplay(t, do(h, post("/pay", "body")), w) // SetOutcome in Resolve has no effect
	if len(downstream) != 3 || downstream[0] != downstream[1] || downstream[1] != downstream[2] {
		t.Errorf("the downstream keys are %v", downstream)
	}
}

// A multipart form that Resolve parses leaves no temporary file, and the handler parses it
// again.
func TestResolveMayParseAForm(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var form bytes.Buffer
	parts := multipart.NewWriter(&form)
	part, err := parts.CreateFormFile("file", "name")
	if err == nil {
		_, err = part.Write(bytes.Repeat([]byte("x"), 100<<10))
	}
	if err = errors.Join(err, parts.Close()); err != nil {
		t.Fatal(err)
	}
	asks := &resolver{resolve: func(r *http.Request, _ *idempotency.Execution) (idempotency.Resolution, error) {
		if err := r.ParseMultipartForm(1); err != nil || len(r.MultipartForm.File["file"]) != 1 {
			t.Errorf("Resolve: %v", err)
		}
		return idempotency.Resolution{Outcome: idempotency.Release}, nil
	}}
	store, calls := newHookedStore(t), new(counting)
	h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve}).Wrap(calls)
	calls.next = func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Panic") != "" {
			panic(http.ErrAbortHandler)
		}
		if err := r.ParseMultipartForm(1 << 20); err != nil || len(r.MultipartForm.File["file"]) != 1 {
			t.Errorf("the handler: %v", err)
		}
	}
	send := func() *http.Request {
		return post("/", form.String(), func(r *http.Request) { r.Header.Set("Content-Type", parts.FormDataContentType()) })
	}
	panics(store, h, send())
	do(h, send())
	asks.want(t, 1)
	calls.want(t, 2)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("%d files are left, %v", len(files), err)
	}
}

// OnResult is called once for a retry that is resolved, too.
func TestOnResultIsCalledOncePerResolvedRetry(t *testing.T) {
	for _, c := range []struct {
		outcome idempotency.Outcome
		err     error
		result  string
	}{
		{idempotency.Release, nil, "executed"},
		{idempotency.Keep, nil, "replayed"},
		{idempotency.Forget, nil, "not_replayable"},
		{idempotency.Unknown, nil, "not_replayable"},
		{idempotency.Keep, errDown, "resolve_failed"},
	} {
		store, got := newHookedStore(t), new(results)
		asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
			return idempotency.Resolution{Outcome: c.outcome, Response: paid}, c.err
		}}
		h := newMiddleware(t, idempotency.Config{
			Store: store, Resolve: asks.Resolve, OnResult: got.add, OnError: func(context.Context, error) {},
		}).Wrap(orders())
		panics(store, h, post("/", "body"))
		got.take()
		do(h, post("/", "body"))
		if events := got.take(); len(events) != 1 || events[0].Result != c.result {
			t.Errorf("outcome %d, %v: got %+v, want %s", c.outcome, c.err, events, c.result)
		}
	}
}
