package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
)

var server = apikey.Actor{System: true}

func newManager(t testing.TB, c apikey.ManagerConfig) *apikey.Manager {
	t.Helper()
	if c.Store == nil {
		c.Store = apikey.NewMemory()
	}
	if c.Format == nil && c.Formats == nil {
		c.Format = native
	}
	m, err := apikey.NewManager(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func create(t testing.TB, m *apikey.Manager, template apikey.Key) (apikey.Key, string) {
	t.Helper()
	if template.Owner == "" {
		template.Owner = "ann"
	}
	if template.Name == "" {
		template.Name = "a key"
	}
	k, secret, err := m.Create(t.Context(), server, template)
	if err != nil {
		t.Fatal(err)
	}
	return k, secret.Reveal()
}

func fieldsOf(errs error) map[string]bool {
	fields := map[string]bool{}
	var walk func(error)
	walk = func(err error) {
		var all interface{ Unwrap() []error }
		if errors.As(err, &all) {
			for _, err := range all.Unwrap() {
				walk(err)
			}
			return
		}
		if e, ok := errors.AsType[*usher.ConfigError](err); ok {
			fields[e.Field] = true
		}
	}
	walk(errs)
	return fields
}

func TestManagerReportsAllFaultsAtOnce(t *testing.T) {
	_, err := apikey.NewManager(apikey.ManagerConfig{
		MaxActive: -1, MinName: 9, MaxName: 8, MaxGrace: -2, MaxLifetime: -1, MaxTotal: -1, MaxDerived: -1, MaxDerivedLifetime: 1,
		Format:  apikey.Native{Prefix: "a-b", Environments: []string{"x", "x"}},
		Peppers: []apikey.Pepper{{Version: 1, Key: apikey.NewSecret(strings.Repeat("k", 31))}, {Version: 1}, {Version: 0, Key: apikey.NewSecret(strings.Repeat("k", 32))}},
	})
	want := map[string]bool{}
	for _, f := range []string{"Store", "MaxActive", "MaxName", "MaxGrace", "MaxLifetime", "MaxTotal", "MaxDerived", "MaxDerivedLifetime", "Format.Prefix", "Format.Environments[1]", "Peppers[0].Key", "Peppers[1].Version", "Peppers[2].Version"} {
		want["apikey.ManagerConfig."+f] = true
	}
	if diff := compare.Diff(want, fieldsOf(err)); diff != "" {
		t.Error(diff)
	}
}

func TestNamesAreAtMost255Characters(t *testing.T) {
	for most, ok := range map[int]bool{apikey.MaxName: true, apikey.MaxName + 1: false} {
		_, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: native, MaxName: most})
		if (err == nil) != ok {
			t.Errorf("%d: %v", most, err)
		}
	}
}

func TestWeakKeysCannotBeIssued(t *testing.T) {
	for _, test := range []struct {
		name    string
		format  apikey.Format
		visible int
		ok      bool
	}{
		{"Kynetra's 16 characters hold 96 bits", apikey.Opaque{Prefix: "sk", Environments: []string{"prod"}, Length: 16}, 0, false},
		{"21 characters hold 126 bits", apikey.Opaque{Prefix: "sk", Length: 21}, 0, false},
		{"22 characters hold 132 bits", apikey.Opaque{Prefix: "sk", Length: 22}, 0, true},
		{"plain keys are never issued", apikey.Plain{}, 0, false},
		{"no format", nil, 0, false},
		{"InsiteChat shows 8 characters", opaque, 8, true},
		{"nearly all is shown", opaque, 40, false},
		{"more is shown than there is", opaque, 400, false},
		{"a negative number is shown", opaque, -1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: test.format, Visible: test.visible})
			if (err == nil) != test.ok {
				t.Errorf("NewManager: %v", err)
			}
		})
	}
}

