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
	// Audiences are the names of this service: the aud of a token must have one of
	// them. At least one is required.
	Audiences []string
	// Algorithms are the algorithms that the issuer signs with. At least one is required.
	// A published key that names no algorithm is for the first of them that suits it.
	Algorithms []jwk.Algorithm
	// Keys are the keys of this issuer and of nobody else. Required.
	Keys jwk.Set
	// Profile is the kind of the issuer's tokens.
	Profile Profile
	// Type is the typ that the tokens must have in place of the profile's, for instance
	// "example+jwt".
	Type string
	// RequiredClaims are claims that must be present, besides those of the profile.
	RequiredClaims []string
	// ScopeClaims are claims that grant scopes, besides scope and scp: each a string of
	// scopes or an array of them. Name only claims that the issuer limits to what the
	// client was granted. Auth0's permissions claim, for instance, has all permissions of
	// the user, whatever the client asked for.
	ScopeClaims []string
	// MaxLifetime limits the time from a token's iat, or from now if it has none, to its
	// exp; zero means an hour for ProfileAssertion and no limit for other profiles.
	MaxLifetime time.Duration
	// Revocations, if not nil, is consulted for each request with a valid token of this
	// issuer, like Config.Revocations and in addition to it.
	Revocations Revocations
	// DangerouslyAcceptWithoutExpiry accepts tokens of ProfilePlain that have no
	// exp, which are valid until their key is removed.
	DangerouslyAcceptWithoutExpiry bool
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
	typ      string // "" accepts JWT, or no typ
	required []string
	lifetime time.Duration
}{
	ProfilePlain:       {},
	ProfileAccessToken: {typ: "at+jwt", required: []string{"sub", "client_id", "iat", "jti"}},
	ProfileAssertion:   {required: []string{"sub", "iat"}, lifetime: time.Hour},
	ProfileSession:     {typ: "session+jwt", required: []string{"sub", "iat", "jti", "sid"}},
}

// An issuer is a TrustedIssuer, ready for use.
type issuer struct {
	name        string
	audiences   []string
	algorithms  []jwk.Algorithm
	keys        jwk.Set
	typ         string
	required    []string
	scopes      []string
	lifetime    time.Duration
	revocations Revocations // nil if there are none
}

// newIssuers returns the issuers of list by name, and adds the faults of list to f.
func newIssuers(f config.Faults[usher.ConfigError], list []TrustedIssuer, revocationTimeout time.Duration) map[string]*issuer {
	f.If(len(list) == 0, "Issuers", "at least one is required")
	issuers := make(map[string]*issuer, len(list))
	for n, c := range list {
		f := f.In(fmt.Sprintf("Issuers[%d]", n))
		_, twice := issuers[c.Issuer]
		f.If(twice, "Issuer", "must not be that of another issuer")
		c.validate(f)
		issuers[c.Issuer] = c.compile(revocationTimeout)
	}
	return issuers
}

func (c *TrustedIssuer) validate(f config.Faults[usher.ConfigError]) {
	validateIssuer(f, c.Issuer)
	f.If(len(c.Audiences) == 0 || slices.Contains(c.Audiences, ""), "Audiences", "at least one is required, and none may be empty")
	f.If(len(c.Algorithms) == 0, "Algorithms", "at least one is required")
	for n, a := range c.Algorithms {
		f.If(!a.Valid(), fmt.Sprintf("Algorithms[%d]", n), "must be an algorithm of package jwk")
	}
	f.If(c.Keys == nil, "Keys", config.Required)
	if keys, ok := c.Keys.(jwk.Static); ok {
		validateKeys(f, keys, c.Algorithms)
	}
	f.If(c.Profile >= profiles, "Profile", "must be one of the constants")
	f.If(slices.Contains(c.RequiredClaims, ""), "RequiredClaims", "must not have an empty name")
	f.If(slices.Contains(c.ScopeClaims, ""), "ScopeClaims", "must not have an empty name")
	f.If(c.MaxLifetime < 0, "MaxLifetime", config.NotNegative)
	f.If(c.DangerouslyAcceptWithoutExpiry && c.Profile != ProfilePlain, "DangerouslyAcceptWithoutExpiry", "must not be set except with ProfilePlain")
}

func validateIssuer(f config.Faults[usher.ConfigError], name string) {
	f.If(name == "", "Issuer", config.Required)
	f.If(strings.Contains(name, "|"), "Issuer", "must not contain a bar")
}

