package apikey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/httptoken"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/telemetry"
)

// Config configures an [Authenticator].
type Config struct {
	// Manager issues the keys that are accepted. The Authenticator uses its store, its
	// format and its peppers, so the two cannot differ. A service that only verifies
	// keys sets Store and Formats instead.
	Manager *Manager
	// Store keeps the keys. Wrap a store that is not in memory in a [Cache]. Required
	// unless Manager is set, and must be nil if it is.
	Store Store
	// Formats are the formats of the keys that are accepted, in addition to that of
	// Manager. At least one is required unless Manager is set.
	Formats []Format
	// Peppers are those of the Manager that issues the keys; they must be empty if
	// Manager is set. A key is looked up once for each pepper, the newest first, so leave
	// out peppers that no key needs any more.
	Peppers []Pepper
	// StoreTimeout bounds each call of the store, even if the store ignores its context;
	// zero means the Manager's, or 3 seconds. MaxLookups bounds how many lookups run at a
	// time; zero means 64. Up to 16 times as many wait for their turn, for half of
	// StoreTimeout, and any more are refused with 503 at once. A [Cache] has its own
	// configuration for both, and a [Memory] needs neither.
	StoreTimeout time.Duration
	MaxLookups   int

	// Header is the header field that carries the key; empty means X-API-Key, or no
	// such field if Bearer is set.
	Header string
	// Bearer accepts keys in "Authorization: Bearer <key>" instead of X-API-Key. To
	// accept both, set Header as well; a request with a key in each is refused.
	Bearer bool
	// ExactBearer accepts the scheme only if it is spelled "Bearer", and ignores a
	// field with any other scheme.
	ExactBearer bool
	// DangerouslyAcceptQueryParameter names a query parameter that carries the key.
	// URLs end up in logs, histories and Referer fields, and the keys with them.
	DangerouslyAcceptQueryParameter string

	// Environment is the environment whose keys are accepted; empty means any.
	Environment string
	// Realm is the realm of the challenge; empty means none.
	Realm string

	// Errors replaces the errors for some verdicts. The status of each must be from 400
	// to 499, or for [Unavailable] 500 or above. A key that was never issued and one that
	// is not valid here and now get the same response unless they differ here. Only a
	// caller who has the text of a key ever gets the errors for Revoked, Expired, Disabled
	// and WrongNetwork.
	Errors map[Verdict]*usher.Error
	// Check, if not nil, is called for each request with a valid key, for instance to ask
	// whether its owner is still a customer. If Check returns an [*usher.Error] with a
	// status from 400 to 499, the request is refused with it; any other error refuses the
	// request as Unavailable. Check must not change k.
	Check func(ctx context.Context, k *Key) error
	// Principal, if not nil, returns the principal of a key, given the standard one. It may
	// add the scopes of a role, for instance. It is called when a key is looked up, not
	// for each request. Whatever it returns, the ID and the Line are the key's and the Kind
	// is [usher.KindAPIKey].
	Principal func(k *Key, standard usher.Principal) usher.Principal

	// Audit, if not nil, is called with the verdict on each request that carries a key,
	// on the goroutine of the request. If Audit panics, a valid key is refused as
	// Unavailable: no request passes unrecorded.
	Audit func(ctx context.Context, e Event)
	// LastUseInterval is how often the times of last use are written, in one batch; zero
	// means every 10 seconds, a negative value never. [Authenticator.Close] writes the
	// last batch.
	LastUseInterval time.Duration

	// OnError, if not nil, is called with each failure of the store and of the callbacks
	// above. Nil logs to [slog.Default], at most one line a second.
	OnError func(ctx context.Context, err error)
	// MeterProvider makes the counter usher.apikey.verifications, which has the
	// verdict as the attribute usher.apikey.result; nil means the global one.
	MeterProvider metric.MeterProvider
}

// An Authenticator verifies the API key in a request. It is an
// [usher.Authenticator], [usher.Detector], [usher.CarrierLister] and
// [usher.UseRecorder], and is safe for concurrent use.
type Authenticator struct {
	carriers
	verifier
	challenge string
	refusals  *refusals
	audit     func(context.Context, Event)
	report    *report.Reporter
	lastUse   *lastUse // nil if no use is recorded
	decisions *telemetry.Decisions
}

var (
	_ usher.Detector      = (*Authenticator)(nil)
	_ usher.CarrierLister = (*Authenticator)(nil)
	_ usher.UseRecorder   = (*Authenticator)(nil)
)