func TestACreatedKeyIsStoredWithoutItsText(t *testing.T) {
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store})
	want := apikey.Key{
		Owner: "ann", Name: "ci", Scopes: []string{"read"}, Level: usher.LevelReadOnly, Plan: "pro",
		Environment: "test", ExpiresAt: time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond), Revision: 1,
	}
	k, secret, err := m.Create(t.Context(), server, want)
	if err != nil {
		t.Fatal(err)
	}
	text := secret.Reveal()
	want.ID, want.CreatedAt, want.UpdatedAt, want.CreatedBy = k.ID, k.CreatedAt, k.CreatedAt, "system"
	want.Prefix, want.LastFour = text[:14], text[len(text)-4:]
	if diff := compare.Diff(want, k); diff != "" {
		t.Error(diff)
	}
	h, err := m.Hash(apikey.NewSecret(text))
	if err != nil {
		t.Fatal(err)
	}
	r, err := store.Lookup(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if diff := compare.Diff(k, r.Key); diff != "" {
		t.Error(diff)
	}
	if shown := fmt.Sprintf("%+v %#v", r, k); strings.Contains(shown, text[14:len(text)-4]) {
		t.Errorf("the record shows the key: %s", shown)
	}
}

func TestVisibleCharactersAreConfigurable(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{Format: opaque, Visible: 8})
	if k, text := create(t, m, apikey.Key{}); k.Prefix != text[:8] {
		t.Errorf("prefix %q of %q, want 8 characters", k.Prefix, text)
	}
}

// At least 112 bits stay hidden: of the 43 characters of a Native key 4 are always visible
// at the start and 4 at the end, and 16 more may be.
func TestVisibleCharactersLeave112BitsHidden(t *testing.T) {
	usual := len("shop_live_") + 4
	for visible, ok := range map[int]bool{usual: true, usual + 16: true, usual + 17: false} {
		_, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: native, Visible: visible})
		if (err == nil) != ok {
			t.Errorf("%d visible characters: %v", visible, err)
		}
	}
}

// An ownFormat generates the same text always.
type ownFormat struct {
	text    string
	visible int
	parses  bool
}

func (f ownFormat) Parse(string) (string, int, bool)           { return "", f.visible, f.parses }
func (ownFormat) Prefixes() []string                           { return nil }
func (ownFormat) Entropy() int                                 { return 256 }
func (f ownFormat) Generate(io.Reader, string) (string, error) { return f.text, nil }

func TestAFormatThatDoesNotParseItsKeysIssuesNone(t *testing.T) {
	long := strings.Repeat("k", 257)
	for name, test := range map[string]struct {
		format ownFormat
		ok     bool
	}{
		"a usual key":                       {ownFormat{long[:40], 4, true}, true},
		"the longest key":                   {ownFormat{long[:256], 4, true}, true},
		"the longest prefix":                {ownFormat{long[:256], apikey.MaxPrefix, true}, true},
		"a key that it does not parse":      {ownFormat{long[:40], 4, false}, false},
		"a key beyond the longest":          {ownFormat{long, 4, true}, false},
		"a key with less than is displayed": {ownFormat{"key", 0, true}, false},
		"more visible than there is":        {ownFormat{long[:40], 41, true}, false},
		"a prefix beyond the longest":       {ownFormat{long[:256], apikey.MaxPrefix + 1, true}, false},
		"a key that is no text":             {ownFormat{"\xff\xff\xff\xff\xff", 4, true}, false},
	} {
		store := apikey.NewMemory()
		m := newManager(t, apikey.ManagerConfig{Store: store, Format: test.format})
		if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
		if _, total, err := m.List(t.Context(), "ann", 0, 1); err != nil || (total == 1) != test.ok {
			t.Errorf("%s: %d keys, %v", name, total, err)
		}
	}
}

// Of a longer text only the beginning would be hashed, so two keys would be one.
func TestAFormatOfTheApplicationParsesNoLongText(t *testing.T) {
	s := newScripted(t, 0)
	a := newAuthenticator(t, apikey.ManagerConfig{Store: s, Formats: []apikey.Format{ownFormat{parses: true}}}, apikey.Config{})
	for n, want := range map[int]apikey.Verdict{256: apikey.Unknown, 257: apikey.Malformed} {
		if _, err := a.Authenticate(request("X-API-Key", strings.Repeat("k", n))); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", n, err, want)
		}
	}
	if n := s.lookups.Load(); n != 1 {
		t.Errorf("%d lookups, want 1", n)
	}
}

func TestNoKeyIsIssuedWithoutRandomness(t *testing.T) {
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store})
	k, _ := create(t, m, apikey.Key{})
	m.SetRandom(failingReader{})
	if _, secret, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); err == nil || secret.Reveal() != "" {
		t.Errorf("Create: %v", err)
	}
	if _, secret, err := m.Rotate(t.Context(), server, "ann", k.ID, 0); err == nil || secret.Reveal() != "" {
		t.Errorf("Rotate: %v", err)
	}
	if _, total, err := m.List(t.Context(), "ann", 0, 10); err != nil || total != 1 {
		t.Errorf("%d keys, %v", total, err)
	}
	if got, err := m.Find(t.Context(), "ann", k.ID); err != nil || got.ReplacedBy != "" {
		t.Errorf("the old key: %+v, %v", got, err)
	}
}

