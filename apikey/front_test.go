package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
)

// counted counts how often a text is parsed.
type counted struct {
	apikey.Format
	parsed *atomic.Int64
}

func (c counted) Parse(text string) (string, int, bool) {
	c.parsed.Add(1)
	return c.Format.Parse(text)
}

// keepers are the stores that keep the keys in use.
var keepers = map[string]func(t testing.TB, m *apikey.Memory) apikey.Admin{
	"a memory": func(_ testing.TB, m *apikey.Memory) apikey.Admin { return m },
	"a cache": func(t testing.TB, m *apikey.Memory) apikey.Admin {
		return newCache(t, apikey.CacheConfig{Store: unwatched{m}})
	},
	"a cache of an own TTL": func(t testing.TB, m *apikey.Memory) apikey.Admin {
		return newCache(t, apikey.CacheConfig{Store: unwatched{m}, TTL: time.Hour})
	},
	"a cache with notices": func(t testing.TB, m *apikey.Memory) apikey.Admin {
		s := &readied{m, make(chan struct{})}
		cache := newCache(t, apikey.CacheConfig{Store: s})
		<-s.ready
		return cache
	},
}

// unwatched is a store without notices.
type unwatched struct{ apikey.Admin }

// readied reports when its watch is ready.
type readied struct {
	*apikey.Memory
	ready chan struct{}
}

func (r *readied) Watch(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
	return r.Memory.Watch(ctx, func() { ready(); close(r.ready) }, changed)
}

// overEach runs a test for each keeper, in a bubble of its own.
func overEach(t *testing.T, test func(t *testing.T, memory *apikey.Memory, store apikey.Admin)) {
	t.Helper()
	for name, keep := range keepers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := apikey.NewMemory()
				test(t, memory, keep(t, memory))
			})
		})
	}
}

func TestAKeyInUseIsNeitherParsedNorLookedUpAgain(t *testing.T) {
	overEach(t, func(t *testing.T, memory *apikey.Memory, store apikey.Admin) {
		parsed, counts := new(atomic.Int64), &lookups{Memory: memory}
		if store != apikey.Admin(memory) {
			store = newCache(t, apikey.CacheConfig{Store: unwatched{counts}})
		}
		m := newManager(t, apikey.ManagerConfig{Store: store, Format: counted{native, parsed}})
		_, text := create(t, m, apikey.Key{})
		a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1})
		parsed.Store(0)
		for range 10 {
			if _, err := a.Authenticate(request("X-API-Key", text)); err != nil {
				t.Fatal(err)
			}
		}
		if p, l := parsed.Load(), counts.n.Load(); p != 1 || l > 1 {
			t.Errorf("parsed %d times, looked up %d times", p, l)
		}
	})
}

// authenticatorOf returns the authenticator of the keys of m.
func authenticatorOf(t testing.TB, m *apikey.Manager, c apikey.Config) *apikey.Authenticator {
	t.Helper()
	c.Manager = m
	a, err := apikey.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// The changes of a key that is in use, each with the verdict on the key afterwards.
var changesInUse = map[string]struct {
	change func(ctx context.Context, m *apikey.Manager, s apikey.Admin, k apikey.Key) error
	want   apikey.Verdict
}{
	"revoke": {func(ctx context.Context, m *apikey.Manager, _ apikey.Admin, k apikey.Key) error {
		_, err := m.Revoke(ctx, server, k.Owner, k.ID)
		return err
	}, apikey.Revoked},
	"revoke all": {func(ctx context.Context, m *apikey.Manager, _ apikey.Admin, k apikey.Key) error {
		_, _, err := m.RevokeAll(ctx, server, apikey.Filter{Owner: k.Owner}, 10)
		return err
	}, apikey.Revoked},
	"disable": {func(ctx context.Context, m *apikey.Manager, _ apikey.Admin, k apikey.Key) error {
		_, err := m.Update(ctx, server, k.Owner, k.ID, func(k *apikey.Key) { k.DisabledAt = time.Now() })
		return err
	}, apikey.Disabled},
	"bind to a network": {func(ctx context.Context, m *apikey.Manager, _ apikey.Admin, k apikey.Key) error {
		_, err := m.Update(ctx, server, k.Owner, k.ID, func(k *apikey.Key) { k.AllowedNetworks = networks("10.0.0.0/8") })
		return err
	}, apikey.WrongNetwork},
	"rotate without grace": {func(ctx context.Context, m *apikey.Manager, _ apikey.Admin, k apikey.Key) error {
		_, _, err := m.Rotate(ctx, server, k.Owner, k.ID, 0)
		return err
	}, apikey.Expired},
	"purge": {func(ctx context.Context, m *apikey.Manager, s apikey.Admin, k apikey.Key) error {
		if _, err := m.Revoke(ctx, server, k.Owner, k.ID); err != nil {
			return err
		}
		_, err := s.Purge(ctx, time.Now().Add(time.Hour), 10)
		return err
	}, apikey.Unknown},
}

func TestAChangeOfAKeyInUseCountsAtOnce(t *testing.T) {
	for change, test := range changesInUse {
		t.Run(change, func(t *testing.T) {
			overEach(t, func(t *testing.T, _ *apikey.Memory, store apikey.Admin) {
				m := newManager(t, apikey.ManagerConfig{Store: store})
				k, text := create(t, m, apikey.Key{})
				a := authenticatorOf(t, m, apikey.Config{})
				synctest.Wait()
				for range 3 {
					if _, err := a.Authenticate(request("X-API-Key", text)); err != nil {
						t.Fatal(err)
					}
				}
				if err := test.change(t.Context(), m, store, k); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != test.want {
						t.Errorf("%v, want %v", err, test.want)
					}
				}
			})
		})
	}
}

