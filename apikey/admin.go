package apikey

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/usher-go/usher"
)

// An Admin is a [Store] that also finds and ends keys of all owners, for operators. A
// [Memory] is one. A [Cache] is one if its store is; otherwise these methods return an
// error that matches [errors.ErrUnsupported]. apikeytest.TestStore tests them too.
type Admin interface {
	Store
	// Select returns up to q.Limit keys that match q.Filter and come after q.Cursor in the
	// order of q. next is the place of the last of them, or the zero Cursor if no more keys
	// match.
	Select(ctx context.Context, q Query) (keys []Key, next Cursor, err error)
	// RevokeAll revokes up to limit of the keys that match f and are not revoked, as
	// Store.Revoke does, and returns them as they then are. more reports whether other keys
	// match. If f is empty and f.All is not set, RevokeAll revokes nothing and returns an
	// error.
	RevokeAll(ctx context.Context, f Filter, at time.Time, limit int) (revoked []Record, more bool, err error)
	// Purge removes up to limit of the keys that ended before this time: those whose
	// RevokedAt or ExpiresAt is set and earlier. It returns how many it has removed; fewer
	// than limit means that none is left. After that, all methods act as if a removed key
	// had never existed: its hash is unknown, its ID and its hash may be used again, and
	// the ReplacedBy, Parent, Line or DerivedFrom of other keys may name it. before must not
	// be later than the present.
	Purge(ctx context.Context, before time.Time, limit int) (n int, err error)
}

// MaxLimit bounds the number of keys that one call of an [Admin] returns, revokes or
// removes. It is at least 1.
const MaxLimit = 1000

var errNoAdmin = fmt.Errorf("apikey: the store is not an Admin: %w", errors.ErrUnsupported)

// A Filter selects keys. A key matches if it meets all conditions that are set. The zero
// Filter has no condition.
type Filter struct {
	// Owner, CreatedBy, Parent and Environment must equal those of the key, byte by byte.
	Owner, CreatedBy, Parent, Environment string
	// Line selects the key with this ID and all keys with this Line: those of one line of
	// rotations. DerivedFrom selects the keys that were derived from the one with this ID.
	Line, DerivedFrom string
	// Plan must equal the plan in effect: the key's PlanOverride, or else its Plan.
	Plan string
	// Prefix is text with which the key's Prefix must begin.
	Prefix string
	// Status is the key's status at Now.
	Status Status
	// ExpiresBefore selects keys that have an ExpiresAt before this time: with
	// StatusActive, those that expire soon.
	ExpiresBefore time.Time
	// UnusedSince selects keys that were last used before this time, or were never used
	// and were created before it.
	UnusedSince time.Time
	// Metadata are entries that the key's Metadata must have.
	Metadata map[string]string
	// Now is the present time; a [Manager] sets it if it is zero. It is not a condition.
	Now time.Time
	// All confirms that RevokeAll without any condition is meant to end every key. It is
	// not a condition.
	All bool
}

// Matches reports whether k meets all conditions.
func (f *Filter) Matches(k *Key) bool {
	switch {
	case f.Owner != "" && k.Owner != f.Owner,
		f.CreatedBy != "" && k.CreatedBy != f.CreatedBy,
		f.Parent != "" && k.Parent != f.Parent,
		f.Environment != "" && k.Environment != f.Environment,
		f.Line != "" && cmp.Or(k.Line, k.ID) != f.Line,
		f.DerivedFrom != "" && k.DerivedFrom != f.DerivedFrom,
		f.Plan != "" && k.plan() != f.Plan,
		!strings.HasPrefix(k.Prefix, f.Prefix),
		f.Status != AnyStatus && k.Status(f.Now) != f.Status,
		!f.ExpiresBefore.IsZero() && !(!k.ExpiresAt.IsZero() && k.ExpiresAt.Before(f.ExpiresBefore)),
		!f.UnusedSince.IsZero() && !k.lastSeen().Before(f.UnusedSince):
		return false
	}
	for name, value := range f.Metadata {
		if v, ok := k.Metadata[name]; !ok || v != value {
			return false
		}
	}
	return true
}

