package apikey_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/apikey"
)

// valid returns how many keys of ann are accepted at present.
func valid(t *testing.T, m *apikey.Manager) (n int) {
	t.Helper()
	keys, _, err := m.List(t.Context(), "ann", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.Active(time.Now()) {
			n++
		}
	}
	return n
}

func TestNoGraceEndsTheOldKeyAtOnce(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{MaxGrace: apikey.NoGrace})
	k, _ := create(t, m, apikey.Key{})
	for _, grace := range []time.Duration{1, time.Second, apikey.NoGrace} {
		if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, grace); statusOf(err) != 400 {
			t.Errorf("grace %v: %v", grace, err)
		}
	}
	if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, 0); err != nil {
		t.Fatal(err)
	}
	if n := valid(t, m); n != 1 {
		t.Errorf("%d valid keys, want 1", n)
	}
	if _, err := apikey.NewHandler(apikey.HandlerConfig{Manager: m, Grace: time.Second}); err == nil {
		t.Error("a handler has a grace by default that its manager forbids")
	}
}

// A grace that the store could not keep ends the key now, and not a moment later.
func TestAGraceIsWholeMicroseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{MaxActive: 1})
		k, _ := create(t, m, apikey.Key{})
		for _, grace := range []time.Duration{999, 1001} {
			next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, grace)
			if err != nil {
				t.Fatal(err)
			}
			old, err := m.Find(t.Context(), "ann", k.ID)
			if want := time.Now().Add(grace).Truncate(time.Microsecond); err != nil || !old.ExpiresAt.Equal(want) {
				t.Errorf("grace %v: until %v, want %v: %v", grace, old.ExpiresAt, want, err)
			}
			k = next
		}
	})
}

func TestReplacedKeysCanCountAsActive(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{MaxActive: 2, CountReplaced: true})
	k, _ := create(t, m, apikey.Key{})
	k, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); !errors.Is(err, apikey.ErrLimit) {
		t.Errorf("Create beside a replaced key: %v", err)
	}
	if _, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}, apikey.Hash{1: 1}); !errors.Is(err, apikey.ErrLimit) {
		t.Errorf("Import beside a replaced key: %v", err)
	}
	if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour); !errors.Is(err, apikey.ErrLimit) {
		t.Errorf("Rotate with a grace beside a replaced key: %v", err)
	}
	if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, 0); err != nil {
		t.Errorf("Rotate without a grace: %v", err)
	}
	if n := valid(t, m); n != 2 {
		t.Errorf("%d valid keys, want 2", n)
	}
}

func TestReplacedKeysCountExactlyUnderConcurrency(t *testing.T) {
	const most = 5
	m := newManager(t, apikey.ManagerConfig{MaxActive: most, CountReplaced: true})
	first, _ := create(t, m, apikey.Key{})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if i%2 == 0 {
				_, _, _ = m.Create(context.Background(), server, apikey.Key{Owner: "ann", Name: "x"})
				return
			}
			_, _, _ = m.Rotate(context.Background(), server, "ann", first.ID, time.Hour)
		})
	}
	all.Wait()
	if n := valid(t, m); n != most {
		t.Errorf("%d valid keys, want %d", n, most)
	}
}

// An owner cannot fill the store by creating and revoking keys in turn.
func TestTheKeysThatAreStoredOfAnOwnerAreBounded(t *testing.T) {
	for _, test := range []struct {
		name   string
		config apikey.ManagerConfig
		most   int
	}{
		{"as configured", apikey.ManagerConfig{MaxActive: 2, MaxTotal: 7}, 7},
		{"a hundred times MaxActive by default", apikey.ManagerConfig{MaxActive: 2}, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, test.config)
				for i := range test.most - 1 {
					k, _ := create(t, m, apikey.Key{})
					if i%2 == 0 {
						_, err := m.Revoke(t.Context(), server, "ann", k.ID)
						if err != nil {
							t.Fatal(err)
						}
						continue
					}
					if _, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.ExpiresAt = time.Now().Add(time.Second) }); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				k, _ := create(t, m, apikey.Key{})
				if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); !errors.Is(err, apikey.ErrFull) || errors.Is(err, apikey.ErrLimit) {
					t.Errorf("Create: %v", err)
				}
				if _, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}, apikey.Hash{1: 1}); !errors.Is(err, apikey.ErrFull) {
					t.Errorf("Import: %v", err)
				}
				for _, grace := range []time.Duration{0, time.Hour} {
					if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, grace); !errors.Is(err, apikey.ErrFull) {
						t.Errorf("Rotate with grace %v: %v", grace, err)
					}
				}
				create(t, m, apikey.Key{Owner: "bob"})
				if n, err := m.Purge(t.Context(), server, time.Now(), 1); n != 1 || err != nil {
					t.Fatalf("Purge: %d, %v", n, err)
				}
				if _, _, err := m.Rotate(t.Context(), server, "ann", k.ID, 0); err != nil {
					t.Errorf("Rotate after a purge: %v", err)
				}
			})
		})
	}
	if _, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: native, MaxActive: 5, MaxTotal: 4}); !fieldsOf(err)["apikey.ManagerConfig.MaxTotal"] {
		t.Errorf("MaxTotal below MaxActive: %v", err)
	}
}
