package usherpg_test

import (
	"testing"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
)

func TestRecords(t *testing.T) {
	_, pool := migrated(t)
	p := open(t, pool)
	idempotencytest.TestStore(t, func(testing.TB) idempotency.Store { return p.Idempotency() })
}
