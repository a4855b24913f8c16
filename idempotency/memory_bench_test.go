package idempotency_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// A claim and its end, in a Memory that has as many records as 5 requests a second leave in
// a day, and drops one that has expired for each new one.
func BenchmarkMemory(b *testing.B) {
	for _, owners := range []int{1, 100_000} {
		b.Run(fmt.Sprintf("%d owners", owners), func(b *testing.B) {
			m := newMemory(b, idempotency.MemoryConfig{MaxBytes: 1 << 30})
			result := resultOf(132)
			do := func(i int, ttl time.Duration) {
				c := claimOf(i%owners, i)
				if _, err := m.Claim(b.Context(), c); err != nil {
					b.Fatal(err)
				}
				result := result
				result.TTL = ttl
				if _, err := m.Finish(b.Context(), completion(c, result)); err != nil {
					b.Fatal(err)
				}
			}
			const records = 24 * 60 * 60 * 5
			for i := range records {
				do(i, time.Hour)
			}
			var n atomic.Int64
			n.Store(records)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					do(int(n.Add(1)), time.Nanosecond)
				}
			})
		})
	}
}
