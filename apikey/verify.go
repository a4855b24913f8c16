package apikey

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/guard"
)

// A verifier decides whether the text of a key is valid.
type verifier struct {
	front     *front
	fetch     fetch
	formats   []format
	hasher    *hasher
	legacies  *legacies // nil if there are none
	env       string    // empty for any
	check     func(context.Context, *Key) error
	principal func(*Key, usher.Principal) usher.Principal
	onUse     func(*Key, *used) func(*http.Request, int)
	foreign   bool // code that may panic is called: check, principal or a format
}

// A fetch returns the entry of the key with hash h, or nil if there is none.
type fetch func(ctx context.Context, h Hash, now time.Time) (*entry, error)

// fetchFrom returns the function that fetches keys from s. A [Cache] and a [Memory] keep
// the entries of keys in use. The type switch names these types, not their method: a
// store that embeds one of them also has the method, but may have a Lookup of its own,
// which must be called.
func fetchFrom(s Store) fetch {
	switch s := s.(type) {
	case *Cache:
		return s.lookup
	case *Memory:
		return s.lookup
	}
	return func(ctx context.Context, h Hash, _ time.Time) (*entry, error) {
		r, err := s.Lookup(ctx, h)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return &entry{record: r}, nil
	}
}

// A format is a Format with its prefixes.
type format struct {
	Format
	prefixes []string
}

