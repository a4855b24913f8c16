package idempotency_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/guard"
)

// A service may require a form of its own. It is checked before anything is read or looked
// up, on the text of the key.
func TestAKeyOfAnotherFormIsRefused(t *testing.T) {
	const id = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
	store := newHookedStore(t)
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{Store: store, ValidKey: idempotency.IsUUID}).Wrap(calls)
	first := do(h, post("/", "", key(id)))
	wantReplay(t, do(h, post("/", "", key(`"`+id+`"`))), first)
	store.set(func(s *hookedStore) {
		s.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			t.Error("the store was asked")
			return idempotency.Record{}, errors.New("asked")
		}
	})
	for _, k := range []string{"k", `"k"`, id + "0"} {
		w := do(h, post("/", "", key(k)))
		wantFailure(t, w, 400, usher.CodeIdempotencyKeyInvalid)
		if !strings.Contains(w.Body.String(), "form that this service requires") {
			t.Errorf("%s: %s", k, w.Body)
		}
	}
	calls.want(t, 1)
}

func TestAValidKeyThatPanicsExecutesNothing(t *testing.T) {
	var reported []error
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{
		ValidKey: func(string) bool { panic("bug") },
		OnError:  func(_ context.Context, err error) { reported = append(reported, err) },
	}).Wrap(calls)
	w := do(h, post("/", ""))
	wantFailure(t, w, 503, usher.CodeIdempotencyUnavailable)
	if w.Header().Get("Retry-After") == "" || len(reported) != 1 {
		t.Errorf("header %v, reported %v", w.Header(), reported)
	} else if p, ok := errors.AsType[*guard.PanicError](reported[0]); !ok || p.Value != "bug" {
		t.Errorf("reported %v", reported)
	}
	calls.want(t, 0)
}

func TestIsUUID(t *testing.T) {
	for text, want := range map[string]bool{
		"f81d4fae-7dec-11d0-a765-00a0c91e6bf6":          true,
		"F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6":          true,
		"919108f7-52d1-4320-9bac-f847db4148a8":          true, // version 4
		"017F22E2-79B0-7cc3-98c4-dc0c0c07398f":          true, // version 7
		"00000000-0000-0000-0000-000000000001":          true,
		"00000000-0000-0000-0000-000000000000":          false,
		"ffffffff-ffff-ffff-ffff-ffffffffffff":          false,
		"FFFFFFFF-ffff-FFFF-ffff-ffffffffffff":          false,
		"":                                              false,
		"f81d4fae7dec11d0a76500a0c91e6bf6":              false,
		"{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}":        false,
		"urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6": false,
		"f81d4fae-7dec-11d0-a765-00a0c91e6bf":           false,
		"f81d4fae-7dec-11d0-a765-00a0c91e6bf66":         false,
		"f81d4fae07dec-11d0-a765-00a0c91e6bf6":          false,
		"f81d4fae-7dec-11d0-a765-00a0c91e6bg6":          false,
		"f81d4fae-7dec-11d0-a765-00a0c91e6b-6":          false,
		"f81d4fae-7dec-11d0-a765-00a0c91e6bf\x16":       false, // 6 without its high bits
	} {
		if got := idempotency.IsUUID(text); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}
