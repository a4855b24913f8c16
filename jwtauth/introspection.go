package jwtauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/internal/loader"
	"github.com/usher-go/usher/internal/outbound"
	"github.com/usher-go/usher/internal/shard"
	"github.com/usher-go/usher/internal/telemetry"
)

// An Introspection asks the authorization server about each token (RFC 7662). It is for
// opaque tokens; a [Verifier] verifies JSON Web Tokens without a call. It is an
// [usher.Authenticator], [usher.Detector] and [usher.CarrierLister], and is safe for
// concurrent use.
//
// Concurrent requests with one token share one call. If the server does not respond, or
// not as RFC 7662 specifies, the response is a 503, which is not remembered.
type Introspection struct {
	authenticator
	*hasher
	url       string
	client    *http.Client
	header    func() http.Header // of each call; fmt prints no secrets that a func returns
	issuer    string
	audiences []string // nil accepts any
	required  []string
	scopes    []claimPath
	prefix    string
	ttl       time.Duration
	leeway    time.Duration
	maxLength int
	responses *loader.Cache[tokenHash, *response]
	durations *telemetry.Timer
}

// A response is the server's response about a token.
type response struct {
	verified
	verdict Verdict
	reason  error // for a verdict that refuses the token, or nil
}

var (
	_ usher.Detector      = (*Introspection)(nil)
	_ usher.CarrierLister = (*Introspection)(nil)
)

// refusedTTL is how long a refusal is remembered.
const refusedTTL = 5 * time.Second

// NewIntrospection returns an Introspection, or all faults of c.
func NewIntrospection(c IntrospectionConfig) (*Introspection, error) {
	f := config.Of[usher.ConfigError]("jwtauth.IntrospectionConfig")
	c.validate(f)
	i := &Introspection{
		hasher:    newHasher(),
		url:       c.Endpoint,
		header:    c.header().Clone,
		issuer:    c.Issuer,
		audiences: slices.Clone(c.Audiences),
		required:  slices.Clone(c.RequiredClaims),
		scopes:    scopeClaims(c.ScopeClaims),
		prefix:    c.TokenPrefix,
		ttl:       cmp.Or(c.CacheTTL, 30*time.Second),
		leeway:    leeway(f, c.Leeway),
		maxLength: maxTokenLength(f, c.MaxTokenLength),
		authenticator: newAuthenticator(f, options{
			source:            "jwtauth.Introspection",
			verifications:     introspections,
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
		}),
	}
	i.tokens = i
	if err := f.Err(); err != nil {
		return nil, err
	}
	if !c.DangerouslyAcceptWithoutExpiry {
		i.required = append(i.required, "exp")
	}
	i.client = outbound.SameHost(c.Client)
	// Following a redirect would send the token elsewhere.
	i.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	capacity := cmp.Or(c.CacheCapacity, 1<<14)
	i.responses = loader.New[tokenHash](loader.Config[*response]{
		Lifetime:         i.lifetime,
		Capacity:         capacity,
		NegativeCapacity: capacity / 4,
		Timeout:          cmp.Or(c.Timeout, 3*time.Second),
		MaxFetches:       cmp.Or(c.MaxCalls, 64),
		IsResult: func(err error) bool {
			_, ok := errors.AsType[tokenError](err)
			// A Principal function that cannot handle some claims panics only for those.
			_, panicked := errors.AsType[*guard.PanicError](err)
			return ok || panicked
		},
	}).Measured(c.MeterProvider, shard.IntrospectedTokens, shard.RefusedTokens)
	i.durations = introspectionDuration.Timer(c.MeterProvider, nil)
	return i, nil
}

// Detect implements [usher.Detector]. It is certain about text that does not have the
// form of a JSON Web Token, and about a token whose iss is its Issuer, so that a [Verifier]
// of other issuers can share the route. About text that only a less strict parser would
// take for a JSON Web Token it is not certain: list the Verifier first, and it refuses such
// text. If API keys share the field, list their authenticator before this one.
func (i *Introspection) Detect(r *http.Request) (carrier string, certain bool) {
	carrier, text := i.detect(r)
	if text == "" {
		return carrier, false
	}
	if len(text) > i.maxLength {
		_, _, isToken := jose.Split(text)
		return carrier, !isToken
	}
	claims, isToken := unverified(text)
	if !isToken {
		return carrier, !resemblesToken(text)
	}
	value, ok := jose.Find(claims, "iss")
	if !ok {
		return carrier, false
	}
	iss, _ := jose.Unquote(value)
	return carrier, iss == i.issuer
}

// verifyText implements tokenVerifier.
func (i *Introspection) verifyText(ctx context.Context, text string, now time.Time) (verified, Verdict, error) {
	if len(text) > i.maxLength {
		return verified{}, Malformed, tooLong(len(text), i.maxLength)
	}
	if strings.ContainsFunc(text, jose.NotToken68) {
		return verified{}, Malformed, errCharacters
	}
	if !strings.HasPrefix(text, i.prefix) || slices.ContainsFunc(refreshPrefixes[:], func(p string) bool { return strings.HasPrefix(text, p) }) {
		return verified{}, WrongType, errPrefix
	}
	h := i.hash(text)
	e, ok := i.responses.Cached(h, now)
	if !ok {
		var err error
		if e, err = i.ask(ctx, h, text); err != nil {
			return verified{}, Unavailable, err
		}
	}
	if e.verdict != Accepted {
		return verified{}, e.verdict, e.reason
	}
	verdict, err := e.token.checkTime(now, i.leeway)
	return e.verified, verdict, err
}

