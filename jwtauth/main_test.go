package jwtauth_test

import (
	"log/slog"
	"testing"

	"github.com/usher-go/usher/internal/leak"
)

// Close ends every goroutine that a constructor starts. Failures that tests provoke are
// not logged.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	leak.Main(m)
}
