package jwtauth

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/jose"
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

// An issuer is a TrustedIssuer, ready for use.
type issuer struct {
	name         string
	aliases      []string
	nameless     bool      // accepts tokens without iss
	audiences    []string  // nil accepts any
	audience     claimPath // in place of aud, unless it is empty
	audienceName string
	algorithms   []jwk.Algorithm
	keys         jwk.Set
	types        []string
	required     []string
	scopes       []claimPath // besides scope and scp
	lifetime     time.Duration
	revocations  Revocations // nil if there are none
	until        time.Time   // when it must be resolved again; zero if it is configured
	onVerified   func(context.Context, *Token)
}

// issuers are the issuers that a Verifier knows.
type issuers struct {
	byName   map[string]*issuer // also by alias
	nameless *issuer            // of tokens without iss, or nil
}

// newIssuers returns the issuers of list, and adds the faults of list to f.
func newIssuers(f config.Faults[usher.ConfigError], list []TrustedIssuer, revocationTimeout time.Duration) issuers {
	all := issuers{byName: make(map[string]*issuer, len(list))}
	for n, c := range list {
		f := f.In(fmt.Sprintf("Issuers[%d]", n))
		c.validate(f)
		i := c.compile(revocationTimeout)
		f.If(all.byName[c.Issuer] != nil, "Issuer", "must not be that of another issuer")
		all.byName[c.Issuer] = i
		for _, name := range c.Aliases {
			f.If(all.byName[name] != nil, "Aliases", fmt.Sprintf("%q must not be an Issuer or an alias already", name))
			all.byName[name] = i
		}
		if c.WithoutIssuer {
			f.If(all.nameless != nil, "WithoutIssuer", "must not be set for two issuers")
			all.nameless = i
		}
	}
	return all
}

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

// cloneSet returns a copy of a list of keys or sets, and other sets themselves.
func cloneSet(set jwk.Set) jwk.Set {
	switch set := set.(type) {
	case jwk.Static:
		return slices.Clone(set)
	case jwk.Sets:
		clone := make(jwk.Sets, len(set))
		for n, each := range set {
			clone[n] = cloneSet(each)
		}
		return clone
	}
	return set
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

func (c *TrustedIssuer) compile(revocationTimeout time.Duration) *issuer {
	r := rules[min(c.Profile, profiles-1)]
	i := &issuer{
		name:         c.Issuer,
		aliases:      slices.Clone(c.Aliases),
		nameless:     c.WithoutIssuer,
		audiences:    slices.Clone(c.Audiences),
		audience:     newClaimPath(c.AudienceClaim),
		audienceName: cmp.Or(c.AudienceClaim, "aud"),
		algorithms:   slices.Clone(c.Algorithms),
		keys:         cloneSet(c.Keys),
		types:        slices.Clone(c.Types),
		required:     slices.Concat(r.required, c.RequiredClaims),
		scopes:       scopeClaims(c.ScopeClaims),
		lifetime:     cmp.Or(c.MaxLifetime, r.lifetime),
		revocations:  guardRevocations(c.Revocations, revocationTimeout),
		onVerified:   c.OnVerified,
	}
	if len(i.types) == 0 {
		i.types = []string{r.typ}
	}
	if !c.DangerouslyAcceptWithoutExpiry {
		i.required = append(i.required, "exp")
	}
	return i
}

// checkHeader returns the verdict on the header of t, and its reason.
func (i *issuer) checkHeader(t *jose.Token) (Verdict, error) {
	switch {
	case !slices.ContainsFunc(i.algorithms, jwk.Algorithm(t.Algorithm).Equal):
		algorithm := t.Algorithm
		return WrongAlgorithm, reason(func() string {
			return fmt.Sprintf("alg is %s, want %s", quoted(algorithm), oneOf(i.algorithms))
		})
	case !i.acceptsType(cmp.Or(t.Type, untyped)):
		typ := t.Type
		return WrongType, reason(func() string {
			return fmt.Sprintf("typ is %s, want %s", quoted(typ), oneOf(i.types))
		})
	}
	return Accepted, nil
}

func (i *issuer) acceptsType(typ string) bool {
	return slices.ContainsFunc(i.types, func(t string) bool { return sameType(t, typ) })
}

// sameType reports whether two values of typ name one media type: a value without a
// slash omits application/, and case is ignored (RFC 7515, section 4.1.9).
func sameType(a, b string) bool { return strings.EqualFold(shortType(a), shortType(b)) }

func shortType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) && !strings.Contains(typ[len(prefix):], "/") {
		return typ[len(prefix):]
	}
	return typ
}

