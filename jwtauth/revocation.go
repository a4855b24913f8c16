package jwtauth

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/queue"
)

// Revocations reports tokens that must be refused although they are valid. A [Verifier]
// consults it for each request, even if it remembers the token. An implementation must be
// safe for concurrent use.
type Revocations interface {
	// Revoked reports whether t was revoked: by its issuer and ID, by its issuer and
	// session, or because it was issued to its subject before some time. Do not identify
	// a token by its text or a hash of that: one token may have several texts. An error
	// leads to a 503, and so does a call that panics or takes too long.
	Revoked(ctx context.Context, t *Token) (bool, error)
}

// A Revoker is a [Revocations] that can be extended; package session does so when a
// session ends. A call of any method may be repeated, and has taken effect once it
// returns nil. An error leads to a 503, and so does a call that panics or takes too long;
// such a call may have taken effect or not.
type Revoker interface {
	Revocations
	// RevokeSession revokes all tokens of the session with this ID (sid). The revocation
	// may be removed after the time until.
	RevokeSession(ctx context.Context, issuer, id string, until time.Time) error
	// RevokeSubject revokes all tokens of a subject whose iat is earlier than the
	// argument before, and those without iat.
	RevokeSubject(ctx context.Context, issuer, subject string, before, until time.Time) error
}

// ErrRevocationsFull is returned by a [RevocationList] that could make room for another
// revocation only by removing one that still matters.
var ErrRevocationsFull = errors.New("jwtauth: the list of revocations is full")

// A RevocationList is a [Revoker] in memory, for a single process. Its zero value is
// ready for use. It must not be copied, and is safe for concurrent use.
//
// A revocation stays until the time that its caller passes as until, and is never removed
// earlier: when the list is full, adding fails with [ErrRevocationsFull]. Set until to
// the latest exp of the affected tokens plus the Leeway of the verifier. If access tokens
// are valid for 15 minutes, the list has the logouts of the last quarter of an hour.
type RevocationList struct {
	// Capacity is the maximum number of revocations, of about 300 bytes each; zero
	// means 1,000,000. Set it before the first use.
	Capacity int

	mu    sync.RWMutex
	known map[revoked]*revocation
	ends  queue.Queue[*revocation] // the first to end comes first
	size  atomic.Int64
}

var _ Revoker = (*RevocationList)(nil)

// A revoked identifies what a revocation applies to.
type revoked struct {
	by     revokedBy
	issuer string
	value  string
}

type revokedBy uint8

const (
	byToken revokedBy = iota
	bySession
	bySubject
)

type revocation struct {
	revoked
	before time.Time // for a subject: tokens issued earlier are revoked
	until  time.Time
	index  int
}

// RevokeToken revokes the token with this ID (jti). The only error is
// ErrRevocationsFull.
func (l *RevocationList) RevokeToken(_ context.Context, issuer, id string, until time.Time) error {
	return l.add(revocation{revoked: revoked{byToken, issuer, id}, until: until})
}

// RevokeSession implements [Revoker].
func (l *RevocationList) RevokeSession(_ context.Context, issuer, id string, until time.Time) error {
	return l.add(revocation{revoked: revoked{bySession, issuer, id}, until: until})
}

// RevokeSubject implements [Revoker]. The iat of a token has whole seconds, so a
// token issued within the second of before is revoked too.
func (l *RevocationList) RevokeSubject(_ context.Context, issuer, subject string, before, until time.Time) error {
	return l.add(revocation{revoked: revoked{bySubject, issuer, subject}, before: before, until: until})
}

func (l *RevocationList) add(r revocation) error {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	// At most two expired revocations are removed at a time: that is faster than others
	// are added, and no call has the lock while it removes many.
	for range 2 {
		if len(l.ends) > 0 && now.After(l.ends[0].until) {
			old := heap.Pop(&l.ends).(*revocation)
			delete(l.known, old.revoked)
		}
	}
	defer func() { l.size.Store(int64(len(l.known))) }()
	if old, ok := l.known[r.revoked]; ok {
		// A revocation is only ever extended.
		if r.before.After(old.before) {
			old.before = r.before
		}
		if r.until.After(old.until) {
			old.until = r.until
			heap.Fix(&l.ends, old.index)
		}
		return nil
	}
	if len(l.known) >= cmp.Or(l.Capacity, 1_000_000) {
		return ErrRevocationsFull
	}
	if l.known == nil {
		l.known = make(map[revoked]*revocation)
	}
	l.known[r.revoked] = &r
	heap.Push(&l.ends, &r)
	return nil
}

// Revoked implements [Revocations]. It returns no error.
func (l *RevocationList) Revoked(_ context.Context, t *Token) (bool, error) {
	if l.size.Load() == 0 {
		return false, nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if t.ID != "" && l.known[revoked{byToken, t.Issuer, t.ID}] != nil {
		return true, nil
	}
	if t.SessionID != "" && l.known[revoked{bySession, t.Issuer, t.SessionID}] != nil {
		return true, nil
	}
	if r := l.known[revoked{bySubject, t.Issuer, t.Subject}]; r != nil {
		return t.IssuedAt.Before(r.before), nil
	}
	return false, nil
}

// Len returns the number of revocations, including expired ones, of which two are
// removed whenever another one is added.
func (l *RevocationList) Len() int { return int(l.size.Load()) }

// Before and Moved implement [queue.Item].
func (r *revocation) Before(other *revocation) bool { return r.until.Before(other.until) }

func (r *revocation) Moved(index int) { r.index = index }

// defaultRevocationTimeout is longer than a healthy store needs, even a distant one, and
// shorter than a client waits.
const defaultRevocationTimeout = time.Second

// maxRevocationCalls bounds how many calls of Revocations run at a time, including
// those that hang.
const maxRevocationCalls = 64

// guardedRevocations bounds the calls of Revocations that wait for another process.
type guardedRevocations struct {
	revocations Revocations
	guard       *guard.Guard
}

// guardRevocations returns r with bounded calls. A [RevocationList] never waits and is
// returned as it is.
func guardRevocations(r Revocations, timeout time.Duration) Revocations {
	if _, local := r.(*RevocationList); r == nil || local {
		return r
	}
	if timeout <= 0 {
		timeout = defaultRevocationTimeout
	}
	return guardedRevocations{r, guard.New(timeout, maxRevocationCalls)}
}

func (g guardedRevocations) Revoked(ctx context.Context, t *Token) (bool, error) {
	return guard.Call(ctx, g.guard, func(ctx context.Context) (bool, error) { return g.revocations.Revoked(ctx, t) }, nil)
}
