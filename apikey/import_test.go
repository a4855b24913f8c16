package apikey_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

func TestAKeyIsImportedByItsText(t *testing.T) {
	plain := apikey.Plain{}
	short := apikey.Opaque{Prefix: "old", Environments: []string{"live"}, Length: 16}
	bare := apikey.Opaque{Prefix: "bare"}
	live, bareKey := generate(t, native, "live"), generate(t, bare, "")
	for name, tt := range map[string]struct {
		text, environment string
		want              apikey.Key // Environment, Prefix, LastFour
		ok                bool
	}{
		"of the format of new keys":       {live, "", apikey.Key{Environment: "live", Prefix: live[:14], LastFour: live[len(live)-4:]}, true},
		"of its environment":              {live, "live", apikey.Key{Environment: "live", Prefix: live[:14], LastFour: live[len(live)-4:]}, true},
		"of another environment":          {live, "test", apikey.Key{}, false},
		"without an environment":          {bareKey, "", apikey.Key{Prefix: bareKey[:9], LastFour: bareKey[len(bareKey)-4:]}, true},
		"with that of its record":         {bareKey, "test", apikey.Key{Environment: "test", Prefix: bareKey[:9], LastFour: bareKey[len(bareKey)-4:]}, true},
		"too short to show any of it":     {"old_live_0123456789abcdef", "", apikey.Key{Environment: "live", Prefix: "old_live_"}, true},
		"of a format that shows nothing":  {"0123456789abcdefghij", "live", apikey.Key{Environment: "live"}, true},
		"with a wrong checksum":           {live[:len(live)-1] + "!", "", apikey.Key{}, false},
		"that only a claimed prefix bars": {"shop_live_0123456789abcdefghij", "", apikey.Key{}, false},
		"of no format":                    {"short", "", apikey.Key{}, false},
		"of no length":                    {"", "", apikey.Key{}, false},
		"of any length":                   {strings.Repeat("k", 257), "", apikey.Key{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			store := apikey.NewMemory()
			keys := open(t, apikey.ManagerConfig{Store: store, Format: native, Formats: []apikey.Format{short, bare, plain}}, apikey.Config{})
			template := apikey.Key{Owner: "ann", Name: "first", Environment: tt.environment, Prefix: "not this", LastFour: "nor"}
			k, err := keys.Manager.ImportText(t.Context(), server, template, apikey.NewSecret(tt.text))
			if (err == nil) != tt.ok {
				t.Fatal(err)
			}
			if err != nil {
				if tt.text != "" && strings.Contains(err.Error(), tt.text) {
					t.Errorf("the error has the text: %v", err)
				}
				if _, n, _ := store.List(t.Context(), "ann", 0, 9); n != 0 {
					t.Errorf("%d keys are stored", n)
				}
				return
			}
			if k.Environment != tt.want.Environment || k.Prefix != tt.want.Prefix || k.LastFour != tt.want.LastFour {
				t.Errorf("key %+v, want %+v", k, tt.want)
			}
			if p, err := keys.Authenticator.Authenticate(request("X-API-Key", tt.text)); err != nil || p.ID != k.ID {
				t.Errorf("the key is not accepted: %v", err)
			}
		})
	}
}

