package jwtauth

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/jose"
)

// Config configures a [Verifier].
type Config struct {
	// Issuers are the issuers whose tokens are accepted. At least one is required, unless
	// ResolveIssuer is set. Their names must differ, Aliases included.
	Issuers []TrustedIssuer
	// ResolveIssuer, if not nil, returns the issuer of tokens whose iss is none of Issuers,
	// for services whose tenants have issuers of their own. It returns an error that matches
	// [UnknownIssuer] for an iss that it does not know, which is remembered for a minute;
	// any other error, a panic, an issuer with faults, or no response within 3 seconds
	// leads to a 503. The Issuer of the result must be iss, or iss one of its Aliases.
	//
	// The iss is text of the client: of at most 1,024 bytes without control characters,
	// in a token that nobody has verified. Look it up in a list, and never make a URL of
	// it: a client could make this service call any host. The example Config (Tenants)
	// shows how. If each tenant publishes keys of its own, take them from a [jwk.Pool].
	// Requests with the same iss share a call, and at most 16 calls run at a time, or 32
	// with those for issuers that were known before.
	ResolveIssuer func(ctx context.Context, iss string) (TrustedIssuer, error)
	// IssuerCapacity is how many results of ResolveIssuer are remembered; zero means 1,024.
	// As many unknown ones are remembered in addition.
	IssuerCapacity int
	// IssuerTTL is how long a result of ResolveIssuer is used. After that time it is asked
	// again, and the tokens of an issuer that is gone are refused, remembered or not; zero
	// means 10 minutes.
	IssuerTTL time.Duration
	// Leeway is the tolerated clock skew, applied to exp, nbf and iat. Zero means 5
	// seconds, a negative number none; at most 5 minutes.
	Leeway time.Duration
	// MaxTokenLength is the length of the longest token that is parsed, in bytes; zero
	// means 16,384. It is at most 65,536. Entra ID puts up to 200 groups into a token, which
	// is then 11,000 bytes long.
	MaxTokenLength int

	// CacheCapacity is how many verified tokens are remembered; zero means 16,384,
	// a negative number none. Each takes its text, its claims and about a kilobyte.
	CacheCapacity int
	// CacheTTL limits how long a token and the result of Principal are remembered; zero
	// means 5 minutes.
	CacheTTL time.Duration
	// Revocations, if not nil, is consulted for each request with a valid token.
	Revocations Revocations
	// RevocationTimeout bounds how long a request waits for Revocations, even if they
	// ignore their context; zero means a second. After that time, or if they fail or
	// panic, the response is 503. At most 64 calls run at a time, including those that
	// hang, and 16 requests wait for each of these; any more are refused with 503 at
	// once. A [RevocationList] and a [RevocationMirror] call nothing and are not bounded.
	RevocationTimeout time.Duration

	// Header names a header field that carries the token and nothing else, in place of
	// Authorization, which is then not read: Cf-Access-Jwt-Assertion of Cloudflare Access,
	// X-Goog-Iap-Jwt-Assertion of Google's proxy, X-Forwarded-Access-Token of oauth2-proxy
	// or X-Amzn-Oidc-Accesstoken of AWS. Empty means Authorization. Such a proxy adds the
	// token because of a cookie, so the token is refused as [CrossOrigin] like one in the
	// Cookie below.
	Header string
	// ExactBearer accepts the scheme only if it is spelled "Bearer", and ignores a field
	// with any other scheme.
	ExactBearer bool
	// Cookie names a cookie that carries the token if the header field does not. A
	// browser may send several cookies of that name, for instance after their path was
	// changed. Of up to four, the only valid one counts, or the latest if all valid ones
	// are of one principal.
	//
	// A browser sends cookies with requests from any page. So a token in the cookie is
	// refused as [CrossOrigin] if the page of another origin has made the request, and the
	// request has an unsafe method or opens a WebSocket. Requests with a safe method pass:
	// they must change nothing.
	Cookie string
	// TrustedOrigins are origins such as "https://app.example.com" whose pages may use the
	// token in the Cookie or the Header, besides those of the host itself. Each has the
	// spelling of browsers: in lower case and Punycode, and without a default port, a path
	// and wildcards. To let those pages read responses, you also need CORS.
	TrustedOrigins []string
	// Realm and ResourceMetadata are sent in the challenges if they are not empty.
	// ResourceMetadata is the URL of the metadata (RFC 9728): see [NewResourceMetadata].
	Realm, ResourceMetadata string
	// Scopes are sent in the challenges: the scopes that a client should request if it has
	// no token yet, or if its token lacks a scope that [usher.Require] demands (RFC 6750,
	// section 3). Many clients request exactly these. No token needs to have them.
	Scopes []string

	// Errors replaces the errors for some verdicts. The status of each must be from 400
	// to 499, or for [Unavailable] 500 or above. The errors for Expired, NotYetValid,
	// WrongAudience, InvalidClaims, Unconfirmed and Revoked are sent only to clients
	// whose token an issuer has signed.
	Errors map[Verdict]*usher.Error
	// Check, if not nil, is called for each request with a valid token, for instance
	// to see whether its user still exists. An [*usher.Error] with a status from 400
	// to 499 is the response; any other error is [Unavailable]. Check must not change
	// t.
	Check func(ctx context.Context, t *Token) error
	// Confirm is called for each request with a valid token that is bound to a key of its
	// sender: one with a cnf claim (RFC 7800), as DPoP (RFC 9449) and TLS with client
	// certificates (RFC 8705) use it. It returns nil if r proves possession of that key,
	// and must refuse any cnf that it does not understand. An [*usher.Error] is the
	// response; any other error is [Unconfirmed]. A nil Confirm refuses these tokens,
	// because anybody who has copied one could use it. Verify, which has no request,
	// always refuses them. [Token.Claims] returns the cnf.
	Confirm func(r *http.Request, t *Token) error
	// Principal, if not nil, makes the principal of a token from the default one. It is
	// called when a token is verified, not for each request. Details is always t, and a
	// token whose principal has an empty ID is refused as [InvalidClaims]. If there are
	// several issuers, Principal must not give different subjects the same ID.
	//
	// The default principal has the kind [usher.KindJWT] and the scopes of the token. Its
	// ID is the token's issuer, a bar and its subject, or empty if there is no subject.
	// It has no Owner: if callers belong to accounts, set the Owner from a claim here, as
	// the example Config (Account) of package session does.
	Principal func(t *Token, standard usher.Principal) usher.Principal

	// OnError is called with the cause of each [Unavailable]: a failure of the keys, of
	// ResolveIssuer, Revocations, Check or Confirm. It is also called for a panic of
	// OnVerified, but for no refusal. Nil logs to [log/slog.Default], at most one line a
	// second.
	OnError func(ctx context.Context, err error)
	// MeterProvider makes the counters usher.jwt.verifications, which has the
	// verdict as the attribute usher.jwt.result, and usher.jwt.cache.lookups, with
	// hit or miss as usher.jwt.cache.result. It measures the calls of Revocations as
	// usher.store.operation.duration, and counts the tokens in the cache as
	// usher.cache.entries. Nil means the global one.
	MeterProvider metric.MeterProvider
}

