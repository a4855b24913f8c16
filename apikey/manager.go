package apikey

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/report"
)

// ManagerConfig configures a [Manager].
type ManagerConfig struct {
	// Store keeps the keys: a database wrapped in a [Cache], or a [Memory], which loses
	// the keys when the process ends. Required.
	Store Store
	// StoreTimeout bounds each call of the store, even if the store ignores its
	// context; zero means 3 seconds. MaxLookups bounds how many lookups of an
	// [Authenticator] run at a time; zero means 64. Up to 16 times as many wait for their
	// turn, for half of StoreTimeout, and any more are refused with 503 at once. A [Cache]
	// has its own configuration for both, and a [Memory] needs neither.
	StoreTimeout time.Duration
	MaxLookups   int
	// Format is the format of new keys, with at least 128 bits of entropy. A service that
	// only verifies keys may leave it nil; then no method of the Manager issues keys.
	Format Format
	// Formats are the formats of the keys that are accepted in addition to those of
	// Format. Required if Format is nil, unless Legacy has formats.
	Formats []Format
	// Peppers are the secret keys of the hashes in the store; the newest is used for new
	// keys. A key is looked up once for each pepper, the newest first, so leave out
	// peppers that no key needs any more.
	Peppers []Pepper
	// Legacy has the keys of other systems that are accepted as well, and that are stored
	// when they are used for the first time.
	Legacy []Legacy
	// MaxActive is how many keys an owner may have that have not ended; zero means 100.
	// Disabled keys count, as they can be enabled again, and derived keys do not. Keys that
	// remain valid after a rotation are counted separately, with the same bound.
	MaxActive int
	// CountReplaced counts keys that remain valid after a rotation together with the
	// others, so that no more than MaxActive keys are valid at any time. Then an owner with
	// that many keys can rotate only without a grace.
	CountReplaced bool
	// MaxTotal is how many keys of an owner are stored, those that have ended and derived
	// ones included; it is at least MaxActive, and zero means 100 times as many. An owner
	// who has them gets ErrFull until [Manager.Purge] has removed keys.
	MaxTotal int
	// MinName and MaxName bound the length of a name in characters; zero means 1
	// and 80. MaxName is at most [MaxName].
	MinName, MaxName int
	// MaxGrace bounds how long a key may remain valid after its rotation; zero means 7
	// days, and [NoGrace] that a rotation always ends the old key at once.
	MaxGrace time.Duration
	// MaxDerived is how many keys of an owner that [Manager.Derive] has issued may be valid
	// at a time; zero means 1,000. MaxTotal counts them as well, so purge them. Each ends at
	// most MaxDerivedLifetime after it was issued; zero means 24 hours.
	MaxDerived         int
	MaxDerivedLifetime time.Duration
	// MaxLifetime bounds how long a key is valid, counted from its creation. A new key
	// without ExpiresAt then gets the latest expiry that is allowed. Zero sets no bound,
	// but a key that expires must do so by 9999-12-30.
	MaxLifetime time.Duration
	// Visible is how many of the first characters of a key are stored, so that they can
	// be displayed; zero means as many as Format.Parse returns. The last four are stored
	// as well. At least 112 bits must stay hidden, also of the keys of the environment with
	// the shortest name. For that, fewer characters are stored of a key that is short.
	Visible int
	// MaxLevel is the highest level that a key may have; zero means
	// [usher.LevelFull].
	MaxLevel usher.Level

	// Change, if not nil, may complete or refuse a change by any actor before it is
	// checked and stored. k is the key after the change. old is the key before it; or, if
	// their IDs differ, the key that k replaces, or that k.DerivedFrom names; or nil if k is
	// created or imported.
	// Change may set of k what [Manager.Update] may set, and Environment if old is nil. It
	// is called again if the key is changed concurrently.
	Change func(ctx context.Context, by Actor, old, k *Key) error
	// Audit, if not nil, is called after each change and each failed attempt, on the
	// caller's goroutine.
	Audit func(ctx context.Context, e Event)
	// OnError, if not nil, is called with each failure of the store or a callback, even
	// if a method also returns the failure to its caller. Nil logs to [slog.Default], at
	// most one line a second.
	OnError func(ctx context.Context, err error)
	// MeterProvider measures the calls of the store as usher.store.operation.duration; nil
	// means the global one, or, for [Open], that of its Config.
	MeterProvider metric.MeterProvider
}

// NoGrace is a [ManagerConfig.MaxGrace] that allows none.
const NoGrace time.Duration = -1

// A Manager issues keys and changes them. It is safe for concurrent use.
//
// Its methods return [ErrNotFound], [ErrConflict], [ErrLimit] and [ErrFull] as they are; an
// [*usher.Error] with status 400 or 403 for a change that is invalid or not permitted;
// and any other error if the store, a callback or the source of randomness failed.
type Manager struct {
	source      Store // as configured
	store       Admin // with bounded calls
	timeout     time.Duration
	maxLookups  int
	format      Format   // of new keys; nil if there are none
	formats     []Format // of all keys
	hasher      *hasher
	legacies    *legacies // nil if there are none
	limits      limits
	minName     int
	maxName     int
	maxGrace    time.Duration
	maxLifetime time.Duration // 0 for any
	maxDerived  time.Duration
	maxLevel    usher.Level
	visible     int
	change      func(ctx context.Context, by Actor, old, k *Key) error
	audit       func(context.Context, Event)
	report      *report.Reporter
	meters      metric.MeterProvider
	random      io.Reader
}

