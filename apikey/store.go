package apikey

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// A Store keeps keys. [NewMemory] returns a Store for a single process and for tests;
// apikeytest.TestStore tests any other, and apikeytest.TestShared tests one that several
// processes share. A store that can also find and remove keys across owners is an [Admin],
// and one that reports changes is a [Notifier].
//
// Each method is one atomic operation: it takes effect completely or not at all, and
// concurrent calls take effect one after the other. A method returns when ctx ends, keeps
// none of its arguments, and returns values that share no memory with the stored data. An
// error that is not one of this package's means that the store has failed, and matches one
// of the root package, such as [usher.ErrUnavailable]. Unless the documentation of that
// error says that nothing has changed, a change may have been made or not. Stored data that
// cannot be read is [usher.ErrCorrupt]: it is never ErrNotFound, and never left out of a
// result or a count.
//
// If several of this package's errors apply, the first of ErrNotFound, ErrConflict, ErrLimit
// and ErrFull is returned. So a change whose response was lost can be repeated: Insert,
// Update and Rotate then return ErrConflict if they have taken effect, even at a limit.
//
// A store returns every value exactly as it was stored, within the bounds of [Key]. Text is
// compared byte by byte, in UTF-8: owners, IDs and hashes that differ in case, in blanks or
// in their Unicode normalization are different. An empty list or map is equivalent to none.
//
// An owner sees only its own keys: for a key of another owner the result is [ErrNotFound],
// as for one that does not exist. Times are in UTC and whole microseconds, and the store
// returns the same instant; the present time is always an argument. A key has ended at a
// time if RevokedAt is set, or if ExpiresAt is set and not later. A key that has expired,
// is disabled or is replaced is found, listed, changed and revoked like any other.
type Store interface {
	// Insert adds r with all its fields, so that it can restore a backup. If r.Owner is at
	// one of the limits at r.CreatedAt, Insert adds nothing and returns ErrLimit or ErrFull.
	// If r.ID or r.Hash is in use, even by a key that has ended, it returns ErrConflict.
	Insert(ctx context.Context, r Record, limits Limits) error

	// Lookup returns the key with this hash, whatever its state, or ErrNotFound. All
	// bytes of the hash count.
	Lookup(ctx context.Context, h Hash) (Record, error)

	// Find returns the owner's key with this ID, whatever its state, or
	// ErrNotFound.
	Find(ctx context.Context, owner, id string) (Record, error)

	// List orders the owner's keys, whatever their state, by the latest CreatedAt first and
	// then by the greater ID first. It skips the first offset keys, returns up to limit of
	// the rest, and returns the total number of the owner's keys. offset and limit are
	// never negative. For an owner without keys, it returns an empty list.
	List(ctx context.Context, owner string, offset, limit int) (keys []Key, total int, err error)

	// Update replaces the settings of the key with r.Owner and r.ID: Name, Description,
	// Metadata, Scopes, Level, Plan, PlanOverride, AllowedNetworks, DisabledAt, DisabledBy
	// and ExpiresAt. An empty value also replaces the old one. Update also replaces
	// UpdatedAt, adds one to Revision, and changes nothing else. The rest of r is what Find
	// returned, so r.Hash is the key's. If the Revision of the key is not r.Revision, Update
	// changes nothing and returns ErrConflict. If there is no such key, it returns
	// ErrNotFound.
	Update(ctx context.Context, r Record) error

	// Rotate updates old as Update does, sets its ReplacedBy, and adds next with all its
	// fields, in one step. If old.Owner is at one of the limits at next.CreatedAt, before
	// old is replaced, Rotate changes nothing and returns ErrLimit or ErrFull. If next.ID or
	// next.Hash is in use, it changes nothing and returns ErrConflict. The owners of old and
	// next are the same.
	Rotate(ctx context.Context, old, next Record, limits Limits) error

	// Revoke sets RevokedAt and UpdatedAt to at, adds one to Revision, and returns the
	// key as it then is. A key that is revoked already is returned unchanged, without an
	// error. If there is no such key, Revoke returns ErrNotFound.
	Revoke(ctx context.Context, owner, id string, at time.Time) (Record, error)

	// Touch records uses of the keys with these IDs. If a use is later than LastUsedAt, it
	// sets LastUsedAt and LastUsedFrom together; otherwise it sets neither, so that both
	// always describe one use. It changes no revoked key, and ignores IDs that do not
	// exist. It does not change Revision or UpdatedAt. There are at most 1,000 uses.
	Touch(ctx context.Context, uses map[string]Use) error

	// Close releases the resources of the store. Running calls end, and later calls return
	// an error that matches [usher.ErrClosed]. A second Close returns nil. Only the code
	// that opened a store closes it: a [Manager], an [Authenticator] and a [Cache] never
	// do.
	Close() error
}

// Limits bound the keys of one owner. A zero limit is no limit. An owner is at a limit if it
// has as many keys of that kind, or more, before the change; a [Store] then refuses the
// change with the error of that limit, and checks every limit that is set.
//
// The limits hold for concurrent calls too, so a store locks the owner, not the rows: two
// calls that see the same free place must not both take it.
type Limits struct {
	// Active bounds the keys that have not ended, are not replaced, and are not derived:
	// [ErrLimit].
	Active int
	// Replaced bounds the keys that have not ended, are replaced, and are not derived:
	// [ErrLimit].
	Replaced int
	// Working bounds the keys that Active and Replaced count, taken together: [ErrLimit].
	Working int
	// Derived bounds the keys that have not ended and have a DerivedFrom: [ErrLimit].
	Derived int
	// Total bounds all keys that are stored, also those that have ended: [ErrFull].
	Total int
}

// A Use is one use of a key.
type Use struct {
	// At is when the key was used.
	At time.Time
	// From is the address of the client, as in [Key]; the zero Addr if it is unknown. An
	// unknown address replaces that of an earlier use.
	From netip.Addr
}

// A Notifier is a [Store] that notifies every node of changed keys, so that a [Cache] on
// another node refuses a revoked key at once, and not only when its TTL ends.
type Notifier interface {
	Store
	// Watch calls ready once it is certain to see every later change. It then calls changed
	// with the hash of each key that Insert, Update, Rotate or Revoke, or RevokeAll or
	// Purge of an [Admin], has changed on any node. Touch is no change, and a store does not
	// notify anybody of it.
	//
	// Watch returns an error, never nil: when ctx ends, when the store is closed, which is
	// [usher.ErrClosed], or as soon as it may have missed a change: if changed is slower
	// than the changes, or if its connection to the server is silent. It must notice a
	// silent connection within one second, which takes a heartbeat. Its caller must then
	// discard its cache and call Watch again. Watch makes no two of these calls
	// concurrently, and none after it has returned. Any number of Watches may run.
	Watch(ctx context.Context, ready func(), changed func(Hash)) error
}

var (
	// ErrNotFound is returned if there is no such key, or if it is another owner's.
	ErrNotFound = errors.New("apikey: no such key")
	// ErrLimit is returned if the owner has as many keys as it may have of those that have
	// not ended: one of them must be revoked, or end, before there can be another.
	ErrLimit = errors.New("apikey: too many keys")
	// ErrFull is returned if the owner has as many keys as may be stored, ended ones
	// included: keys that have ended must be purged before there can be another.
	ErrFull = errors.New("apikey: too many stored keys")
	// ErrConflict is returned if the state of the key does not permit the change: it is
	// revoked, expired or replaced, or it was changed concurrently.
	ErrConflict = errors.New("apikey: the key does not permit this change")
)
