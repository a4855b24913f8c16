package apikeytest_test

import (
	"context"
	"sync"
	"time"

	"github.com/usher-go/usher/apikey"
)

const (
	notices  = "watchers are notified of changes"
	each     = "each watcher gets each change, one at a time"
	slowness = "a slow watcher loses no change without an error"
)

// muted returns the fault of a store that does not report the changes by one method.
func muted(mute func(s *store, drop func(apikey.Hash))) fault {
	return fault{notices, func(s *store) {
		var mu sync.Mutex
		dropped := map[apikey.Hash]int{}
		mute(s, func(h apikey.Hash) { mu.Lock(); dropped[h]++; mu.Unlock() })
		s.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			return s.Memory.Watch(ctx, ready, func(h apikey.Hash) {
				mu.Lock()
				drop := dropped[h] > 0
				if drop {
					dropped[h]--
				}
				mu.Unlock()
				if !drop {
					changed(h)
				}
			})
		}
	}}
}

var watchFaults = map[string]fault{
	"reports no Insert": muted(func(s *store, drop func(apikey.Hash)) {
		s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			drop(r.Hash)
			return s.Memory.Insert(ctx, r, limits)
		}
	}),
	"reports a use": {notices, func(s *store) {
		used := make(chan apikey.Hash, 1000)
		s.touch = func(ctx context.Context, uses map[string]apikey.Use) error {
			for id := range uses {
				if k, ok := byID(ctx, s, id); ok {
					r, _ := s.Memory.Find(ctx, k.Owner, id)
					used <- r.Hash
				}
			}
			return s.Memory.Touch(ctx, uses)
		}
		s.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			return s.Memory.Watch(ctx, ready, func(h apikey.Hash) {
				select {
				case h := <-used:
					changed(h)
				default:
				}
				changed(h)
			})
		}
	}},
	"reports no Update": muted(func(s *store, drop func(apikey.Hash)) {
		s.update = func(ctx context.Context, r apikey.Record) error { drop(r.Hash); return s.Memory.Update(ctx, r) }
	}),
	"reports no old key of Rotate": muted(func(s *store, drop func(apikey.Hash)) {
		s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
			drop(old.Hash)
			return s.Memory.Rotate(ctx, old, next, limits)
		}
	}),
	"reports no new key of Rotate": muted(func(s *store, drop func(apikey.Hash)) {
		s.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
			drop(next.Hash)
			return s.Memory.Rotate(ctx, old, next, limits)
		}
	}),
	"reports no Revoke": muted(func(s *store, drop func(apikey.Hash)) {
		s.revoke = func(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
			if r, err := s.Memory.Find(ctx, owner, id); err == nil {
				drop(r.Hash)
			}
			return s.Memory.Revoke(ctx, owner, id, at)
		}
	}),
	"reports no RevokeAll": muted(func(s *store, drop func(apikey.Hash)) {
		s.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
			for _, k := range everyKey(ctx, s) {
				if r, err := s.Memory.Find(ctx, k.Owner, k.ID); err == nil && f.Matches(&k) {
					drop(r.Hash)
				}
			}
			return s.Memory.RevokeAll(ctx, f, at, limit)
		}
	}),
	"reports no Purge": muted(func(s *store, drop func(apikey.Hash)) {
		s.purge = func(ctx context.Context, before time.Time, limit int) (int, error) {
			for _, k := range everyKey(ctx, s) {
				if r, err := s.Memory.Find(ctx, k.Owner, k.ID); err == nil && r.Ended(before) {
					drop(r.Hash)
				}
			}
			return s.Memory.Purge(ctx, before, limit)
		}
	}),
	"is ready too soon": {notices, func(s *store) {
		s.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			ready()
			time.Sleep(100 * time.Millisecond)
			return s.Memory.Watch(ctx, func() {}, changed)
		}
	}},
	"ends a watch without an error": {notices, func(s *store) {
		s.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			_ = s.Memory.Watch(ctx, ready, changed)
			return nil
		}
	}},
	"makes two calls of a watcher at a time": {each, func(s *store) {
		s.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			var calls sync.WaitGroup
			defer calls.Wait()
			return s.Memory.Watch(ctx, ready, func(h apikey.Hash) { calls.Go(func() { changed(h) }) })
		}
	}},
	"has one watcher": {each, func(s *store) {
		var mu sync.Mutex
		var last *int
		s.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			me := new(int)
			mu.Lock()
			last = me
			mu.Unlock()
			return s.Memory.Watch(ctx, ready, func(h apikey.Hash) {
				mu.Lock()
				current := last == me
				mu.Unlock()
				if current {
					changed(h)
				}
			})
		}
	}},
	"gives each change to one watcher": {each, func(s *store) {
		var mu sync.Mutex
		taken := map[apikey.Hash]bool{}
		s.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			return s.Memory.Watch(ctx, ready, func(h apikey.Hash) {
				mu.Lock()
				again := taken[h]
				taken[h] = true
				mu.Unlock()
				if !again {
					changed(h)
				}
			})
		}
	}},
	"drops changes that a watcher cannot take": {slowness, func(s *store) {
		s.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			ready = sync.OnceFunc(ready)
			for ctx.Err() == nil {
				_ = s.Memory.Watch(ctx, ready, changed) // ends if changed is too slow
			}
			return ctx.Err()
		}
	}},
}
