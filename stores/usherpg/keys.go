package usherpg

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// keys is the store of API keys. What its calls do is written in migrations/0006_keys.sql,
// 0007_key_admin.sql and 0014_derived_keys.sql; each is one statement.
type keys struct {
	store
	pg *Postgres

	insert, lookup, find, list, update, rotate, revoke, touch string // statements
	selectPage, revokeAll, purge, changes                     string
}

var (
	_ apikey.Admin    = (*keys)(nil)
	_ apikey.Notifier = (*keys)(nil)
)

func newKeys(p *Postgres) *keys {
	// The casts fix the types also where the pool sends texts.
	call := func(name, arguments string) string { return "SELECT " + p.function(name) + "(" + arguments + ")" }
	return &keys{
		store: newStore(p.open), pg: p,
		insert: call("insert_key_v2", "$1::jsonb, $2::jsonb"),
		lookup: call("lookup_key_v1", "$1::bytea"),
		find:   call("find_key_v1", "$1::text, $2::text"),
		list:   "SELECT total, page FROM " + p.function("list_keys_v1") + "($1::text, $2::bigint, $3::bigint)",
		update: call("update_key_v1", "$1::jsonb"),
		rotate: call("rotate_key_v2", "$1::jsonb, $2::jsonb, $3::jsonb"),
		revoke: call("revoke_key_v1", "$1::text, $2::text, $3::bigint"),
		touch:  call("touch_keys_v1", "$1::text[], $2::bigint[], $3::text[]"),
		selectPage: call("select_keys_v1",
			"$1::jsonb, $2::smallint, $3::boolean, $4::bigint, $5::text, $6::bigint"),
		revokeAll: "SELECT revoked, more FROM " + p.function("revoke_all_keys_v1") + "($1::jsonb, $2::bigint, $3::bigint)",
		purge:     call("purge_keys_v1", "$1::bigint, $2::bigint"),
		changes:   "SELECT server, last, removed, hashes FROM " + p.function("key_changes_after_v1") + "($1::bigint)",
	}
}

// A keyRow is a row of the table keys as JSON.
type keyRow struct {
	ID              string            `json:"id"`
	Owner           string            `json:"owner"`
	Hash            binary            `json:"hash"`
	Name            string            `json:"name"`
	Description     string            `json:"description"`
	Metadata        map[string]string `json:"metadata"`
	Prefix          string            `json:"prefix"`
	LastFour        string            `json:"last_four"`
	Scopes          []string          `json:"scopes"`
	Level           uint8             `json:"level"`
	Plan            string            `json:"plan"`
	PlanOverride    string            `json:"plan_override"`
	Environment     string            `json:"environment"`
	AllowedNetworks []netip.Prefix    `json:"allowed_networks"`
	CreatedAt       int64             `json:"created_at"`
	CreatedBy       string            `json:"created_by"`
	UpdatedAt       int64             `json:"updated_at"`
	ExpiresAt       *int64            `json:"expires_at"`
	DisabledAt      *int64            `json:"disabled_at"`
	DisabledBy      string            `json:"disabled_by"`
	RevokedAt       *int64            `json:"revoked_at"`
	LastUsedAt      *int64            `json:"last_used_at"`
	LastUsedFrom    netip.Addr        `json:"last_used_from"`
	Parent          string            `json:"parent"`
	Line            string            `json:"line"`
	ReplacedBy      string            `json:"replaced_by"`
	DerivedFrom     string            `json:"derived_from"`
	DerivedFromHash binary            `json:"derived_from_hash,omitempty"`
	Revision        int64             `json:"revision"`
}

