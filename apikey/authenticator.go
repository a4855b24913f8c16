package apikey

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/telemetry"
)

// Config configures an [Authenticator].
type Config struct {
	// Store keeps the keys. Put a [Cache] in front of one that is not in memory.
	// Required.
	Store Store
	// Formats are the formats of keys that are accepted. At least one is required.
	Formats []Format
	// StoreTimeout bounds each call of the store, also of one that ignores its
	// context; zero means 3 seconds. MaxLookups bounds how many lookups are under way
	// at a time; zero means 64. Up to 16 times as many wait for their turn, for half
	// of StoreTimeout, and any more are refused with 503 at once. For a [Cache] its
	// own configuration counts, and a [Memory] needs neither.
	StoreTimeout time.Duration
	MaxLookups   int
	// Peppers are those of the [Manager]. A key is looked up once for each, the
	// newest first, so leave out those that no key needs any more.
	Peppers []Pepper

	// Header is the header field that carries the key; empty means X-API-Key,
	// unless Bearer is set.
	Header string
	// Bearer accepts keys in "Authorization: Bearer <key>"; set Header as well to
	// accept both. A request that has both filled is refused.
	Bearer bool
	// ExactBearer takes only the scheme "Bearer" written so, and ignores a field
	// with another.
	ExactBearer bool
	// DangerouslyAcceptQueryParameter names a query parameter that carries the
	// key. URLs end up in logs, histories and Referer fields, and keys with them.
	DangerouslyAcceptQueryParameter string

	// Environment is the one whose keys are accepted; empty means any.
	Environment string
	// Realm stands in the challenge, if it is not empty.
	Realm string

	// Answers replaces the answers to some verdicts, each by an error with a
	// status from 400 to 499, or for [Unavailable] from 500. The answers to a key
	// that was never issued and to one that was are the same unless they are
	// replaced here. Only someone who holds the text of a key ever gets the answers
	// to Revoked and Expired.
	Answers map[Verdict]*usher.Error
	// Check, if not nil, is asked about each request with a good key, for instance
	// whether its owner is still a customer. An [*usher.Error] with a status from
	// 400 to 499 is the answer; any other error gets that to Unavailable. Check must
	// not change k.
	Check func(ctx context.Context, k *Key) error
	// Principal, if not nil, makes the principal of a key from the usual one, for
	// instance with the scopes of a role. It is called when a key is looked up and
	// not for each request. Whatever it returns, ID is the key's and Kind is
	// [usher.KindAPIKey].
	Principal func(k *Key, usual usher.Principal) usher.Principal

	// Audit, if not nil, is called with the verdict on each request that carries a
	// key, on its goroutine. If it panics about a valid key, that is refused with the
	// response to Unavailable.
	Audit func(ctx context.Context, e Event)
	// Address says for the audit where a request comes from; nil means the peer of
	// the connection, which is a proxy if the server is behind one.
	Address func(r *http.Request) string

	// LastUseInterval is how often the times of last use are written, in one batch;
	// zero means 10 seconds, a negative one never. What was noted since is written
	// by [Authenticator.Close].
	LastUseInterval time.Duration
	// OnError, if not nil, is told when writing them has failed, after which they are
	// kept for the next time, and when Audit has panicked about a request that is
	// refused anyway.
	OnError func(err error)

	// MeterProvider makes the counter usher.apikey.verifications, which has the
	// verdict as the attribute usher.apikey.result; nil means the global one.
	MeterProvider metric.MeterProvider
}

// An Authenticator judges the API key in a request. It is an
// [usher.Authenticator], [usher.Detector], [usher.CarrierLister] and
// [usher.UseRecorder], and is safe for concurrent use.
type Authenticator struct {
	carriers
	store     Store    // guarded
	lookuper  lookuper // store, if it is one
	formats   []format
	hasher    *hasher
	env       string
	challenge string
	answers   answers
	check     func(context.Context, *Key) error
	principal func(*Key, usher.Principal) usher.Principal
	audit     func(context.Context, Event)
	address   func(*http.Request) string
	foreign   bool // code that may panic is called: check, principal or a format
	onError   func(error)
	lastUse   *lastUse
	decisions *telemetry.Decisions
}

