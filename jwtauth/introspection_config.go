package jwtauth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/httptoken"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/internal/outbound"
)

// IntrospectionConfig configures an [Introspection]. Printing it shows neither
// ClientSecret nor Header.
type IntrospectionConfig struct {
	// Endpoint is the introspection endpoint of the authorization server. It must
	// be https, unless DangerouslyAllowHTTP is set. Required.
	Endpoint string
	// ClientID and ClientSecret authenticate this service by HTTP Basic (RFC 6749,
	// section 2.3.1). Either these or Header is required.
	ClientID, ClientSecret string
	// Header is sent with each call, for servers that require another form of
	// authentication, for instance an Authorization field with a token of this service.
	Header http.Header
	// Issuer is the name of the authorization server: a response with another iss
	// is refused, and it makes the IDs of principals unique. Required, without a "|".
	Issuer string
	// Audiences are the names of this service: the aud of a response must have one of
	// them. Required unless DangerouslyAcceptAnyAudience is set.
	Audiences []string
	// RequiredClaims are members that a response must have, besides active and exp.
	//
	// An API must not accept a refresh token, but many servers respond to one as they do
	// to an access token (RFC 7662, section 2.1 permits both). A refresh token is refused
	// if the response identifies it: by a token_use (Ory Hydra), by a token_type other
	// than Bearer, or by a typ (Keycloak). For other servers, name a member here that
	// only their responses about access tokens have: token_type for node-oidc-provider
	// and Spring Authorization Server. If the responses of a server do not differ, set
	// TokenPrefix. Test your configuration with a refresh token of your server.
	RequiredClaims []string
	// TokenPrefix is a prefix that all access tokens of the server have, and no other
	// tokens; a token without it is refused without a call. For Ory Fosite and Ory Hydra
	// it is "ory_at_". Their refresh tokens, which begin with "ory_rt_", and those of
	// Authelia, which begin with "authelia_rt_", are always refused: Fosite's response
	// about one is the same, byte for byte, as about an access token. Empty means any
	// token.
	TokenPrefix string
	// ScopeClaims are members that grant scopes, besides scope and scp, as in
	// [TrustedIssuer].
	ScopeClaims []string

	// Client makes the calls; nil means [http.DefaultClient]. Its CheckRedirect
	// and Jar are not used, and no redirect is followed.
	Client *http.Client
	// Timeout bounds each call; zero means 3 seconds.
	Timeout time.Duration
	// MaxCalls bounds how many calls run at a time, including those that hang; zero means
	// 64. Sixteen requests wait for each of these, up to half of Timeout; any more are
	// refused with 503 at once.
	MaxCalls int
	// CacheTTL is how long an active token is remembered, and so how long a revocation by
	// the server may go unnoticed; zero means 30 seconds. A token that is refused, for
	// whatever reason, is remembered for at most 5 seconds.
	CacheTTL time.Duration
	// CacheCapacity is how many accepted tokens are remembered; a quarter as many refused
	// ones are remembered in addition. Zero means 16,384, a negative number none.
	CacheCapacity int

	// Leeway, MaxTokenLength, Revocations, RevocationTimeout, ExactBearer, Cookie,
	// TrustedOrigins, Realm, ResourceMetadata, Scopes, Errors, Check and OnError are as in
	// [Config]. So is Confirm, but it is also called for tokens of the token_type DPoP or
	// PoP.
	Leeway                  time.Duration
	MaxTokenLength          int
	Revocations             Revocations
	RevocationTimeout       time.Duration
	ExactBearer             bool
	Cookie                  string
	TrustedOrigins          []string
	Realm, ResourceMetadata string
	Scopes                  []string
	Errors                  map[Verdict]*usher.Error
	Check                   func(ctx context.Context, t *Token) error
	Confirm                 func(r *http.Request, t *Token) error
	OnError                 func(ctx context.Context, err error)
	// Principal is as in [Config], but the kind is [usher.KindOAuth]. If the response has
	// a client_id, but neither sub nor username, the token is the client's own, as that of
	// the client credentials grant is (RFC 6749, section 4.4). The ID of its principal is
	// a bar, the issuer, a bar and the client_id: no subject has the same ID. A Principal
	// function recognizes such a token by its empty Subject.
	Principal func(t *Token, standard usher.Principal) usher.Principal
	// MeterProvider makes the counter usher.introspection.verifications, which has
	// the verdict as the attribute usher.introspection.result. It measures the calls of the
	// server as usher.introspection.request.duration and those of Revocations as
	// usher.store.operation.duration, and counts the tokens in the cache as
	// usher.cache.entries. Nil means the global one.
	MeterProvider metric.MeterProvider

	// DangerouslyAcceptAnyAudience accepts tokens for other services of the authorization
	// server: anybody who runs such a service can use the tokens of its callers here. It
	// also disables the check that stops the refresh tokens of many servers, which rarely
	// have the audience of a service; see RequiredClaims.
	DangerouslyAcceptAnyAudience bool
	// DangerouslyAcceptWithoutExpiry accepts responses without exp. Refresh tokens
	// that do not expire have none.
	DangerouslyAcceptWithoutExpiry bool
	// DangerouslyAllowHTTP accepts an endpoint without TLS, to which tokens and the
	// client secret are sent.
	DangerouslyAllowHTTP bool
}

