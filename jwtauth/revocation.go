package jwtauth

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/internal/queue"
)

// Revocations knows tokens that are not to be accepted although they are good.
// A [Verifier] asks about each request, also for tokens that it remembers. An
// implementation must be safe for concurrent use.
type Revocations interface {
	// Revoked reports whether t was revoked: by its issuer and ID, by its issuer
	// and session, or because it was issued before a time for its subject. Tokens
	// are not told apart by their text or a hash of it, as one token may have
	// several. An error is a 503, and so is a call that panics or takes too long.
	Revoked(ctx context.Context, t *Token) (bool, error)
}

// A Revoker is [Revocations] that can be added to, which is what an [Issuer] does
// when a session ends. Each method may be repeated, and is done when it returns
// nil; an error is a 503, and so is a call that panics or takes too long, which may
// still be done.
type Revoker interface {
	Revocations
	// RevokeSession revokes all tokens of the session with this ID (sid). The
	// revocation may be forgotten after until.
	RevokeSession(ctx context.Context, issuer, id string, until time.Time) error
	// RevokeSubject revokes all tokens of a subject that were issued before a time,
	// and those that do not say when they were.
	RevokeSubject(ctx context.Context, issuer, subject string, before, until time.Time) error
}

// ErrRevocationsFull is what a [RevocationList] answers when it cannot take
// another revocation without giving up one that still matters.
var ErrRevocationsFull = errors.New("jwtauth: the list of revocations is full")

// A RevocationList is [Revocations] in memory, for a single process. Its zero
// value is ready for use. It must not be copied, and is safe for concurrent use.
//
// A revocation stays until the time that its caller says, and is never pushed
// out before: when the list is full, the next one fails with
// [ErrRevocationsFull]. Say when the last token that it may concern ends, which
// is its exp and the leeway of the verifier; for access tokens of 15 minutes the
// list holds a quarter of an hour of logouts and no more.
type RevocationList struct {
	// Capacity is how many revocations are held at most; zero means 1,000,000, of
	// which each takes about 300 bytes. Set it before the first use.
	Capacity int

	mu    sync.RWMutex
	known map[revoked]*revocation
	ends  queue.Queue[*revocation] // the one that ends first in front
	size  atomic.Int64
}

var _ Revoker = (*RevocationList)(nil)

// revoked is what a revocation names.
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
	before time.Time // of a subject: what was issued earlier is revoked
	until  time.Time
	index  int
}

// RevokeToken revokes the token with this ID (jti). No error but
// ErrRevocationsFull is returned.
func (l *RevocationList) RevokeToken(_ context.Context, issuer, id string, until time.Time) error {
	return l.add(revocation{revoked: revoked{byToken, issuer, id}, until: until})
}

// RevokeSession implements [Revoker].
func (l *RevocationList) RevokeSession(_ context.Context, issuer, id string, until time.Time) error {
	return l.add(revocation{revoked: revoked{bySession, issuer, id}, until: until})
}

// RevokeSubject implements [Revoker]. Tokens tell the time of their issue
// by the second, so one that was issued within the second of before is revoked
// too.
func (l *RevocationList) RevokeSubject(_ context.Context, issuer, subject string, before, until time.Time) error {
	return l.add(revocation{revoked: revoked{bySubject, issuer, subject}, before: before, until: until})
}

func (l *RevocationList) add(r revocation) error {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	// Those that have ended go two at a time, so that they are removed faster than
	// others come, and no call holds the lock for as long as it takes to remove all.
	for range 2 {
		if len(l.ends) > 0 && now.After(l.ends[0].until) {
			old := heap.Pop(&l.ends).(*revocation)
			delete(l.known, old.revoked)
		}
	}
	defer func() { l.size.Store(int64(len(l.known))) }()
	if old, ok := l.known[r.revoked]; ok {
		// A revocation only ever grows.
		if r.before.After(old.before) {
			old.before = r.before
		}
		if r.until.After(old.until) {
			old.until = r.until
			heap.Fix(&l.ends, old.index)
		}
		return nil
	}
	if len(l.known) >= orDefault(l.Capacity, 1_000_000) {
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

// Len returns the number of revocations that are held. Those whose time has come
// leave two at a time when another one is added.
func (l *RevocationList) Len() int { return int(l.size.Load()) }

// Before and Moved implement [queue.Item].
func (r *revocation) Before(other *revocation) bool { return r.until.Before(other.until) }

func (r *revocation) Moved(index int) { r.index = index }
