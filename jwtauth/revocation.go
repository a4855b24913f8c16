package jwtauth

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher/internal/guard"
)

// Revocations reports tokens that must be refused although they are valid. A [Verifier]
// consults it for each request, even if the Verifier remembers the token. An implementation
// must be safe for concurrent use.
type Revocations interface {
	// Revoked reports whether t was revoked: by its issuer and ID, by its issuer and
	// session, or because it was issued to its subject before some time. Do not identify a
	// token by its text or a hash of its text: one token may have several texts. The ID,
	// session and subject of a token may be text that no database can keep. Such text was
	// never revoked, and must not cause an error. An error leads to a 503, and so does a
	// call that panics or takes too long.
	Revoked(ctx context.Context, t *Token) (bool, error)
}

// A Revoker is a [Revocations] to which revocations can be added; package session does so
// when a session ends. Every call may be repeated, and has taken effect once it returns
// nil. An error leads to a 503, and so does a call that panics or takes too long. Such a
// call may or may not have taken effect, unless the error matches [usher.ErrFull], which
// means that it has not.
//
// A revocation never ends before its time until, even if a later call passes an earlier
// time. Issuers, IDs and subjects are valid UTF-8 without NUL, of 1 to 1,024 bytes, and are
// compared byte by byte. To revoke any other issuer, ID or subject is an error.
type Revoker interface {
	Revocations
	// RevokeToken revokes the token with this ID (jti). The list may remove the revocation
	// after the time until.
	RevokeToken(ctx context.Context, issuer, id string, until time.Time) error
	// RevokeSession revokes all tokens of the session with this ID (sid).
	RevokeSession(ctx context.Context, issuer, id string, until time.Time) error
	// RevokeSubject revokes all tokens of a subject whose iat is earlier than
	// issuedBefore, and those without iat.
	RevokeSubject(ctx context.Context, issuer, subject string, issuedBefore, until time.Time) error
}

// A RevocationSource is a [Revoker] with a list that several processes share. Each of them
// can follow the list, as a [RevocationMirror] does.
type RevocationSource interface {
	Revoker
	// Follow calls changed for each revocation after a position, in the order of the
	// positions, and then for each one that is added or extended, until ctx ends. The
	// position "" is before all revocations that are not past their Until. Any other
	// position is the [Revocation.Position] of a revocation that this list has passed to
	// changed, even in another call or another process. So a call of Follow with the last
	// position that an earlier call has passed continues without a gap. Follow may leave
	// out a revocation that is past its Until or was extended since.
	//
	// Follow calls ready once, as soon as it has passed every revocation that the list had
	// when Follow was called. It makes no two calls of ready and changed concurrently, and
	// none after it has returned. Follow returns nil once ctx has ended. It returns an
	// error that matches [ErrPosition] if the list cannot continue from the position. It
	// returns any other error as soon as it may have missed a revocation; if it can no
	// longer reach the list, that is within a second of the last response.
	Follow(ctx context.Context, after string, ready func(), changed func(Revocation)) error
}

// A Revocation is an entry of a [RevocationSource].
type Revocation struct {
	// Position is the place of this revocation in the list. It changes when the revocation
	// is extended. Only the source can interpret it.
	Position string
	// Kind is what is revoked.
	Kind RevocationKind
	// Issuer is the iss of the revoked tokens, and Value is their jti, sid or sub.
	Issuer, Value string
	// IssuedBefore is zero unless Kind is [RevokedSubject]. Then the tokens with an earlier
	// iat are revoked, and so are those without iat. A source may round IssuedBefore and
	// Until up to the next microsecond.
	IssuedBefore time.Time
	// Until is when all revoked tokens have expired.
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
// removed later revocations, or the position belongs to another list. The caller must then
// follow the source from the position "".
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
func guardRevocations(r Revocations, timeout time.Duration, meters metric.MeterProvider) Revocations {
	switch r.(type) {
	case nil, *RevocationList, *RevocationMirror:
		return r
	}
	if timeout <= 0 {
		timeout = defaultRevocationTimeout
	}
	return guardedRevocations{r, guard.New(timeout, maxRevocationCalls).Measured(meters, guard.Revocations)}
}

func (g guardedRevocations) Revoked(ctx context.Context, t *Token) (bool, error) {
	return guard.Call(ctx, g.guard, "revoked", func(ctx context.Context) (bool, error) { return g.revocations.Revoked(ctx, t) }, nil)
}
