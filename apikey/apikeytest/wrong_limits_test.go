package apikeytest_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/apikey/apikeytest"
)

const (
	counting    = "each limit counts the keys that it is about, and no others"
	following   = "the count of active keys follows every change"
	atOnce      = "parallel changes leave exactly as many keys as each limit permits"
	ownersApart = "each owner has its own limits"
	atLimit     = "a change that is repeated at the limit is a conflict"
)

// A counter returns the error of a change of the owner of keys at this time, or nil.
type counter func(l apikey.Limits, keys []apikey.Key, at time.Time) error

// rightly is the counter of a right store.
func rightly(l apikey.Limits, keys []apikey.Key, at time.Time) error {
	var n apikey.Limits
	n.Total = len(keys)
	for _, k := range keys {
		switch {
		case k.Ended(at):
			continue
		case k.DerivedFrom != "":
			n.Derived++
			continue
		case k.ReplacedBy != "":
			n.Replaced++
		default:
			n.Active++
		}
		n.Working++
	}
	reached := func(n, limit int) bool { return limit > 0 && n >= limit }
	switch {
	case reached(n.Active, l.Active), reached(n.Replaced, l.Replaced), reached(n.Working, l.Working), reached(n.Derived, l.Derived):
		return apikey.ErrLimit
	case reached(n.Total, l.Total):
		return apikey.ErrFull
	}
	return nil
}

// counts makes s count with f. It locks inserts while an Insert counts and adds, and
// rotations while a Rotate does.
func counts(s *store, inserts, rotations sync.Locker, f counter) {
	all := func(ctx context.Context, owner string) []apikey.Key {
		keys, _, _ := s.Memory.List(ctx, owner, 0, 100_000)
		return keys
	}
	s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
		inserts.Lock()
		defer inserts.Unlock()
		_, hashErr := s.Memory.Lookup(ctx, r.Hash)
		if _, idErr := s.Memory.Find(ctx, r.Owner, r.ID); idErr != nil && hashErr != nil && ctx.Err() == nil {
			if err := f(limits, all(ctx, r.Owner), r.CreatedAt); err != nil {
				return err
			}
		}
		return s.Memory.Insert(ctx, r, apikey.Limits{})
	}
	s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
		rotations.Lock()
		defer rotations.Unlock()
		stored, err := s.Memory.Find(ctx, old.Owner, old.ID)
		if _, idErr := s.Memory.Find(ctx, next.Owner, next.ID); idErr != nil && err == nil && stored.Revision == old.Revision {
			if err := f(limits, all(ctx, old.Owner), next.CreatedAt); err != nil {
				return err
			}
		}
		return s.Memory.Rotate(ctx, old, next, apikey.Limits{})
	}
}

type unlocked struct{}

func (unlocked) Lock()   {}
func (unlocked) Unlock() {}

// miscounts returns the fault of a store that counts in another way.
func miscounts(f counter) fault {
	return fault{counting, func(s *store) {
		var mu sync.Mutex
		counts(s, &mu, &mu, f)
	}}
}

// sees returns the fault of a store that sees each key as alter leaves it.
func sees(alter func(k *apikey.Key, at time.Time)) fault {
	return miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
		for i := range keys {
			alter(&keys[i], at)
		}
		return rightly(l, keys, at)
	})
}

// leavesOut returns the fault of a store that does not count some keys.
func leavesOut(is func(k *apikey.Key, at time.Time) bool) fault {
	return miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
		return rightly(l, slices.DeleteFunc(keys, func(k apikey.Key) bool { return is(&k, at) }), at)
	})
}

