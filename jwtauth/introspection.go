package jwtauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/singleflight"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/internal/outbound"
	"github.com/usher-go/usher/internal/shard"
)

// IntrospectionConfig configures an [Introspection].
type IntrospectionConfig struct {
	// Endpoint is the introspection endpoint of the authorization server. It must
	// be https, unless DangerouslyAllowHTTP is set. Required.
	Endpoint string
	// ClientID and ClientSecret are how this service makes itself known, by HTTP
	// Basic as RFC 6749, section 2.3.1 wants it. Either these or Header is required.
	ClientID, ClientSecret string
	// Header is sent with each call, for servers that ask for something else, for
	// instance an Authorization with a token of this service.
	Header http.Header
	// Issuer is the name of the authorization server: an answer with another iss
	// is refused, and it makes the IDs of principals unique. Required; it must have
	// no "|".
	Issuer string
	// Audiences are the names of this service in aud: an answer must have one of
	// them, to the letter. Required unless DangerouslyAcceptAnyAudience is set.
	Audiences []string
	// RequiredClaims are members that a response must have, beside active and exp.
	//
	// Many servers respond for a refresh token as they do for an access token (RFC
	// 7662, section 2.1 permits both), and a refresh token must not open an API. It is
	// refused if the server says what it is: by a token_use (Ory Hydra), by a
	// token_type other than Bearer, or by a typ (Keycloak). Other servers need a member
	// here that their responses for access tokens alone have: it is token_type with
	// node-oidc-provider and Spring Authorization Server. Servers whose responses are
	// the same for both need TokenPrefix. Try it with a refresh token of your server.
	RequiredClaims []string
	// TokenPrefix is what each access token of the server begins with, and no other
	// token; a token without it is refused and the server not asked. It is "ory_at_"
	// with Ory Fosite and Ory Hydra. Their refresh tokens, which begin with "ory_rt_",
	// and those of Authelia, with "authelia_rt_", are refused in any case: the response
	// of Fosite for one is the same, to the byte, as for an access token. Empty asks
	// about all tokens.
	TokenPrefix string
	// ScopeClaims are members that grant scopes beside scope and scp, as in
	// [TrustedIssuer].
	ScopeClaims []string

	// Client makes the calls; nil means [http.DefaultClient]. Its CheckRedirect
	// and Jar are not used, and no redirect is followed.
	Client *http.Client
	// Timeout bounds each call; zero means 3 seconds.
	Timeout time.Duration
	// MaxCalls bounds how many calls are under way at a time, those that hang included;
	// zero means 64. Sixteen wait for each, up to half of Timeout; further requests
	// are 503 at once.
	MaxCalls int
	// CacheTTL is how long it is remembered that a token is active, which is how
	// long a revocation by the server may go unseen; zero means 30 seconds. That
	// one is inactive is remembered for 5 seconds at most.
	CacheTTL time.Duration
	// CacheCapacity is how many active tokens are remembered, and a quarter of it
	// how many inactive ones, apart from them; zero means 16,384, a negative number
	// none.
	CacheCapacity int

	// Leeway, MaxTokenLength, Revocations, RevocationTimeout, ExactBearer, Cookie,
	// Realm, ResourceMetadata, Answers and Check are as in [Config]. So is Confirm, which is
	// asked about tokens of the token_type DPoP or PoP as well.
	Leeway                  time.Duration
	MaxTokenLength          int
	Revocations             Revocations
	RevocationTimeout       time.Duration
	ExactBearer             bool
	Cookie                  string
	Realm, ResourceMetadata string
	Answers                 map[Verdict]*usher.Error
	Check                   func(ctx context.Context, t *Token) error
	Confirm                 func(r *http.Request, t *Token) error
	// Principal is as in [Config], but the kind is [usher.KindOAuth].
	Principal func(t *Token, usual usher.Principal) usher.Principal
	// MeterProvider makes the counter usher.introspection.verifications, which has
	// the verdict as the attribute usher.introspection.result; nil means the global
	// one.
	MeterProvider metric.MeterProvider

	// DangerouslyAcceptAnyAudience accepts tokens that are meant for other services
	// of the authorization server: whoever runs one of these can use the tokens of
	// its callers here. As refresh tokens rarely have the audience of a service, it
	// also removes what stops them at many servers; see RequiredClaims.
	DangerouslyAcceptAnyAudience bool
	// DangerouslyAcceptWithoutExpiry accepts responses without exp. Refresh tokens
	// that do not expire have none.
	DangerouslyAcceptWithoutExpiry bool
	// DangerouslyAllowHTTP accepts an endpoint without TLS, to which tokens and the
	// secret of the client are sent.
	DangerouslyAllowHTTP bool
}