// Format implements [fmt.Formatter]: every verb prints only the Issuer and the ClientID.
func (c IntrospectionConfig) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "jwtauth.IntrospectionConfig{Issuer: %q, ClientID: %q}", c.Issuer, c.ClientID)
}

func (c *IntrospectionConfig) validate(f config.Faults[usher.ConfigError]) {
	if _, err := outbound.ParseURL(c.Endpoint, c.DangerouslyAllowHTTP); err != nil {
		f.Add("Endpoint", err.Error())
	}
	f.If(c.ClientID == "" && len(c.Header) == 0, "ClientID", "is required unless there is a Header")
	f.If(c.ClientID != "" && c.Header.Get("Authorization") != "", "Header", "must not have an Authorization field beside ClientID")
	f.If((c.ClientID == "") != (c.ClientSecret == ""), "ClientSecret", "must be set if and only if ClientID is")
	// They may have come from files, which end with a line end. The server would accept none.
	const controls = "must have no control character, such as the line end of a file"
	f.If(strings.ContainsFunc(c.ClientID, unicode.IsControl), "ClientID", controls)
	f.If(strings.ContainsFunc(c.ClientSecret, unicode.IsControl), "ClientSecret", controls)
	for name, values := range c.Header {
		f.If(!httptoken.Valid(name), "Header", fmt.Sprintf("must not have the name %q", name))
		f.If(slices.ContainsFunc(values, hasControl), "Header", fmt.Sprintf("the field %q %s", name, controls))
	}
	validateIssuer(f, "Issuer", c.Issuer)
	if c.DangerouslyAcceptAnyAudience {
		f.If(len(c.Audiences) > 0, "Audiences", "must be empty if DangerouslyAcceptAnyAudience is set")
	} else {
		validateAudiences(f, c.Audiences)
	}
	f.If(slices.Contains(c.RequiredClaims, ""), "RequiredClaims", "must not have an empty name")
	validateEnds(f, "RequiredClaims", c.RequiredClaims...)
	f.If(slices.Contains(c.ScopeClaims, ""), "ScopeClaims", "must not have an empty name")
	validateClaims(f, "ScopeClaims", c.ScopeClaims...)
	f.If(strings.ContainsFunc(c.TokenPrefix, jose.NotToken68), "TokenPrefix", "must have only characters that a bearer token may have")
	f.If(c.Timeout < 0, "Timeout", config.NotNegative)
	f.If(c.CacheTTL < 0, "CacheTTL", config.NotNegative)
	f.If(c.MaxCalls < 0, "MaxCalls", config.NotNegative)
}

// hasControl reports whether a value of a header field has a character that none may have
// (RFC 9110, section 5.5).
func hasControl(value string) bool {
	return strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// header returns the header fields of each call.
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
