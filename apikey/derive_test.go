package apikey_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
)

var office, room = netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.8/29")

// parent returns the settings of a key that others are derived from.
func parent() apikey.Key {
	return apikey.Key{
		Owner: "ann", Name: "parent", Scopes: []string{"a", "b"}, Level: usher.LevelReadWrite, Plan: "pro", PlanOverride: "own",
		Environment: "test", AllowedNetworks: []netip.Prefix{office}, Metadata: map[string]string{"team": "x"},
	}
}

func TestADerivedKeyGrantsNoMoreThanItsParent(t *testing.T) {
	type key = apikey.Key
	day := func(k *key) { k.ExpiresAt = time.Now().Add(24 * time.Hour).Truncate(time.Microsecond) }
	for _, test := range []struct {
		name   string
		change func(template *key)
		status int
	}{
		{"nothing", func(*key) {}, 0},
		{"all that the parent has", func(k *key) { k.Scopes, k.Level = []string{"b", "a"}, usher.LevelReadWrite }, 0},
		{"a part of a network", func(k *key) { k.AllowedNetworks = []netip.Prefix{room} }, 0},
		{"the environment of the parent", func(k *key) { k.Environment = "test" }, 0},
		{"the latest end", day, 0},
		{"another scope", func(k *key) { k.Scopes = []string{"a", "c"} }, 403},
		{"a higher level", func(k *key) { k.Level = usher.LevelFull }, 403},
		{"another network", func(k *key) { k.AllowedNetworks = []netip.Prefix{room, netip.MustParsePrefix("198.51.100.0/24")} }, 403},
		{"a wider network", func(k *key) { k.AllowedNetworks = []netip.Prefix{netip.MustParsePrefix("192.0.0.0/16")} }, 403},
		{"another environment", func(k *key) { k.Environment = "live" }, 403},
		{"a later end", func(k *key) { day(k); k.ExpiresAt = k.ExpiresAt.Add(time.Second) }, 400},
		{"an end in the past", func(k *key) { k.ExpiresAt = time.Now().Add(-time.Second) }, 400},
		{"no name", func(k *key) { k.Name = "" }, 400},
		{"an invalid scope", func(k *key) { k.Scopes = []string{`a"`} }, 400},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, apikey.ManagerConfig{})
			p, _ := create(t, m, parent())
			by := map[string]apikey.Actor{
				"the server": server,
				"a person": {Principal: &usher.Principal{
					ID: "u", Kind: usher.KindJWT, Owner: "ann", Level: usher.LevelFull, Scopes: []string{"a", "b", "c"}, Plan: "free",
				}},
				"the parent": {Principal: &usher.Principal{
					ID: p.ID, Kind: usher.KindAPIKey, Owner: "ann", Level: p.Level, Scopes: p.Scopes, Plan: "own", Environment: "test",
				}},
			}
			for who, by := range by {
				template := key{Name: "child", Plan: "pro", PlanOverride: "own", Owner: "bob", ID: "own", DerivedFrom: "x", Line: "y", Parent: "z"}
				test.change(&template)
				k, secret, err := m.Derive(t.Context(), by, "ann", p.ID, template)
				if statusOf(err) != test.status {
					t.Errorf("%s, by %s: %v", test.name, who, err)
				}
				if test.status != 0 {
					continue
				}
				want := key{
					ID: k.ID, Owner: "ann", Name: "child", Prefix: secret.Reveal()[:14], LastFour: secret.Reveal()[len(secret.Reveal())-4:],
					Scopes: template.Scopes, Level: template.Level, Plan: "pro", PlanOverride: "own", Environment: "test",
					AllowedNetworks: template.AllowedNetworks, CreatedAt: k.CreatedAt, UpdatedAt: k.CreatedAt, CreatedBy: k.CreatedBy,
					ExpiresAt: template.ExpiresAt.UTC(), DerivedFrom: p.ID, Revision: 1,
				}
				if want.AllowedNetworks == nil {
					want.AllowedNetworks = p.AllowedNetworks
				}
				if want.ExpiresAt.IsZero() {
					want.ExpiresAt = time.Now().Add(time.Hour).UTC()
				}
				if diff := compare.Diff(want, k); diff != "" || k.ID == "own" || k.ID == p.ID {
					t.Errorf("%s, by %s: %s", test.name, who, diff)
				}
				stored, err := m.Find(t.Context(), "ann", k.ID)
				if diff := compare.Diff(k, stored); diff != "" || err != nil {
					t.Errorf("%s, by %s, stored: %s, %v", test.name, who, diff, err)
				}
			}
		})
	}
}

