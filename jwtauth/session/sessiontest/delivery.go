package sessiontest

import (
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth/session"
)

// deliver sets the delivery of r, and returns the record that the store must then have.
func deliver(t *testing.T, s session.Store, r session.Record) session.Record {
	t.Helper()
	if err := s.SetDelivered(t.Context(), r.ID, r.TokenID); err != nil {
		t.Fatalf("SetDelivered: %v", err)
	}
	if !r.Delivered {
		r.Delivered = true
		r.Revision++
	}
	return r
}

func testDelivered(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	r = update(t, s, rotated(r))
	for range 3 {
		r = deliver(t, s, r)
		want(t, s, r)
	}
	r = update(t, s, rotated(r))
	want(t, s, r)
	r = deliver(t, s, r)
	want(t, s, r)
	opened := insert(t, s, newRecord())
	want(t, s, deliver(t, s, opened))
}

func testDeliveredOther(t *testing.T, s session.Store) {
	before, other := insert(t, s, newRecord()), insert(t, s, newRecord())
	r := update(t, s, rotated(before))
	for what, of := range map[string][2]string{
		"the token before":              {r.ID, before.TokenID},
		"another session's token":       {r.ID, other.TokenID},
		"another session":               {other.ID, r.TokenID},
		"a session that does not exist": {"session_" + unique(), r.TokenID},
		"a token in another case":       {r.ID, strings.ToLower(r.TokenID)},
		"the beginning of a token":      {r.ID, r.TokenID[:len(r.TokenID)-1]},
		"no token":                      {r.ID, ""},
		"no session":                    {"", r.TokenID},
	} {
		if err := s.SetDelivered(t.Context(), of[0], of[1]); err != nil {
			t.Errorf("SetDelivered of %s: %v", what, err)
		}
	}
	want(t, s, r)
	want(t, s, other)
}

func testDeliveredConflict(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	r = update(t, s, rotated(r))
	found, err := s.Lookup(t.Context(), r.Handle)
	if err != nil {
		t.Fatal(err)
	}
	r = deliver(t, s, r)
	storetest.WantError(t, "Update of what was read before the delivery", s.Update(t.Context(), rotated(found)), session.ErrConflict)
	want(t, s, r)
	r = deliver(t, s, r) // which changes nothing
	want(t, s, update(t, s, rotated(r)))
}

func testDeliveredRevoked(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	r = update(t, s, rotated(r))
	at := now()
	revoke(t, s, r, at)
	if err := s.SetDelivered(t.Context(), r.ID, r.TokenID); err != nil {
		t.Errorf("SetDelivered: %v", err)
	}
	wantRevoked(t, s, r, at)
}

// testDeliveredParallel rotates a session while each of its tokens is used by several. Each
// rotation that succeeds must begin with a state that no other call has changed since.
func testDeliveredParallel(t *testing.T, s session.Store) {
	const rounds, sides = 10, 8
	r := insert(t, s, newRecord())
	for range rounds {
		next := rotated(r)
		counts := each(sides, func(i int) error {
			if i == 0 {
				return s.Update(t.Context(), next)
			}
			return s.SetDelivered(t.Context(), r.ID, r.TokenID)
		})
		found, err := s.Lookup(t.Context(), r.Handle)
		switch {
		case err != nil:
			t.Fatal(err)
		case counts[nil] == sides: // the rotation came first
			next.Revision++
			r = next
		case counts[nil] == sides-1 && counts[session.ErrConflict] == 1:
			r.Delivered = true
			r.Revision++
		default:
			t.Fatalf("outcomes: %v, want only the rotation to conflict", counts)
		}
		want(t, s, r)
		if r = found; r.Delivered {
			r = update(t, s, rotated(r))
		}
	}
	want(t, s, update(t, s, rotated(r)))
}
