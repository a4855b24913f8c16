package apikey

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/loader"
)

// A Legacy has the keys of another system that has stored a bcrypt, argon2id or salted hash
// of each, from which no [Hash] can be computed. For other hashes there is
// [Manager.Import].
//
// When a client uses such a key for the first time, it is verified by the code of the
// service and stored under its Hash. From then on the [Store] alone decides about the key:
// change and revoke it with the [Manager]. Until then the old table decides. To revoke a key
// that may not be stored yet, revoke it in the old table first and then with
// [Manager.Revoke], for which [ErrNotFound] means that it was not stored before. A key that
// is being stored meanwhile is revoked by a second call of Find. If that call or the Store
// fails, or the process ends just then, the key stays valid: OnError gets the failure, and
// Manager.Revoke must be repeated.
//
// A key that [Manager.Purge] has removed is stored again at its next use if Find still
// returns it as a key that has not ended. So before a purge, mark the rows of keys that have
// been revoked here as revoked in the old table, or delete them.
//
// An unknown key costs a call of Find, and one that Find returns although its text is
// another costs a call of Verify and takes longer: what Find searches by, such as an ID
// in the text, is not secret.
type Legacy struct {
	// Format is the format of the keys, a [Plain] for instance. Text that begins with a
	// prefix of another format is not one of them. Required.
	Format Format
	// Find returns the key that may have this text and what is stored to verify it, or
	// ErrNotFound; any other error is a failure. Find is called concurrently, up to
	// ManagerConfig.StoreTimeout long, and again after the key was stored, so that no
	// revocation is missed. Required.
	//
	// Of k the following is stored: ID, Owner, Environment unless the text names another,
	// CreatedAt, CreatedBy, UpdatedAt, DisabledBy, RevokedAt, LastUsedAt, LastUsedFrom and
	// what [Manager.Update] may set. ID and Owner are required: the ID prevents that one row
	// becomes two keys, as bcrypt ignores all text after 72 bytes. The rules for an import
	// apply, except that MaxActive does not, and that an expiry beyond MaxLifetime, counted
	// from now, is shortened.
	Find func(ctx context.Context, text Secret) (k Key, stored string, err error)
	// Verify reports whether text is the key of which Find has returned stored. An error
	// is a failure. Required.
	Verify func(stored string, text Secret) (bool, error)
	// MaxVerifications bounds the calls of Verify that run at a time, because each takes a
	// CPU or much memory; zero means half of GOMAXPROCS, but at least 1. Up to 16 times as
	// many wait for half of ManagerConfig.StoreTimeout, and any more are refused with 503
	// at once.
	MaxVerifications int
}

const (
	// refusedFor is how long a text is remembered that no Legacy has, and maxRefused is
	// how many are. A Cache has the same defaults.
	refusedFor = 5 * time.Second
	maxRefused = 1 << 14
)

// legacies are the keys of other systems that a [Manager] accepts.
type legacies struct {
	manager *Manager
	list    []legacy
	formats []format // all of the Manager
	// flights stores keys, each text once at a time, and remembers the texts that no
	// Legacy has, which are false. The key is the hash of the text with the newest pepper.
	flights *loader.Cache[Hash, bool]
}

type legacy struct {
	format
	find          func(ctx context.Context, text Secret) (Key, string, error)
	check         func(stored string, text Secret) (bool, error)
	finds         *guard.Guard
	verifications *guard.Guard
}

// newLegacies returns the legacies of m, whose formats become formats of m, or nil if there
// are none.
func newLegacies(m *Manager, list []Legacy, faults config.Faults[usher.ConfigError]) *legacies {
	if len(list) == 0 {
		return nil
	}
	l := &legacies{manager: m}
	for i, c := range list {
		field := fmt.Sprintf("Legacy[%d]", i)
		in := faults.In(field)
		in.If(c.Find == nil, "Find", config.Required)
		in.If(c.Verify == nil, "Verify", config.Required)
		in.If(c.MaxVerifications < 0, "MaxVerifications", config.NotNegative)
		f, ok := compileFormat(c.Format, faults, field+".Format")
		if !ok {
			continue
		}
		m.formats = append(m.formats, f)
		l.list = append(l.list, legacy{
			format: format{f, slices.Clone(f.Prefixes())},
			find:   c.Find,
			check:  c.Verify,
			finds:  guard.New(m.timeout, maxCalls).Results(isResult).Measured(m.meters, guard.APIKeys),
			// Clients may cause errors at will, if the hash of one row is corrupt.
			verifications: guard.New(m.timeout, cmp.Or(max(c.MaxVerifications, 0), max(runtime.GOMAXPROCS(0)/2, 1))).NeverOpen(),
		})
	}
	for _, f := range m.formats {
		l.formats = append(l.formats, format{f, slices.Clone(f.Prefixes())})
	}
	l.flights = loader.New[Hash](loader.Config[bool]{
		Lifetime:         func(stored bool) (time.Duration, bool) { return refusedFor, !stored },
		Capacity:         1, // nobody asks for a key again once it is stored
		NegativeCapacity: maxRefused,
		Timeout:          m.timeout,
		MaxFetches:       maxCalls,
		// The guards of the calls notice an outage.
		IsResult: func(error) bool { return true },
	})
	return l
}

// legacy returns the key with this text, which the store does not have, from a Legacy.
func (v *verifier) legacy(ctx context.Context, text string, now time.Time) (*entry, Verdict, error) {
	switch stored, err := v.legacies.adopt(ctx, text); {
	case err != nil:
		return nil, failedFor(ctx), fmt.Errorf("ManagerConfig.Legacy: %w", err)
	case !stored:
		return nil, Unknown, nil
	}
	return v.lookup(ctx, text, now)
}

// adopt stores the key with this text if a Legacy has it, and reports whether it is stored.
func (l *legacies) adopt(ctx context.Context, text string) (stored bool, err error) {
	if !slices.ContainsFunc(l.list, func(o legacy) bool { return l.concerns(&o.format, text) }) {
		return false, nil
	}
	return l.flights.Load(ctx, l.manager.hasher.newest(text), func(ctx context.Context) (bool, error) {
		for i := range l.list {
			if o := &l.list[i]; l.concerns(&o.format, text) {
				if stored, err := l.manager.adopt(ctx, o, text); stored || err != nil {
					return stored, err
				}
			}
		}
		return false, nil
	})
}

// concerns reports whether text has the format f, by the rule of verifier.parse.
func (l *legacies) concerns(f *format, text string) bool {
	others := func(f format) bool { return f.claims(text) }
	if !f.claims(text) && (len(f.prefixes) > 0 || slices.ContainsFunc(l.formats, others)) {
		return false
	}
	_, _, ok := f.Parse(text)
	return ok
}

// search calls Legacy.Find.
func (o *legacy) search(ctx context.Context, text Secret) (k Key, stored string, err error) {
	type row struct {
		key    Key
		stored string
	}
	found, err := guard.Call(ctx, o.finds, "find_legacy", func(ctx context.Context) (r row, err error) {
		r.key, r.stored, err = o.find(ctx, text)
		return r, err
	}, nil)
	return found.key, found.stored, err
}

// verify calls Legacy.Verify.
func (o *legacy) verify(ctx context.Context, stored string, text Secret) (bool, error) {
	return guard.Call(ctx, o.verifications, "", func(context.Context) (bool, error) { return o.check(stored, text) }, nil)
}
