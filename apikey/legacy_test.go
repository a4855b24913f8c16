package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/guard"
)

// An oldSystem has issued keys of the format Split, and finds them by their identifier.
type oldSystem struct {
	mu   sync.Mutex
	rows map[string]oldRow

	finds, verifications atomic.Int64
	// beforeFind and beforeVerify may block, panic or return an error.
	beforeFind, beforeVerify func() error
}

type oldRow struct {
	key    apikey.Key
	stored string
}

var oldFormat = apikey.Split{Prefix: "old"}

func newOldSystem() *oldSystem {
	nothing := func() error { return nil }
	return &oldSystem{rows: make(map[string]oldRow), beforeFind: nothing, beforeVerify: nothing}
}

// issue adds a key, and returns its text.
func (s *oldSystem) issue(t testing.TB, k apikey.Key) string {
	t.Helper()
	text := generate(t, oldFormat, "")
	id, _, _ := strings.Cut(text, ".")
	k.ID, k.Owner, k.Name = id, "ann", "an old key"
	s.set(text, k)
	return text
}

// set stores k as the key with this text.
func (s *oldSystem) set(text string, k apikey.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, _, _ := strings.Cut(text, ".")
	s.rows[id] = oldRow{k, "hash of " + text}
}

func (s *oldSystem) find(_ context.Context, text apikey.Secret) (apikey.Key, string, error) {
	s.finds.Add(1)
	if err := s.beforeFind(); err != nil {
		return apikey.Key{}, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, _, _ := strings.Cut(text.Reveal(), ".")
	row, ok := s.rows[id]
	if !ok {
		return apikey.Key{}, "", fmt.Errorf("the old table: %w", apikey.ErrNotFound)
	}
	return row.key, row.stored, nil
}

func (s *oldSystem) verify(stored string, text apikey.Secret) (bool, error) {
	s.verifications.Add(1)
	if err := s.beforeVerify(); err != nil {
		return false, err
	}
	return stored == "hash of "+text.Reveal(), nil
}

func (s *oldSystem) legacy() apikey.Legacy {
	return apikey.Legacy{Format: oldFormat, Find: s.find, Verify: s.verify}
}

// wantCalls compares the number of calls so far.
func (s *oldSystem) wantCalls(t testing.TB, finds, verifications int64) {
	t.Helper()
	if f, v := s.finds.Load(), s.verifications.Load(); f != finds || v != verifications {
		t.Errorf("%d calls of Find and %d of Verify, want %d and %d", f, v, finds, verifications)
	}
}

// newNode returns an Authenticator and a Manager that accept the keys of old.
func newNode(t testing.TB, old *oldSystem, c apikey.ManagerConfig) (*apikey.Authenticator, *apikey.Manager) {
	t.Helper()
	if c.Legacy == nil {
		c.Legacy = []apikey.Legacy{old.legacy()}
	}
	m := newManager(t, c)
	a, err := apikey.New(apikey.Config{Manager: m, LastUseInterval: -1, OnError: c.OnError})
	if err != nil {
		t.Fatal(err)
	}
	return a, m
}

// use authenticates with a key.
func use(t testing.TB, a *apikey.Authenticator, text string) (*usher.Principal, apikey.Verdict) {
	t.Helper()
	p, err := a.Authenticate(request("X-API-Key", text).WithContext(t.Context()))
	return p, verdictOf(t, err)
}

func wantVerdict(t testing.TB, a *apikey.Authenticator, text string, want apikey.Verdict) {
	t.Helper()
	if _, v := use(t, a, text); v != want {
		t.Errorf("%v, want %v", v, want)
	}
}

func ignored(context.Context, error) {}

func TestAKeyOfAnotherSystemIsVerifiedOnceAndThenStored(t *testing.T) {
	old := newOldSystem()
	var events []apikey.Event
	cache := newCache(t, apikey.CacheConfig{Store: newFaultyStore()})
	pepper := apikey.Pepper{Version: 3, Key: apikey.NewSecret(strings.Repeat("p", 32))}
	a, m := newNode(t, old, apikey.ManagerConfig{
		Store: cache, Peppers: []apikey.Pepper{{}, pepper},
		Audit: func(_ context.Context, e apikey.Event) { events = append(events, e) },
	})
	year := func(y int) time.Time { return time.Date(y, 1, 2, 3, 4, 5, 678912345, time.UTC) }
	text := old.issue(t, apikey.Key{
		Description: "for reports", Metadata: map[string]string{"team": "sales"},
		Scopes: []string{"orders:read", "orders:read"}, Level: usher.LevelReadOnly, Plan: "pro", Environment: "eu",
		AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")},
		CreatedAt:       year(2019), CreatedBy: "admin:7", UpdatedAt: year(2020), ExpiresAt: year(2999),
		LastUsedAt: year(2021), LastUsedFrom: netip.MustParseAddr("::ffff:192.0.2.9"),
	})
	id, _, _ := strings.Cut(text, ".")
	for range 3 {
		p, v := use(t, a, text)
		if v != apikey.Accepted || p.ID != id || p.Owner != "ann" || p.Plan != "pro" || !p.HasScopes("orders:read") {
			t.Fatalf("%v, %+v", v, p)
		}
	}
	// Find is called again after the key was stored.
	old.wantCalls(t, 2, 1)
	micro := func(y int) time.Time { return year(y).Truncate(time.Microsecond) }
	want := apikey.Key{
		ID: id, Owner: "ann", Name: "an old key", Description: "for reports", Metadata: map[string]string{"team": "sales"},
		Prefix: id, LastFour: text[len(text)-4:],
		Scopes: []string{"orders:read"}, Level: usher.LevelReadOnly, Plan: "pro", Environment: "eu",
		AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		CreatedAt:       micro(2019), CreatedBy: "admin:7", UpdatedAt: micro(2020), ExpiresAt: micro(2999),
		LastUsedAt: micro(2021), LastUsedFrom: netip.MustParseAddr("192.0.2.9"), Revision: 1,
	}
	got, err := m.Find(t.Context(), "ann", id)
	if err != nil || !compare.Equal(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
	h, err := m.Hash(apikey.NewSecret(text))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := cache.Lookup(t.Context(), h); err != nil || r.ID != id || h[0] != 3 {
		t.Errorf("the store has no key under the hash with the newest pepper: %v", err)
	}
	if len(events) != 1 || events[0].Action != "import" || events[0].KeyID != id || events[0].Owner != "ann" ||
		!events[0].Actor.System || events[0].Verdict != apikey.Accepted {
		t.Errorf("events %+v", events)
	}
}

func TestTheStateOfAKeyOfAnotherSystemIsKept(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		key  apikey.Key
		want apikey.Verdict
		find int64 // calls of Find
	}{
		"active":                  {apikey.Key{}, apikey.Accepted, 2},
		"expires in a year":       {apikey.Key{ExpiresAt: now.AddDate(1, 0, 0)}, apikey.Accepted, 2},
		"revoked":                 {apikey.Key{RevokedAt: now.Add(-time.Hour)}, apikey.Revoked, 1},
		"revoked in the future":   {apikey.Key{RevokedAt: now.Add(time.Hour)}, apikey.Revoked, 1},
		"expired":                 {apikey.Key{ExpiresAt: now.Add(-time.Hour)}, apikey.Expired, 2},
		"expired before creation": {apikey.Key{CreatedAt: now, ExpiresAt: now.AddDate(-9, 0, 0)}, apikey.Expired, 2},
		"disabled":                {apikey.Key{DisabledAt: now.Add(-time.Hour)}, apikey.Disabled, 2},
		"disabled in the future":  {apikey.Key{DisabledAt: now.Add(time.Hour)}, apikey.Disabled, 2},
		"of another network":      {apikey.Key{AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}, apikey.WrongNetwork, 2},
	} {
		t.Run(name, func(t *testing.T) {
			old := newOldSystem()
			a, _ := newNode(t, old, apikey.ManagerConfig{})
			text := old.issue(t, test.key)
			for range 3 {
				wantVerdict(t, a, text, test.want)
			}
			old.wantCalls(t, test.find, 1)
		})
	}
}

func TestAKeyOfAnotherEnvironmentIsNotAcceptedFromAnotherSystem(t *testing.T) {
	old := newOldSystem()
	m := newManager(t, apikey.ManagerConfig{Legacy: []apikey.Legacy{old.legacy()}})
	a, err := apikey.New(apikey.Config{Manager: m, LastUseInterval: -1, Environment: "live"})
	if err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, a, old.issue(t, apikey.Key{Environment: "test"}), apikey.WrongEnvironment)
	wantVerdict(t, a, old.issue(t, apikey.Key{Environment: "live"}), apikey.Accepted)
}

