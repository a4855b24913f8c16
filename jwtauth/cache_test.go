package jwtauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A keySet is a key set whose keys change. It counts how often it is asked.
type keySet struct {
	mu      sync.Mutex
	keys    []*jwk.Key
	version uint64
	err     error
	finds   atomic.Int64
}

func (s *keySet) Find(context.Context, string, jwk.Algorithm) ([]*jwk.Key, uint64, error) {
	s.finds.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys, s.version, s.err
}

func (s *keySet) Version() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version, s.err
}

func (s *keySet) set(err error, keys ...*jwk.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.keys, s.err = keys, err
}

// rotating returns a verifier like verifier, and its key set, whose keys may change.
func rotating(tb testing.TB, change func(*jwtauth.Config)) (*jwtauth.Verifier, *keySet) {
	tb.Helper()
	i := hs256(tb)
	set := &keySet{keys: i.Keys.(jwk.Static)}
	i.Keys = set
	c := jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}}
	if change != nil {
		change(&c)
	}
	return mustVerifier(tb, c), set
}

func TestCacheVerifiesATokenOnce(t *testing.T) {
	v, set := rotating(t, nil)
	text := good()
	for range 10 {
		want(t, v, text, jwtauth.Accepted)
	}
	if n := set.finds.Load(); n != 1 {
		t.Errorf("verified %d times", n)
	}
	v, set = rotating(t, func(c *jwtauth.Config) { c.CacheCapacity = -1 })
	for range 10 {
		want(t, v, text, jwtauth.Accepted)
	}
	if n := set.finds.Load(); n != 10 {
		t.Errorf("without a cache verified %d times of 10", n)
	}
}

func TestCacheRefusesARemovedKeyAtOnce(t *testing.T) {
	v, set := rotating(t, nil)
	text := good()
	want(t, v, text, jwtauth.Accepted)
	want(t, v, text, jwtauth.Accepted)
	set.set(nil)
	want(t, v, text, jwtauth.UnknownKey)
	set.set(nil, mustKey(t, jwk.KeyConfig{Algorithm: jwk.HS256, Secret: []byte(strings.Repeat("y", 32))}))
	want(t, v, text, jwtauth.BadSignature)
	set.set(errors.New("no response"))
	want(t, v, text, jwtauth.Unavailable)
}

func TestCacheRefusesARevokedTokenAtOnce(t *testing.T) {
	var list jwtauth.RevocationList
	v := verifier(t, func(c *jwtauth.Config) { c.Revocations = &list })
	until := time.Now().Add(time.Hour)
	for name, tt := range map[string]struct {
		claims map[string]any
		revoke func() error
	}{
		"by its ID":      {map[string]any{"jti": "1"}, func() error { return list.RevokeToken(t.Context(), issuer, "1", until) }},
		"by its session": {map[string]any{"sid": "1"}, func() error { return list.RevokeSession(t.Context(), issuer, "1", until) }},
		"by its subject": {map[string]any{"sub": "eve"}, func() error {
			return list.RevokeSubject(t.Context(), issuer, "eve", time.Now().Add(time.Second), until)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			text := token(claims(tt.claims))
			want(t, v, text, jwtauth.Accepted)
			want(t, v, text, jwtauth.Accepted)
			if err := tt.revoke(); err != nil {
				t.Fatal(err)
			}
			want(t, v, text, jwtauth.Revoked)
		})
	}
	want(t, v, token(claims(map[string]any{"jti": "2", "sid": "2"})), jwtauth.Accepted)
}

func TestCacheRefusesAnExpiredTokenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, set := rotating(t, func(c *jwtauth.Config) { c.Leeway, c.CacheTTL = -1, time.Hour })
		for _, iat := range []any{time.Now().Unix(), nil} { // one library forgot exp where there was no iat
			text := token(claims(map[string]any{"exp": time.Now().Unix() + 60, "iat": iat}))
			before := set.finds.Load()
			want(t, v, text, jwtauth.Accepted)
			time.Sleep(59 * time.Second)
			want(t, v, text, jwtauth.Accepted)
			if n := set.finds.Load() - before; n != 1 {
				t.Errorf("verified %d times", n)
			}
			time.Sleep(time.Second)
			want(t, v, text, jwtauth.Expired)
		}
	})
}

func TestCacheForgetsAfterItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, set := rotating(t, func(c *jwtauth.Config) { c.CacheTTL = 10 * time.Second })
		text := good()
		want(t, v, text, jwtauth.Accepted)
		time.Sleep(10*time.Second - 1)
		want(t, v, text, jwtauth.Accepted)
		time.Sleep(time.Nanosecond)
		want(t, v, text, jwtauth.Accepted)
		if n := set.finds.Load(); n != 2 {
			t.Errorf("verified %d times", n)
		}
	})
}

func TestCacheIsNotSharedBetweenVerifiers(t *testing.T) {
	text := token(claims(map[string]any{"aud": []string{"first", "both"}}))
	of := func(audience string) *jwtauth.Verifier {
		i := hs256(t)
		i.Audiences = []string{audience}
		return mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
	}
	first, second := of("first"), of("second")
	want(t, first, text, jwtauth.Accepted)
	want(t, first, text, jwtauth.Accepted)
	want(t, second, text, jwtauth.WrongAudience)
	want(t, of("both"), text, jwtauth.Accepted)
}

func TestCacheKeyIsTheWholeToken(t *testing.T) {
	v := verifier(t, nil)
	text := good()
	want(t, v, text, jwtauth.Accepted)
	for i := range len(text) {
		changed := text[:i] + string(flip(text[i])) + text[i+1:]
		if verdict(t, v, changed) == jwtauth.Accepted {
			t.Fatalf("still accepted with another character at %d", i)
		}
	}
	want(t, v, text, jwtauth.Accepted)
}

func TestCacheDoesNotTakeOneTokenForAnotherWithItsHash(t *testing.T) {
	v, set := rotating(t, nil)
	text := good()
	want(t, v, text, jwtauth.Accepted)
	forged := text[:len(text)-1] + string(flip(text[len(text)-1]))
	other := token(claims(map[string]any{"sub": "eve"}))
	remembered := text
	for _, text := range []string{forged, text[:len(text)-43] + strings.Repeat("A", 43), "a.b.c", other} {
		jwtauth.Collide(v, remembered, text)
	}
	if verdict(t, v, forged) == jwtauth.Accepted || verdict(t, v, "a.b.c") == jwtauth.Accepted {
		t.Error("the hash decides alone")
	}
	before := set.finds.Load()
	if p, err := v.Authenticate(request(t, other)); err != nil || !strings.HasSuffix(p.ID, "|eve") || set.finds.Load() != before+1 {
		t.Errorf("%+v %v", p, err)
	}
}

func TestCacheRemembersNoRefusal(t *testing.T) {
	v, set := rotating(t, nil)
	text := good()
	keys := set.keys
	set.set(errors.New("no response"))
	want(t, v, text, jwtauth.Unavailable)
	set.set(nil)
	want(t, v, text, jwtauth.UnknownKey)
	set.set(nil, keys...)
	want(t, v, text, jwtauth.Accepted)
}

// If a key set changes while a token is being verified, the token must not be remembered
// as verified by the new keys.
func TestCacheEntryBelongsToTheKeysThatWereAsked(t *testing.T) {
	i := hs256(t)
	inner := i.Keys.(jwk.Static)
	set := &keySet{keys: inner}
	late := &lateSet{keySet: set}
	i.Keys = late
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
	text := good()
	late.after = func() { set.set(nil) } // removed right after it was found
	want(t, v, text, jwtauth.Accepted)   // found while it was still there
	late.after = nil
	want(t, v, text, jwtauth.UnknownKey)
	set.set(nil, inner...)
	want(t, v, text, jwtauth.Accepted)
}

// A lateSet changes as soon as it has responded.
type lateSet struct {
	*keySet
	after func()
}

func (s *lateSet) Find(ctx context.Context, kid string, a jwk.Algorithm) ([]*jwk.Key, uint64, error) {
	keys, version, err := s.keySet.Find(ctx, kid, a)
	if s.after != nil {
		s.after()
	}
	return keys, version, err
}

