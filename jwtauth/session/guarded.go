package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/jwtauth"
)

// maxStoreCalls bounds how many calls of one kind run at a time, including those that
// hang.
const maxStoreCalls = 64

// guardedRevoker bounds the calls of a Revoker.
type guardedRevoker struct {
	revoker jwtauth.Revoker
	guard   *guard.Guard
}

func guardRevoker(r jwtauth.Revoker, timeout time.Duration, meters metric.MeterProvider) jwtauth.Revoker {
	if _, local := r.(*jwtauth.RevocationList); r == nil || local {
		return r
	}
	return guardedRevoker{r, guard.New(timeout, maxStoreCalls).Measured(meters, guard.Revocations)}
}

func (g guardedRevoker) Revoked(ctx context.Context, t *jwtauth.Token) (bool, error) {
	return guard.Call(ctx, g.guard, "revoked", func(ctx context.Context) (bool, error) { return g.revoker.Revoked(ctx, t) }, nil)
}

func (g guardedRevoker) RevokeToken(ctx context.Context, issuer, id string, until time.Time) error {
	return g.guard.Do(ctx, "revoke_token", func(ctx context.Context) error { return g.revoker.RevokeToken(ctx, issuer, id, until) })
}

func (g guardedRevoker) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	return g.guard.Do(ctx, "revoke_session", func(ctx context.Context) error { return g.revoker.RevokeSession(ctx, issuer, id, until) })
}

func (g guardedRevoker) RevokeSubject(ctx context.Context, issuer, subject string, issuedBefore, until time.Time) error {
	return g.guard.Do(ctx, "revoke_subject", func(ctx context.Context) error {
		return g.revoker.RevokeSubject(ctx, issuer, subject, issuedBefore, until)
	})
}

// guardedStore bounds the calls of a Store. An abandoned call may continue, so each call
// has its own copy of the record. Lookups, which any client can cause, never take the
// places of changes, and their success is no evidence that changes succeed. Deliveries,
// for which nobody waits, take neither's places.
type guardedStore struct {
	store      Store
	lookups    *guard.Guard
	changes    *guard.Guard
	deliveries *guard.Guard
}

// guardStore returns s with bounded calls. A [Memory] never waits and is returned as it
// is.
func guardStore(s Store, timeout time.Duration, meters metric.MeterProvider) Store {
	if _, local := s.(*Memory); local {
		return s
	}
	isResult := func(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) }
	return guardedStore{
		store:      s,
		lookups:    guard.New(timeout, maxStoreCalls).Results(isResult).Measured(meters, guard.Sessions),
		changes:    guard.New(timeout, maxStoreCalls).Results(isResult).Measured(meters, guard.Sessions),
		deliveries: guard.New(timeout, maxStoreCalls).Measured(meters, guard.Sessions),
	}
}

func (g guardedStore) Insert(ctx context.Context, r Record, limit int) ([]Session, error) {
	r = r.clone()
	ended, err := guard.Call(ctx, g.changes, "insert",
		func(ctx context.Context) ([]Session, error) { return g.store.Insert(ctx, r, limit) },
		func(_ []Session, err error) { g.discard(ctx, &r, err) })
	if err != nil && !errors.Is(err, guard.ErrTimeout) {
		go g.discard(ctx, &r, err)
	}
	return ended, err
}

// discard ends a session that the store may have although Insert has failed, or has
// returned too late. Nobody has its tokens, and it must not take the place of another
// session of the subject. If it cannot be ended now, it expires.
func (g guardedStore) discard(ctx context.Context, r *Record, failure error) {
	for _, noEffect := range []error{ErrConflict, usher.ErrCorrupt, usher.ErrFull, usher.ErrClosed, guard.ErrOpen, guard.ErrBusy} {
		if errors.Is(failure, noEffect) {
			return
		}
	}
	_, _ = g.Revoke(context.WithoutCancel(ctx), r.Subject, r.ID, timeNow())
}

func (g guardedStore) Lookup(ctx context.Context, handle [sha256.Size]byte) (Record, error) {
	return guard.Call(ctx, g.lookups, "lookup", func(ctx context.Context) (Record, error) { return g.store.Lookup(ctx, handle) }, nil)
}

func (g guardedStore) List(ctx context.Context, subject string, now time.Time) ([]Session, error) {
	return guard.Call(ctx, g.lookups, "list", func(ctx context.Context) ([]Session, error) { return g.store.List(ctx, subject, now) }, nil)
}

func (g guardedStore) Update(ctx context.Context, r Record) error {
	r = r.clone()
	return g.changes.Do(ctx, "update", func(ctx context.Context) error { return g.store.Update(ctx, r) })
}

func (g guardedStore) SetDelivered(ctx context.Context, sessionID, tokenID string) error {
	return g.deliveries.Do(ctx, "set_delivered", func(ctx context.Context) error { return g.store.SetDelivered(ctx, sessionID, tokenID) })
}

func (g guardedStore) Revoke(ctx context.Context, subject, id string, at time.Time) (Session, error) {
	return guard.Call(ctx, g.changes, "revoke", func(ctx context.Context) (Session, error) { return g.store.Revoke(ctx, subject, id, at) }, nil)
}

func (g guardedStore) RevokeSubject(ctx context.Context, subject string, at time.Time) ([]Session, error) {
	return guard.Call(ctx, g.changes, "revoke_subject", func(ctx context.Context) ([]Session, error) { return g.store.RevokeSubject(ctx, subject, at) }, nil)
}

func (g guardedStore) Close() error { return g.store.Close() }

// guardClaims returns claims with bounded calls. The callback usually queries a database.
func guardClaims(claims claimsFunc, timeout time.Duration) claimsFunc {
	if claims == nil {
		return nil
	}
	// A callback that returns in time works, even if it returns an error: it may fail for
	// one subject alone, who must not make the logins of others fail.
	slow := []error{guard.ErrTimeout, guard.ErrBusy, context.DeadlineExceeded, context.Canceled}
	g := guard.New(timeout, maxStoreCalls).Results(func(err error) bool {
		return !slices.ContainsFunc(slow, func(s error) bool { return errors.Is(err, s) })
	})
	return func(ctx context.Context, s Session) (map[string]any, error) {
		s = s.clone()
		return guard.Call(ctx, g, "", func(ctx context.Context) (map[string]any, error) { return claims(ctx, s) }, nil)
	}
}

type claimsFunc = func(context.Context, Session) (map[string]any, error)
