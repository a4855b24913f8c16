package apikey_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/apikey"
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
			both := newFromManager(t, apikey.Config{Manager: m, Formats: []apikey.Format{native}})
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

func TestWhatAManagerStatesIsNotStatedTwice(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	_, err := apikey.New(apikey.Config{
		Manager: m, Store: apikey.NewMemory(), Peppers: []apikey.Pepper{{}}, Formats: []apikey.Format{nil},
	})
	got := fieldsOf(err)
	for _, field := range []string{"Store", "Peppers", "Formats[0]"} {
		if !got["apikey.Config."+field] {
			t.Errorf("%s is accepted beside a Manager: %v", field, err)
		}
	}
	if len(got) != 3 {
		t.Errorf("faults %v", got)
	}
	_, err = apikey.New(apikey.Config{})
	if got := fieldsOf(err); len(got) != 2 || !got["apikey.Config.Store"] || !got["apikey.Config.Formats"] {
		t.Errorf("neither a Manager nor a store: %v", err)
	}
}

func TestAnAuthenticatorHasTheStoreTimeoutOfItsManagerUnlessItHasItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFaultyStore()
		m := newManager(t, apikey.ManagerConfig{Store: s, StoreTimeout: 2 * time.Second})
		s.Set(func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() })
		for own, want := range map[time.Duration]time.Duration{0: 2 * time.Second, time.Second: time.Second} {
			a := newFromManager(t, apikey.Config{Manager: m, StoreTimeout: own, LastUseInterval: -1})
			start := time.Now()
			_, err := a.Authenticate(request("X-API-Key", generate(t, native, "")))
			if took := time.Since(start); !errors.Is(err, guard.ErrTimeout) || took != want {
				t.Errorf("own timeout %v: %v after %v, want %v", own, err, took, want)
			}
		}
	})
}
