package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
)

func metadata(entries, name, value int) map[string]string {
	m := make(map[string]string)
	for i := range entries {
		n := fmt.Sprintf("%02d", i)
		m[n+strings.Repeat("n", name-len(n))] = strings.Repeat("v", value)
	}
	return m
}

func manyNetworks(n int) (list []netip.Prefix) {
	for i := range n {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24))
	}
	return list
}

func manyScopes(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%03d", i)+strings.Repeat("s", apikey.MaxScope-3))
	}
	return list
}

// largest has each setting at its bound.
func largest() apikey.Key {
	return apikey.Key{
		Owner: strings.Repeat("ö", apikey.MaxOwner/2) + "o", Name: strings.Repeat("𝄞", apikey.MaxName),
		Description: "\r\n\t" + strings.Repeat("日", apikey.MaxDescription-3),
		Metadata:    metadata(apikey.MaxMetadata, apikey.MaxMetadataName, apikey.MaxMetadataValue),
		Scopes:      manyScopes(apikey.MaxScopes), Level: usher.LevelFull,
		Plan: strings.Repeat("p", apikey.MaxPlan), PlanOverride: strings.Repeat("q", apikey.MaxPlan),
		Environment:     strings.Repeat("e", apikey.MaxEnvironment),
		AllowedNetworks: manyNetworks(apikey.MaxNetworks),
		DisabledAt:      time.Time{}.Add(time.Microsecond),
		ExpiresAt:       time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC),
	}
}

// beyond sets one field beyond its bound.
var beyond = map[string]func(*apikey.Key){
	"name":                  func(k *apikey.Key) { k.Name += "x" },
	"name of bad bytes":     func(k *apikey.Key) { k.Name = "\xff" },
	"description":           func(k *apikey.Key) { k.Description += "x" },
	"description: zero":     func(k *apikey.Key) { k.Description = "a\x00" },
	"description: bell":     func(k *apikey.Key) { k.Description = "a\a" },
	"description: bad":      func(k *apikey.Key) { k.Description = "\xff" },
	"metadata entries":      func(k *apikey.Key) { k.Metadata = metadata(apikey.MaxMetadata+1, 2, 0) },
	"metadata name":         func(k *apikey.Key) { k.Metadata = metadata(1, apikey.MaxMetadataName+1, 0) },
	"metadata value":        func(k *apikey.Key) { k.Metadata = metadata(1, 2, apikey.MaxMetadataValue+1) },
	"metadata without name": func(k *apikey.Key) { k.Metadata = map[string]string{"": "x"} },
	"metadata zero byte":    func(k *apikey.Key) { k.Metadata = map[string]string{"x": "\x00"} },
	"metadata bad name":     func(k *apikey.Key) { k.Metadata = map[string]string{"\xff": ""} },
	"scopes":                func(k *apikey.Key) { k.Scopes = manyScopes(apikey.MaxScopes + 1) },
	"scope":                 func(k *apikey.Key) { k.Scopes = []string{strings.Repeat("s", apikey.MaxScope+1)} },
	"plan":                  func(k *apikey.Key) { k.Plan += "p" },
	"plan of bad bytes":     func(k *apikey.Key) { k.Plan = "\xff" },
	"plan override":         func(k *apikey.Key) { k.PlanOverride += "p" },
	"plan override zero":    func(k *apikey.Key) { k.PlanOverride = "\x00" },
	"networks":              func(k *apikey.Key) { k.AllowedNetworks = manyNetworks(apikey.MaxNetworks + 1) },
	"network":               func(k *apikey.Key) { k.AllowedNetworks = make([]netip.Prefix, 1) },
	"disabled too early":    func(k *apikey.Key) { k.DisabledAt = time.Time{}.Add(time.Microsecond - 1) },
	"disabled before":       func(k *apikey.Key) { k.DisabledAt = time.Time{}.Add(-1) },
	"expiry":                func(k *apikey.Key) { k.ExpiresAt = time.Date(9999, 12, 30, 0, 0, 0, 1, time.UTC) },
}

// beyondAtFirst sets fields that only a new key has.
var beyondAtFirst = map[string]func(*apikey.Key){
	"owner":              func(k *apikey.Key) { k.Owner += "x" },
	"owner of bad bytes": func(k *apikey.Key) { k.Owner = "a\xff" },
	"owner with a zero":  func(k *apikey.Key) { k.Owner = "a\x00" },
	"environment":        func(k *apikey.Key) { k.Environment += "x" },
	"environment zero":   func(k *apikey.Key) { k.Environment = "\x00" },
}

