package apikeytest_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usher-go/usher/apikey"
)

const (
	inOrder   = "every order is exact and has pages without gaps"
	cursors   = "a page stays right while keys are added and removed"
	allOfThem = "all that matches is revoked, and nothing else"
	oneByOne  = "parallel revocations of all revoke each key once"
	purged    = "keys that have ended are purged, and no others"
)

// ordered returns the fault of a store that has another order.
func ordered(order func(q apikey.Query, a, b apikey.Key) int) fault {
	return fault{inOrder, func(s *store) {
		s.sel = func(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
			keys := everyKey(ctx, s)
			keys = slices.DeleteFunc(keys, func(k apikey.Key) bool { return !q.Matches(&k) })
			slices.SortFunc(keys, func(a, b apikey.Key) int { return order(q, a, b) })
			if i := slices.IndexFunc(keys, func(k apikey.Key) bool { return k.ID == q.Cursor.ID }); i >= 0 {
				keys = keys[i+1:]
			}
			if len(keys) <= q.Limit {
				return keys, apikey.Cursor{}, nil
			}
			return keys[:q.Limit], apikey.Cursor{ID: keys[q.Limit-1].ID}, nil
		}
	}}
}

// instant returns the time by which q sorts.
func instant(q apikey.Query, k apikey.Key) time.Time {
	switch q.Sort {
	case apikey.SortExpires:
		if k.ExpiresAt.IsZero() {
			return time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		return k.ExpiresAt
	case apikey.SortLastUsed:
		return k.LastUsedAt
	}
	return k.CreatedAt
}

func direct(q apikey.Query, c int) int {
	if q.Descending {
		return -c
	}
	return c
}

var adminFaults = map[string]fault{
	"orders by ID alone": ordered(func(q apikey.Query, a, b apikey.Key) int { return direct(q, cmp.Compare(a.ID, b.ID)) }),
	"orders IDs by a collation": ordered(func(q apikey.Query, a, b apikey.Key) int {
		return direct(q, cmp.Or(instant(q, a).Compare(instant(q, b)), cmp.Compare(strings.ToLower(a.ID), strings.ToLower(b.ID))))
	}),
	"orders IDs in one direction": ordered(func(q apikey.Query, a, b apikey.Key) int {
		return cmp.Or(direct(q, instant(q, a).Compare(instant(q, b))), cmp.Compare(a.ID, b.ID))
	}),
	"orders by numbers": ordered(func(q apikey.Query, a, b apikey.Key) int {
		return direct(q, cmp.Or(float(instant(q, a)).Compare(float(instant(q, b))), cmp.Compare(a.ID, b.ID)))
	}),
	"orders what never expires first": ordered(func(q apikey.Query, a, b apikey.Key) int {
		at := func(k apikey.Key) time.Time {
			if q.Sort == apikey.SortExpires {
				return k.ExpiresAt
			}
			return instant(q, k)
		}
		return direct(q, cmp.Or(at(a).Compare(at(b)), cmp.Compare(a.ID, b.ID)))
	}),
	"orders by creation alone": ordered(func(q apikey.Query, a, b apikey.Key) int {
		return direct(q, cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)))
	}),
	"orders what was never used last": ordered(func(q apikey.Query, a, b apikey.Key) int {
		at := func(k apikey.Key) time.Time {
			if q.Sort == apikey.SortLastUsed && k.LastUsedAt.IsZero() {
				return time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
			}
			return instant(q, k)
		}
		return direct(q, cmp.Or(at(a).Compare(at(b)), cmp.Compare(a.ID, b.ID)))
	}),
	"orders always upwards": ordered(func(q apikey.Query, a, b apikey.Key) int {
		return cmp.Or(instant(q, a).Compare(instant(q, b)), cmp.Compare(a.ID, b.ID))
	}),
	"has an empty last page": {inOrder, func(s *store) {
		s.sel = func(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
			keys, next, err := s.Memory.Select(ctx, q)
			if len(keys) == q.Limit && next.IsZero() {
				next = apikey.Cursor{ID: keys[len(keys)-1].ID, Time: instant(q, keys[len(keys)-1])}
			}
			return keys, next, err
		}
	}},
	"begins a page with the last key of the one before": {inOrder, func(s *store) {
		s.sel = func(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
			keys, next, err := s.Memory.Select(ctx, q)
			if !q.Cursor.IsZero() {
				if k, ok := byID(ctx, s, q.Cursor.ID); ok {
					keys = append([]apikey.Key{k}, keys...)
				}
			}
			return keys, next, err
		}
	}},
	"forgets the cursor": {inOrder, func(s *store) {
		s.sel = func(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
			q.Cursor = apikey.Cursor{}
			return s.Memory.Select(ctx, q)
		}
	}},
	"pages by time alone": {inOrder, func(s *store) {
		s.sel = func(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
			if !q.Cursor.IsZero() {
				q.Cursor.ID = map[bool]string{false: "zzzz", true: "-"}[q.Descending]
			}
			return s.Memory.Select(ctx, q)
		}
	}},
	"pages by offset": {cursors, func(s *store) {
		s.sel = func(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
			var offset int
			_, _ = fmt.Sscan(q.Cursor.ID, &offset)
			limit := q.Limit
			q.Cursor, q.Limit = apikey.Cursor{}, 2000
			keys, _, err := s.Memory.Select(ctx, q)
			keys = keys[min(offset, len(keys)):]
			if len(keys) <= limit {
				return keys, apikey.Cursor{}, err
			}
			return keys[:limit], apikey.Cursor{ID: fmt.Sprint(offset + limit)}, err
		}
	}},
	"begins again if the last key was removed": {cursors, func(s *store) {
		s.sel = func(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
			if _, ok := byID(ctx, s, q.Cursor.ID); !ok {
				q.Cursor = apikey.Cursor{}
			}
			return s.Memory.Select(ctx, q)
		}
	}},
	"revokes everything without a condition": {"nothing is revoked without a condition", func(s *store) {
		s.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
			f.All = true
			return s.Memory.RevokeAll(ctx, f, at, limit)
		}
	}},
	"revokes beyond the limit": {allOfThem, func(s *store) {
		s.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, _ int) ([]apikey.Record, bool, error) {
			return s.Memory.RevokeAll(ctx, f, at, 1000)
		}
	}},
	"never reports more": {allOfThem, func(s *store) {
		s.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
			revoked, _, err := s.Memory.RevokeAll(ctx, f, at, limit)
			return revoked, false, err
		}
	}},
	"reports more if the limit was reached": {allOfThem, func(s *store) {
		s.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
			revoked, _, err := s.Memory.RevokeAll(ctx, f, at, limit)
			return revoked, len(revoked) == limit, err
		}
	}},
	"returns what it has revoked without hashes": {allOfThem, func(s *store) {
		s.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
			revoked, more, err := s.Memory.RevokeAll(ctx, f, at, limit)
			for i := range revoked {
				revoked[i].Hash = apikey.Hash{}
			}
			return revoked, more, err
		}
	}},
	"revokes active keys only": {allOfThem, func(s *store) {
		s.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
			if f.Status == apikey.AnyStatus {
				f.Status, f.Now = apikey.StatusActive, at
			}
			return s.Memory.RevokeAll(ctx, f, at, limit)
		}
	}},
	"revokes keys apart from choosing them": {oneByOne, func(s *store) {
		s.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) (revoked []apikey.Record, more bool, err error) {
			for _, k := range everyKey(ctx, s) {
				if !k.RevokedAt.IsZero() || !f.Matches(&k) {
					continue
				}
				if more = len(revoked) == limit; more {
					break
				}
				time.Sleep(100 * time.Microsecond)
				r, err := s.Memory.Revoke(ctx, k.Owner, k.ID, at)
				if err != nil {
					return revoked, more, err
				}
				revoked = append(revoked, r)
			}
			return revoked, more, nil
		}
	}},
	"purges what ended at that time": {purged, func(s *store) {
		s.purge = func(ctx context.Context, before time.Time, limit int) (int, error) {
			return s.Memory.Purge(ctx, before.Add(time.Microsecond), limit)
		}
	}},
	"purges beyond the limit": {purged, func(s *store) {
		s.purge = func(ctx context.Context, before time.Time, _ int) (int, error) {
			return s.Memory.Purge(ctx, before, 1000)
		}
	}},
	"purges nothing": {purged, func(s *store) {
		s.purge = func(context.Context, time.Time, int) (int, error) { return 0, nil }
	}},
	"purges revoked keys only": keeping(func(k *apikey.Key) bool { return k.RevokedAt.IsZero() }),
	"purges expired keys only": keeping(func(k *apikey.Key) bool { return !k.RevokedAt.IsZero() && k.RevokedAt.Before(k.ExpiresAt) }),
	"purges no replaced keys":  keeping(func(k *apikey.Key) bool { return k.ReplacedBy != "" }),
	"looks up what it has purged": {purged, func(s *store) {
		var mu sync.Mutex
		index := map[apikey.Hash]apikey.Record{}
		s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			mu.Lock()
			index[r.Hash] = r
			mu.Unlock()
			return s.Memory.Insert(ctx, r, limits)
		}
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			r, err := s.Memory.Lookup(ctx, h)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				if r, ok := index[h]; ok {
					return r, nil
				}
			}
			return r, err
		}
	}},
	"never reuses a hash": {purged, func(s *store) {
		a := &aliases[apikey.Hash]{fold: func(h apikey.Hash) apikey.Hash { return h }, first: map[apikey.Hash]apikey.Hash{}}
		s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			if !a.add(r.Hash) {
				return apikey.ErrConflict
			}
			return s.Memory.Insert(ctx, r, limits)
		}
	}},
}

// keeping returns the fault of a store that does not purge some keys.
func keeping(keep func(*apikey.Key) bool) fault {
	return fault{purged, func(s *store) {
		s.purge = func(ctx context.Context, before time.Time, limit int) (int, error) {
			var back []apikey.Record
			for _, k := range everyKey(ctx, s) {
				if keep(&k) {
					if r, err := s.Memory.Find(ctx, k.Owner, k.ID); err == nil {
						back = append(back, r)
					}
				}
			}
			n, err := s.Memory.Purge(ctx, before, limit)
			for _, r := range back {
				if s.Memory.Insert(ctx, r, apikey.Limits{}) == nil {
					n--
				}
			}
			return n, err
		}
	}}
}
