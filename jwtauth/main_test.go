package jwtauth_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Whatever a constructor starts, Close ends.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