// A derived key ends with its parent and with the key of its actor, unless it must end
// before.
func TestADerivedKeyEndsSoon(t *testing.T) {
	const hour = time.Hour
	for _, test := range []struct {
		name                string
		config              apikey.ManagerConfig
		parent, actor, asks time.Duration // zero means none
		want                time.Duration // zero means that it is refused
		status              int
	}{
		{name: "an hour by default", want: hour},
		{name: "the least bound by default", config: apikey.ManagerConfig{MaxDerivedLifetime: time.Minute}, want: time.Minute},
		{name: "the parent's end by default", parent: time.Minute, want: time.Minute},
		{name: "the actor's end by default", parent: hour, actor: time.Minute, want: time.Minute},
		{name: "the bound on all keys by default", config: apikey.ManagerConfig{MaxLifetime: time.Minute}, want: time.Minute},
		{name: "a wider bound", config: apikey.ManagerConfig{MaxDerivedLifetime: 48 * hour}, asks: 48 * hour, want: 48 * hour},
		{name: "beyond a wider bound", config: apikey.ManagerConfig{MaxDerivedLifetime: 48 * hour}, asks: 48*hour + 1000, status: 400},
		{name: "beyond the bound on all keys", config: apikey.ManagerConfig{MaxLifetime: 2 * hour}, asks: 3 * hour, status: 400},
		{name: "after the parent", parent: 2 * hour, asks: 2*hour + 1000, status: 403},
		{name: "with the parent", parent: 2 * hour, asks: 2 * hour, want: 2 * hour},
		{name: "after the actor", parent: 9 * hour, actor: 2 * hour, asks: 3 * hour, status: 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				at := func(d time.Duration) time.Time {
					if d == 0 {
						return time.Time{}
					}
					return start.Add(d)
				}
				m := newManager(t, test.config)
				p, _ := create(t, m, apikey.Key{ExpiresAt: at(test.parent)})
				by := server
				if test.actor > 0 {
					own, _ := create(t, m, apikey.Key{ExpiresAt: at(test.actor)})
					by = apikey.Actor{Principal: &usher.Principal{ID: own.ID, Kind: usher.KindAPIKey, Owner: "ann"}}
				}
				k, _, err := m.Derive(t.Context(), by, "ann", p.ID, apikey.Key{Name: "x", ExpiresAt: at(test.asks)})
				if statusOf(err) != test.status || err == nil && !k.ExpiresAt.Equal(start.Add(test.want)) {
					t.Errorf("until %v, %v", k.ExpiresAt, err)
				}
			})
		})
	}
	// No hook makes a derived key endless.
	m := newManager(t, apikey.ManagerConfig{Change: func(_ context.Context, _ apikey.Actor, old, k *apikey.Key) error {
		if k.DerivedFrom != "" {
			if old == nil || old.ID != k.DerivedFrom || old.ID == k.ID {
				t.Errorf("the hook gets %+v", old)
			}
			k.ExpiresAt = time.Time{}
		}
		return nil
	}})
	p, _ := create(t, m, apikey.Key{})
	if _, _, err := m.Derive(t.Context(), server, "ann", p.ID, apikey.Key{Name: "x"}); statusOf(err) != 400 {
		t.Errorf("a hook that removes the end: %v", err)
	}
}

