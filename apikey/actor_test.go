package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
)

// If a policy refuses a setting for a new key, no change or rotation can set it either.
func TestAPolicyHoldsForEveryChange(t *testing.T) {
	const day = 24 * time.Hour
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{
		Store: store, MaxLifetime: 90 * day, MaxLevel: usher.LevelReadOnly,
		Change: func(_ context.Context, _ apikey.Actor, _, k *apikey.Key) error {
			if len(k.Scopes) > 1 {
				return &usher.Error{Status: 422, Code: "one_scope"}
			}
			return nil
		},
	})
	c := newWire(t, apikey.HandlerConfig{Manager: m, Level: usher.LevelFull, Scopes: []string{"a", "b"}, DefaultLevel: usher.LevelReadOnly},
		&usher.Principal{ID: "u1", Owner: "ann", Kind: usher.KindJWT})
	status, v := c.do("POST", "/", `{"name":"x","scopes":["a"]}`)
	if status != 201 || member(v, "key", "level") != "read_only" || member(v, "key", "expires_at") == nil {
		t.Fatalf("create: %d %v", status, v)
	}
	id := member(v, "key", "id").(string)
	far := time.Now().Add(91 * day).Format(time.RFC3339)
	for _, test := range []struct {
		name, body string
		status     int
		fields     string
	}{
		{"without an end and with every right", `{"expires_at":null,"level":"full"}`, 400, "level expires_at"},
		{"without an end", `{"expires_at":null}`, 400, "expires_at"},
		{"with a later end", `{"expires_at":"` + far + `"}`, 400, "expires_at"},
		{"with a higher level", `{"level":"read_write"}`, 400, "level"},
		{"with what the hook refuses", `{"scopes":["a","b"]}`, 422, ""},
	} {
		if status, v := c.do("PATCH", "/"+id, test.body); status != test.status || invalidFields(v) != test.fields {
			t.Errorf("a key %s: %d %v", test.name, status, v)
		}
		if test.name == "without an end" {
			continue // which is no fault of a new key: it gets the latest end
		}
		if status, v := c.do("POST", "/", `{"name":"y",`+test.body[1:]); status != test.status && test.status == 422 || status == 201 {
			t.Errorf("a new key %s: %d %v", test.name, status, v)
		}
	}
	if list := c.list(); len(list) != 1 || member(list[0], "level") != "read_only" || compare.Diff(member(list[0], "scopes"), []any{"a"}) != "" {
		t.Errorf("%v", list)
	}

	// A key that is older than the policy.
	strong, _ := create(t, newManager(t, apikey.ManagerConfig{Store: store}), apikey.Key{Level: usher.LevelFull, Scopes: []string{"a"}})
	if status, v := c.do("POST", "/"+strong.ID+"/rotate", ""); status != 400 || invalidFields(v) != "level" {
		t.Errorf("rotation of a key above the highest level: %d %v", status, v)
	}
	if status, v := c.do("PATCH", "/"+strong.ID, `{"name":"z"}`); status != 200 {
		t.Errorf("its new name: %d %v", status, v)
	}
	if status, v := c.do("PATCH", "/"+strong.ID, `{"level":"read_only"}`); status != 200 {
		t.Errorf("its lower level: %d %v", status, v)
	}
	if status, v := c.do("POST", "/"+strong.ID+"/rotate", ""); status != 201 || member(v, "key", "expires_at") == nil {
		t.Errorf("its rotation then: %d %v", status, v)
	}
}

