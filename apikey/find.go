package apikey

import (
	"context"
	"crypto/subtle"
	"errors"

	"github.com/usher-go/usher/internal/guard"
)

// FindByText returns the key with this text, whatever its owner and its state are, or
// [ErrNotFound]. It asks the store and no cache. A key that only a [Legacy] has is stored
// first, so that it can be revoked.
//
// With [Manager.Revoke] and an Actor{System: true} it ends a key that has leaked.
func (m *Manager) FindByText(ctx context.Context, text Secret) (Key, error) {
	r, err := m.findByText(ctx, text.Reveal())
	if err != nil {
		m.failed(ctx, "find", err)
		return Key{}, err
	}
	return r.Key, nil
}

func (m *Manager) findByText(ctx context.Context, text string) (Record, error) {
	if text == "" || len(text) > maxLength {
		return Record{}, ErrNotFound
	}
	r, err := m.lookup(ctx, text)
	if m.legacies == nil || !errors.Is(err, ErrNotFound) {
		return r, err
	}
	// The format of a Legacy may be the user's, and may panic.
	stored := false
	err = guard.Run(func() (err error) { stored, err = m.legacies.adopt(ctx, text); return err })
	switch {
	case err != nil:
		return Record{}, err
	case !stored:
		return Record{}, ErrNotFound
	}
	return m.lookup(ctx, text)
}

// lookup returns the key with this text from the store, under any of the peppers.
func (m *Manager) lookup(ctx context.Context, text string) (Record, error) {
	store := m.store
	if c, ok := store.(*Cache); ok {
		store = c.store
	}
	for i := range m.hasher.peppers {
		h := m.hasher.peppers[i].hash(text)
		r, err := store.Lookup(ctx, h)
		switch {
		case err == nil && subtle.ConstantTimeCompare(h[:], r.Hash[:]) == 1:
			return r, nil
		case err != nil && !errors.Is(err, ErrNotFound):
			return Record{}, err
		}
	}
	return Record{}, ErrNotFound
}
