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

	"golang.org/x/sync/singleflight"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/internal/outbound"
	"github.com/usher-go/usher/internal/shard"
)

// An Introspection asks the authorization server about each token (RFC 7662). It
// is for opaque tokens; a [Verifier] needs no call. It is an
// [usher.Authenticator], [usher.Detector] and [usher.CarrierLister], and is safe for
// concurrent use.
//
// Requests with one token share one call. A server that does not respond, or not as
// RFC 7662 specifies, is a 503, which is not remembered.
type Introspection struct {
	authenticator
	*hasher
	url       string
	client    *http.Client
	header    http.Header
	issuer    string
	audiences []string // nil accepts any
	required  []string
	scopes    []string
	prefix    string
	ttl       time.Duration
	leeway    time.Duration
	maxLength int
	active    *shard.Cache[tokenHash, *activeToken] // nil if nothing is remembered
	inactive  *shard.Cache[tokenHash, time.Time]
	calls     *guard.Guard
	flights   singleflight.Group
}

// An activeToken is one that the server has called active.
type activeToken struct {
	verified
	until time.Time
}

var (
	_ usher.Detector      = (*Introspection)(nil)
	_ usher.CarrierLister = (*Introspection)(nil)
)

const inactiveTTL = 5 * time.Second

// NewIntrospection returns an Introspection, or all faults of c.
func NewIntrospection(c IntrospectionConfig) (*Introspection, error) {
	f := config.Of[usher.ConfigError]("jwtauth.IntrospectionConfig")
	c.validate(f)
	i := &Introspection{
		hasher:    newHasher(),
		url:       c.Endpoint,
		header:    c.header(),
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
			counter:           "usher.introspection.verifications",
			attribute:         "usher.introspection.result",
			cookie:            c.Cookie,
			realm:             c.Realm,
			metadata:          c.ResourceMetadata,
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
	i.calls = guard.New(cmp.Or(c.Timeout, 3*time.Second), cmp.Or(c.MaxCalls, 64)).Results(func(err error) bool {
		_, onToken := errors.AsType[Verdict](err)
		return onToken
	})
	if !c.DangerouslyAcceptWithoutExpiry {
		i.required = append(i.required, "exp")
	}
	i.client = outbound.SameHost(c.Client)
	// A redirect would take the token elsewhere.
	i.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if capacity := cmp.Or(c.CacheCapacity, 1<<14); capacity > 0 {
		i.active = shard.New[tokenHash, *activeToken](capacity, nil)
		i.inactive = shard.New[tokenHash, time.Time](max(capacity/4, 1), nil)
	}
	return i, nil
}

// Detect implements [usher.Detector]. It is certain about text that does not have the
// form of a JSON Web Token, so that a [Verifier] beside it gets text that has. API keys
// in the same field need their authenticator listed before this one.
func (i *Introspection) Detect(r *http.Request) (carrier string, certain bool) {
	carrier, text := i.detect(r)
	if text == "" {
		return carrier, false
	}
	_, _, jwt := jose.Split(text)
	return carrier, !jwt
}

// verifyText implements tokenVerifier.
func (i *Introspection) verifyText(ctx context.Context, text string, now time.Time) (verified, Verdict, error) {
	if len(text) > i.maxLength || strings.ContainsFunc(text, jose.NotToken68) {
		return verified{}, Malformed, nil
	}
	if !strings.HasPrefix(text, i.prefix) || slices.ContainsFunc(refreshPrefixes[:], func(p string) bool { return strings.HasPrefix(text, p) }) {
		return verified{}, WrongType, nil
	}
	h := i.hash(text)
	if found, v := i.recall(h, now); v != Missing {
		return found, v, nil
	}
	return i.share(ctx, text, h, now)
}

// share asks the server about a token, in one call with all other requests that have
// it at the time.
func (i *Introspection) share(ctx context.Context, text string, h tokenHash, now time.Time) (verified, Verdict, error) {
	// The call serves all requests that wait for it, so it must not end with the one
	// that began it.
	detached := context.WithoutCancel(ctx)
	flight := i.flights.DoChan(string(h[:]), func() (any, error) { return i.ask(detached, text, h) })
	select {
	case r := <-flight:
		e, _ := r.Val.(*activeToken)
		switch v, ok := errors.AsType[Verdict](r.Err); {
		case ok:
			return verified{}, v, nil
		case r.Err != nil:
			return verified{}, Unavailable, r.Err
		}
		return e.verified, e.token.checkTime(now, i.leeway), nil
	case <-ctx.Done():
		return verified{}, Unavailable, ctx.Err()
	}
}

// recall returns a remembered token or verdict. Missing means that there is none.
func (i *Introspection) recall(h tokenHash, now time.Time) (verified, Verdict) {
	if i.active == nil {
		return verified{}, Missing
	}
	s := i.active.Shard(h)
	s.Lock()
	e, ok := s.Get(h)
	s.Unlock()
	if ok && now.Before(e.until) {
		return e.verified, e.token.checkTime(now, i.leeway)
	}
	n := i.inactive.Shard(h)
	n.Lock()
	until, ok := n.Get(h)
	n.Unlock()
	if ok && now.Before(until) {
		return verified{}, Inactive
	}
	return verified{}, Missing
}

// ask asks the server about a token and remembers the response. A Verdict as the error
// is about the token; any other error means that there is no response.
func (i *Introspection) ask(ctx context.Context, text string, h tokenHash) (*activeToken, error) {
	return guard.Call(ctx, i.calls, func(ctx context.Context) (*activeToken, error) {
		// The response may be as old as the call.
		asked := time.Now()
		body, err := i.call(ctx, text)
		if err != nil {
			return nil, err
		}
		e := &activeToken{until: asked.Add(i.ttl)}
		v, err := i.read(e, body)
		switch {
		case err != nil:
			return nil, err
		case v == Inactive && i.active != nil:
			n := i.inactive.Shard(h)
			n.Lock()
			n.Add(h, asked.Add(min(i.ttl, inactiveTTL)))
			n.Unlock()
			return nil, v
		case v != Accepted:
			return nil, v
		case i.active != nil:
			s := i.active.Shard(h)
			s.Lock()
			s.Add(h, e)
			s.Unlock()
		}
		return e, nil
	}, nil)
}

// call sends the token and returns the body of the response.
func (i *Introspection) call(ctx context.Context, text string) ([]byte, error) {
	form := url.Values{"token": {text}, "token_type_hint": {"access_token"}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, strings.NewReader(form))
	if err != nil {
		return nil, err
	}
	r.Header = i.header.Clone()
	const most = 64 << 10
	body, err := outbound.Do(i.client, r, most)
	if err != nil {
		return nil, fmt.Errorf("jwtauth: introspection: %w", err)
	}
	return body, nil
}

// read fills in e from the response of the server, and returns the verdict on the
// token, or an error if the response is invalid.
func (i *Introspection) read(e *activeToken, body []byte) (Verdict, error) {
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
	e.token = &Token{Issuer: i.issuer, payload: text}
	if jose.HasVariant(members, introspectedNames) || !e.token.readClaims(members, i.scopes) || e.token.Issuer != i.issuer {
		return InvalidClaims, nil
	}
	if !e.token.isAccess(members) {
		return WrongType, nil
	}
	for _, name := range i.required {
		if !present(members, name) {
			return InvalidClaims, nil
		}
	}
	if len(i.audiences) > 0 && !overlap(e.token.Audience, i.audiences) {
		return WrongAudience, nil
	}
	if v := e.token.checkTime(time.Now(), i.leeway); v != Accepted {
		return v, nil
	}
	if e.principal = i.newPrincipal(e.token, usher.KindOAuth); e.principal == nil {
		return InvalidClaims, nil
	}
	return Accepted, nil
}

// refreshPrefixes are those of the refresh tokens of servers whose responses do not
// identify them.
var refreshPrefixes = [...]string{"ory_rt_", "authelia_rt_"}

// introspectedNames are the members of a response that are interpreted.
var introspectedNames = append([]string{"token_type", "token_use"}, jose.ClaimNames...)

// isAccess reports whether a response may be about an access token, and sets bound if
// that is bound to a key of its sender.
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
