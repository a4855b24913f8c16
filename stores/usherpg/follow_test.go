package usherpg_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/stores/usherpg"
)

func TestAKeyThatCannotBeReadIsCorrupt(t *testing.T) {
	_, pool := migrated(t)
	s := open(t, pool).Keys()
	for name, poison := range map[string]string{
		"a short hash":         "hash = '\\x01'",
		"a revision of zero":   "revision = 0",
		"a negative level":     "level = -1",
		"metadata in a list":   "metadata = '[]'",
		"metadata of a number": `metadata = '{"a": 1}'`,
		"an invalid network":   "allowed_networks = '{x}'",
		"an invalid address":   "last_used_from = 'x'",
	} {
		t.Run(name, func(t *testing.T) {
			r := newKey()
			if err := s.Insert(t.Context(), r, apikey.Limits{}); err != nil {
				t.Fatal(err)
			}
			exec(t, pool, "UPDATE usher.keys SET "+poison+" WHERE id = $1", r.ID)
			_, err := s.Find(t.Context(), r.Owner, r.ID)
			storetest.WantError(t, "Find", err, usher.ErrCorrupt)
			_, _, err = s.List(t.Context(), r.Owner, 0, 10)
			storetest.WantError(t, "List", err, usher.ErrCorrupt)
			exec(t, pool, "DELETE FROM usher.keys")
		})
	}
}

// followList follows the list, and returns the positions and values that it gets until it
// is ready, and the error.
func followList(t *testing.T, s jwtauth.RevocationSource, after string) (values []string, last string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	last = after
	err = s.Follow(ctx, after, cancel, func(r jwtauth.Revocation) { values, last = append(values, r.Value), r.Position })
	return values, last, err
}