// rowOfKey returns r as an argument.
func rowOfKey(r *apikey.Record) (string, error) {
	row := keyRow{
		ID: r.ID, Owner: r.Owner, Hash: r.Hash[:], Name: r.Name, Description: r.Description, Metadata: r.Metadata,
		Prefix: r.Prefix, LastFour: r.LastFour, Scopes: r.Scopes, Level: uint8(r.Level), Plan: r.Plan, PlanOverride: r.PlanOverride,
		Environment: r.Environment, AllowedNetworks: r.AllowedNetworks,
		CreatedAt: r.CreatedAt.UnixMicro(), CreatedBy: r.CreatedBy, UpdatedAt: r.UpdatedAt.UnixMicro(),
		ExpiresAt: micros(r.ExpiresAt), DisabledAt: micros(r.DisabledAt), DisabledBy: r.DisabledBy, RevokedAt: micros(r.RevokedAt),
		LastUsedAt: micros(r.LastUsedAt), LastUsedFrom: r.LastUsedFrom,
		Parent: r.Parent, Line: r.Line, ReplacedBy: r.ReplacedBy, DerivedFrom: r.DerivedFrom, Revision: r.Revision,
	}
	if r.DerivedFromHash != (apikey.Hash{}) {
		row.DerivedFromHash = r.DerivedFromHash[:]
	}
	if row.Metadata == nil {
		row.Metadata = map[string]string{}
	}
	if row.Scopes == nil {
		row.Scopes = []string{}
	}
	if row.AllowedNetworks == nil {
		row.AllowedNetworks = []netip.Prefix{}
	}
	text, err := json.Marshal(row)
	return string(text), err
}

// record returns the record of a row.
func (row *keyRow) record() (r apikey.Record, err error) {
	if len(row.Hash) != len(r.Hash) || len(row.DerivedFromHash) != len(r.DerivedFromHash) && row.DerivedFromHash != nil {
		return r, errUnreadable
	}
	copy(r.Hash[:], row.Hash)
	copy(r.DerivedFromHash[:], row.DerivedFromHash)
	r.Key = apikey.Key{
		ID: row.ID, Owner: row.Owner, Name: row.Name, Description: row.Description, Metadata: row.Metadata,
		Prefix: row.Prefix, LastFour: row.LastFour, Scopes: row.Scopes, Level: usher.Level(row.Level), Plan: row.Plan, PlanOverride: row.PlanOverride,
		Environment: row.Environment, AllowedNetworks: row.AllowedNetworks,
		CreatedAt: timeOf(&row.CreatedAt), CreatedBy: row.CreatedBy, UpdatedAt: timeOf(&row.UpdatedAt),
		ExpiresAt: timeOf(row.ExpiresAt), DisabledAt: timeOf(row.DisabledAt), DisabledBy: row.DisabledBy, RevokedAt: timeOf(row.RevokedAt),
		LastUsedAt: timeOf(row.LastUsedAt), LastUsedFrom: row.LastUsedFrom,
		Parent: row.Parent, Line: row.Line, ReplacedBy: row.ReplacedBy, DerivedFrom: row.DerivedFrom, Revision: row.Revision,
	}
	return r, nil
}

// argumentOf returns those limits that are set as an argument.
func argumentOf(l apikey.Limits) (string, error) {
	set := map[string]int{}
	for name, limit := range map[string]int{
		"active": l.Active, "replaced": l.Replaced, "working": l.Working, "derived": l.Derived, "total": l.Total,
	} {
		if limit > 0 {
			set[name] = limit
		}
	}
	text, err := json.Marshal(set)
	return string(text), err
}

// one makes a call whose result is a key, or null if there is none.
func (s *keys) one(ctx context.Context, what, sql string, args ...any) (r apikey.Record, err error) {
	found := false
	err = s.call(ctx, what, func(ctx context.Context) error {
		var text []byte
		if err := s.pg.pool.QueryRow(ctx, sql, args...).Scan(&text); err != nil {
			return err
		}
		if found = text != nil; !found {
			return nil
		}
		var row keyRow
		if err := unmarshal(text, &row); err != nil {
			return err
		}
		r, err = row.record()
		return err
	})
	switch {
	case err != nil:
		return apikey.Record{}, err
	case !found:
		return apikey.Record{}, apikey.ErrNotFound
	}
	return r, nil
}

