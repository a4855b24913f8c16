package apikey

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/guard"
)

// A verifier decides whether the text of a key is valid.
type verifier struct {
	fetch     fetch
	formats   []format
	hasher    *hasher
	env       string // empty for any
	check     func(context.Context, *Key) error
	principal func(*Key, usher.Principal) usher.Principal
	foreign   bool // code that may panic is called: check, principal or a format
}

// A fetch returns the entry of the key with hash h, or ErrNotFound.
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
		if err != nil {
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
func (v *verifier) verify(r *http.Request, text string, now time.Time) (e *entry, p *usher.Principal, verdict Verdict, err error) {
	if !v.foreign {
		return v.decide(r, text, now)
	}
	verdict = Unavailable
	err = guard.Run(func() error {
		var err error
		e, p, verdict, err = v.decide(r, text, now)
		return err
	})
	return e, p, verdict, err
}

func (v *verifier) decide(r *http.Request, text string, now time.Time) (*entry, *usher.Principal, Verdict, error) {
	if len(text) > maxLength {
		return nil, nil, Malformed, nil
	}
	environment, ok := v.parse(text)
	if !ok {
		return nil, nil, Malformed, nil
	}
	if v.env != "" && environment != "" && environment != v.env {
		return nil, nil, WrongEnvironment, nil
	}
	ctx := r.Context()
	e, verdict, err := v.lookup(ctx, text, now)
	if verdict != Accepted {
		return nil, nil, verdict, err
	}
	k := &e.record.Key
	switch {
	case !k.RevokedAt.IsZero():
		return e, nil, Revoked, nil
	case k.expired(now):
		return e, nil, Expired, nil
	case !k.DisabledAt.IsZero():
		return e, nil, Disabled, nil
	case v.env != "" && k.Environment != v.env:
		return e, nil, WrongEnvironment, nil
	case len(k.AllowedNetworks) > 0 && !k.allows(clientip.Of(r)):
		return e, nil, WrongNetwork, nil
	}
	if v.check != nil {
		if err := v.check(ctx, k); err != nil {
			if isClientError(err) {
				return e, nil, Denied, err
			}
			return e, nil, failedFor(ctx), fmt.Errorf("Config.Check: %w", err)
		}
	}
	return e, v.principalOf(e), Accepted, nil
}

// isClientError reports whether err is a response with a status from 400 to 499.
func isClientError(err error) bool {
	e, ok := errors.AsType[*usher.Error](err)
	return ok && e != nil && e.Status >= 400 && e.Status <= 499
}

// failedFor returns the verdict on a key whose lookup or check failed.
func failedFor(ctx context.Context) Verdict {
	if left(ctx) {
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
		h := v.hasher.peppers[i].hash(text)
		e, err := v.fetch(ctx, h, now)
		found := new(Hash)
		if err == nil {
			found = &e.record.Hash
		} else if !errors.Is(err, ErrNotFound) {
			return nil, failedFor(ctx), fmt.Errorf("Store.Lookup: %w", err)
		}
		// A store may match loosely, for instance by a collation. A missing key is
		// compared as well, so that it takes the same time.
		if subtle.ConstantTimeCompare(h[:], found[:]) == 1 && err == nil {
			return e, Accepted, nil
		}
	}
	return nil, Unknown, nil
}

// A view is the principal that a verifier has made from an entry.
type view struct {
	by        *verifier
	principal *usher.Principal
}

// principalOf returns the principal of an entry. It makes the principal only once while
// the entry is kept.
func (v *verifier) principalOf(e *entry) *usher.Principal {
	if made := e.view.Load(); made != nil && made.by == v {
		return made.principal
	}
	k := &e.record.Key
	p := usher.Principal{
		ID:          k.ID,
		Line:        k.Line,
		Kind:        usher.KindAPIKey,
		Owner:       k.Owner,
		Name:        k.Name,
		Scopes:      k.Scopes,
		Level:       k.Level,
		Plan:        k.plan(),
		Environment: k.Environment,
		Details:     k,
	}
	if v.principal != nil {
		p = v.principal(k, p)
		p.ID, p.Line, p.Kind = k.ID, k.Line, usher.KindAPIKey
	}
	e.view.Store(&view{v, &p})
	return &p
}
