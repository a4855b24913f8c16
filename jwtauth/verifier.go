package jwtauth

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jose"
)

// Config configures a [Verifier].
type Config struct {
	// Issuers are those whose tokens are accepted. At least one is required, and
	// no two may have one name.
	Issuers []TrustedIssuer
	// Leeway is how far the clocks of issuers may be off: so much longer a token
	// is accepted after its exp, and so much earlier before its nbf and iat. Zero
	// means 5 seconds, a negative one none; at most 5 minutes.
	Leeway time.Duration
	// MaxTokenLength is the longest token that is looked at, in bytes; zero means
	// 8192, and at most 65,536.
	MaxTokenLength int

	// CacheCapacity is how many verified tokens are remembered; zero means 16,384,
	// a negative number none. Each takes its claims and about a kilobyte.
	CacheCapacity int
	// CacheTTL is how long a token is remembered at most, and with it the answer
	// of Principal; zero means 5 minutes.
	CacheTTL time.Duration
	// Revocations, if not nil, is asked about each request with a good token.
	Revocations Revocations
	// RevocationTimeout bounds how long a request waits for Revocations, also if these
	// ignore their context; zero means a second. Then, or if they fail or panic, the
	// response is 503. At most 64 calls run at a time, those that hang included, and 16
	// wait for each; further requests are 503 at once. A [RevocationList], which waits
	// for nothing, is asked directly.
	RevocationTimeout time.Duration

	// ExactBearer takes only the scheme "Bearer" written so, and ignores a field
	// with another.
	ExactBearer bool
	// Cookie names a cookie that carries the token where there is no Authorization
	// field with one. A browser sends cookies whoever asks it to, so give it
	// SameSite, or check the origin of requests that change anything. Of up to four
	// cookies of that name, which a browser sends for instance after a change of
	// their path, the only valid one counts, or the latest of one principal.
	Cookie string
	// Realm and ResourceMetadata, the URL of the metadata of RFC 9728, stand in
	// the challenges, if they are not empty.
	Realm, ResourceMetadata string

	// Answers replaces the answers to some verdicts, each by an error with a
	// status from 400 to 499, or for [Unavailable] from 500. The answers to
	// Expired, NotYetValid, WrongAudience, InvalidClaims, Unconfirmed and Revoked go
	// only to those whose token an issuer has signed.
	Answers map[Verdict]*usher.Error
	// Check, if not nil, is asked about each request with a good token, for
	// instance whether its user still exists. An [*usher.Error] with a status from
	// 400 to 499 is the answer; any other error gets that to Unavailable. Check
	// must not change t.
	Check func(ctx context.Context, t *Token) error
	// Confirm is asked about each request with a valid token that is bound to a key
	// of its sender: one with a cnf claim (RFC 7800), as DPoP (RFC 9449) and TLS with
	// client certificates (RFC 8705) use it. It returns nil if r proves possession of
	// that key, and must refuse each cnf that it does not know. An [*usher.Error] is
	// the response; any other error is [Unconfirmed]. Nil refuses these tokens, as
	// whoever has copied one could use it, and so does Verify in any case, which has
	// no request. [Token.Claims] gives the cnf.
	Confirm func(r *http.Request, t *Token) error
	// Principal, if not nil, makes the principal of a token from the usual one. It
	// is called when a token is verified and not for each request. Details is t
	// whatever it returns, and a token for which ID is empty is refused as
	// [InvalidClaims]. With several issuers it must see to it that no two give one
	// ID to different subjects.
	//
	// The usual principal has the kind [usher.KindJWT], the scopes of the token,
	// and as ID its issuer, a bar and its subject, or nothing if it has no subject.
	Principal func(t *Token, usual usher.Principal) usher.Principal

	// MeterProvider makes the counters usher.jwt.verifications, which has the
	// verdict as the attribute usher.jwt.result, and usher.jwt.cache.lookups, with
	// hit or miss as usher.jwt.cache.result; nil means the global one.
	MeterProvider metric.MeterProvider
}

// A Verifier judges the JSON Web Token in a request. It is an
// [usher.Authenticator], [usher.Detector] and [usher.CarrierLister], and is safe for
// concurrent use. It has nothing to close; a [JWKS] has.
type Verifier struct {
	door
	issuers map[string]*trusted
	leeway  time.Duration
	longest int
	cache   *tokenCache // nil if nothing is remembered
}

var (
	_ usher.Detector      = (*Verifier)(nil)
	_ usher.CarrierLister = (*Verifier)(nil)
)

