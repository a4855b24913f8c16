package apikey_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// A textStore fails on text that databases do not accept, as PostgreSQL does.
type textStore struct{ apikey.Store }

func (s *textStore) check(id string) error {
	if !utf8.ValidString(id) || strings.ContainsRune(id, 0) || len(id) > 2700 {
		return errors.New("invalid byte sequence for encoding UTF8")
	}
	return nil
}

func (s *textStore) Find(ctx context.Context, owner, id string) (apikey.Record, error) {
	if err := s.check(id); err != nil {
		return apikey.Record{}, err
	}
	return s.Store.Find(ctx, owner, id)
}

func (s *textStore) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	if err := s.check(id); err != nil {
		return apikey.Record{}, err
	}
	return s.Store.Revoke(ctx, owner, id, at)
}

// An ID that a client invents never causes a failure of the store: many failures would
// make the store count as down, and nobody could revoke a key.
func TestInventedIDsDoNotMakeTheStoreCountAsDown(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{
		Store:   &textStore{apikey.NewMemory()},
		OnError: func(_ context.Context, err error) { t.Error(err) },
	}, apikey.HandlerConfig{})
	id, _ := c.create(`{"name":"x"}`)
	m := newManager(t, apikey.ManagerConfig{Store: c.store})
	for _, bad := range []string{"%00", "%ff", "a%c0%80", strings.Repeat("a", 5000)} {
		for range 5 {
			for method, want := range map[string]int{http.MethodGet: 404, http.MethodDelete: 404} {
				if got, body := c.do(method, "/"+bad, ""); got != want {
					t.Fatalf("%s %.10s: %d %v", method, bad, got, body)
				}
			}
			if got, body := c.do(http.MethodPatch, "/"+bad, `{"name":"y"}`); got != 404 {
				t.Fatalf("PATCH %.10s: %d %v", bad, got, body)
			}
		}
	}
	if got, body := c.do(http.MethodDelete, "/"+id, ""); got != 204 {
		t.Errorf("the revocation of a key: %d %v", got, body)
	}
	for range 20 {
		if _, err := m.Revoke(t.Context(), apikey.Actor{Principal: &usher.Principal{Owner: "ann", Kind: usher.KindJWT}}, "ann", "\xff"); !errors.Is(err, apikey.ErrNotFound) {
			t.Fatal(err)
		}
	}
}

// An ID that no key can have never reaches the store at all.
func TestAnIDIsMadeOf64LettersDigitsAndMarks(t *testing.T) {
	s := &misbehaving{Store: apikey.NewMemory(), instead: func(context.Context) {}}
	m := newManager(t, apikey.ManagerConfig{Store: s})
	long := strings.Repeat("a", apikey.MaxID)
	for id, calls := range map[string]int64{
		long: 1, "Az09-_": 1, long + "a": 0, "": 0, "a.b": 0, "a/b": 0, "a b": 0, "\u00e4": 0, "a\x00": 0, "%": 0,
	} {
		before := s.calls.Load()
		if _, err := m.Find(t.Context(), "ann", id); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
		if n := s.calls.Load() - before; n != calls {
			t.Errorf("%q: %d calls of the store, want %d", id, n, calls)
		}
	}
}
