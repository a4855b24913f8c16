package jwtauth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A TrustedIssuer is an issuer whose tokens a [Verifier] accepts.
type TrustedIssuer struct {
	// Issuer must equal the iss of the issuer's tokens. Required. It must not contain a
	// "|", which no URL has.
	Issuer string
	// Aliases are further values that the iss of its tokens may have, like the
	// "accounts.google.com" of Google. [Token.Issuer] is the Issuer all the same, so that
	// a subject is one principal, and is revoked once.
	Aliases []string
	// WithoutIssuer also accepts tokens that have no iss, or one that is null. One issuer of
	// a [Verifier] may set it. [Token.Issuer] is the Issuer, which is then a name of your
	// choice. A token that names another issuer is refused.
	WithoutIssuer bool
	// Audiences are the names of this service: the aud of a token must have one of
	// them. At least one is required, unless DangerouslyAcceptAnyAudience is set.
	Audiences []string
	// AudienceClaim is the claim that must have one of the Audiences in place of aud, for
	// issuers that do not set aud: "client_id" for the access tokens of Amazon Cognito and
	// Ory Hydra, "azp" for Clerk. Name a claim with which the issuer limits the token to
	// services or clients that you trust. Like aud it is a string or an array of strings,
	// and [Token.Audience] has its values. A claim inside another one is named by a JSON
	// Pointer (RFC 6901), which begins with a slash: "/kubernetes.io/namespace". Empty
	// means aud.
	//
	// The claim does not make a token for another service one for this service: if the
	// token has an aud all the same, which is neither null nor empty, that must have one of
	// the Audiences too (RFC 7519, section 4.1.3).
	AudienceClaim string
	// Algorithms are the algorithms that the issuer signs with. At least one is required.
	// A published key that names no algorithm is for the first of them that suits it.
	Algorithms []jwk.Algorithm
	// Keys are the keys of this issuer, and of no other that you would not trust in its
	// place. Required. A key that names an issuer verifies only the tokens of that one, as
	// in the set that all tenants of Microsoft Entra share: see [jwk.Key.Issuer].
	Keys jwk.Set
	// Profile is the kind of the issuer's tokens; zero means ProfilePlain.
	Profile Profile
	// Types are the values of typ that are accepted in place of the profile's, for
	// instance "example+jwt". The value "JWT" also accepts tokens without a typ. If you
	// list types of several kinds of tokens, nothing but their claims distinguishes them.
	Types []string
	// RequiredClaims are claims that must be present, besides those of the profile. An API
	// must not accept ID tokens. If those of the issuer may have one of the Audiences and
	// the same typ, name a claim here that only its access tokens have: "jti" for Zitadel.
	RequiredClaims []string
	// ScopeClaims are claims that grant scopes, besides scope and scp: each a string of
	// scopes, an array of them, or an object. The names in an object are scopes if their
	// values are true, or objects that are not empty, as in the roles of Zitadel. A claim
	// inside another one is named by a JSON Pointer (RFC 6901), which begins with a slash:
	// "/realm_access/roles" for Keycloak. Name only claims that the issuer limits to what
	// the client was granted. Auth0's permissions claim, for instance, has all permissions
	// of the user, whatever the client asked for.
	ScopeClaims []string
	// MaxLifetime limits the time from a token's iat, or from now if it has none, to its
	// exp; zero means an hour for ProfileAssertion and no limit for other profiles.
	MaxLifetime time.Duration
	// Revocations, if not nil, is consulted for each request with a valid token of this
	// issuer, like Config.Revocations and in addition to it.
	Revocations Revocations
	// OnVerified, if not nil, is called with each token of this issuer that is valid, when
	// it is verified and not when it is remembered. It must not wait, and must not change t.
	// A panic is reported to Config.OnError; the request continues.
	OnVerified func(ctx context.Context, t *Token)
	// DangerouslyAcceptWithoutExpiry accepts tokens of ProfilePlain that have no
	// exp, which are valid until their key is removed.
	DangerouslyAcceptWithoutExpiry bool
	// DangerouslyAcceptAnyAudience accepts tokens whatever their aud is, also those that
	// the issuer made for other services: anybody who runs such a service can use the
	// tokens of its callers here. Audiences and AudienceClaim must be empty.
	DangerouslyAcceptAnyAudience bool
}

// A Profile is a kind of token with rules of its own. The rules of any two profiles
// exclude each other by typ or by a claim that one of them requires (RFC 8725, section
// 3.12). In every profile iss must be the issuer's, aud must name one of the audiences,
// and exp must be present.
type Profile uint8

// The profiles.
const (
	// ProfilePlain is a JWT without further rules: typ is "JWT" or absent.
	ProfilePlain Profile = iota
	// ProfileAccessToken is an OAuth 2.0 access token (RFC 9068): typ is "at+jwt",
	// and sub, client_id, iat and jti are required.
	ProfileAccessToken
	// ProfileAssertion is a server's statement about itself (RFC 7523, section 3):
	// typ is "JWT" or absent, sub and iat are required, and the lifetime is at most
	// an hour.
	ProfileAssertion
	// ProfileSession is an access token of package session: typ is "session+jwt",
	// and sub, iat, jti and sid are required.
	ProfileSession
	profiles
)