// New returns a Verifier, or all faults of c.
func New(c Config) (*Verifier, error) {
	errs := boundFaults("jwtauth.Config", c.Leeway, c.RevocationTimeout, c.MaxTokenLength)
	if c.CacheTTL < 0 {
		errs = append(errs, &usher.ConfigError{
			Field:  "jwtauth.Config.CacheTTL",
			Reason: "must not be negative; CacheCapacity turns the cache off",
		})
	}
	v := &Verifier{
		leeway:  max(orDefault(c.Leeway, defaultLeeway), 0),
		longest: orDefault(c.MaxTokenLength, defaultTokenLength),
	}
	var more []error
	v.issuers, more = newIssuers(c.Issuers, orDefault(max(c.RevocationTimeout, 0), defaultRevocationTimeout))
	errs = append(errs, more...)
	v.door, more = newDoor(doorConfig{
		path:        "jwtauth.Config",
		cookie:      c.Cookie,
		realm:       c.Realm,
		metadata:    c.ResourceMetadata,
		exact:       c.ExactBearer,
		revocations: c.Revocations,
		patience:    c.RevocationTimeout,
		answers:     c.Answers,
		check:       c.Check,
		confirm:     c.Confirm,
		principal:   c.Principal,
		meters:      c.MeterProvider,
		counter:     "usher.jwt.verifications",
		attribute:   "usher.jwt.result",
	})
	errs = append(errs, more...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.CacheCapacity >= 0 {
		v.cache = newTokenCache(orDefault(c.CacheCapacity, 1<<14), orDefault(c.CacheTTL, 5*time.Minute), c.MeterProvider)
	}
	return v, nil
}

const (
	defaultLeeway      = 5 * time.Second
	defaultTokenLength = 8 << 10
)

// boundFaults returns what is wrong with three fields that several Configs have.
func boundFaults(path string, leeway, revocationTimeout time.Duration, tokenLength int) (errs []error) {
	if leeway > 5*time.Minute {
		errs = append(errs, &usher.ConfigError{Field: path + ".Leeway", Reason: "must be at most 5 minutes"})
	}
	if revocationTimeout < 0 {
		errs = append(errs, &usher.ConfigError{Field: path + ".RevocationTimeout", Reason: "must not be negative"})
	}
	if tokenLength < 0 || tokenLength > 64<<10 {
		errs = append(errs, &usher.ConfigError{Field: path + ".MaxTokenLength", Reason: "must be from 0 to 65536"})
	}
	return errs
}

func orDefault[T ~int | ~int64](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// Authenticate returns the principal of the token in r, an error that matches
// [usher.ErrNoCredential] if there is none, or an [*usher.Error] whose cause is
// the [Verdict]. A token that is remembered costs no allocation, unless it comes
// in a cookie.
func (v *Verifier) Authenticate(r *http.Request) (*usher.Principal, error) {
	return v.authenticate(r, v)
}

// Verify judges a token that has come by another way than in a request. Its
// errors are those of Authenticate.
func (v *Verifier) Verify(ctx context.Context, token string) (*Token, error) {
	return v.verify(ctx, token, v)
}

// Detect implements [usher.Detector]. It is certain of what has the form of a
// JSON Web Token.
func (v *Verifier) Detect(r *http.Request) (carrier string, certain bool) {
	carrier, text := v.detect(r)
	_, _, certain = jose.Split(text)
	return carrier, certain
}

// Challenge implements [usher.Detector].
func (v *Verifier) Challenge() string { return v.challenge }

// judge returns what is remembered of a token or else verifies it.
func (v *Verifier) judge(ctx context.Context, text string, now time.Time) (verified, Verdict, error) {
	if len(text) > v.longest {
		return verified{}, Malformed, nil
	}
	if v.cache == nil {
		e, verdict, err := v.examine(ctx, text, now)
		return e.verified, verdict, err
	}
	h := v.cache.hash(text)
	if found, ok := v.cache.find(ctx, h, now); ok {
		return found, found.token.timely(now, v.leeway), nil
	}
	e, verdict, err := v.examine(ctx, text, now)
	if verdict == Accepted {
		e.until = now.Add(v.cache.ttl)
		if exp := e.token.ExpiresAt.Add(v.leeway); !e.token.ExpiresAt.IsZero() && exp.Before(e.until) {
			e.until = exp
		}
		v.cache.add(h, &e)
	}
	return e.verified, verdict, err
}

// examine verifies a token: its form, who is said to have issued it, with which
// of that issuer's keys it is signed, and then what it says.
func (v *Verifier) examine(ctx context.Context, text string, now time.Time) (remembered, Verdict, error) {
	g, err := jose.Parse(text)
	if err != nil {
		return remembered{}, Malformed, err
	}
	i := v.issuerOf(g.Claims)
	if i == nil {
		return remembered{}, UnknownIssuer, nil
	}
	if verdict := i.checkHeader(&g); verdict != Accepted {
		return remembered{}, verdict, nil
	}
	version, verdict, err := i.verifySignature(ctx, &g)
	if verdict != Accepted {
		return remembered{}, verdict, err
	}
	e := remembered{version: version}
	e.issuer = i
	e.token = &Token{payload: g.Payload}
	if verdict := i.checkClaims(e.token, g.Claims, now, v.leeway); verdict != Accepted {
		return remembered{}, verdict, nil
	}
	if e.principal = v.principalOf(e.token, usher.KindJWT); e.principal == nil {
		return remembered{}, InvalidClaims, nil
	}
	return e, Accepted, nil
}

// issuerOf returns the issuer that the claims name, or nil.
func (v *Verifier) issuerOf(claims []jose.Member) *trusted {
	value, _ := jose.Find(claims, "iss")
	name, ok := jose.Unquote(value)
	if !ok {
		return nil
	}
	return v.issuers[name]
}
