package jwtauth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A TrustedIssuer is one whose tokens a [Verifier] accepts.
type TrustedIssuer struct {
	// Issuer is the iss of its tokens, to the letter. Required; it must have no
	// "|", which no URL has either.
	Issuer string
	// Audiences are the names of this service in aud: a token must have one of
	// them, to the letter. At least one is required.
	Audiences []string
	// Algorithms are those that the issuer signs with. At least one is required.
	Algorithms []jwk.Algorithm
	// Keys are the keys of this issuer and of nobody else. Required.
	Keys jwk.Set
	// Profile is the kind of its tokens.
	Profile Profile
	// Type is the typ that its tokens must have, in place of that of the profile,
	// for instance "example+jwt".
	Type string
	// RequiredClaims are claims that must be there, beside those of the profile.
	RequiredClaims []string
	// ScopeClaims are claims that grant scopes beside scope and scp, each a string
	// of scopes or an array of them. Name only claims that the issuer limits to what
	// the client was granted: the permissions of Auth0, for instance, are all those
	// of the user, whatever the client asked for.
	ScopeClaims []string
	// MaxLifetime is the longest that a token may have been given to live, from
	// its iat or else from now to its exp; zero means an hour for ProfileAssertion
	// and no limit else.
	MaxLifetime time.Duration
	// Revocations, if not nil, is consulted for each request with a valid token of
	// this issuer, in addition to those of the Config. It is called as they are.
	Revocations Revocations
	// DangerouslyAcceptWithoutExpiry accepts tokens of ProfilePlain that have no
	// exp, which are good until their key is removed.
	DangerouslyAcceptWithoutExpiry bool
}

// A rule is what a profile asks for.
type rule struct {
	typ      string // "" accepts JWT, or no typ
	required []string
	lifetime time.Duration
}

var rules = [profiles]rule{
	ProfilePlain:       {},
	ProfileAccessToken: {typ: "at+jwt", required: []string{"sub", "client_id", "iat", "jti"}},
	ProfileAssertion:   {required: []string{"sub", "iat"}, lifetime: time.Hour},
	ProfileSession:     {typ: typSession, required: []string{"sub", "iat", "jti", "sid"}},
}

// trusted is a TrustedIssuer, ready for use.
type trusted struct {
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

func newIssuers(list []TrustedIssuer, patience time.Duration) (issuers map[string]*trusted, errs []error) {
	if len(list) == 0 {
		errs = append(errs, &usher.ConfigError{Field: "jwtauth.Config.Issuers", Reason: "at least one is required"})
	}
	issuers = make(map[string]*trusted, len(list))
	for n, c := range list {
		path := fmt.Sprintf("jwtauth.Config.Issuers[%d]", n)
		if _, ok := issuers[c.Issuer]; ok {
			errs = append(errs, &usher.ConfigError{Field: path + ".Issuer", Reason: "is there twice"})
		}
		errs = append(errs, c.faults(path)...)
		issuers[c.Issuer] = c.compile(patience)
	}
	return issuers, errs
}

func (c *TrustedIssuer) compile(patience time.Duration) *trusted {
	r := rules[min(c.Profile, profiles-1)]
	t := &trusted{
		name:        c.Issuer,
		audiences:   slices.Clone(c.Audiences),
		algorithms:  slices.Clone(c.Algorithms),
		keys:        c.Keys,
		typ:         r.typ,
		required:    slices.Concat(r.required, c.RequiredClaims),
		scopes:      grantingClaims(c.ScopeClaims),
		lifetime:    orDefault(c.MaxLifetime, r.lifetime),
		revocations: guardRevocations(c.Revocations, patience),
	}
	if c.Type != "" {
		t.typ = c.Type
	}
	if !c.DangerouslyAcceptWithoutExpiry {
		t.required = append(t.required, "exp")
	}
	if keys, ok := c.Keys.(jwk.Static); ok {
		t.keys = slices.Clone(keys)
	}
	return t
}

// faults returns all that is wrong with c.
func (c *TrustedIssuer) faults(path string) (errs []error) {
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: path + "." + field, Reason: reason})
	}
	switch {
	case c.Issuer == "":
		fault("Issuer", "is required")
	case strings.Contains(c.Issuer, "|"):
		fault("Issuer", "must not have a bar")
	}
	if len(c.Audiences) == 0 || slices.Contains(c.Audiences, "") {
		fault("Audiences", "at least one is required, and none may be empty")
	}
	if len(c.Algorithms) == 0 {
		fault("Algorithms", "at least one is required")
	}
	for i, a := range c.Algorithms {
		if !a.Valid() {
			fault(fmt.Sprintf("Algorithms[%d]", i), "must be an algorithm of package jwk")
		}
	}
	if c.Keys == nil {
		fault("Keys", "is required")
	}
	if keys, ok := c.Keys.(jwk.Static); ok {
		for _, reason := range keyFaults(keys, c.Algorithms) {
			fault("Keys", reason)
		}
	}
	if c.Profile >= profiles {
		fault("Profile", "is none of the constants")
	}
	if slices.Contains(c.RequiredClaims, "") {
		fault("RequiredClaims", "no name may be empty")
	}
	if slices.Contains(c.ScopeClaims, "") {
		fault("ScopeClaims", "no name may be empty")
	}
	if c.MaxLifetime < 0 {
		fault("MaxLifetime", "must not be negative")
	}
	if c.DangerouslyAcceptWithoutExpiry && c.Profile != ProfilePlain {
		fault("DangerouslyAcceptWithoutExpiry", "is for ProfilePlain alone")
	}
	return errs
}

