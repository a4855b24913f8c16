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

// A tokenHash identifies a token: SHA-256 of a secret and the whole token. Each cache
// has a secret of its own, so nobody can search for two tokens with one hash.
type tokenHash [sha256.Size]byte

// A hasher hashes tokens without allocating.
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

// A tokenCache remembers valid tokens and nothing else.
type tokenCache struct {
	*hasher
	ttl     time.Duration
	entries *shard.Cache[tokenHash, *cacheEntry]
	lookups *telemetry.Decisions
}

// A cacheEntry is a verified token and what its verification depends on.
type cacheEntry struct {
	verified
	version uint64 // of the key set that its key came from
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
		entries: shard.New[tokenHash, *cacheEntry](capacity, nil),
		lookups: telemetry.NewDecisions(telemetry.Config{
			MeterProvider: meters,
			Scope:         "github.com/usher-go/usher/jwtauth",
			Counter:       "usher.jwt.cache.lookups",
			Description:   "Lookups in the cache of verified tokens.",
			Attribute:     "usher.jwt.cache.result",
			Outcomes:      []string{hit: "hit", miss: "miss"},
		}),
	}
}

// find returns a token that was verified with the present version of its keys. The
// caller checks its exp.
func (c *tokenCache) find(ctx context.Context, h tokenHash, now time.Time) (verified, bool) {
	s := c.entries.Shard(h)
	s.Lock()
	e, ok := s.Get(h)
	s.Unlock()
	if ok && now.Before(e.until) {
		// The verification that follows reports the error.
		if version, err := e.issuer.keys.Version(); err == nil && version == e.version {
			c.lookups.Count(ctx, hit)
			return e.verified, true
		}
	}
	c.lookups.Count(ctx, miss)
	return verified{}, false
}

// has reports whether a token is remembered, even if its keys or exp no longer permit it.
func (c *tokenCache) has(h tokenHash) bool {
	s := c.entries.Shard(h)
	s.Lock()
	defer s.Unlock()
	_, ok := s.Peek(h)
	return ok
}

func (c *tokenCache) add(h tokenHash, e *cacheEntry) {
	s := c.entries.Shard(h)
	s.Lock()
	s.Add(h, e)
	s.Unlock()
}