func validateKeys(f config.Faults[usher.ConfigError], keys jwk.Static, algorithms []jwk.Algorithm) {
	f.If(len(keys) == 0, "Keys", "at least one key is required")
	type name struct {
		id        string
		algorithm jwk.Algorithm
	}
	seen := make(map[name]bool)
	for n, k := range keys {
		if k == nil || k.Algorithm() == "" {
			f.Add("Keys", fmt.Sprintf("key %d was not made by package jwk", n))
			continue
		}
		f.If(!slices.ContainsFunc(algorithms, k.Algorithm().Equal), "Keys", fmt.Sprintf("%v is for an algorithm that is not in Algorithms", k))
		id := name{k.ID(), k.Algorithm()}
		f.If(k.ID() != "" && seen[id], "Keys", fmt.Sprintf("%v must not be listed twice", k))
		seen[id] = true
	}
}

func (c *TrustedIssuer) compile(revocationTimeout time.Duration) *issuer {
	r := rules[min(c.Profile, profiles-1)]
	i := &issuer{
		name:        c.Issuer,
		audiences:   slices.Clone(c.Audiences),
		algorithms:  slices.Clone(c.Algorithms),
		keys:        c.Keys,
		typ:         cmp.Or(c.Type, r.typ),
		required:    slices.Concat(r.required, c.RequiredClaims),
		scopes:      scopeClaims(c.ScopeClaims),
		lifetime:    cmp.Or(c.MaxLifetime, r.lifetime),
		revocations: guardRevocations(c.Revocations, revocationTimeout),
	}
	if !c.DangerouslyAcceptWithoutExpiry {
		i.required = append(i.required, "exp")
	}
	if keys, ok := c.Keys.(jwk.Static); ok {
		i.keys = slices.Clone(keys)
	}
	return i
}

// checkHeader returns the verdict on the header of t.
func (i *issuer) checkHeader(t *jose.Token) Verdict {
	switch {
	case !slices.ContainsFunc(i.algorithms, jwk.Algorithm(t.Algorithm).Equal):
		return WrongAlgorithm
	case i.typ != "" && !sameType(t.Type, i.typ):
		return WrongType
	case i.typ == "" && t.Type != "" && !sameType(t.Type, "JWT"):
		return WrongType
	}
	return Accepted
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

// maxTries bounds how many keys are tried for one token.
const maxTries = 4

// verifySignature returns the verdict on the signature of t, and the version of the key
// set that has its key.
func (i *issuer) verifySignature(ctx context.Context, t *jose.Token) (version uint64, v Verdict, err error) {
	algorithm := jwk.Algorithm(t.Algorithm)
	keys, version, err := i.keys.Find(ctx, t.KeyID, algorithm)
	if err != nil {
		return 0, Unavailable, err
	}
	tries := 0
	for _, k := range keys {
		// A key is for one algorithm, whatever the set returns (RFC 8725, section 3.1).
		if k != nil {
			k = k.As(i.algorithms...)
		}
		if k == nil || !k.Matches(t.KeyID, algorithm) {
			continue
		}
		if tries == maxTries {
			break
		}
		tries++
		if err = k.Verify(t.Signed, t.Signature); err == nil {
			return version, Accepted, nil
		}
	}
	if tries == 0 {
		return 0, UnknownKey, nil
	}
	if s, ok := i.keys.(jwk.Refresher); ok {
		s.Refresh()
	}
	return 0, BadSignature, err
}

// checkClaims fills in token from claims that i has signed, and returns the verdict on
// them.
func (i *issuer) checkClaims(token *Token, claims []jose.Member, now time.Time, leeway time.Duration) Verdict {
	if !token.readClaims(claims, i.scopes) || token.Issuer != i.name {
		return InvalidClaims
	}
	if isRefreshToken(claims) {
		return WrongType
	}
	for _, name := range i.required {
		if !present(claims, name) {
			return InvalidClaims
		}
	}
	if !overlap(token.Audience, i.audiences) {
		return WrongAudience
	}
	if i.lifetime > 0 && !token.ExpiresAt.IsZero() {
		from := token.IssuedAt
		if from.IsZero() {
			from = now.Add(leeway)
		}
		if token.ExpiresAt.Sub(from) > i.lifetime {
			return InvalidClaims
		}
	}
	return token.checkTime(now, leeway)
}

// overlap reports whether two lists have a string in common.
func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(text string) bool { return slices.Contains(b, text) })
}
