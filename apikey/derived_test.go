package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/race"
)

// storeDerived stores a key that is derived from the one with this owner and ID, and
// returns its text. Change, if not nil, changes what is stored.
func storeDerived(t testing.TB, m *apikey.Manager, s apikey.Store, parent apikey.Key, change func(*apikey.Record)) string {
	t.Helper()
	whole, err := s.Find(t.Context(), parent.Owner, parent.ID)
	if err != nil {
		t.Fatal(err)
	}
	text := generate(t, native, whole.Environment)
	hash, err := m.Hash(apikey.NewSecret(text))
	if err != nil {
		t.Fatal(err)
	}
	r := apikey.Record{Key: whole.Key, Hash: hash, DerivedFromHash: whole.Hash}
	r.ID, r.DerivedFrom, r.Name = parent.ID+"-child", parent.ID, "a derived key"
	r.ExpiresAt = time.Now().Add(time.Hour)
	if change != nil {
		change(&r)
	}
	if err := s.Insert(t.Context(), r, apikey.Limits{}); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestADerivedKeyEndsWithItsParent(t *testing.T) {
	for change, test := range changesInUse {
		want := test.want
		if change == "purge" {
			want = apikey.Revoked // there is nothing left of its parent
		}
		t.Run(change, func(t *testing.T) {
			overEach(t, func(t *testing.T, _ *apikey.Memory, store apikey.Admin) {
				m := newManager(t, apikey.ManagerConfig{Store: store})
				parent, _ := create(t, m, apikey.Key{})
				text := storeDerived(t, m, store, parent, func(r *apikey.Record) { r.Owner = "ann" })
				a := authenticatorOf(t, m, apikey.Config{})
				synctest.Wait()
				for range 3 {
					if _, err := a.Authenticate(request("X-API-Key", text)); err != nil {
						t.Fatal(err)
					}
				}
				if err := test.change(t.Context(), m, store, parent); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != want {
						t.Errorf("%v, want %v", err, want)
					}
				}
			})
		})
	}
}

func TestADerivedKeyWorksAgainWithItsParent(t *testing.T) {
	m, store := newManagerOn(t)
	parent, _ := create(t, m, apikey.Key{})
	text := storeDerived(t, m, store, parent, nil)
	a := authenticatorOf(t, m, apikey.Config{})
	for i := range 4 {
		want, at := apikey.Accepted, time.Time{}
		if i%2 == 1 {
			want, at = apikey.Disabled, time.Now()
		}
		if _, err := m.Update(t.Context(), server, parent.Owner, parent.ID, func(k *apikey.Key) { k.DisabledAt = at }); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != want {
				t.Errorf("%v, want %v", err, want)
			}
		}
	}
}

func TestTheParentOfADerivedKeyExpiresWhileBothAreInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, store := newManagerOn(t)
		parent, _ := create(t, m, apikey.Key{ExpiresAt: time.Now().Add(time.Minute)})
		text := storeDerived(t, m, store, parent, nil)
		a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1})
		for _, want := range []apikey.Verdict{apikey.Accepted, apikey.Accepted, apikey.Expired} {
			if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != want {
				t.Errorf("%v, want %v", err, want)
			}
			time.Sleep(30 * time.Second)
		}
	})
}

