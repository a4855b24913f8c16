package apikey

import (
	"context"
	"errors"
	"time"
)

// A Store keeps keys. [NewMemory] is one for a single process and for tests;
// apikeytest.TestStore says whether another is right.
//
// Each method is one atomic operation: it happens wholly or not at all, and for
// two at once it is as if one came first. A method obeys the end of ctx, keeps
// nothing of its arguments, and returns values that share nothing with what is
// stored. An error that is none of this package's means that the store could
// not answer; the change may then have been made or not.
//
// An owner sees only its own keys: a key of another is [ErrNotFound], exactly as
// one that does not exist. Times come in UTC and whole microseconds and are
// returned as the same instant; the present is always an argument. A key is
// active at a time if RevokedAt is zero, and ExpiresAt is zero or after it.
type Store interface {
	// Insert adds r. If limit is above 0 and the owner already has limit or more
	// keys that are active at r.CreatedAt and not replaced, it adds nothing and
	// returns ErrLimit. This must hold for many at once, so lock the owner and not
	// the rows: two calls that each see one free place must not both take it. If
	// r.ID or r.Hash is taken, revoked keys included, it returns ErrConflict.
	Insert(ctx context.Context, r Record, limit int) error

	// Lookup returns the key with this hash, whatever its state, or ErrNotFound.
	Lookup(ctx context.Context, h Hash) (Record, error)

	// Find returns the owner's key with this ID, whatever its state, or
	// ErrNotFound.
	Find(ctx context.Context, owner, id string) (Record, error)

	// List returns up to limit of the owner's keys, whatever their state, the
	// newest first by CreatedAt and then the greater ID first, without the first
	// offset ones; and how many there are in all. Neither argument is negative.
	// An owner without keys has an empty list.
	List(ctx context.Context, owner string, offset, limit int) (keys []Key, total int, err error)

	// Update replaces Name, Scopes, Level, Plan, ExpiresAt and UpdatedAt of the
	// key with r.Owner and r.ID, and nothing else, and adds one to its Revision.
	// R is what Find returned but for these, so r.Hash is the key's. If the
	// Revision of the key is not r.Revision, Update changes nothing and returns
	// ErrConflict; without such a key, ErrNotFound.
	Update(ctx context.Context, r Record) error

	// Rotate updates old as Update does, also sets its ReplacedBy, and adds next,
	// all or nothing. If limit is above 0 and the owner already has limit or more
	// keys that are active at next.CreatedAt and replaced, it changes nothing and
	// returns ErrLimit. If next.ID or next.Hash is taken, ErrConflict.
	Rotate(ctx context.Context, old, next Record, limit int) error

	// Revoke sets RevokedAt and UpdatedAt to at, adds one to Revision, and returns
	// the key as it then is. A key that is revoked already stays as it is and is
	// returned; that is no error. Without such a key, ErrNotFound.
	Revoke(ctx context.Context, owner, id string, at time.Time) (Record, error)

	// Touch sets LastUsedAt of the keys with these IDs. It never moves one back,
	// changes no revoked key, and passes over IDs that do not exist. It does not
	// change Revision or UpdatedAt.
	Touch(ctx context.Context, uses map[string]time.Time) error
}

// A Notifier is a [Store] that tells every node which keys have changed, so that
// a [Cache] on another node refuses a revoked key at once and not when its entry
// ends.
type Notifier interface {
	Store
	// Watch calls ready once it is sure to see every later change, and then
	// changed with the hash of each key that Insert, Update, Rotate or Revoke has
	// changed on any node. It returns when ctx ends, or as soon as it may have
	// missed a change: a caller must then forget all it knows and call Watch
	// again. It makes no two calls at a time and none after it has returned.
	Watch(ctx context.Context, ready func(), changed func(Hash)) error
}

var (
	// ErrNotFound says that there is no such key, or that it is another owner's.
	ErrNotFound = errors.New("apikey: no such key")
	// ErrLimit says that the owner has as many keys as it may have.
	ErrLimit = errors.New("apikey: too many keys")
	// ErrConflict says that the key is not in a state that permits the change: it
	// is revoked, expired or replaced, or somebody else has just changed it.
	ErrConflict = errors.New("apikey: the key does not permit this change")
)