var (
	_ usher.Detector      = (*Authenticator)(nil)
	_ usher.CarrierLister = (*Authenticator)(nil)
	_ usher.UseRecorder   = (*Authenticator)(nil)
)

// A format is a Format with its prefixes at hand.
type format struct {
	Format
	prefixes []string
}

// claims reports whether text begins like a key of this format.
func (f *format) claims(text string) bool {
	for _, p := range f.prefixes {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	return false
}

// New returns an Authenticator, or all faults of c. Unless c.LastUseInterval is
// negative, it starts a goroutine that ends with [Authenticator.Close].
func New(c Config) (*Authenticator, error) {
	var errs, more []error
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: "apikey.Config." + field, Reason: reason})
	}
	a := &Authenticator{
		env:       c.Environment,
		check:     c.Check,
		principal: c.Principal,
		audit:     c.Audit,
		address:   c.Address,
		foreign:   c.Check != nil || c.Principal != nil,
		onError:   c.OnError,
		carriers: carriers{
			header: textproto.CanonicalMIMEHeaderKey(c.Header),
			bearer: c.Bearer,
			exact:  c.ExactBearer,
			query:  c.DangerouslyAcceptQueryParameter,
		},
	}
	// The types and not the method: a store that embeds one of them has that, too,
	// and a Lookup of its own that must be asked.
	switch s := c.Store.(type) {
	case *Cache:
		a.lookuper = s
	case *Memory:
		a.lookuper = s
	}
	if c.Store == nil {
		fault("Store", "is required")
	}
	if c.StoreTimeout < 0 {
		fault("StoreTimeout", "must not be negative")
	}
	if c.MaxLookups < 0 {
		fault("MaxLookups", "must not be negative")
	}
	if len(c.Formats) == 0 {
		fault("Formats", "at least one is required")
	}
	for i, f := range c.Formats {
		f, more := compileFormat(f, fmt.Sprintf("apikey.Config.Formats[%d]", i))
		if errs = append(errs, more...); len(more) == 0 {
			a.formats = append(a.formats, format{f, slices.Clone(f.Prefixes())})
			if _, ours := f.(definition); !ours {
				a.foreign = true
			}
		}
	}
	a.hasher, more = newHasher(c.Peppers, "apikey.Config.Peppers")
	errs = append(errs, more...)
	if a.header == "" && !a.bearer {
		a.header = "X-Api-Key"
	}
	if strings.ContainsFunc(c.Header, func(r rune) bool { return !isToken(r) }) || a.header == "Authorization" || a.header == "Cookie" {
		fault("Header", "must be the name of a header field other than Authorization and Cookie")
	}
	a.challenge = usher.Challenge("ApiKey", "realm", c.Realm)
	invalidChallenge := a.challenge
	if a.bearer {
		a.challenge = usher.Challenge("Bearer", "realm", c.Realm)
		// RFC 6750, section 3.1.
		invalidChallenge = usher.Challenge("Bearer", "realm", c.Realm, "error", "invalid_token")
	}
	a.answers, more = newAnswers(c.Answers, a.challenge, invalidChallenge)
	errs = append(errs, more...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	a.store = guarded(c.Store, orDefault(c.StoreTimeout, storeTimeout), orDefault(c.MaxLookups, maxCalls))
	if a.address == nil {
		a.address = peer
	}
	a.decisions = telemetry.NewDecisions(telemetry.Config{
		MeterProvider: c.MeterProvider,
		Scope:         "github.com/usher-go/usher/apikey",
		Counter:       "usher.apikey.verifications",
		Description:   "Requests by the verdict on their API key.",
		Attribute:     "usher.apikey.result",
		Outcomes:      verdictNames[:],
	})
	if c.LastUseInterval >= 0 {
		a.lastUse = newLastUse(a.store, orDefault(c.LastUseInterval, 10*time.Second), c.OnError)
	}
	return a, nil
}

