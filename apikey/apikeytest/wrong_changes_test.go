package apikeytest_test

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

const (
	updates      = "an update replaces the settings and nothing else"
	empties      = "an update to empty values also replaces the settings"
	oldRevisions = "an update of an old revision changes nothing"
	rotations    = "a rotation updates one key and adds another"
	revocations  = "revoking a revoked key changes nothing"
)

// settings copy one setting each.
var settings = map[string]func(to *apikey.Record, from apikey.Record){
	"name":        func(to *apikey.Record, from apikey.Record) { to.Name = from.Name },
	"description": func(to *apikey.Record, from apikey.Record) { to.Description = from.Description },
	"metadata":    func(to *apikey.Record, from apikey.Record) { to.Metadata = from.Metadata },
	"scopes":      func(to *apikey.Record, from apikey.Record) { to.Scopes = from.Scopes },
	"level":       func(to *apikey.Record, from apikey.Record) { to.Level = from.Level },
	"plan":        func(to *apikey.Record, from apikey.Record) { to.Plan = from.Plan },
	"override":    func(to *apikey.Record, from apikey.Record) { to.PlanOverride = from.PlanOverride },
	"networks":    func(to *apikey.Record, from apikey.Record) { to.AllowedNetworks = from.AllowedNetworks },
	"disabled":    func(to *apikey.Record, from apikey.Record) { to.DisabledAt = from.DisabledAt },
	"disabler":    func(to *apikey.Record, from apikey.Record) { to.DisabledBy = from.DisabledBy },
	"expiry":      func(to *apikey.Record, from apikey.Record) { to.ExpiresAt = from.ExpiresAt },
}

// emptyFaults has stores that keep a setting when an update empties it, and stores that do
// not update it at all.
func emptyFaults() map[string]fault {
	all := map[string]fault{}
	for name, keep := range settings {
		all["keeps the "+name+" that an update empties"] = fault{empties, func(s *store) {
			s.update = func(ctx context.Context, r apikey.Record) error {
				stored, err := s.Memory.Find(ctx, r.Owner, r.ID)
				if err == nil && r.Scopes == nil && r.Name == "" {
					keep(&r, stored)
				}
				return s.Memory.Update(ctx, r)
			}
		}}
		all["does not update the "+name] = fault{updates, func(s *store) {
			s.update = func(ctx context.Context, r apikey.Record) error {
				if stored, err := s.Memory.Find(ctx, r.Owner, r.ID); err == nil {
					keep(&r, stored)
				}
				return s.Memory.Update(ctx, r)
			}
		}}
	}
	return all
}

// An overlay changes what is shown of some keys.
type overlay struct {
	mu    sync.Mutex
	shown map[string]func(*apikey.Record)
}

func (o *overlay) set(id string, f func(*apikey.Record)) {
	o.mu.Lock()
	o.shown[id] = f
	o.mu.Unlock()
}

func (o *overlay) show(r *apikey.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f, ok := o.shown[r.ID]; ok {
		f(r)
	}
}

func newOverlay(s *store) *overlay {
	o := &overlay{shown: map[string]func(*apikey.Record){}}
	s.shown = o.show
	return o
}

// alsoUpdates returns the fault of a store whose Update changes something else, too.
func alsoUpdates(row string, f func(stored *apikey.Record, given apikey.Record)) fault {
	return fault{row, func(s *store) {
		o := newOverlay(s)
		s.update = func(ctx context.Context, r apikey.Record) error {
			err := s.Memory.Update(ctx, r)
			if err == nil {
				o.set(r.ID, func(stored *apikey.Record) { f(stored, r) })
			}
			return err
		}
	}}
}

