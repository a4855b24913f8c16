package jwtauth

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/jwtauth/jwk"
)

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
func newIssuers(f config.Faults[usher.ConfigError], list []TrustedIssuer, revocationTimeout time.Duration, meters metric.MeterProvider) issuers {
	all := issuers{byName: make(map[string]*issuer, len(list))}
	for n, c := range list {
		f := f.In(fmt.Sprintf("Issuers[%d]", n))
		c.validate(f)
		i := c.compile(revocationTimeout, meters)
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

func (c *TrustedIssuer) compile(revocationTimeout time.Duration, meters metric.MeterProvider) *issuer {
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
		revocations:  guardRevocations(c.Revocations, revocationTimeout, meters),
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
