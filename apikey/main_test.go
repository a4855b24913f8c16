package apikey_test

import (
	"testing"

	"github.com/usher-go/usher/internal/leak"
)

// Whatever a constructor starts, Close ends.
func TestMain(m *testing.M) { leak.Main(m) }
