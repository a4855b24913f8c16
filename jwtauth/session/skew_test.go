package session_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
)

// An offStore is the shared store as a node sees it whose clock is ahead by some time:
// what is now for the node is later for the others.
type offStore struct {
	session.Store
	ahead time.Duration
}

func (o offStore) Insert(ctx context.Context, r session.Record, limit int) ([]session.Session, error) {
	r.Session = moved(r.Session, o.ahead)
	ended, err := o.Store.Insert(ctx, r, limit)
	return o.read(ended), err
}

func (o offStore) Lookup(ctx context.Context, handle [sha256.Size]byte) (session.Record, error) {
	r, err := o.Store.Lookup(ctx, handle)
	r.Session = moved(r.Session, -o.ahead)
	return r, err
}

func (o offStore) List(ctx context.Context, subject string, now time.Time) ([]session.Session, error) {
	list, err := o.Store.List(ctx, subject, now.Add(o.ahead))
	return o.read(list), err
}

func (o offStore) Update(ctx context.Context, r session.Record) error {
	r.Session = moved(r.Session, o.ahead)
	return o.Store.Update(ctx, r)
}

func (o offStore) Revoke(ctx context.Context, subject, id string, at time.Time) (session.Session, error) {
	s, err := o.Store.Revoke(ctx, subject, id, at.Add(o.ahead))
	return moved(s, -o.ahead), err
}

func (o offStore) RevokeSubject(ctx context.Context, subject string, at time.Time) ([]session.Session, error) {
	ended, err := o.Store.RevokeSubject(ctx, subject, at.Add(o.ahead))
	return o.read(ended), err
}

func (o offStore) read(list []session.Session) []session.Session {
	for n := range list {
		list[n] = moved(list[n], -o.ahead)
	}
	return list
}

// moved returns s with all times moved.
func moved(s session.Session, by time.Duration) session.Session {
	for _, t := range []*time.Time{&s.CreatedAt, &s.RefreshedAt, &s.ExpiresAt, &s.EndsAt, &s.RevokedAt} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
	return s
}

// An offRevoker is the shared list of revocations as such a node sees it.
type offRevoker struct {
	jwtauth.Revoker
	ahead time.Duration
}

func (o offRevoker) Revoked(ctx context.Context, t *jwtauth.Token) (bool, error) {
	return o.Revoker.Revoked(ctx, &jwtauth.Token{
		Issuer: t.Issuer, Subject: t.Subject, ID: t.ID, SessionID: t.SessionID, IssuedAt: t.IssuedAt.Add(o.ahead),
	})
}

func (o offRevoker) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	return o.Revoker.RevokeSession(ctx, issuer, id, until.Add(o.ahead))
}

func (o offRevoker) RevokeSubject(ctx context.Context, issuer, subject string, before, until time.Time) error {
	return o.Revoker.RevokeSubject(ctx, issuer, subject, before.Add(o.ahead), until.Add(o.ahead))
}

// nodes returns two nodes that share store and list. The clock of the second one is ahead
// of the first. The verifiers see the tokens of the node as all others do.
func nodes(t *testing.T, store session.Store, list jwtauth.Revoker, ahead time.Duration) (managers [2]*session.Manager, verifiers [2]*jwtauth.Verifier) {
	t.Helper()
	for n, off := range []time.Duration{0, ahead} {
		revoker := offRevoker{list, off}
		managers[n] = newManager(t, func(c *session.Config) { c.Store, c.Revocations = offStore{store, off}, revoker })
		verifiers[n] = sessions(t, managers[n], revoker)
	}
	return managers, verifiers
}