func TestParallelCreatesAtACapOf5LeaveExactly5ActiveKeys(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{MaxActive: 5, Store: newCache(t, apikey.CacheConfig{Store: apikey.NewMemory()})})
	var wg sync.WaitGroup
	errs := make([]error, 100)
	for i := range errs {
		wg.Go(func() {
			_, _, errs[i] = m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"})
		})
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		switch {
		case err == nil:
			made++
		case !errors.Is(err, apikey.ErrLimit):
			t.Error(err)
		}
	}
	keys, total, err := m.List(t.Context(), "ann", 0, 100)
	if err != nil || made != 5 || total != 5 {
		t.Fatalf("%d made, %d kept, %v; want 5", made, total, err)
	}
	// IC-13: a revoked key makes room for one.
	if _, err := m.Revoke(t.Context(), server, "ann", keys[0].ID); err != nil {
		t.Fatal(err)
	}
	create(t, m, apikey.Key{Owner: "ann"})
	if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); !errors.Is(err, apikey.ErrLimit) {
		t.Errorf("a sixth: %v", err)
	}
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*usher.Error](err); ok {
		return e.Status
	}
	return 0
}

func TestAKeyGrantsOnlyWhatItsCreatorHolds(t *testing.T) {
	creator := apikey.Actor{Principal: &usher.Principal{
		ID: "u1", Owner: "ann", Scopes: []string{"read", "write"}, Level: usher.LevelReadWrite, Plan: "free", Environment: "test",
	}}
	for _, test := range []struct {
		name   string
		key    apikey.Key
		status int
	}{
		{"all that it holds", apikey.Key{Scopes: []string{"read", "write"}, Level: usher.LevelReadWrite, Plan: "free", Environment: "test"}, 0},
		{"nothing", apikey.Key{Environment: "test"}, 0},
		{"another scope", apikey.Key{Scopes: []string{"read", "admin"}, Environment: "test"}, 403},
		{"a higher level", apikey.Key{Level: usher.LevelFull, Environment: "test"}, 403},
		{"another plan", apikey.Key{Plan: "enterprise", Environment: "test"}, 403},
		{"another environment", apikey.Key{Environment: "live"}, 403},
		{"the usual environment, which is not its own", apikey.Key{}, 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newManager(t, apikey.ManagerConfig{})
			test.key.Name = "x"
			k, _, err := m.Create(t.Context(), creator, test.key)
			if got := statusOf(err); got != test.status || (err == nil) != (test.status == 0) {
				t.Errorf("Create: %v, want status %d", err, test.status)
			}
			if err == nil && (k.Owner != "ann" || k.Plan != "free") {
				t.Errorf("owner %q, plan %q", k.Owner, k.Plan)
			}
		})
	}
}