func TestOnlyAKeyInUseHasDerivedKeys(t *testing.T) {
	ctx := t.Context()
	var last apikey.Event
	m := newManager(t, apikey.ManagerConfig{Audit: func(_ context.Context, e apikey.Event) { last = e }})
	derive := func(id string) error {
		_, _, err := m.Derive(ctx, server, "ann", id, apikey.Key{Name: "x"})
		return err
	}
	for name, end := range map[string]func(id string) error{
		"revoked":  func(id string) error { _, err := m.Revoke(ctx, server, "ann", id); return err },
		"replaced": func(id string) error { _, _, err := m.Rotate(ctx, server, "ann", id, time.Hour); return err },
		"expired":  func(id string) error { _, _, err := m.Rotate(ctx, server, "ann", id, 0); return err },
		"disabled": func(id string) error {
			_, err := m.Update(ctx, server, "ann", id, func(k *apikey.Key) { k.DisabledAt = time.Now() })
			return err
		},
	} {
		p, _ := create(t, m, apikey.Key{})
		if err := derive(p.ID); err != nil {
			t.Fatal(err)
		}
		if last.Action != "derive" || last.Before != nil || last.After == nil || last.After.DerivedFrom != p.ID || last.KeyID != last.After.ID {
			t.Errorf("%+v", last)
		}
		child := last.KeyID
		if err := derive(child); !errors.Is(err, apikey.ErrConflict) {
			t.Errorf("from a derived key: %v", err)
		}
		for _, grace := range []time.Duration{0, time.Hour} {
			if _, _, err := m.Rotate(ctx, server, "ann", child, grace); !errors.Is(err, apikey.ErrConflict) {
				t.Errorf("a rotation of a derived key: %v", err)
			}
		}
		if err := end(p.ID); err != nil {
			t.Fatal(err)
		}
		if err := derive(p.ID); !errors.Is(err, apikey.ErrConflict) {
			t.Errorf("from a key that is %s: %v", name, err)
		}
		if last.Action != "derive" || last.KeyID != p.ID || last.Owner != "ann" || last.After != nil || last.Err == nil {
			t.Errorf("%+v", last)
		}
	}
	p, _ := create(t, m, apikey.Key{Owner: "bob"})
	if err := derive(p.ID); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("from another's key: %v", err)
	}
}