// Every process of a service imports its first key at every start.
func TestTheFirstKeyIsImportedOnce(t *testing.T) {
	text := generate(t, native, "")
	old := apikey.Pepper{Version: 1, Key: apikey.NewSecret(strings.Repeat("1", 32))}
	next := apikey.Pepper{Version: 2, Key: apikey.NewSecret(strings.Repeat("2", 32))}
	synctest.Test(t, func(t *testing.T) {
		store := apikey.NewMemory()
		start := func(nodes int, peppers ...apikey.Pepper) (added int) {
			var mu sync.Mutex
			var all sync.WaitGroup
			for range nodes {
				all.Go(func() {
					keys := open(t, apikey.ManagerConfig{Store: silent{store}, Peppers: peppers, MaxActive: 1}, apikey.Config{LastUseInterval: -1})
					_, err := keys.Manager.ImportText(t.Context(), server, apikey.Key{Owner: "ops", Name: "first", ExpiresAt: time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)}, apikey.NewSecret(text))
					_, authErr := keys.Authenticator.Authenticate(request("X-API-Key", text))
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						added++
					case !errors.Is(err, apikey.ErrConflict):
						t.Error(err)
					}
					if authErr != nil && !errors.Is(authErr, apikey.Revoked) && !errors.Is(authErr, apikey.Expired) {
						t.Error(authErr)
					}
				})
			}
			all.Wait()
			return added
		}
		if n := start(16, old); n != 1 {
			t.Errorf("the first start added %d keys", n)
		}
		if n := start(4, old, next); n != 0 {
			t.Errorf("a start with a further pepper added %d keys", n)
		}
		k, _, err := store.List(t.Context(), "ops", 0, 9)
		if err != nil || len(k) != 1 {
			t.Fatalf("%d keys, %v", len(k), err)
		}
		if _, err := newManager(t, apikey.ManagerConfig{Store: store, Peppers: []apikey.Pepper{old}}).Revoke(t.Context(), server, "ops", k[0].ID); err != nil {
			t.Fatal(err)
		}
		if n := start(4, old, next); n != 0 {
			t.Errorf("a start after the revocation added %d keys", n)
		}
		time.Sleep(48 * time.Hour)
		if n := start(2, old); n != 0 {
			t.Errorf("a start after the expiry added %d keys", n)
		}
	})
}

// A cache may not know yet that another node has imported the text with an older pepper. If
// the text were imported again, it would survive the revocation of the first key.
func TestATextThatACacheDoesNotKnowYetIsImportedOnce(t *testing.T) {
	old := apikey.Pepper{Version: 1, Key: apikey.NewSecret(strings.Repeat("1", 32))}
	next := apikey.Pepper{Version: 2, Key: apikey.NewSecret(strings.Repeat("2", 32))}
	store, text := apikey.NewMemory(), apikey.NewSecret(generate(t, native, ""))
	template := apikey.Key{Owner: "ops", Name: "first"}
	keys := open(t, apikey.ManagerConfig{Store: silent{store}, Peppers: []apikey.Pepper{old, next}}, apikey.Config{LastUseInterval: -1})
	wantVerdict(t, keys.Authenticator, text.Reveal(), apikey.Unknown)
	if _, err := newManager(t, apikey.ManagerConfig{Store: store, Peppers: []apikey.Pepper{old}}).ImportText(t.Context(), server, template, text); err != nil {
		t.Fatal(err)
	}
	if k, err := keys.Manager.ImportText(t.Context(), server, template, text); !errors.Is(err, apikey.ErrConflict) {
		t.Errorf("imported again: %+v, %v", k, err)
	}
}

func TestImportTextObeysTheRulesOfImport(t *testing.T) {
	text := apikey.NewSecret(generate(t, native, ""))
	var events []apikey.Event
	m := newManager(t, apikey.ManagerConfig{
		Audit: func(_ context.Context, e apikey.Event) { events = append(events, e) },
		Change: func(_ context.Context, _ apikey.Actor, _, k *apikey.Key) error {
			if k.Name == "moved" {
				k.Environment = "test"
			}
			return nil
		},
	})
	weak := apikey.Actor{Principal: &usher.Principal{ID: "u", Owner: "bob"}}
	for name, tt := range map[string]struct {
		by       apikey.Actor
		template apikey.Key
		status   int // 0 for an error that is no response
	}{
		"no actor":                           {apikey.Actor{}, apikey.Key{Owner: "ann", Name: "x"}, 403},
		"the key of another account":         {weak, apikey.Key{Owner: "ann", Name: "x"}, 403},
		"a level that the actor lacks":       {weak, apikey.Key{Name: "x", Level: usher.LevelFull}, 403},
		"an invalid name":                    {server, apikey.Key{Owner: "ann"}, 400},
		"no owner":                           {server, apikey.Key{Name: "x"}, 0},
		"an environment that Change has set": {server, apikey.Key{Owner: "ann", Name: "moved"}, 0},
	} {
		if _, err := m.ImportText(t.Context(), tt.by, tt.template, text); err == nil || statusOf(err) != tt.status {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(events) != 6 {
		t.Errorf("%d events, want 6", len(events))
	}
	events = nil
	k, err := m.ImportText(t.Context(), weak, apikey.Key{Name: "x"}, text)
	if err != nil || k.Owner != "bob" {
		t.Errorf("key of %q, %v", k.Owner, err)
	}
	if len(events) != 1 || events[0].Action != "import" || events[0].KeyID != k.ID || events[0].Err != nil {
		t.Errorf("events %+v", events)
	}
}

// A store that fails is no reason to believe that the key is new.
func TestNoTextIsImportedWhileTheStoreFails(t *testing.T) {
	down := errors.New("down")
	s := newScripted(t, 0)
	s.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) { return apikey.Record{}, down }
	m := newManager(t, apikey.ManagerConfig{Store: s, OnError: func(context.Context, error) {}})
	if _, err := m.ImportText(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}, apikey.NewSecret(generate(t, native, ""))); !errors.Is(err, down) {
		t.Error(err)
	}
}

