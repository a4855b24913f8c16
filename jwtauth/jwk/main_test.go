package jwk_test

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"
)

// Whatever a constructor starts, Close ends. Failures that tests provoke are not
// logged.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}
