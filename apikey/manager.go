package apikey

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/report"
)

// ManagerConfig configures a [Manager].
type ManagerConfig struct {
	// Store keeps the keys: a [Cache] in front of a database, or [NewMemory], which
	// loses them when the process ends. Required.
	Store Store
	// StoreTimeout bounds each call of the store, even if the store ignores its
	// context; zero means 3 seconds. A [Cache] has its own configuration, and a
	// [Memory] needs none.
	StoreTimeout time.Duration
	// Format is the format of new keys, with at least 128 bits of entropy.
	// Required.
	Format Format
	// Peppers are the keys of the hashes that the store keeps; the newest is used for
	// new keys.
	Peppers []Pepper
	// MaxActive is how many active keys an owner may have; zero means 100. Keys that
	// remain valid after a rotation have the same bound and are counted separately.
	MaxActive int
	// MinName and MaxName bound the length of a name in characters; zero means 1
	// and 80.
	MinName, MaxName int
	// MaxGrace bounds how long a key may remain valid after its rotation; zero means 7
	// days.
	MaxGrace time.Duration
	// MaxLifetime bounds how long a key is valid, counted from its creation. A new key
	// without ExpiresAt then gets the latest expiry that is allowed. Zero sets no
	// bound: a key may never expire, and if it does, by 9999-12-30.
	MaxLifetime time.Duration
	// Visible is how many of the first characters of a key are stored, so that they can
	// be displayed; zero means what the Format says. The last four are stored as well.
	// At least 112 bits must stay hidden.
	Visible int
	// MaxLevel is the highest level that a key may have; zero means
	// [usher.LevelFull].
	MaxLevel usher.Level

	// Change, if not nil, may complete or refuse a change of any actor before it is
	// checked and stored. k is the key as it is to be. old is the key as it is, or the
	// one that k replaces if their IDs differ, or nil for a key that is created or
	// imported. Change may set Name, Scopes, Level, Plan and ExpiresAt of k, and
	// Environment if old is nil. It is called again if the key is changed concurrently.
	Change func(ctx context.Context, by Actor, old, k *Key) error
	// Audit, if not nil, is called after each change and each failed attempt, on the
	// caller's goroutine.
	Audit func(ctx context.Context, e Event)
	// OnError, if not nil, is called with each failure of the store and of a callback,
	// also if the caller of a method gets it as its error. Nil logs to [slog.Default],
	// at most one line a second.
	OnError func(ctx context.Context, err error)
}

// A Manager issues keys and changes them. It is safe for concurrent use.
//
// Its methods return [ErrNotFound], [ErrLimit] and [ErrConflict] as they are; an
// [*usher.Error] with status 400 or 403 for a change that is invalid or not permitted;
// and any other error if the store, a callback or the source of randomness failed.
type Manager struct {
	source      Store // as configured
	store       Store // with bounded calls
	timeout     time.Duration
	format      Format
	hasher      *hasher
	maxActive   int
	minName     int
	maxName     int
	maxGrace    time.Duration
	maxLifetime time.Duration // 0 for any
	maxLevel    usher.Level
	visible     int
	change      func(ctx context.Context, by Actor, old, k *Key) error
	audit       func(context.Context, Event)
	report      *report.Reporter
	random      io.Reader
}