func TestANewPrincipalCountsAtOnce(t *testing.T) {
	overEach(t, func(t *testing.T, _ *apikey.Memory, store apikey.Admin) {
		m := newManager(t, apikey.ManagerConfig{Store: store})
		k, text := create(t, m, apikey.Key{Scopes: []string{"read", "write"}})
		a := authenticatorOf(t, m, apikey.Config{})
		for _, scopes := range [][]string{{"read", "write"}, {"read"}, nil} {
			if _, err := m.Update(t.Context(), server, k.Owner, k.ID, func(k *apikey.Key) { k.Scopes = scopes }); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				p, err := a.Authenticate(request("X-API-Key", text))
				if err != nil || fmt.Sprint(p.Scopes) != fmt.Sprint(scopes) {
					t.Errorf("%v %v, want %v", p, err, scopes)
				}
			}
		}
	})
}

func TestAClosedMemoryIsUnavailableForKeysInUseToo(t *testing.T) {
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store})
	_, text := create(t, m, apikey.Key{})
	a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1})
	for range 2 {
		if _, err := a.Authenticate(request("X-API-Key", text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != apikey.Unavailable {
		t.Errorf("%v", err)
	}
}

// The first lookups of a key may all make a copy of it.
func TestNoFirstLookupOfManyOutlivesARevocation(t *testing.T) {
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store, MaxActive: 1000})
	a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1})
	for range 200 {
		k, text := create(t, m, apikey.Key{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := a.Authenticate(request("X-API-Key", text)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, err := m.Revoke(t.Context(), server, k.Owner, k.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Authenticate(request("X-API-Key", text)); !errors.Is(err, apikey.Revoked) {
			t.Fatalf("after its revocation: %v", err)
		}
	}
}

func TestTheTTLEndsForAKeyInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := apikey.NewMemory()
		other := newManager(t, apikey.ManagerConfig{Store: memory})
		k, text := create(t, other, apikey.Key{})
		m := newManager(t, apikey.ManagerConfig{Store: newCache(t, apikey.CacheConfig{Store: silent{memory}})})
		a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1})
		use := func() apikey.Verdict {
			_, err := a.Authenticate(request("X-API-Key", text))
			return verdictOf(t, err)
		}
		if v := use(); v != apikey.Accepted {
			t.Fatal(v)
		}
		if _, err := other.Revoke(t.Context(), server, k.Owner, k.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Second - 1)
		if v := use(); v != apikey.Accepted {
			t.Errorf("before the end of the TTL: %v", v)
		}
		time.Sleep(time.Nanosecond)
		if v := use(); v != apikey.Revoked {
			t.Errorf("after the TTL: %v", v)
		}
	})
}

func TestAKeyInUseExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{})
		_, text := create(t, m, apikey.Key{ExpiresAt: time.Now().Add(time.Minute)})
		a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1})
		for _, want := range []apikey.Verdict{apikey.Accepted, apikey.Accepted, apikey.Expired, apikey.Expired} {
			if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != want {
				t.Errorf("%v, want %v", err, want)
			}
			time.Sleep(30*time.Second + 1)
		}
	})
}

func TestAKeyInUseStaysInItsNetworks(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	_, text := create(t, m, apikey.Key{AllowedNetworks: networks("10.0.0.0/8")})
	a := authenticatorOf(t, m, apikey.Config{})
	for _, from := range []string{"10.1.1.1", "10.1.1.2", "11.1.1.1", "10.1.1.1", "10.1.1.1", "11.1.1.1"} {
		want := apikey.Accepted
		if from[1] == '1' {
			want = apikey.WrongNetwork
		}
		r := clientip.WithAddr(request("X-API-Key", text), netip.MustParseAddr(from))
		if _, err := a.Authenticate(r); verdictOf(t, err) != want {
			t.Errorf("from %s: %v", from, err)
		}
	}
}

func TestNoOtherTextIsAKeyInUse(t *testing.T) {
	text := generate(t, native, "live")
	if !apikey.FindsInFront(text, text) {
		t.Error("the key itself is not found")
	}
	for _, other := range []string{"", text[:len(text)-1], text + "a", strings.ToUpper(text), generate(t, native, "live")} {
		if apikey.FindsInFront(other, text) {
			t.Errorf("%q is found in place of %q", other, text)
		}
	}
}