// An Introspection asks the authorization server about each token (RFC 7662). It
// is for tokens without a form of their own; a [Verifier] needs no call. It is an
// [usher.Authenticator], [usher.Detector] and [usher.CarrierLister], and is safe for
// concurrent use.
//
// Requests with one token share one call. A server that does not answer, or not
// as RFC 7662 says, is a 503 and nothing that is remembered.
type Introspection struct {
	door
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
	longest   int
	active    *shard.Cache[tokenHash, *introspected] // nil if nothing is remembered
	inactive  *shard.Cache[tokenHash, time.Time]
	calls     *guard.Guard
	flights   singleflight.Group
}

// introspected is an active token.
type introspected struct {
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
	errs := c.faults()
	d, more := newDoor(doorConfig{
		path:        "jwtauth.IntrospectionConfig",
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
		counter:     "usher.introspection.verifications",
		attribute:   "usher.introspection.result",
	})
	if err := errors.Join(append(errs, more...)...); err != nil {
		return nil, err
	}
	i := &Introspection{
		door:      d,
		hasher:    newHasher(),
		url:       c.Endpoint,
		header:    c.header(),
		issuer:    c.Issuer,
		audiences: slices.Clone(c.Audiences),
		required:  slices.Clone(c.RequiredClaims),
		scopes:    grantingClaims(c.ScopeClaims),
		prefix:    c.TokenPrefix,
		ttl:       orDefault(c.CacheTTL, 30*time.Second),
		leeway:    max(orDefault(c.Leeway, defaultLeeway), 0),
		longest:   orDefault(c.MaxTokenLength, defaultTokenLength),
		calls: guard.New(orDefault(c.Timeout, 3*time.Second), orDefault(c.MaxCalls, 64)).Results(func(err error) bool {
			_, onToken := errors.AsType[Verdict](err)
			return onToken
		}),
	}
	if !c.DangerouslyAcceptWithoutExpiry {
		i.required = append(i.required, "exp")
	}
	i.client = outbound.SameHost(c.Client)
	// A redirect would take the token elsewhere.
	i.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if capacity := orDefault(c.CacheCapacity, 1<<14); capacity > 0 {
		i.active = shard.New[tokenHash, *introspected](capacity, nil)
		i.inactive = shard.New[tokenHash, time.Time](max(capacity/4, 1), nil)
	}
	return i, nil
}

// faults returns all that is wrong with c, but for what is wrong with its door.
func (c *IntrospectionConfig) faults() (errs []error) {
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: "jwtauth.IntrospectionConfig." + field, Reason: reason})
	}
	if _, err := outbound.ParseURL(c.Endpoint, c.DangerouslyAllowHTTP); err != nil {
		fault("Endpoint", err.Error())
	}
	switch {
	case c.ClientID == "" && len(c.Header) == 0:
		fault("ClientID", "is required unless there is a Header")
	case c.ClientID != "" && c.Header.Get("Authorization") != "":
		fault("Header", "must not have an Authorization beside ClientID")
	}
	if (c.ClientID == "") != (c.ClientSecret == "") {
		fault("ClientSecret", "belongs together with ClientID")
	}
	switch {
	case c.Issuer == "":
		fault("Issuer", "is required")
	case strings.Contains(c.Issuer, "|"):
		fault("Issuer", "must not have a bar")
	}
	switch {
	case c.DangerouslyAcceptAnyAudience && len(c.Audiences) > 0:
		fault("Audiences", "must be empty if DangerouslyAcceptAnyAudience is set")
	case !c.DangerouslyAcceptAnyAudience && (len(c.Audiences) == 0 || slices.Contains(c.Audiences, "")):
		fault("Audiences", "at least one is required, and none may be empty")
	}
	if slices.Contains(c.RequiredClaims, "") {
		fault("RequiredClaims", "no name may be empty")
	}
	if slices.Contains(c.ScopeClaims, "") {
		fault("ScopeClaims", "no name may be empty")
	}
	if strings.ContainsFunc(c.TokenPrefix, jose.NotToken68) {
		fault("TokenPrefix", "has a character that no token has")
	}
	for _, d := range []struct {
		field string
		value int64
	}{{"Timeout", int64(c.Timeout)}, {"CacheTTL", int64(c.CacheTTL)}, {"MaxCalls", int64(c.MaxCalls)}} {
		if d.value < 0 {
			fault(d.field, "must not be negative")
		}
	}
	return append(errs, boundFaults("jwtauth.IntrospectionConfig", c.Leeway, c.RevocationTimeout, c.MaxTokenLength)...)
}

// header returns the header of each call.
func (c *IntrospectionConfig) header() http.Header {
	h := c.Header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	if c.ClientID != "" {
		r := http.Request{Header: h}
		r.SetBasicAuth(url.QueryEscape(c.ClientID), url.QueryEscape(c.ClientSecret))
	}
	h.Set("Accept", "application/json")
	h.Set("Content-Type", "application/x-www-form-urlencoded")
	return h
}

