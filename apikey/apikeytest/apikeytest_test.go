package apikeytest_test

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/apikey/apikeytest"
	"github.com/usher-go/usher/internal/storetest"
)

// A store is a Memory, of which each method can be replaced.
type store struct {
	*apikey.Memory
	kept   func(*apikey.Record) // changes what Insert and Rotate store
	shown  func(*apikey.Record) // changes what all methods return
	listed func(*apikey.Key)    // changes what List returns

	insert    func(ctx context.Context, r apikey.Record, limits apikey.Limits) error
	lookup    func(ctx context.Context, h apikey.Hash) (apikey.Record, error)
	find      func(ctx context.Context, owner, id string) (apikey.Record, error)
	list      func(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error)
	update    func(ctx context.Context, r apikey.Record) error
	rotate    func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error
	revoke    func(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error)
	touch     func(ctx context.Context, uses map[string]apikey.Use) error
	close     func() error
	watch     func(ctx context.Context, ready func(), changed func(apikey.Hash)) error
	sel       func(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error)
	revokeAll func(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error)
	purge     func(ctx context.Context, before time.Time, limit int) (int, error)
}

func newStore() *store {
	m := apikey.NewMemory()
	return &store{
		Memory: m,
		kept:   func(*apikey.Record) {}, shown: func(*apikey.Record) {}, listed: func(*apikey.Key) {},
		insert: m.Insert, lookup: m.Lookup, find: m.Find, list: m.List, update: m.Update, rotate: m.Rotate, revoke: m.Revoke,
		touch: m.Touch, close: m.Close, watch: m.Watch, sel: m.Select, revokeAll: m.RevokeAll, purge: m.Purge,
	}
}

var (
	_ apikey.Admin    = (*store)(nil)
	_ apikey.Notifier = (*store)(nil)
)

func (s *store) Insert(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
	s.kept(&r)
	return s.insert(ctx, r, limits)
}

func (s *store) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	r, err := s.lookup(ctx, h)
	s.shown(&r)
	return r, err
}

func (s *store) Find(ctx context.Context, owner, id string) (apikey.Record, error) {
	r, err := s.find(ctx, owner, id)
	s.shown(&r)
	return r, err
}

func (s *store) List(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
	keys, total, err := s.list(ctx, owner, offset, limit)
	s.show(keys)
	for i := range keys {
		s.listed(&keys[i])
	}
	return keys, total, err
}

func (s *store) show(keys []apikey.Key) {
	for i := range keys {
		r := apikey.Record{Key: keys[i]}
		s.shown(&r)
		keys[i] = r.Key
	}
}

func (s *store) Update(ctx context.Context, r apikey.Record) error { return s.update(ctx, r) }

func (s *store) Rotate(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
	s.kept(&next)
	return s.rotate(ctx, old, next, limits)
}

func (s *store) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	r, err := s.revoke(ctx, owner, id, at)
	s.shown(&r)
	return r, err
}

func (s *store) Touch(ctx context.Context, uses map[string]apikey.Use) error {
	return s.touch(ctx, uses)
}

func (s *store) Close() error { return s.close() }

func (s *store) Watch(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
	return s.watch(ctx, ready, changed)
}

func (s *store) Select(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
	keys, next, err := s.sel(ctx, q)
	s.show(keys)
	return keys, next, err
}

func (s *store) RevokeAll(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
	revoked, more, err := s.revokeAll(ctx, f, at, limit)
	for i := range revoked {
		s.shown(&revoked[i])
	}
	return revoked, more, err
}

func (s *store) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	return s.purge(ctx, before, limit)
}

// A fault makes a store wrong in one way. The row is the test of the suite that must fail.
type fault struct {
	row  string
	make func(*store)
}

// faults are those of all files.
func faults() map[string]fault {
	all := maps.Clone(valueFaults)
	for _, more := range []map[string]fault{textFaults, stateFaults, limitFaults, changeFaults, useFaults, watchFaults, filterFaults, adminFaults, emptyFaults()} {
		maps.Copy(all, more)
	}
	return all
}

func TestWrongStoresFail(t *testing.T) {
	storetest.WantFailures(t, "TestWrongStore", faults(), func(f fault) string { return f.row })
}

func TestWrongStore(t *testing.T) {
	f := faults()[storetest.Wrong(t)]
	apikeytest.SetPatience(time.Second)
	apikeytest.TestStore(t, func(testing.TB) apikey.Store {
		s := newStore()
		f.make(s)
		return s
	})
}

// The wrapper that the wrong stores share does not itself fail the suite.
func TestARightStorePasses(t *testing.T) {
	apikeytest.TestStore(t, func(testing.TB) apikey.Store { return newStore() })
}