// There are more keys than places.
func TestEachOfManyKeysInUseIsItself(t *testing.T) {
	const n = apikey.FrontSlots + 1000
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store, Format: opaque})
	a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1})
	texts := make([]string, n)
	for i := range texts {
		_, texts[i] = create(t, m, apikey.Key{Owner: fmt.Sprint("owner", i)})
	}
	r := request("X-API-Key", "")
	for range 2 {
		for i, text := range texts {
			r.Header["X-Api-Key"][0] = text
			if p, err := a.Authenticate(r); err != nil || p.Owner != fmt.Sprint("owner", i) {
				t.Fatalf("key %d: %+v, %v", i, p, err)
			}
		}
	}
}

func TestTwoAuthenticatorsOfOneStoreKeepTheirOwnPrincipals(t *testing.T) {
	overEach(t, func(t *testing.T, _ *apikey.Memory, store apikey.Admin) {
		m := newManager(t, apikey.ManagerConfig{Store: store})
		_, text := create(t, m, apikey.Key{Environment: "live"})
		synctest.Wait()
		var made [2]int
		principal := func(i int) func(*apikey.Key, usher.Principal) usher.Principal {
			return func(_ *apikey.Key, p usher.Principal) usher.Principal {
				made[i]++
				p.Name = fmt.Sprint(i)
				return p
			}
		}
		r := request("X-API-Key", text)
		both := [2]*apikey.Authenticator{
			authenticatorOf(t, m, apikey.Config{LastUseInterval: -1, Principal: principal(0)}),
			authenticatorOf(t, m, apikey.Config{LastUseInterval: -1, Principal: principal(1)}),
		}
		for range 10 {
			for i, a := range both {
				if p, err := a.Authenticate(r); err != nil || p.Name != fmt.Sprint(i) {
					t.Errorf("authenticator %d: %+v, %v", i, p, err)
				}
			}
		}
		if made != [2]int{1, 1} {
			t.Errorf("the principals were made %v times", made)
		}
		other := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1, Environment: "test"})
		if _, err := other.Authenticate(r); verdictOf(t, err) != apikey.WrongEnvironment {
			t.Errorf("another environment: %v", err)
		}
	})
}

func TestAPrincipalIsAtMostTenSecondsOld(t *testing.T) {
	overEach(t, func(t *testing.T, _ *apikey.Memory, store apikey.Admin) {
		m := newManager(t, apikey.ManagerConfig{Store: store})
		_, text := create(t, m, apikey.Key{})
		synctest.Wait()
		role, made := "admin", 0
		a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1, Principal: func(_ *apikey.Key, p usher.Principal) usher.Principal {
			made++
			p.Scopes = []string{role}
			return p
		}})
		scope := func() string {
			p, err := a.Authenticate(request("X-API-Key", text))
			if err != nil {
				t.Fatal(err)
			}
			return p.Scopes[0]
		}
		scope()
		role = "guest"
		time.Sleep(10*time.Second - 1)
		if got := scope(); got != "admin" || made != 1 {
			t.Errorf("%s, made %d times within ten seconds", got, made)
		}
		time.Sleep(time.Nanosecond)
		if got := scope(); got != "guest" {
			t.Errorf("%s after ten seconds", got)
		}
	})
}

func TestARefusedKeyIsLookedUpWithEveryPepper(t *testing.T) {
	peppers := []apikey.Pepper{
		{Version: 2, Key: apikey.NewSecret(strings.Repeat("n", 32))},
		{Version: 1, Key: apikey.NewSecret(strings.Repeat("o", 32))},
		{},
	}
	store := &lookups{Memory: apikey.NewMemory()}
	for versions := range len(peppers) {
		issuer := newManager(t, apikey.ManagerConfig{Store: store.Memory, Peppers: peppers[versions:]})
		k, text := create(t, issuer, apikey.Key{})
		a := authenticatorOf(t, newManager(t, apikey.ManagerConfig{Store: store, Peppers: peppers}), apikey.Config{LastUseInterval: -1})
		count := func(text string, want apikey.Verdict) int64 {
			store.n.Store(0)
			if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != want {
				t.Fatalf("%v, want %v", err, want)
			}
			return store.n.Load()
		}
		if n := count(text, apikey.Accepted); n != int64(versions+1) {
			t.Errorf("a valid key is looked up %d times, want %d", n, versions+1)
		}
		if _, err := issuer.Revoke(t.Context(), server, k.Owner, k.ID); err != nil {
			t.Fatal(err)
		}
		if unknown, n := count(generate(t, native, "live"), apikey.Unknown), count(text, apikey.Revoked); n != unknown || n != 3 {
			t.Errorf("a revoked key is looked up %d times, an unknown one %d times", n, unknown)
		}
	}
}

// lookups counts the lookups of a memory.
type lookups struct {
	*apikey.Memory
	n atomic.Int64
}

func (l *lookups) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	l.n.Add(1)
	return l.Memory.Lookup(ctx, h)
}
