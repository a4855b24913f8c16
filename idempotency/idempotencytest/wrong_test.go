package idempotencytest_test

import (
	"testing"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
	"github.com/usher-go/usher/internal/storetest"
)

// The stores that are wrong in one way each, by the row that must fail.
func TestWrongStoresFail(t *testing.T) {
	for test, rows := range map[string]map[string]string{
		"TestWrongStore":  wrongStores,
		"TestWrongShared": wrongShared,
		"TestWrongTx":     wrongTx,
	} {
		storetest.WantFailures(t, test, rows, func(row string) string { return row })
	}
}

func TestWrongStore(t *testing.T) {
	wrong := storetest.Wrong(t)
	idempotencytest.TestStore(t, func(testing.TB) idempotency.Store { return newTable(wrong) })
}