// What no Legacy has is refused as an unknown key, and is not asked for again for 5
// seconds.
func TestAKeyThatNoSystemHasIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newOldSystem()
		a, _ := newNode(t, old, apikey.ManagerConfig{})
		text := old.issue(t, apikey.Key{})
		wrong := text[:len(text)-4] + "AAAA"
		for range 3 {
			wantVerdict(t, a, generate(t, oldFormat, ""), apikey.Unknown)
		}
		old.wantCalls(t, 3, 0)
		for range 3 {
			wantVerdict(t, a, wrong, apikey.Unknown)
		}
		old.wantCalls(t, 4, 1)
		time.Sleep(5*time.Second - 1)
		wantVerdict(t, a, wrong, apikey.Unknown)
		old.wantCalls(t, 4, 1)
		time.Sleep(time.Nanosecond)
		wantVerdict(t, a, wrong, apikey.Unknown)
		old.wantCalls(t, 5, 2)
		wantVerdict(t, a, text, apikey.Accepted)
	})
}

func TestTheResponseForAWrongKeyOfAnotherSystemIsThatForAnUnknownOne(t *testing.T) {
	old := newOldSystem()
	a, _ := newNode(t, old, apikey.ManagerConfig{})
	text := old.issue(t, apikey.Key{})
	var want string
	for i, text := range []string{generate(t, native, ""), generate(t, oldFormat, ""), text[:len(text)-4] + "AAAA"} {
		_, err := a.Authenticate(request("X-API-Key", text))
		e, ok := errors.AsType[*usher.Error](err)
		if !ok {
			t.Fatal(err)
		}
		got := fmt.Sprint(e.Status, e.Code, e.Message, e.Challenges, e.Fields)
		if i == 0 {
			want = got
		}
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Invented keys of the service's own format, which a flood consists of, cost nothing here.
func TestTextOfAnotherFormatReachesNoLegacy(t *testing.T) {
	old := newOldSystem()
	l := old.legacy()
	l.Format = apikey.Plain{}
	a, _ := newNode(t, old, apikey.ManagerConfig{Legacy: []apikey.Legacy{l}})
	wantVerdict(t, a, generate(t, native, ""), apikey.Unknown)
	wantVerdict(t, a, "shop_live_ThisHasAPrefixOfAnotherFormat", apikey.Malformed)
	wantVerdict(t, a, "too short", apikey.Malformed)
	wantVerdict(t, a, strings.Repeat("x", 257), apikey.Malformed)
	old.wantCalls(t, 0, 0)
	wantVerdict(t, a, "ThisMightBeAKeyOfTheOldSystem", apikey.Unknown)
	old.wantCalls(t, 1, 0)
}

func TestEachLegacyGetsTheKeysOfItsFormat(t *testing.T) {
	first, second, third := newOldSystem(), newOldSystem(), newOldSystem()
	other := third.legacy()
	other.Format = apikey.Split{Prefix: "older"}
	a, _ := newNode(t, nil, apikey.ManagerConfig{Legacy: []apikey.Legacy{first.legacy(), second.legacy(), other}})
	wantVerdict(t, a, second.issue(t, apikey.Key{}), apikey.Accepted)
	first.wantCalls(t, 1, 0)
	third.wantCalls(t, 0, 0)
	text := generate(t, other.Format, "")
	third.set(text, apikey.Key{ID: "3", Owner: "ann", Name: "an older key"})
	wantVerdict(t, a, text, apikey.Accepted)
	first.wantCalls(t, 1, 0)
	r := request("X-API-Key", text)
	if carrier, certain := a.Detect(r); carrier != "X-Api-Key" || !certain {
		t.Errorf("detected in %q, certain %t", carrier, certain)
	}
}

// A failure is a 503 and never a 401, and is forgotten once it is over.
func TestAFailureDuringTheImportOfAKeyIs503(t *testing.T) {
	down := errors.New("down")
	row := func(edit func(*apikey.Key)) func(*oldSystem, string) {
		return func(old *oldSystem, text string) {
			id, _, _ := strings.Cut(text, ".")
			k := old.rows[id].key
			edit(&k)
			old.set(text, k)
		}
	}
	for name, spoil := range map[string]func(old *oldSystem, text string){
		"Find fails":    func(old *oldSystem, _ string) { old.beforeFind = func() error { return down } },
		"Find panics":   func(old *oldSystem, _ string) { old.beforeFind = func() error { panic("oops") } },
		"Find hangs":    func(old *oldSystem, _ string) { old.beforeFind = func() error { time.Sleep(time.Minute); return nil } },
		"Verify fails":  func(old *oldSystem, _ string) { old.beforeVerify = func() error { return down } },
		"Verify panics": func(old *oldSystem, _ string) { old.beforeVerify = func() error { panic("oops") } },
		"Verify hangs": func(old *oldSystem, _ string) {
			old.beforeVerify = func() error { time.Sleep(time.Minute); return nil }
		},
		"no ID":         row(func(k *apikey.Key) { k.ID = "" }),
		"a wrong ID":    row(func(k *apikey.Key) { k.ID = "a/b" }),
		"no owner":      row(func(k *apikey.Key) { k.Owner = "" }),
		"no name":       row(func(k *apikey.Key) { k.Name = "" }),
		"no such level": row(func(k *apikey.Key) { k.Level = 77 }),
		"a wrong scope": row(func(k *apikey.Key) { k.Scopes = []string{"a b"} }),
		"a long actor":  row(func(k *apikey.Key) { k.CreatedBy = strings.Repeat("a", apikey.MaxCreatedBy+1) }),
		"a strange disabling": row(func(k *apikey.Key) {
			k.DisabledAt, k.DisabledBy = time.Unix(1, 0), "\xff"
		}),
		"an expiry that would mean never": row(func(k *apikey.Key) { k.ExpiresAt = time.Time{}.Add(1) }),
		"a revocation that would mean never": row(func(k *apikey.Key) {
			k.RevokedAt = time.Time{}.Add(1)
		}),
		"a disabling that would mean never": row(func(k *apikey.Key) { k.DisabledAt = time.Time{}.Add(1) }),
		"a creation before the year 1":      row(func(k *apikey.Key) { k.CreatedAt = time.Time{}.Add(-time.Hour) }),
		"the ID of another owner's key":     row(func(k *apikey.Key) { k.ID = "taken" }),
		"Change fails":                      row(func(k *apikey.Key) { k.Description = "refuse" }),
		"Change panics":                     row(func(k *apikey.Key) { k.Description = "panic" }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := newOldSystem()
				var reported atomic.Int64
				store := apikey.NewMemory()
				a, m := newNode(t, old, apikey.ManagerConfig{
					Store:   store,
					OnError: func(context.Context, error) { reported.Add(1) },
					Change: func(_ context.Context, _ apikey.Actor, _, k *apikey.Key) error {
						switch k.Description {
						case "refuse":
							return &usher.Error{Status: http.StatusForbidden, Code: usher.CodeInsufficientPermission, Message: "No."}
						case "panic":
							panic("oops")
						}
						return nil
					},
				})
				if err := store.Insert(t.Context(), apikey.Record{Key: apikey.Key{ID: "taken", Owner: "bob"}}, apikey.Limits{}); err != nil {
					t.Fatal(err)
				}
				text := old.issue(t, apikey.Key{})
				good := old.rows[text[:20]]
				spoil(old, text)
				for range 2 {
					start := time.Now()
					_, err := a.Authenticate(request("X-API-Key", text))
					if verdictOf(t, err) != apikey.Unavailable || statusOf(err) != http.StatusServiceUnavailable {
						t.Errorf("%v", err)
					}
					if took := time.Since(start); took > 3*time.Second {
						t.Errorf("it took %v", took)
					}
				}
				if reported.Load() < 2 {
					t.Errorf("%d failures were reported", reported.Load())
				}
				if keys, total, err := m.List(t.Context(), "ann", 0, 9); total != 0 || err != nil {
					t.Errorf("stored: %+v, %v", keys, err)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				*old = oldSystem{rows: map[string]oldRow{text[:20]: good}, beforeFind: func() error { return nil }, beforeVerify: func() error { return nil }}
				wantVerdict(t, a, text, apikey.Accepted)
			})
		})
	}
}