func TestNothingIsGrantedByDefault(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, _, err := m.Create(t.Context(), apikey.Actor{Principal: &usher.Principal{ID: "u1", Owner: "ann", Scopes: []string{"all"}, Level: usher.LevelFull}}, apikey.Key{Name: "x"})
	if err != nil || len(k.Scopes) != 0 || k.Level != usher.LevelNone || k.Owner != "ann" {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestSettingsAreValidated(t *testing.T) {
	for _, test := range []struct {
		name  string
		key   apikey.Key
		field string // empty if it is valid
		text  string
	}{
		{"KS-15 empty name", apikey.Key{Name: ""}, "name", "'name' must have a minimum length of 1. Current length is 0."},
		{"KS-15 81 characters", apikey.Key{Name: strings.Repeat("é", 81)}, "name", "'name' must have a maximum length of 80. Current length is 81."},
		{"KS-14 80 characters", apikey.Key{Name: strings.Repeat("é", 80)}, "", ""},
		{"KS-14 1 character", apikey.Key{Name: "x"}, "", ""},
		{"a line end in the name", apikey.Key{Name: "a\nb"}, "name", "'name' must not contain control characters or invisible characters."},
		{"invalid UTF-8 in the name", apikey.Key{Name: "a\xffb"}, "name", "'name' must not contain control characters or invisible characters."},
		{"a scope with a blank", apikey.Key{Name: "x", Scopes: []string{"a b"}}, "scopes", ""},
		{"an empty scope", apikey.Key{Name: "x", Scopes: []string{""}}, "scopes", ""},
		{"a long scope", apikey.Key{Name: "x", Scopes: []string{strings.Repeat("a", 129)}}, "scopes", ""},
		{"a level that does not exist", apikey.Key{Name: "x", Level: 9}, "level", ""},
		{"an expiry in the past", apikey.Key{Name: "x", ExpiresAt: time.Now().Add(-time.Second)}, "expires_at", ""},
		{"an unknown environment", apikey.Key{Name: "x", Environment: "prod"}, "environment", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.key.Owner = "ann"
			_, _, err := newManager(t, apikey.ManagerConfig{}).Create(t.Context(), server, test.key)
			if test.field == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *usher.Error
			if !errors.As(err, &e) || e.Status != 400 || len(e.Fields) != 1 || e.Fields[0].Name != test.field {
				t.Fatalf("%v", err)
			}
			if test.text != "" && e.Fields[0].Message != test.text {
				t.Errorf("message %q, want %q", e.Fields[0].Message, test.text)
			}
		})
	}
	var scopes []string
	for i := range 101 {
		scopes = append(scopes, fmt.Sprint(i))
	}
	m := newManager(t, apikey.ManagerConfig{})
	if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x", Scopes: scopes}); statusOf(err) != 400 {
		t.Errorf("101 scopes: %v", err)
	}
	if k, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x", Scopes: []string{"b", "a", "b"}}); err != nil || !compare.Equal(k.Scopes, []string{"b", "a"}) {
		t.Errorf("repeated scopes: %v, %v", k.Scopes, err)
	}
	if _, _, err := m.Create(t.Context(), server, apikey.Key{Name: "x"}); err == nil {
		t.Error("a key without an owner")
	}
}

func TestRotationCopiesTheSettingsAndKeepsTheOldKeyForItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{})
		start := time.Now().UTC()
		old, text := create(t, m, apikey.Key{
			Name: "ci", Scopes: []string{"read"}, Level: usher.LevelReadOnly, Plan: "pro", Environment: "test", ExpiresAt: start.Add(48 * time.Hour),
		})
		time.Sleep(time.Minute)
		next, secret, err := m.Rotate(t.Context(), server, "ann", old.ID, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		want := old
		now := start.Add(time.Minute)
		want.ID, want.Prefix, want.LastFour = next.ID, secret.Reveal()[:14], secret.Reveal()[len(text)-4:]
		want.CreatedAt, want.UpdatedAt, want.Parent, want.Line = now, now, old.ID, old.ID
		if diff := compare.Diff(want, next); diff != "" {
			t.Errorf("the new key: %s", diff)
		}
		if next.ID == old.ID || secret.Reveal() == text || !strings.HasPrefix(secret.Reveal(), "shop_test_") {
			t.Errorf("the new key is the old one, or has another prefix")
		}
		got, err := m.Find(t.Context(), "ann", old.ID)
		if err != nil {
			t.Fatal(err)
		}
		old.ExpiresAt, old.UpdatedAt, old.ReplacedBy, old.Revision = now.Add(time.Hour), now, next.ID, 2
		if diff := compare.Diff(old, got); diff != "" {
			t.Errorf("the old key: %s", diff)
		}
		if _, _, err := m.Rotate(t.Context(), server, "ann", old.ID, time.Hour); !errors.Is(err, apikey.ErrConflict) {
			t.Errorf("second rotation: %v", err)
		}
		if _, err := m.Update(t.Context(), server, "ann", old.ID, func(k *apikey.Key) { k.ExpiresAt = time.Time{} }); !errors.Is(err, apikey.ErrConflict) {
			t.Errorf("longer lifetime for a replaced key: %v", err)
		}
	})
}

func TestRotationNeverExtendsTheExpiry(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, _ := create(t, m, apikey.Key{ExpiresAt: time.Now().Add(time.Minute)})
	next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	old, err := m.Find(t.Context(), "ann", k.ID)
	if err != nil || !old.ExpiresAt.Equal(k.ExpiresAt) || !next.ExpiresAt.Equal(k.ExpiresAt) {
		t.Errorf("expiry %v, then %v and %v", k.ExpiresAt, old.ExpiresAt, next.ExpiresAt)
	}
}

