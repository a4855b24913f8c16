package apikeytest_test

import (
	"context"
	"maps"
	"net/netip"
	"sync"

	"github.com/usher-go/usher/apikey"
)

const (
	useTimes    = "the last use never moves back"
	addresses   = "the time and the address of a use belong together"
	revokedUses = "a use never changes a revoked key"
)

// shows returns the fault of a store whose Touch does something else to the keys.
func shows(row string, f func(use apikey.Use, r *apikey.Record)) fault {
	return fault{row, func(s *store) {
		o := newOverlay(s)
		s.touch = func(ctx context.Context, uses map[string]apikey.Use) error {
			err := s.Memory.Touch(ctx, uses)
			for id, use := range uses {
				o.set(id, func(r *apikey.Record) { f(use, r) })
			}
			return err
		}
	}}
}

var useFaults = map[string]fault{
	"moves the last use back":          shows(useTimes, func(u apikey.Use, r *apikey.Record) { r.LastUsedAt = u.At }),
	"counts a use as a change":         shows(useTimes, func(_ apikey.Use, r *apikey.Record) { r.Revision++ }),
	"sets UpdatedAt at a use":          shows(useTimes, func(u apikey.Use, r *apikey.Record) { r.UpdatedAt = u.At }),
	"stores the address of an old use": shows(addresses, func(u apikey.Use, r *apikey.Record) { r.LastUsedFrom = u.From }),
	"stores no addresses":              shows(addresses, func(_ apikey.Use, r *apikey.Record) { r.LastUsedFrom = netip.Addr{} }),
	"records uses of a revoked key": shows(revokedUses, func(u apikey.Use, r *apikey.Record) {
		if u.At.After(r.LastUsedAt) {
			r.LastUsedAt = u.At
		}
	}),
	"keeps the address if it is unknown": {addresses, func(s *store) {
		s.touch = func(ctx context.Context, uses map[string]apikey.Use) error {
			uses = maps.Clone(uses)
			for id, use := range uses {
				if k, ok := byID(ctx, s, id); ok && !use.From.IsValid() {
					use.From = k.LastUsedFrom
					uses[id] = use
				}
			}
			return s.Memory.Touch(ctx, uses)
		}
	}},
	"keeps the map of uses": {addresses, func(s *store) {
		var mu sync.Mutex
		var kept map[string]apikey.Use
		s.touch = func(_ context.Context, uses map[string]apikey.Use) error {
			mu.Lock()
			kept = uses
			mu.Unlock()
			return nil
		}
		s.find = func(ctx context.Context, owner, id string) (apikey.Record, error) {
			mu.Lock()
			_ = s.Memory.Touch(ctx, kept)
			mu.Unlock()
			return s.Memory.Find(ctx, owner, id)
		}
	}},
	"fails if an ID is unknown": {useTimes, func(s *store) {
		s.touch = func(ctx context.Context, uses map[string]apikey.Use) error {
			for id := range uses {
				if _, ok := byID(ctx, s, id); !ok {
					return apikey.ErrNotFound
				}
			}
			return s.Memory.Touch(ctx, uses)
		}
	}},
	"keeps the earliest of parallel uses": {"the latest of parallel uses is kept", func(s *store) {
		o := newOverlay(s)
		s.touch = func(_ context.Context, uses map[string]apikey.Use) error {
			for id, use := range uses {
				o.merge(id, use)
			}
			return nil
		}
	}},
}

// merge shows the earliest use of a key.
func (o *overlay) merge(id string, use apikey.Use) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.shown[id]
	o.shown[id] = func(r *apikey.Record) {
		if before != nil {
			before(r)
		}
		if r.LastUsedAt.IsZero() || use.At.Before(r.LastUsedAt) {
			r.LastUsedAt, r.LastUsedFrom = use.At, use.From
		}
	}
}
