package stacks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/ratelimit"
)

func newUsher(c Config) (h http.Handler, closer func() error, err error) {
	ips, err := clientip.New(clientip.Config{})
	if err != nil {
		return nil, nil, err
	}
	shape, err := envelope.New(envelope.Config{Wrap: true})
	if err != nil {
		return nil, nil, err
	}
	auth, closer, err := authenticator(c)
	if err != nil {
		return nil, nil, err
	}
	limits, err := limiter(c)
	if err != nil {
		return nil, nil, errors.Join(err, closer())
	}
	once, err := idempotency.New(idempotency.Config{MeterProvider: c.MeterProvider})
	if err != nil {
		return nil, nil, errors.Join(err, closer())
	}
	r := chi.NewRouter()
	r.Use(shape.Wrap, ips.Wrap)
	r.Group(func(r chi.Router) {
		r.Use(usher.Authenticate(auth).Wrap, limits.Wrap, once.Wrap)
		r.Get("/notes", plain)
		r.Post("/notes", plain)
	})
	return r, closer, nil
}

// limiter returns the limit of the route with that of everybody.
func limiter(c Config) (*ratelimit.Limiter, error) {
	policy := func(name string) ratelimit.Policy {
		return ratelimit.Policy{Name: name, Key: ratelimit.ByPrincipal(), Limit: ratelimit.TokenBucket(plenty, time.Second, plenty)}
	}
	global, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{policy("global")}, MeterProvider: c.MeterProvider})
	if err != nil {
		return nil, err
	}
	return global.With(policy("notes"))
}

func authenticator(c Config) (usher.Authenticator, func() error, error) {
	switch c.Credential {
	case Key:
		return keys(c)
	case JWT:
		v, err := verifier(c)
		return v, func() error { return nil }, err
	default:
		return nil, nil, fmt.Errorf("stacks: no credential %q", c.Credential)
	}
}

// keys has the cache that stands in front of a store that many processes share.
// The store below it here is in memory; it is asked once in ten seconds.
func keys(c Config) (usher.Authenticator, func() error, error) {
	// The cache asks a store that announces changes on every request until the store
	// has announced that it is ready.
	quiet := struct{ apikey.Store }{apikey.NewMemory()}
	cache, err := apikey.NewCache(apikey.CacheConfig{Store: quiet})
	if err != nil {
		return nil, nil, err
	}
	manager, err := apikey.NewManager(apikey.ManagerConfig{Store: cache, Format: format})
	if err != nil {
		return nil, nil, errors.Join(err, cache.Close())
	}
	hash, err := manager.Hash(apikey.NewSecret(keyText()))
	if err == nil {
		_, err = manager.Import(context.Background(), apikey.Actor{System: true}, apikey.Key{
			Owner: owner, Name: "benchmark", Environment: "live", Scopes: []string{"notes:read", "notes:write"},
		}, hash)
	}
	if err != nil {
		return nil, nil, errors.Join(err, cache.Close())
	}
	auth, err := apikey.New(apikey.Config{Manager: manager, Environment: "live", MeterProvider: c.MeterProvider})
	if err != nil {
		return nil, nil, errors.Join(err, cache.Close())
	}
	return auth, func() error { return errors.Join(auth.Close(), cache.Close()) }, nil
}

func verifier(c Config) (*jwtauth.Verifier, error) {
	key, err := jwk.New(jwk.KeyConfig{ID: "1", Algorithm: jwk.HS256, Secret: tokenSecret})
	if err != nil {
		return nil, err
	}
	return jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: jwk.Static{key},
		}},
		MeterProvider: c.MeterProvider,
	})
}