var limitFaults = func() map[string]fault {
	all := map[string]fault{
		"counts no disabled keys":                  leavesOut(func(k *apikey.Key, _ time.Time) bool { return !k.DisabledAt.IsZero() }),
		"counts only what has not ended as stored": leavesOut(func(k *apikey.Key, at time.Time) bool { return k.Ended(at) }),
		"counts no derived keys":                   leavesOut(func(k *apikey.Key, _ time.Time) bool { return k.DerivedFrom != "" }),
		"counts no keys that never expire":         leavesOut(func(k *apikey.Key, _ time.Time) bool { return k.ExpiresAt.IsZero() }),
		"counts revoked keys":                      sees(func(k *apikey.Key, _ time.Time) { k.RevokedAt = time.Time{} }),
		"counts expired keys":                      sees(func(k *apikey.Key, _ time.Time) { k.ExpiresAt = time.Time{} }),
		"counts replaced keys as active":           sees(func(k *apikey.Key, _ time.Time) { k.ReplacedBy = "" }),
		"counts derived keys as active":            sees(func(k *apikey.Key, _ time.Time) { k.DerivedFrom = "" }),
		"counts derived keys that are replaced as replaced": sees(func(k *apikey.Key, _ time.Time) {
			if k.ReplacedBy != "" {
				k.DerivedFrom = ""
			}
		}),
		"counts what expires at that time": sees(func(k *apikey.Key, at time.Time) {
			if k.ExpiresAt.Equal(at) {
				k.ExpiresAt = at.Add(time.Microsecond)
			}
		}),
		"counts no key that expires soon": sees(func(k *apikey.Key, _ time.Time) {
			if !k.ExpiresAt.IsZero() {
				k.ExpiresAt = k.ExpiresAt.Add(-time.Microsecond)
			}
		}),
		"counts by its own clock": miscounts(func(l apikey.Limits, keys []apikey.Key, _ time.Time) error {
			return rightly(l, keys, time.Now())
		}),
		"counts derived keys that have ended": miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
			for i := range keys {
				if keys[i].DerivedFrom != "" {
					keys[i].RevokedAt, keys[i].ExpiresAt = time.Time{}, time.Time{}
				}
			}
			return rightly(l, keys, at)
		}),
		"counts derived keys as working": miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
			if err := rightly(l, keys, at); err != nil {
				return err
			}
			for i := range keys {
				keys[i].DerivedFrom = ""
			}
			return rightly(apikey.Limits{Working: l.Working}, keys, at)
		}),
		"counts active keys alone as working": miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
			active := l.Active
			if active == 0 || l.Working > 0 && l.Working < active {
				active = l.Working
			}
			l.Active, l.Working = active, 0
			return rightly(l, keys, at)
		}),
		"checks the limit of active keys alone if there is one": miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
			if l.Active > 0 {
				l = apikey.Limits{Active: l.Active}
			}
			return rightly(l, keys, at)
		}),
		"permits one key too many": miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
			return rightly(plus(l, 1), keys, at)
		}),
		"permits one key too few": miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
			return rightly(plus(l, -1), keys, at)
		}),
		"refuses nothing beyond a limit": miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
			if rightly(plus(l, 1), keys, at) != nil {
				return nil
			}
			return rightly(l, keys, at)
		}),
		"has one error for all limits": miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
			if rightly(l, keys, at) != nil {
				return apikey.ErrLimit
			}
			return nil
		}),
		"counts what is stored first": miscounts(func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
			if err := rightly(apikey.Limits{Total: l.Total}, keys, at); err != nil {
				return err
			}
			return rightly(l, keys, at)
		}),
		"counts disabled keys of an update no more": {following, func(s *store) {
			var disabled sync.Map
			s.update = func(ctx context.Context, r apikey.Record) error {
				disabled.Store(r.ID, !r.DisabledAt.IsZero())
				return s.Memory.Update(ctx, r)
			}
			var mu sync.Mutex
			counts(s, &mu, &mu, func(l apikey.Limits, keys []apikey.Key, at time.Time) error {
				return rightly(l, slices.DeleteFunc(keys, func(k apikey.Key) bool { is, _ := disabled.Load(k.ID); return is == true }), at)
			})
		}},
		"has one limit for all owners": {ownersApart, func(s *store) {
			var mu sync.Mutex
			n := 0
			s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
				mu.Lock()
				defer mu.Unlock()
				if n++; limits.Active > 0 && n > limits.Active {
					return apikey.ErrLimit
				}
				return s.Memory.Insert(ctx, r, limits)
			}
		}},
		"counts before it looks for the key to insert": {atLimit, func(s *store) {
			insert := s.insert
			s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
				if keys, _, err := s.Memory.List(ctx, r.Owner, 0, 100_000); err == nil {
					if err := rightly(limits, keys, r.CreatedAt); err != nil {
						return err
					}
				}
				return insert(ctx, r, limits)
			}
		}},
		"counts before it looks for the key to rotate": {atLimit, func(s *store) {
			rotate := s.rotate
			s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
				if keys, _, err := s.Memory.List(ctx, old.Owner, 0, 100_000); err == nil {
					if err := rightly(limits, keys, next.CreatedAt); err != nil {
						return err
					}
				}
				return rotate(ctx, old, next, limits)
			}
		}},
	}
	for name, of := range eachLimit {
		all["inserts without the limit "+name] = fault{counting, func(s *store) {
			s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
				*of(&limits) = 0
				return s.Memory.Insert(ctx, r, limits)
			}
		}}
		all["rotates without the limit "+name] = fault{counting, func(s *store) {
			s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
				*of(&limits) = 0
				return s.Memory.Rotate(ctx, old, next, limits)
			}
		}}
		all["exceeds the limit "+name+" in parallel"] = fault{atOnce, func(s *store) {
			insert, rotate := s.insert, s.rotate
			counts(s, unlocked{}, unlocked{}, slowly)
			alone(s, of, insert, rotate)
		}}
	}
	for _, name := range []string{"working", "total"} {
		all["has a lock for inserts and one for rotations, which do not hold the limit "+name] = fault{atOnce, func(s *store) {
			insert, rotate := s.insert, s.rotate
			counts(s, new(sync.Mutex), new(sync.Mutex), slowly)
			alone(s, eachLimit[name], insert, rotate)
		}}
	}
	return all
}()

