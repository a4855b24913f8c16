package jwtauth

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
)

// maxStoreCalls bounds how many calls of one store run at a time, those that hang
// included.
const maxStoreCalls = 64

// defaultRevocationTimeout is above what a healthy store takes, also far away, and
// below what a client waits.
const defaultRevocationTimeout = time.Second

// guardedRevocations bounds the calls of Revocations that wait for another process.
type guardedRevocations struct {
	revocations Revocations
	guard       *guard.Guard
}

// guardRevocations returns r with bounded calls. A [RevocationList] waits for
// nothing and stays as it is.
func guardRevocations(r Revocations, timeout time.Duration) Revocations {
	if _, local := r.(*RevocationList); r == nil || local {
		return r
	}
	return guardedRevocations{r, guard.New(timeout, maxStoreCalls)}
}

func (g guardedRevocations) Revoked(ctx context.Context, t *Token) (bool, error) {
	return guard.Call(ctx, g.guard, func(ctx context.Context) (bool, error) { return g.revocations.Revoked(ctx, t) }, nil)
}

// guardedRevoker bounds the calls of a Revoker.
type guardedRevoker struct {
	guardedRevocations
	revoker Revoker
}

func guardRevoker(r Revoker, timeout time.Duration) Revoker {
	if _, local := r.(*RevocationList); r == nil || local {
		return r
	}
	full := func(err error) bool { return errors.Is(err, ErrRevocationsFull) }
	return guardedRevoker{guardedRevocations{r, guard.New(timeout, maxStoreCalls).Results(full)}, r}
}

func (g guardedRevoker) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	return g.guard.Do(ctx, func(ctx context.Context) error { return g.revoker.RevokeSession(ctx, issuer, id, until) })
}

func (g guardedRevoker) RevokeSubject(ctx context.Context, issuer, subject string, before, until time.Time) error {
	return g.guard.Do(ctx, func(ctx context.Context) error {
		return g.revoker.RevokeSubject(ctx, issuer, subject, before, until)
	})
}

// guardedStore bounds the calls of a RefreshStore. A call that is given up may still
// run, so it has a record of its own.
type guardedStore struct {
	store RefreshStore
	guard *guard.Guard
}

// guardStore returns s with bounded calls. A [MemoryRefreshStore] waits for nothing
// and stays as it is.
func guardStore(s RefreshStore, timeout time.Duration) RefreshStore {
	if _, local := s.(*MemoryRefreshStore); s == nil || local {
		return s
	}
	return guardedStore{s, guard.New(timeout, maxStoreCalls).Results(func(err error) bool {
		return errors.Is(err, ErrSessionNotFound) || errors.Is(err, ErrSessionConflict)
	})}
}

func (g guardedStore) Insert(ctx context.Context, r RefreshRecord) error {
	r = r.clone()
	return g.guard.Do(ctx, func(ctx context.Context) error { return g.store.Insert(ctx, r) })
}

func (g guardedStore) Lookup(ctx context.Context, handle [sha256.Size]byte) (RefreshRecord, error) {
	return guard.Call(ctx, g.guard, func(ctx context.Context) (RefreshRecord, error) { return g.store.Lookup(ctx, handle) }, nil)
}

func (g guardedStore) Update(ctx context.Context, r RefreshRecord) error {
	r = r.clone()
	return g.guard.Do(ctx, func(ctx context.Context) error { return g.store.Update(ctx, r) })
}

func (g guardedStore) Revoke(ctx context.Context, id string, at time.Time) error {
	return g.guard.Do(ctx, func(ctx context.Context) error { return g.store.Revoke(ctx, id, at) })
}

func (g guardedStore) RevokeSubject(ctx context.Context, subject string, at time.Time) error {
	return g.guard.Do(ctx, func(ctx context.Context) error { return g.store.RevokeSubject(ctx, subject, at) })
}

// guardClaims returns a claims callback with bounded calls. It mostly asks a
// database.
func guardClaims(claims claimsFunc, timeout time.Duration) claimsFunc {
	if claims == nil {
		return nil
	}
	g := guard.New(timeout, maxStoreCalls).Results(func(err error) bool {
		_, refused := errors.AsType[*usher.Error](err)
		return refused
	})
	return func(ctx context.Context, s Session) (map[string]any, error) {
		s = s.clone()
		return guard.Call(ctx, g, func(ctx context.Context) (map[string]any, error) { return claims(ctx, s) }, nil)
	}
}

type claimsFunc = func(context.Context, Session) (map[string]any, error)

// tell calls a callback for errors, if there is one. Nobody can be told that it has
// panicked.
func tell(onError func(error), err error) {
	if onError == nil || err == nil {
		return
	}
	_ = guard.Run(func() error { onError(err); return nil })
}