// checkClaims fills in token from claims that i has signed, and returns the verdict on
// them, and its reason.
func (i *issuer) checkClaims(token *Token, claims []jose.Member, now time.Time, leeway time.Duration) (Verdict, error) {
	if !i.readsAudience() {
		claims = slices.DeleteFunc(claims, i.ignores)
	}
	if !token.readClaims(claims, i.scopes) || !i.isNamed(token.Issuer) {
		return InvalidClaims, invalidClaim(claims)
	}
	token.Issuer = i.name
	if isRefreshToken(claims) {
		return WrongType, refreshToken(claims)
	}
	for _, name := range i.required {
		if !present(claims, name) {
			return InvalidClaims, missingClaim(claims, name)
		}
	}
	if v, err := i.checkAudience(token, claims); v != Accepted {
		return v, err
	}
	if i.lifetime > 0 && !token.ExpiresAt.IsZero() {
		from := token.IssuedAt
		if from.IsZero() {
			from = now.Add(leeway)
		}
		if token.ExpiresAt.Sub(from) > i.lifetime {
			return InvalidClaims, tooLate(token.ExpiresAt, from, i.lifetime)
		}
	}
	return token.checkTime(now, leeway)
}

// isNamed reports whether i is the issuer of tokens with this iss.
func (i *issuer) isNamed(iss string) bool {
	return iss == i.name || slices.Contains(i.aliases, iss) || iss == "" && i.nameless
}

// readsAudience reports whether a token must have an aud.
func (i *issuer) readsAudience() bool { return len(i.audiences) > 0 && i.audience.empty() }

// ignores reports whether a claim of a token that need not have an aud is an aud without a
// meaning. Some issuers set null or an empty list. If any audience is accepted, it does not
// matter whether aud is valid.
func (i *issuer) ignores(m jose.Member) bool {
	if m.Name != "aud" {
		return false
	}
	if len(i.audiences) > 0 {
		list, ok := jose.Strings(m.Value)
		return m.Value == "null" || m.Value == `""` || ok && len(list) == 0
	}
	_, valid := audience(m.Value)
	return !valid
}

// checkAudience returns the verdict on the audience of a token with these claims, and its
// reason.
func (i *issuer) checkAudience(token *Token, claims []jose.Member) (Verdict, error) {
	if len(i.audiences) == 0 {
		return Accepted, nil
	}
	if !i.audience.empty() {
		// The aud of a token for another service excludes this one.
		if len(token.Audience) > 0 && !overlap(token.Audience, i.audiences) {
			return WrongAudience, wrongAudience("aud", token.Audience, i.audiences)
		}
		token.Audience = nil
		if value, ok := i.audience.find(claims); ok {
			if token.Audience, ok = audience(value); !ok {
				return InvalidClaims, reason(func() string {
					return fmt.Sprintf("%s is %s, which is not valid", i.audienceName, quoted(value))
				})
			}
		}
	}
	if !overlap(token.Audience, i.audiences) {
		return WrongAudience, wrongAudience(i.audienceName, token.Audience, i.audiences)
	}
	return Accepted, nil
}

// overlap reports whether two lists have a string in common.
func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(text string) bool { return slices.Contains(b, text) })
}