var changeFaults = map[string]fault{
	"updates ReplacedBy":  alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.ReplacedBy = given.ReplacedBy }),
	"clears ReplacedBy":   alsoUpdates(rotations, func(r *apikey.Record, _ apikey.Record) { r.ReplacedBy = "" }),
	"updates Line":        alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.Line = given.Line }),
	"updates DerivedFrom": alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.DerivedFrom = given.DerivedFrom }),
	"updates the hash of what a key is derived from": alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.DerivedFromHash = given.DerivedFromHash }),
	"updates Parent":       alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.Parent = given.Parent }),
	"updates CreatedBy":    alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.CreatedBy = given.CreatedBy }),
	"updates CreatedAt":    alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.CreatedAt = given.CreatedAt }),
	"updates RevokedAt":    alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.RevokedAt = given.RevokedAt }),
	"updates LastUsedAt":   alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.LastUsedAt = given.LastUsedAt }),
	"updates LastUsedFrom": alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.LastUsedFrom = given.LastUsedFrom }),
	"updates Environment":  alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.Environment = given.Environment }),
	"updates Prefix":       alsoUpdates(updates, func(r *apikey.Record, given apikey.Record) { r.Prefix = given.Prefix }),
	"merges metadata": {updates, func(s *store) {
		s.update = func(ctx context.Context, r apikey.Record) error {
			if stored, err := s.Memory.Find(ctx, r.Owner, r.ID); err == nil {
				merged := maps.Clone(stored.Metadata)
				maps.Copy(merged, r.Metadata)
				r.Metadata = merged
			}
			return s.Memory.Update(ctx, r)
		}
	}},
	"does not compare revisions": {oldRevisions, func(s *store) {
		s.update = func(ctx context.Context, r apikey.Record) error {
			if stored, err := s.Memory.Find(ctx, r.Owner, r.ID); err == nil {
				r.Revision = stored.Revision
			}
			return s.Memory.Update(ctx, r)
		}
	}},
	"compares revisions apart from the update": {"one of several parallel updates of a revision succeeds", func(s *store) {
		s.update = func(ctx context.Context, r apikey.Record) error {
			stored, err := s.Memory.Find(ctx, r.Owner, r.ID)
			if err == nil && stored.Revision != r.Revision {
				return apikey.ErrConflict
			}
			time.Sleep(time.Millisecond)
			if stored, err = s.Memory.Find(ctx, r.Owner, r.ID); err == nil {
				r.Revision = stored.Revision
			}
			return s.Memory.Update(ctx, r)
		}
	}},
	"keeps the last use of the old key": {rotations, func(s *store) {
		s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
			if stored, err := s.Memory.Find(ctx, old.Owner, old.ID); err == nil {
				next.LastUsedAt, next.LastUsedFrom = stored.LastUsedAt, stored.LastUsedFrom
			}
			return s.Memory.Rotate(ctx, old, next, limits)
		}
	}},
	"rotates what a key is derived from": {rotations, func(s *store) {
		o := newOverlay(s)
		s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
			err := s.Memory.Rotate(ctx, old, next, limits)
			if err == nil {
				o.set(old.ID, func(r *apikey.Record) { r.DerivedFrom, r.DerivedFromHash = old.DerivedFrom, old.DerivedFromHash })
			}
			return err
		}
	}},
	"drops the parent of the new key": {rotations, func(s *store) {
		s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
			next.Parent = ""
			return s.Memory.Rotate(ctx, old, next, limits)
		}
	}},
	"does not store what replaces a key": {rotations, func(s *store) {
		s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
			old.ReplacedBy = ""
			return s.Memory.Rotate(ctx, old, next, limits)
		}
	}},
	"adds the new key though the old has changed": {"a rotation that fails changes nothing", func(s *store) {
		s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
			err := s.Memory.Rotate(ctx, old, next, limits)
			if err != nil {
				_ = s.Memory.Insert(ctx, next, apikey.Limits{})
			}
			return err
		}
	}},
	"updates the old key though the new is taken": {"a rotation that fails changes nothing", func(s *store) {
		s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
			if err := s.Memory.Update(ctx, old); err != nil {
				return err
			}
			old.Revision++
			return s.Memory.Rotate(ctx, old, next, limits)
		}
	}},
	"moves the time of a revocation": {revocations, func(s *store) {
		o := newOverlay(s)
		s.revoke = func(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
			r, err := s.Memory.Revoke(ctx, owner, id, at)
			o.set(id, func(r *apikey.Record) { r.RevokedAt = at })
			return r, err
		}
	}},
	"fails to revoke a revoked key": {revocations, func(s *store) {
		s.revoke = func(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
			if r, err := s.Memory.Find(ctx, owner, id); err == nil && !r.RevokedAt.IsZero() {
				return r, apikey.ErrConflict
			}
			return s.Memory.Revoke(ctx, owner, id, at)
		}
	}},
	"returns a revoked key as it was": {revocations, func(s *store) {
		s.revoke = func(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
			r, err := s.Memory.Find(ctx, owner, id)
			if err == nil {
				_, err = s.Memory.Revoke(ctx, owner, id, at)
			}
			return r, err
		}
	}},
	"reveals the keys of other owners": {"unknown keys and keys of other owners look the same", func(s *store) {
		s.find = func(ctx context.Context, _, id string) (apikey.Record, error) {
			k, ok := byID(ctx, s, id)
			if !ok {
				return apikey.Record{}, apikey.ErrNotFound
			}
			return s.Memory.Find(ctx, k.Owner, id)
		}
	}},
	"has IDs of each owner": {"an ID or a hash cannot be used twice", func(s *store) {
		s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			if k, ok := byID(ctx, s, r.ID); ok && k.Owner != r.Owner {
				return nil
			}
			return s.Memory.Insert(ctx, r, limits)
		}
	}},
	"makes changes after the end of the context": {"a context that has ended ends the call", func(s *store) {
		s.revoke = func(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
			return s.Memory.Revoke(context.WithoutCancel(ctx), owner, id, at)
		}
	}},
	"finds nothing after the end of the context": {"a context that has ended ends the call", func(s *store) {
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			if ctx.Err() != nil {
				return apikey.Record{}, apikey.ErrNotFound
			}
			return s.Memory.Lookup(ctx, h)
		}
	}},
	"stays open": {"a closed store refuses every call", func(s *store) { s.close = func() error { return nil } }},
	"fails to close a second time": {"a closed store refuses every call", func(s *store) {
		var once sync.Mutex
		s.close = func() error {
			if !once.TryLock() {
				return usher.ErrClosed
			}
			return s.Memory.Close()
		}
	}},
	"finds nothing once it is closed": {"a closed store refuses every call", func(s *store) {
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			r, err := s.Memory.Lookup(ctx, h)
			if err != nil {
				err = apikey.ErrNotFound
			}
			return r, err
		}
	}},
}
