package guard_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/usher-go/usher/internal/guard"
)

func TestACallWithoutAResultMeansThatTheStoreIsUnavailable(t *testing.T) {
	for _, err := range []error{guard.ErrTimeout, guard.ErrBusy, guard.ErrOpen} {
		if !errors.Is(fmt.Errorf("a store: %w", err), guard.ErrUnavailable) {
			t.Errorf("%q does not match ErrUnavailable", err)
		}
		if errors.Is(err, guard.ErrFull) {
			t.Errorf("%q matches ErrFull", err)
		}
	}
}

// Otherwise one value that cannot be read, or a full store that can still be read, would
// stop the calls for all other keys.
func TestAStoreThatIsNotDownNeverOpensTheGuard(t *testing.T) {
	for _, err := range []error{guard.ErrCorrupt, guard.ErrFull, guard.ErrClosed} {
		synctest.Test(t, func(t *testing.T) {
			g := guard.New(timeout, 1)
			for range 100 {
				got := g.Do(t.Context(), "", func(context.Context) error { return fmt.Errorf("key: %w", err) })
				if !errors.Is(got, err) {
					t.Fatalf("got %v, want %v", got, err)
				}
			}
		})
	}
}
