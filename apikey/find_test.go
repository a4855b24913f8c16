package apikey_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

func TestAKeyIsFoundByItsTextUnderAnyPepper(t *testing.T) {
	pepper := func(version uint8) apikey.Pepper {
		return apikey.Pepper{Version: version, Key: apikey.NewSecret(strings.Repeat("p", 32))}
	}
	store := apikey.NewMemory()
	first, old := create(t, newManager(t, apikey.ManagerConfig{Store: store}), apikey.Key{})
	m := newManager(t, apikey.ManagerConfig{Store: store, Peppers: []apikey.Pepper{{}, pepper(1), pepper(2)}})
	second, text := create(t, m, apikey.Key{})
	for text, want := range map[string]string{old: first.ID, text: second.ID} {
		if k, err := m.FindByText(t.Context(), apikey.NewSecret(text)); err != nil || k.ID != want {
			t.Errorf("%q, %v, want %q", k.ID, err, want)
		}
	}
	if _, err := m.Revoke(t.Context(), server, second.Owner, second.ID); err != nil {
		t.Fatal(err)
	}
	if k, err := m.FindByText(t.Context(), apikey.NewSecret(text)); err != nil || k.RevokedAt.IsZero() {
		t.Errorf("a revoked key: %+v, %v", k, err)
	}
	for _, text := range []string{"", generate(t, native, ""), "x", strings.Repeat("x", 257), text[:len(text)-1], text + "x"} {
		if _, err := m.FindByText(t.Context(), apikey.NewSecret(text)); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := m.FindByText(t.Context(), apikey.Secret{}); !errors.Is(err, apikey.ErrNotFound) {
		t.Error(err)
	}
}

// A leaked key of another system is revoked before it is ever used here.
func TestAKeyOfAnotherSystemIsFoundByItsText(t *testing.T) {
	old := newOldSystem()
	a, m := newNode(t, old, apikey.ManagerConfig{})
	text := old.issue(t, apikey.Key{})
	k, err := m.FindByText(t.Context(), apikey.NewSecret(text))
	if err != nil || k.Owner != "ann" {
		t.Fatalf("%+v, %v", k, err)
	}
	if _, err := m.Revoke(t.Context(), server, k.Owner, k.ID); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, a, text, apikey.Revoked)
	old.wantCalls(t, 2, 1)
	if _, err := m.FindByText(t.Context(), apikey.NewSecret(generate(t, oldFormat, ""))); !errors.Is(err, apikey.ErrNotFound) {
		t.Error(err)
	}
}

// A cache may not know yet that another node has issued or revoked the key.
func TestAKeyIsFoundByItsTextAtItsPresentState(t *testing.T) {
	store := newFaultyStore()
	here := newManager(t, apikey.ManagerConfig{Store: newCache(t, apikey.CacheConfig{Store: store})})
	k, text := create(t, newManager(t, apikey.ManagerConfig{Store: store}), apikey.Key{})
	auth := usher.Must(apikey.New(apikey.Config{Manager: here, LastUseInterval: -1}))
	wantVerdict(t, auth, text, apikey.Accepted)
	if _, err := newManager(t, apikey.ManagerConfig{Store: store}).Revoke(t.Context(), server, k.Owner, k.ID); err != nil {
		t.Fatal(err)
	}
	if k, err := here.FindByText(t.Context(), apikey.NewSecret(text)); err != nil || k.RevokedAt.IsZero() {
		t.Errorf("%+v, %v", k, err)
	}
}

// A failure is never ErrNotFound, so that no leaked key counts as harmless.
func TestAFailureToFindAKeyByItsTextIsReported(t *testing.T) {
	down := errors.New("down")
	for name, spoil := range map[string]func(*oldSystem, *lookupFails){
		"the store fails": func(_ *oldSystem, s *lookupFails) { s.err = down },
		"Find fails":      func(old *oldSystem, _ *lookupFails) { old.beforeFind = func() error { return down } },
		"Verify panics":   func(old *oldSystem, _ *lookupFails) { old.beforeVerify = func() error { panic("oops") } },
	} {
		t.Run(name, func(t *testing.T) {
			old, store, reported := newOldSystem(), &lookupFails{Memory: apikey.NewMemory()}, 0
			_, m := newNode(t, old, apikey.ManagerConfig{Store: store, OnError: func(context.Context, error) { reported++ }})
			text := old.issue(t, apikey.Key{})
			spoil(old, store)
			if _, err := m.FindByText(t.Context(), apikey.NewSecret(text)); err == nil || errors.Is(err, apikey.ErrNotFound) || reported != 1 {
				t.Errorf("%v, reported %d times", err, reported)
			}
		})
	}
}

type lookupFails struct {
	*apikey.Memory
	err error
}

func (s *lookupFails) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	if s.err != nil {
		return apikey.Record{}, s.err
	}
	return s.Memory.Lookup(ctx, h)
}
