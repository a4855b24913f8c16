package apikey_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// plainStore is a Store and no Admin.
type plainStore struct{ apikey.Store }

// line returns the IDs of a line of n keys, the oldest first. All of them are valid.
func line(t *testing.T, m *apikey.Manager, n int) (ids []string) {
	t.Helper()
	k, _ := create(t, m, apikey.Key{Scopes: []string{"a"}})
	ids = append(ids, k.ID)
	for range n - 1 {
		next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		k, ids = next, append(ids, next.ID)
	}
	return ids
}

func idsOf(keys []apikey.Key) (ids []string) {
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestALineIsRevokedFromAnyOfItsKeys(t *testing.T) {
	for i := range 4 {
		for name, by := range map[string]apikey.Actor{"the server": server, "a person": person("")} {
			var events []apikey.Event
			m := newManager(t, apikey.ManagerConfig{
				Store: plainStore{apikey.NewMemory()},
				Audit: func(_ context.Context, e apikey.Event) { events = append(events, e) },
			})
			ids := line(t, m, 4)
			others := line(t, m, 2)
			child, _, err := m.Derive(t.Context(), server, "ann", others[1], apikey.Key{Name: "x"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Revoke(t.Context(), server, "ann", ids[1]); err != nil {
				t.Fatal(err)
			}
			events = nil
			keys, err := m.RevokeLine(t.Context(), by, "ann", ids[i])
			if want := slices.Sorted(slices.Values(ids)); err != nil || !slices.Equal(idsOf(keys), want) {
				t.Errorf("%s, key %d: %v, %v; want %v", name, i, idsOf(keys), err, want)
			}
			for _, id := range ids {
				if k, err := m.Find(t.Context(), "ann", id); err != nil || k.RevokedAt.IsZero() {
					t.Errorf("%s, key %d: %s is not revoked: %v", name, i, id, err)
				}
			}
			for _, id := range append(others, child.ID) {
				if k, err := m.Find(t.Context(), "ann", id); err != nil || !k.RevokedAt.IsZero() {
					t.Errorf("%s, key %d: a key of another line is revoked: %v", name, i, err)
				}
			}
			if len(events) != 3 {
				t.Errorf("%s, key %d: %d events, want one for each of 3 keys", name, i, len(events))
			}
			for _, e := range events {
				if e.Action != "revoke_line" || e.Before == nil || !e.Before.RevokedAt.IsZero() || e.After == nil || e.After.RevokedAt.IsZero() || e.After.ID != e.KeyID {
					t.Errorf("%s, key %d: %+v", name, i, e)
				}
			}
			again, err := m.RevokeLine(t.Context(), by, "ann", ids[i])
			if err != nil || !slices.Equal(idsOf(again), idsOf(keys)) || len(events) != 3 {
				t.Errorf("%s, key %d, again: %d keys, %d events, %v", name, i, len(again), len(events), err)
			}
		}
	}
}

// A purge leaves gaps in a line, which hide none of its keys.
func TestALineWithGapsIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{})
		ids := line(t, m, 5)
		for _, id := range []string{ids[1], ids[3]} {
			if _, err := m.Revoke(t.Context(), server, "ann", id); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if n, err := m.Purge(t.Context(), server, time.Now(), 10); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		for _, id := range []string{ids[1], "unknown", ""} {
			if keys, err := m.RevokeLine(t.Context(), server, "ann", id); !errors.Is(err, apikey.ErrNotFound) || keys != nil {
				t.Errorf("%q: %v, %v", id, keys, err)
			}
		}
		if keys, err := m.RevokeLine(t.Context(), server, "ann", ids[4]); err != nil || len(keys) != 3 {
			t.Errorf("%d keys, %v; want 3", len(keys), err)
		}
		if n := valid(t, m); n != 0 {
			t.Errorf("%d keys remain valid", n)
		}
	})
}

// An actor revokes a line only if it could revoke each of its keys that has not ended.
func TestALineIsRevokedOnlyByThoseWhoHoldWhatItGrants(t *testing.T) {
	weak := apikey.Actor{Principal: &usher.Principal{ID: "u2", Kind: usher.KindJWT, Owner: "ann", Scopes: []string{"a"}}}
	m := newManager(t, apikey.ManagerConfig{})
	k, _ := create(t, m, apikey.Key{Scopes: []string{"a", "b"}})
	next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Update(t.Context(), server, "ann", next.ID, func(k *apikey.Key) { k.Scopes = []string{"a"} }); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		by     apikey.Actor
		owner  string
		status int
	}{
		"who lacks a scope":  {weak, "ann", 403},
		"of another account": {apikey.Actor{Principal: &usher.Principal{ID: "u3", Owner: "bob"}}, "ann", -1},
		"who is nobody":      {apikey.Actor{}, "ann", 403},
		"for another owner":  {server, "bob", -1},
	} {
		_, err := m.RevokeLine(t.Context(), test.by, test.owner, next.ID)
		if test.status > 0 && statusOf(err) != test.status || test.status < 0 && !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := valid(t, m); n != 2 {
		t.Errorf("%d valid keys, want 2", n)
	}
	// Nobody loses a key that has ended.
	if _, err := m.Revoke(t.Context(), server, "ann", k.ID); err != nil {
		t.Fatal(err)
	}
	if keys, err := m.RevokeLine(t.Context(), weak, "ann", next.ID); err != nil || len(keys) != 2 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// beforeRevoke runs a function before each revocation.
type beforeRevoke struct {
	*apikey.Memory
	do func(id string)
}

func (s *beforeRevoke) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	s.do(id)
	return s.Memory.Revoke(ctx, owner, id, at)
}

// Whenever a rotation comes, its new key is revoked too.
func TestNoRotationEscapesTheRevocationOfItsLine(t *testing.T) {
	store := &beforeRevoke{Memory: apikey.NewMemory()}
	m := newManager(t, apikey.ManagerConfig{Store: store})
	ids := line(t, m, 2)
	rotations := 0
	store.do = func(id string) {
		if rotations < 3 {
			if _, _, err := m.Rotate(t.Context(), server, "ann", id, time.Hour); err == nil {
				rotations++
			}
		}
	}
	keys, err := m.RevokeLine(t.Context(), server, "ann", ids[0])
	if err != nil || rotations != 3 || len(keys) != 5 {
		t.Errorf("%d keys after %d rotations, %v", len(keys), rotations, err)
	}
	if n := valid(t, m); n != 0 {
		t.Errorf("%d keys remain valid", n)
	}

	for range 20 {
		m := newManager(t, apikey.ManagerConfig{})
		ids := line(t, m, 2)
		var all sync.WaitGroup
		all.Go(func() {
			id := ids[1]
			for range 50 {
				next, _, err := m.Rotate(context.Background(), server, "ann", id, time.Hour)
				if err != nil {
					return
				}
				id = next.ID
			}
		})
		all.Go(func() {
			if _, err := m.RevokeLine(context.Background(), server, "ann", ids[0]); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		if n := valid(t, m); n != 0 {
			t.Fatalf("%d keys remain valid", n)
		}
	}
}

// An owner may have more keys than one page holds.
func TestALineIsFoundAmongManyKeys(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{MaxActive: 3000})
	ids := line(t, m, 2)
	for range 2000 {
		create(t, m, apikey.Key{})
	}
	if keys, err := m.RevokeLine(t.Context(), server, "ann", ids[1]); err != nil || len(keys) != 2 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}
