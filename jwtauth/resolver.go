package jwtauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/internal/loader"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// The bounds of the calls of Config.ResolveIssuer.
const (
	maxResolutions    = 16
	resolutionTimeout = 3 * time.Second
	unknownIssuerTTL  = time.Minute
	maxIssuerLength   = 1 << 10
)

// A resolver has the issuers that a Config.ResolveIssuer returns.
type resolver struct {
	resolve           func(ctx context.Context, iss string) (TrustedIssuer, error)
	ttl               time.Duration
	revocationTimeout time.Duration
	meters            metric.MeterProvider
	configured        issuers
	found             *loader.Cache[string, *issuer] // by iss; nil is an issuer that is unknown
}

// newResolver returns the resolver of c, or nil if c has none. It adds the faults of c to
// f.
func newResolver(f config.Faults[usher.ConfigError], c *Config, configured issuers) *resolver {
	f.If(c.IssuerCapacity < 0, "IssuerCapacity", config.NotNegative)
	f.If(c.IssuerTTL < 0, "IssuerTTL", config.NotNegative)
	if c.ResolveIssuer == nil {
		return nil
	}
	r := &resolver{
		resolve:           c.ResolveIssuer,
		ttl:               cmp.Or(c.IssuerTTL, 10*time.Minute),
		revocationTimeout: c.RevocationTimeout,
		meters:            c.MeterProvider,
		configured:        configured,
	}
	capacity := cmp.Or(c.IssuerCapacity, 1<<10)
	r.found = loader.New[string](loader.Config[*issuer]{
		Lifetime: func(i *issuer) (ttl time.Duration, negative bool) {
			if i == nil {
				return min(r.ttl, unknownIssuerTTL), true
			}
			return r.ttl, false
		},
		Capacity:         capacity,
		NegativeCapacity: capacity,
		Timeout:          resolutionTimeout,
		MaxFetches:       maxResolutions,
		// An error may concern one issuer. It must not make others unavailable, and
		// calls that hang are no results.
		IsResult: func(error) bool { return true },
	})
	return r
}

// issuer returns the issuer of t, or nil if it is unknown. An error means that it could
// not be found out.
func (r *resolver) issuer(ctx context.Context, t *jose.Token, now time.Time) (*issuer, error) {
	if r == nil || !jwk.Algorithm(t.Algorithm).Valid() {
		return nil, nil
	}
	value, _ := jose.Find(t.Claims, "iss")
	iss, ok := jose.Unquote(value)
	if !ok || !isIssuer(iss) {
		return nil, nil
	}
	if i, ok := r.found.Cached(iss, now); ok {
		return i, nil
	}
	iss = strings.Clone(iss) // it is part of the token, which must not be kept
	return r.found.Load(ctx, iss, func(ctx context.Context) (*issuer, error) {
		until := time.Now().Add(r.ttl)
		c, err := r.resolve(ctx, iss)
		if errors.Is(err, UnknownIssuer) {
			return nil, nil
		}
		if err == nil {
			err = r.check(&c, iss)
		}
		if err != nil {
			return nil, fmt.Errorf("jwtauth: resolve the issuer %s: %w", quoted(iss), err)
		}
		i := c.compile(r.revocationTimeout, r.meters)
		i.until = until
		return i, nil
	})
}

// isIssuer reports whether the name of an issuer may be passed to ResolveIssuer. It comes
// from a token that nobody has verified.
func isIssuer(iss string) bool {
	return iss != "" && len(iss) <= maxIssuerLength && !strings.Contains(iss, "|") &&
		strings.TrimSpace(iss) == iss && !strings.ContainsFunc(iss, unicode.IsControl)
}

// check returns the faults of c, which ResolveIssuer returned for iss, or nil.
func (r *resolver) check(c *TrustedIssuer, iss string) error {
	f := config.Of[usher.ConfigError]("jwtauth.TrustedIssuer")
	c.validate(f)
	f.If(c.Issuer != iss && !slices.Contains(c.Aliases, iss), "Issuer", "must be the iss that was passed to ResolveIssuer, unless that is an alias")
	f.If(r.configured.byName[c.Issuer] != nil, "Issuer", "must not be that of one of Config.Issuers")
	for _, name := range c.Aliases {
		f.If(r.configured.byName[name] != nil, "Aliases", fmt.Sprintf("%q must not be that of one of Config.Issuers", name))
	}
	f.If(c.WithoutIssuer, "WithoutIssuer", "must not be set, because a token without iss has nothing to resolve")
	return f.Err()
}
