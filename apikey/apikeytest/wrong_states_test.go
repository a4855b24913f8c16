package apikeytest_test

import (
	"context"
	"slices"
	"time"

	"github.com/usher-go/usher/apikey"
)

const likeAnyOther = "a key that is refused now is stored and changed like any other"

// reordered is List in another order.
func reordered(ctx context.Context, s *store, owner string, offset, limit int, order func(a, b apikey.Key) int) ([]apikey.Key, int, error) {
	keys, total, err := s.Memory.List(ctx, owner, 0, 100_000)
	slices.SortStableFunc(keys, order)
	keys = keys[min(offset, len(keys)):]
	return keys[:min(limit, len(keys))], total, err
}

// gone has the keys that some stores treat as if they did not exist.
var gone = map[string]func(*apikey.Key) bool{
	"expired":  func(k *apikey.Key) bool { return !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(time.Now()) },
	"disabled": func(k *apikey.Key) bool { return !k.DisabledAt.IsZero() },
	"replaced": func(k *apikey.Key) bool { return k.ReplacedBy != "" },
}

// stateFaults has stores that treat keys by their state.
var stateFaults = func() map[string]fault {
	all := map[string]fault{}
	for state, is := range gone {
		all["does not look up a key that is "+state] = fault{likeAnyOther, func(s *store) {
			s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
				r, err := s.Memory.Lookup(ctx, h)
				if err == nil && is(&r.Key) {
					return apikey.Record{}, apikey.ErrNotFound
				}
				return r, err
			}
		}}
		all["does not find a key that is "+state] = fault{likeAnyOther, func(s *store) {
			s.find = func(ctx context.Context, owner, id string) (apikey.Record, error) {
				r, err := s.Memory.Find(ctx, owner, id)
				if err == nil && is(&r.Key) {
					return apikey.Record{}, apikey.ErrNotFound
				}
				return r, err
			}
		}}
		all["does not list a key that is "+state] = fault{likeAnyOther, func(s *store) {
			s.list = func(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
				keys, total, err := s.Memory.List(ctx, owner, offset, limit)
				return slices.DeleteFunc(keys, func(k apikey.Key) bool { return is(&k) }), total, err
			}
		}}
		all["does not update a key that is "+state] = fault{likeAnyOther, func(s *store) {
			s.update = func(ctx context.Context, r apikey.Record) error {
				if stored, err := s.Memory.Find(ctx, r.Owner, r.ID); err == nil && is(&stored.Key) {
					return apikey.ErrConflict
				}
				return s.Memory.Update(ctx, r)
			}
		}}
		all["ignores the revocation of a key that is "+state] = fault{likeAnyOther, func(s *store) {
			s.revoke = func(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
				if r, err := s.Memory.Find(ctx, owner, id); err == nil && is(&r.Key) {
					return r, nil
				}
				return s.Memory.Revoke(ctx, owner, id, at)
			}
		}}
		all["refuses to revoke a key that is "+state] = fault{likeAnyOther, func(s *store) {
			s.revoke = func(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
				if r, err := s.Memory.Find(ctx, owner, id); err == nil && is(&r.Key) {
					return apikey.Record{}, apikey.ErrConflict
				}
				return s.Memory.Revoke(ctx, owner, id, at)
			}
		}}
		all["records no use of a key that is "+state] = fault{likeAnyOther, func(s *store) {
			s.touch = func(ctx context.Context, uses map[string]apikey.Use) error {
				active := map[string]apikey.Use{}
				for id, use := range uses {
					if k, ok := byID(ctx, s, id); !ok || !is(&k) {
						active[id] = use
					}
				}
				return s.Memory.Touch(ctx, active)
			}
		}}
	}
	return all
}()

// everyKey returns all keys of the store.
func everyKey(ctx context.Context, s *store) []apikey.Key {
	keys, _, err := s.Memory.Select(ctx, apikey.Query{Limit: 2000})
	if err != nil {
		return nil
	}
	return keys
}

func byID(ctx context.Context, s *store, id string) (apikey.Key, bool) {
	for _, k := range everyKey(ctx, s) {
		if k.ID == id {
			return k, true
		}
	}
	return apikey.Key{}, false
}
