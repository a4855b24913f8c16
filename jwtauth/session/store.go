package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// A Session is what a login opens and a logout ends: a family of refresh tokens,
// of which exactly one is good at any time, and the access tokens that came with
// them.
type Session struct {
	// ID is the claim sid of the session's access tokens. It is no secret: it
	// opens nothing.
	ID string
	// Subject is who logged in, the claim sub.
	Subject string
	// Scopes are granted to the session's access tokens.
	Scopes []string
	// Data is the application's: what it wants to find again at a refresh, the
	// name of a device for instance. Stores keep it in clear.
	Data map[string]string
	// CreatedAt is the time of the login, and RefreshedAt that of the last
	// rotation, or CreatedAt before the first.
	CreatedAt, RefreshedAt time.Time
	// ExpiresAt is when the session ends unless it is refreshed, and EndsAt when
	// it ends in any case. ExpiresAt is never after EndsAt.
	ExpiresAt, EndsAt time.Time
	// RevokedAt is when the session was ended, or zero.
	RevokedAt time.Time
}

// A Record is a session as a [Store] keeps it. Nothing in it lets
// its reader refresh the session: tokens are there as hashes, and the last answer
// is sealed under the token that was exchanged for it, which is nowhere.
type Record struct {
	Session
	// Handle is the SHA-256 of the part that all tokens of the session share, and
	// how the session is found by any of them.
	Handle [sha256.Size]byte
	// Current is the SHA-256 of the one good token.
	Current [sha256.Size]byte
	// Previous is the SHA-256 of the token that was last exchanged; zero before the
	// first rotation.
	Previous [sha256.Size]byte
	// Delivered is set once the answer with the current token was handed to the
	// client, as far as a server can tell.
	Delivered bool
	// Answer is what Previous was exchanged for, sealed; empty before the first
	// rotation. It is a little longer than an access token.
	Answer []byte
	// Revision counts the changes, from 1.
	Revision int64
}

// A Store keeps sessions. [NewMemory] is one for a single
// process and for tests; jwtauthtest.TestRefreshStore says whether another is
// right.
//
// Each method is one atomic operation: it happens wholly or not at all, and for
// two at once it is as if one came first. Each may be repeated after a crash or a
// lost answer: at worst Insert and Update then return [ErrConflict], and
// what was to be done is done. A method obeys the end of ctx, keeps nothing of its
// arguments, and returns values that share nothing with what is stored. An error
// that is none of this package's means that the store could not answer; the change
// may then have been made or not. The same holds for a call that panics, or that
// takes longer than [Config.Timeout] and is given up.
//
// Times come in UTC and whole microseconds and are returned as the same instant;
// the present is always an argument. A store may forget a session that is revoked
// or past its ExpiresAt, and forgets no other.
type Store interface {
	// Insert adds r, whose Revision is 1. If r.ID or r.Handle is taken it adds
	// nothing and returns ErrConflict.
	Insert(ctx context.Context, r Record) error

	// Lookup returns the session with this handle, whatever its state, or
	// ErrNotFound.
	Lookup(ctx context.Context, handle [sha256.Size]byte) (Record, error)

	// Update replaces RefreshedAt, ExpiresAt, Current, Previous, Delivered and
	// Answer of the session with r.ID, and nothing else, and adds one to its
	// Revision. If its Revision is not r.Revision, or it is revoked, or there is no
	// such session, it changes nothing and returns ErrConflict. Of two
	// updates of one revision one wins: a session never has two good tokens.
	Update(ctx context.Context, r Record) error

	// Revoke sets RevokedAt of the session with this ID to at, and nothing else.
	// A session that is revoked already keeps its time. That is no error, and
	// neither is a session that does not exist.
	Revoke(ctx context.Context, id string, at time.Time) error

	// RevokeSubject does the same for every session of the subject. A session that
	// is inserted later is not touched.
	RevokeSubject(ctx context.Context, subject string, at time.Time) error
}

var (
	// ErrNotFound says that there is no session with this handle.
	ErrNotFound = errors.New("session: no such session")
	// ErrConflict says that the session is revoked, or that somebody else has
	// just changed or made it.
	ErrConflict = errors.New("session: the session does not permit this change")
)
