package usherpg_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/usherpg"
)

// olderKeys calls the functions of the version before derived keys.
type olderKeys struct {
	t    *testing.T
	pool *pgxpool.Pool
}

// row returns r as that version writes it.
func (s olderKeys) row(r *apikey.Record) string {
	s.t.Helper()
	micros := func(t time.Time) *int64 {
		if t.IsZero() {
			return nil
		}
		us := t.UnixMicro()
		return &us
	}
	text, err := json.Marshal(map[string]any{
		"id": r.ID, "owner": r.Owner, "hash": `\x` + hex.EncodeToString(r.Hash[:]), "name": r.Name, "description": "", "metadata": struct{}{},
		"prefix": "", "last_four": "", "scopes": []string{}, "level": 0, "plan": "", "plan_override": "", "environment": "",
		"allowed_networks": []string{}, "created_at": micros(r.CreatedAt), "created_by": "", "updated_at": micros(r.UpdatedAt),
		"expires_at": micros(r.ExpiresAt), "disabled_at": micros(r.DisabledAt), "revoked_at": micros(r.RevokedAt), "last_used_at": nil,
		"last_used_from": "", "parent": r.Parent, "line": r.Line, "replaced_by": r.ReplacedBy, "revision": r.Revision,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// want makes a call of that version, and fails unless it has this result.
func (s olderKeys) want(result, sql string, args ...any) {
	s.t.Helper()
	var got string
	if err := s.pool.QueryRow(s.t.Context(), sql, args...).Scan(&got); err != nil || got != result {
		s.t.Fatalf("%s: %q, %v; want %q", sql, got, err, result)
	}
}

func (s olderKeys) insert(result string, r apikey.Record, limit int) {
	s.t.Helper()
	s.want(result, "SELECT usher.insert_key_v1($1::jsonb, $2::bigint)", s.row(&r), limit)
}

func (s olderKeys) update(r apikey.Record) {
	s.t.Helper()
	s.want("ok", "SELECT usher.update_key_v1($1::jsonb)", s.row(&r))
}

// Programs of the version before derived keys continue to work beside this one: each reads
// what the other writes, and neither loses what only this one knows.
func TestKeysOfTheVersionBeforeDerivedKeys(t *testing.T) {
	pool := connect(t, servers.Postgres(t).Addr)
	migrateTo(t, pool, 13)
	older, ctx := olderKeys{t, pool}, t.Context()
	before := newKey()
	older.insert("ok", before, 1)
	if err := usherpg.Migrate(ctx, usherpg.Config{Pool: pool}); err != nil {
		t.Fatal(err)
	}
	s := open(t, pool).Keys()
	find := func(r apikey.Record) apikey.Record {
		t.Helper()
		found, err := s.Find(ctx, r.Owner, r.ID)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	after := newKey()
	older.insert("limit", after, 1)
	older.insert("ok", after, 2)
	for _, r := range []apikey.Record{before, after} {
		if got := find(r); got.DerivedFrom != "" || got.DerivedFromHash != (apikey.Hash{}) || got.DisabledBy != "" {
			t.Errorf("a key of the older version: %+v", got)
		}
	}
	if keys, _, err := s.Select(ctx, apikey.Query{Filter: apikey.Filter{Line: before.ID}, Limit: 10}); err != nil || len(keys) != 1 {
		t.Errorf("the line of a key of the older version: %d keys, %v; want 1", len(keys), err)
	}

	derived := newKey()
	derived.DerivedFrom, derived.DerivedFromHash = before.ID, before.Hash
	derived.DisabledAt, derived.DisabledBy = derived.CreatedAt, "system"
	if err := s.Insert(ctx, derived, apikey.Limits{Derived: 1}); err != nil {
		t.Fatal(err)
	}
	older.insert("ok", newKey(), 3) // It does not count derived keys.
	derived.Name = "new"
	older.update(derived)
	got := find(derived)
	if got.Name != "new" || got.DerivedFrom != derived.DerivedFrom || got.DerivedFromHash != derived.DerivedFromHash || got.DisabledBy != "system" {
		t.Errorf("after an update by the older version: %+v", got)
	}
	got.DisabledAt = time.Time{}
	older.update(got)
	if got = find(derived); got.DisabledBy != "" || !got.DisabledAt.IsZero() {
		t.Errorf("after the older version has enabled it: %+v", got)
	}
	got.DisabledAt = got.CreatedAt
	older.update(got)
	if got = find(derived); got.DisabledBy != "" || got.DisabledAt.IsZero() {
		t.Errorf("after the older version has disabled it: %+v", got)
	}
	if err := s.Insert(ctx, newKey(), apikey.Limits{Total: 4}); !errors.Is(err, apikey.ErrFull) {
		t.Errorf("Insert: %v, want %v", err, apikey.ErrFull)
	}
	old, next := find(before), newKey()
	old.ReplacedBy, next.Parent, next.Line = next.ID, old.ID, old.ID
	older.want("ok", "SELECT usher.rotate_key_v1($1::jsonb, $2::jsonb, 1)", older.row(&old), older.row(&next))
	if keys, _, err := s.Select(ctx, apikey.Query{Filter: apikey.Filter{Line: before.ID}, Limit: 10}); err != nil || len(keys) != 2 {
		t.Errorf("the line after a rotation by the older version: %d keys, %v; want 2", len(keys), err)
	}
}

// What is selected often is not found by visiting all keys.
func TestLinesAndDerivedKeysAreIndexed(t *testing.T) {
	_, pool := migrated(t)
	s, ctx := open(t, pool).Keys(), t.Context()
	var r apikey.Record
	for i := range 3 {
		r = newKey()
		r.Line, r.DerivedFrom = "first", "source"
		if i == 0 {
			r.ID, r.Line = "first", ""
		}
		if err := s.Insert(ctx, r, apikey.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, pool, `INSERT INTO usher.keys SELECT (jsonb_populate_record(k, jsonb_build_object('id', 'k' || i, 'line', 'l' || i,
		'derived_from', 'd' || i, 'hash', '\x' || lpad(to_hex(i), 66, '0')))).* FROM usher.keys k, generate_series(1, 20000) i WHERE id = $1`, r.ID)
	exec(t, pool, "ANALYZE usher.keys")
	for index, f := range map[string]apikey.Filter{
		"keys_line": {Line: "first"}, "keys_derived": {DerivedFrom: "source"},
	} {
		keys, _, err := s.Select(ctx, apikey.Query{Filter: f, Limit: 100})
		if err != nil || len(keys) != 3 {
			t.Fatalf("%s: %d keys, %v", index, len(keys), err)
		}
		eventually(t, index, func(ctx context.Context) error {
			var scans int
			err := pool.QueryRow(ctx, "SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = 'usher' AND indexrelname = $1", index).Scan(&scans)
			if err == nil && scans == 0 {
				err = fmt.Errorf("the index is not used")
			}
			return err
		})
		if _, _, err := s.RevokeAll(ctx, f, time.Now(), 100); err != nil {
			t.Fatal(err)
		}
	}
}