func TestAStoreThatFailsDuringTheImportOfAKeyIs503(t *testing.T) {
	old := newOldSystem()
	down := errors.New("down")
	store := &insertFails{Memory: apikey.NewMemory(), err: down}
	a, _ := newNode(t, old, apikey.ManagerConfig{Store: store, OnError: ignored})
	text := old.issue(t, apikey.Key{})
	if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != apikey.Unavailable {
		t.Error(err)
	}
	store.err = nil
	wantVerdict(t, a, text, apikey.Accepted)
}

type insertFails struct {
	*apikey.Memory
	err error
}

func (s *insertFails) Insert(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
	if s.err != nil {
		return s.err
	}
	return s.Memory.Insert(ctx, r, limits)
}

func TestRequestsWithOneKeyShareItsVerification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newOldSystem()
		a, _ := newNode(t, old, apikey.ManagerConfig{})
		text := old.issue(t, apikey.Key{})
		old.beforeVerify = func() error { time.Sleep(time.Second); return nil }
		var clients sync.WaitGroup
		for range 100 {
			clients.Go(func() { wantVerdict(t, a, text, apikey.Accepted) })
		}
		clients.Wait()
		old.wantCalls(t, 2, 1)
	})
}

// At most MaxVerifications run, 16 times as many wait, and nobody else waits at all. Keys
// that are stored are not affected.
func TestVerificationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newOldSystem()
		l := old.legacy()
		l.MaxVerifications = 2
		a, _ := newNode(t, old, apikey.ManagerConfig{Legacy: []apikey.Legacy{l}, OnError: ignored})
		stored := old.issue(t, apikey.Key{})
		wantVerdict(t, a, stored, apikey.Accepted)
		var running, most atomic.Int64
		end := make(chan struct{})
		old.beforeVerify = func() error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-end
			return nil
		}
		var refused atomic.Int64
		var clients sync.WaitGroup
		for range 50 {
			text := old.issue(t, apikey.Key{})
			clients.Go(func() {
				start := time.Now()
				_, err := a.Authenticate(request("X-API-Key", text))
				if verdictOf(t, err) == apikey.Unavailable && errors.Is(err, guard.ErrBusy) && time.Since(start) == 0 {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if most.Load() != 2 || refused.Load() != 50-2-2*16 {
			t.Errorf("%d verifications ran, and %d requests were refused at once", most.Load(), refused.Load())
		}
		wantVerdict(t, a, stored, apikey.Accepted)
		close(end)
		clients.Wait()
		if most.Load() != 2 {
			t.Errorf("%d verifications ran", most.Load())
		}
	})
}

// Clients that leave do not multiply what a verification costs.
func TestClientsThatLeaveDuringAVerificationDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newOldSystem()
		a, _ := newNode(t, old, apikey.ManagerConfig{OnError: ignored})
		end := make(chan struct{})
		old.beforeVerify = func() error { <-end; return nil }
		before := runtime.NumGoroutine()
		for range 5000 {
			ctx, leave := context.WithCancel(t.Context())
			r := request("X-API-Key", old.issue(t, apikey.Key{})).WithContext(ctx)
			var client sync.WaitGroup
			client.Go(func() {
				if v := verdictOf(t, func() error { _, err := a.Authenticate(r); return err }()); v == apikey.Accepted || v == apikey.Unknown {
					t.Error(v)
				}
			})
			synctest.Wait()
			leave()
			client.Wait()
		}
		most := int64(max(runtime.GOMAXPROCS(0)/2, 1))
		if n := old.verifications.Load(); n > most {
			t.Errorf("%d verifications run, want at most %d", n, most)
		}
		// Each verification, and 16 times as many that wait, are calls within calls.
		if n := int64(runtime.NumGoroutine() - before); n > 17*most*5 {
			t.Errorf("%d goroutines run or wait", n)
		}
		close(end)
	})
}

