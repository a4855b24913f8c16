package apikey

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
)

const (
	// storeTimeout is the default bound on a call of a store.
	storeTimeout = 3 * time.Second
	// maxCalls bounds the calls of one kind that run at a time. Abandoned calls count
	// until they return.
	maxCalls = 64
	// maxTouches bounds the writes of last uses, each of up to a thousand keys.
	maxTouches = 4
)

// A guardedStore bounds the calls of a store that depends on something outside the
// process and so may hang, ignore its context or panic. Lookups, which any client can
// cause, never take the places of changes.
type guardedStore struct {
	store   Store
	lookups *guard.Guard
	changes *guard.Guard
	touches *guard.Guard
	// cache, if not nil, removes each key that a call may have changed after the call was
	// abandoned.
	cache *Cache
}

// guarded returns s with bounded calls. A [Memory], which never waits, and a [Cache],
// which guards its store, are returned as they are.
func guarded(s Store, timeout time.Duration, maxLookups int, meters metric.MeterProvider) Admin {
	switch s := s.(type) {
	case *Memory:
		return s
	case *Cache:
		return s
	}
	return newGuardedStore(s, timeout, maxLookups, meters, nil)
}

func newGuardedStore(s Store, timeout time.Duration, maxLookups int, meters metric.MeterProvider, cache *Cache) *guardedStore {
	return &guardedStore{
		store:   s,
		lookups: guard.New(timeout, maxLookups).Results(isResult).Measured(meters, guard.APIKeys),
		changes: guard.New(timeout, maxCalls).Results(isResult).Measured(meters, guard.APIKeys),
		// There is one call an interval, and the last cannot be made later.
		touches: guard.New(flushTimeout, maxTouches).NeverOpen().Measured(meters, guard.APIKeys),
		cache:   cache,
	}
}

// isResult reports whether a store that returns err works.
func isResult(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) || errors.Is(err, ErrLimit) || errors.Is(err, ErrFull) ||
		errors.Is(err, errors.ErrUnsupported)
}

// change calls f, an operation that changes the keys with these hashes.
func (s *guardedStore) change(ctx context.Context, operation string, f func(context.Context) error, keys ...Hash) error {
	call := func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) }
	_, err := guard.Call(ctx, s.changes, operation, call, func(struct{}, error) {
		if s.cache == nil {
			return
		}
		for _, h := range keys {
			s.cache.entries.Forget(h)
		}
	})
	return err
}

func (s *guardedStore) Insert(ctx context.Context, r Record, limits Limits) error {
	return s.change(ctx, "insert", func(ctx context.Context) error { return s.store.Insert(ctx, r, limits) }, r.Hash)
}

func (s *guardedStore) Lookup(ctx context.Context, h Hash) (Record, error) {
	return guard.Call(ctx, s.lookups, "lookup", func(ctx context.Context) (Record, error) { return s.store.Lookup(ctx, h) }, nil)
}

func (s *guardedStore) Find(ctx context.Context, owner, id string) (Record, error) {
	return guard.Call(ctx, s.changes, "find", func(ctx context.Context) (Record, error) { return s.store.Find(ctx, owner, id) }, nil)
}

func (s *guardedStore) List(ctx context.Context, owner string, offset, limit int) ([]Key, int, error) {
	type page struct {
		keys  []Key
		total int
	}
	p, err := guard.Call(ctx, s.changes, "list", func(ctx context.Context) (p page, err error) {
		p.keys, p.total, err = s.store.List(ctx, owner, offset, limit)
		return p, err
	}, nil)
	return p.keys, p.total, err
}

func (s *guardedStore) Update(ctx context.Context, r Record) error {
	return s.change(ctx, "update", func(ctx context.Context) error { return s.store.Update(ctx, r) }, r.Hash)
}

func (s *guardedStore) Rotate(ctx context.Context, old, next Record, limits Limits) error {
	return s.change(ctx, "rotate", func(ctx context.Context) error { return s.store.Rotate(ctx, old, next, limits) }, old.Hash, next.Hash)
}

func (s *guardedStore) Revoke(ctx context.Context, owner, id string, at time.Time) (Record, error) {
	return guard.Call(ctx, s.changes, "revoke", func(ctx context.Context) (Record, error) {
		return s.store.Revoke(ctx, owner, id, at)
	}, func(r Record, err error) {
		if s.cache != nil {
			s.cache.revoked(owner, id, r, err)
		}
	})
}

func (s *guardedStore) Touch(ctx context.Context, uses map[string]Use) error {
	return s.touches.Do(ctx, "touch", func(ctx context.Context) error { return s.store.Touch(ctx, uses) })
}

// admin returns the store as an [Admin].
func (s *guardedStore) admin() (Admin, error) {
	if a, ok := s.store.(Admin); ok {
		return a, nil
	}
	return nil, errNoAdmin
}

func (s *guardedStore) Select(ctx context.Context, q Query) ([]Key, Cursor, error) {
	a, err := s.admin()
	if err != nil {
		return nil, Cursor{}, err
	}
	type page struct {
		keys []Key
		next Cursor
	}
	p, err := guard.Call(ctx, s.changes, "select", func(ctx context.Context) (p page, err error) {
		p.keys, p.next, err = a.Select(ctx, q)
		return p, err
	}, nil)
	return p.keys, p.next, err
}

func (s *guardedStore) RevokeAll(ctx context.Context, f Filter, at time.Time, limit int) ([]Record, bool, error) {
	a, err := s.admin()
	if err != nil {
		return nil, false, err
	}
	type batch struct {
		revoked []Record
		more    bool
	}
	b, err := guard.Call(ctx, s.changes, "revoke_all", func(ctx context.Context) (b batch, err error) {
		b.revoked, b.more, err = a.RevokeAll(ctx, f, at, limit)
		return b, err
	}, func(b batch, err error) {
		if s.cache != nil {
			s.cache.revokedAll(b.revoked, err)
		}
	})
	return b.revoked, b.more, err
}

func (s *guardedStore) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	a, err := s.admin()
	if err != nil {
		return 0, err
	}
	return guard.Call(ctx, s.changes, "purge", func(ctx context.Context) (int, error) { return a.Purge(ctx, before, limit) }, nil)
}

// Close implements [Store]. Nothing of this package calls it.
func (s *guardedStore) Close() error { return s.store.Close() }

// callback calls f, which calls a function of a Config. A panic becomes a failure of the
// server, so a callback must run before anything that a panic could leave half done.
func callback(name string, f func() error) error {
	err := guard.Run(f)
	if p, ok := errors.AsType[*guard.PanicError](err); ok {
		return &usher.Error{
			Status: http.StatusInternalServerError,
			Code:   usher.CodeInternal,
			Cause:  fmt.Errorf("apikey: %s: %w", name, p),
		}
	}
	return err
}
