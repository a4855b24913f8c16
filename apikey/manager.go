package apikey

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jsonbody"
)

// ManagerConfig configures a [Manager].
type ManagerConfig struct {
	// Store keeps the keys. Where an [Authenticator] uses a [Cache], give the same
	// Cache here, so that it learns of a revocation at once. Required.
	Store Store
	// StoreTimeout bounds each call of the store, also of one that ignores its
	// context; zero means 3 seconds. For a [Cache] its own configuration counts, and a
	// [Memory] needs none.
	StoreTimeout time.Duration
	// Format is the format of new keys, with at least 128 bits of entropy.
	// Required.
	Format Format
	// Peppers are those of the [Authenticator]; the newest is used for new keys.
	Peppers []Pepper
	// MaxActive is how many active keys an owner may have; zero means 100. The
	// keys that live on after a rotation count apart, with the same bound.
	MaxActive int
	// MinName and MaxName bound the length of a name in characters; zero means 1
	// and 80.
	MinName, MaxName int
	// MaxGrace bounds how long a key may live after its rotation; zero means 7
	// days.
	MaxGrace time.Duration
	// MaxLifetime bounds how long a key may live, counted from its creation. A new
	// key without ExpiresAt then gets the latest expiry that is allowed. Zero sets
	// no bound: a key may never expire, and if it does, by 9999-12-30.
	MaxLifetime time.Duration
	// Visible is how many of the first characters of a key are kept to be shown;
	// zero means what the Format says. With the last four, which are kept as well,
	// at least 112 bits must stay hidden.
	Visible int
	// MaxLevel is the highest level that a key may have; zero means
	// [usher.LevelFull].
	MaxLevel usher.Level
	// Change, if not nil, may complete or refuse a change of any actor before it is
	// checked and stored. K is the key as it is to be. Old is the key as it is, the
	// one that k replaces if their IDs differ, or nil for a key that is created or
	// imported. It may alter Name, Scopes, Level, Plan and ExpiresAt of k, and
	// Environment if old is nil. It is called again if somebody else has changed
	// the key meanwhile.
	Change func(ctx context.Context, by Actor, old, k *Key) error
	// Audit, if not nil, is called after each change and each failed try, on the
	// caller's goroutine.
	Audit func(ctx context.Context, e Event)
	// OnError, if not nil, is told when Audit has panicked. The change has been made
	// or refused by then.
	OnError func(err error)
}

// A Manager issues keys and changes them. It is safe for concurrent use.
//
// Its methods return [ErrNotFound], [ErrLimit] and [ErrConflict] as they are; an
// [*usher.Error] with status 400 or 403 for a change that cannot or may not be
// made; and any other error if the store or the source of randomness failed.
type Manager struct {
	store       Store
	format      Format
	hasher      *hasher
	maxActive   int
	minName     int
	maxName     int
	maxGrace    time.Duration
	maxLifetime time.Duration // 0 for any
	maxLevel    usher.Level
	change      func(ctx context.Context, by Actor, old, k *Key) error
	visible     int
	audit       func(context.Context, Event)
	onError     func(error)
	random      io.Reader
}

