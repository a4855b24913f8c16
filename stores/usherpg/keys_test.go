package usherpg_test

import (
	"testing"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/apikey/apikeytest"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	s, _ := migrated(t)
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			p := open(t, connect(t, s.Addr, inMode(mode)))
			apikeytest.TestStore(t, func(testing.TB) apikey.Store { return p.Keys() })
		})
	}
}

func TestSharedKeys(t *testing.T) {
	c := newCluster(t)
	apikeytest.TestShared(t, apikeytest.Shared{
		Open:  func(t testing.TB) apikey.Store { return c.open(t).Keys() },
		Block: c.block, Cut: c.cut,
		Poison: func(t testing.TB) { exec(t, c.admin, "UPDATE usher.keys SET revision = -1, metadata = '7'") },
	})
}