// keyFaults returns why s are no keys for these algorithms.
func keyFaults(s jwk.Static, algorithms []jwk.Algorithm) (reasons []string) {
	if len(s) == 0 {
		return []string{"at least one key is required"}
	}
	type name struct {
		id string
		a  jwk.Algorithm
	}
	seen := make(map[name]bool)
	for i, k := range s {
		if k == nil || k.Algorithm() == "" {
			reasons = append(reasons, fmt.Sprintf("key %d was not made by jwk.New", i))
			continue
		}
		n := name{k.ID(), k.Algorithm()}
		if !slices.Contains(algorithms, k.Algorithm()) {
			reasons = append(reasons, fmt.Sprintf("%v is for an algorithm that is not among Algorithms", k))
		}
		if k.ID() != "" && seen[n] {
			reasons = append(reasons, fmt.Sprintf("%v is there twice", k))
		}
		seen[n] = true
	}
	return reasons
}

// checkHeader returns whether a token of t may have the header of g.
func (t *trusted) checkHeader(g *jose.Token) Verdict {
	switch {
	case !slices.Contains(t.algorithms, jwk.Algorithm(g.Algorithm)):
		return WrongAlgorithm
	case t.typ != "" && !sameType(g.Type, t.typ):
		return WrongType
	case t.typ == "" && g.Type != "" && !sameType(g.Type, "JWT"):
		return WrongType
	}
	return Accepted
}

// maxTries bounds how many keys are tried for one token.
const maxTries = 4

// verifySignature returns whether t has signed g, and the version of the keys
// that say so.
func (t *trusted) verifySignature(ctx context.Context, g *jose.Token) (version uint64, v Verdict, err error) {
	keys, version, err := t.keys.Find(ctx, g.KeyID, jwk.Algorithm(g.Algorithm))
	if err != nil {
		return 0, Unavailable, err
	}
	tries := 0
	for _, k := range keys {
		// One key, one algorithm, whatever the set says (RFC 8725, section 3.1).
		if k == nil || !k.Matches(g.KeyID, jwk.Algorithm(g.Algorithm)) {
			continue
		}
		if tries == maxTries {
			break
		}
		tries++
		if err = k.Verify(g.Signed, g.Signature); err == nil {
			return version, Accepted, nil
		}
	}
	if tries == 0 {
		return 0, UnknownKey, nil
	}
	if s, ok := t.keys.(jwk.Refresher); ok {
		s.Refresh()
	}
	return 0, BadSignature, err
}

// checkClaims fills in token from claims that t has signed, and returns whether
// they are what t may say.
func (t *trusted) checkClaims(token *Token, claims []jose.Member, now time.Time, leeway time.Duration) Verdict {
	if !token.readClaims(claims, t.scopes) || token.Issuer != t.name {
		return InvalidClaims
	}
	if isRefreshToken(claims) {
		return WrongType
	}
	for _, name := range t.required {
		if !present(claims, name) {
			return InvalidClaims
		}
	}
	if !overlap(token.Audience, t.audiences) {
		return WrongAudience
	}
	if t.lifetime > 0 && !token.ExpiresAt.IsZero() {
		from := token.IssuedAt
		if from.IsZero() {
			from = now.Add(leeway)
		}
		if token.ExpiresAt.Sub(from) > t.lifetime {
			return InvalidClaims
		}
	}
	return token.timely(now, leeway)
}

// overlap reports whether two lists have a string in common.
func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(text string) bool { return slices.Contains(b, text) })
}
