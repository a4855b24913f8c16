package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
)

// person returns an actor of ann who holds everything, has this plan, and is not the
// server.
func person(plan string) apikey.Actor {
	return apikey.Actor{Principal: &usher.Principal{
		ID: "u1", Kind: usher.KindJWT, Owner: "ann", Plan: plan, Level: usher.LevelFull, Scopes: []string{"a", "b"},
	}}
}

// A key in the grace of its rotation can be narrowed, but neither widened nor rotated.
func TestAReplacedKeyCanOnlyBeNarrowed(t *testing.T) {
	far, near := time.Now().Add(24*time.Hour), time.Now().Add(time.Hour)
	network := netip.MustParsePrefix("192.0.2.0/24")
	type key = apikey.Key
	for _, test := range []struct {
		name   string
		change func(k *key)
		ok     bool
	}{
		{"its grace ends sooner", func(k *key) { k.ExpiresAt = near }, true},
		{"fewer scopes", func(k *key) { k.Scopes = []string{"a"} }, true},
		{"a lower level", func(k *key) { k.Level = usher.LevelNone }, true},
		{"fewer networks", func(k *key) { k.AllowedNetworks = []netip.Prefix{network} }, true},
		{"disabled", func(k *key) { k.DisabledAt = time.Now() }, true},
		{"another name", func(k *key) { k.Name = "old" }, true},
		{"its grace ends later", func(k *key) { k.ExpiresAt = far.Add(time.Hour) }, false},
		{"no end", func(k *key) { k.ExpiresAt = time.Time{} }, false},
		{"another scope", func(k *key) { k.Scopes = []string{"a", "c"} }, false},
		{"a higher level", func(k *key) { k.Level = usher.LevelFull }, false},
		{"another plan", func(k *key) { k.Plan = "gold" }, false},
		{"a plan of its own", func(k *key) { k.PlanOverride = "gold" }, false},
		{"sooner, but with another scope", func(k *key) { k.ExpiresAt, k.Scopes = near, []string{"a", "b", "c"} }, false},
	} {
		for name, by := range map[string]apikey.Actor{"the server": server, "a person": person("")} {
			m := newManager(t, apikey.ManagerConfig{})
			k, _ := create(t, m, key{Scopes: []string{"a", "b"}, Level: usher.LevelReadOnly, ExpiresAt: far})
			if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, 48*time.Hour); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Update(t.Context(), by, "ann", k.ID, test.change); (err == nil) != test.ok || !test.ok && !errors.Is(err, apikey.ErrConflict) {
				t.Errorf("%s, by %s: %v", test.name, name, err)
			}
			if _, _, err := m.Rotate(t.Context(), by, "ann", k.ID, 0); !errors.Is(err, apikey.ErrConflict) {
				t.Errorf("%s, then rotated by %s: %v", test.name, name, err)
			}
		}
	}
	m := newManager(t, apikey.ManagerConfig{})
	k, _ := create(t, m, key{DisabledAt: time.Now()})
	if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Update(t.Context(), server, "ann", k.ID, func(k *key) { k.DisabledAt = time.Time{} }); !errors.Is(err, apikey.ErrConflict) {
		t.Errorf("enabled: %v", err)
	}
}

// A person whose account has another plan by now cannot keep the old one by rotations.
func TestARotationGivesThePlanOfTheActor(t *testing.T) {
	for _, test := range []struct {
		name           string
		by             apikey.Actor
		plan, override string
	}{
		{"the server", server, "gold", "own"},
		{"a person with another plan", person("free"), "free", "own"},
		{"a person without a plan", person(""), "gold", "own"},
	} {
		m := newManager(t, apikey.ManagerConfig{})
		k, _ := create(t, m, apikey.Key{Plan: "gold", PlanOverride: "own"})
		next, _, err := m.Rotate(t.Context(), test.by, "ann", k.ID, time.Hour)
		if err != nil || next.Plan != test.plan || next.PlanOverride != test.override {
			t.Errorf("%s: plan %q and %q, %v", test.name, next.Plan, next.PlanOverride, err)
		}
		if old, err := m.Find(t.Context(), "ann", k.ID); err != nil || old.Plan != "gold" {
			t.Errorf("%s: the old key has plan %q, %v", test.name, old.Plan, err)
		}
	}
	// The plan of one key is not that of the account.
	m, store := newManagerOn(t)
	own, text := create(t, m, apikey.Key{Plan: "free", PlanOverride: "gold"})
	other, _ := create(t, m, apikey.Key{Plan: "free"})
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
	p, err := a.Authenticate(request("X-API-Key", text))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []apikey.Key{other, own} {
		next, _, err := m.Rotate(t.Context(), apikey.Actor{Principal: p}, "ann", k.ID, 0)
		if err != nil || next.Plan != "free" || next.PlanOverride != k.PlanOverride {
			t.Errorf("plan %q and %q, %v", next.Plan, next.PlanOverride, err)
		}
	}
}

