package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A store without room may know when there will be some.
func TestRetryAfterSaysWhenThereIsRoom(t *testing.T) {
	full := func(err error, after time.Duration) error { return &idempotency.FullError{Err: err, RetryAfter: after} }
	for _, c := range []struct {
		name       string
		err        error
		status     int
		code       string
		retryAfter string
	}{
		{"for the owner", full(idempotency.ErrOwnerFull, time.Hour), 429, usher.CodeIdempotencyTooManyKeys, "3600"},
		{"for the owner, rounded up", full(idempotency.ErrOwnerFull, time.Millisecond), 429, usher.CodeIdempotencyTooManyKeys, "1"},
		{"for anybody", full(usher.ErrFull, 90*time.Second), 503, usher.CodeIdempotencyUnavailable, "90"},
		{"for anybody, wrapped", fmt.Errorf("store: %w", full(usher.ErrFull, 1500*time.Millisecond)), 503, usher.CodeIdempotencyUnavailable, "2"},
		{"but the store does not know when, for the owner", idempotency.ErrOwnerFull, 429, usher.CodeIdempotencyTooManyKeys, ""},
		{"but the store does not know when, for anybody", usher.ErrFull, 503, usher.CodeIdempotencyUnavailable, "1"},
		{"now, for the owner", full(idempotency.ErrOwnerFull, 0), 429, usher.CodeIdempotencyTooManyKeys, ""},
		{"now, for anybody", full(usher.ErrFull, 0), 503, usher.CodeIdempotencyUnavailable, "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newHookedStore(t)
			store.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
				return idempotency.Record{}, c.err
			}
			calls := new(counting)
			h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
			for range 2 { // a refusal must not change the next one
				w := do(h, post("/", ""))
				wantFailure(t, w, c.status, c.code)
				if got := w.Header().Get("Retry-After"); got != c.retryAfter {
					t.Errorf("Retry-After is %q, want %q", got, c.retryAfter)
				}
			}
			calls.want(t, 0)
			store.set(func(s *hookedStore) {
				s.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
					return idempotency.Record{}, idempotency.ErrOwnerFull
				}
			})
			if got := do(h, post("/", "")).Header().Get("Retry-After"); got != "" {
				t.Errorf("a later Retry-After is %q, want none", got)
			}
		})
	}
}

func TestAFullErrorMatchesItsCause(t *testing.T) {
	for _, cause := range []error{idempotency.ErrOwnerFull, usher.ErrFull} {
		if err := error(&idempotency.FullError{Err: cause, RetryAfter: time.Second}); !errors.Is(err, cause) {
			t.Errorf("%v does not match %v", err, cause)
		}
	}
}

// The completion of a request without a key is the only one that TxStores ignore.
func TestOnlyTheZeroCompletionIsZero(t *testing.T) {
	commit := func(_ context.Context, c idempotency.Completion) error {
		if !c.IsZero() {
			t.Errorf("the completion of a request without a key is %+v", c)
		}
		return nil
	}
	if err := (*idempotency.Execution)(nil).Commit(t.Context(), commit, nil); err != nil {
		t.Error(err)
	}
	for _, c := range []idempotency.Completion{
		{Key: idempotency.Key{Owner: [32]byte{31: 1}}}, {Key: idempotency.Key{Name: [32]byte{1}}}, {Token: idempotency.Token{15: 1}},
		{Result: idempotency.Result{State: idempotency.StateDone}}, {Result: idempotency.Result{Status: 200}},
		{Result: idempotency.Result{Payload: []byte{}}}, {Result: idempotency.Result{TTL: 1}},
	} {
		if c.IsZero() {
			t.Errorf("%+v is zero", c)
		}
	}
}
