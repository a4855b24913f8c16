package ratelimit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher"
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

func TestAClosedMemoryFails(t *testing.T) {
	m := newMemory()
	for range 2 {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	_, renewed := m.Renew(t.Context(), nil, time.Second)
	for name, err := range map[string]error{
		"Take": m.Take(t.Context(), decision(1)), "Adjust": m.Adjust(t.Context(), decision(2)), "Renew": renewed,
	} {
		if !errors.Is(err, usher.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
