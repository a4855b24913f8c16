package apikey

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Memory is a [Store] and [Notifier] in the memory of one process. All keys are lost when
// the process ends, so it suits tests, and services that import their keys at each start.
// It is safe for concurrent use.
type Memory struct {
	mu      sync.RWMutex
	byID    map[string]*Record
	byHash  map[Hash]*Record
	byOwner map[string][]*Record
	// entries has a copy of each record that was looked up since its last change, so that
	// looking up a key in use copies nothing.
	entries  map[Hash]*entry
	watchers map[*watcher]struct{}
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		byID:     make(map[string]*Record),
		byHash:   make(map[Hash]*Record),
		byOwner:  make(map[string][]*Record),
		entries:  make(map[Hash]*entry),
		watchers: make(map[*watcher]struct{}),
	}
}

var _ Notifier = (*Memory)(nil)

// Insert implements [Store].
func (m *Memory) Insert(ctx context.Context, r Record, limit int) error {
	return m.change(ctx, func() ([]Hash, error) {
		if limit > 0 && m.count(r.Owner, r.CreatedAt, false) >= limit {
			return nil, ErrLimit
		}
		if m.taken(r) {
			return nil, ErrConflict
		}
		m.add(r)
		return []Hash{r.Hash}, nil
	})
}

// Lookup implements [Store].
func (m *Memory) Lookup(ctx context.Context, h Hash) (Record, error) {
	if err := ctx.Err(); err != nil {
		return Record{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r := m.byHash[h]; r != nil {
		return r.clone(), nil
	}
	return Record{}, ErrNotFound
}

// lookup returns the entry of the key with this hash.
func (m *Memory) lookup(ctx context.Context, h Hash, _ time.Time) (*entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.RLock()
	e := m.entries[h]
	known := e != nil || m.byHash[h] != nil
	m.mu.RUnlock()
	switch {
	case e != nil:
		return e, nil
	case !known:
		return nil, ErrNotFound
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.byHash[h]
	if r == nil {
		return nil, ErrNotFound
	}
	e = &entry{record: r.clone()}
	m.entries[h] = e
	return e, nil
}

// Find implements [Store].
func (m *Memory) Find(ctx context.Context, owner, id string) (Record, error) {
	if err := ctx.Err(); err != nil {
		return Record{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, err := m.owned(owner, id)
	if err != nil {
		return Record{}, err
	}
	return r.clone(), nil
}

// List implements [Store].
func (m *Memory) List(ctx context.Context, owner string, offset, limit int) ([]Key, int, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := slices.Clone(m.byOwner[owner])
	slices.SortFunc(all, func(a, b *Record) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	total := len(all)
	all = all[min(offset, total):]
	keys := make([]Key, 0, min(limit, len(all)))
	for _, r := range all[:min(limit, len(all))] {
		keys = append(keys, r.Key.clone())
	}
	return keys, total, nil
}

// Update implements [Store].
func (m *Memory) Update(ctx context.Context, r Record) error {
	return m.change(ctx, func() ([]Hash, error) {
		stored, err := m.current(r)
		if err != nil {
			return nil, err
		}
		stored.update(r)
		return []Hash{stored.Hash}, nil
	})
}

// Rotate implements [Store].
func (m *Memory) Rotate(ctx context.Context, old, next Record, limit int) error {
	return m.change(ctx, func() ([]Hash, error) {
		stored, err := m.current(old)
		if err != nil {
			return nil, err
		}
		if limit > 0 && m.count(old.Owner, next.CreatedAt, true) >= limit {
			return nil, ErrLimit
		}
		if m.taken(next) {
			return nil, ErrConflict
		}
		stored.update(old)
		stored.ReplacedBy = old.ReplacedBy
		m.add(next)
		return []Hash{stored.Hash, next.Hash}, nil
	})
}

// Revoke implements [Store].
func (m *Memory) Revoke(ctx context.Context, owner, id string, at time.Time) (revoked Record, err error) {
	err = m.change(ctx, func() ([]Hash, error) {
		r, err := m.owned(owner, id)
		if err != nil {
			return nil, err
		}
		if r.RevokedAt.IsZero() {
			r.RevokedAt, r.UpdatedAt = at, at
			r.Revision++
		}
		revoked = r.clone()
		return []Hash{r.Hash}, nil
	})
	return revoked, err
}

// Touch implements [Store].
func (m *Memory) Touch(ctx context.Context, uses map[string]time.Time) error {
	return m.change(ctx, func() ([]Hash, error) {
		for id, at := range uses {
			r := m.byID[id]
			if r != nil && r.RevokedAt.IsZero() && at.After(r.LastUsedAt) {
				r.LastUsedAt = at
				delete(m.entries, r.Hash)
			}
		}
		return nil, nil
	})
}

// Watch implements [Notifier].
func (m *Memory) Watch(ctx context.Context, ready func(), changed func(Hash)) error {
	w := &watcher{changes: make(chan Hash, 1024), lost: make(chan struct{})}
	m.mu.Lock()
	m.watchers[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watchers, w)
		m.mu.Unlock()
	}()
	ready()
	for {
		select {
		case h := <-w.changes:
			changed(h)
		case <-w.lost:
			return errors.New("apikey: a watcher is too slow")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A watcher that cannot keep up loses its watch: no change waits for it.
type watcher struct {
	changes chan Hash
	lost    chan struct{}
}

// change calls f under the lock, and notifies the watchers of the keys that it has
// changed.
func (m *Memory) change(ctx context.Context, f func() ([]Hash, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	changed, err := f()
	for _, h := range changed {
		delete(m.entries, h)
		for w := range m.watchers {
			select {
			case w.changes <- h:
			default:
				close(w.lost)
				delete(m.watchers, w)
			}
		}
	}
	return err
}

// The methods below need m.mu.

func (m *Memory) owned(owner, id string) (*Record, error) {
	if r := m.byID[id]; r != nil && r.Owner == owner {
		return r, nil
	}
	return nil, ErrNotFound
}

// current returns the stored record of r if its revision is r's.
func (m *Memory) current(r Record) (*Record, error) {
	stored, err := m.owned(r.Owner, r.ID)
	if err == nil && stored.Revision != r.Revision {
		return nil, ErrConflict
	}
	return stored, err
}

func (m *Memory) count(owner string, now time.Time, replaced bool) (n int) {
	for _, r := range m.byOwner[owner] {
		if r.Active(now) && (r.ReplacedBy != "") == replaced {
			n++
		}
	}
	return n
}

func (m *Memory) taken(r Record) bool { return m.byID[r.ID] != nil || m.byHash[r.Hash] != nil }

func (m *Memory) add(r Record) {
	r = r.clone()
	m.byID[r.ID] = &r
	m.byHash[r.Hash] = &r
	m.byOwner[r.Owner] = append(m.byOwner[r.Owner], &r)
}

// update sets the fields that Store.Update sets.
func (r *Record) update(from Record) {
	from = from.clone()
	r.Name, r.Scopes, r.Level, r.Plan = from.Name, from.Scopes, from.Level, from.Plan
	r.ExpiresAt, r.UpdatedAt = from.ExpiresAt, from.UpdatedAt
	r.Revision++
}
