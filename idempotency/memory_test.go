package idempotency_test

import (
	"testing"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
)

func newMemory(tb testing.TB, c idempotency.MemoryConfig) *idempotency.Memory {
	tb.Helper()
	m, err := idempotency.NewMemory(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.Close() })
	return m
}

func TestMemory(t *testing.T) {
	idempotencytest.TestStore(t, func(t testing.TB) idempotency.Store {
		return newMemory(t, idempotency.MemoryConfig{})
	})
}