// NewManager returns a Manager, or all faults of c.
func NewManager(c ManagerConfig) (*Manager, error) {
	m := &Manager{
		maxActive:   orDefault(c.MaxActive, 100),
		minName:     orDefault(c.MinName, 1),
		maxName:     orDefault(c.MaxName, 80),
		maxGrace:    orDefault(c.MaxGrace, 7*24*time.Hour),
		maxLifetime: c.MaxLifetime,
		maxLevel:    orDefault(c.MaxLevel, usher.LevelFull),
		change:      c.Change,
		visible:     c.Visible,
		audit:       c.Audit,
		onError:     c.OnError,
		random:      rand.Reader,
	}
	var errs, more []error
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: "apikey.ManagerConfig." + field, Reason: reason})
	}
	if c.Store == nil {
		fault("Store", "is required")
	}
	if c.StoreTimeout < 0 {
		fault("StoreTimeout", "must not be negative")
	}
	m.format, more = compileFormat(c.Format, "apikey.ManagerConfig.Format")
	errs = append(errs, more...)
	if len(more) == 0 {
		if bits := m.format.Entropy(); bits < minEntropy {
			fault("Format", fmt.Sprintf("generates %d bits of entropy; at least %d are needed", bits, minEntropy))
		} else if !m.hides(c.Visible) {
			fault("Visible", "must be from 0 to the length of a key, and leave 112 bits hidden")
		}
	}
	m.hasher, more = newHasher(c.Peppers, "apikey.ManagerConfig.Peppers")
	errs = append(errs, more...)
	if m.maxActive < 0 {
		fault("MaxActive", "must not be negative")
	}
	if m.minName < 0 || m.maxName < m.minName {
		fault("MaxName", "must be at least MinName, and that at least 1")
	}
	if m.maxGrace < 0 {
		fault("MaxGrace", "must not be negative")
	}
	if m.maxLifetime < 0 {
		fault("MaxLifetime", "must not be negative")
	}
	if m.maxLevel > usher.LevelFull {
		fault("MaxLevel", "must be a level")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	m.store = guarded(c.Store, orDefault(c.StoreTimeout, storeTimeout), maxCalls)
	return m, nil
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// hides reports whether keys of which the first visible characters are kept
// have enough left to guess. It judges by a key that it makes and forgets.
func (m *Manager) hides(visible int) bool {
	if visible == 0 {
		return true
	}
	text, err := m.format.Generate(rand.Reader, "")
	if err != nil {
		return false
	}
	_, usual, _ := m.format.Parse(text)
	// Eight characters may be shown already: four of the usual ones and the last
	// four, each of at most six bits.
	extra := max(0, visible-usual) + 8
	return visible > 0 && visible <= len(text) && m.format.Entropy()-6*extra >= 112
}

// A preview gets a key as a change is about to store it, with its text if that is
// new. An error stops the change: what is not shown is not made.
type preview func(k Key, secret Secret) error

func unseen(Key, Secret) error { return nil }

// Create issues a key and returns it with its text, which is not kept anywhere
// and cannot be had again. Of template it uses Owner, Name, Scopes, Level, Plan,
// Environment and ExpiresAt.
//
// An empty Owner means that of the actor, an empty Plan the actor's, and an
// empty Environment the usual one of the format. No scopes and [usher.LevelNone]
// grant nothing. The actor must hold what the key grants; see [Actor].
func (m *Manager) Create(ctx context.Context, by Actor, template Key) (Key, Secret, error) {
	return m.createSeen(ctx, by, template, unseen)
}

func (m *Manager) createSeen(ctx context.Context, by Actor, template Key, see preview) (Key, Secret, error) {
	r, secret, err := m.create(ctx, by, template, see)
	if err != nil {
		m.note(ctx, "create", by, Key{Owner: r.Owner}, err)
		return Key{}, Secret{}, err
	}
	m.note(ctx, "create", by, r.Key, nil)
	return r.Key, secret, nil
}

func (m *Manager) create(ctx context.Context, by Actor, template Key, see preview) (Record, Secret, error) {
	r, a, err := m.prepare(ctx, by, template)
	if err != nil {
		return r, Secret{}, err
	}
	secret, err := m.generate(&r)
	if err != nil {
		return r, Secret{}, err
	}
	if err := a.mayGrant(&r.Key, true); err != nil {
		return r, Secret{}, err
	}
	if err := see(r.clone().Key, secret); err != nil {
		return r, Secret{}, err
	}
	return r, secret, m.store.Insert(ctx, r, m.maxActive)
}

// Import adds a key that was issued elsewhere, by the hash of its text: a
// SHA-256 with a zero before it, or what [Manager.Hash] returns. Of template it
// uses what [Manager.Create] does, and Prefix and LastFour. The [Authenticator]
// needs a [Format] that recognises the key.
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

// Hash returns the hash under which a key with this text is found, made with
// the newest pepper.
func (m *Manager) Hash(text Secret) (Hash, error) {
	if n := len(text.Reveal()); n == 0 || n > maxLength {
		return Hash{}, fmt.Errorf("apikey: a key of %d bytes; it must have 1 to %d", n, maxLength)
	}
	return m.hasher.newest(text.Reveal()), nil
}

// Find returns a key of owner.
func (m *Manager) Find(ctx context.Context, owner, id string) (Key, error) {
	r, err := m.store.Find(ctx, owner, id)
	if err != nil {
		return Key{}, err
	}
	return r.Key, nil
}

// List returns up to limit keys of owner, the newest first, without the first
// offset ones, and how many there are in all. Revoked and expired keys are among
// them.
func (m *Manager) List(ctx context.Context, owner string, offset, limit int) (keys []Key, total int, err error) {
	return m.store.List(ctx, owner, max(offset, 0), max(limit, 0))
}

// Update lets change alter Name, Scopes, Level, Plan and ExpiresAt of an active
// key; what else it alters is ignored. If somebody else changes the key at the
// same time, change is called again with the outcome of that.
//
// The actor must hold what the key grants before the change and, unless the change
// only narrows that, after it.
func (m *Manager) Update(ctx context.Context, by Actor, owner, id string, change func(*Key)) (Key, error) {
	return m.updateSeen(ctx, by, owner, id, change, unseen)
}

func (m *Manager) updateSeen(ctx context.Context, by Actor, owner, id string, change func(*Key), see preview) (Key, error) {
	var r Record
	err := m.edit(ctx, by, owner, id, func(a authority, found Record, now time.Time) (err error) {
		r, err = m.update(ctx, by, a, found, change, now)
		if err != nil {
			return err
		}
		k := r.Key.clone()
		k.Revision++
		if err := see(k, Secret{}); err != nil {
			return err
		}
		err = m.store.Update(ctx, r)
		r.Revision = k.Revision
		return err
	})
	m.note(ctx, "update", by, Key{ID: id, Owner: owner}, err)
	if err != nil {
		return Key{}, err
	}
	return r.Key, nil
}

// update returns found as change makes it.
func (m *Manager) update(ctx context.Context, by Actor, a authority, found Record, change func(*Key), now time.Time) (Record, error) {
	edited := found.Key.clone()
	change(&edited)
	r := found
	r.settle(edited)
	r.UpdatedAt = now
	if err := m.ask(ctx, by, &found.Key, &r.Key); err != nil {
		return r, err
	}
	if err := m.check(&r.Key, &found.Key); err != nil {
		return r, err
	}
	r.ExpiresAt = canonical(r.ExpiresAt)
	if !narrower(&r.Key, &found.Key) {
		if err := a.mayGrant(&r.Key, r.Plan != found.Plan); err != nil {
			return r, err
		}
	}
	return r, nil
}

// settle takes over what may be changed about a key.
func (k *Key) settle(from Key) {
	k.Name, k.Scopes, k.Level, k.Plan, k.ExpiresAt = from.Name, distinct(from.Scopes), from.Level, from.Plan, from.ExpiresAt
}

// ask lets ManagerConfig.Change complete or refuse what is to become of a key.
func (m *Manager) ask(ctx context.Context, by Actor, old, k *Key) error {
	if m.change == nil {
		return nil
	}
	edited := *k
	if old != nil {
		shown := old.clone()
		old = &shown
	}
	if err := callback("ManagerConfig.Change", func() error { return m.change(ctx, by, old, &edited) }); err != nil {
		return err
	}
	k.settle(edited)
	if old == nil {
		k.Environment = edited.Environment
	}
	return nil
}

// Rotate issues a key in place of an active one, with the same settings and
// prefix. The old key lives for another grace, or as long as it would have
// lived if that is shorter; it cannot be rotated again. The new key expires when
// the old one would have, or sooner if [ManagerConfig.MaxLifetime] asks for that.
// The actor must hold what the key grants, as it learns the text of one that grants
// as much.
func (m *Manager) Rotate(ctx context.Context, by Actor, owner, id string, grace time.Duration) (Key, Secret, error) {
	return m.rotateSeen(ctx, by, owner, id, grace, unseen)
}

func (m *Manager) rotateSeen(ctx context.Context, by Actor, owner, id string, grace time.Duration, see preview) (Key, Secret, error) {
	var (
		next   Record
		secret Secret
	)
	err := m.checkGrace(grace)
	if err == nil {
		err = m.edit(ctx, by, owner, id, func(a authority, found Record, now time.Time) (err error) {
			next, secret, err = m.rotate(ctx, by, a, found, grace, now, see)
			return err
		})
	}
	m.note(ctx, "rotate", by, Key{ID: id, Owner: owner}, err)
	if err != nil {
		return Key{}, Secret{}, err
	}
	return next.Key, secret, nil
}

func (m *Manager) rotate(ctx context.Context, by Actor, a authority, old Record, grace time.Duration, now time.Time, see preview) (Record, Secret, error) {
	next, err := m.successor(ctx, by, a, &old.Key, now)
	if err != nil {
		return Record{}, Secret{}, err
	}
	secret, err := m.generate(&next)
	if err != nil {
		return Record{}, Secret{}, err
	}
	if err := see(next.clone().Key, secret); err != nil {
		return Record{}, Secret{}, err
	}
	if end := now.Add(grace); old.ExpiresAt.IsZero() || end.Before(old.ExpiresAt) {
		old.ExpiresAt = end
	}
	old.UpdatedAt, old.ReplacedBy = now, next.ID
	limit := m.maxActive
	if grace == 0 {
		limit = 0
	}
	return next, secret, m.store.Rotate(ctx, old, next, limit)
}

// successor returns the record of the key that replaces old, without its hash.
func (m *Manager) successor(ctx context.Context, by Actor, a authority, old *Key, now time.Time) (Record, error) {
	next := Record{Key: old.clone()}
	next.CreatedAt, next.UpdatedAt, next.LastUsedAt, next.Revision = now, now, time.Time{}, 1
	id, err := m.newID()
	if err != nil {
		return Record{}, err
	}
	next.ID = id
	// The old key may come from a time of other rules.
	if bound := m.maxExpiry(now); next.ExpiresAt.After(bound) || next.ExpiresAt.IsZero() && m.maxLifetime > 0 {
		next.ExpiresAt = bound
	}
	if err := m.ask(ctx, by, old, &next.Key); err != nil {
		return Record{}, err
	}
	// A level above today's bound is lowered by an Update that somebody asks for,
	// and not behind the back of those who use the key.
	from := *old
	from.Level = usher.LevelNone
	if err := m.check(&next.Key, &from); err != nil {
		return Record{}, err
	}
	next.ExpiresAt = canonical(next.ExpiresAt)
	return next, a.mayGrant(&next.Key, next.Plan != old.Plan)
}

// Revoke ends a key for good, at once, and returns it. Revoking a revoked key
// changes nothing. The actor must hold what the key grants.
func (m *Manager) Revoke(ctx context.Context, by Actor, owner, id string) (Key, error) {
	r, err := m.revoke(ctx, by, owner, id)
	m.note(ctx, "revoke", by, Key{ID: id, Owner: owner}, err)
	if err != nil {
		return Key{}, err
	}
	return r.Key, nil
}

func (m *Manager) revoke(ctx context.Context, by Actor, owner, id string) (Record, error) {
	a, err := m.authorizeFor(ctx, by, owner)
	if err != nil {
		return Record{}, err
	}
	if !a.system {
		found, err := m.store.Find(ctx, owner, id)
		if err != nil {
			return Record{}, err
		}
		if err := a.mayTouch(&found.Key); err != nil {
			return Record{}, err
		}
	}
	return m.store.Revoke(ctx, owner, id, present())
}

// edit calls f with an active key that the actor may change, again if somebody else
// changes it meanwhile.
func (m *Manager) edit(ctx context.Context, by Actor, owner, id string, f func(a authority, found Record, now time.Time) error) error {
	const tries = 5
	a, err := m.authorizeFor(ctx, by, owner)
	if err != nil {
		return err
	}
	err = ErrConflict
	for range tries {
		if !errors.Is(err, ErrConflict) {
			break
		}
		found, findErr := m.store.Find(ctx, owner, id)
		if findErr != nil {
			return findErr
		}
		now := present()
		if !found.Active(now) || found.ReplacedBy != "" {
			return ErrConflict
		}
		if err := a.mayTouch(&found.Key); err != nil {
			return err
		}
		err = f(a, found, now)
	}
	return err
}

// prepare returns the record of a new key, without its hash, and what its creator
// may do.
func (m *Manager) prepare(ctx context.Context, by Actor, template Key) (Record, authority, error) {
	now := present()
	r := Record{Key: Key{
		Owner:       template.Owner,
		Environment: template.Environment,
		CreatedAt:   now,
		UpdatedAt:   now,
		Revision:    1,
	}}
	r.settle(template)
	a, err := m.authorize(ctx, by)
	if err != nil {
		return r, a, err
	}
	r.Owner = orDefault(r.Owner, a.Owner)
	r.Plan = orDefault(r.Plan, a.Plan)
	if r.Owner == "" {
		return r, a, errors.New("apikey: a key needs an owner")
	}
	if r.ID, err = m.newID(); err != nil {
		return r, a, err
	}
	if r.ExpiresAt.IsZero() && m.maxLifetime > 0 {
		r.ExpiresAt = m.maxExpiry(now)
	}
	if err := m.ask(ctx, by, nil, &r.Key); err != nil {
		return r, a, err
	}
	if err := m.check(&r.Key, nil); err != nil {
		return r, a, err
	}
	r.ExpiresAt = canonical(r.ExpiresAt)
	return r, a, nil
}

func (m *Manager) newID() (string, error) { return randomText(m.random, base62, 22) }

// generate makes the text of a key for r.Environment and notes in r what is
// kept of it.
func (m *Manager) generate(r *Record) (secret Secret, err error) {
	err = callback("ManagerConfig.Format", func() error {
		secret, err = m.generateText(r)
		return err
	})
	return secret, err
}

func (m *Manager) generateText(r *Record) (Secret, error) {
	text, err := m.format.Generate(m.random, r.Environment)
	if err != nil {
		return Secret{}, err
	}
	environment, visible, ok := m.format.Parse(text)
	if !ok || len(text) > maxLength || len(text) < 4 || visible > len(text) {
		return Secret{}, errors.New("apikey: the format does not recognise a key that it has generated")
	}
	if environment != "" {
		r.Environment = environment
	}
	r.Prefix = text[:orDefault(m.visible, visible)]
	r.LastFour = text[len(text)-4:]
	r.Hash = m.hasher.newest(text)
	return NewSecret(text), nil
}

func (m *Manager) note(ctx context.Context, action string, by Actor, k Key, err error) {
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
	report(m.onError, callback("ManagerConfig.Audit", func() error { m.audit(ctx, e); return nil }))
}

// The bounds of what a key may hold, far above any use.
const (
	maxScopes = 100
	maxScope  = 128
)

// check returns what is wrong with the settings of k, as one *usher.Error. Old is
// the key as it was before, or nil for a new one: what nobody changes may come from
// a time of other rules.
func (m *Manager) check(k, old *Key) error {
	var faults []usher.Field
	check := func(name string, changed bool, wrong func(*Key) string) {
		if !changed {
			return
		}
		if message := wrong(k); message != "" {
			faults = append(faults, usher.Field{Name: name, Message: message})
		}
	}
	check("name", old == nil || k.Name != old.Name, m.checkName)
	check("scopes", old == nil || !slices.Equal(k.Scopes, old.Scopes), checkScopes)
	check("level", old == nil || k.Level != old.Level, m.checkLevel)
	check("expires_at", old == nil || !k.ExpiresAt.Equal(old.ExpiresAt), m.checkExpiry)
	if len(faults) > 0 {
		return jsonbody.Invalid(faults...)
	}
	return nil
}

func (m *Manager) checkName(k *Key) string {
	switch n := utf8.RuneCountInString(k.Name); {
	case n < m.minName:
		return "'name' must have a minimum length of " + strconv.Itoa(m.minName) + ". Current length is " + strconv.Itoa(n) + "."
	case n > m.maxName:
		return "'name' must have a maximum length of " + strconv.Itoa(m.maxName) + ". Current length is " + strconv.Itoa(n) + "."
	case !utf8.ValidString(k.Name) || slices.ContainsFunc([]rune(k.Name), unicode.IsControl):
		return "'name' must not contain control characters."
	}
	return ""
}

func checkScopes(k *Key) string {
	if len(k.Scopes) > maxScopes {
		return "There must be no more than " + strconv.Itoa(maxScopes) + " scopes."
	}
	if slices.ContainsFunc(k.Scopes, func(s string) bool { return !isScope(s) }) {
		return "A scope must be 1 to " + strconv.Itoa(maxScope) + " visible characters other than quote and backslash."
	}
	return ""
}

func (m *Manager) checkLevel(k *Key) string {
	switch {
	case k.Level > usher.LevelFull:
		return "There is no such level."
	case k.Level > m.maxLevel:
		return "'level' must be at most " + m.maxLevel.String() + "."
	}
	return ""
}

// checkExpiry returns what is wrong with the expiry of k, which is not yet
// rounded: the first instants of the year 1 would become never.
func (m *Manager) checkExpiry(k *Key) string {
	switch bound := m.maxExpiry(k.CreatedAt); {
	case k.ExpiresAt.IsZero() && m.maxLifetime == 0:
		return ""
	case k.ExpiresAt.IsZero() || k.ExpiresAt.After(bound):
		return "'expires_at' must be no later than " + bound.Format(time.RFC3339) + "."
	case k.expired(k.UpdatedAt):
		return "'expires_at' must be in the future."
	}
	return ""
}

// maxExpiry returns the latest expiry of a key that is created at this time.
func (m *Manager) maxExpiry(created time.Time) time.Time {
	bound := created.Add(m.maxLifetime)
	if m.maxLifetime == 0 || bound.After(latest) {
		return latest
	}
	return bound
}

func (m *Manager) checkGrace(grace time.Duration) error {
	if grace < 0 || grace > m.maxGrace {
		return jsonbody.Invalid(usher.Field{
			Name:    "grace_seconds",
			Message: "'grace_seconds' must be from 0 to " + strconv.FormatInt(int64(m.maxGrace/time.Second), 10) + ".",
		})
	}
	return nil
}

// isScope reports whether s is a scope-token of RFC 6749, section 3.3.
func isScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= maxScope
}

// distinct returns a copy of list without repetitions. Of a list that is too
// long it returns enough to tell.
func distinct(list []string) []string {
	var all []string
	for _, s := range list {
		if !slices.Contains(all, s) && len(all) <= maxScopes {
			all = append(all, s)
		}
	}
	return all
}

// present returns the time as stores keep it, so that what a Manager returns
// equals what a store returns later.
func present() time.Time { return canonical(time.Now()) }

// latest is the last expiry that is accepted. Its year has four digits in every
// time zone, as RFC 3339 and encoding/json demand.
var latest = time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC)

func canonical(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