// A Verifier verifies the JSON Web Token in a request. It is an [usher.Authenticator],
// [usher.Detector] and [usher.CarrierLister], and is safe for concurrent use. A Verifier
// need not be closed, but a [jwk.Remote] and a [jwk.Pool] must be.
type Verifier struct {
	authenticator
	issuers   issuers
	resolver  *resolver // nil if all issuers are configured
	leeway    time.Duration
	maxLength int
	headers   *jose.Headers
	cache     *tokenCache // nil if tokens are not remembered
}

var (
	_ usher.Detector      = (*Verifier)(nil)
	_ usher.CarrierLister = (*Verifier)(nil)
)

// New returns a Verifier, or all faults of c.
func New(c Config) (*Verifier, error) {
	f := config.Of[usher.ConfigError]("jwtauth.Config")
	v := &Verifier{
		leeway:    leeway(f, c.Leeway),
		maxLength: maxTokenLength(f, c.MaxTokenLength),
		headers:   jose.NewHeaders(),
		issuers:   newIssuers(f, c.Issuers, c.RevocationTimeout, c.MeterProvider),
	}
	f.If(len(c.Issuers) == 0 && c.ResolveIssuer == nil, "Issuers", "at least one is required")
	v.resolver = newResolver(f, &c, v.issuers)
	f.If(c.CacheTTL < 0, "CacheTTL", "must not be negative; CacheCapacity turns the cache off")
	v.authenticator = newAuthenticator(f, options{
		source:            "jwtauth.Verifier",
		verifications:     verifications,
		header:            c.Header,
		cookie:            c.Cookie,
		trustedOrigins:    c.TrustedOrigins,
		realm:             c.Realm,
		metadata:          c.ResourceMetadata,
		scopes:            c.Scopes,
		exactBearer:       c.ExactBearer,
		revocations:       c.Revocations,
		revocationTimeout: c.RevocationTimeout,
		errors:            c.Errors,
		check:             c.Check,
		confirm:           c.Confirm,
		principal:         c.Principal,
		onError:           c.OnError,
		meters:            c.MeterProvider,
	})
	v.tokens = v
	if err := f.Err(); err != nil {
		return nil, err
	}
	if c.CacheCapacity >= 0 {
		v.cache = newTokenCache(cmp.Or(c.CacheCapacity, 1<<14), cmp.Or(c.CacheTTL, 5*time.Minute), c.MeterProvider)
	}
	return v, nil
}