func TestChangeGetsOldAndNewAndMaySetTheNew(t *testing.T) {
	type change struct {
		old, k        string
		sameID, fresh bool
	}
	var seen []change
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store, Change: func(_ context.Context, by apikey.Actor, old, k *apikey.Key) error {
		c := change{k: k.Name, fresh: old == nil}
		if old != nil {
			c.old, c.sameID = old.Name, old.ID == k.ID
			old.Name, old.Scopes[0] = "spoiled", "spoiled"
		}
		seen = append(seen, c)
		if !by.System {
			t.Errorf("by %+v", by)
		}
		k.Scopes[0] = "altered"
		*k = apikey.Key{Name: k.Name + "!", Scopes: k.Scopes, ID: "forged", Owner: "bob", Revision: 7, Environment: "test"}
		return nil
	}})
	k, _ := create(t, m, apikey.Key{Name: "a", Scopes: []string{"s"}})
	imported, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "b", Scopes: []string{"s"}}, apikey.Hash{1: 1})
	if err != nil {
		t.Fatal(err)
	}
	updated, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.Name = "c" })
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want := []change{{"", "a", false, true}, {"", "b", false, true}, {"a!", "c", true, false}, {"c!", "c!", false, false}}
	if diff := compare.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
	for name, k := range map[string]apikey.Key{"a!": k, "b!": imported, "c!": updated, "c!!": next} {
		if k.Name != name || k.Owner != "ann" || k.ID == "forged" || k.Environment != "test" || k.Scopes[0] != "altered" {
			t.Errorf("%s: %+v", name, k)
		}
	}
	if old, err := m.Find(t.Context(), "ann", k.ID); err != nil || old.Name != "c!" || old.Scopes[0] != "altered" {
		t.Errorf("the old key: %+v, %v", old, err)
	}

	// What the hook makes of a key is checked like everything else.
	wrong := newManager(t, apikey.ManagerConfig{Store: store, Change: func(_ context.Context, _ apikey.Actor, _, k *apikey.Key) error {
		k.Level = usher.LevelFull
		return nil
	}})
	by := apikey.Actor{Principal: &usher.Principal{ID: "u1", Owner: "ann", Scopes: []string{"altered"}}}
	if _, _, err := wrong.Create(t.Context(), by, apikey.Key{Name: "x"}); statusOf(err) != 403 {
		t.Errorf("Create: %v", err)
	}
	if _, _, err := wrong.Rotate(t.Context(), by, "ann", next.ID, 0); statusOf(err) != 403 {
		t.Errorf("Rotate: %v", err)
	}
}

// If the server does not set the principal, the actor must not be allowed everything.
func TestAnActorWithoutAnAccountMayDoNothing(t *testing.T) {
	for name, by := range map[string]apikey.Actor{
		"the zero value":                      {},
		"an address only":                     {Address: netip.MustParseAddr("192.0.2.1")},
		"no principal":                        {Principal: nil},
		"the zero principal":                  {Principal: new(usher.Principal)},
		"a principal whose ID is the owner's": {Principal: &usher.Principal{ID: "ann", Kind: usher.KindOAuth, Level: usher.LevelFull}},
		"a key without an owner":              {Principal: &usher.Principal{ID: "ann", Kind: usher.KindAPIKey, Level: usher.LevelFull}},
		"a key that does not exist":           {Principal: &usher.Principal{ID: "k", Owner: "ann", Kind: usher.KindAPIKey, Level: usher.LevelFull}},
	} {
		t.Run(name, func(t *testing.T) {
			store := apikey.NewMemory()
			m := newManager(t, apikey.ManagerConfig{Store: store})
			k, _ := create(t, m, apikey.Key{})
			_, secret, createErr := m.Create(t.Context(), by, apikey.Key{Owner: "ann", Name: "x"})
			_, ownErr := m.Import(t.Context(), by, apikey.Key{Name: "x"}, apikey.Hash{1: 1})
			_, updateErr := m.Update(t.Context(), by, "ann", k.ID, func(k *apikey.Key) { k.Name = "y" })
			_, next, rotateErr := m.Rotate(t.Context(), by, "ann", k.ID, 0)
			_, revokeErr := m.Revoke(t.Context(), by, "ann", k.ID)
			for name, err := range map[string]error{"Create": createErr, "Import": ownErr, "Update": updateErr, "Rotate": rotateErr, "Revoke": revokeErr} {
				if statusOf(err) != 403 {
					t.Errorf("%s: %v", name, err)
				}
			}
			if secret.Reveal() != "" || next.Reveal() != "" {
				t.Error("the text of a key is returned")
			}
			if keys, total, err := m.List(t.Context(), "ann", 0, 9); err != nil || total != 1 || !compare.Equal(keys[0], k) {
				t.Errorf("%+v, %v", keys, err)
			}
		})
	}
}