func TestAListIsFollowedAcrossACrashAndNotIntoAnotherHistory(t *testing.T) {
	server, pool := migrated(t, "fsync=on", "synchronous_commit=off")
	p := open(t, pool)
	s := p.Revocations()
	revoke := func(id string) {
		t.Helper()
		if err := s.RevokeToken(t.Context(), "issuer", id, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	revoke("a")
	revoke("b")
	values, last, err := followList(t, s, "")
	if err != nil || fmt.Sprint(values) != "[a b]" {
		t.Fatalf("Follow: %v, %v", values, err)
	}
	// What a follower has got is on the disk, whatever the setting.
	server.Kill()
	server.Start()
	eventually(t, "Check", p.Check)
	revoke("c")
	if values, _, err := followList(t, s, last); err != nil || fmt.Sprint(values) != "[c]" {
		t.Errorf("Follow after a crash: %v, %v; want c", values, err)
	}
	for name, change := range map[string]string{
		"an older backup of the database": "UPDATE usher.revocation_log SET last = 1",
		"another database":                "UPDATE usher.revocation_log SET name = 'other'",
	} {
		exec(t, pool, change)
		_, _, err := followList(t, s, last)
		storetest.WantError(t, "Follow in "+name, err, jwtauth.ErrPosition)
	}
	timeline := strings.Split(last, ".")
	timeline[1] = "000000FF"
	_, _, err = followList(t, s, strings.Join(timeline, "."))
	storetest.WantError(t, "Follow after a promotion", err, jwtauth.ErrPosition)
}

func TestRevocationsAndSessionsThatHaveEndedAreRemoved(t *testing.T) {
	_, pool := migrated(t)
	p := open(t, pool)
	exec(t, pool, `INSERT INTO usher.revocations SELECT 0, 'issuer', i::text, NULL, 1, i FROM generate_series(1, 100) AS i`)
	exec(t, pool, `UPDATE usher.revocation_log SET last = 100`)
	exec(t, pool, `INSERT INTO usher.sessions SELECT i::text, sha256(i::text::bytea), sha256('a'), sha256('b'), 'old', '{}', '{}', 1, 1, 2, 2, NULL, false, '', 1
		FROM generate_series(1, 100) AS i`)
	for i := range 60 {
		if err := p.Revocations().RevokeToken(t.Context(), "issuer", fmt.Sprint("new", i), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Sessions().Insert(t.Context(), newSession(), 1000); err != nil {
			t.Fatal(err)
		}
		// However many have ended together, a call removes at most two.
		for _, table := range []string{"revocations", "sessions"} {
			if n, want := count(t, pool, "SELECT count(*) FROM usher."+table), i+1+max(100-2*(i+1), 0); n != want {
				t.Fatalf("after %d calls %d %s are stored, want %d", i+1, n, table, want)
			}
		}
	}
	for table, want := range map[string]int{"revocations": 60, "sessions": 60} {
		if n := count(t, pool, "SELECT count(*) FROM usher."+table); n != want {
			t.Errorf("%d %s are stored, want the %d that have not ended", n, table, want)
		}
	}
}

// A session is kept for an hour after it was revoked, and until it expires.
func TestSessionsAreKeptAsLongAsTheContractSays(t *testing.T) {
	_, pool := migrated(t)
	s := open(t, pool).Sessions()
	now := time.Now().UTC().Truncate(time.Microsecond)
	expired, revoked := newSession(), newSession()
	expired.ExpiresAt = now.Add(-time.Minute)
	for _, r := range []session.Record{expired, revoked} {
		if _, err := s.Insert(t.Context(), r, 1000); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Revoke(t.Context(), revoked.Subject, revoked.ID, now.Add(-59*time.Minute)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := s.Insert(t.Context(), newSession(), 1000); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]session.Record{"that has just expired": expired, "that was revoked 59 minutes ago": revoked} {
		if _, err := s.Lookup(t.Context(), r.Handle); err != nil {
			t.Errorf("a session %s: %v", name, err)
		}
	}
}

// watchKeys watches until the watch ends, and calls started when it is ready.
func watchKeys(t *testing.T, s usherpg.KeyStore, started func(), changed func(apikey.Hash)) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := s.Watch(ctx, started, changed)
	if ctx.Err() != nil {
		t.Error("the watch does not end by itself")
	}
	return err
}

func TestAWatchThatMayHaveMissedAChangeEnds(t *testing.T) {
	server, pool := migrated(t)
	s := open(t, pool).Keys()
	for name, miss := range map[string]func(){
		"the server crashes":       func() { server.Kill(); server.Start() },
		"old changes were removed": func() { exec(t, pool, "UPDATE usher.key_log SET last = last + 10, removed = last + 10") },
		"a backup was restored":    func() { exec(t, pool, "UPDATE usher.key_log SET last = last - 1") },
	} {
		err := watchKeys(t, s, miss, func(apikey.Hash) {})
		if !errors.Is(err, usher.ErrUnavailable) {
			t.Errorf("%s: %v, want %v", name, err, usher.ErrUnavailable)
		}
		eventually(t, "Find", func(ctx context.Context) error {
			if _, err := s.Find(ctx, "owner", "id"); !errors.Is(err, apikey.ErrNotFound) {
				return err
			}
			return nil
		})
	}
}

func TestOldChangesOfKeysAreRemoved(t *testing.T) {
	_, pool := migrated(t)
	s := open(t, pool).Keys()
	exec(t, pool, "INSERT INTO usher.key_changes SELECT i, '', now() - interval '2 minutes' FROM generate_series(1, 100) AS i")
	exec(t, pool, "UPDATE usher.key_log SET last = 100")
	for range 40 {
		if err := s.Insert(t.Context(), newKey(), apikey.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, pool, "SELECT count(*) FROM usher.key_changes"); n != 40 {
		t.Errorf("%d changes are stored, want the 40 that are new", n)
	}
	// From then on the watch gets what is new.
	got := make(chan apikey.Hash, 1)
	r := newKey()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		_ = s.Watch(ctx, func() {
			if err := s.Insert(t.Context(), r, apikey.Limits{}); err != nil {
				t.Error(err)
			}
		}, func(h apikey.Hash) { got <- h })
	})
	select {
	case h := <-got:
		if h != r.Hash {
			t.Errorf("a change of %x, want %x", h, r.Hash)
		}
	case <-time.After(10 * time.Second):
		t.Error("there is no notice of the change")
	}
	cancel()
	done.Wait()
}