// Every method stores all settings at their bounds, and none beyond.
func TestEveryMethodKeepsTheBoundsOfAKey(t *testing.T) {
	ctx := t.Context()
	var edit func(*apikey.Key)
	m := newManager(t, apikey.ManagerConfig{
		Format: opaque, MaxName: apikey.MaxName, MaxActive: 1000,
		Change: func(_ context.Context, _ apikey.Actor, old, k *apikey.Key) error {
			if edit != nil && old != nil && old.ID != k.ID {
				edit(k) // the only way to change a setting with a rotation
			}
			return nil
		},
	})
	n := byte(0)
	hash := func() apikey.Hash { n++; return apikey.Hash{1: 1, 2: n} }
	whole := largest()
	k, _, err := m.Create(ctx, server, whole)
	if err != nil {
		t.Fatal(err)
	}
	imported, err := m.Import(ctx, server, whole, hash())
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := m.Rotate(ctx, server, k.Owner, imported.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	small, _ := create(t, m, apikey.Key{Owner: whole.Owner, Environment: whole.Environment})
	updated, err := m.Update(ctx, server, k.Owner, small.ID, func(k *apikey.Key) { *k = whole })
	if err != nil {
		t.Fatal(err)
	}
	for how, got := range map[string]apikey.Key{"Create": k, "Import": imported, "Rotate": next, "Update": updated} {
		want := largest()
		want.ID, want.Prefix, want.LastFour, want.Parent, want.Line = got.ID, got.Prefix, got.LastFour, got.Parent, got.Parent
		want.CreatedAt, want.UpdatedAt, want.CreatedBy, want.Revision = got.CreatedAt, got.UpdatedAt, "system", got.Revision
		want.DisabledBy = "system"
		if diff := compare.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", how, diff)
		}
		stored, err := m.Find(ctx, got.Owner, got.ID)
		if how == "Import" {
			stored.ReplacedBy, stored.ExpiresAt, stored.UpdatedAt, stored.Revision = "", got.ExpiresAt, got.UpdatedAt, 1
		}
		if diff := compare.Diff(got, stored); diff != "" || err != nil {
			t.Errorf("%s, stored: %s, %v", how, diff, err)
		}
	}
	for name, change := range beyond {
		template := largest()
		change(&template)
		if _, _, err := m.Create(ctx, server, template); statusOf(err) != 400 {
			t.Errorf("Create with %s beyond: %v", name, err)
		}
		if _, err := m.Import(ctx, server, template, hash()); statusOf(err) != 400 {
			t.Errorf("Import with %s beyond: %v", name, err)
		}
		if _, err := m.Update(ctx, server, k.Owner, k.ID, change); statusOf(err) != 400 {
			t.Errorf("Update with %s beyond: %v", name, err)
		}
		edit = change
		if _, _, err := m.Rotate(ctx, server, k.Owner, k.ID, time.Hour); statusOf(err) != 400 {
			t.Errorf("Rotate with %s beyond: %v", name, err)
		}
		edit = nil
	}
	for name, change := range beyondAtFirst {
		template := largest()
		change(&template)
		if _, _, err := m.Create(ctx, server, template); statusOf(err) != 400 {
			t.Errorf("Create with %s beyond: %v", name, err)
		}
		if _, err := m.Import(ctx, server, template, hash()); statusOf(err) != 400 {
			t.Errorf("Import with %s beyond: %v", name, err)
		}
	}
	if _, total, err := m.List(ctx, k.Owner, 0, 1); err != nil || total != 4 {
		t.Errorf("%d keys, %v; want 4", total, err)
	}
}

func TestImportedDisplayCharactersAreBounded(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{Formats: []apikey.Format{apikey.Plain{}}})
	for i, test := range []struct {
		prefix, lastFour string
		ok               bool
	}{
		{strings.Repeat("p", apikey.MaxPrefix), "1234", true},
		{"", "", true},
		{strings.Repeat("p", apikey.MaxPrefix+1), "", false},
		{"", "12345", false},
		{"\xff", "", false},
		{"", "a\x00", false},
	} {
		_, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "x", Prefix: test.prefix, LastFour: test.lastFour}, apikey.Hash{1: byte(i + 1)})
		if (err == nil) != test.ok {
			t.Errorf("%q and %q: %v", test.prefix, test.lastFour, err)
		}
	}
	if _, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}, apikey.Hash{}); err == nil {
		t.Error("a hash of zeros")
	}
}