// NewManager returns a Manager, or all faults of c.
func NewManager(c ManagerConfig) (*Manager, error) {
	m := &Manager{
		source:      c.Store,
		timeout:     cmp.Or(c.StoreTimeout, storeTimeout),
		maxActive:   cmp.Or(c.MaxActive, 100),
		minName:     cmp.Or(c.MinName, 1),
		maxName:     cmp.Or(c.MaxName, 80),
		maxGrace:    cmp.Or(c.MaxGrace, 7*24*time.Hour),
		maxLifetime: c.MaxLifetime,
		maxLevel:    cmp.Or(c.MaxLevel, usher.LevelFull),
		visible:     c.Visible,
		change:      c.Change,
		audit:       c.Audit,
		report:      report.New("apikey", c.OnError),
		random:      rand.Reader,
	}
	faults := config.Of[usher.ConfigError]("apikey.ManagerConfig")
	faults.If(c.Store == nil, "Store", config.Required)
	faults.If(c.StoreTimeout < 0, "StoreTimeout", config.NotNegative)
	faults.If(c.Visible < 0, "Visible", config.NotNegative)
	var ok bool
	if m.format, ok = compileFormat(c.Format, faults, "Format"); ok {
		if bits := m.format.Entropy(); bits < minEntropy {
			faults.Add("Format", fmt.Sprintf("must generate at least %d bits of entropy, and generates %d", minEntropy, bits))
		} else if c.Visible > 0 && !m.hides(c.Visible) {
			faults.Add("Visible", "must be at most the length of a key, and leave 112 bits hidden")
		}
	}
	m.hasher = newHasher(c.Peppers, faults)
	faults.If(m.maxActive < 0, "MaxActive", config.NotNegative)
	faults.If(m.minName < 0, "MinName", config.NotNegative)
	faults.If(m.maxName < max(m.minName, 0), "MaxName", "must be at least MinName")
	faults.If(m.maxGrace < 0, "MaxGrace", config.NotNegative)
	faults.If(m.maxLifetime < 0, "MaxLifetime", config.NotNegative)
	faults.If(m.maxLevel > usher.LevelFull, "MaxLevel", "must be a level")
	if err := faults.Err(); err != nil {
		return nil, err
	}
	m.store = guarded(c.Store, m.timeout, maxCalls)
	return m, nil
}

// hides reports whether keys of which the first visible characters are stored have
// enough characters left to guess. It decides by a key that it generates and discards.
func (m *Manager) hides(visible int) bool {
	text, err := m.format.Generate(rand.Reader, "")
	if err != nil {
		return false
	}
	_, usual, _ := m.format.Parse(text)
	// Eight characters may be shown in any case: four of the usual ones and the last
	// four, each of at most six bits.
	extra := max(0, visible-usual) + 8
	return visible <= len(text) && m.format.Entropy()-6*extra >= 112
}

// A preview gets a key that a change is about to store, and its text if that is new.
// An error stops the change: a key that cannot be shown to its owner is not stored.
type preview func(k Key, secret Secret) error

func noPreview(Key, Secret) error { return nil }

// Create issues a key. It returns the key and its text, which is stored nowhere and
// cannot be retrieved later. It uses Owner, Name, Scopes, Level, Plan, Environment and
// ExpiresAt of template.
//
// An empty Owner means that of the actor, an empty Plan the actor's, and an empty
// Environment the usual one of the format. No scopes and [usher.LevelNone] grant
// nothing. The actor must hold what the key grants; see [Actor].
func (m *Manager) Create(ctx context.Context, by Actor, template Key) (Key, Secret, error) {
	return m.createWith(ctx, by, template, noPreview)
}

func (m *Manager) createWith(ctx context.Context, by Actor, template Key, see preview) (Key, Secret, error) {
	r, secret, err := m.create(ctx, by, template, see)
	if err != nil {
		m.note(ctx, "create", by, Key{Owner: r.Owner}, err)
		return Key{}, Secret{}, err
	}
	m.note(ctx, "create", by, r.Key, nil)
	return r.Key, secret, nil
}

// Import adds a key that was issued elsewhere, by the hash of its text: its SHA-256
// after a zero byte, or what [Manager.Hash] returns. It uses what [Manager.Create] uses
// of template, and Prefix and LastFour. The [Authenticator] needs a [Format] that
// accepts the key.
func (m *Manager) Import(ctx context.Context, by Actor, template Key, h Hash) (Key, error) {
	r, a, err := m.prepare(ctx, by, template)
	if err == nil && !slices.ContainsFunc(m.hasher.peppers, func(p pepper) bool { return p.version == h[0] }) {
		err = fmt.Errorf("apikey: import of a hash with pepper version %d, which is not configured", h[0])
	}
	if err == nil {
		r.Hash, r.Prefix, r.LastFour = h, template.Prefix, template.LastFour
		err = a.mayGrant(&r.Key, true)
	}
	if err == nil {
		err = m.store.Insert(ctx, r, m.maxActive)
	}
	if err != nil {
		m.note(ctx, "import", by, Key{Owner: r.Owner}, err)
		return Key{}, err
	}
	m.note(ctx, "import", by, r.Key, nil)
	return r.Key, nil
}