func TestRotationIsBounded(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{MaxActive: 2, MaxGrace: time.Hour})
	k, _ := create(t, m, apikey.Key{})
	create(t, m, apikey.Key{})
	for _, grace := range []time.Duration{-1, time.Hour + 1} {
		if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, grace); statusOf(err) != 400 {
			t.Errorf("grace %v: %v", grace, err)
		}
	}
	// At the cap of active keys, rotation still works; but only as many old keys
	// may remain valid.
	for range 2 {
		next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		k = next
	}
	if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour); !errors.Is(err, apikey.ErrLimit) {
		t.Errorf("a third old key: %v", err)
	}
	if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, 0); err != nil {
		t.Errorf("without grace: %v", err)
	}
}

// A caller that rotates a key gets the text of one that grants the same.
func TestRotationNeedsWhatTheKeyGrants(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, _ := create(t, m, apikey.Key{Scopes: []string{"admin"}, Level: usher.LevelFull})
	weak := apikey.Actor{Principal: &usher.Principal{ID: "u1", Owner: "ann", Scopes: []string{"admin"}, Level: usher.LevelReadOnly}}
	if _, _, err := m.Rotate(t.Context(), weak, "ann", k.ID, 0); statusOf(err) != 403 {
		t.Errorf("Rotate: %v", err)
	}
	if got, err := m.Find(t.Context(), "ann", k.ID); err != nil || !compare.Equal(got, k) {
		t.Errorf("the key has changed: %+v, %v", got, err)
	}
}

func TestUpdateNeverWidensBeyondTheActor(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	weak := apikey.Actor{Principal: &usher.Principal{ID: "u1", Owner: "ann", Plan: "free"}}
	holder := apikey.Actor{Principal: &usher.Principal{ID: "u2", Owner: "ann", Plan: "free", Scopes: []string{"b", "a"}, Level: usher.LevelReadWrite}}
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	for _, test := range []struct {
		name   string
		change func(*apikey.Key)
		status int
	}{
		{"another name", func(k *apikey.Key) { k.Name = "new" }, 0},
		{"one scope less", func(k *apikey.Key) { k.Scopes = k.Scopes[:1] }, 0},
		{"a lower level", func(k *apikey.Key) { k.Level = usher.LevelReadOnly }, 0},
		{"a sooner end", func(k *apikey.Key) { k.ExpiresAt = k.ExpiresAt.Add(-time.Minute) }, 0},
		{"a scope more", func(k *apikey.Key) { k.Scopes = append(k.Scopes, "c") }, 403},
		{"a higher level", func(k *apikey.Key) { k.Level = usher.LevelFull }, 403},
		{"a later end", func(k *apikey.Key) { k.ExpiresAt = k.ExpiresAt.Add(time.Minute) }, 0},
		{"no end", func(k *apikey.Key) { k.ExpiresAt = time.Time{} }, 0},
		{"another plan", func(k *apikey.Key) { k.Plan = "pro" }, 403},
		{"an end in the past", func(k *apikey.Key) { k.ExpiresAt = time.Now().Add(-time.Minute) }, 400},
		{"no name", func(k *apikey.Key) { k.Name = "" }, 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			k, _ := create(t, m, apikey.Key{Scopes: []string{"a", "b"}, Level: usher.LevelReadWrite, Plan: "free", ExpiresAt: expires})
			if _, err := m.Update(t.Context(), weak, "ann", k.ID, test.change); statusOf(err) != 403 {
				t.Errorf("Update by one who holds nothing: %v, want status 403", err)
			}
			got, err := m.Update(t.Context(), holder, "ann", k.ID, test.change)
			if statusOf(err) != test.status || (err == nil) != (test.status == 0) {
				t.Fatalf("Update: %v, want status %d", err, test.status)
			}
			stored, findErr := m.Find(t.Context(), "ann", k.ID)
			if findErr != nil {
				t.Fatal(findErr)
			}
			want := k
			if err == nil {
				want = got
				if got.Revision != 2 || got.UpdatedAt.Before(k.UpdatedAt) {
					t.Errorf("revision %d, updated at %v", got.Revision, got.UpdatedAt)
				}
			}
			if diff := compare.Diff(want, stored); diff != "" {
				t.Error(diff)
			}
			if _, err := m.Revoke(t.Context(), server, "ann", k.ID); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestUpdateIgnoresWhatCannotBeChanged(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, text := create(t, m, apikey.Key{})
	got, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) {
		*k = apikey.Key{Name: "new", ID: "other", Owner: "bob", Prefix: text, LastFour: text, Environment: "test", RevokedAt: time.Now(), Revision: 99}
	})
	want := k
	want.Name, want.Revision, want.UpdatedAt = "new", 2, got.UpdatedAt
	if diff := compare.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestParallelUpdatesAllHappen(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, _ := create(t, m, apikey.Key{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			_, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.Scopes = append(k.Scopes, fmt.Sprint(i)) })
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := m.Find(t.Context(), "ann", k.ID); err != nil || len(got.Scopes) != 4 {
		t.Errorf("scopes %v, %v; want all four", got.Scopes, err)
	}
}

// A change is tried again while others change the key, and a bounded number of times.
func TestAChangeIsTriedFiveTimes(t *testing.T) {
	for conflicts, want := range map[int]error{4: nil, 5: apikey.ErrConflict} {
		s := &contended{Store: apikey.NewMemory()}
		m := newManager(t, apikey.ManagerConfig{Store: s})
		k, _ := create(t, m, apikey.Key{})
		s.conflicts = conflicts
		if _, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.Name = "new" }); !errors.Is(err, want) {
			t.Errorf("%d conflicts: %v, want %v", conflicts, err, want)
		}
		s.conflicts = conflicts
		if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, 0); !errors.Is(err, want) {
			t.Errorf("rotation with %d conflicts: %v, want %v", conflicts, err, want)
		}
	}
}