// Owner and ID are separate namespaces: the caller's ID is never used as an owner unless
// the configuration allows it.
func TestTheIDOfACallerIsNoOwner(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, _ := create(t, m, apikey.Key{Owner: "acme", Level: usher.LevelFull})
	config := apikey.HandlerConfig{Manager: m, IDIsOwner: []usher.Kind{usher.KindJWT}, Level: usher.LevelFull}
	for _, test := range []struct {
		name   string
		caller usher.Principal
		status int
		keys   int
	}{
		{"a client whose ID is the owner's name", usher.Principal{ID: "acme", Kind: usher.KindOAuth}, 403, 0},
		{"a sender whose ID is the owner's name", usher.Principal{ID: "acme", Kind: usher.KindWebhook}, 403, 0},
		{"a kind of the application", usher.Principal{ID: "acme", Kind: "mine"}, 403, 0},
		{"no principal at all", usher.Principal{Kind: usher.KindJWT}, 403, 0},
		{"another account", usher.Principal{ID: "acme", Owner: "other", Kind: usher.KindJWT}, 200, 0},
		{"a session of the account", usher.Principal{ID: "acme", Kind: usher.KindJWT}, 200, 1},
		{"a client of the account", usher.Principal{ID: "c", Owner: "acme", Kind: usher.KindOAuth}, 200, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newWire(t, config, &test.caller)
			status, v := c.do("GET", "/", "")
			if status != test.status || len(asList(v)) != test.keys {
				t.Errorf("list: %d %v", status, v)
			}
			want := test.status
			if want == 200 && test.keys == 0 {
				want = 404
			}
			if status, v := c.do("GET", "/"+k.ID, ""); status != want {
				t.Errorf("find: %d %v", status, v)
			}
			if status, v := c.do("PATCH", "/"+k.ID, `{"name":"y"}`); status != want {
				t.Errorf("update: %d %v", status, v)
			}
		})
	}
}

