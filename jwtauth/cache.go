package jwtauth

import (
	"context"
	"hash/maphash"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher/internal/shard"
	"github.com/usher-go/usher/internal/telemetry"
)

// A tokenCache remembers valid tokens and nothing else. It finds a token by a hash with a
// seed of its own, which nobody can predict, and compares the whole text. The hash is that
// of the end of the text, which has the signature and so differs between valid tokens.
type tokenCache struct {
	seed    maphash.Seed
	ttl     time.Duration
	entries *shard.Cache[uint64, *cacheEntry]
	lookups *telemetry.Decisions
}

// A cacheEntry is a verified token and what its verification depends on.
type cacheEntry struct {
	verified
	text    string
	version uint64 // of the key set that its key came from
	until   time.Time
}

func newTokenCache(capacity int, ttl time.Duration, meters metric.MeterProvider) *tokenCache {
	return &tokenCache{
		seed:    maphash.MakeSeed(),
		ttl:     ttl,
		entries: shard.New[uint64, *cacheEntry](capacity, nil).Measured(meters, shard.Tokens),
		lookups: cacheLookups.Decisions(meters),
	}
}

func (c *tokenCache) hash(text string) uint64 {
	const most = 64
	return maphash.String(c.seed, text[max(len(text)-most, 0):])
}

// shard returns the shard of the tokens with this hash.
func (c *tokenCache) shard(hash uint64) *shard.Shard[uint64, *cacheEntry] {
	return c.entries.At(c.entries.Index(hash))
}

// find returns a token that was verified with the present version of its keys. The
// caller checks its exp.
func (c *tokenCache) find(ctx context.Context, hash uint64, text string, now time.Time) *verified {
	s := c.shard(hash)
	s.Lock()
	e, ok := s.Get(hash)
	s.Unlock()
	if ok && e.text == text && now.Before(e.until) && e.issuer.has(e.version) {
		c.lookups.Count(ctx, hit)
		return &e.verified
	}
	c.lookups.Count(ctx, miss)
	return nil
}

// has reports whether a token is remembered, even if its keys or exp no longer permit it.
func (c *tokenCache) has(text string) bool {
	hash := c.hash(text)
	s := c.shard(hash)
	s.Lock()
	defer s.Unlock()
	e, ok := s.Peek(hash)
	return ok && e.text == text
}

// add remembers e by a copy of text, which may be part of a larger block of memory. Of two
// tokens with one hash the later one is remembered.
func (c *tokenCache) add(hash uint64, text string, e *cacheEntry) {
	e.text = strings.Clone(text)
	s := c.shard(hash)
	s.Lock()
	s.Add(hash, e)
	s.Unlock()
}
