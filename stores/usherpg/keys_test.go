package usherpg_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/apikey/apikeytest"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/usherpg"
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

// Keys that a program of the version before lines adds, before the migration or after it,
// are the first of their lines.
func TestKeysOfTheVersionBeforeLines(t *testing.T) {
	pool := connect(t, servers.Postgres(t).Addr)
	migrateTo(t, pool, 11)
	older := func(id string, first byte) {
		t.Helper()
		exec(t, pool, fmt.Sprintf(`SELECT usher.insert_key_v1(jsonb_build_object('id', '%s', 'owner', 'ann', 'hash', '\x%02x%s',
			'name', '', 'description', '', 'metadata', '{}'::jsonb, 'prefix', '', 'last_four', '', 'scopes', '[]'::jsonb, 'level', 0,
			'plan', '', 'plan_override', '', 'environment', '', 'allowed_networks', '[]'::jsonb, 'created_at', 1, 'created_by', '',
			'updated_at', 1, 'last_used_from', '', 'parent', '', 'replaced_by', '', 'revision', 1), 0)`, id, first, strings.Repeat("00", 32)))
	}
	older("before", 1)
	if err := usherpg.Migrate(t.Context(), usherpg.Config{Pool: pool}); err != nil {
		t.Fatal(err)
	}
	older("after", 2)
	for _, id := range []string{"before", "after"} {
		if r, err := open(t, pool).Keys().Find(t.Context(), "ann", id); err != nil || r.Line != "" {
			t.Errorf("the key added %s the migration: line %q, %v", id, r.Line, err)
		}
	}
}