func TestAnImportShowsNoWholeKey(t *testing.T) {
	peppers := []apikey.Pepper{{}, {Version: 1, Key: apikey.NewSecret(strings.Repeat("1", 32))}}
	m := newManager(t, apikey.ManagerConfig{Formats: []apikey.Format{apikey.Plain{}}, Peppers: peppers})
	const text = "legacy-key-0123456789"
	h, err := m.Hash(apikey.NewSecret(text))
	if err != nil {
		t.Fatal(err)
	}
	unpeppered, err := newManager(t, apikey.ManagerConfig{}).Hash(apikey.NewSecret(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ prefix, lastFour string }{
		"the whole text":           {text, ""},
		"the whole text and more":  {text, "6789"},
		"two parts":                {text[:17], "6789"},
		"two parts that overlap":   {text[:18], "6789"},
		"two parts with one alike": {text[:20], "6789"},
	} {
		for _, h := range []apikey.Hash{h, unpeppered} {
			if _, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "x", Prefix: tt.prefix, LastFour: tt.lastFour}, h); err == nil || strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "x", Prefix: text[:16], LastFour: "6789"}, h); err != nil {
		t.Errorf("one character is hidden: %v", err)
	}
}

// A key that can never be accepted is a mistake that nobody would notice.
func TestAnImportHasAPrefixOfAFormat(t *testing.T) {
	with := func(formats ...apikey.Format) apikey.ManagerConfig { return apikey.ManagerConfig{Formats: formats} }
	split := apikey.Split{Prefix: "s"}
	opaque := apikey.Opaque{Prefix: "o", Length: 16}
	for name, tt := range map[string]struct {
		config apikey.ManagerConfig
		prefix string
		ok     bool
	}{
		"none":                                 {with(native), "", true},
		"that of the format":                   {with(native), "shop_live_", true},
		"and some of the body":                 {with(native), "shop_live_Ab0", true},
		"a part of it":                         {with(native), "sho", true},
		"another one":                          {with(native), "acme_", false},
		"another environment":                  {with(native), "shop_prod_", false},
		"with a character that no body has":    {with(native), "shop_live_a-", false},
		"with more than the body":              {with(native), "shop_live_" + strings.Repeat("a", 50), false},
		"anything, for Plain":                  {with(apikey.Plain{}), "acme-", true},
		"a character that Plain refuses":       {with(apikey.Plain{}), "a b", false},
		"longer than Plain allows":             {with(apikey.Plain{MaxLength: 16}), strings.Repeat("a", 17), false},
		"behind a format, for Plain":           {with(native, apikey.Plain{}), "acme-", true},
		"of a format, with Plain behind it":    {with(native, apikey.Plain{}), "shop_live_a-", false},
		"of an Opaque":                         {with(opaque), "o_a-_", true},
		"longer than an Opaque":                {with(opaque), "o_" + strings.Repeat("a", 17), false},
		"a character that no Opaque has":       {with(opaque), "o_a.", false},
		"of a Split":                           {with(split), "s_0123456789abcdef.", true},
		"with a part of its secret":            {with(split), "s_0123456789abcdef.ab", true},
		"with a dot elsewhere":                 {with(split), "s_0123.", false},
		"with a long identifier":               {with(split), "s_0123456789abcdefg", false},
		"with two dots":                        {with(split), "s_0123456789abcdef.a.b", false},
		"with a long secret":                   {with(split), "s_0123456789abcdef." + strings.Repeat("a", 44), false},
		"anything, for one of the application": {with(ownFormat{}), "a b", true},
	} {
		_, err := newManager(t, tt.config).Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "x", Prefix: tt.prefix}, apikey.Hash{1: 1})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
