package jwtauth

import (
	"context"
	"errors"
	"time"

	"github.com/usher-go/usher/internal/guard"
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
// such a call may have taken effect or not, unless the error matches [usher.ErrFull].
//
// A revocation never ends before the time until, whatever later calls say. Issuers, IDs
// and subjects are valid UTF-8 without NUL, of 1 to 1,024 bytes, and are compared byte by
// byte; any other is an error, and so is one that is empty.
type Revoker interface {
	Revocations
	// RevokeToken revokes the token with this ID (jti). The revocation may be removed
	// after the time until.
	RevokeToken(ctx context.Context, issuer, id string, until time.Time) error
	// RevokeSession revokes all tokens of the session with this ID (sid).
	RevokeSession(ctx context.Context, issuer, id string, until time.Time) error
	// RevokeSubject revokes all tokens of a subject whose iat is earlier than
	// issuedBefore, and those without iat.
	RevokeSubject(ctx context.Context, issuer, subject string, issuedBefore, until time.Time) error
}

// A RevocationSource is a [Revoker] whose list several processes share, each of which can
// follow it. A [RevocationMirror] does so.
type RevocationSource interface {
	Revoker
	// Follow calls changed for each revocation after a position, in the order of their
	// positions, and goes on with those that are added or extended until ctx ends. The
	// position "" is before all revocations that are not past their Until; any other is
	// the [Revocation.Position] of one that this list has passed to changed, be it in
	// another call or another process. So a call of Follow with the last position that
	// the previous call has passed on continues where that has ended, without a gap.
	// Follow may leave out a revocation that is past its Until or was extended since.
	//
	// Follow calls ready once, as soon as it has passed on everything that was there when
	// it was called. It makes no two calls of ready and changed concurrently, and none
	// after it has returned. It returns nil once ctx has ended, an error that matches
	// [ErrPosition] if the list cannot continue from the position, and any other error as
	// soon as it may have missed something: if it can no longer be reached, within a second
	// of its last response.
	Follow(ctx context.Context, after string, ready func(), changed func(Revocation)) error
}

// A Revocation is an entry of a [RevocationSource].
type Revocation struct {
	// Position is the place of this entry in the list. It changes when the revocation is
	// extended. Only the source can interpret it.
	Position string
	// Kind is what is revoked.
	Kind RevocationKind
	// Issuer is the iss, and Value the jti, sid or sub, of the tokens that are revoked.
	Issuer, Value string
	// IssuedBefore is zero unless Kind is [RevokedSubject]: then the tokens with an
	// earlier iat are revoked, and those without. A source may round it and Until up to
	// the next microsecond.
	IssuedBefore time.Time
	// Until is when all these tokens have expired.
	Until time.Time
}

// A RevocationKind is what a [Revocation] applies to.
type RevocationKind uint8

// The kinds of revocations.
const (
	RevokedToken   RevocationKind = iota // the token whose jti is the Value
	RevokedSession                       // all tokens whose sid is the Value
	RevokedSubject                       // the tokens whose sub is the Value and that were issued before a time
)

// ErrPosition means that a [RevocationSource] cannot continue from a position: it has
// removed later revocations, or the position is of another list. Follow it from "" then.
var ErrPosition = errors.New("jwtauth: the revocations cannot be followed from this position")

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

// guardRevocations returns r with bounded calls. A [RevocationList] or
// [RevocationMirror], which does not wait for another process, is returned as it is.
func guardRevocations(r Revocations, timeout time.Duration) Revocations {
	switch r.(type) {
	case nil, *RevocationList, *RevocationMirror:
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
