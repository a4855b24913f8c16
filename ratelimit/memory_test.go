package ratelimit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// A caller may change a Decision that it has used before.
func TestADecisionCanBeUsedAgain(t *testing.T) {
	one, other := memoryOf(t, 64), memoryOf(t, 64)
	d := &ratelimit.Decision{Charges: []ratelimit.Charge{{Limit: ratelimit.RollingWindow(1, time.Hour), Cost: 1}}}
	for _, m := range []*ratelimit.Memory{one, other} {
		for _, policy := range []string{"a", "b"} {
			d.Charges[0].Policy = policy
			if err := m.Take(t.Context(), d); err != nil || !d.Admitted || m.Len(policy) != 1 {
				t.Errorf("policy %s: admitted %v, %v, %d keys", policy, d.Admitted, err, m.Len(policy))
			}
		}
	}
}

// All places are used, whatever their number, less those that do not make a whole set.
func TestPlaces(t *testing.T) {
	for keys, want := range map[int]int{
		1: 1, 2: 2, 7: 7, 8: 8, 9: 8, 63: 56, 64: 64, 65: 64, 100: 96, 129: 128, 4096: 4096, 5000: 4608,
	} {
		m := memoryOf(t, keys)
		for i := range 20 * keys {
			if _, ok := use(t, m, fmt.Sprint(i), fivePerHour["token bucket"], 1); !ok {
				t.Fatalf("%d places: a new key is refused", keys)
			}
			if n := m.Len("p"); n > want {
				t.Fatalf("%d places: %d keys", keys, n)
			}
		}
		if n := m.Len("p"); n != want {
			t.Errorf("%d places: %d keys, want %d", keys, n, want)
		}
	}
}

func TestMemoryConfigHasBounds(t *testing.T) {
	for _, keys := range []int{-1, 1_000_000_001} {
		if _, err := ratelimit.NewMemory(ratelimit.MemoryConfig{Keys: keys}); err == nil {
			t.Errorf("%d keys: no error", keys)
		}
	}
	usher.Must(ratelimit.NewMemory(ratelimit.MemoryConfig{Keys: 1_000_000_000}))
}