// The state of the parent is the one that is reported, and its own state counts as well.
func TestTheStateOfTheParentCountsFirst(t *testing.T) {
	for name, test := range map[string]struct {
		parent, own func(*apikey.Key)
		want        apikey.Verdict
	}{
		"both are valid":            {nil, nil, apikey.Accepted},
		"its own network":           {nil, func(k *apikey.Key) { k.AllowedNetworks = networks("10.0.0.0/8") }, apikey.WrongNetwork},
		"the network of its parent": {func(k *apikey.Key) { k.AllowedNetworks = networks("10.0.0.0/8") }, func(k *apikey.Key) { k.AllowedNetworks = nil }, apikey.WrongNetwork},
		"its own end":               {nil, func(k *apikey.Key) { k.ExpiresAt = time.Now().Add(-time.Second) }, apikey.Expired},
		"its own revocation":        {nil, func(k *apikey.Key) { k.RevokedAt = time.Now() }, apikey.Revoked},
		"its own pause":             {nil, func(k *apikey.Key) { k.DisabledAt = time.Now() }, apikey.Disabled},
		"revoked, of a parent that is disabled": {
			func(k *apikey.Key) { k.DisabledAt = time.Now() }, func(k *apikey.Key) { k.RevokedAt = time.Now() }, apikey.Disabled,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, store := newManagerOn(t)
			parent, _ := create(t, m, apikey.Key{})
			if test.parent != nil {
				if _, err := m.Update(t.Context(), server, parent.Owner, parent.ID, test.parent); err != nil {
					t.Fatal(err)
				}
			}
			text := storeDerived(t, m, store, parent, func(r *apikey.Record) {
				r.DisabledAt = time.Time{}
				if test.own != nil {
					test.own(&r.Key)
				}
			})
			a := authenticatorOf(t, m, apikey.Config{})
			for range 2 {
				r := clientip.WithAddr(request("X-API-Key", text), netip.MustParseAddr("192.0.2.1"))
				if _, err := a.Authenticate(r); verdictOf(t, err) != test.want {
					t.Errorf("%v, want %v", err, test.want)
				}
			}
		})
	}
}

// A store that is inconsistent must not make a key valid that nobody can end.
func TestADerivedKeyNeedsItsVeryParent(t *testing.T) {
	for name, change := range map[string]func(*apikey.Record){
		"the ID of another":             func(r *apikey.Record) { r.DerivedFrom = "other" },
		"the hash of none":              func(r *apikey.Record) { r.DerivedFromHash[7]++ },
		"no hash":                       func(r *apikey.Record) { r.DerivedFromHash = apikey.Hash{} },
		"no ID":                         func(r *apikey.Record) { r.DerivedFrom = "" },
		"another owner":                 func(r *apikey.Record) { r.Owner = "bob" },
		"itself":                        func(r *apikey.Record) { r.DerivedFrom, r.DerivedFromHash = r.ID, r.Hash },
		"a parent that is derived, too": nil,
	} {
		t.Run(name, func(t *testing.T) {
			m, store := newManagerOn(t)
			parent, _ := create(t, m, apikey.Key{})
			if change == nil {
				storeDerived(t, m, store, parent, nil)
				parent.ID += "-child"
			}
			text := storeDerived(t, m, store, parent, change)
			a := authenticatorOf(t, m, apikey.Config{})
			for range 2 {
				if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != apikey.Revoked {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

func TestADerivedKeyHasWhatItsParentHasNow(t *testing.T) {
	overEach(t, func(t *testing.T, _ *apikey.Memory, store apikey.Admin) {
		m := newManager(t, apikey.ManagerConfig{Store: store})
		parent, _ := create(t, m, apikey.Key{Scopes: []string{"a", "b", "c"}, Level: usher.LevelFull})
		text := storeDerived(t, m, store, parent, func(r *apikey.Record) {
			r.Scopes, r.Level = []string{"b", "c", "d"}, usher.LevelReadWrite
		})
		var checked []string
		a := authenticatorOf(t, m, apikey.Config{Check: func(_ context.Context, k *apikey.Key) error {
			checked = k.Scopes
			return nil
		}})
		for _, step := range []struct {
			scopes    []string
			level     usher.Level
			want      string
			wantLevel usher.Level
		}{
			{[]string{"a", "b", "c"}, usher.LevelFull, "[b c]", usher.LevelReadWrite},
			{[]string{"a", "c"}, usher.LevelReadOnly, "[c]", usher.LevelReadOnly},
			{[]string{"a"}, usher.LevelNone, "[]", usher.LevelNone},
			{[]string{"d", "c", "b"}, usher.LevelReadWrite, "[b c d]", usher.LevelReadWrite},
		} {
			if _, err := m.Update(t.Context(), server, parent.Owner, parent.ID, func(k *apikey.Key) { k.Scopes, k.Level = step.scopes, step.level }); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				p, err := a.Authenticate(request("X-API-Key", text))
				if err != nil {
					t.Fatal(err)
				}
				k := p.Details.(*apikey.Key)
				if fmt.Sprint(p.Scopes) != step.want || p.Level != step.wantLevel {
					t.Errorf("the principal has %v and %v, want %s and %v", p.Scopes, p.Level, step.want, step.wantLevel)
				}
				if fmt.Sprint(k.Scopes) != step.want || k.Level != step.wantLevel || fmt.Sprint(checked) != step.want {
					t.Errorf("the key has %v and %v, and was checked with %v", k.Scopes, k.Level, checked)
				}
				if p.ID != parent.ID+"-child" || k.DerivedFrom != parent.ID || p.Owner != parent.Owner {
					t.Errorf("the principal of another key: %+v", p)
				}
			}
		}
	})
}

func TestTheCallbackCannotWidenADerivedKey(t *testing.T) {
	m, store := newManagerOn(t)
	parent, _ := create(t, m, apikey.Key{Scopes: []string{"a"}, Level: usher.LevelReadWrite})
	text := storeDerived(t, m, store, parent, func(r *apikey.Record) { r.Scopes, r.Level = nil, usher.LevelNone })
	role := []string{"role", "a", "extra"}
	a := authenticatorOf(t, m, apikey.Config{Principal: func(k *apikey.Key, p usher.Principal) usher.Principal {
		if p.Scopes, p.Level = role, usher.LevelFull; k.DerivedFrom == "" {
			p.Scopes, p.Level = role[:2], usher.LevelReadOnly
		}
		return p
	}})
	for range 2 {
		p, err := a.Authenticate(request("X-API-Key", text))
		if err != nil || fmt.Sprint(p.Scopes) != "[role a]" || p.Level != usher.LevelReadOnly {
			t.Errorf("%+v, %v: want what the principal of the parent has", p, err)
		}
	}
	if fmt.Sprint(role) != "[role a extra]" {
		t.Errorf("the slice of the callback has changed to %v", role)
	}
}

func TestAPrincipalOfADerivedKeyIsAtMostTenSecondsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, store := newManagerOn(t)
		parent, parentText := create(t, m, apikey.Key{Scopes: []string{"a", "b"}})
		text := storeDerived(t, m, store, parent, nil)
		scopes := []string{"a", "b"}
		a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1, Principal: func(k *apikey.Key, p usher.Principal) usher.Principal {
			if k.DerivedFrom == "" {
				p.Scopes = scopes
			}
			return p
		}})
		use := func(text string) string {
			p, err := a.Authenticate(request("X-API-Key", text))
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(p.Scopes)
		}
		use(parentText)
		time.Sleep(6 * time.Second)
		if got := use(text); got != "[a b]" {
			t.Error(got)
		}
		scopes = []string{"b"}
		time.Sleep(4 * time.Second) // the principal of the parent is ten seconds old
		if got := use(text); got != "[b]" {
			t.Errorf("%s, want what the principal of the parent has now", got)
		}
	})
}

