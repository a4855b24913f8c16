package apikey_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/guard"
)

// newFromManager returns an Authenticator whose Config sets only Manager.
func newFromManager(t testing.TB, c apikey.Config) *apikey.Authenticator {
	t.Helper()
	a, err := apikey.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func TestAnAuthenticatorHasTheStoreFormatAndPeppersOfItsManager(t *testing.T) {
	peppers := []apikey.Pepper{
		{Version: 1, Key: apikey.NewSecret(strings.Repeat("1", 32))},
		{Version: 2, Key: apikey.NewSecret(strings.Repeat("2", 32))},
	}
	for stack, over := range stacks {
		t.Run(stack, func(t *testing.T) {
			store := over(t, newFaultyStore())
			before := newManager(t, apikey.ManagerConfig{Store: store, Peppers: peppers[:1]})
			_, old := create(t, before, apikey.Key{})
			m := newManager(t, apikey.ManagerConfig{Store: store, Peppers: peppers, Format: apikey.Opaque{Prefix: "own"}})
			k, text := create(t, m, apikey.Key{})
			a := newFromManager(t, apikey.Config{Manager: m})
			if p, err := a.Authenticate(request("X-API-Key", text)); err != nil || p.ID != k.ID {
				t.Errorf("a key of its Manager: %v", err)
			}
			if _, err := a.Authenticate(request("X-API-Key", old)); !errors.Is(err, apikey.Malformed) {
				t.Errorf("a key of another format: %v", err)
			}
			// A key that is older than the newest pepper is valid too, if its format is
			// set.
			both := newAuthenticator(t, apikey.ManagerConfig{
				Store: store, Peppers: peppers, Format: apikey.Opaque{Prefix: "own"}, Formats: []apikey.Format{native},
			}, apikey.Config{})
			for name, text := range map[string]string{"its own": text, "in addition": old} {
				if _, err := both.Authenticate(request("X-API-Key", text)); err != nil {
					t.Errorf("a key of a format that is %s: %v", name, err)
				}
			}
			// A cache cannot be bypassed.
			if _, err := m.Revoke(t.Context(), server, "ann", k.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Authenticate(request("X-API-Key", text)); !errors.Is(err, apikey.Revoked) {
				t.Errorf("a revoked key: %v", err)
			}
		})
	}
}

func TestAManagerIssuesOrAcceptsKeys(t *testing.T) {
	_, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory()})
	if got := fieldsOf(err); len(got) != 1 || !got["apikey.ManagerConfig.Format"] {
		t.Errorf("no format at all: %v", err)
	}
	if _, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Legacy: []apikey.Legacy{{
		Format: apikey.Plain{},
		Find: func(context.Context, apikey.Secret) (apikey.Key, string, error) {
			return apikey.Key{}, "", apikey.ErrNotFound
		},
		Verify: func(string, apikey.Secret) (bool, error) { return false, nil },
	}}}); err != nil {
		t.Errorf("the keys of another system alone: %v", err)
	}
	_, err = apikey.NewManager(apikey.ManagerConfig{
		Store:   apikey.NewMemory(),
		Formats: []apikey.Format{apikey.Opaque{Prefix: "", Length: 7}, nil, apikey.Plain{MinLength: 3}},
	})
	want := map[string]bool{}
	for _, f := range []string{"Formats[0].Prefix", "Formats[0].Length", "Formats[1]", "Formats[2].MinLength"} {
		want["apikey.ManagerConfig."+f] = true
	}
	if diff := compare.Diff(want, fieldsOf(err)); diff != "" {
		t.Error(diff)
	}
}

func TestAManagerWithoutAFormatIssuesNoKeys(t *testing.T) {
	store := apikey.NewMemory()
	k, text := create(t, newManager(t, apikey.ManagerConfig{Store: store}), apikey.Key{})
	var reported atomic.Int64
	m := newManager(t, apikey.ManagerConfig{
		Store: store, Formats: []apikey.Format{native},
		OnError: func(context.Context, error) { reported.Add(1) },
	})
	if _, err := newFromManager(t, apikey.Config{Manager: m}).Authenticate(request("X-API-Key", text)); err != nil {
		t.Errorf("a key of another Manager: %v", err)
	}
	if _, secret, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); err == nil || !strings.Contains(err.Error(), "Format") || secret.Reveal() != "" {
		t.Errorf("Create: %v", err)
	}
	if _, secret, err := m.Rotate(t.Context(), server, "ann", k.ID, 0); err == nil || !strings.Contains(err.Error(), "Format") || secret.Reveal() != "" {
		t.Errorf("Rotate: %v", err)
	}
	if n := reported.Load(); n != 2 {
		t.Errorf("OnError was called %d times, want 2", n)
	}
	if _, err := m.Revoke(t.Context(), server, "ann", k.ID); err != nil {
		t.Errorf("Revoke: %v", err)
	}
}

// A misspelled environment would refuse every key.
func TestTheEnvironmentIsOneOfAFormat(t *testing.T) {
	bare := apikey.Native{Prefix: "bare"}
	for name, tt := range map[string]struct {
		format      apikey.Format
		formats     []apikey.Format
		environment string
		ok          bool
	}{
		"any":                                 {native, nil, "", true},
		"the usual one":                       {native, nil, "live", true},
		"another one":                         {native, nil, "test", true},
		"none of them":                        {native, nil, "production", false},
		"in another case":                     {native, nil, "Live", false},
		"a part":                              {native, nil, "liv", false},
		"none of a Split":                     {apikey.Split{Prefix: "s", Environments: []string{"live"}}, nil, "production", false},
		"none of an Opaque":                   {apikey.Opaque{Prefix: "s", Environments: []string{"live"}}, nil, "production", false},
		"of a further format":                 {native, []apikey.Format{apikey.Split{Prefix: "s", Environments: []string{"production"}}}, "production", true},
		"a format without environments":       {bare, nil, "production", true},
		"a further format without any":        {native, []apikey.Format{apikey.Plain{}}, "production", true},
		"only a format that issues none":      {nil, []apikey.Format{apikey.Plain{}}, "production", true},
		"a format of the application":         {ownFormat{"0123456789abcdef", 4, true}, nil, "production", true},
		"none of a format of the application": {labelled{native}, nil, "production", false},
	} {
		m := newManager(t, apikey.ManagerConfig{Format: tt.format, Formats: tt.formats})
		a, err := apikey.New(apikey.Config{Manager: m, Environment: tt.environment})
		if got := fieldsOf(err); (err == nil) != tt.ok || err != nil && (len(got) != 1 || !got["apikey.Config.Environment"]) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			_ = a.Close()
		}
	}
}

// labelled is a format of an application that behaves like one of this package.
type labelled struct{ apikey.Format }

func TestAnAuthenticatorHasTheStoreTimeoutOfItsManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFaultyStore()
		s.Set(func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() })
		for own, want := range map[time.Duration]time.Duration{0: 3 * time.Second, time.Second: time.Second} {
			a := newAuthenticator(t, apikey.ManagerConfig{Store: s, StoreTimeout: own}, apikey.Config{LastUseInterval: -1})
			start := time.Now()
			_, err := a.Authenticate(request("X-API-Key", generate(t, native, "")))
			if took := time.Since(start); !errors.Is(err, guard.ErrTimeout) || took != want {
				t.Errorf("timeout %v: %v after %v, want %v", own, err, took, want)
			}
		}
	})
}