// Two nodes store the key once. While the peppers change, a node that does not have that of
// the stored hash responds 503: the key is valid.
func TestTwoNodesImportAKeyOnce(t *testing.T) {
	pepper := func(version uint8) apikey.Pepper {
		return apikey.Pepper{Version: version, Key: apikey.NewSecret(strings.Repeat("p", 32))}
	}
	for name, peppers := range map[string][2][]apikey.Pepper{
		"without a pepper":          {},
		"during a change of it":     {{pepper(1), {}}, {pepper(2), pepper(1), {}}},
		"with the same two of them": {{pepper(1), {}}, {pepper(1), {}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, store := newOldSystem(), newFaultyStore()
				text := old.issue(t, apikey.Key{})
				var both sync.WaitGroup
				both.Add(2)
				old.beforeVerify = func() error { both.Done(); both.Wait(); return nil }
				var nodes sync.WaitGroup
				for i, peppers := range peppers {
					cache := newCache(t, apikey.CacheConfig{Store: store})
					a, m := newNode(t, old, apikey.ManagerConfig{Store: cache, Peppers: peppers, OnError: ignored})
					changing := strings.Contains(name, "change")
					nodes.Go(func() {
						_, v := use(t, a, text)
						if v != apikey.Accepted && (v != apikey.Unavailable || len(peppers) != 2 || !changing) {
							t.Errorf("node %d: %v", i, v)
						}
						if _, total, err := m.List(t.Context(), "ann", 0, 9); total != 1 || err != nil {
							t.Errorf("node %d: %d keys, %v", i, total, err)
						}
					})
				}
				nodes.Wait()
			})
		})
	}
}