// ask asks the server about a token. All requests that have the token at the time share
// one call.
func (i *Introspection) ask(ctx context.Context, h tokenHash, text string) (*response, error) {
	return i.responses.Load(ctx, h, func(ctx context.Context) (*response, error) {
		body, err := i.call(ctx, text)
		if err != nil {
			return nil, err
		}
		e := new(response)
		if e.verdict, err = i.read(e, body); err != nil {
			return nil, tokenError{err}
		}
		return e, nil
	})
}

// A tokenError is a response that concerns one token. It does not count as a failure of
// the server: a client that sends many such tokens must not make other clients' tokens
// unavailable.
type tokenError struct{ error }

func (e tokenError) Unwrap() error { return e.error }

// concernsToken reports whether a call may have failed because of its token: the response
// is too long, or the server refuses this request (not this service) or fails to process
// it. A 500 may have any cause, but the server has responded.
func concernsToken(err error) bool {
	var status outbound.StatusError
	if !errors.As(err, &status) {
		return errors.Is(err, outbound.ErrTooLong)
	}
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusInternalServerError:
		return true
	default:
		return false
	}
}

// lifetime returns how long a response is kept, and whether it is negative. All refusals
// are kept, or a holder of a token for another service could cause a call by each request.
func (i *Introspection) lifetime(e *response) (ttl time.Duration, negative bool) {
	if e.verdict == Accepted {
		return i.ttl, false
	}
	return min(i.ttl, refusedTTL), true
}

// call sends the token and returns the body of the response.
func (i *Introspection) call(ctx context.Context, text string) ([]byte, error) {
	form := url.Values{"token": {text}, "token_type_hint": {"access_token"}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, strings.NewReader(form))
	if err != nil {
		return nil, err
	}
	r.Header = i.header()
	const most = 64 << 10
	began := time.Now()
	body, err := outbound.Do(i.client, r, most)
	i.durations.Record(ctx, began, "", telemetry.CallFailureOf(ctx, err))
	if err != nil {
		concerns := concernsToken(err)
		if err = fmt.Errorf("jwtauth: introspection: %w", err); concerns {
			err = tokenError{err}
		}
		return nil, err
	}
	return body, nil
}

// read fills in e from the response of the server, and returns the verdict on the
// token, or an error if the response is invalid.
func (i *Introspection) read(e *response, body []byte) (Verdict, error) {
	text, members, err := jose.ParseObject(nil, body)
	if err != nil {
		return 0, fmt.Errorf("jwtauth: the response to an introspection is invalid: %w", err)
	}
	switch active, _ := jose.Find(members, "active"); active {
	case "true":
	case "false":
		return Inactive, nil
	default:
		return 0, errors.New("jwtauth: the response to an introspection has no boolean active")
	}
	members = i.meant(members)
	e.token = &Token{Issuer: i.issuer, payload: text}
	verdict, reason := i.check(e.token, members)
	// A token of a user whom the response only names is not the client's own.
	e.token.own = !present(members, "username")
	if verdict == Accepted {
		if e.principal = i.newPrincipal(e.token, usher.KindOAuth); e.principal == nil {
			verdict, reason = InvalidClaims, errNoID
		}
	}
	e.reason = reason
	return verdict, nil
}

// check fills in token from the members of a response about it, and returns the verdict on
// them, and its reason.
func (i *Introspection) check(token *Token, members []jose.Member) (Verdict, error) {
	if jose.ResponseNames.Confused(members) || !token.readClaims(members, i.scopes) {
		return InvalidClaims, invalidClaim(members)
	}
	if got := token.Issuer; got != i.issuer {
		return InvalidClaims, reason(func() string { return fmt.Sprintf("iss is %s, want %s", quoted(got), quoted(i.issuer)) })
	}
	if !token.isAccess(members) {
		return WrongType, notAccess(members)
	}
	for _, name := range i.required {
		if !present(members, name) {
			return InvalidClaims, missingClaim(members, name)
		}
	}
	if len(i.audiences) > 0 && !overlap(token.Audience, i.audiences) {
		return WrongAudience, wrongAudience("aud", token.Audience, i.audiences)
	}
	return token.checkTime(time.Now(), i.leeway)
}

// meant returns the members of a response that have a meaning. Servers send null for what
// a token does not have (RFC 7662, section 2.2, makes all members optional). If no audience
// is required, an aud that is not valid, such as an empty list, does not matter either.
func (i *Introspection) meant(members []jose.Member) []jose.Member {
	return slices.DeleteFunc(members, func(m jose.Member) bool {
		if m.Name == "aud" && len(i.audiences) == 0 {
			_, valid := audience(m.Value)
			return !valid
		}
		return m.Value == "null"
	})
}

// refreshPrefixes are the prefixes of refresh tokens that the responses of their servers
// do not identify.
var refreshPrefixes = [...]string{"ory_rt_", "authelia_rt_"}

// isAccess reports whether a response may be about an access token, and sets t.bound if
// the token is bound to a key of its sender.
func (t *Token) isAccess(members []jose.Member) bool {
	if present(members, "token_type") {
		value, _ := jose.Find(members, "token_type")
		switch kind, _ := jose.Unquote(value); {
		case strings.EqualFold(kind, "Bearer"):
		case strings.EqualFold(kind, "DPoP"), strings.EqualFold(kind, "PoP"):
			t.bound = true
		default:
			return false
		}
	}
	if present(members, "token_use") {
		value, _ := jose.Find(members, "token_use")
		if use, _ := jose.Unquote(value); !strings.EqualFold(use, "access") && !strings.EqualFold(use, "access_token") {
			return false
		}
	}
	return !isRefreshToken(members)
}