var eachLimit = map[string]func(*apikey.Limits) *int{
	"active":   func(l *apikey.Limits) *int { return &l.Active },
	"replaced": func(l *apikey.Limits) *int { return &l.Replaced },
	"working":  func(l *apikey.Limits) *int { return &l.Working },
	"derived":  func(l *apikey.Limits) *int { return &l.Derived },
	"total":    func(l *apikey.Limits) *int { return &l.Total },
}

// alone makes s call insert and rotate unless one limit is set.
func alone(s *store, of func(*apikey.Limits) *int, insert func(context.Context, apikey.Record, apikey.Limits) error,
	rotate func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error) {
	wrongInsert, wrongRotate := s.insert, s.rotate
	s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
		if *of(&limits) > 0 {
			return wrongInsert(ctx, r, limits)
		}
		return insert(ctx, r, limits)
	}
	s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
		if *of(&limits) > 0 {
			return wrongRotate(ctx, old, next, limits)
		}
		return rotate(ctx, old, next, limits)
	}
}

// slowly counts rightly, and leaves time for another change before its own.
func slowly(l apikey.Limits, keys []apikey.Key, at time.Time) error {
	err := rightly(l, keys, at)
	time.Sleep(10 * time.Millisecond)
	return err
}

// plus returns those limits that are set, each increased by n.
func plus(l apikey.Limits, n int) apikey.Limits {
	for _, limit := range []*int{&l.Active, &l.Replaced, &l.Working, &l.Derived, &l.Total} {
		if *limit > 0 {
			*limit += n
		}
	}
	return l
}

// The counter that the wrong ones are made of is right.
func TestAStoreThatCountsRightlyPasses(t *testing.T) {
	apikeytest.TestStore(t, func(testing.TB) apikey.Store {
		s := newStore()
		var mu sync.Mutex
		counts(s, &mu, &mu, rightly)
		return s
	})
}