// leeway returns the Leeway of a Config, or its default.
func leeway(f config.Faults[usher.ConfigError], d time.Duration) time.Duration {
	f.If(d > 5*time.Minute, "Leeway", "must be at most 5 minutes")
	return max(cmp.Or(d, 5*time.Second), 0)
}

// maxTokenLength returns the MaxTokenLength of a Config, or its default.
func maxTokenLength(f config.Faults[usher.ConfigError], n int) int {
	f.If(n < 0 || n > 64<<10, "MaxTokenLength", "must be from 0 to 65536")
	return cmp.Or(n, 16<<10)
}

// Detect implements [usher.Detector]. It is certain about a JSON Web Token whose iss is
// that of one of its issuers, so that several Verifiers, or a Verifier and an
// [Introspection], share a route by issuer. With ResolveIssuer it is certain about every
// JSON Web Token: list such a Verifier last. If no authenticator that shares the carrier
// is certain, the first of them refuses the token.
func (v *Verifier) Detect(r *http.Request) (carrier string, certain bool) {
	carrier, text := v.detect(r)
	return carrier, v.recognizes(text)
}

// verifyText implements tokenVerifier.
func (v *Verifier) verifyText(ctx context.Context, text string, now time.Time) (verified, Verdict, error) {
	if len(text) > v.maxLength {
		return verified{}, Malformed, tooLong(len(text), v.maxLength)
	}
	if v.cache == nil {
		e, verdict, err := v.verifyAnew(ctx, text, now)
		return e.verified, verdict, err
	}
	h := v.cache.hash(text)
	if found := v.cache.find(ctx, h, text, now); found != nil {
		verdict, err := found.token.checkTime(now, v.leeway)
		return *found, verdict, err
	}
	fresh, verdict, err := v.verifyAnew(ctx, text, now)
	if verdict == Accepted {
		e := fresh // a copy, so that a refusal allocates none
		e.until = now.Add(v.cache.ttl)
		if exp := e.token.ExpiresAt.Add(v.leeway); !e.token.ExpiresAt.IsZero() && exp.Before(e.until) {
			e.until = exp
		}
		if until := e.issuer.until; !until.IsZero() && until.Before(e.until) {
			e.until = until
		}
		v.cache.add(h, text, &e)
	}
	return fresh.verified, verdict, err
}

// verifyAnew verifies a token: its form, its issuer, its signature with one of the
// keys of that issuer, and then its claims.
func (v *Verifier) verifyAnew(ctx context.Context, text string, now time.Time) (cacheEntry, Verdict, error) {
	parsed, err := jose.Parse(text, v.headers)
	if err != nil {
		return cacheEntry{}, Malformed, err
	}
	i := v.issuerOf(parsed.Claims)
	if i == nil {
		if i, err = v.resolver.issuer(ctx, &parsed, now); err != nil {
			return cacheEntry{}, Unavailable, err
		}
		if i == nil {
			return cacheEntry{}, UnknownIssuer, v.unknownIssuer(parsed.Claims)
		}
	}
	if verdict, err := i.checkHeader(&parsed); verdict != Accepted {
		return cacheEntry{}, verdict, err
	}
	version, verdict, err := i.verifySignature(ctx, &parsed)
	if verdict == UnknownKey || verdict == BadSignature {
		err = keyReason(i, &parsed, verdict, err)
	}
	if verdict != Accepted {
		return cacheEntry{}, verdict, err
	}
	v.headers.Keep(&parsed)
	e := cacheEntry{version: version}
	e.issuer, e.token = i, &Token{payload: parsed.Payload}
	if verdict, err := i.checkClaims(e.token, parsed.Claims, now, v.leeway); verdict != Accepted {
		return cacheEntry{}, verdict, err
	}
	if e.principal = v.newPrincipal(e.token, usher.KindJWT); e.principal == nil {
		return cacheEntry{}, InvalidClaims, errNoID
	}
	if i.onVerified != nil {
		v.callOnVerified(ctx, i, e.token)
	}
	return e, Accepted, nil
}

func (v *Verifier) callOnVerified(ctx context.Context, i *issuer, t *Token) {
	if err := guard.Run(func() error { i.onVerified(ctx, t); return nil }); err != nil {
		v.reporter.Error(ctx, fmt.Errorf("jwtauth: OnVerified: %w", err))
	}
}

// issuerOf returns the issuer of the Config that the claims name, or nil.
func (v *Verifier) issuerOf(claims []jose.Member) *issuer {
	value, ok := jose.Find(claims, "iss")
	if !ok || value == "null" {
		return v.issuers.nameless
	}
	name, ok := jose.Unquote(value)
	if !ok {
		return nil
	}
	return v.issuers.byName[name]
}