// Authenticate returns the principal of the token in r, an error that matches
// [usher.ErrNoCredential] if there is none, or an [*usher.Error] whose cause is
// the [Verdict]. A token that is remembered costs no allocation, unless it comes
// in a cookie.
func (i *Introspection) Authenticate(r *http.Request) (*usher.Principal, error) {
	return i.authenticate(r, i)
}

// Verify judges a token that has come by another way than in a request. Its
// errors are those of Authenticate.
func (i *Introspection) Verify(ctx context.Context, token string) (*Token, error) {
	return i.verify(ctx, token, i)
}

// Detect implements [usher.Detector]. It is certain of what has not the form of
// a JSON Web Token, so that a [Verifier] beside it gets those that have. API keys
// in the same field need their authenticator listed before this one.
func (i *Introspection) Detect(r *http.Request) (carrier string, certain bool) {
	carrier, text := i.detect(r)
	if text == "" {
		return carrier, false
	}
	_, _, jwt := jose.Split(text)
	return carrier, !jwt
}

// Challenge implements [usher.Detector].
func (i *Introspection) Challenge() string { return i.challenge }

// judge returns what is remembered of a token or else asks the server.
func (i *Introspection) judge(ctx context.Context, text string, now time.Time) (verified, Verdict, error) {
	if len(text) > i.longest || strings.ContainsFunc(text, jose.NotToken68) {
		return verified{}, Malformed, nil
	}
	if !strings.HasPrefix(text, i.prefix) || slices.ContainsFunc(refreshPrefixes[:], func(p string) bool { return strings.HasPrefix(text, p) }) {
		return verified{}, WrongType, nil
	}
	h := i.hash(text)
	if found, v := i.recall(h, now); v != Missing {
		return found, v, nil
	}
	return i.await(ctx, text, h, now)
}

// await asks the server about a token, together with all others who ask about it
// at the time.
func (i *Introspection) await(ctx context.Context, text string, h tokenHash, now time.Time) (verified, Verdict, error) {
	// The call serves all who wait for it, so the end of the request that happened
	// to begin it must not end it.
	detached := context.WithoutCancel(ctx)
	flight := i.flights.DoChan(string(h[:]), func() (any, error) { return i.ask(detached, text, h) })
	select {
	case r := <-flight:
		e, _ := r.Val.(*introspected)
		switch v, ok := errors.AsType[Verdict](r.Err); {
		case ok:
			return verified{}, v, nil
		case r.Err != nil:
			return verified{}, Unavailable, r.Err
		}
		return e.verified, e.token.timely(now, i.leeway), nil
	case <-ctx.Done():
		return verified{}, Unavailable, ctx.Err()
	}
}

// recall returns what is remembered of a token; Missing means nothing.
func (i *Introspection) recall(h tokenHash, now time.Time) (verified, Verdict) {
	if i.active == nil {
		return verified{}, Missing
	}
	s := i.active.Shard(h)
	s.Lock()
	e, ok := s.Get(h)
	s.Unlock()
	if ok && now.Before(e.until) {
		return e.verified, e.token.timely(now, i.leeway)
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

// ask asks the server about a token and remembers the response. An error that is a
// Verdict is one on the token; any other says that there is no response.
func (i *Introspection) ask(ctx context.Context, text string, h tokenHash) (*introspected, error) {
	return guard.Call(ctx, i.calls, func(ctx context.Context) (*introspected, error) {
		// The response is as old as the question.
		asked := time.Now()
		body, err := i.call(ctx, text)
		if err != nil {
			return nil, err
		}
		e := &introspected{until: asked.Add(i.ttl)}
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

// call sends the token and returns the body of the answer.
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

// read fills in e from the answer of the server, and returns the verdict on the
// token, or an error if the answer is none.
func (i *Introspection) read(e *introspected, body []byte) (Verdict, error) {
	text, members, err := jose.ParseObject(nil, body)
	if err != nil {
		return 0, fmt.Errorf("jwtauth: the answer to an introspection is %w", err)
	}
	switch active, _ := jose.Find(members, "active"); active {
	case "true":
	case "false":
		return Inactive, nil
	default:
		return 0, errors.New("jwtauth: the answer to an introspection does not say whether the token is active")
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
	if v := e.token.timely(time.Now(), i.leeway); v != Accepted {
		return v, nil
	}
	if e.principal = i.principalOf(e.token, usher.KindOAuth); e.principal == nil {
		return InvalidClaims, nil
	}
	return Accepted, nil
}

// refreshPrefixes are what refresh tokens begin with whose servers do not say at an
// introspection what they are.
var refreshPrefixes = [...]string{"ory_rt_", "authelia_rt_"}

// introspectedNames are the members that are read from a response.
var introspectedNames = append([]string{"token_type", "token_use"}, jose.ClaimNames...)

// isAccess reports whether a response of the authorization server may be one about
// an access token, and notes if that is bound to a key of its sender.
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