// The plan of an API key's own, and one that Config.Principal makes, count as what they are:
// neither gives the caller the plan that is stored for the account.
func TestTheAccountOfAnAPIKeyHasThePlanOfItsPrincipal(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	own, _ := create(t, m, apikey.Key{Plan: "free", PlanOverride: "gold"})
	by := func(plan string) apikey.Actor {
		return apikey.Actor{Principal: &usher.Principal{ID: own.ID, Kind: usher.KindAPIKey, Owner: "ann", Plan: plan}}
	}
	for plan, want := range map[string]string{"gold": "free", "silver": "silver", "free": "free", "": "old"} {
		k, _ := create(t, m, apikey.Key{Plan: "old"})
		if next, _, err := m.Rotate(t.Context(), by(plan), "ann", k.ID, 0); err != nil || next.Plan != want {
			t.Errorf("rotated by a principal with plan %q: plan %q, want %q, %v", plan, next.Plan, want, err)
		}
	}
	for plan, status := range map[string]int{"gold": 0, "free": 403, "silver": 403} {
		k, _ := create(t, m, apikey.Key{Plan: "old"})
		_, err := m.Update(t.Context(), by("gold"), "ann", k.ID, func(k *apikey.Key) { k.Plan = plan })
		if statusOf(err) != status || (err == nil) != (status == 0) {
			t.Errorf("changed to plan %q by a principal with plan gold: %v", plan, err)
		}
	}
}

// The environment of a key belongs to its text.
func TestAHookCannotMoveAKeyToAnotherEnvironment(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{Format: opaque, Change: func(_ context.Context, _ apikey.Actor, old, k *apikey.Key) error {
		if old != nil {
			k.Environment = "live"
		}
		return nil
	}})
	k, _ := create(t, m, apikey.Key{Environment: "test"})
	if updated, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.Name = "x" }); err != nil || updated.Environment != "test" {
		t.Errorf("Update: environment %q, %v", updated.Environment, err)
	}
	if child, _, err := m.Derive(t.Context(), server, "ann", k.ID, apikey.Key{Name: "x"}); err != nil || child.Environment != "test" {
		t.Errorf("Derive: environment %q, %v", child.Environment, err)
	}
	if next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, 0); err != nil || next.Environment != "test" {
		t.Errorf("Rotate: environment %q, %v", next.Environment, err)
	}
}