// A verifier such as bcrypt accepts several texts for one row: it ignores what follows 72
// bytes. None of them may bring back a key that was revoked under another one.
func TestARowNeverBecomesTwoKeys(t *testing.T) {
	old := newOldSystem()
	var reported []string
	l := old.legacy()
	l.Verify = func(string, apikey.Secret) (bool, error) { return true, nil }
	a, m := newNode(t, old, apikey.ManagerConfig{
		Legacy: []apikey.Legacy{l}, OnError: func(_ context.Context, err error) { reported = append(reported, err.Error()) },
	})
	text := old.issue(t, apikey.Key{})
	id, _, _ := strings.Cut(text, ".")
	wantVerdict(t, a, text, apikey.Accepted)
	if _, err := m.Revoke(t.Context(), server, "ann", id); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, a, text, apikey.Revoked)
	for range 2 {
		wantVerdict(t, a, text[:len(text)-4]+"AAAA", apikey.Unknown)
	}
	if _, total, _ := m.List(t.Context(), "ann", 0, 9); total != 1 {
		t.Errorf("%d keys", total)
	}
	if len(reported) != 1 || !strings.Contains(reported[0], "another text") {
		t.Errorf("reported %q", reported)
	}
}

// A revocation in the old table while the key is being stored is not missed.
func TestAKeyThatItsSystemRevokesDuringTheImportIsRefused(t *testing.T) {
	for name, end := range map[string]func(old *oldSystem, text string){
		"revoked": func(old *oldSystem, text string) {
			old.set(text, apikey.Key{ID: text[:20], Owner: "ann", Name: "an old key", RevokedAt: time.Now()})
		},
		"removed": func(old *oldSystem, text string) { delete(old.rows, text[:20]) },
	} {
		t.Run(name, func(t *testing.T) {
			old := newOldSystem()
			var actions []string
			a, m := newNode(t, old, apikey.ManagerConfig{
				Audit: func(_ context.Context, e apikey.Event) { actions = append(actions, e.Action) },
			})
			text := old.issue(t, apikey.Key{})
			old.beforeVerify = func() error { end(old, text); return nil }
			wantVerdict(t, a, text, apikey.Revoked)
			if k, err := m.Find(t.Context(), "ann", text[:20]); err != nil || k.RevokedAt.IsZero() {
				t.Errorf("%+v, %v", k, err)
			}
			if !slices.Equal(actions, []string{"import", "revoke"}) {
				t.Errorf("events %v", actions)
			}
		})
	}
}

