package usherpg_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// BenchmarkTake decides requests of 1,000 clients under token buckets.
func BenchmarkTake(b *testing.B) {
	_, pool := migrated(b)
	s := open(b, pool).Limits()
	var seq atomic.Uint64
	for _, policies := range []int{1, 3} {
		decide := func(n int) error {
			d := ratelimit.Decision{ID: ratelimit.ID{Node: 1, Seq: seq.Add(1)}}
			for i := range policies {
				d.Charges = append(d.Charges, ratelimit.Charge{
					Policy: fmt.Sprintf("policy-%d", i), Key: ratelimit.TextKey(fmt.Sprint(n % 1000)),
					Limit: ratelimit.TokenBucket(1000, time.Second, 1000), Cost: 1,
				})
			}
			return s.Take(b.Context(), &d)
		}
		b.Run(fmt.Sprintf("policies=%d/callers=1", policies), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := decide(rand.Int()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("policies=%d/callers=16", policies), func(b *testing.B) {
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := decide(rand.Int()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkClaimFinish claims new keys, and stores a response of 200 bytes for each.
func BenchmarkClaimFinish(b *testing.B) {
	_, pool := migrated(b)
	s := open(b, pool).Idempotency()
	payload := make([]byte, 200)
	var n uint64
	b.ReportAllocs()
	for b.Loop() {
		n++
		c := idempotency.Claim{Token: idempotency.Token{1}, Lease: time.Minute, TTL: time.Hour}
		binary.BigEndian.PutUint64(c.Key.Name[:], n)
		if _, err := s.Claim(b.Context(), c); err != nil {
			b.Fatal(err)
		}
		_, err := s.Finish(b.Context(), idempotency.Completion{
			Key: c.Key, Token: c.Token, Result: idempotency.Result{State: idempotency.StateDone, Status: 200, Payload: payload, TTL: time.Hour},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKeys looks up keys without a cache, selects a line of 3 and what was derived from
// a key, and adds keys for an owner with 10 keys that have ended, or with 10,000.
func BenchmarkKeys(b *testing.B) {
	_, pool := migrated(b)
	s := open(b, pool).Keys()
	ctx := b.Context()
	var r apikey.Record
	add := func(owner string, alter func(*apikey.Record), limits apikey.Limits) {
		r = newKey()
		r.Owner = owner
		alter(&r)
		if err := s.Insert(ctx, r, limits); err != nil {
			b.Fatal(err)
		}
	}
	revoked := func(r *apikey.Record) { r.RevokedAt = r.CreatedAt }
	for _, n := range []int{10, 10_000} {
		owner := fmt.Sprint("owner", n)
		for range n {
			add(owner, revoked, apikey.Limits{})
		}
	}
	for range 3 {
		add("ann", func(r *apikey.Record) { r.Line, r.DerivedFrom = "first", "source" }, apikey.Limits{})
	}
	exec(b, pool, "VACUUM ANALYZE usher.keys")
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Lookup(ctx, r.Hash); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, f := range map[string]apikey.Filter{"line": {Line: "first"}, "derived": {DerivedFrom: "source"}} {
		b.Run("select/"+name, func(b *testing.B) {
			for b.Loop() {
				if keys, _, err := s.Select(ctx, apikey.Query{Filter: f, Limit: 100}); err != nil || len(keys) != 3 {
					b.Fatal(len(keys), err)
				}
			}
		})
	}
	for _, n := range []int{10, 10_000} {
		owner := fmt.Sprint("owner", n)
		b.Run(fmt.Sprintf("insert/ended=%d", n), func(b *testing.B) {
			for b.Loop() {
				add(owner, revoked, apikey.Limits{Active: 5, Working: 5, Derived: 5, Total: 1_000_000})
			}
		})
	}
}