// Code that passes a Manager the owner from a request must not hand out the keys of
// another account.
func TestTheOwnerIsTheActorsOwn(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	victims, _ := create(t, m, apikey.Key{Owner: "victim"})
	by := apikey.Actor{Principal: &usher.Principal{ID: "u1", Owner: "acme", Level: usher.LevelFull}}
	if _, secret, err := m.Create(t.Context(), by, apikey.Key{Owner: "victim", Name: "x"}); statusOf(err) != 403 || secret.Reveal() != "" {
		t.Errorf("Create: %v", err)
	}
	if _, err := m.Import(t.Context(), by, apikey.Key{Owner: "victim", Name: "x"}, apikey.Hash{1: 1}); statusOf(err) != 403 {
		t.Errorf("Import: %v", err)
	}
	_, secret, rotateErr := m.Rotate(t.Context(), by, "victim", victims.ID, 0)
	_, updateErr := m.Update(t.Context(), by, "victim", victims.ID, func(k *apikey.Key) { k.Name = "y" })
	_, revokeErr := m.Revoke(t.Context(), by, "victim", victims.ID)
	_, absentErr := m.Revoke(t.Context(), by, "victim", "absent")
	for name, err := range map[string]error{"Rotate": rotateErr, "Update": updateErr, "Revoke": revokeErr, "Revoke of nothing": absentErr} {
		if !errors.Is(err, apikey.ErrNotFound) || secret.Reveal() != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := m.Find(t.Context(), "victim", victims.ID); err != nil || !compare.Equal(got, victims) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A caller that lacks a right cannot remove it from other keys either.
func TestACallerCannotChangeAKeyThatGrantsMore(t *testing.T) {
	for name, caller := range map[string]usher.Principal{
		"no rights at all":    {},
		"a lower level":       {Level: usher.LevelReadWrite, Scopes: []string{"admin"}},
		"another scope":       {Level: usher.LevelFull, Scopes: []string{"read"}},
		"no scopes":           {Level: usher.LevelFull},
		"another environment": {Level: usher.LevelFull, Scopes: []string{"admin"}, Environment: "test"},
	} {
		for _, kind := range []usher.Kind{usher.KindJWT, usher.KindAPIKey} {
			t.Run(name+" of a "+string(kind), func(t *testing.T) {
				m := newManager(t, apikey.ManagerConfig{})
				strong, _ := create(t, m, apikey.Key{Level: usher.LevelFull, Scopes: []string{"admin"}, Environment: "live"})
				own, _ := create(t, m, apikey.Key{Level: caller.Level, Scopes: caller.Scopes, Environment: caller.Environment})
				caller := caller
				caller.ID, caller.Owner, caller.Kind = own.ID, "ann", kind
				c := newWire(t, apikey.HandlerConfig{Manager: m, DangerouslyAcceptAPIKeys: true}, &caller)
				for _, call := range []struct{ method, target, body string }{
					{"DELETE", "", ""}, {"POST", "/rotate", ""}, {"PATCH", "", `{"level":"none"}`}, {"PATCH", "", `{"scopes":[]}`},
					{"PATCH", "", `{"name":"y"}`}, {"PATCH", "", `{"expires_at":"` + time.Now().Add(time.Hour).Format(time.RFC3339) + `"}`},
				} {
					if status, v := c.do(call.method, "/"+strong.ID+call.target, call.body); status != 403 {
						t.Errorf("%s %s: %d %v", call.method, call.body, status, v)
					}
				}
				if got, err := m.Find(t.Context(), "ann", strong.ID); err != nil || !compare.Equal(got, strong) {
					t.Errorf("%+v, %v", got, err)
				}
				if status, v := c.do("DELETE", "/"+own.ID, ""); status != 204 {
					t.Errorf("its own key: %d %v", status, v)
				}
			})
		}
	}
}

// The usual case: sessions have neither a level nor scopes.
func TestSessionsManageTheKeysOfTheirAccount(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	leaked, _ := create(t, m, apikey.Key{Owner: "ann", Level: usher.LevelFull, Scopes: []string{"admin"}})
	c := newWire(t, apikey.HandlerConfig{
		Manager: m, IDIsOwner: []usher.Kind{usher.KindJWT}, Level: usher.LevelFull, Scopes: []string{"read", "admin"},
	}, &usher.Principal{ID: "ann", Kind: usher.KindJWT})
	if status, v := c.do("POST", "/", `{"name":"x","level":"read_write","scopes":["read"]}`); status != 201 {
		t.Errorf("create: %d %v", status, v)
	}
	if status, v := c.do("PATCH", "/"+leaked.ID, `{"level":"read_only"}`); status != 200 {
		t.Errorf("update: %d %v", status, v)
	}
	if status, v := c.do("DELETE", "/"+leaked.ID, ""); status != 204 {
		t.Errorf("revoke: %d %v", status, v)
	}
	if status, v := c.do("POST", "/", `{"name":"x","scopes":["unknown"]}`); status != 403 {
		t.Errorf("a scope that is not the service's: %d %v", status, v)
	}
	if status, v := c.do("POST", "/", `{"name":"x","level":"none"}`); status != 201 || member(v, "key", "level") != "none" {
		t.Errorf("no level, as requested: %d %v", status, v)
	}
}

// What HandlerConfig adds is for people, not for keys.
func TestAKeyGetsNothingFromTheConfigurationForSessions(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	own, _ := create(t, m, apikey.Key{Level: usher.LevelReadOnly})
	c := newWire(t, apikey.HandlerConfig{Manager: m, DangerouslyAcceptAPIKeys: true, Level: usher.LevelFull, Scopes: []string{"admin"}},
		&usher.Principal{ID: own.ID, Owner: "ann", Kind: usher.KindAPIKey, Level: usher.LevelReadOnly})
	for _, body := range []string{`{"name":"x","level":"read_write"}`, `{"name":"x","scopes":["admin"]}`} {
		if status, v := c.do("POST", "/", body); status != 403 {
			t.Errorf("%s: %d %v", body, status, v)
		}
	}
}

// The cache of another node still has the key as it was.
func TestAKeyCannotGrantWhatItHasLost(t *testing.T) {
	for name, narrow := range map[string]func(*apikey.Key){
		"its level":     func(k *apikey.Key) { k.Level = usher.LevelReadOnly },
		"a scope":       func(k *apikey.Key) { k.Scopes = []string{"read"} },
		"all, and more": func(k *apikey.Key) { k.Level, k.Scopes, k.Name = usher.LevelNone, nil, "y" },
	} {
		t.Run(name, func(t *testing.T) {
			store := apikey.NewMemory()
			elsewhere := newManager(t, apikey.ManagerConfig{Store: store})
			// The store is not a Notifier.
			cache := newCache(t, apikey.CacheConfig{Store: silent{store}})
			auth := newAuthenticator(t, apikey.ManagerConfig{Store: cache}, apikey.Config{})
			h, err := apikey.NewHandler(apikey.HandlerConfig{
				Manager: newManager(t, apikey.ManagerConfig{Store: cache}), DangerouslyAcceptAPIKeys: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewServer(usher.Authenticate(auth).Wrap(h))
			t.Cleanup(srv.Close)
			k, text := create(t, elsewhere, apikey.Key{Level: usher.LevelFull, Scopes: []string{"read", "admin"}})
			other, _ := create(t, elsewhere, apikey.Key{Level: usher.LevelFull, Scopes: []string{"read", "admin"}})
			want := func(status int, method, target, body string) {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+target, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("X-API-Key", text)
				r.Header.Set("Content-Type", "application/json")
				resp, err := srv.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != status {
					t.Errorf("%s %s: %d, want %d", method, target, resp.StatusCode, status)
				}
			}
			const all = `{"name":"x","level":"full","scopes":["read","admin"]}`
			want(201, "POST", "/", all)
			if _, err := elsewhere.Update(t.Context(), server, "ann", k.ID, narrow); err != nil {
				t.Fatal(err)
			}
			want(409, "POST", "/", all)
			want(409, "POST", "/"+other.ID+"/rotate", "{}")
			want(409, "PATCH", "/"+other.ID, `{"name":"z"}`)
			want(409, "DELETE", "/"+other.ID, "")
			if list, _, err := elsewhere.List(t.Context(), "ann", 0, 10); err != nil || len(list) != 3 {
				t.Errorf("%d keys, %v", len(list), err)
			}
		})
	}
}

func TestAKeyThatAKeyCreatesDoesNotOutliveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{})
		end := time.Now().Add(time.Hour).UTC()
		own, _ := create(t, m, apikey.Key{ExpiresAt: end})
		other, _ := create(t, m, apikey.Key{})
		sooner, _ := create(t, m, apikey.Key{ExpiresAt: end.Add(-time.Minute)})
		// The principal does not have the expiry, and its Details may have any type.
		by := apikey.Actor{Principal: &usher.Principal{ID: own.ID, Owner: "ann", Kind: usher.KindAPIKey, Details: "own"}}
		ends := func(at time.Time) func(*apikey.Key) { return func(k *apikey.Key) { k.ExpiresAt = at } }
		createAt := func(at time.Time) error {
			_, _, err := m.Create(t.Context(), by, apikey.Key{Name: "x", ExpiresAt: at})
			return err
		}
		update := func(id string, at time.Time) error {
			_, err := m.Update(t.Context(), by, "ann", id, ends(at))
			return err
		}
		rotate := func(id string) error {
			_, _, err := m.Rotate(t.Context(), by, "ann", id, 0)
			return err
		}
		for _, test := range []struct {
			name   string
			err    error
			status int
		}{
			{"a new key without an end", createAt(time.Time{}), 403},
			{"a new key with a later end", createAt(end.Add(time.Microsecond)), 403},
			{"a new key with the same end", createAt(end), 0},
			{"its own key, without an end", update(own.ID, time.Time{}), 403},
			{"its own key, with a later end", update(own.ID, end.Add(time.Second)), 403},
			{"another key, extended to its own end", update(sooner.ID, end), 0},
			{"another key, extended beyond its own end", update(sooner.ID, end.Add(time.Second)), 403},
			{"the text of a key that expires later", rotate(other.ID), 403},
			{"a key without an end, given one", update(other.ID, end.Add(time.Hour)), 0},
			{"its own rotation", rotate(own.ID), 0},
			{"a new key, once its own has expired", createAt(end), 403},
		} {
			if statusOf(test.err) != test.status || (test.err == nil) != (test.status == 0) {
				t.Errorf("%s: %v, want %d", test.name, test.err, test.status)
			}
		}
	})
}