// What the documentation says about a purge.
func TestAPurgedKeyReturnsOnlyIfItsSystemStillHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newOldSystem()
		a, m := newNode(t, old, apikey.ManagerConfig{})
		purge := func(text string) {
			t.Helper()
			wantVerdict(t, a, text, apikey.Accepted)
			if _, err := m.Revoke(t.Context(), server, "ann", text[:20]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if n, err := m.Purge(t.Context(), server, time.Now(), 10); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		kept, removed, marked := old.issue(t, apikey.Key{}), old.issue(t, apikey.Key{}), old.issue(t, apikey.Key{})
		purge(kept)
		wantVerdict(t, a, kept, apikey.Accepted)
		purge(removed)
		delete(old.rows, removed[:20])
		wantVerdict(t, a, removed, apikey.Unknown)
		purge(marked)
		old.set(marked, apikey.Key{ID: marked[:20], Owner: "ann", Name: "an old key", RevokedAt: time.Now()})
		wantVerdict(t, a, marked, apikey.Revoked)
	})
}

func TestTheBoundsOfAManagerOnKeysOfAnotherSystem(t *testing.T) {
	old := newOldSystem()
	const lifetime = 24 * time.Hour
	a, m := newNode(t, old, apikey.ManagerConfig{MaxActive: 2, MaxLifetime: lifetime})
	created := time.Now().AddDate(-2, 0, 0)
	for i, expires := range []time.Time{{}, time.Now().AddDate(3, 0, 0), time.Now().Add(time.Hour)} {
		text := old.issue(t, apikey.Key{CreatedAt: created, ExpiresAt: expires})
		// The owner has the key already, so MaxActive does not count.
		wantVerdict(t, a, text, apikey.Accepted)
		k, err := m.Find(t.Context(), "ann", text[:20])
		want := lifetime
		if i == 2 {
			want = time.Hour
		}
		if left := time.Until(k.ExpiresAt); err != nil || left > want || left < want-time.Minute {
			t.Errorf("key %d expires in %v, %v", i, left, err)
		}
	}
	if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "a key"}); !errors.Is(err, apikey.ErrLimit) {
		t.Errorf("a further key: %v", err)
	}
}

