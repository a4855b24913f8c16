package ratelimit_test

import (
	"context"
	"testing"

	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

func TestMemory(t *testing.T) {
	ratelimittest.TestStore(t, func(testing.TB) ratelimit.Store { return newMemory() })
}

// take lets a store decide charges, as a call that is never repeated.
func take(ctx context.Context, s ratelimit.Store, charges []ratelimit.Charge) (admitted bool, err error) {
	d := ratelimit.Decision{Charges: charges}
	err = s.Take(ctx, &d)
	return d.Admitted, err
}

func adjust(ctx context.Context, s ratelimit.Store, charges []ratelimit.Charge) error {
	return s.Adjust(ctx, &ratelimit.Decision{Charges: charges})
}
