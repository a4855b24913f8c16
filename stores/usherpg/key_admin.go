package usherpg

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/usher-go/usher/apikey"
)

// filterOf returns the conditions of f as an argument.
func filterOf(f *apikey.Filter) (string, error) {
	all := map[string]any{}
	for name, value := range map[string]string{
		"owner": f.Owner, "created_by": f.CreatedBy, "parent": f.Parent, "line": f.Line, "derived_from": f.DerivedFrom,
		"environment": f.Environment, "plan": f.Plan, "prefix": f.Prefix,
	} {
		if value != "" {
			all[name] = value
		}
	}
	if f.Status != apikey.AnyStatus {
		all["status"] = f.Status.String()
		all["now"] = f.Now.UnixMicro()
	}
	if !f.ExpiresBefore.IsZero() {
		all["expires_before"] = f.ExpiresBefore.UnixMicro()
	}
	if !f.UnusedSince.IsZero() {
		all["unused_since"] = f.UnusedSince.UnixMicro()
	}
	if len(f.Metadata) > 0 {
		all["metadata"] = f.Metadata
	}
	text, err := json.Marshal(all)
	return string(text), err
}

// Select implements [apikey.Admin].
func (s *keys) Select(ctx context.Context, q apikey.Query) (page []apikey.Key, next apikey.Cursor, err error) {
	filter, err := filterOf(&q.Filter)
	if err != nil {
		return nil, next, err
	}
	var id *string
	if !q.Cursor.IsZero() {
		id = &q.Cursor.ID
	}
	err = s.call(ctx, "select keys", func(ctx context.Context) error {
		var text []byte
		err := s.pg.pool.QueryRow(ctx, s.selectPage, filter, int16(q.Sort), q.Descending, micros(q.Cursor.Time), id, q.Limit).Scan(&text)
		if err != nil {
			return err
		}
		list, err := recordsOf(text)
		page = keysOf(list)
		return err
	})
	if err != nil || len(page) <= q.Limit {
		return page, next, err
	}
	page = slices.Clip(page[:q.Limit])
	last := &page[q.Limit-1]
	next = apikey.Cursor{Time: last.CreatedAt, ID: last.ID}
	switch q.Sort {
	case apikey.SortExpires:
		next.Time = last.ExpiresAt
	case apikey.SortLastUsed:
		next.Time = last.LastUsedAt
	}
	return page, next, nil
}

var errEveryKey = errors.New("usherpg: a filter without conditions would revoke every key: set All")

// RevokeAll implements [apikey.Admin].
func (s *keys) RevokeAll(ctx context.Context, f apikey.Filter, at time.Time, limit int) (revoked []apikey.Record, more bool, err error) {
	if f.Empty() && !f.All {
		return nil, false, errEveryKey
	}
	filter, err := filterOf(&f)
	if err != nil {
		return nil, false, err
	}
	err = s.call(ctx, "revoke keys", func(ctx context.Context) (err error) {
		var text []byte
		if err := s.pg.pool.QueryRow(ctx, s.revokeAll, filter, at.UnixMicro(), limit).Scan(&text, &more); err != nil {
			return err
		}
		revoked, err = recordsOf(text)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return revoked, more, nil
}

// Purge implements [apikey.Admin].
func (s *keys) Purge(ctx context.Context, before time.Time, limit int) (n int, err error) {
	err = s.call(ctx, "remove keys", func(ctx context.Context) error {
		return s.pg.pool.QueryRow(ctx, s.purge, before.UnixMicro(), limit).Scan(&n)
	})
	return n, err
}