// NewManager returns a Manager, or all faults of c.
func NewManager(c ManagerConfig) (*Manager, error) {
	faults := config.Of[usher.ConfigError]("apikey.ManagerConfig")
	m := &Manager{
		timeout:     cmp.Or(c.StoreTimeout, storeTimeout),
		maxLookups:  cmp.Or(c.MaxLookups, maxCalls),
		limits:      newLimits(&c, faults),
		minName:     cmp.Or(c.MinName, 1),
		maxName:     cmp.Or(c.MaxName, 80),
		maxGrace:    max(cmp.Or(c.MaxGrace, 7*24*time.Hour), 0),
		maxLifetime: c.MaxLifetime,
		maxDerived:  cmp.Or(c.MaxDerivedLifetime, 24*time.Hour),
		maxLevel:    cmp.Or(c.MaxLevel, usher.LevelFull),
		visible:     c.Visible,
		change:      c.Change,
		audit:       c.Audit,
		report:      report.New("apikey", c.OnError),
		meters:      c.MeterProvider,
		random:      rand.Reader,
	}
	faults.If(c.Store == nil, "Store", config.Required)
	faults.If(c.StoreTimeout < 0, "StoreTimeout", config.NotNegative)
	faults.If(c.MaxLookups < 0, "MaxLookups", config.NotNegative)
	faults.If(c.Visible < 0, "Visible", config.NotNegative)
	m.format, m.formats = compileFormats(&c, faults)
	if m.format != nil {
		if bits := m.format.Entropy(); bits < minEntropy {
			faults.Add("Format", fmt.Sprintf("must generate at least %d bits of entropy, and generates %d", minEntropy, bits))
		} else if reason := checkVisible(m.format, c.Visible); reason != "" {
			faults.Add("Visible", reason)
		}
	}
	m.hasher = newHasher(c.Peppers, faults)
	m.legacies = newLegacies(m, c.Legacy, faults)
	faults.If(m.minName < 0, "MinName", config.NotNegative)
	faults.If(m.maxName < max(m.minName, 0) || m.maxName > MaxName,
		"MaxName", "must be at least MinName, and at most "+strconv.Itoa(MaxName))
	faults.If(c.MaxGrace < 0 && c.MaxGrace != NoGrace, "MaxGrace", "must not be negative, unless it is NoGrace")
	faults.If(m.maxLifetime < 0, "MaxLifetime", config.NotNegative)
	faults.If(m.maxDerived < 0 || m.maxDerived > 0 && m.maxDerived < time.Microsecond,
		"MaxDerivedLifetime", "must be at least a microsecond")
	faults.If(m.maxLevel > usher.LevelFull, "MaxLevel", "must be a level")
	if err := faults.Err(); err != nil {
		return nil, err
	}
	m.use(c.Store)
	return m, nil
}

// use sets the store of m.
func (m *Manager) use(s Store) { m.source, m.store = s, guarded(s, m.timeout, maxCalls, m.meters) }

// A preview gets a key that a change is about to store, and the text of a new key. An
// error stops the change: a key that cannot be shown to its owner is not stored.
type preview func(k Key, secret Secret) error

func noPreview(Key, Secret) error { return nil }

// Create issues a key. It returns the key and its text, which is stored nowhere and
// cannot be retrieved later. It uses Owner and Environment of template and what
// [Manager.Update] may set.
//
// An empty Owner or Plan means the actor's, and an empty Environment means the usual one
// of the format. No scopes and [usher.LevelNone] grant nothing. The actor must hold what
// the key grants; see [Actor].
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

// Import adds a key that was issued elsewhere, by the hash of its text: its SHA-256 after
// a zero byte, or what [Manager.Hash] returns. It uses the same fields of template as
// [Manager.Create], and Prefix and LastFour, which must not be the whole text together. A
// format of the Manager must accept the key; that is checked as far as Prefix shows it, and
// entirely by [Manager.ImportText].
func (m *Manager) Import(ctx context.Context, by Actor, template Key, h Hash) (Key, error) {
	r, err := m.prepare(ctx, by, template, func(r *Record) error {
		switch {
		case !slices.ContainsFunc(m.hasher.peppers, func(p pepper) bool { return p.version == h[0] }):
			return fmt.Errorf("apikey: import of a hash with pepper version %d, which is not configured", h[0])
		case h == Hash{h[0]}:
			return errors.New("apikey: import of a hash that is all zeros")
		}
		r.Hash, r.Prefix, r.LastFour = h, template.Prefix, template.LastFour
		return m.checkImport(&r.Key, h)
	})
	if err == nil {
		err = m.store.Insert(ctx, r, m.limits.issue())
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
	if !isID(id) || !isOwner(owner) {
		return Record{}, ErrNotFound
	}
	return m.store.Find(ctx, owner, id)
}

// List skips the first offset keys of owner, the newest first, and returns up to limit of
// the rest. It also returns how many there are in all. Revoked and expired keys are
// included.
func (m *Manager) List(ctx context.Context, owner string, offset, limit int) (keys []Key, total int, err error) {
	if !isOwner(owner) {
		return nil, 0, nil
	}
	keys, total, err = m.store.List(ctx, owner, max(offset, 0), max(limit, 0))
	m.failed(ctx, "list", err)
	return keys, total, err
}

// Update lets change set Name, Description, Metadata, Scopes, Level, Plan, PlanOverride,
// AllowedNetworks, DisabledAt and ExpiresAt of a key that has not ended; it ignores anything
// else that change sets. Any DisabledAt disables the key at once, and the zero value enables
// it. If the key is changed concurrently, change is called again with the key as it then
// is. A key that is replaced or derived can only be narrowed: for instance, its grace can be
// made shorter.
//
// The actor must hold what the key grants before the change and, unless the change only
// narrows the key, what it grants after the change.
func (m *Manager) Update(ctx context.Context, by Actor, owner, id string, change func(*Key)) (Key, error) {
	return m.updateWith(ctx, by, owner, id, change, noPreview)
}
