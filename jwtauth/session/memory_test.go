package session_test

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/jwtauth/session/sessiontest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	sessiontest.TestStore(t, func(t testing.TB) session.Store { return newMemory(t, 0) })
}

func newMemory(t testing.TB, capacity int) *session.Memory {
	t.Helper()
	s, err := session.NewMemory(session.MemoryConfig{Capacity: capacity})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMemoryOfNegativeCapacityIsAnError(t *testing.T) {
	if _, err := session.NewMemory(session.MemoryConfig{Capacity: -1}); err == nil {
		t.Error("no error")
	}
}

// newSession returns a session that begins at this time and lasts for a lifetime.
func newSession(subject string, at time.Time, lifetime time.Duration) session.Record {
	r := session.Record{
		Session: session.Session{
			ID: rand.Text(), Subject: subject,
			CreatedAt: at, RefreshedAt: at, ExpiresAt: at.Add(lifetime), EndsAt: at.Add(lifetime),
		},
		Handle:   sha256.Sum256([]byte(rand.Text())),
		Current:  sha256.Sum256([]byte(rand.Text())),
		Revision: 1,
	}
	return r
}

func mustInsert(t testing.TB, s session.Store, r session.Record) session.Record {
	t.Helper()
	if _, err := s.Insert(t.Context(), r, 1000); err != nil {
		t.Fatal(err)
	}
	return r
}

func has(t testing.TB, s session.Store, r session.Record) bool {
	t.Helper()
	_, err := s.Lookup(t.Context(), r.Handle)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func TestMemoryForgetsExpiredSessionsAsOthersCome(t *testing.T) {
	s, start := newMemory(t, 1<<20), time.Now()
	for i := range 1000 {
		mustInsert(t, s, newSession(fmt.Sprint(i), start, time.Hour))
	}
	// Sessions are removed twice as fast as they were added.
	for i := range 500 {
		mustInsert(t, s, newSession(fmt.Sprint(i), start.Add(time.Hour), time.Hour))
	}
	if got := s.Len(); got != 500 {
		t.Errorf("%d sessions, want the 500 that live", got)
	}
}

func TestMemoryKeepsALiveSessionBehindExpiredOnes(t *testing.T) {
	s, start := newMemory(t, 0), time.Now()
	r := mustInsert(t, s, newSession("ada", start, time.Hour))
	short := mustInsert(t, s, newSession("bert", start, 2*time.Hour))
	// After a rotation the first session ends later than the second.
	r.ExpiresAt = start.Add(3 * time.Hour)
	if err := s.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, s, newSession("eve", start.Add(2*time.Hour), time.Hour))
	if !has(t, s, r) || has(t, s, short) {
		t.Errorf("refreshed: %t, expired: %t; want the refreshed one alone", has(t, s, r), has(t, s, short))
	}
}

func TestMemoryFullEndsTheSessionThatExpiresFirst(t *testing.T) {
	const capacity = 100
	s, start := newMemory(t, capacity), time.Now()
	first := mustInsert(t, s, newSession("first", start, time.Hour))
	second := mustInsert(t, s, newSession("second", start, 2*time.Hour))
	for i := range capacity - 1 {
		mustInsert(t, s, newSession(fmt.Sprint(i), start, 3*time.Hour))
	}
	if has(t, s, first) || !has(t, s, second) || s.Len() != capacity {
		t.Errorf("first: %t, second: %t, %d sessions", has(t, s, first), has(t, s, second), s.Len())
	}
	for i := range 10 * capacity {
		mustInsert(t, s, newSession(fmt.Sprint("more", i), start, 4*time.Hour))
	}
	if got := s.Len(); got != capacity {
		t.Errorf("%d sessions, want %d", got, capacity)
	}
}

func TestMemoryFullEndsRevokedSessionsFirst(t *testing.T) {
	s, start := newMemory(t, 2), time.Now()
	live := mustInsert(t, s, newSession("ada", start, 24*time.Hour))
	ended := mustInsert(t, s, newSession("bert", start, 48*time.Hour))
	if _, err := s.Revoke(t.Context(), "bert", ended.ID, start); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, s, newSession("eve", start, 24*time.Hour))
	if !has(t, s, live) || has(t, s, ended) {
		t.Errorf("live: %t, revoked: %t; want the live one alone", has(t, s, live), has(t, s, ended))
	}
}

func TestMemoryOneSubjectCannotEndTheSessionsOfOthers(t *testing.T) {
	s, start := newMemory(t, 4096), time.Now()
	other := mustInsert(t, s, newSession("ada", start, time.Minute))
	for range 3_000 {
		mustInsert(t, s, newSession("mallory", start, time.Hour))
	}
	if !has(t, s, other) {
		t.Error("the other subject's session is gone")
	}
	if got := s.Len(); got != 1001 {
		t.Errorf("%d sessions, want 1000 of one subject and one of the other", got)
	}
}

// An ended session is kept for an hour, which must not cost a live one that expires sooner
// its place.
func TestMemoryOfASubjectWithManySessionsForgetsEndedOnes(t *testing.T) {
	s, start := newMemory(t, 0), time.Now()
	live := mustInsert(t, s, newSession("ann", start, time.Minute))
	for range 999 {
		r := mustInsert(t, s, newSession("ann", start, 2*time.Hour))
		if _, err := s.Revoke(t.Context(), "ann", r.ID, start); err != nil {
			t.Fatal(err)
		}
	}
	mustInsert(t, s, newSession("ann", start, time.Hour))
	if !has(t, s, live) || s.Len() != 1000 {
		t.Errorf("the live session: %t, of %d", has(t, s, live), s.Len())
	}
}
