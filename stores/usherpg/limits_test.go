package usherpg_test

import (
	"testing"

	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

func TestLimits(t *testing.T) {
	_, pool := migrated(t)
	p := open(t, pool)
	ratelimittest.TestStore(t, func(testing.TB) ratelimit.Store { return p.Limits() })
}