// rules are the requirements of the profiles.
var rules = [profiles]struct {
	typ      string
	required []string
	lifetime time.Duration
}{
	ProfilePlain:       {typ: untyped},
	ProfileAccessToken: {typ: "at+jwt", required: []string{"sub", "client_id", "iat", "jti"}},
	ProfileAssertion:   {typ: untyped, required: []string{"sub", "iat"}, lifetime: time.Hour},
	ProfileSession:     {typ: "session+jwt", required: []string{"sub", "iat", "jti", "sid"}},
}

// untyped is the typ of tokens that may have none.
const untyped = "JWT"

func (c *TrustedIssuer) validate(f config.Faults[usher.ConfigError]) {
	validateIssuer(f, "Issuer", c.Issuer)
	for n, name := range c.Aliases {
		validateIssuer(f, fmt.Sprintf("Aliases[%d]", n), name)
	}
	if c.DangerouslyAcceptAnyAudience {
		f.If(len(c.Audiences) > 0, "Audiences", "must be empty if DangerouslyAcceptAnyAudience is set")
		f.If(c.AudienceClaim != "", "AudienceClaim", "must be empty if DangerouslyAcceptAnyAudience is set")
	} else {
		validateAudiences(f, c.Audiences)
	}
	validateClaims(f, "AudienceClaim", c.AudienceClaim)
	f.If(len(c.Algorithms) == 0, "Algorithms", "at least one is required")
	for n, a := range c.Algorithms {
		f.If(!a.Valid(), fmt.Sprintf("Algorithms[%d]", n), "must be an algorithm of package jwk")
	}
	validateSet(f, c.Keys, c.Algorithms)
	f.If(c.Profile >= profiles, "Profile", "must be one of the constants")
	f.If(slices.Contains(c.Types, ""), "Types", `must not have an empty type; "JWT" accepts tokens without a typ`)
	validateEnds(f, "Types", c.Types...)
	f.If(slices.Contains(c.RequiredClaims, ""), "RequiredClaims", "must not have an empty name")
	validateEnds(f, "RequiredClaims", c.RequiredClaims...)
	f.If(slices.Contains(c.ScopeClaims, ""), "ScopeClaims", "must not have an empty name")
	validateClaims(f, "ScopeClaims", c.ScopeClaims...)
	f.If(c.MaxLifetime < 0, "MaxLifetime", config.NotNegative)
	f.If(c.DangerouslyAcceptWithoutExpiry && c.Profile != ProfilePlain, "DangerouslyAcceptWithoutExpiry", "must not be set except with ProfilePlain")
}

// validateIssuer adds the faults of the name of an issuer to f.
func validateIssuer(f config.Faults[usher.ConfigError], field, name string) {
	f.If(name == "", field, config.Required)
	f.If(strings.Contains(name, "|"), field, "must not contain a bar")
	validateEnds(f, field, name)
}

// validateAudiences adds the faults of a list of audiences, which must have one.
func validateAudiences(f config.Faults[usher.ConfigError], audiences []string) {
	f.If(len(audiences) == 0 || slices.Contains(audiences, ""), "Audiences", "at least one is required, and none may be empty")
	validateEnds(f, "Audiences", audiences...)
}

// validateEnds adds a fault for each text that begins or ends with a blank or a line end.
// It has come from a file or a variable of the environment, and equals no claim.
func validateEnds(f config.Faults[usher.ConfigError], field string, list ...string) {
	for _, text := range list {
		f.If(strings.TrimSpace(text) != text, field, fmt.Sprintf("%q must not begin or end with a blank or a line end", text))
	}
}

// validateSet adds the faults of a key set, or of the sets in it.
func validateSet(f config.Faults[usher.ConfigError], set jwk.Set, algorithms []jwk.Algorithm) {
	switch set := set.(type) {
	case nil:
		f.Add("Keys", config.Required)
	case *jwk.Remote:
		f.If(set == nil, "Keys", "must not be nil: NewRemote has returned an error")
	case jwk.Static:
		validateKeys(f, set, algorithms)
	case jwk.Sets:
		f.If(len(set) == 0, "Keys", "at least one set is required")
		for _, each := range set {
			validateSet(f, each, algorithms)
		}
	}
}

func validateKeys(f config.Faults[usher.ConfigError], keys jwk.Static, algorithms []jwk.Algorithm) {
	f.If(len(keys) == 0, "Keys", "at least one key is required")
	for n, k := range keys {
		if k == nil || k.Algorithm() == "" {
			f.Add("Keys", fmt.Sprintf("key %d was not made by package jwk", n))
			continue
		}
		f.If(!slices.ContainsFunc(algorithms, k.Algorithm().Equal), "Keys", fmt.Sprintf("%v is for an algorithm that is not in Algorithms", k))
		same := 0
		for _, other := range keys[:n] {
			if other != nil && other.ID() == k.ID() && other.Algorithm().Equal(k.Algorithm()) {
				same++
			}
		}
		f.If(k.ID() != "" && same > 0, "Keys", fmt.Sprintf("%v must not be listed twice", k))
		f.If(k.ID() == "" && same == maxTries, "Keys", fmt.Sprintf("must have at most %d keys for %s without an ID", maxTries, k.Algorithm()))
	}
}