// contended is a store whose keys were changed by others until a moment ago.
type contended struct {
	apikey.Store
	conflicts int
}

func (s *contended) conflict() bool { s.conflicts--; return s.conflicts >= 0 }

func (s *contended) Update(ctx context.Context, r apikey.Record) error {
	if s.conflict() {
		return apikey.ErrConflict
	}
	return s.Store.Update(ctx, r)
}

func (s *contended) Rotate(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
	if s.conflict() {
		return apikey.ErrConflict
	}
	return s.Store.Rotate(ctx, old, next, limits)
}

func TestTheKeyInPlaceOfAnotherWasNeverUsed(t *testing.T) {
	m, store := newManagerOn(t)
	k, _ := create(t, m, apikey.Key{})
	use := apikey.Use{At: time.Now().UTC(), From: netip.MustParseAddr("192.0.2.1")}
	if err := store.Touch(t.Context(), map[string]apikey.Use{k.ID: use}); err != nil {
		t.Fatal(err)
	}
	next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour)
	if err != nil || !next.LastUsedAt.IsZero() || next.LastUsedFrom.IsValid() || !next.RevokedAt.IsZero() || next.ReplacedBy != "" {
		t.Errorf("%+v, %v", next, err)
	}
}

// A time is cut to whole microseconds: rounding up would prolong a key.
func TestTimesAreCutToMicroseconds(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	k, _ := create(t, m, apikey.Key{ExpiresAt: end.Add(time.Microsecond - 1)})
	if !k.ExpiresAt.Equal(end) {
		t.Errorf("expires at %v, want %v", k.ExpiresAt, end)
	}
}

func TestRevokedAndExpiredKeysCannotBeChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{})
		revoked, _ := create(t, m, apikey.Key{})
		expired, _ := create(t, m, apikey.Key{ExpiresAt: time.Now().Add(time.Minute)})
		if _, err := m.Revoke(t.Context(), server, "ann", revoked.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for _, k := range []apikey.Key{revoked, expired} {
			if _, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.ExpiresAt = time.Time{} }); !errors.Is(err, apikey.ErrConflict) {
				t.Errorf("Update: %v", err)
			}
			if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, 0); !errors.Is(err, apikey.ErrConflict) {
				t.Errorf("Rotate: %v", err)
			}
		}
	})
}

func TestRevokingTwiceChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{})
		k, _ := create(t, m, apikey.Key{})
		first, err := m.Revoke(t.Context(), server, "ann", k.ID)
		if err != nil || !first.RevokedAt.Equal(time.Now()) {
			t.Fatalf("%v, %v", first.RevokedAt, err)
		}
		time.Sleep(time.Hour)
		if again, err := m.Revoke(t.Context(), server, "ann", k.ID); err != nil || !compare.Equal(again, first) {
			t.Errorf("again: %+v, %v", again, err)
		}
	})
}

