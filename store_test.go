package usher_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/usher-go/usher"
)

func TestErrorsOfStoresAreDistinct(t *testing.T) {
	all := []error{usher.ErrUnavailable, usher.ErrCorrupt, usher.ErrFull, usher.ErrClosed, usher.ErrSchema}
	for i, a := range all {
		for j, b := range all {
			if got := errors.Is(fmt.Errorf("store: %w", a), b); got != (i == j) {
				t.Errorf("%q matches %q: %v", a, b, got)
			}
		}
	}
}
