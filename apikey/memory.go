package apikey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/usher-go/usher"
)

// Memory is a [Store], [Admin] and [Notifier] in the memory of one process. All keys are
// lost when the process ends, so it suits tests, and services that import their keys at
// each start. It is safe for concurrent use.
//
// The work of a call does not grow with the number of keys, except that Select, RevokeAll
// and Purge visit all of them, or all of one owner.
type Memory struct {
	mu       sync.RWMutex
	byID     map[string]*Record
	byHash   map[Hash]*Record
	accounts map[string]*account // by owner
	// entries has a copy of each record that was looked up since its last change, so that
	// looking up a key in use copies nothing.
	entries  map[Hash]*entry
	watchers map[*watcher]struct{}
	closed   bool
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		byID:     make(map[string]*Record),
		byHash:   make(map[Hash]*Record),
		accounts: make(map[string]*account),
		entries:  make(map[Hash]*entry),
		watchers: make(map[*watcher]struct{}),
	}
}

var _ Notifier = (*Memory)(nil)

// Insert implements [Store].
func (m *Memory) Insert(ctx context.Context, r Record, limits Limits) error {
	return m.change(ctx, func() ([]Hash, error) {
		if m.taken(r) {
			return nil, ErrConflict
		}
		if err := m.accounts[r.Owner].room(limits, r.CreatedAt); err != nil {
			return nil, err
		}
		m.add(r)
		return []Hash{r.Hash}, nil
	})
}

// Lookup implements [Store].
func (m *Memory) Lookup(ctx context.Context, h Hash) (Record, error) {
	if err := m.read(ctx); err != nil {
		return Record{}, err
	}
	defer m.mu.RUnlock()
	if r := m.byHash[h]; r != nil {
		return r.clone(), nil
	}
	return Record{}, ErrNotFound
}

// lookup returns the entry of the key with this hash, or nil if there is none. To find no
// key in two maps takes about as much work as to find an entry in the first.
func (m *Memory) lookup(ctx context.Context, h Hash, _ time.Time) (*entry, error) {
	if err := m.read(ctx); err != nil {
		return nil, err
	}
	e := m.entries[h]
	known := e != nil || m.byHash[h] != nil
	m.mu.RUnlock()
	if e != nil || !known {
		return e, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	r := m.byHash[h]
	if e := m.entries[h]; e != nil || r == nil {
		return e, nil
	}
	e = &entry{record: r.clone()}
	e.kept.Store(true)
	m.entries[h] = e
	return e, nil
}

// Find implements [Store].
func (m *Memory) Find(ctx context.Context, owner, id string) (Record, error) {
	if err := m.read(ctx); err != nil {
		return Record{}, err
	}
	defer m.mu.RUnlock()
	r, err := m.owned(owner, id)
	if err != nil {
		return Record{}, err
	}
	return r.clone(), nil
}

// List implements [Store].
func (m *Memory) List(ctx context.Context, owner string, offset, limit int) ([]Key, int, error) {
	if err := m.read(ctx); err != nil {
		return nil, 0, err
	}
	defer m.mu.RUnlock()
	var all []*Record
	if a := m.accounts[owner]; a != nil {
		all = a.keys
	}
	total := len(all)
	all = all[:total-min(offset, total)]
	n := min(limit, len(all))
	keys := make([]Key, 0, n)
	for _, r := range slices.Backward(all[len(all)-n:]) {
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
		m.edit(stored, func() { stored.update(r) })
		return []Hash{stored.Hash}, nil
	})
}

// Rotate implements [Store].
func (m *Memory) Rotate(ctx context.Context, old, next Record, limits Limits) error {
	return m.change(ctx, func() ([]Hash, error) {
		stored, err := m.current(old)
		if err != nil {
			return nil, err
		}
		if m.taken(next) {
			return nil, ErrConflict
		}
		if err := m.accounts[old.Owner].room(limits, next.CreatedAt); err != nil {
			return nil, err
		}
		m.edit(stored, func() {
			stored.update(old)
			stored.ReplacedBy = old.ReplacedBy
		})
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
		m.revoke(r, at)
		revoked = r.clone()
		return []Hash{r.Hash}, nil
	})
	return revoked, err
}

