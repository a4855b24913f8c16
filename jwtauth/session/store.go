package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// A Session begins with a login and ends with a logout. It is a family of refresh tokens,
// of which exactly one is valid at any time, and of access tokens.
//
// All text is valid UTF-8 without NUL, and is compared byte by byte: two subjects that
// differ in case, in blanks or in their Unicode normalization are two subjects.
type Session struct {
	// ID is the claim sid of the session's access tokens: 1 to 64 ASCII letters, digits,
	// underscores and hyphens. It grants nothing, so it is not a secret.
	ID string
	// Subject is the user: the claim sub. It has 1 to 255 bytes.
	Subject string
	// Client is the application that the session is bound to: the claim client_id of its
	// access tokens. Only that client can refresh the session. It has at most 255 bytes.
	// Empty means no client, and no claim.
	Client string
	// Scopes are granted to the session's access tokens: at most 100 of 1 to 255 bytes
	// each, in this order.
	Scopes []string
	// Data is for the application, for instance the name of a device. The application gets
	// it back at a refresh and in a list of sessions. Stores keep it unencrypted. It has at
	// most 32 entries, with names of up to 64 bytes and values of up to 1,024 bytes.
	Data map[string]string
	// CreatedAt is the time of the login. RefreshedAt is the time of the last rotation,
	// or CreatedAt before the first.
	CreatedAt, RefreshedAt time.Time
	// ExpiresAt is when the session ends unless it is refreshed. EndsAt is when it ends in
	// any case. ExpiresAt is never after EndsAt.
	ExpiresAt, EndsAt time.Time
	// RevokedAt is when the session was ended, or zero. A session is live at a time if
	// RevokedAt is zero and ExpiresAt is later than that time.
	RevokedAt time.Time
}

// A Record is a session as a [Store] keeps it. Nobody can refresh the session with a copy
// of its Record, which has only hashes of tokens. The last response is encrypted under the
// token that was exchanged for it, and no store keeps that token.
type Record struct {
	Session
	// Handle is the SHA-256 of the part that all refresh tokens of the session share. It
	// identifies the session of each such token.
	Handle [sha256.Size]byte
	// Current is the SHA-256 of the valid refresh token.
	Current [sha256.Size]byte
	// Previous is the SHA-256 of the token that was exchanged last; zero before the
	// first rotation.
	Previous [sha256.Size]byte
	// TokenID identifies the access token of the last response: its jti, of 1 to 64 ASCII
	// letters, digits, underscores and hyphens.
	TokenID string
	// Delivered is set once that access token has been used: the last response has then
	// reached a client. Login and rotation leave it false.
	Delivered bool
	// Response is the response that the previous token was exchanged for, encrypted;
	// empty before the first rotation. It has at most 32 KiB.
	Response []byte
	// Revision counts the updates, from 1. It is below 2^53.
	Revision int64
}

// A Store keeps sessions. [NewMemory] returns a Store for a single process and for tests;
// sessiontest.TestStore checks any other, and sessiontest.TestShared checks one that
// several processes share.
//
// Each method is one atomic operation: it takes effect completely or not at all, and
// concurrent calls take effect one after the other. Each call may be repeated after a crash
// or a lost response: Insert and Update may then return [ErrConflict] although they have
// taken effect, while Revoke and RevokeSubject return the same result again. A method
// returns when ctx ends, keeps none of its arguments, and returns values that share no
// memory with the stored data.
//
// An error that is not one of this package's means that the store has failed. A change may
// then have been made or not, unless the error matches [usher.ErrCorrupt] or
// [usher.ErrFull], which mean that it has not. The same is true of a call that panics, or
// that takes longer than [Config.Timeout] and is abandoned. Stored data that cannot be read
// is ErrCorrupt: it is never ErrNotFound, and never left out of a result.
//
// Times are in UTC and whole microseconds, and the store returns the same instant; the
// present time is always an argument. A store keeps a session until its ExpiresAt, or for
// an hour after its RevokedAt if that is sooner, so that a call can be repeated and the use
// of an old token can be explained. After that it may remove the session, as if it had never
// existed. Its own clock may decide that, with some minutes added for clocks that differ.
//
// A store can rely on the bounds of [Session] and [Record]: a [Manager] passes on no subject,
// ID or other text beyond them, whatever a client has sent.
type Store interface {
	// Insert adds r, whose Revision is 1 and whose RevokedAt is zero. It leaves the subject
	// with at most limit sessions that are live at r.CreatedAt, r included. If there are
	// more, it ends those other than r that List returns last: it sets their RevokedAt to
	// r.CreatedAt, and returns them as they then are, in any order. It never ends r itself,
	// even if List returns r last. This must hold for concurrent calls too, so lock the
	// subject, not the rows: two calls that see the same free place must not both take it.
	// limit is from 1 to 1,000. If r.ID or r.Handle is taken, Insert changes nothing and
	// returns ErrConflict.
	Insert(ctx context.Context, r Record, limit int) (ended []Session, err error)

	// Lookup returns the session with this handle, whatever its state, or
	// ErrNotFound.
	Lookup(ctx context.Context, handle [sha256.Size]byte) (Record, error)

	// List returns the subject's sessions that are live at now, by the latest RefreshedAt
	// first and then by the greater ID first. For a subject without live sessions, it
	// returns an empty list.
	List(ctx context.Context, subject string, now time.Time) ([]Session, error)

	// Update replaces RefreshedAt, ExpiresAt, Current, Previous, TokenID, Delivered and
	// Response of the session with r.ID, and nothing else, and adds one to its Revision. If
	// the session's Revision is not r.Revision, if the session is revoked, or if there is no
	// such session, Update changes nothing and returns ErrConflict. Of two updates of one
	// revision, one succeeds: a session never has two valid tokens.
	Update(ctx context.Context, r Record) error

	// SetDelivered sets Delivered of the session with this ID, and nothing else, and adds one
	// to its Revision, so that it cannot happen unseen between a Lookup and an Update. If
	// Delivered is set already, if the session's TokenID is another one, if the session is
	// revoked, or if there is no such session, SetDelivered changes nothing and returns nil.
	// It is called for the first use of each access token, most often by requests that wait
	// for nothing else in the store, so let it not wait for other sessions.
	SetDelivered(ctx context.Context, sessionID, tokenID string) error

	// Revoke sets RevokedAt of the subject's session with this ID to at, and nothing
	// else, and returns the session as it then is. A session that is already revoked
	// keeps its RevokedAt. If there is no such session, or if it is of another subject,
	// Revoke changes nothing and returns ErrNotFound.
	Revoke(ctx context.Context, subject, id string, at time.Time) (Session, error)

	// RevokeSubject does the same for every session of the subject. It returns the sessions
	// that were live until then, in any order: those whose RevokedAt is at and whose
	// ExpiresAt is later. A session that is inserted later is not affected.
	RevokeSubject(ctx context.Context, subject string, at time.Time) (ended []Session, err error)

	// Close releases the resources of the store, and ends running calls. Later calls return
	// [usher.ErrClosed]; a second Close returns nil.
	Close() error
}

var (
	// ErrNotFound means that there is no such session, or that it is another subject's.
	// To [usher.Fail] it is an unknown error, and so a 500: handlers of your own look for it.
	ErrNotFound = errors.New("session: no such session")
	// ErrConflict means that the session is revoked, or was changed or inserted
	// concurrently.
	ErrConflict = errors.New("session: the session does not permit this change")
)