// New returns an Authenticator, or all faults of c. Unless c.LastUseInterval is
// negative, it starts a goroutine that ends with [Authenticator.Close].
func New(c Config) (*Authenticator, error) {
	faults := config.Of[usher.ConfigError]("apikey.Config")
	v, store := newVerifier(&c, faults)
	a := &Authenticator{
		carriers: newCarriers(&c, faults),
		verifier: v,
		audit:    c.Audit,
		report:   report.New("apikey", c.OnError),
	}
	a.challenge = usher.Challenge("ApiKey", "realm", c.Realm)
	invalid := a.challenge
	if a.bearer {
		a.challenge = usher.Challenge("Bearer", "realm", c.Realm)
		// RFC 6750, section 3.1.
		invalid = usher.Challenge("Bearer", "realm", c.Realm, "error", usher.CodeInvalidToken)
	}
	a.refusals = newRefusals(c.Errors, a.challenge, invalid, faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	timeout := cmp.Or(c.StoreTimeout, storeTimeout)
	if c.Manager != nil {
		timeout = cmp.Or(c.StoreTimeout, c.Manager.timeout)
	}
	store = guarded(store, timeout, cmp.Or(c.MaxLookups, maxCalls))
	a.fetch = fetchFrom(store)
	a.decisions = telemetry.NewDecisions(telemetry.Config{
		MeterProvider: c.MeterProvider,
		Scope:         "github.com/usher-go/usher/apikey",
		Counter:       "usher.apikey.verifications",
		Description:   "Requests by the verdict on their API key.",
		Attribute:     "usher.apikey.result",
		Outcomes:      verdictNames[:],
	})
	if c.LastUseInterval >= 0 {
		a.lastUse = newLastUse(store, cmp.Or(c.LastUseInterval, 10*time.Second), a.report)
	}
	return a, nil
}

// newVerifier returns the verifier of c, which cannot fetch keys yet, and the store of
// the keys.
func newVerifier(c *Config, faults config.Faults[usher.ConfigError]) (v verifier, store Store) {
	v = verifier{
		env:       c.Environment,
		check:     c.Check,
		principal: c.Principal,
		foreign:   c.Check != nil || c.Principal != nil,
	}
	store = c.Store
	if m := c.Manager; m != nil {
		faults.If(c.Store != nil, "Store", "must be nil if Manager is set")
		faults.If(len(c.Peppers) > 0, "Peppers", "must be empty if Manager is set")
		store, v.hasher = m.source, m.hasher
		v.add(m.format)
	} else {
		faults.If(c.Store == nil, "Store", "is required unless Manager is set")
		faults.If(len(c.Formats) == 0, "Formats", "is required unless Manager is set")
		v.hasher = newHasher(c.Peppers, faults)
	}
	for i, f := range c.Formats {
		if f, ok := compileFormat(f, faults, fmt.Sprintf("Formats[%d]", i)); ok {
			v.add(f)
		}
	}
	faults.If(c.StoreTimeout < 0, "StoreTimeout", config.NotNegative)
	faults.If(c.MaxLookups < 0, "MaxLookups", config.NotNegative)
	return v, store
}

// newCarriers returns the carriers that c accepts keys from.
func newCarriers(c *Config, faults config.Faults[usher.ConfigError]) carriers {
	header := textproto.CanonicalMIMEHeaderKey(c.Header)
	if header == "" && !c.Bearer {
		header = "X-Api-Key"
	}
	faults.If(c.Header != "" && !httptoken.Valid(c.Header) || header == "Authorization" || header == "Cookie",
		"Header", "must be the name of a header field other than Authorization and Cookie")
	return carriers{header: header, bearer: c.Bearer, exact: c.ExactBearer, query: c.DangerouslyAcceptQueryParameter}
}

// Close writes the recorded times of last use and ends the goroutine that writes them. It
// returns the error of the last write, within 10 seconds even if the store hangs. The
// Authenticator still verifies keys afterwards, but records no use.
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
		e, p, v, err = a.verify(r, text, now)
	}
	if v != Accepted {
		err = a.refuse(v, err)
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
			p, v, err = nil, Unavailable, a.refuse(Unavailable, failed)
		default:
			a.report.Error(ctx, failed)
		}
	}
	if v == Unavailable {
		a.report.Error(ctx, errors.Unwrap(err))
	}
	a.decisions.Record(ctx, int(v))
	return p, err
}

// note passes e to Config.Audit.
func (a *Authenticator) note(r *http.Request, e Event) error {
	return callback("Config.Audit", func() error {
		e.Actor.Address = clientip.Of(r)
		a.audit(r.Context(), e)
		return nil
	})
}

// refuse returns the error for v. The cause may be nil.
func (a *Authenticator) refuse(v Verdict, cause error) error {
	if v == Denied {
		return cause
	}
	return (*usher.Error)(a.refusals.Error(v, cause))
}

// Detect implements [usher.Detector]. It is certain about a key that begins with a prefix
// of one of the formats.
func (a *Authenticator) Detect(r *http.Request) (carrier string, certain bool) {
	carrier, text := a.detect(r)
	return carrier, slices.ContainsFunc(a.formats, func(f format) bool { return f.claims(text) })
}

// Carriers implements [usher.CarrierLister].
func (a *Authenticator) Carriers() []string { return a.list() }

// Challenge implements [usher.Detector]. The scheme is Bearer if that is accepted, and
// otherwise ApiKey, which is not registered but is in common use.
func (a *Authenticator) Challenge() string { return a.challenge }

// RecordUse implements [usher.UseRecorder]. It records that the client of r uses the key
// of p now; the next batch writes that to the store.
func (a *Authenticator) RecordUse(r *http.Request, p *usher.Principal) {
	if a.lastUse != nil {
		a.lastUse.note(p.ID, clientip.Of(r))
	}
}