// Nothing of a key is stored whose entropy is unknown, whatever Find returns.
func TestNothingOfAKeyOfUnknownEntropyIsStored(t *testing.T) {
	old := newOldSystem()
	l := old.legacy()
	l.Format = apikey.Plain{}
	a, m := newNode(t, old, apikey.ManagerConfig{Legacy: []apikey.Legacy{l}})
	const text = "an-old-key-of-some-length-or-other"
	old.set(text, apikey.Key{ID: "1", Owner: "ann", Name: "an old key", Prefix: text, LastFour: "ther"})
	wantVerdict(t, a, text, apikey.Accepted)
	if k, err := m.Find(t.Context(), "ann", "1"); err != nil || k.Prefix != "" || k.LastFour != "" {
		t.Errorf("the key shows %q and %q, %v", k.Prefix, k.LastFour, err)
	}
}

// Neither the old table nor Change can move a key to another environment than its text names.
func TestTheEnvironmentInTheTextOfAKeyOfAnotherSystemCounts(t *testing.T) {
	old := newOldSystem()
	l := old.legacy()
	l.Format = apikey.Split{Prefix: "old", Environments: []string{"live", "test"}}
	a, m := newNode(t, old, apikey.ManagerConfig{
		Legacy: []apikey.Legacy{l},
		Change: func(_ context.Context, _ apikey.Actor, _, k *apikey.Key) error { k.Environment = "live"; return nil },
	})
	text := generate(t, l.Format, "test")
	old.set(text, apikey.Key{ID: "1", Owner: "ann", Name: "an old key", Environment: "live"})
	wantVerdict(t, a, text, apikey.Accepted)
	if k, err := m.Find(t.Context(), "ann", "1"); err != nil || k.Environment != "test" {
		t.Errorf("%q, %v", k.Environment, err)
	}
}