// A derived key manages nothing: what it made would outlive its parent.
func TestADerivedKeyIsNarrowedAndManagesNothing(t *testing.T) {
	m, ctx := newManager(t, apikey.ManagerConfig{}), t.Context()
	p, _ := create(t, m, parent())
	k, _, err := m.Derive(ctx, server, "ann", p.ID, apikey.Key{Name: "x", Scopes: []string{"a"}, Level: usher.LevelReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(k *apikey.Key){
		"a scope of its parent": func(k *apikey.Key) { k.Scopes = []string{"a", "b"} },
		"a level of its parent": func(k *apikey.Key) { k.Level = usher.LevelReadWrite },
		"a later end":           func(k *apikey.Key) { k.ExpiresAt = k.ExpiresAt.Add(time.Second) },
		"another plan":          func(k *apikey.Key) { k.PlanOverride = "gold" },
	} {
		if _, err := m.Update(ctx, server, "ann", k.ID, change); !errors.Is(err, apikey.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := m.Update(ctx, server, "ann", k.ID, func(k *apikey.Key) { k.ExpiresAt = time.Time{} }); statusOf(err) != 400 {
		t.Errorf("no end: %v", err)
	}
	by := apikey.Actor{Principal: &usher.Principal{ID: k.ID, Kind: usher.KindAPIKey, Owner: "ann", Scopes: k.Scopes, Level: k.Level, Plan: "own", Environment: "test"}}
	for name, do := range map[string]func() error{
		"Create": func() error {
			_, _, err := m.Create(ctx, by, apikey.Key{Name: "x", ExpiresAt: k.ExpiresAt, Environment: "test", AllowedNetworks: k.AllowedNetworks})
			return err
		},
		"Derive": func() error { _, _, err := m.Derive(ctx, by, "ann", p.ID, apikey.Key{Name: "x"}); return err },
		"Revoke": func() error { _, err := m.Revoke(ctx, by, "ann", k.ID); return err },
		"Update": func() error { _, err := m.Update(ctx, by, "ann", k.ID, func(*apikey.Key) {}); return err },
	} {
		if err := do(); statusOf(err) != 403 {
			t.Errorf("%s by a derived key: %v", name, err)
		}
	}
	k, err = m.Update(ctx, server, "ann", k.ID, func(k *apikey.Key) {
		k.Scopes, k.Level, k.ExpiresAt, k.AllowedNetworks = nil, usher.LevelNone, k.ExpiresAt.Add(-time.Minute), []netip.Prefix{room}
	})
	if err != nil || len(k.Scopes) > 0 || k.DerivedFrom != p.ID {
		t.Errorf("%+v, %v", k, err)
	}
	if k, err = m.Revoke(ctx, person(""), "ann", k.ID); err != nil || k.RevokedAt.IsZero() {
		t.Errorf("%+v, %v", k, err)
	}
}

// An actor derives what it could grant itself, and gives no plan of its own.
func TestDerivingGrantsOnlyWhatTheActorHolds(t *testing.T) {
	m, ctx := newManager(t, apikey.ManagerConfig{}), t.Context()
	p, _ := create(t, m, parent())
	weak := apikey.Actor{Principal: &usher.Principal{ID: "u", Kind: usher.KindJWT, Owner: "ann", Level: usher.LevelReadOnly, Scopes: []string{"a"}}}
	for _, test := range []struct {
		name     string
		by       apikey.Actor
		template apikey.Key
		status   int
	}{
		{"what it holds", weak, apikey.Key{Scopes: []string{"a"}, Level: usher.LevelReadOnly}, 0},
		{"a plan that it names", weak, apikey.Key{Plan: "gold", PlanOverride: "gold"}, 0},
		{"a scope that it lacks", weak, apikey.Key{Scopes: []string{"b"}}, 403},
		{"a level that it lacks", weak, apikey.Key{Level: usher.LevelReadWrite}, 403},
		{"an actor of another environment", apikey.Actor{Principal: &usher.Principal{ID: "u", Kind: usher.KindJWT, Owner: "ann", Environment: "live"}}, apikey.Key{}, 403},
		{"nobody", apikey.Actor{}, apikey.Key{}, 403},
		{"an actor that cannot be recorded", apikey.Actor{Principal: &usher.Principal{ID: strings.Repeat("u", 400), Owner: "ann"}}, apikey.Key{}, 403},
	} {
		test.template.Name = "x"
		k, _, err := m.Derive(ctx, test.by, "ann", p.ID, test.template)
		if statusOf(err) != test.status || err == nil && (k.Plan != "pro" || k.PlanOverride != "own") {
			t.Errorf("%s: %+v, %v", test.name, k, err)
		}
	}
	if _, _, err := m.Derive(ctx, apikey.Actor{Principal: &usher.Principal{ID: "u", Owner: "bob"}}, "ann", p.ID, apikey.Key{Name: "x"}); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("an actor of another account: %v", err)
	}
	if k, _, err := m.Derive(ctx, server, "ann", p.ID, apikey.Key{Name: "x", Plan: "jobs"}); err != nil || k.Plan != "jobs" || k.PlanOverride != "own" {
		t.Errorf("a plan from the server: %+v, %v", k, err)
	}
}

// A parent from before MaxLifetime was set has derived keys all the same.
func TestADerivedKeyEndsWithinMaxLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, store := newManagerOn(t)
		p, _ := create(t, m, apikey.Key{})
		m = newManager(t, apikey.ManagerConfig{Store: store, MaxLifetime: 10 * time.Minute})
		k, _, err := m.Derive(t.Context(), server, "ann", p.ID, apikey.Key{Name: "x"})
		if want := time.Now().Add(10 * time.Minute); err != nil || !k.ExpiresAt.Equal(want) {
			t.Errorf("expires at %v, want %v, %v", k.ExpiresAt, want, err)
		}
	})
}

