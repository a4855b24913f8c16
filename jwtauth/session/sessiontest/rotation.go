package sessiontest

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth/session"
)

func testUpdate(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	// Every field differs, and only those of the rotation may be stored.
	u := rotated(newRecord())
	u.ID, u.Revision, u.Delivered = r.ID, r.Revision, true
	u.CreatedAt, u.EndsAt, u.RevokedAt = now().Add(time.Hour), now().Add(time.Hour), now()
	u.Subject, u.Client = unique(), unique()
	u.Scopes, u.Data = []string{"admin"}, map[string]string{"a": "b"}
	if err := s.Update(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	r.RefreshedAt, r.ExpiresAt = u.RefreshedAt, u.ExpiresAt
	r.Current, r.Previous, r.TokenID, r.Delivered, r.Response = u.Current, u.Previous, u.TokenID, true, u.Response
	r.Revision = 2
	want(t, s, r)
	_, err := s.Lookup(t.Context(), u.Handle)
	storetest.WantError(t, "Lookup of another handle in the update", err, session.ErrNotFound)
}

func testUpdateConflict(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	for _, revision := range []int64{0, 2, 7, -1} {
		u := rotated(r)
		u.Revision = revision
		storetest.WantError(t, "Update of another revision", s.Update(t.Context(), u), session.ErrConflict)
	}
	want(t, s, r)
}

func testUpdateRepeated(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	u := rotated(r)
	after := update(t, s, u)
	storetest.WantError(t, "the same again", s.Update(t.Context(), u), session.ErrConflict)
	want(t, s, after)
}

func testParallelRotations(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	rotations := make([]session.Record, 20)
	won := make([]bool, len(rotations))
	for i := range rotations {
		rotations[i] = rotated(r)
	}
	counts := each(len(rotations), func(i int) error {
		err := s.Update(t.Context(), rotations[i])
		won[i] = err == nil
		return err
	})
	if counts[nil] != 1 || counts[session.ErrConflict] != 19 {
		t.Fatalf("outcomes: %v, want 1 without error and 19 ErrConflict", counts)
	}
	for i, won := range won {
		if won {
			rotations[i].Revision++
			want(t, s, rotations[i])
		}
	}
}

// testChain rotates one session from many goroutines, each of which reads the session and
// then rotates what it has read. Each rotation must follow from the one before it.
func testChain(t *testing.T, s session.Store) {
	const sides, rotations = 8, 10
	r := insert(t, s, newRecord())
	var (
		mu     sync.Mutex
		before = map[[sha256.Size]byte][sha256.Size]byte{} // by Current
	)
	counts := each(sides, func(int) error {
		for done := 0; done < rotations; {
			found, err := s.Lookup(t.Context(), r.Handle)
			if err != nil {
				return err
			}
			next := rotated(found)
			switch err := s.Update(t.Context(), next); {
			case err == nil:
				mu.Lock()
				before[next.Current] = next.Previous
				mu.Unlock()
				done++
			case !errors.Is(err, session.ErrConflict):
				return err
			}
		}
		return nil
	})
	if counts[nil] != sides {
		t.Fatalf("outcomes: %v, want %d without error", counts, sides)
	}
	found, err := s.Lookup(t.Context(), r.Handle)
	if err != nil {
		t.Fatal(err)
	}
	if found.Revision != 1+sides*rotations {
		t.Errorf("revision %d after %d rotations of revision 1", found.Revision, sides*rotations)
	}
	length := 0
	for at := found.Current; at != r.Current; at = before[at] {
		if length++; length > sides*rotations {
			break
		}
	}
	if length != sides*rotations {
		t.Errorf("the chain back to the first token has %d links, want %d", length, sides*rotations)
	}
}

func testResponses(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	for _, size := range []int{32 << 10, 0, 1} {
		r = rotated(r)
		r.Response = make([]byte, size)
		_, _ = rand.Read(r.Response)
		r = update(t, s, r)
		want(t, s, r)
	}
}