// Values that no key can have never reach the store, which might not accept them.
func TestOwnersThatNoKeyCanHaveHaveNoKeys(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{Store: &misbehaving{instead: func(context.Context) { t.Error("the store was called") }}})
	for _, owner := range []string{"", "\x00", "\xff", strings.Repeat("a", apikey.MaxOwner+1)} {
		ctx, id := t.Context(), "key"
		if keys, total, err := m.List(ctx, owner, 0, 10); len(keys) != 0 || total != 0 || err != nil {
			t.Errorf("List: %v", err)
		}
		_, find := m.Find(ctx, owner, id)
		_, update := m.Update(ctx, server, owner, id, func(*apikey.Key) {})
		_, _, rotate := m.Rotate(ctx, server, owner, id, 0)
		_, revoke := m.Revoke(ctx, server, owner, id)
		for _, err := range []error{find, update, rotate, revoke} {
			if !errors.Is(err, apikey.ErrNotFound) {
				t.Errorf("%q: %v", owner, err)
			}
		}
	}
}

func TestWhoCreatedAKeyIsRecorded(t *testing.T) {
	m, store := newManagerOn(t)
	byServer, text := create(t, m, apikey.Key{})
	p, err := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{}).Authenticate(request("X-API-Key", text))
	if err != nil {
		t.Fatal(err)
	}
	person := &usher.Principal{ID: "u1", Kind: usher.KindJWT, Owner: "ann"}
	for want, by := range map[string]apikey.Actor{
		"system":                 {System: true, Principal: person},
		"jwt:u1":                 {Principal: person},
		"api_key:" + byServer.ID: {Principal: p},
		"jwt:" + strings.Repeat("i", apikey.MaxCreatedBy-4): {Principal: &usher.Principal{ID: strings.Repeat("i", apikey.MaxCreatedBy-4), Kind: usher.KindJWT, Owner: "ann"}},
	} {
		k, _, err := m.Create(t.Context(), by, apikey.Key{Owner: "ann", Name: "x", CreatedBy: "forged", Parent: "forged", Line: "forged", ReplacedBy: "forged"})
		if err != nil || k.CreatedBy != want || k.Parent != "" || k.Line != "" || k.ReplacedBy != "" {
			t.Errorf("created by %q, parent %q, %v; want %q", k.CreatedBy, k.Parent, err, want)
		}
		next, _, err := m.Rotate(t.Context(), by, "ann", k.ID, 0)
		if err != nil || next.CreatedBy != want || next.Parent != k.ID || next.Line != k.ID {
			t.Errorf("rotated: created by %q, parent %q, %v; want %q and %q", next.CreatedBy, next.Parent, err, want, k.ID)
		}
		if k, err := m.Update(t.Context(), server, "ann", next.ID, func(k *apikey.Key) { k.CreatedBy, k.Parent, k.Line = "x", "y", "z" }); err != nil || k.CreatedBy != want || k.Parent != next.Parent || k.Line != next.Line {
			t.Errorf("updated: %q, %q, %v", k.CreatedBy, k.Parent, err)
		}
	}
	for _, id := range []string{strings.Repeat("i", apikey.MaxCreatedBy-3), "\xff", "\x00"} {
		by := apikey.Actor{Principal: &usher.Principal{ID: id, Kind: usher.KindJWT, Owner: "ann"}}
		if _, _, err := m.Create(t.Context(), by, apikey.Key{Name: "x"}); statusOf(err) != 403 {
			t.Errorf("%.5q: %v", id, err)
		}
		if _, _, err := m.Rotate(t.Context(), by, "ann", byServer.ID, 0); statusOf(err) != 403 {
			t.Errorf("rotation by %.5q: %v", id, err)
		}
	}
}