// What the server has disabled, only the server enables: by an update, by a rotation, or by
// what a hook makes of either.
func TestOnlyTheServerEnablesWhatItHasDisabled(t *testing.T) {
	pause := func(k *apikey.Key) { k.DisabledAt = time.Now() }
	resume := func(k *apikey.Key) { k.DisabledAt = time.Time{} }
	type step struct {
		by     apikey.Actor
		change func(*apikey.Key)
		status int
		want   string // DisabledBy
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"a person pauses and resumes", []step{{person(""), pause, 0, "jwt:u1"}, {person(""), resume, 0, ""}}},
		{"the server resumes", []step{{person(""), pause, 0, "jwt:u1"}, {server, resume, 0, ""}}},
		{"the server pauses", []step{{server, pause, 0, "system"}, {person(""), resume, 403, "system"}, {server, resume, 0, ""}, {person(""), pause, 0, "jwt:u1"}}},
		{"the server pauses a paused key", []step{{person(""), pause, 0, "jwt:u1"}, {server, pause, 0, "system"}, {person(""), resume, 403, "system"}}},
		{"a person pauses what the server has paused", []step{{server, pause, 0, "system"}, {person(""), pause, 0, "system"}, {person(""), resume, 403, "system"}}},
		{"another change", []step{{server, pause, 0, "system"}, {person(""), func(k *apikey.Key) { k.Name, k.DisabledBy = "y", "" }, 0, "system"}}},
	} {
		m := newManager(t, apikey.ManagerConfig{})
		k, _ := create(t, m, apikey.Key{})
		for i, step := range test.steps {
			time.Sleep(time.Microsecond) // so that times differ
			got, err := m.Update(t.Context(), step.by, "ann", k.ID, step.change)
			if statusOf(err) != step.status || err == nil && got.DisabledBy != step.want {
				t.Errorf("%s, step %d: by %q, %v", test.name, i, got.DisabledBy, err)
			}
			stored, err := m.Find(t.Context(), "ann", k.ID)
			if err != nil || stored.DisabledBy != step.want || stored.DisabledAt.IsZero() != (step.want == "") {
				t.Errorf("%s, step %d: stored %+v, %v", test.name, i, stored, err)
			}
		}
	}
	enable := false
	m := newManager(t, apikey.ManagerConfig{Change: func(_ context.Context, _ apikey.Actor, _, k *apikey.Key) error {
		if enable {
			k.DisabledAt = time.Time{}
		}
		return nil
	}})
	k, _ := create(t, m, apikey.Key{DisabledAt: time.Now()})
	if k.DisabledBy != "system" {
		t.Errorf("created as disabled by %q", k.DisabledBy)
	}
	enable = true
	if _, err := m.Update(t.Context(), person(""), "ann", k.ID, func(*apikey.Key) {}); statusOf(err) != 403 {
		t.Errorf("a hook that enables: %v", err)
	}
	if _, _, err := m.Rotate(t.Context(), person(""), "ann", k.ID, 0); statusOf(err) != 403 {
		t.Errorf("a hook that enables at a rotation: %v", err)
	}
	enable = false
	next, _, err := m.Rotate(t.Context(), person(""), "ann", k.ID, 0)
	if err != nil || next.DisabledAt.IsZero() || next.DisabledBy != "system" {
		t.Errorf("the key in place of a disabled one: %+v, %v", next, err)
	}
	if _, err := m.Update(t.Context(), person(""), "ann", next.ID, resume); statusOf(err) != 403 {
		t.Errorf("enabling the key in place of a disabled one: %v", err)
	}
}