func TestLogoutAllIsExactAlthoughClocksDiffer(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Microsecond, time.Second, 3 * time.Second, -3 * time.Second, 5 * time.Minute, -5 * time.Minute} {
		for _, from := range []int{0, 1} {
			for _, age := range []time.Duration{0, 400 * time.Millisecond, 10 * time.Minute} {
				t.Run(fmt.Sprintf("%v ahead, by node %d, after %v", ahead, from, age), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						time.Sleep(300 * time.Millisecond) // the iat of tokens has whole seconds
						managers, verifiers := nodes(t, newMemory(t, 0), new(jwtauth.RevocationList), ahead)
						var opened [2]session.Tokens
						for n, m := range managers {
							opened[n] = login(t, m)
							opened[n] = mustRefresh(t, m, opened[n].RefreshToken())
						}
						time.Sleep(age)
						ended := must(managers[from].LogoutAll(t.Context(), "ann"))
						if len(ended) != 2 {
							t.Errorf("%d sessions have ended", len(ended))
						}
						for n, m := range managers {
							want(t, verifiers[n], opened[n].AccessToken(), jwtauth.Revoked)
							wantInvalid(t, m, opened[n].RefreshToken())
						}
						for n, m := range managers {
							began := time.Now()
							again := login(t, m)
							if waited := time.Since(began); waited != 0 {
								t.Errorf("node %d: the next login took %v", n, waited)
							}
							want(t, verifiers[n], again.AccessToken(), jwtauth.Accepted)
							mustRefresh(t, m, again.RefreshToken())
						}
					})
				})
			}
		}
	}
}

// A LogoutAll that has failed at some call is repeated, by the access token that has sent
// it. Nothing stays open then, whatever the clocks say.
func TestALogoutAllThatHasFailedIsCompletedByItsRepetition(t *testing.T) {
	failed := 0
	for at := 1; at == failed+1; at++ {
		synctest.Test(t, func(t *testing.T) {
			var count atomic.Int64
			fails := func(_ context.Context, method string) error {
				if method == "SetDelivered" {
					return nil // no part of a logout; a verifier causes it on a goroutine of its own
				}
				// Two calls in a row, as that of RevokeSubject is repeated at once.
				if n := count.Add(1) - int64(at); n == 0 || n == 1 {
					return errDown
				}
				return nil
			}
			store, list := &hooked{Store: newMemory(t, 0)}, &failing{Revoker: new(jwtauth.RevocationList)}
			managers, verifiers := nodes(t, store, list, 3*time.Second)
			here, ahead := managers[0], managers[1]
			own, other, theirs := login(t, here), login(t, here), login(t, ahead)
			handler := newHandler(t, here, nil)
			logoutAll := func() int {
				h := usher.Authenticate(verifiers[0]).Wrap(http.HandlerFunc(handler.LogoutAll))
				return post(t, h.ServeHTTP, "", "Authorization: Bearer "+own.AccessToken()).Code
			}
			store.before, list.before = fails, fails
			got := logoutAll()
			synctest.Wait() // for the delivery
			if got == 503 {
				failed++
			} else if count.Load() >= int64(at) {
				t.Errorf("call %d has failed: %d, want 503", at, got)
			}
			store.before, list.before = nil, nil
			time.Sleep(3 * time.Second) // until the failure is forgotten
			if got := logoutAll(); failed == at && got != 200 && got != 204 {
				t.Errorf("the repetition after a failure of call %d: %d", at, got)
			}
			for n, tokens := range []session.Tokens{own, other, theirs} {
				want(t, verifiers[n/2], tokens.AccessToken(), jwtauth.Revoked)
				wantInvalid(t, here, tokens.RefreshToken())
			}
		})
	}
	if failed != 6 {
		t.Errorf("%d calls have failed, want List, RevokeSession of two, RevokeSubject of both lists, and RevokeSession of its own", failed)
	}
}

// A failing Revoker fails before the calls that change something.
type failing struct {
	jwtauth.Revoker
	before func(context.Context, string) error
}

func (f *failing) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	if f.before != nil {
		if err := f.before(ctx, "RevokeSession"); err != nil {
			return err
		}
	}
	return f.Revoker.RevokeSession(ctx, issuer, id, until)
}

func (f *failing) RevokeSubject(ctx context.Context, issuer, subject string, before, until time.Time) error {
	if f.before != nil {
		if err := f.before(ctx, "RevokeSubject"); err != nil {
			return err
		}
	}
	return f.Revoker.RevokeSubject(ctx, issuer, subject, before, until)
}
