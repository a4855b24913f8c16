package apikey

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"math"
	"slices"
	"time"
)

var _ Admin = (*Memory)(nil)

// Select implements [Admin].
func (m *Memory) Select(ctx context.Context, q Query) ([]Key, Cursor, error) {
	if err := m.read(ctx); err != nil {
		return nil, Cursor{}, err
	}
	defer m.mu.RUnlock()
	// One more key shows whether there is a next page.
	first := make([]*Record, 0, 2*(q.Limit+1))
	var last Cursor // of first when it was last sorted: no key after it is on the page
	for r := range m.visit(&q.Filter) {
		at := q.place(r)
		if !q.Cursor.IsZero() && q.compare(at, q.Cursor) <= 0 || !last.IsZero() && q.compare(at, last) > 0 || !q.Matches(&r.Key) {
			continue
		}
		if len(first) == cap(first) {
			first = q.first(first)
			last = q.place(first[q.Limit])
		}
		first = append(first, r)
	}
	first = q.first(first)
	var next Cursor
	if len(first) > q.Limit {
		first = first[:q.Limit]
		next = q.place(first[q.Limit-1])
	}
	keys := make([]Key, 0, len(first))
	for _, r := range first {
		keys = append(keys, r.Key.clone())
	}
	return keys, next, nil
}

// first sorts list, and returns the page and one more record.
func (q *Query) first(list []*Record) []*Record {
	slices.SortFunc(list, func(a, b *Record) int { return q.compare(q.place(a), q.place(b)) })
	return list[:min(len(list), q.Limit+1)]
}

// place returns the place of r in the order of q.
func (q *Query) place(r *Record) Cursor {
	at := r.CreatedAt
	switch q.Sort {
	case SortExpires:
		at = r.ExpiresAt
	case SortLastUsed:
		at = r.LastUsedAt
	}
	return Cursor{at, r.ID}
}

// compare compares two places in the order of q.
func (q *Query) compare(a, b Cursor) int {
	if q.Descending {
		a, b = b, a
	}
	return cmp.Or(cmp.Compare(q.rank(a.Time), q.rank(b.Time)), cmp.Compare(a.ID, b.ID))
}

// rank returns t in microseconds, where never is last for an expiry.
func (q *Query) rank(t time.Time) int64 {
	if q.Sort == SortExpires && t.IsZero() {
		return math.MaxInt64
	}
	return t.UnixMicro()
}

// RevokeAll implements [Admin].
func (m *Memory) RevokeAll(ctx context.Context, f Filter, at time.Time, limit int) (revoked []Record, more bool, err error) {
	err = m.change(ctx, func() (changed []Hash, err error) {
		if err := f.everything(); err != nil {
			return nil, err
		}
		var found []*Record
		for r := range m.visit(&f) {
			if !r.RevokedAt.IsZero() || !f.Matches(&r.Key) {
				continue
			}
			if more = len(found) == limit; more {
				break
			}
			found = append(found, r)
		}
		for _, r := range found {
			m.revoke(r, at)
			revoked = append(revoked, r.clone())
			changed = append(changed, r.Hash)
		}
		return changed, nil
	})
	return revoked, more, err
}

// Purge implements [Admin].
func (m *Memory) Purge(ctx context.Context, before time.Time, limit int) (n int, err error) {
	err = m.change(ctx, func() (changed []Hash, err error) {
		owners := make(map[string]bool)
		for _, r := range m.byID {
			if len(changed) == limit {
				break
			}
			if r.endedBefore(before) {
				delete(m.byID, r.ID)
				delete(m.byHash, r.Hash)
				owners[r.Owner] = true
				changed = append(changed, r.Hash)
			}
		}
		for owner := range owners {
			a := m.accounts[owner]
			a.remove(func(r *Record) bool { return m.byID[r.ID] == nil })
			if len(a.keys) == 0 {
				delete(m.accounts, owner)
			}
		}
		n = len(changed)
		return changed, nil
	})
	return n, err
}

// endedBefore reports whether the key ended before this time.
func (k *Key) endedBefore(t time.Time) bool {
	before := func(end time.Time) bool { return !end.IsZero() && end.Before(t) }
	return before(k.RevokedAt) || before(k.ExpiresAt)
}

// visit returns the records that may match f. It needs m.mu.
func (m *Memory) visit(f *Filter) iter.Seq[*Record] {
	if f.Owner == "" {
		return maps.Values(m.byID)
	}
	if a := m.accounts[f.Owner]; a != nil {
		return slices.Values(a.keys)
	}
	return func(func(*Record) bool) {}
}