// Touch implements [Store].
func (m *Memory) Touch(ctx context.Context, uses map[string]Use) error {
	return m.change(ctx, func() ([]Hash, error) {
		for id, use := range uses {
			r := m.byID[id]
			if r != nil && r.RevokedAt.IsZero() && use.At.After(r.LastUsedAt) {
				r.LastUsedAt, r.LastUsedFrom = use.At, use.From
				m.drop(r.Hash)
			}
		}
		return nil, nil
	})
}

// Watch implements [Notifier].
func (m *Memory) Watch(ctx context.Context, ready func(), changed func(Hash)) error {
	w := &watcher{changes: make(chan Hash, 2*MaxLimit), lost: make(chan error, 1)}
	if err := m.change(ctx, func() ([]Hash, error) { m.watchers[w] = struct{}{}; return nil, nil }); err != nil {
		return err
	}
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
		case err := <-w.lost:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close implements [Store]. It ends every Watch.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for h := range m.entries {
		m.drop(h)
	}
	for w := range m.watchers {
		m.lose(w, errClosed)
	}
	return nil
}

var (
	errClosed = fmt.Errorf("apikey: %w", usher.ErrClosed)
	errSlow   = errors.New("apikey: a watcher is too slow")
)

// A watcher that cannot keep up loses its watch: no change waits for it.
type watcher struct {
	changes chan Hash
	lost    chan error
}

// read locks m for reading, unless the call must fail.
func (m *Memory) read(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.RLock()
	if m.closed {
		m.mu.RUnlock()
		return errClosed
	}
	return nil
}

// change calls f under the lock, and notifies the watchers of the keys that it has
// changed.
func (m *Memory) change(ctx context.Context, f func() ([]Hash, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	changed, err := f()
	for _, h := range changed {
		m.drop(h)
		for w := range m.watchers {
			select {
			case w.changes <- h:
			default:
				m.lose(w, errSlow)
			}
		}
	}
	return err
}

// The methods below need m.mu.

// drop removes the entry of a key, if there is one.
func (m *Memory) drop(h Hash) {
	if e := m.entries[h]; e != nil {
		e.drop()
		delete(m.entries, h)
	}
}

// lose ends a watch.
func (m *Memory) lose(w *watcher, err error) {
	w.lost <- err
	delete(m.watchers, w)
}

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

func (m *Memory) taken(r Record) bool { return m.byID[r.ID] != nil || m.byHash[r.Hash] != nil }

func (m *Memory) add(r Record) {
	r = r.clone()
	m.byID[r.ID] = &r
	m.byHash[r.Hash] = &r
	a := m.accounts[r.Owner]
	if a == nil {
		a = new(account)
		m.accounts[r.Owner] = a
	}
	a.add(&r)
}

// edit calls change, which changes stored.
func (m *Memory) edit(stored *Record, change func()) {
	a := m.accounts[stored.Owner]
	a.discount(stored)
	change()
	a.count(stored)
}

// revoke revokes r unless it is revoked already.
func (m *Memory) revoke(r *Record, at time.Time) {
	if !r.RevokedAt.IsZero() {
		return
	}
	m.edit(r, func() {
		r.RevokedAt, r.UpdatedAt = at, at
		r.Revision++
	})
}

// update sets the fields that Store.Update sets.
func (r *Record) update(from Record) {
	from = from.clone()
	r.Name, r.Description, r.Metadata = from.Name, from.Description, from.Metadata
	r.Scopes, r.Level, r.Plan, r.PlanOverride = from.Scopes, from.Level, from.Plan, from.PlanOverride
	r.AllowedNetworks, r.ExpiresAt = from.AllowedNetworks, from.ExpiresAt
	r.DisabledAt, r.DisabledBy = from.DisabledAt, from.DisabledBy
	r.UpdatedAt = from.UpdatedAt
	r.Revision++
}