// Hash returns the hash under which a key with this text is found, computed with the
// newest pepper.
func (m *Manager) Hash(text Secret) (Hash, error) {
	if n := len(text.Reveal()); n == 0 || n > maxLength {
		return Hash{}, fmt.Errorf("apikey: a key must have 1 to %d bytes, and this one has %d", maxLength, n)
	}
	return m.hasher.newest(text.Reveal()), nil
}

// Find returns a key of owner.
func (m *Manager) Find(ctx context.Context, owner, id string) (Key, error) {
	r, err := m.find(ctx, owner, id)
	if err != nil {
		m.failed(ctx, "find", err)
		return Key{}, err
	}
	return r.Key, nil
}

func (m *Manager) find(ctx context.Context, owner, id string) (Record, error) {
	if !isID(id) {
		return Record{}, ErrNotFound
	}
	return m.store.Find(ctx, owner, id)
}

// List returns up to limit keys of owner, the newest first, without the first offset
// ones, and how many there are in all, revoked and expired keys included.
func (m *Manager) List(ctx context.Context, owner string, offset, limit int) (keys []Key, total int, err error) {
	keys, total, err = m.store.List(ctx, owner, max(offset, 0), max(limit, 0))
	m.failed(ctx, "list", err)
	return keys, total, err
}

// Update lets change set Name, Scopes, Level, Plan and ExpiresAt of an active key;
// anything else that it sets is ignored. If the key is changed concurrently, change is
// called again with the key as it then is.
//
// The actor must hold what the key grants before the change and, unless the change
// only narrows that, after it.
func (m *Manager) Update(ctx context.Context, by Actor, owner, id string, change func(*Key)) (Key, error) {
	return m.updateWith(ctx, by, owner, id, change, noPreview)
}

// Rotate issues a key in place of an active one, with the same settings and prefix.
// The old key remains valid for another grace, or until its own expiry if that is
// sooner; it cannot be rotated again. The new key expires when the old one would have,
// or sooner if [ManagerConfig.MaxLifetime] requires that. The actor must hold what the
// key grants, as it gets the text of a key that grants as much.
func (m *Manager) Rotate(ctx context.Context, by Actor, owner, id string, grace time.Duration) (Key, Secret, error) {
	return m.rotateWith(ctx, by, owner, id, grace, noPreview)
}

// Revoke ends a key immediately and permanently, and returns it. Revoking a revoked
// key changes nothing. The actor must hold what the key grants.
func (m *Manager) Revoke(ctx context.Context, by Actor, owner, id string) (Key, error) {
	r, err := m.revoke(ctx, by, owner, id)
	m.note(ctx, "revoke", by, Key{ID: id, Owner: owner}, err)
	if err != nil {
		return Key{}, err
	}
	return r.Key, nil
}

// note passes the outcome of a change to Audit, and a failure to OnError.
func (m *Manager) note(ctx context.Context, action string, by Actor, k Key, err error) {
	m.failed(ctx, action, err)
	if m.audit == nil {
		return
	}
	e := Event{
		Time: time.Now(), Action: action, Verdict: Accepted,
		KeyID: k.ID, Owner: k.Owner, Actor: by, Err: err,
	}
	if err != nil {
		e.Verdict = Denied
	}
	m.failed(ctx, action, callback("ManagerConfig.Audit", func() error { m.audit(ctx, e); return nil }))
}

// failed passes err to OnError if it is a failure of the server: neither a result of
// the store, nor a response to the client, nor due to a client that has left.
func (m *Manager) failed(ctx context.Context, action string, err error) {
	if err == nil || isResult(err) || isClientError(err) || left(ctx) && errors.Is(err, context.Cause(ctx)) {
		return
	}
	m.report.Error(ctx, fmt.Errorf("apikey: %s: %w", action, err))
}