// An event has the key before and after a change, and the key that a rotation issued.
func TestAnEventHasTheKeyBeforeAndAfter(t *testing.T) {
	var last apikey.Event
	m := newManager(t, apikey.ManagerConfig{Audit: func(_ context.Context, e apikey.Event) {
		last = e
		for _, k := range []*apikey.Key{e.Before, e.After, e.Successor} {
			if k != nil {
				k.Name, k.Scopes[0] = "spoiled", "spoiled"
			}
		}
	}})
	ctx := t.Context()
	// check compares the last event with the keys, whose names and scopes it has spoiled.
	check := func(action, id string, before, after, successor *apikey.Key) {
		t.Helper()
		if last.Action != action || last.KeyID != id || last.Owner != "ann" || last.Err != nil {
			t.Errorf("%s: %+v", action, last)
		}
		for name, pair := range map[string][2]*apikey.Key{"Before": {before, last.Before}, "After": {after, last.After}, "Successor": {successor, last.Successor}} {
			want := pair[0]
			if want != nil {
				k := *want
				k.Name, k.Scopes = "spoiled", append([]string{"spoiled"}, k.Scopes[1:]...)
				want = &k
			}
			if diff := compare.Diff(want, pair[1]); diff != "" {
				t.Errorf("%s of %s: %s", name, action, diff)
			}
		}
	}
	find := func(id string) *apikey.Key {
		k, err := m.Find(ctx, "ann", id)
		if err != nil {
			t.Fatal(err)
		}
		return &k
	}
	k, secret, err := m.Create(ctx, server, apikey.Key{Owner: "ann", Name: "x", Scopes: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	check("create", k.ID, nil, &k, nil)
	updated, err := m.Update(ctx, person(""), "ann", k.ID, func(k *apikey.Key) { k.Scopes = k.Scopes[1:] })
	if err != nil {
		t.Fatal(err)
	}
	check("update", k.ID, &k, &updated, nil)
	next, nextSecret, err := m.Rotate(ctx, server, "ann", k.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	check("rotate", k.ID, &updated, find(k.ID), &next)
	for _, by := range []apikey.Actor{server, person("")} {
		before := find(next.ID)
		revoked, err := m.Revoke(ctx, by, "ann", next.ID)
		if err != nil {
			t.Fatal(err)
		}
		check("revoke", next.ID, before, &revoked, nil)
	}
	before := find(k.ID)
	if _, _, err := m.RevokeAll(ctx, server, apikey.Filter{Owner: "ann"}, 10); err != nil {
		t.Fatal(err)
	}
	check("revoke_all", k.ID, nil, find(k.ID), nil)
	imported, err := m.Import(ctx, server, apikey.Key{Owner: "ann", Name: "x", Scopes: []string{"a"}}, apikey.Hash{1: 1})
	if err != nil {
		t.Fatal(err)
	}
	check("import", imported.ID, nil, &imported, nil)
	if before.Scopes[0] != "b" || imported.Scopes[0] != "a" {
		t.Error("a callback has changed the result of a call")
	}

	weak := apikey.Actor{Principal: &usher.Principal{ID: "u2", Kind: usher.KindJWT, Owner: "ann"}}
	for action, do := range map[string]func() error{
		"update": func() error {
			_, err := m.Update(ctx, weak, "ann", imported.ID, func(*apikey.Key) {})
			return err
		},
		"rotate": func() error { _, _, err := m.Rotate(ctx, weak, "ann", imported.ID, 0); return err },
		"revoke": func() error { _, err := m.Revoke(ctx, weak, "ann", imported.ID); return err },
	} {
		if err := do(); err == nil || last.Action != action || last.KeyID != imported.ID || last.Owner != "ann" || last.After != nil || last.Successor != nil || !errors.Is(last.Err, err) {
			t.Errorf("a refused %s: %v, %+v", action, err, last)
		}
	}
	for _, s := range []apikey.Secret{secret, nextSecret} {
		if shown := fmt.Sprintf("%+v %#v %+v %+v", last, last, find(k.ID), next); strings.Contains(shown, s.Reveal()[14:]) {
			t.Error("an event shows the key")
		}
	}
}

// unreadable is a store that finds no single key, but revokes it.
type unreadable struct{ *apikey.Memory }

func (unreadable) Find(context.Context, string, string) (apikey.Record, error) {
	return apikey.Record{}, errors.New("lost")
}

// The audit wants to know the key before its revocation, which must not wait for that.
func TestTheServerRevokesAKeyThatCannotBeRead(t *testing.T) {
	var last apikey.Event
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: unreadable{store}, Audit: func(_ context.Context, e apikey.Event) { last = e }})
	k, _ := create(t, m, apikey.Key{})
	if revoked, err := m.Revoke(t.Context(), server, "ann", k.ID); err != nil || revoked.RevokedAt.IsZero() {
		t.Errorf("%+v, %v", revoked, err)
	}
	if last.Verdict != apikey.Accepted || last.Before != nil || last.After == nil || last.After.ID != k.ID {
		t.Errorf("%+v", last)
	}
}

// A key is found by its text under every pepper, and a service can revoke what it finds.
func TestAKeyIsFoundUnderEveryPepper(t *testing.T) {
	store := apikey.NewMemory()
	pepper := apikey.Pepper{Version: 1, Key: apikey.NewSecret(strings.Repeat("p", 32))}
	plain := newManager(t, apikey.ManagerConfig{Store: store})
	old, oldText := create(t, plain, apikey.Key{})
	cache, err := apikey.NewCache(apikey.CacheConfig{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close() })
	for name, s := range map[string]apikey.Store{"a store": store, "a cache": cache} {
		m := newManager(t, apikey.ManagerConfig{Store: s, Peppers: []apikey.Pepper{pepper, {}}})
		k, text := create(t, m, apikey.Key{Owner: "bob"})
		for text, want := range map[string]apikey.Key{text: k, oldText: old} {
			if got, err := m.FindByText(t.Context(), apikey.NewSecret(text)); err != nil || got.ID != want.ID || got.Owner != want.Owner {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
		for _, text := range []string{"", "x", text + "x", text[1:], strings.Repeat("k", 256), strings.Repeat("k", 257)} {
			if got, err := m.FindByText(t.Context(), apikey.NewSecret(text)); !errors.Is(err, apikey.ErrNotFound) {
				t.Errorf("%s: %d bytes: %+v, %v", name, len(text), got, err)
			}
		}
		found, err := m.FindByText(t.Context(), apikey.NewSecret(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Revoke(t.Context(), server, found.Owner, found.ID); err != nil {
			t.Fatal(err)
		}
		if got, err := m.FindByText(t.Context(), apikey.NewSecret(text)); err != nil || got.RevokedAt.IsZero() {
			t.Errorf("%s: a revoked key: %+v, %v", name, got, err)
		}
	}
	if _, err := plain.FindByText(t.Context(), apikey.NewSecret(strings.Repeat("k", 300))); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("%v", err)
	}
	// A key that was not there a moment ago is found, although a cache remembers that.
	secret := apikey.NewSecret("shop_live_imported-key-of-another-system")
	m := newManager(t, apikey.ManagerConfig{Store: cache})
	hash, err := m.Hash(secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Lookup(t.Context(), hash); !errors.Is(err, apikey.ErrNotFound) {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.FindByText(t.Context(), secret); !errors.Is(err, usher.ErrClosed) {
		t.Errorf("the cache was asked: %v", err)
	}
}

// A key may expire while Change runs. It stays expired, and no key is issued for it.
func TestAKeyThatExpiresDuringAChangeStaysExpired(t *testing.T) {
	for name, change := range map[string]func(m *apikey.Manager, id string) error{
		"update": func(m *apikey.Manager, id string) error {
			_, err := m.Update(t.Context(), server, "ann", id, func(k *apikey.Key) { k.ExpiresAt = time.Time{} })
			return err
		},
		"rotate": func(m *apikey.Manager, id string) error {
			_, _, err := m.Rotate(t.Context(), server, "ann", id, 0)
			return err
		},
		"derive": func(m *apikey.Manager, id string) error {
			_, _, err := m.Derive(t.Context(), server, "ann", id, apikey.Key{Name: "job"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := apikey.NewMemory()
				k, _ := create(t, newManager(t, apikey.ManagerConfig{Store: store}), apikey.Key{Owner: "ann", ExpiresAt: time.Now().Add(time.Second)})
				m := newManager(t, apikey.ManagerConfig{Store: store, Change: func(_ context.Context, _ apikey.Actor, _, edited *apikey.Key) error {
					time.Sleep(2 * time.Second)
					edited.ExpiresAt = time.Now().Add(time.Hour)
					return nil
				}})
				if err := change(m, k.ID); !errors.Is(err, apikey.ErrConflict) {
					t.Error(err)
				}
				keys, total, err := m.List(t.Context(), "ann", 0, 9)
				if err != nil || total != 1 || !keys[0].Ended(time.Now()) {
					t.Errorf("%+v, %v", keys, err)
				}
			})
		})
	}
}

// A change that the state of the key forbids is not tried again, as nothing else happened.
func TestAForbiddenChangeIsTriedOnce(t *testing.T) {
	asked := 0
	m := newManager(t, apikey.ManagerConfig{Change: func(context.Context, apikey.Actor, *apikey.Key, *apikey.Key) error {
		asked++
		return nil
	}})
	old, _ := create(t, m, apikey.Key{})
	if _, _, err := m.Rotate(t.Context(), apikey.Actor{System: true}, old.Owner, old.ID, time.Hour); err != nil {
		t.Fatal(err)
	}
	asked = 0
	_, err := m.Update(t.Context(), apikey.Actor{System: true}, old.Owner, old.ID, func(k *apikey.Key) { k.Level = usher.LevelFull })
	if !errors.Is(err, apikey.ErrConflict) || asked != 1 {
		t.Errorf("%v after %d calls of Change, want a conflict after 1", err, asked)
	}
}