// isToken reports whether r may stand in the name of a header field.
func isToken(r rune) bool {
	return r < 0x80 && (classes[r]&isBase62 != 0 || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
}

// peer returns the address of the peer of r's connection, without its port.
func peer(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// Close writes the times of last use that were noted, and ends their goroutine.
// It returns the error of that write, within 10 seconds if the store hangs. The
// Authenticator still judges afterwards, but notes no use.
func (a *Authenticator) Close() error {
	if a.lastUse == nil {
		return nil
	}
	return a.lastUse.close()
}

// Authenticate returns the principal of the key in r, an error that matches
// [usher.ErrNoCredential] if there is none, or an [*usher.Error] whose cause is
// the [Verdict]. A key that is in the [Cache] costs no allocation.
func (a *Authenticator) Authenticate(r *http.Request) (*usher.Principal, error) {
	ctx := r.Context()
	text, v := a.find(r)
	if v == Missing {
		a.decisions.Record(ctx, int(v))
		return nil, usher.ErrNoCredential
	}
	var (
		e   *entry
		p   *usher.Principal
		err error
	)
	now := time.Now()
	if v == Accepted {
		e, p, v, err = a.admit(ctx, text, now)
	}
	if v != Accepted {
		err = a.answer(v, err)
	}
	if a.audit != nil {
		event := Event{Time: now, Action: "authenticate", Verdict: v, Actor: Actor{Principal: p}, Err: err}
		if e != nil {
			event.KeyID, event.Owner = e.record.ID, e.record.Owner
		}
		failed := a.note(r, event)
		switch {
		case failed == nil:
		case v == Accepted:
			// Nobody is let in unseen.
			p, v, err = nil, Unavailable, a.answer(Unavailable, failed)
		default:
			report(a.onError, failed)
		}
	}
	a.decisions.Record(ctx, int(v))
	return p, err
}

// note passes an event to Config.Audit.
func (a *Authenticator) note(r *http.Request, e Event) error {
	return callback("Config.Audit or Address", func() error {
		e.Actor.Address = a.address(r)
		a.audit(r.Context(), e)
		return nil
	})
}

// admit returns the verdict on the key with this text, and its principal if that is
// Accepted. With a verdict that says something about one key, the entry is that
// key's. A panic of a callback or a format says nothing about the key.
func (a *Authenticator) admit(ctx context.Context, text string, now time.Time) (e *entry, p *usher.Principal, v Verdict, err error) {
	if !a.foreign {
		return a.decide(ctx, text, now)
	}
	v = Unavailable
	err = guard.Run(func() error {
		var err error
		e, p, v, err = a.decide(ctx, text, now)
		return err
	})
	return e, p, v, err
}

func (a *Authenticator) decide(ctx context.Context, text string, now time.Time) (*entry, *usher.Principal, Verdict, error) {
	e, v, err := a.judge(ctx, text, now)
	if v != Accepted {
		return e, nil, v, err
	}
	return e, a.principalOf(e), v, nil
}

// answer returns the error for a verdict that has come about by cause, if that
// is not nil.
func (a *Authenticator) answer(v Verdict, cause error) error {
	if v == Denied {
		return cause
	}
	e := a.answers[v]
	if cause != nil {
		own := *e
		own.Cause = fmt.Errorf("%w: %w", e.Cause, cause)
		return &own
	}
	return e
}

// judge finds the key with this text and returns the verdict on it. With a
// verdict that says something about one key, the entry is that key's.
func (a *Authenticator) judge(ctx context.Context, text string, now time.Time) (*entry, Verdict, error) {
	if len(text) > maxLength {
		return nil, Malformed, nil
	}
	environment, ok := a.parse(text)
	if !ok {
		return nil, Malformed, nil
	}
	if a.env != "" && environment != "" && environment != a.env {
		return nil, WrongEnvironment, nil
	}
	e, v, err := a.lookup(ctx, text, now)
	if v != Accepted {
		return nil, v, err
	}
	k := &e.record.Key
	switch {
	case !k.RevokedAt.IsZero():
		return e, Revoked, nil
	case k.expired(now):
		return e, Expired, nil
	case a.env != "" && k.Environment != a.env:
		return e, WrongEnvironment, nil
	}
	if a.check != nil {
		if err := a.check(ctx, k); err != nil {
			return e, checked(ctx, err), err
		}
	}
	return e, Accepted, nil
}

// checked returns the verdict for an error of Config.Check.
func checked(ctx context.Context, err error) Verdict {
	var e *usher.Error
	if errors.As(err, &e) && e != nil && e.Status >= 400 && e.Status <= 499 {
		return Denied
	}
	return undecided(ctx)
}

// undecided returns the verdict on a key about which nothing could be learned.
func undecided(ctx context.Context) Verdict {
	if left(ctx) {
		return Abandoned
	}
	return Unavailable
}

// parse returns the environment that the shape of text names, and whether it
// has one of our shapes.
func (a *Authenticator) parse(text string) (environment string, ok bool) {
	claimed := false
	for i := range a.formats {
		f := &a.formats[i]
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
	for i := range a.formats {
		f := &a.formats[i]
		if len(f.prefixes) == 0 {
			if environment, _, ok = f.Parse(text); ok {
				return environment, true
			}
		}
	}
	return "", false
}

// lookup returns the key with this text and Accepted, or Unknown, or why there is
// nothing to be said.
func (a *Authenticator) lookup(ctx context.Context, text string, now time.Time) (*entry, Verdict, error) {
	for i := range a.hasher.peppers {
		h := a.hasher.peppers[i].hash(text)
		e, err := a.fetch(ctx, h, now)
		found := new(Hash)
		if err == nil {
			found = &e.record.Hash
		} else if !errors.Is(err, ErrNotFound) {
			return nil, undecided(ctx), err
		}
		// A store may match loosely, by a collation for instance. Where there is no
		// key, the comparison is made all the same.
		if subtle.ConstantTimeCompare(h[:], found[:]) == 1 && err == nil {
			return e, Accepted, nil
		}
	}
	return nil, Unknown, nil
}

// A lookuper is a store that keeps the entries of keys in use: [Cache] and
// [Memory].
type lookuper interface {
	lookup(ctx context.Context, h Hash, now time.Time) (*entry, error)
}

func (a *Authenticator) fetch(ctx context.Context, h Hash, now time.Time) (*entry, error) {
	if a.lookuper != nil {
		return a.lookuper.lookup(ctx, h, now)
	}
	r, err := a.store.Lookup(ctx, h)
	if err != nil {
		return nil, err
	}
	return &entry{record: r}, nil
}

// A view is the principal that an Authenticator has made of an entry.
type view struct {
	by        *Authenticator
	principal *usher.Principal
}

// principalOf returns the principal of an entry, which is made once for as long
// as the entry is remembered.
func (a *Authenticator) principalOf(e *entry) *usher.Principal {
	if v := e.view.Load(); v != nil && v.by == a {
		return v.principal
	}
	k := &e.record.Key
	p := usher.Principal{
		ID:          k.ID,
		Kind:        usher.KindAPIKey,
		Owner:       k.Owner,
		Name:        k.Name,
		Scopes:      k.Scopes,
		Level:       k.Level,
		Plan:        k.Plan,
		Environment: k.Environment,
		Details:     k,
	}
	if a.principal != nil {
		p = a.principal(k, p)
		p.ID, p.Kind = k.ID, usher.KindAPIKey
	}
	e.view.Store(&view{a, &p})
	return &p
}

// Detect implements [usher.Detector]. It is certain of a key that begins as
// those of one of its formats do.
func (a *Authenticator) Detect(r *http.Request) (carrier string, certain bool) {
	carrier, text := a.detect(r)
	for i := range a.formats {
		if a.formats[i].claims(text) {
			return carrier, true
		}
	}
	return carrier, false
}

// Carriers implements [usher.CarrierLister].
func (a *Authenticator) Carriers() []string { return a.list() }

// Challenge implements [usher.Detector]: Bearer if that is accepted, else ApiKey,
// which is not registered but in common use.
func (a *Authenticator) Challenge() string { return a.challenge }

// RecordUse implements [usher.UseRecorder]: it notes that the key of p was used
// now. The store learns of it with the next batch.
func (a *Authenticator) RecordUse(_ *http.Request, p *usher.Principal) {
	if a.lastUse != nil {
		a.lastUse.note(p.ID)
	}
}