func TestKeysOfOtherOwnersDoNotExist(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, _ := create(t, m, apikey.Key{})
	for _, id := range []string{k.ID, "unknown", ""} {
		_, findErr := m.Find(t.Context(), "bob", id)
		_, updateErr := m.Update(t.Context(), server, "bob", id, func(*apikey.Key) {})
		_, _, rotateErr := m.Rotate(t.Context(), server, "bob", id, 0)
		_, revokeErr := m.Revoke(t.Context(), server, "bob", id)
		for _, err := range []error{findErr, updateErr, rotateErr, revokeErr} {
			if !errors.Is(err, apikey.ErrNotFound) || err.Error() != apikey.ErrNotFound.Error() {
				t.Errorf("%q: %v", id, err)
			}
		}
	}
}

func TestImportedKeysAreFoundByTheirHash(t *testing.T) {
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store, Format: native, Formats: []apikey.Format{apikey.Plain{}}})
	const text = "legacy-key-0123456789"
	h, err := m.Hash(apikey.NewSecret(text))
	if err != nil {
		t.Fatal(err)
	}
	k, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "old", Prefix: "legacy-k", LastFour: "6789", Environment: "live"}, h)
	if err != nil {
		t.Fatal(err)
	}
	auth := newAuthenticator(t, apikey.ManagerConfig{Store: store, Formats: []apikey.Format{native, apikey.Plain{}}}, apikey.Config{})
	p, err := auth.Authenticate(request("X-Api-Key", text))
	if err != nil || p.ID != k.ID {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "again"}, h); !errors.Is(err, apikey.ErrConflict) {
		t.Errorf("twice: %v", err)
	}
	h[0] = 3
	if _, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}, h); err == nil {
		t.Error("a hash with a pepper that is not configured")
	}
	for _, text := range []string{"", strings.Repeat("a", apikey.MaxLength+1)} {
		if _, err := m.Hash(apikey.NewSecret(text)); err == nil {
			t.Errorf("hash of %d bytes", len(text))
		}
	}
}

func TestEveryChangeIsAudited(t *testing.T) {
	var events []apikey.Event
	m := newManager(t, apikey.ManagerConfig{MaxActive: 1, Audit: func(_ context.Context, e apikey.Event) { events = append(events, e) }})
	by := apikey.Actor{Principal: &usher.Principal{ID: "u1", Owner: "ann", Scopes: []string{"a"}}, Address: netip.MustParseAddr("192.0.2.1")}
	k, secret, err := m.Create(t.Context(), by, apikey.Key{Name: "x", Scopes: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	_, _, limitErr := m.Create(t.Context(), by, apikey.Key{Name: "y"})
	_, updateErr := m.Update(t.Context(), by, "ann", k.ID, func(k *apikey.Key) { k.Name = "z" })
	next, nextSecret, rotateErr := m.Rotate(t.Context(), by, "ann", k.ID, 0)
	_, revokeErr := m.Revoke(t.Context(), by, "ann", next.ID)
	_, importErr := m.Import(t.Context(), by, apikey.Key{Name: "old"}, apikey.Hash{1: 7})
	_, missingErr := m.Revoke(t.Context(), by, "ann", "unknown")
	if updateErr != nil || rotateErr != nil || revokeErr != nil || importErr != nil || limitErr == nil || missingErr == nil {
		t.Fatal(updateErr, rotateErr, revokeErr, importErr, limitErr, missingErr)
	}
	want := []struct {
		action  string
		verdict apikey.Verdict
	}{
		{"create", apikey.Accepted}, {"create", apikey.Denied}, {"update", apikey.Accepted}, {"rotate", apikey.Accepted},
		{"revoke", apikey.Accepted}, {"import", apikey.Accepted}, {"revoke", apikey.Denied},
	}
	if len(events) != len(want) {
		t.Fatalf("%d events, want %d", len(events), len(want))
	}
	for i, e := range events {
		if e.Action != want[i].action || e.Verdict != want[i].verdict || e.Owner != "ann" || (e.KeyID == "") != (i == 1) ||
			e.Actor != by || e.Time.IsZero() || (e.Err == nil) != (e.Verdict == apikey.Accepted) {
			t.Errorf("event %d: %+v", i, e)
		}
		for _, s := range []apikey.Secret{secret, nextSecret} {
			if shown := fmt.Sprintf("%+v %#v", e, e); strings.Contains(shown, s.Reveal()[14:]) {
				t.Errorf("event %d shows the key", i)
			}
		}
	}
}
