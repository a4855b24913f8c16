package apikey

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/telemetry"
)

// Config configures an [Authenticator].
type Config struct {
	// Manager issues the keys that are accepted. The Authenticator has its store, its
	// formats and its peppers, so the two cannot differ. Required.
	Manager *Manager

	// Carriers are the places in a request that may carry a key; empty means the header
	// field X-API-Key. A request with a key in two of them is refused.
	Carriers []Carrier

	// Environment is the environment whose keys are accepted; empty means any. It must be
	// one that a format of Manager names, unless a format names none.
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
	// add the scopes of a role, for instance. It is called when a key is looked up, and
	// again after 10 seconds, not for each request. Whatever it returns, the ID and the Line
	// are the key's, the Kind is [usher.KindAPIKey], OnUse is that of the Authenticator, and
	// a derived key gets no scope and no level that the principal of its parent lacks.
	Principal func(k *Key, standard usher.Principal) usher.Principal

	// Audit, if not nil, is called with the verdict on each request that carries a key,
	// on the goroutine of the request. If Audit panics, a valid key is refused as
	// Unavailable: no request passes unrecorded.
	Audit func(ctx context.Context, e Event)
	// OnUse, if not nil, is called with each use of a key, whatever its status: each request
	// that [usher.Authenticate] has admitted, when its handler has returned or panicked, or
	// first flushes or hijacks the connection. It runs on the goroutine that does so, and the
	// response may be incomplete until OnUse returns. R is the request that the
	// handler got; its context has the request ID of an envelope. A panic of OnUse is
	// reported to OnError and changes nothing else.
	OnUse func(r *http.Request, u Usage)
	// IsSuccess reports whether a use with this status moves LastUsedAt and LastUsedFrom
	// of the key. Nil means every status below 400.
	IsSuccess func(status int) bool
	// LastUseInterval is how often the times of last use are written, in one batch; zero
	// means every 10 seconds, a negative value never. [Authenticator.Close] writes the
	// last batch.
	LastUseInterval time.Duration

	// OnError, if not nil, is called with each failure of the store and of the callbacks
	// above. Nil logs to [slog.Default], at most one line a second.
	OnError func(ctx context.Context, err error)
	// MeterProvider makes the counter usher.apikey.verifications, which has the
	// verdict as the attribute usher.apikey.result, and measures the calls of the store as
	// usher.store.operation.duration. Nil means the global one.
	MeterProvider metric.MeterProvider
}

// An Authenticator verifies the API key in a request. It is an
// [usher.Authenticator], [usher.Detector] and [usher.CarrierLister], and is safe for
// concurrent use.
type Authenticator struct {
	carriers
	verifier
	challenge string
	refusals  *refusals
	audit     func(context.Context, Event)
	report    *report.Reporter
	lastUse   *lastUse // nil if no use is recorded
	success   func(status int) bool
	usage     func(*http.Request, Usage)
	decisions *telemetry.Decisions
}

var (
	_ usher.Detector      = (*Authenticator)(nil)
	_ usher.CarrierLister = (*Authenticator)(nil)
)

// New returns an Authenticator, or all faults of c. Unless c.LastUseInterval is
// negative, it starts a goroutine that ends with [Authenticator.Close]. [Open] returns an
// Authenticator with its Manager.
func New(c Config) (*Authenticator, error) {
	faults := config.Of[usher.ConfigError]("apikey.Config")
	faults.If(c.Manager == nil, "Manager", config.Required)
	a := newAuthenticator(&c, faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	a.start(&c)
	return a, nil
}

// newAuthenticator returns the Authenticator of c, which may lack a Manager. It verifies
// no keys until it is started.
func newAuthenticator(c *Config, faults config.Faults[usher.ConfigError]) *Authenticator {
	a := &Authenticator{
		carriers: newCarriers(c.Carriers, faults),
		verifier: newVerifier(c, faults),
		audit:    c.Audit,
		success:  c.IsSuccess,
		usage:    c.OnUse,
		report:   report.New("apikey", c.OnError),
	}
	var invalid string
	a.challenge, invalid = a.challenges(c.Realm)
	a.refusals = newRefusals(c.Errors, a.challenge, invalid, faults)
	return a
}

// start connects a to the store of its Manager.
func (a *Authenticator) start(c *Config) {
	store := guarded(c.Manager.source, c.Manager.timeout, c.Manager.maxLookups, c.MeterProvider)
	a.fetch = fetchFrom(store)
	a.decisions = verifications.Decisions(c.MeterProvider)
	if c.LastUseInterval >= 0 {
		a.lastUse = newLastUse(store, cmp.Or(c.LastUseInterval, 10*time.Second), a.report)
	}
	a.verifier.onUse = a.onUse
}

// newVerifier returns the verifier of c, which cannot fetch keys yet.
func newVerifier(c *Config, faults config.Faults[usher.ConfigError]) verifier {
	v := verifier{
		front:     newFront(),
		env:       c.Environment,
		check:     c.Check,
		principal: c.Principal,
		foreign:   c.Check != nil || c.Principal != nil,
	}
	if c.Manager == nil {
		return v
	}
	v.hasher, v.legacies = c.Manager.hasher, c.Manager.legacies
	for _, f := range c.Manager.formats {
		v.add(f)
	}
	faults.If(c.Environment != "" && !slices.ContainsFunc(c.Manager.formats, func(f Format) bool { return names(f, c.Environment) }),
		"Environment", "must be an environment of a format of Manager")
	return v
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
	if v == Accepted {
		e, p, v, err = a.verify(r, text)
	}
	if v != Accepted {
		err = a.refuse(v, err)
	}
	if a.audit != nil {
		event := Event{Time: time.Now(), Action: "authenticate", Verdict: v, Actor: Actor{Principal: p}, Err: err}
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
		if e, ok := errors.AsType[*usher.Error](cause); ok && errors.Is(e, usher.ErrNoCredential) {
			// The request has a credential, so it must not count as anonymous.
			denied := *e
			return &denied
		}
		return cause
	}
	return (*usher.Error)(a.refusals.Error(v, cause))
}

// Detect implements [usher.Detector]. It is certain about a key that begins with a prefix
// of one of the formats.
func (a *Authenticator) Detect(r *http.Request) (carrier string, certain bool) {
	carrier, text := a.detect(r)
	return carrier, a.claims(text)
}

// claims reports whether text begins with a prefix of one of the formats.
func (a *Authenticator) claims(text string) bool {
	return slices.ContainsFunc(a.formats, func(f format) bool { return f.claims(text) })
}

// Carriers implements [usher.CarrierLister].
func (a *Authenticator) Carriers() []string { return a.list() }

// Challenge implements [usher.Detector]. The challenge has the first scheme of the
// carriers. Without one it has ApiKey, which is not registered, and names a carrier in
// the terms of the security schemes of OpenAPI: ApiKey in="header", name="X-API-Key". It
// has Basic, for which a browser asks its user, only if there is no other carrier.
func (a *Authenticator) Challenge() string { return a.challenge }