func TestCacheMemoryIsBounded(t *testing.T) {
	n := 20_000
	if os.Getenv("USHER_SOAK") != "" {
		n = 1_000_000
	}
	if race.Enabled {
		n = 2000
	}
	const capacity = 1000
	v, set := rotating(t, func(c *jwtauth.Config) { c.CacheCapacity = capacity })
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	text := func(i int) string { return token(claims(map[string]any{"jti": strconv.Itoa(i)})) }
	for i := range 2 * capacity {
		want(t, v, text(i), jwtauth.Accepted)
	}
	full := heap()
	for i := range n {
		want(t, v, text(i), jwtauth.Accepted)
	}
	after := heap()
	t.Logf("heap %d KiB when full, %d KiB after %d more tokens", full>>10, after>>10, n)
	if after > full+full/2+1<<20 {
		t.Errorf("grew from %d to %d bytes", full, after)
	}
	if got := set.finds.Load(); got < int64(n) {
		t.Errorf("%d of %d tokens were verified", got, n)
	}
	if got := jwtauth.Remembered(v); got > capacity {
		t.Errorf("%d tokens remembered", got)
	}
}

func TestCacheUnderConcurrentUse(t *testing.T) {
	var list jwtauth.RevocationList
	v, set := rotating(t, func(c *jwtauth.Config) { c.CacheCapacity, c.Revocations = 100, &list })
	texts := make([]string, 200)
	for i := range texts {
		texts[i] = token(claims(map[string]any{"jti": strconv.Itoa(i)}))
	}
	keys := set.keys
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				_, _ = v.Authenticate(request(t, texts[(i*7+g)%len(texts)]))
				if i%50 == 0 {
					set.set(nil, keys...)
					_ = list.RevokeToken(t.Context(), issuer, strconv.Itoa(i%20), time.Now().Add(time.Hour))
				}
			}
		})
	}
	wg.Wait()
	want(t, v, texts[0], jwtauth.Revoked)
	want(t, v, texts[199], jwtauth.Accepted)
}

func TestAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	var list jwtauth.RevocationList
	if err := list.RevokeToken(t.Context(), issuer, "other", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	v := verifier(t, func(c *jwtauth.Config) {
		c.Revocations = &list
		c.Check = func(context.Context, *jwtauth.Token) error { return nil }
	})
	forgetful := verifier(t, func(c *jwtauth.Config) { c.CacheCapacity = -1 })
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	middleware := usher.Authenticate(v).Wrap(nothing)
	r := request(t, token(claims(map[string]any{"jti": "1", "sid": "2"})))
	tracked := usher.Track(r)
	if _, err := v.Authenticate(r); err != nil {
		t.Fatal(err)
	}
	w := discard{http.Header{}}
	for name, tt := range map[string]struct {
		f    func()
		most float64
	}{
		"a remembered token":                              {func() { _, _ = v.Authenticate(r) }, 0},
		"a remembered token, the middleware":              {func() { middleware.ServeHTTP(w, r) }, 2},
		"a remembered token, the middleware, with holder": {func() { middleware.ServeHTTP(w, tracked) }, 0},
		"a new token": {func() { _, _ = forgetful.Authenticate(r) }, 32},
		"no token":    {func() { _, _ = v.Authenticate(request0) }, 0},
		"to detect":   {func() { v.Detect(r) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tt.f()
			if got := testing.AllocsPerRun(100, tt.f); got > tt.most {
				t.Errorf("%v allocations, want at most %v", got, tt.most)
			}
		})
	}
}

var request0 = &http.Request{Header: http.Header{}}

// A discard is a ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func TestTelemetryCountsVerdictsAndHits(t *testing.T) {
	meter := new(oteltest.Meter)
	v := verifier(t, func(c *jwtauth.Config) { c.MeterProvider = meter })
	text := good()
	for _, text := range []string{text, text, text, "a.b.c", ""} {
		_, _ = v.Authenticate(request(t, text))
	}
	got := map[string]int64{}
	for _, c := range meter.Counts() {
		c.Attributes.Filter(func(kv attribute.KeyValue) bool {
			got[fmt.Sprintf("%s %s=%s", c.Name, kv.Key, kv.Value.AsString())] += c.Value
			return true
		})
	}
	for name, n := range map[string]int64{
		"usher.jwt.verifications usher.jwt.result=accepted":   3,
		"usher.jwt.verifications usher.jwt.result=malformed":  1,
		"usher.jwt.verifications usher.jwt.result=missing":    1,
		"usher.jwt.cache.lookups usher.jwt.cache.result=hit":  2,
		"usher.jwt.cache.lookups usher.jwt.cache.result=miss": 2,
	} {
		if got[name] != n {
			t.Errorf("%s is %d, want %d in %v", name, got[name], n, got)
		}
	}
}
