package apikeytest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// calls returns a call of each method of s, with r, which s has stored. No call may change
// r if it fails.
func calls(s apikey.Store, r apikey.Record) map[string]func(context.Context) error {
	other := func() apikey.Record {
		o := newRecord()
		o.Owner = r.Owner
		return o
	}
	all := map[string]func(context.Context) error{
		"Insert": func(ctx context.Context) error { return s.Insert(ctx, other(), apikey.Limits{Active: 1000}) },
		"Lookup": func(ctx context.Context) error { _, err := s.Lookup(ctx, r.Hash); return err },
		"Find":   func(ctx context.Context) error { _, err := s.Find(ctx, r.Owner, r.ID); return err },
		"List":   func(ctx context.Context) error { _, _, err := s.List(ctx, r.Owner, 0, 10); return err },
		"Update": func(ctx context.Context) error { return s.Update(ctx, r) },
		"Rotate": func(ctx context.Context) error {
			old, next := r, other()
			old.ReplacedBy = next.ID
			return s.Rotate(ctx, old, next, apikey.Limits{Replaced: 1000})
		},
		"Revoke": func(ctx context.Context) error { _, err := s.Revoke(ctx, r.Owner, r.ID, now()); return err },
		"Touch":  func(ctx context.Context) error { return s.Touch(ctx, map[string]apikey.Use{r.ID: use(now())}) },
	}
	if a, ok := s.(apikey.Admin); ok {
		f := apikey.Filter{Owner: r.Owner}
		all["Select"] = func(ctx context.Context) error {
			_, _, err := a.Select(ctx, apikey.Query{Filter: f, Limit: 10})
			return err
		}
		all["RevokeAll"] = func(ctx context.Context) error { _, _, err := a.RevokeAll(ctx, f, now(), 10); return err }
		all["Purge"] = func(ctx context.Context) error { _, err := a.Purge(ctx, ancient, 10); return err }
	}
	return all
}

// try makes a call that may hang or panic, and returns its error. It fails unless the call
// ends within patience.
func try(t testing.TB, what string, call func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- guarded(call) }()
	select {
	case err := <-ended:
		if errors.Is(err, errPanic) {
			t.Errorf("%s: %v", what, err)
		}
		return err
	case <-time.After(patience):
		t.Fatalf("%s has not ended after %v", what, patience)
		return nil
	}
}

var errPanic = errors.New("panic")

// guarded makes a call, and returns its panic as an error.
func guarded(call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errPanic, v)
		}
	}()
	return call()
}

// wantFailure fails unless err shows that a call had no result.
func wantFailure(t testing.TB, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
	}
	if errors.Is(err, apikey.ErrNotFound) || errors.Is(err, apikey.ErrLimit) || errors.Is(err, apikey.ErrConflict) {
		t.Errorf("%s: %v, as if the store had responded", what, err)
	}
}

func testContext(t *testing.T, s apikey.Store) {
	r := insert(t, s, newRecord())
	ctx := ended(t.Context())
	supported := admin(s) != nil
	for name, call := range calls(s, r) {
		if err := call(ctx); supported || !errors.Is(err, errors.ErrUnsupported) {
			wantFailure(t, name, err)
		}
	}
	want(t, s, r)
	if n, ok := s.(apikey.Notifier); ok {
		err := try(t, "Watch", func() error {
			return n.Watch(ctx, func() {}, func(apikey.Hash) { t.Error("a change is reported after the end of the context") })
		})
		wantFailure(t, "Watch", err)
	}
}

func testClose(t *testing.T, s apikey.Store) {
	r := insert(t, s, newRecord())
	supported := admin(s) != nil
	var running, warm sync.WaitGroup
	for range 10 {
		warm.Add(1)
		running.Go(func() {
			ready := sync.OnceFunc(warm.Done)
			defer ready()
			for n := 0; ; n++ {
				if n == 50 {
					ready()
				}
				if _, err := s.Find(t.Context(), r.Owner, r.ID); err != nil {
					return
				}
			}
		})
	}
	warm.Wait()
	var w *watch
	if n, ok := s.(apikey.Notifier); ok {
		w = newWatch(t, n, nil)
	}
	for _, name := range []string{"Close", "a second Close"} {
		if err := try(t, name, s.Close); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_ = try(t, "the calls that were running", func() error { running.Wait(); return nil })
	for name, call := range calls(s, r) {
		err := try(t, name+" after Close", func() error { return call(t.Context()) })
		if !errors.Is(err, usher.ErrClosed) && (supported || !errors.Is(err, errors.ErrUnsupported)) {
			t.Errorf("%s after Close: error %v, want %v", name, err, usher.ErrClosed)
		}
	}
	if w == nil {
		return
	}
	select {
	case err := <-w.ended:
		if err == nil {
			t.Error("Watch returned without an error")
		}
	case <-time.After(patience):
		t.Error("Watch does not end when the store is closed")
	}
	err := try(t, "Watch after Close", func() error {
		return s.(apikey.Notifier).Watch(t.Context(), func() {}, func(apikey.Hash) {})
	})
	if !errors.Is(err, usher.ErrClosed) {
		t.Errorf("Watch after Close: error %v, want %v", err, usher.ErrClosed)
	}
}