// Empty reports whether f has no condition, so that every key matches.
func (f *Filter) Empty() bool {
	return f.Owner == "" && f.CreatedBy == "" && f.Parent == "" && f.Environment == "" && f.Line == "" &&
		f.DerivedFrom == "" && f.Plan == "" && f.Prefix == "" && f.Status == AnyStatus && f.ExpiresBefore.IsZero() && f.UnusedSince.IsZero() && len(f.Metadata) == 0
}

// everything returns an error if f would match every key and All is not set.
func (f *Filter) everything() error {
	if f.Empty() && !f.All {
		return usher.Invalid(usher.Field{Name: "all", Message: "'all' must be set, as a filter without conditions matches every key."})
	}
	return nil
}

// lastSeen returns when the key was last used, or when it was created if it never was.
func (k *Key) lastSeen() time.Time {
	if k.LastUsedAt.IsZero() {
		return k.CreatedAt
	}
	return k.LastUsedAt
}

// A Status is the state of a key at some time.
type Status uint8

// The statuses. The status of a key is the first that applies of revoked, expired, disabled
// and active. A replaced key is active until it expires.
const (
	AnyStatus Status = iota // for a Filter
	StatusActive
	StatusDisabled
	StatusExpired
	StatusRevoked
	statuses
)

var statusNames = [statuses]string{"any", "active", "disabled", "expired", "revoked"}

// String returns the name of the status: any, active, disabled, expired or revoked.
func (s Status) String() string {
	if s < statuses {
		return statusNames[s]
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// Status returns the status of the key at now.
func (k *Key) Status(now time.Time) Status {
	switch {
	case !k.RevokedAt.IsZero():
		return StatusRevoked
	case k.expired(now):
		return StatusExpired
	case !k.DisabledAt.IsZero():
		return StatusDisabled
	}
	return StatusActive
}

// A Query asks an [Admin] for a page of keys.
type Query struct {
	Filter
	// Sort is the order, with the earliest time first; Descending reverses it.
	Sort       Sort
	Descending bool
	// Cursor is the cursor that Select has returned with the previous page; zero means the
	// first page. Sort and Descending must be the same as for that page.
	//
	// Keys that are added or removed between two calls move no other key to another page. A
	// key whose place in the order changes between them, because it is used or its expiry
	// changes, may be on two pages or on none.
	Cursor Cursor
	// Limit is the maximum number of keys on the page, from 1 to [MaxLimit]; for a
	// [Manager], zero means 100.
	Limit int
}

// A Sort is the time by which keys are ordered. Of keys with the same time, the one with
// the lesser ID is first, byte by byte.
type Sort uint8

// The orders.
const (
	SortCreated  Sort = iota // by CreatedAt
	SortExpires              // by ExpiresAt; keys that never expire are last
	SortLastUsed             // by LastUsedAt; keys that were never used are first
	sorts
)

// A Cursor is the place of a key in the order of a [Query]. It stays valid when that key is
// removed. The zero value is the place before all keys.
//
// As text, a Cursor is opaque, so that it can be part of a URL.
type Cursor struct {
	// Time is the time of the key by which the query sorts. It may be zero.
	Time time.Time
	// ID is the ID of the key.
	ID string
}

// IsZero reports whether c is the zero Cursor.
func (c Cursor) IsZero() bool { return c.ID == "" }

// MarshalText returns the text of c, which is empty for the zero Cursor.
func (c Cursor) MarshalText() ([]byte, error) {
	if c.IsZero() {
		return []byte{}, nil
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(c.Time.UnixMicro())) //nolint:gosec // read back as it is
	return base64.RawURLEncoding.AppendEncode(nil, append(b, c.ID...)), nil
}

// UnmarshalText sets c to the Cursor with this text, which may come from a client.
func (c *Cursor) UnmarshalText(text []byte) error {
	*c = Cursor{}
	if len(text) == 0 {
		return nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) <= 8 {
		return errCursor
	}
	got := Cursor{time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC(), string(b[8:])} //nolint:gosec // as it was written
	if !got.valid() {
		return errCursor
	}
	*c = got
	return nil
}

var errCursor = errors.New("apikey: the text is not a cursor")

// valid reports whether c may be the place of a key.
func (c *Cursor) valid() bool {
	return isID(c.ID) && !c.Time.Before(time.Time{}) && !c.Time.After(latest)
}
