package jwtauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher/internal/shard"
	"github.com/usher-go/usher/internal/telemetry"
)

// A tokenHash stands for a token: SHA-256 of a secret and the whole token. The
// secret is another one in each cache, so nobody can look for two tokens that
// meet in one.
type tokenHash [sha256.Size]byte

// A hasher hashes tokens without a copy of each.
type hasher struct {
	secret [32]byte
	bufs   sync.Pool // of *[]byte that begin with the secret
}

func newHasher() *hasher {
	h := new(hasher)
	_, _ = rand.Read(h.secret[:]) // never fails
	h.bufs.New = func() any {
		b := append(make([]byte, 0, 2<<10), h.secret[:]...)
		return &b
	}
	return h
}

func (h *hasher) hash(text string) tokenHash {
	b := h.bufs.Get().(*[]byte)
	*b = append((*b)[:len(h.secret)], text...)
	sum := sha256.Sum256(*b)
	h.bufs.Put(b)
	return sum
}

// A tokenCache remembers tokens that were found to be good, and nothing else.
type tokenCache struct {
	*hasher
	ttl     time.Duration
	entries *shard.Cache[tokenHash, *remembered]
	lookups *telemetry.Decisions
}

// remembered is what is known of a token.
type remembered struct {
	verified
	version uint64 // of the issuer's keys, before they were asked
	until   time.Time
}

// The outcomes of a lookup.
const (
	hit = iota
	miss
)

func newTokenCache(capacity int, ttl time.Duration, meters metric.MeterProvider) *tokenCache {
	return &tokenCache{
		hasher:  newHasher(),
		ttl:     ttl,
		entries: shard.New[tokenHash, *remembered](capacity, nil),
		lookups: telemetry.NewDecisions(telemetry.Config{
			MeterProvider: meters,
			Scope:         "github.com/usher-go/usher/jwtauth",
			Counter:       "usher.jwt.cache.lookups",
			Description:   "Lookups of tokens that were verified before.",
			Attribute:     "usher.jwt.cache.result",
			Outcomes:      []string{hit: "hit", miss: "miss"},
		}),
	}
}

// find returns what is known of a token, if that still holds for its keys. Its
// life is for the caller to check.
func (c *tokenCache) find(ctx context.Context, h tokenHash, now time.Time) (verified, bool) {
	s := c.entries.Shard(h)
	s.Lock()
	e, ok := s.Get(h)
	s.Unlock()
	if ok && now.Before(e.until) {
		// An error is told by the verification that follows.
		if version, err := e.issuer.keys.Version(); err == nil && version == e.version {
			c.lookups.Count(ctx, hit)
			return e.verified, true
		}
	}
	c.lookups.Count(ctx, miss)
	return verified{}, false
}

func (c *tokenCache) add(h tokenHash, e *remembered) {
	s := c.entries.Shard(h)
	s.Lock()
	s.Add(h, e)
	s.Unlock()
}
