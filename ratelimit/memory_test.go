package ratelimit_test

import (
	"testing"

	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

func TestMemory(t *testing.T) {
	ratelimittest.TestStore(t, func(testing.TB) ratelimit.Store { return newMemory() })
}