func TestADisabledKeyIsRefusedUntilItIsEnabled(t *testing.T) {
	for name, cached := range map[string]bool{"from the store": false, "from a cache": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var store apikey.Store = apikey.NewMemory()
				if cached {
					store = newCache(t, apikey.CacheConfig{Store: silent{store}, TTL: time.Hour})
				}
				m := newManager(t, apikey.ManagerConfig{Store: store, MaxActive: 2})
				a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
				k, text := create(t, m, apikey.Key{})
				wantVerdict := func(want apikey.Verdict) {
					t.Helper()
					if _, err := a.Authenticate(request("X-API-Key", text)); verdictOf(t, err) != want {
						t.Errorf("%v, want %v", err, want)
					}
				}
				set := func(at time.Time) {
					t.Helper()
					var err error
					if k, err = m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.DisabledAt = at }); err != nil {
						t.Fatal(err)
					}
				}
				wantVerdict(apikey.Accepted)
				// A time in the future disables it now.
				set(time.Now().Add(time.Hour))
				if !k.DisabledAt.Equal(time.Now()) || k.Active(time.Now()) || k.Ended(time.Now()) {
					t.Errorf("disabled at %v", k.DisabledAt)
				}
				wantVerdict(apikey.Disabled)
				// It still counts: otherwise enabling it would exceed the limit.
				create(t, m, apikey.Key{})
				if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); !errors.Is(err, apikey.ErrLimit) {
					t.Errorf("one more key: %v", err)
				}
				next, secret, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour)
				if err != nil || next.DisabledAt.IsZero() {
					t.Errorf("the key in place of a disabled one: %+v, %v", next, err)
				}
				wantVerdict(apikey.Disabled)
				k, text = next, secret.Reveal()
				wantVerdict(apikey.Disabled)
				set(time.Time{})
				wantVerdict(apikey.Accepted)
				// Revoked and expired come first.
				set(time.Now())
				if _, err := m.Revoke(t.Context(), server, "ann", k.ID); err != nil {
					t.Fatal(err)
				}
				wantVerdict(apikey.Revoked)
			})
		})
	}
}

func TestADisabledKeyManagesNothing(t *testing.T) {
	m, store := newManagerOn(t)
	own, text := create(t, m, apikey.Key{Level: usher.LevelFull})
	p, err := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{}).Authenticate(request("X-API-Key", text))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Update(t.Context(), server, "ann", own.ID, func(k *apikey.Key) { k.DisabledAt = time.Now() }); err != nil {
		t.Fatal(err)
	}
	p.Details = nil // even if it is not known which revision the caller has
	by := apikey.Actor{Principal: p}
	if _, _, err := m.Create(t.Context(), by, apikey.Key{Name: "x"}); statusOf(err) != 403 {
		t.Errorf("Create: %v", err)
	}
	if _, err := m.Update(t.Context(), by, "ann", own.ID, func(k *apikey.Key) { k.DisabledAt = time.Time{} }); statusOf(err) != 403 {
		t.Errorf("enabling itself: %v", err)
	}
}

// A caller that enables a key grants what the key grants.
func TestEnablingAKeyNeedsWhatTheKeyGrants(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	end := time.Now().Add(time.Hour)
	own, _ := create(t, m, apikey.Key{Level: usher.LevelFull, ExpiresAt: end})
	by := apikey.Actor{Principal: &usher.Principal{ID: own.ID, Kind: usher.KindAPIKey, Owner: "ann", Level: usher.LevelFull}}
	k, _ := create(t, m, apikey.Key{}) // never expires
	toggle := func(k *apikey.Key) {
		if k.DisabledAt.IsZero() {
			k.DisabledAt = time.Now()
		} else {
			k.DisabledAt = time.Time{}
		}
	}
	if _, err := m.Update(t.Context(), by, "ann", k.ID, toggle); err != nil {
		t.Errorf("disabling it: %v", err)
	}
	if _, err := m.Update(t.Context(), by, "ann", k.ID, toggle); statusOf(err) != 403 {
		t.Errorf("enabling a key that outlives the caller's: %v", err)
	}
}

func TestAPlanOfAKeyWinsAndIsGrantedLikeAnother(t *testing.T) {
	m, store := newManagerOn(t)
	k, text := create(t, m, apikey.Key{Plan: "free", PlanOverride: "gold"})
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
	p, err := a.Authenticate(request("X-API-Key", text))
	if err != nil || p.Plan != "gold" {
		t.Fatalf("%+v, %v", p, err)
	}
	free := apikey.Actor{Principal: &usher.Principal{ID: "u", Kind: usher.KindJWT, Owner: "ann", Plan: "free"}}
	gold := apikey.Actor{Principal: &usher.Principal{ID: "u", Kind: usher.KindJWT, Owner: "ann", Plan: "gold"}}
	for _, test := range []struct {
		by                     apikey.Actor
		plan, override         string
		newPlan, newOverride   string
		wantCreate, wantUpdate int
	}{
		{free, "free", "", "free", "gold", 0, 403},
		{free, "free", "gold", "free", "", 403, 0},
		{free, "gold", "free", "gold", "", 403, 403},
		{free, "free", "free", "gold", "free", 0, 403},
		{gold, "gold", "", "gold", "free", 0, 403},
		{gold, "gold", "gold", "free", "gold", 0, 403},
		{gold, "gold", "free", "gold", "", 403, 0},
	} {
		_, _, err := m.Create(t.Context(), test.by, apikey.Key{Name: "x", Plan: test.plan, PlanOverride: test.override})
		if statusOf(err) != test.wantCreate {
			t.Errorf("create with %q and %q: %v", test.plan, test.override, err)
		}
		k, _ := create(t, m, apikey.Key{Plan: test.plan, PlanOverride: test.override})
		_, err = m.Update(t.Context(), test.by, "ann", k.ID, func(k *apikey.Key) { k.Plan, k.PlanOverride = test.newPlan, test.newOverride })
		if statusOf(err) != test.wantUpdate {
			t.Errorf("%q and %q to %q and %q: %v", test.plan, test.override, test.newPlan, test.newOverride, err)
		}
	}
	// A rotation by any caller keeps the plan of the key, and gives it that of the account.
	if next, _, err := m.Rotate(t.Context(), free, "ann", k.ID, 0); err != nil || next.Plan != "free" || next.PlanOverride != "gold" {
		t.Errorf("%+v, %v", next, err)
	}
}

