package idempotency_test

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/race"
)

// A Memory finds, keeps and forgets what a map would, in whatever order entries come and
// go, and its parts agree with each other.
func TestMemoryHasTheRecordsOfAModel(t *testing.T) {
	type record struct {
		claim    idempotency.Claim
		state    idempotency.State
		response int
		lease    time.Time
		expires  time.Time
	}
	seeds := uint64(6)
	if race.Enabled {
		seeds = 2
	}
	synctest.Test(t, func(t *testing.T) {
		for seed := range seeds {
			random := rand.New(rand.NewPCG(seed, 1))
			u := usage{newMemory(t, idempotency.MemoryConfig{MaxBytes: 16 << 20}), t}
			most := 0
			model := make(map[idempotency.Key]*record)
			// The number of keys rises and falls over several pages.
			for step := range 20_000 {
				keys, ttl := 200+step%5_000, 100
				if step%10_000 >= 5_000 {
					ttl = 1000
				}
				c := claimOf(random.IntN(1+keys/100), random.IntN(keys))
				if seed%2 == 1 { // whose fingerprint no Middleware makes
					c.Fingerprint[0] ^= byte(random.IntN(2))
				}
				c.Fingerprint[31] = byte(random.IntN(2))
				c.Token[15] = byte(1 + random.IntN(3))
				c.TTL = time.Duration(1+random.IntN(ttl)) * time.Second
				c.Lease = c.TTL
				r := model[c.Key]
				if r != nil && !r.expires.After(time.Now()) {
					delete(model, c.Key)
					r = nil
				}
				now, until := time.Now(), time.Now().Add(c.TTL)
				claimed := r != nil && r.state == idempotency.StateClaimed
				mine := claimed && r.claim.Token == c.Token
				takenOver := claimed && !mine && !r.lease.After(now) && r.claim.Fingerprint == c.Fingerprint
				got, err := u.Claim(t.Context(), c)
				switch {
				case err != nil:
					t.Fatalf("step %d: %v", step, err)
				case got.Won != (r == nil || mine || takenOver) || takenOver && !got.TakenOver || r == nil && got.TakenOver:
					t.Fatalf("step %d: got %+v for the record %+v", step, got, r)
				case r == nil || takenOver:
					r = &record{c, idempotency.StateClaimed, 0, until, until}
					model[c.Key] = r
				case mine:
					r.lease, r.expires = until, maxTime(r.expires, until)
				}
				if got.State != r.state || got.Fingerprint != r.claim.Fingerprint || len(got.Payload) != r.response {
					t.Fatalf("step %d: the record is %+v, want %+v", step, got, r)
				}
				if r.state == idempotency.StateClaimed && random.IntN(4) > 0 {
					result := resultOf(random.IntN(300))
					result.TTL = time.Duration(1+random.IntN(ttl)) * time.Second
					if random.IntN(5) == 0 {
						result.State = idempotency.StateTombstone
						result.Payload = nil
					}
					if kept, err := u.Finish(t.Context(), completion(r.claim, result)); kept != result.State || err != nil {
						t.Fatalf("step %d: Finish: %d, %v", step, kept, err)
					}
					r.state, r.response, r.expires = result.State, len(result.Payload), time.Now().Add(result.TTL)
				}
				if random.IntN(10) == 0 {
					found, err := u.Find(t.Context(), c.Key)
					if err != nil || found.TTL != time.Until(r.expires) {
						t.Fatalf("step %d: Find: TTL %v, want %v, %v", step, found.TTL, time.Until(r.expires), err)
					}
					want := error(nil)
					if r.state == idempotency.StateClaimed && r.lease.After(time.Now()) {
						want = idempotency.ErrLost
					} else {
						delete(model, c.Key)
					}
					if err := u.Delete(t.Context(), c.Key, found.Generation); !errors.Is(err, want) {
						t.Fatalf("step %d: Delete: %v, want %v", step, err, want)
					}
				}
				time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
				if most = max(most, u.Len()); step%500 == 0 {
					if err := u.Check(); err != nil {
						t.Fatalf("step %d: %v", step, err)
					}
				}
			}
			if most < 2500 {
				t.Errorf("there were at most %d records", most)
			}
		}
	})
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// heap returns the bytes that are in use.
func heap() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first has found is freed now
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// What a Memory counts is what it takes, also after it has had more.
func TestMemoryTakesWhatItCounts(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector takes memory as well")
	}
	for _, c := range []struct {
		name                    string
		records, owners, stored int
		most                    int64 // bytes a record, beyond its response
	}{
		{"claims of one owner", 30_000, 1, -1, 180},
		{"responses of one owner", 30_000, 1, 132, 192},
		{"responses of many owners", 30_000, 3_000, 132, 204},
		{"an owner for each", 30_000, 30_000, -1, 300},
		{"records that no Middleware has made", 30_000, -1, -1, 380},
		{"large responses", 300, 1, 100_000, 8 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := heap()
				u := usage{newMemory(t, idempotency.MemoryConfig{}), t}
				fill := func(records int) {
					for i := range records {
						if c.stored >= 0 {
							u.put(i%c.owners, i, c.stored)
						} else if c.owners < 0 {
							claim := claimOf(1, i)
							claim.Fingerprint[0]++
							if _, err := u.Claim(t.Context(), claim); err != nil {
								t.Fatal(err)
							}
						} else if _, err := u.claims(i%c.owners, i, 1); err != nil {
							t.Fatal(err)
						}
					}
				}
				check := func(when string) {
					took, counted := heap()-before, u.Bytes()
					if took > counted+counted/50 || took < counted/2 {
						t.Errorf("%s: it takes %d bytes and counts %d", when, took, counted)
					}
					beyond := (took - int64(c.records*max(c.stored, 0))) / int64(c.records)
					if beyond > c.most {
						t.Errorf("%s: a record takes %d bytes beyond its response", when, beyond)
					}
				}
				fill(c.records)
				check("full")
				time.Sleep(2 * time.Hour)
				_, _ = u.claims(0, 1_000_000_000, 2*c.records)
				time.Sleep(2 * time.Hour)
				for range c.records {
					_, _ = u.claims(0, 0, 1)
				}
				took, counted := heap()-before, u.Bytes()
				if u.Len() != 1 || took > counted+counted/50+100_000 {
					t.Errorf("when %d record is left, it takes %d bytes and counts %d", u.Len(), took, counted)
				}
			})
		})
	}
}