// recordsOf returns the records of a list of rows.
func recordsOf(text []byte) ([]apikey.Record, error) {
	var rows []keyRow
	if err := unmarshal(text, &rows); err != nil {
		return nil, err
	}
	list := make([]apikey.Record, len(rows))
	for i := range rows {
		var err error
		if list[i], err = rows[i].record(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func keysOf(list []apikey.Record) []apikey.Key {
	all := make([]apikey.Key, len(list))
	for i := range list {
		all[i] = list[i].Key
	}
	return all
}

// change makes a call whose result says what it has done.
func (s *keys) change(ctx context.Context, what, sql string, args ...any) error {
	var result string
	err := s.call(ctx, what, func(ctx context.Context) error {
		return s.pg.pool.QueryRow(ctx, sql, args...).Scan(&result)
	})
	if err != nil {
		return err
	}
	switch result {
	case "ok":
		return nil
	case "conflict":
		return apikey.ErrConflict
	case "limit":
		return apikey.ErrLimit
	case "full":
		return apikey.ErrFull
	case "none":
		return apikey.ErrNotFound
	default:
		return errReply
	}
}

// Insert implements [apikey.Store].
func (s *keys) Insert(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
	row, err := rowOfKey(&r)
	if err != nil {
		return err
	}
	bounds, err := argumentOf(limits)
	if err != nil {
		return err
	}
	return s.change(ctx, "insert a key", s.insert, row, bounds)
}

// Lookup implements [apikey.Store].
func (s *keys) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	return s.one(ctx, "look up a key", s.lookup, h[:])
}

// Find implements [apikey.Store].
func (s *keys) Find(ctx context.Context, owner, id string) (apikey.Record, error) {
	return s.one(ctx, "find a key", s.find, owner, id)
}

// List implements [apikey.Store].
func (s *keys) List(ctx context.Context, owner string, offset, limit int) (page []apikey.Key, total int, err error) {
	err = s.call(ctx, "list keys", func(ctx context.Context) error {
		var text []byte
		if err := s.pg.pool.QueryRow(ctx, s.list, owner, offset, limit).Scan(&total, &text); err != nil {
			return err
		}
		list, err := recordsOf(text)
		page = keysOf(list)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return page, total, nil
}

// Update implements [apikey.Store].
func (s *keys) Update(ctx context.Context, r apikey.Record) error {
	row, err := rowOfKey(&r)
	if err != nil {
		return err
	}
	return s.change(ctx, "update a key", s.update, row)
}

// Rotate implements [apikey.Store].
func (s *keys) Rotate(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
	from, err := rowOfKey(&old)
	if err != nil {
		return err
	}
	to, err := rowOfKey(&next)
	if err != nil {
		return err
	}
	bounds, err := argumentOf(limits)
	if err != nil {
		return err
	}
	return s.change(ctx, "rotate a key", s.rotate, from, to, bounds)
}

// Revoke implements [apikey.Store].
func (s *keys) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	return s.one(ctx, "revoke a key", s.revoke, owner, id, at.UnixMicro())
}

// Touch implements [apikey.Store].
func (s *keys) Touch(ctx context.Context, uses map[string]apikey.Use) error {
	if len(uses) == 0 {
		return s.closed()
	}
	ids, froms := make([]string, 0, len(uses)), make([]string, 0, len(uses))
	ats := make([]int64, 0, len(uses))
	for id, use := range uses {
		from := ""
		if use.From.IsValid() {
			from = use.From.String()
		}
		ids, ats, froms = append(ids, id), append(ats, use.At.UnixMicro()), append(froms, from)
	}
	return s.call(ctx, "record uses of keys", func(ctx context.Context) error {
		_, err := s.pg.pool.Exec(ctx, s.touch, ids, ats, froms)
		return err
	})
}

// Watch implements [apikey.Notifier]. It has a connection of its own.
func (s *keys) Watch(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
	err := s.follow(ctx, s.pg.pool, "watch keys", func(ctx context.Context, f *feed) error {
		var server string
		after := int64(-1)
		for {
			var now string
			var last, removed int64
			var hashes [][]byte
			// The first time only the last position counts.
			if err := f.query(ctx, s.changes, []any{max(after, 0)}, &now, &last, &removed, &hashes); err != nil {
				return err
			}
			switch {
			case after < 0:
				server, after = now, last
				ready()
				continue
			case now != server || after > last || after < removed:
				return errMissed
			}
			for _, h := range hashes {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if len(h) != len(apikey.Hash{}) {
					return errUnreadable
				}
				changed(apikey.Hash(h))
			}
			after += int64(len(hashes))
			if after < last {
				continue
			}
			if err := f.pause(ctx); err != nil {
				return err
			}
		}
	})
	if err == nil {
		err = errMissed
	}
	return err
}

var errMissed = &failure{kind: usher.ErrUnavailable, text: "watch keys: changes may have been missed"}
