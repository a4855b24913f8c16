package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// A Session begins with a login and ends with a logout. It is a family of refresh tokens,
// of which exactly one is valid at any time, and of access tokens.
type Session struct {
	// ID is the claim sid of the session's access tokens. It grants nothing, so it is not
	// a secret.
	ID string
	// Subject is the user: the claim sub.
	Subject string
	// Scopes are granted to the session's access tokens.
	Scopes []string
	// Data is for the application, which gets it back at a refresh: the name of a device,
	// for instance. Stores keep it unencrypted. It must be valid UTF-8 without NUL.
	Data map[string]string
	// CreatedAt is the time of the login. RefreshedAt is the time of the last rotation,
	// or CreatedAt before the first.
	CreatedAt, RefreshedAt time.Time
	// ExpiresAt is when the session ends unless it is refreshed, and EndsAt when it ends
	// in any case. ExpiresAt is never after EndsAt.
	ExpiresAt, EndsAt time.Time
	// RevokedAt is when the session was ended, or zero.
	RevokedAt time.Time
}

// A Record is a session as a [Store] keeps it. Nobody can refresh the session with a copy
// of it: it has only hashes of tokens, and the last response is encrypted under the token
// that was exchanged for it, which is stored nowhere.
type Record struct {
	Session
	// Handle is the SHA-256 of the part that all refresh tokens of the session share. It
	// identifies the session of any such token.
	Handle [sha256.Size]byte
	// Current is the SHA-256 of the valid refresh token.
	Current [sha256.Size]byte
	// Previous is the SHA-256 of the token that was exchanged last; zero before the
	// first rotation.
	Previous [sha256.Size]byte
	// Delivered is set once the response with the current token was sent to the client,
	// as far as a server can know.
	Delivered bool
	// Response is the response that the previous token was exchanged for, encrypted;
	// empty before the first rotation. It is a little longer than an access token.
	Response []byte
	// Revision counts the changes, from 1.
	Revision int64
}

// A Store keeps sessions. [NewMemory] makes one for a single process and for tests;
// sessiontest.TestStore checks any other.
//
// Each method is one atomic operation: it takes effect completely or not at all, and
// concurrent calls take effect one after the other. Each may be repeated after a crash or
// a lost response: at worst Insert and Update then return [ErrConflict], and have taken
// effect. A method returns when ctx ends, keeps none of its arguments, and returns values
// that share nothing with what is stored. An error that is not one of this package's
// means that the store has failed; a change may then have been made or not. The same is
// true of a call that panics, or that takes longer than [Config.Timeout] and is
// abandoned.
//
// Times are in UTC and whole microseconds, and the same instant is returned; the present
// time is always an argument. A store may remove a session that is revoked or past its
// ExpiresAt, and no other.
type Store interface {
	// Insert adds r, whose Revision is 1. If r.ID or r.Handle is taken it adds
	// nothing and returns ErrConflict.
	Insert(ctx context.Context, r Record) error

	// Lookup returns the session with this handle, whatever its state, or
	// ErrNotFound.
	Lookup(ctx context.Context, handle [sha256.Size]byte) (Record, error)

	// Update replaces RefreshedAt, ExpiresAt, Current, Previous, Delivered and Response
	// of the session with r.ID, and nothing else, and adds one to its Revision. If the
	// session's Revision is not r.Revision, or it is revoked, or there is no such
	// session, Update changes nothing and returns ErrConflict. Of two updates of one
	// revision, one succeeds: a session never has two valid tokens.
	Update(ctx context.Context, r Record) error

	// Revoke sets RevokedAt of the session with this ID to at, and nothing else. A
	// session that is already revoked keeps its RevokedAt. Revoking it again is not an
	// error, and neither is revoking a session that does not exist.
	Revoke(ctx context.Context, id string, at time.Time) error

	// RevokeSubject does the same for every session of the subject. A session that
	// is inserted later is not affected.
	RevokeSubject(ctx context.Context, subject string, at time.Time) error
}

var (
	// ErrNotFound means that there is no session with this handle.
	ErrNotFound = errors.New("session: no such session")
	// ErrConflict means that the session is revoked, or was changed or inserted
	// concurrently.
	ErrConflict = errors.New("session: the session does not permit this change")
)