func TestAKeyThatIsRevokedManagesNothing(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	own, _ := create(t, m, apikey.Key{})
	by := apikey.Actor{Principal: &usher.Principal{ID: own.ID, Owner: "ann", Kind: usher.KindAPIKey}}
	if _, _, err := m.Create(t.Context(), by, apikey.Key{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Revoke(t.Context(), server, "ann", own.ID); err != nil {
		t.Fatal(err)
	}
	// A cache on another node may still admit the key.
	if _, _, err := m.Create(t.Context(), by, apikey.Key{Name: "y"}); statusOf(err) != 403 {
		t.Error(err)
	}
}

func TestGrantsOfTheHandlerAreValidated(t *testing.T) {
	_, err := apikey.NewHandler(apikey.HandlerConfig{
		Manager: newManager(t, apikey.ManagerConfig{MaxLevel: usher.LevelReadOnly}), DefaultLevel: usher.LevelReadWrite,
		IDIsOwner: []usher.Kind{usher.KindAPIKey}, Level: 9, Scopes: []string{"a b"},
	})
	want := map[string]bool{}
	for _, f := range []string{"DefaultLevel", "IDIsOwner", "Level", "Scopes"} {
		want["apikey.HandlerConfig."+f] = true
	}
	if diff := compare.Diff(want, fieldsOf(err)); diff != "" {
		t.Error(diff)
	}
	_, err = apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: native, MaxLevel: 9})
	if got := fmt.Sprint(err); got != "apikey.ManagerConfig.MaxLevel: must be a level" {
		t.Error(got)
	}
}