func TestFaultsOfALegacyAreReportedAtOnce(t *testing.T) {
	_, err := apikey.NewManager(apikey.ManagerConfig{
		Store: apikey.NewMemory(), Format: native,
		Legacy: []apikey.Legacy{{}, {Format: apikey.Plain{MinLength: 3}, MaxVerifications: -1}},
	})
	want := map[string]bool{}
	for _, f := range []string{
		"Legacy[0].Format", "Legacy[0].Find", "Legacy[0].Verify",
		"Legacy[1].Format.MinLength", "Legacy[1].Find", "Legacy[1].Verify", "Legacy[1].MaxVerifications",
	} {
		want["apikey.ManagerConfig."+f] = true
	}
	if got := fieldsOf(err); !compare.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestTextsThatNoSystemHasAreRememberedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newOldSystem()
		a, _ := newNode(t, old, apikey.ManagerConfig{})
		texts := make([]string, 100)
		for i := range texts {
			texts[i] = generate(t, oldFormat, "")
		}
		for range 2 {
			for _, text := range texts {
				wantVerdict(t, a, text, apikey.Unknown)
			}
		}
		old.wantCalls(t, 100, 0)
	})
}

func TestAnOutageOfTheOldTableCostsFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newOldSystem()
		a, _ := newNode(t, old, apikey.ManagerConfig{OnError: ignored})
		text := old.issue(t, apikey.Key{})
		old.beforeFind = func() error { return errors.New("down") }
		for range 1000 {
			wantVerdict(t, a, text, apikey.Unavailable)
		}
		if n := old.finds.Load(); n > 20 {
			t.Errorf("%d calls of Find during the outage", n)
		}
		old.beforeFind = func() error { return nil }
		time.Sleep(5 * time.Second)
		wantVerdict(t, a, text, apikey.Accepted)
	})
}

// A client of a key whose hash is corrupt cannot stop the verification of others.
func TestAHashThatCannotBeVerifiedStopsNoOtherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newOldSystem()
		a, _ := newNode(t, old, apikey.ManagerConfig{OnError: ignored})
		corrupt, good := old.issue(t, apikey.Key{}), old.issue(t, apikey.Key{})
		old.beforeVerify = func() error { return errors.New("corrupt") }
		for range 1000 {
			wantVerdict(t, a, corrupt, apikey.Unavailable)
		}
		old.beforeVerify = func() error { return nil }
		wantVerdict(t, a, good, apikey.Accepted)
	})
}

// A store needs both times, and no key was changed before it existed.
func TestAKeyOfAnotherSystemHasTheTimesThatAStoreNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for name, test := range map[string]struct {
			key              apikey.Key
			created, updated time.Time
		}{
			"none":                  {apikey.Key{}, now, now},
			"a creation":            {apikey.Key{CreatedAt: now.Add(-time.Hour)}, now.Add(-time.Hour), now.Add(-time.Hour)},
			"a change before it":    {apikey.Key{CreatedAt: now, UpdatedAt: now.Add(-time.Hour)}, now, now},
			"a creation to come":    {apikey.Key{CreatedAt: now.Add(time.Hour)}, now, now},
			"a change to come":      {apikey.Key{CreatedAt: now, UpdatedAt: now.Add(time.Hour)}, now, now},
			"a last use to come":    {apikey.Key{LastUsedAt: now.Add(time.Hour)}, now, now},
			"an address without it": {apikey.Key{LastUsedFrom: netip.MustParseAddr("192.0.2.1")}, now, now},
		} {
			old := newOldSystem()
			a, m := newNode(t, old, apikey.ManagerConfig{})
			text := old.issue(t, test.key)
			wantVerdict(t, a, text, apikey.Accepted)
			k, err := m.Find(t.Context(), "ann", text[:20])
			if err != nil || !k.CreatedAt.Equal(test.created) || !k.UpdatedAt.Equal(test.updated) || k.LastUsedAt.After(now) || k.LastUsedFrom.IsValid() {
				t.Errorf("%s: %+v, %v", name, k, err)
			}
		}
	})
}