// claims reports whether text begins with a prefix of this format.
func (f *format) claims(text string) bool {
	for _, p := range f.prefixes {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	return false
}

// add accepts keys of one more format.
func (v *verifier) add(f Format) {
	v.formats = append(v.formats, format{f, slices.Clone(f.Prefixes())})
	if _, ours := f.(definition); !ours {
		v.foreign = true
	}
}

// verify returns the verdict on the key with this text in r, and its principal if the verdict
// is Accepted. The entry is not nil if the verdict is about a stored key. If a callback
// or a format panics, the verdict is Unavailable.
func (v *verifier) verify(r *http.Request, text string) (e *entry, p *usher.Principal, verdict Verdict, err error) {
	if !v.foreign {
		return v.decide(r, text)
	}
	verdict = Unavailable
	err = guard.Run(func() error {
		var err error
		e, p, verdict, err = v.decide(r, text)
		return err
	})
	return e, p, verdict, err
}

func (v *verifier) decide(r *http.Request, text string) (*entry, *usher.Principal, Verdict, error) {
	if len(text) > maxLength {
		return nil, nil, Malformed, nil
	}
	a := attempt{Request: r}
	if m := v.front.find(text); m != nil {
		a.now = time.Now()
		if m.current(a.now) && (!m.bound || v.state(&a, m.entry, m.parent) == Accepted) {
			return v.admit(&a, m.entry, m.view)
		}
		// A key that is refused takes the same way as one that was never issued.
		v.front.forget(m)
	}
	environment, ok := v.parse(text)
	if !ok {
		return nil, nil, Malformed, nil
	}
	if v.env != "" && environment != "" && environment != v.env {
		return nil, nil, WrongEnvironment, nil
	}
	if a.now.IsZero() {
		a.now = time.Now()
	}
	e, verdict, err := v.lookup(r.Context(), text, a.now)
	if verdict == Unknown && v.legacies != nil {
		e, verdict, err = v.legacy(r.Context(), text, a.now)
	}
	var parent *entry
	if verdict == Accepted && e.derived() {
		parent, verdict, err = v.parentOf(r.Context(), e, a.now)
	}
	if verdict == Accepted {
		verdict = v.state(&a, e, parent)
	}
	if verdict != Accepted {
		if err == nil {
			v.evenOut(&a, text, e)
		}
		return e, nil, verdict, err
	}
	w := v.viewOf(e, parent, a.now)
	v.front.remember(text, e, parent, w, a.now)
	return v.admit(&a, e, w)
}

// An attempt is a request that carries a key.
type attempt struct {
	*http.Request
	now     time.Time // of the lookup
	from    netip.Addr
	located bool // from is known
}

// address returns the address of the client. It is determined once.
func (a *attempt) address() netip.Addr {
	if !a.located {
		a.from, a.located = clientip.Of(a.Request), true
	}
	return a.from
}

// evenOut does for a key that is refused, and that was found unless e is nil, what else is
// done for others, so that the time does not show why it is refused.
func (v *verifier) evenOut(a *attempt, text string, e *entry) {
	a.address()
	if e == nil {
		return
	}
	for i := range v.hasher.peppers {
		p := &v.hasher.peppers[i]
		if p.version >= e.record.Hash[0] {
			continue
		}
		// A key that was never issued is looked up with the older peppers, too.
		if _, _, err := v.fetchExactly(a.Context(), p.hash(text), a.now); err != nil {
			return
		}
	}
}

// state returns Accepted if a key is usable in this attempt, or why it is not. The state of
// its parent, if that is not nil, counts first.
func (v *verifier) state(a *attempt, e, parent *entry) Verdict {
	if parent != nil {
		if verdict := v.state(a, parent, nil); verdict != Accepted {
			return verdict
		}
	}
	k := &e.record.Key
	switch {
	case !k.RevokedAt.IsZero():
		return Revoked
	case k.expired(a.now):
		return Expired
	case !k.DisabledAt.IsZero():
		return Disabled
	case v.env != "" && k.Environment != v.env:
		return WrongEnvironment
	case len(k.AllowedNetworks) > 0 && !k.allows(a.address()):
		return WrongNetwork
	}
	return Accepted
}

// admit returns the principal of a usable key, unless Config.Check refuses the key.
func (v *verifier) admit(a *attempt, e *entry, w *view) (*entry, *usher.Principal, Verdict, error) {
	if v.check != nil {
		ctx := a.Context()
		if err := v.check(ctx, w.key); err != nil {
			if isClientError(err) {
				return e, nil, Denied, err
			}
			return e, nil, failedFor(ctx), fmt.Errorf("Config.Check: %w", err)
		}
	}
	w.used.verify(a.now)
	return e, &w.principal, Accepted, nil
}

// isClientError reports whether err is a response with a status from 400 to 499.
func isClientError(err error) bool {
	e, ok := errors.AsType[*usher.Error](err)
	return ok && e != nil && e.Status >= 400 && e.Status <= 499
}

// failedFor returns the verdict on a key whose lookup or check failed.
func failedFor(ctx context.Context) Verdict {
	if exchange.Left(ctx) {
		return Abandoned
	}
	return Unavailable
}

// parse returns the environment that text names, and whether text has one of the formats.
// If any format has a prefix that text begins with, only such formats decide.
func (v *verifier) parse(text string) (environment string, ok bool) {
	claimed := false
	for i := range v.formats {
		f := &v.formats[i]
		if f.claims(text) {
			claimed = true
			if environment, _, ok = f.Parse(text); ok {
				return environment, true
			}
		}
	}
	if claimed {
		return "", false
	}
	for i := range v.formats {
		f := &v.formats[i]
		if len(f.prefixes) == 0 {
			if environment, _, ok = f.Parse(text); ok {
				return environment, true
			}
		}
	}
	return "", false
}

// lookup returns the key with this text and Accepted, or why there is none: Unknown,
// Unavailable or Abandoned.
func (v *verifier) lookup(ctx context.Context, text string, now time.Time) (*entry, Verdict, error) {
	for i := range v.hasher.peppers {
		e, verdict, err := v.fetchExactly(ctx, v.hasher.peppers[i].hash(text), now)
		if verdict != Unknown {
			return e, verdict, err
		}
	}
	return nil, Unknown, nil
}

// parentOf returns the key that e is derived from and Accepted, or why there is none. A
// parent that is not stored any more has ended.
func (v *verifier) parentOf(ctx context.Context, e *entry, now time.Time) (*entry, Verdict, error) {
	parent, verdict, err := v.fetchExactly(ctx, e.record.DerivedFromHash, now)
	if verdict == Unknown || verdict == Accepted && !parent.isParentOf(e) {
		return nil, Revoked, nil
	}
	return parent, verdict, err
}

// fetchExactly returns the key with this hash and Accepted, or why there is none: Unknown,
// Unavailable or Abandoned.
func (v *verifier) fetchExactly(ctx context.Context, h Hash, now time.Time) (*entry, Verdict, error) {
	e, err := v.fetch(ctx, h, now)
	if err != nil {
		return nil, failedFor(ctx), fmt.Errorf("Store.Lookup: %w", err)
	}
	found := new(Hash)
	if e != nil {
		found = &e.record.Hash
	}
	// A store may match loosely, for instance by a collation. A missing key is compared as
	// well, so that it takes the same time.
	if subtle.ConstantTimeCompare(h[:], found[:]) == 1 && e != nil {
		return e, Accepted, nil
	}
	return nil, Unknown, nil
}