func TestTheAddressOfTheLastUseIsStored(t *testing.T) {
	m, store := newManagerOn(t)
	k, text := create(t, m, apikey.Key{})
	for _, peer := range []string{"192.0.2.1:80", "[2001:db8::7]:443", "@"} {
		a, err := apikey.New(apikey.Config{Manager: newManager(t, apikey.ManagerConfig{Store: store})})
		if err != nil {
			t.Fatal(err)
		}
		r := request("X-API-Key", text)
		r.RemoteAddr = peer
		p, err := a.Authenticate(r)
		if err != nil {
			t.Fatal(err)
		}
		p.OnUse(r, http.StatusOK)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		k, err = m.Find(t.Context(), k.Owner, k.ID)
		want, _ := netip.ParseAddrPort(peer)
		if err != nil || k.LastUsedFrom != want.Addr() || k.LastUsedAt.IsZero() {
			t.Errorf("last used from %v at %v, %v; want %v", k.LastUsedFrom, k.LastUsedAt, err, want.Addr())
		}
	}
}

// A store may hold a time that no Manager stores.
func TestAKeyThatIsDisabledInTheFutureIsRefusedNow(t *testing.T) {
	m, store := newManagerOn(t)
	secret := apikey.NewSecret(generate(t, native, ""))
	h, err := m.Hash(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := record(0)
	r.Hash, r.DisabledAt = h, time.Now().Add(time.Hour)
	if err := store.Insert(t.Context(), r, apikey.Limits{}); err != nil {
		t.Fatal(err)
	}
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
	if _, err := a.Authenticate(request("X-API-Key", secret.Reveal())); !errors.Is(err, apikey.Disabled) {
		t.Error(err)
	}
}

// What a caller of a Manager does with its arguments and results later changes no key, and
// a key is the same as the store returns it.
func TestAKeySharesNothingWithItsTemplate(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	template := apikey.Key{Metadata: map[string]string{"a": "1"}, Scopes: []string{"a"}, AllowedNetworks: networks("10.0.0.0/8")}
	k, _ := create(t, m, template)
	template.Metadata["a"], template.Scopes[0], template.AllowedNetworks[0] = "2", "b", netip.Prefix{}
	if diff := compare.Diff(map[string]string{"a": "1"}, k.Metadata); diff != "" || k.Scopes[0] != "a" || !k.AllowedNetworks[0].IsValid() {
		t.Errorf("%+v", k)
	}
	k.Metadata["a"] = "3"
	got, err := m.Find(t.Context(), "ann", k.ID)
	if diff := compare.Diff(map[string]string{"a": "1"}, got.Metadata); diff != "" || err != nil {
		t.Errorf("%s, %v", diff, err)
	}
	empty, _ := create(t, m, apikey.Key{Metadata: map[string]string{}, Scopes: []string{}, AllowedNetworks: []netip.Prefix{}})
	if empty.Metadata != nil || empty.Scopes != nil || empty.AllowedNetworks != nil {
		t.Errorf("%+v", empty)
	}
}

// A field that is added to Key must have a bound, or must be set by the Manager alone.
func TestTheBoundsCoverEveryField(t *testing.T) {
	k, set := largest(), []string{"ID", "Prefix", "LastFour", "CreatedAt", "CreatedBy", "UpdatedAt", "RevokedAt", "LastUsedAt", "LastUsedFrom", "Parent", "Line", "ReplacedBy", "Revision", "DisabledBy", "DerivedFrom"}
	v := reflect.ValueOf(k)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		alone := false
		for _, s := range set {
			alone = alone || s == name
		}
		if v.Field(i).IsZero() != alone {
			t.Errorf("%s has no value at its bound", name)
		}
	}
}