func TestAParentThatCannotBeLookedUpIsUnavailable(t *testing.T) {
	memory := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: memory})
	parent, _ := create(t, m, apikey.Key{})
	text := storeDerived(t, m, memory, parent, nil)
	whole, err := memory.Find(t.Context(), parent.Owner, parent.ID)
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthenticator(t, apikey.ManagerConfig{Store: without{memory, whole.Hash}}, apikey.Config{LastUseInterval: -1})
	_, err = a.Authenticate(request("X-API-Key", text))
	if verdictOf(t, err) != apikey.Unavailable || !errors.Is(err, errLost) {
		t.Errorf("%v", err)
	}
}

var errLost = errors.New("lost")

// without fails to look up one key.
type without struct {
	apikey.Store
	hash apikey.Hash
}

func (w without) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	if h == w.hash {
		return apikey.Record{}, errLost
	}
	return w.Store.Lookup(ctx, h)
}

func TestADerivedKeyInUseCostsNoAllocationAndNoLookup(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	memory := apikey.NewMemory()
	counts := &lookups{Memory: memory}
	m := newManager(t, apikey.ManagerConfig{Store: newCache(t, apikey.CacheConfig{Store: unwatched{counts}})})
	parent, _ := create(t, m, apikey.Key{Scopes: []string{"a"}})
	text := storeDerived(t, m, memory, parent, nil)
	a := authenticatorOf(t, m, apikey.Config{LastUseInterval: -1})
	r := request("X-API-Key", text)
	for range 2 {
		if _, err := a.Authenticate(r); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = a.Authenticate(r) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if n := counts.n.Load(); n != 2 {
		t.Errorf("%d lookups, want one of the key and one of its parent", n)
	}
}