// oneEnvironment is a format whose every text is for live.
type oneEnvironment struct{ apikey.Format }

func (f oneEnvironment) Parse(text string) (environment string, visible int, ok bool) {
	_, visible, ok = f.Format.Parse(text)
	return "live", visible, ok
}

func TestAFormatCannotMoveADerivedKeyToAnotherEnvironment(t *testing.T) {
	m, store := newManagerOn(t)
	other := newManager(t, apikey.ManagerConfig{Store: store, Format: oneEnvironment{opaque}})
	for environment, status := range map[string]int{"live": 0, "test": 403} {
		p, _ := create(t, m, apikey.Key{Environment: environment})
		k, _, err := other.Derive(t.Context(), server, "ann", p.ID, apikey.Key{Name: "x"})
		if statusOf(err) != status || (err == nil) != (status == 0) || err == nil && k.Environment != "live" {
			t.Errorf("of a key for %s: environment %q, %v", environment, k.Environment, err)
		}
	}
}

func TestDerivedKeysHaveALimitOfTheirOwn(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{MaxActive: 2, MaxDerived: 5, MaxTotal: 9, CountReplaced: true})
	p, _ := create(t, m, apikey.Key{})
	q, _ := create(t, m, apikey.Key{})
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	var ids []string
	for i := range 20 {
		all.Go(func() {
			k, _, err := m.Derive(context.Background(), server, "ann", []string{p.ID, q.ID}[i%2], apikey.Key{Name: "x"})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				ids = append(ids, k.ID)
				return
			}
			errs = append(errs, err)
		})
	}
	all.Wait()
	if len(ids) != 5 || slices.ContainsFunc(errs, func(err error) bool { return !errors.Is(err, apikey.ErrLimit) }) {
		t.Errorf("%d derived keys, %v; want 5", len(ids), errs)
	}
	derive := func() error {
		_, _, err := m.Derive(t.Context(), server, "ann", p.ID, apikey.Key{Name: "x"})
		return err
	}
	for range 2 {
		if _, err := m.Revoke(t.Context(), server, "ann", ids[0]); err != nil {
			t.Fatal(err)
		}
		if err := derive(); err != nil {
			t.Errorf("after the end of another: %v", err)
		}
		ids = ids[1:]
	}
	if _, err := m.Revoke(t.Context(), server, "ann", ids[0]); err != nil {
		t.Fatal(err)
	}
	if err := derive(); !errors.Is(err, apikey.ErrFull) {
		t.Errorf("with as many keys as are stored: %v", err)
	}
}

// What Derive issues is what an Authenticator takes for a derived key.
func TestAnIssuedDerivedKeyIsAcceptedUntilItsParentEnds(t *testing.T) {
	m, store := newManagerOn(t)
	p, _ := create(t, m, apikey.Key{Scopes: []string{"a"}})
	k, secret, err := m.Derive(t.Context(), server, "ann", p.ID, apikey.Key{Name: "x", Scopes: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
	who, err := a.Authenticate(request("X-API-Key", secret.Reveal()))
	if err != nil || who.ID != k.ID || !who.HasScopes("a") || who.Line != "" {
		t.Fatalf("%+v, %v", who, err)
	}
	if _, err := m.Revoke(t.Context(), server, "ann", p.ID); err != nil {
		t.Fatal(err)
	}
	if who, err := a.Authenticate(request("X-API-Key", secret.Reveal())); !errors.Is(err, apikey.Revoked) {
		t.Errorf("after the end of its parent: %+v, %v", who, err)
	}
}
