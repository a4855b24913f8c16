package sessiontest_test

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/jwtauth/session/sessiontest"
)

// patience is enough for a wrong store.
func patience() { sessiontest.SetPatience(2 * time.Second) }

func newMemory() *session.Memory {
	m, err := session.NewMemory(session.MemoryConfig{})
	if err != nil {
		panic(err)
	}
	return m
}

type (
	handle = [32]byte
	ctx    = context.Context
)

// A store is a Memory of which some methods are replaced.
type store struct {
	*session.Memory
	insert        func(*session.Memory, ctx, session.Record, int) ([]session.Session, error)
	lookup        func(*session.Memory, ctx, handle) (session.Record, error)
	list          func(*session.Memory, ctx, string, time.Time) ([]session.Session, error)
	update        func(*session.Memory, ctx, session.Record) error
	deliver       func(*session.Memory, ctx, string, string) error
	revoke        func(*session.Memory, ctx, string, string, time.Time) (session.Session, error)
	revokeSubject func(*session.Memory, ctx, string, time.Time) ([]session.Session, error)
	close         func(*session.Memory) error
}

func (s store) Insert(c ctx, r session.Record, limit int) ([]session.Session, error) {
	if s.insert != nil {
		return s.insert(s.Memory, c, r, limit)
	}
	return s.Memory.Insert(c, r, limit)
}

func (s store) Lookup(c ctx, h handle) (session.Record, error) {
	if s.lookup != nil {
		return s.lookup(s.Memory, c, h)
	}
	return s.Memory.Lookup(c, h)
}

func (s store) List(c ctx, subject string, now time.Time) ([]session.Session, error) {
	if s.list != nil {
		return s.list(s.Memory, c, subject, now)
	}
	return s.Memory.List(c, subject, now)
}

func (s store) Update(c ctx, r session.Record) error {
	if s.update != nil {
		return s.update(s.Memory, c, r)
	}
	return s.Memory.Update(c, r)
}

func (s store) SetDelivered(c ctx, sessionID, tokenID string) error {
	if s.deliver != nil {
		return s.deliver(s.Memory, c, sessionID, tokenID)
	}
	return s.Memory.SetDelivered(c, sessionID, tokenID)
}

func (s store) Revoke(c ctx, subject, id string, at time.Time) (session.Session, error) {
	if s.revoke != nil {
		return s.revoke(s.Memory, c, subject, id, at)
	}
	return s.Memory.Revoke(c, subject, id, at)
}

func (s store) RevokeSubject(c ctx, subject string, at time.Time) ([]session.Session, error) {
	if s.revokeSubject != nil {
		return s.revokeSubject(s.Memory, c, subject, at)
	}
	return s.Memory.RevokeSubject(c, subject, at)
}

func (s store) Close() error {
	if s.close != nil {
		return s.close(s.Memory)
	}
	return s.Memory.Close()
}

// inserting returns a store that changes what it inserts.
func inserting(change func(*session.Record)) store {
	return store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		change(&r)
		return m.Insert(c, r, limit)
	}}
}

// updating returns a store that changes what it updates.
func updating(change func(*session.Record)) store {
	return store{update: func(m *session.Memory, c ctx, r session.Record) error {
		change(&r)
		return m.Update(c, r)
	}}
}

// subjects returns a store that takes subjects for the same if key returns the same.
func subjects(key func(string) string) store {
	return store{
		insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
			r.Subject = key(r.Subject)
			return m.Insert(c, r, limit)
		},
		list: func(m *session.Memory, c ctx, subject string, now time.Time) ([]session.Session, error) {
			return m.List(c, key(subject), now)
		},
		revoke: func(m *session.Memory, c ctx, subject, id string, at time.Time) (session.Session, error) {
			return m.Revoke(c, key(subject), id, at)
		},
		revokeSubject: func(m *session.Memory, c ctx, subject string, at time.Time) ([]session.Session, error) {
			return m.RevokeSubject(c, key(subject), at)
		},
	}
}

// handles returns a store that takes handles for the same if key returns the same.
func handles(key func(*handle)) store {
	return store{
		insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
			key(&r.Handle)
			return m.Insert(c, r, limit)
		},
		lookup: func(m *session.Memory, c ctx, h handle) (session.Record, error) {
			key(&h)
			return m.Lookup(c, h)
		},
	}
}

// capped returns a store that ends sessions before it inserts one, in another step: those
// of the victims that are above the limit.
func capped(victims func(live []session.Session, r session.Record) []session.Session) store {
	return store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		live, err := m.List(c, r.Subject, r.CreatedAt)
		if err != nil {
			return nil, err
		}
		var ended []session.Session
		of := victims(live, r)
		for n := range max(len(of)+1-limit, 0) {
			s, err := m.Revoke(c, r.Subject, of[len(of)-1-n].ID, r.CreatedAt)
			if err != nil {
				return nil, err
			}
			ended = append(ended, s)
		}
		_, err = m.Insert(c, r, 1000)
		return ended, err
	}}
}

// ending returns a store that changes what an insert returns.
func ending(change func([]session.Session) []session.Session) store {
	return store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		ended, err := m.Insert(c, r, limit)
		return change(ended), err
	}}
}

// listing returns a store that changes what a list has.
func listing(change func([]session.Session) []session.Session) store {
	return store{list: func(m *session.Memory, c ctx, subject string, now time.Time) ([]session.Session, error) {
		got, err := m.List(c, subject, now)
		return change(got), err
	}}
}

func sorted(got []session.Session, order func(a, b session.Session) int) []session.Session {
	slices.SortStableFunc(got, order)
	return got
}

// A wrongStore is wrong in one way; the named row of the suite must fail.
type wrongStore struct {
	store store
	fails string
}

const (
	atBounds  = "a record with every field at its bound is returned as it was stored"
	alike     = "subjects that look alike are two subjects"
	parallel  = "parallel inserts leave exactly as many live sessions as the limit"
	leastLast = "an insert ends the sessions that were refreshed least recently"
	counts    = "an insert counts only live sessions of its subject"
	oneByte   = "handles that differ in one byte are of two sessions"
	then      = "a revocation returns the session as it then is"
	foreign   = "a session that does not exist or is of another subject is not revoked"
	together  = "a subject's sessions are revoked together"
	live      = "a list has only live sessions"
	order     = "a list begins with the session that was refreshed last"
	replaces  = "an update replaces the rotation and nothing else"
	delivers  = "a delivery is set and nothing else"
	others    = "a delivery of another token or session changes nothing"
)

var stores = map[string]wrongStore{
	// What is stored.
	"keeps milliseconds": {inserting(func(r *session.Record) {
		r.CreatedAt, r.RefreshedAt = r.CreatedAt.Truncate(time.Millisecond), r.RefreshedAt.Truncate(time.Millisecond)
	}), "times keep their microseconds"},
	"keeps the milliseconds of a rotation": {updating(func(r *session.Record) { r.ExpiresAt = r.ExpiresAt.Truncate(time.Millisecond) }), "times keep their microseconds"},
	"keeps the milliseconds of a revocation": {store{revoke: func(m *session.Memory, c ctx, subject, id string, at time.Time) (session.Session, error) {
		return m.Revoke(c, subject, id, at.Truncate(time.Millisecond))
	}}, "times keep their microseconds"},
	"cuts the subject": {subjects(func(s string) string { return s[:min(len(s), 254)] }), atBounds},
	"cuts the client":  {inserting(func(r *session.Record) { r.Client = r.Client[:min(len(r.Client), 254)] }), atBounds},
	"cuts the ID":      {inserting(func(r *session.Record) { r.ID = r.ID[:min(len(r.ID), 63)] }), atBounds},
	"keeps 99 scopes":  {inserting(func(r *session.Record) { r.Scopes = r.Scopes[:min(len(r.Scopes), 99)] }), atBounds},
	"sorts scopes":     {inserting(func(r *session.Record) { r.Scopes = slices.Sorted(slices.Values(r.Scopes)) }), atBounds},
	"keeps each scope once": {inserting(func(r *session.Record) {
		var once []string
		for _, s := range r.Scopes {
			if !slices.Contains(once, s) {
				once = append(once, s)
			}
		}
		r.Scopes = once
	}), atBounds},
	"keeps no client":      {inserting(func(r *session.Record) { r.Client = "" }), "a record is returned as it was stored"},
	"keeps no empty names": {inserting(func(r *session.Record) { r.Data = without(r.Data, "") }), "a record is returned as it was stored"},
	"keeps names in lower case": {inserting(func(r *session.Record) {
		data := map[string]string{}
		for k, v := range r.Data {
			data[strings.ToLower(k)] = v
		}
		r.Data = data
	}), atBounds},
	"cuts values": {inserting(func(r *session.Record) {
		data := map[string]string{}
		for k, v := range r.Data {
			data[k] = v[:min(len(v), 1023)]
		}
		r.Data = data
	}), atBounds},
	"cuts the response":       {updating(func(r *session.Record) { r.Response = r.Response[:min(len(r.Response), 32<<10-1)] }), atBounds},
	"keeps text of responses": {updating(func(r *session.Record) { r.Response = bytes.ToValidUTF8(r.Response, nil) }), atBounds},
	"keeps no late end": {inserting(func(r *session.Record) {
		if r.EndsAt.Year() > 2262 {
			r.EndsAt = time.Unix(0, 1<<63-1).UTC().Truncate(time.Microsecond)
		}
	}), atBounds},
	"is not isolated": {sharing(), "arguments and results share nothing with the store"},

	// Keys.
	"looks at 31 bytes of a handle":    {handles(func(h *handle) { h[31] = 0 }), oneByte},
	"looks at the last 31 bytes":       {handles(func(h *handle) { h[0] = 0 }), oneByte},
	"looks at 16 bytes of a handle":    {handles(func(h *handle) { clear(h[16:]) }), oneByte},
	"looks at handles without case":    {handles(func(h *handle) { copy(h[:], bytes.ToLower(h[:])) }), oneByte},
	"looks at subjects without case":   {subjects(strings.ToLower), alike},
	"trims subjects":                   {subjects(strings.TrimSpace), alike},
	"trims subjects on the right":      {subjects(func(s string) string { return strings.TrimRight(s, " ") }), alike},
	"normalizes subjects":              {subjects(strings.NewReplacer("e\u0301", "é", "\u212b", "Å").Replace), alike},
	"ignores what has no width":        {subjects(strings.NewReplacer("\u00ad", "", "\u200d", "").Replace), alike},
	"unescapes subjects":               {subjects(strings.NewReplacer(`\\`, `\`, "''", "'").Replace), alike},
	"keeps three bytes of a character": {subjects(strings.NewReplacer("\U0001F511", "?", "\U0001F510", "?").Replace), alike},
	"looks at IDs without case": {store{
		insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
			r.ID = strings.ToLower(r.ID)
			return m.Insert(c, r, limit)
		},
		revoke: func(m *session.Memory, c ctx, subject, id string, at time.Time) (session.Session, error) {
			return m.Revoke(c, subject, strings.ToLower(id), at)
		},
	}, "IDs that differ only in case are of two sessions"},
	"takes a handle twice": {store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		ended, err := m.Insert(c, r, limit)
		if err == session.ErrConflict { //nolint:errorlint // as a Memory returns it
			r.Handle[0]++
			return m.Insert(c, r, limit)
		}
		return ended, err
	}}, "an ID or a handle cannot be used twice"},
	"inserts again": {store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		if old, err := m.Lookup(c, r.Handle); err == nil && old.ID == r.ID {
			return nil, nil
		}
		return m.Insert(c, r, limit)
	}}, "an ID or a handle cannot be used twice"},

	// The limit of a subject.
	"counts and inserts in two steps": {capped(func(live []session.Session, _ session.Record) []session.Session {
		runtime.Gosched()
		time.Sleep(time.Millisecond)
		return live
	}), parallel},
	"ends what was refreshed last": {capped(func(live []session.Session, _ session.Record) []session.Session { slices.Reverse(live); return live }), leastLast},
	"ends what was opened first": {capped(func(live []session.Session, _ session.Record) []session.Session {
		return sorted(live, func(a, b session.Session) int { return b.CreatedAt.Compare(a.CreatedAt) })
	}), leastLast},
	"ends the lesser ID last": {capped(func(live []session.Session, _ session.Record) []session.Session {
		return sorted(live, func(a, b session.Session) int {
			return cmp.Or(b.RefreshedAt.Compare(a.RefreshedAt), cmp.Compare(a.ID, b.ID))
		})
	}), "of sessions refreshed at the same time the one with the lesser ID is ended"},
	"ends one at most": {store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		live, err := m.List(c, r.Subject, r.CreatedAt)
		if err != nil {
			return nil, err
		}
		return m.Insert(c, r, max(limit, len(live)))
	}}, leastLast},
	"has no limit": {store{insert: func(m *session.Memory, c ctx, r session.Record, _ int) ([]session.Session, error) {
		return m.Insert(c, r, 1000)
	}}, leastLast},
	"has a limit of one more": {store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		return m.Insert(c, r, limit+1)
	}}, leastLast},
	"refuses what is above the limit": {store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		if live, err := m.List(c, r.Subject, r.CreatedAt); err != nil || len(live) >= limit {
			return nil, cmp.Or(err, session.ErrConflict)
		}
		return m.Insert(c, r, limit)
	}}, leastLast},
	"ends the new session": {store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		live, err := m.List(c, r.Subject, r.CreatedAt)
		if err != nil || len(live) < limit || !r.RefreshedAt.Before(live[len(live)-1].RefreshedAt) {
			return m.Insert(c, r, limit)
		}
		if _, err := m.Insert(c, r, 1000); err != nil {
			return nil, err
		}
		s, err := m.Revoke(c, r.Subject, r.ID, r.CreatedAt)
		return []session.Session{s}, err
	}}, leastLast},
	"does not report what it ended":   {ending(func([]session.Session) []session.Session { return nil }), leastLast},
	"reports the first that it ended": {ending(func(s []session.Session) []session.Session { return s[:min(len(s), 1)] }), leastLast},
	"reports what it ended as it was": {ending(func(s []session.Session) []session.Session {
		for i := range s {
			s[i].RevokedAt = time.Time{}
		}
		return s
	}), leastLast},
	"forgets revoked sessions": {store{lookup: func(m *session.Memory, c ctx, h handle) (session.Record, error) {
		r, err := m.Lookup(c, h)
		if err == nil && !r.RevokedAt.IsZero() {
			return session.Record{}, session.ErrNotFound
		}
		return r, err
	}}, leastLast},
	"counts expired sessions": {store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		all, err := m.List(c, r.Subject, time.Time{})
		if err != nil {
			return nil, err
		}
		live, err := m.List(c, r.Subject, r.CreatedAt)
		if err != nil {
			return nil, err
		}
		return m.Insert(c, r, max(limit-(len(all)-len(live)), 1))
	}}, counts},
	"counts revoked sessions":          {countingRevoked(), counts},
	"counts the sessions of everybody": {countingAll(), counts},
	"ends before it checks": {store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		var ended []session.Session
		live, _ := m.List(c, r.Subject, r.CreatedAt)
		for n := range max(len(live)+1-limit, 0) {
			s, _ := m.Revoke(c, r.Subject, live[len(live)-1-n].ID, r.CreatedAt)
			ended = append(ended, s)
		}
		_, err := m.Insert(c, r, 1000)
		return ended, err
	}}, "an insert that fails ends nothing"},

	// Lists.
	"lists expired sessions": {store{list: func(m *session.Memory, c ctx, subject string, _ time.Time) ([]session.Session, error) {
		return m.List(c, subject, time.Time{})
	}}, live},
	"lists what expires now": {store{list: func(m *session.Memory, c ctx, subject string, now time.Time) ([]session.Session, error) {
		return m.List(c, subject, now.Add(-time.Microsecond))
	}}, live},
	"lists by the login": {listing(func(s []session.Session) []session.Session {
		return sorted(s, func(a, b session.Session) int { return b.CreatedAt.Compare(a.CreatedAt) })
	}), order},
	"lists in reverse": {listing(func(s []session.Session) []session.Session { slices.Reverse(s); return s }), order},
	"lists by milliseconds": {listing(func(s []session.Session) []session.Session {
		return sorted(s, func(a, b session.Session) int {
			ms := time.Millisecond
			return cmp.Or(b.RefreshedAt.Truncate(ms).Compare(a.RefreshedAt.Truncate(ms)), cmp.Compare(b.ID, a.ID))
		})
	}), order},
	"lists IDs without case": {listing(func(s []session.Session) []session.Session {
		return sorted(s, func(a, b session.Session) int {
			return cmp.Or(b.RefreshedAt.Compare(a.RefreshedAt), cmp.Compare(strings.ToLower(b.ID), strings.ToLower(a.ID)))
		})
	}), order},
	"lists four sessions": {listing(func(s []session.Session) []session.Session { return s[:min(len(s), 4)] }), order},
	"lists without data": {listing(func(s []session.Session) []session.Session {
		for i := range s {
			s[i].Data = nil
		}
		return s
	}), "a list has only the sessions of its subject"},

	// Rotations.
	"has two valid tokens": {store{update: func(m *session.Memory, c ctx, r session.Record) error {
		old, err := m.Lookup(c, r.Handle)
		if err == nil {
			r.Revision = max(r.Revision, old.Revision)
		}
		return m.Update(c, r)
	}}, "one of several parallel rotations of a revision succeeds"},
	"accepts later revisions": {store{update: func(m *session.Memory, c ctx, r session.Record) error {
		if old, err := m.Lookup(c, r.Handle); err == nil && r.Revision > old.Revision {
			r.Revision = old.Revision
		}
		return m.Update(c, r)
	}}, "an update of another revision changes nothing"},
	"repeats an update": {store{update: func(m *session.Memory, c ctx, r session.Record) error {
		if old, err := m.Lookup(c, r.Handle); err == nil && old.Revision == r.Revision+1 && old.Current == r.Current {
			return nil
		}
		return m.Update(c, r)
	}}, "a repeated update changes nothing"},
	"forgets the previous token": {updating(func(r *session.Record) { r.Previous = handle{} }), replaces},
	"forgets the delivery":       {updating(func(r *session.Record) { r.Delivered = false }), replaces},
	"forgets the refresh":        {updating(func(r *session.Record) { r.RefreshedAt = r.CreatedAt }), replaces},
	"keeps the old response": {store{update: func(m *session.Memory, c ctx, r session.Record) error {
		if old, err := m.Lookup(c, r.Handle); err == nil && len(r.Response) == 0 {
			r.Response = old.Response
		}
		return m.Update(c, r)
	}}, "the response of a rotation may be long or empty"},

	// Deliveries.
	"never delivers": {store{deliver: func(m *session.Memory, c ctx, sessionID, _ string) error {
		return m.SetDelivered(c, sessionID, "another")
	}}, delivers},
	"delivers whatever the token": {delivering(func(r *session.Record, _ string) bool { return true }), others},
	"delivers tokens without case": {delivering(func(r *session.Record, tokenID string) bool {
		return strings.EqualFold(r.TokenID, tokenID)
	}), others},
	"delivers each token of a session": {delivering(func(r *session.Record, tokenID string) bool {
		return tokenID != "" && strings.HasPrefix(r.TokenID, tokenID)
	}), others},
	"forgets the token of a rotation": {updating(func(r *session.Record) { r.TokenID = "" }), replaces},
	"delivers without a revision":     {hiding(), "a delivery makes a concurrent rotation conflict"},
	"delivers again":                  {delivering(func(r *session.Record, tokenID string) bool { return r.TokenID == tokenID }), delivers},
	"returns a conflict": {store{deliver: func(m *session.Memory, c ctx, sessionID, tokenID string) error {
		if err := m.SetDelivered(c, sessionID, tokenID); err != nil || sessionID != "" && tokenID != "" {
			return err
		}
		return session.ErrConflict
	}}, others},

	// Revocations.
	"revokes other subjects' sessions": {anySubject(), foreign},
	"revokes what does not exist": {store{revoke: func(m *session.Memory, c ctx, subject, id string, at time.Time) (session.Session, error) {
		s, err := m.Revoke(c, subject, id, at)
		if err == session.ErrNotFound { //nolint:errorlint // as a Memory returns it
			return s, nil
		}
		return s, err
	}}, foreign},
	"returns a session as it was": {store{revoke: func(m *session.Memory, c ctx, subject, id string, at time.Time) (session.Session, error) {
		s, err := m.Revoke(c, subject, id, at)
		if s.RevokedAt.Equal(at) {
			s.RevokedAt = time.Time{}
		}
		return s, err
	}}, then},
	"returns the time of the call": {store{revoke: func(m *session.Memory, c ctx, subject, id string, at time.Time) (session.Session, error) {
		s, err := m.Revoke(c, subject, id, at)
		s.RevokedAt = at
		return s, err
	}}, then},
	"does not revoke again": {store{revoke: func(m *session.Memory, c ctx, subject, id string, at time.Time) (session.Session, error) {
		s, err := m.Revoke(c, subject, id, at)
		if err == nil && !s.RevokedAt.Equal(at) {
			return session.Session{}, session.ErrNotFound
		}
		return s, err
	}}, then},
	"does not report what it revoked": {store{revokeSubject: func(m *session.Memory, c ctx, subject string, at time.Time) ([]session.Session, error) {
		_, err := m.RevokeSubject(c, subject, at)
		return nil, err
	}}, together},
	"reports nothing when it repeats": {store{revokeSubject: func(m *session.Memory, c ctx, subject string, at time.Time) ([]session.Session, error) {
		list, err := m.List(c, subject, at)
		if err == nil && len(list) == 0 {
			return nil, nil
		}
		return m.RevokeSubject(c, subject, at)
	}}, together},
	"revokes one session of a subject": {store{revokeSubject: func(m *session.Memory, c ctx, subject string, at time.Time) ([]session.Session, error) {
		list, err := m.List(c, subject, at)
		if err != nil || len(list) == 0 {
			return nil, err
		}
		s, err := m.Revoke(c, subject, list[0].ID, at)
		return []session.Session{s}, err
	}}, together},
	"reports the expired": {store{revokeSubject: func(m *session.Memory, c ctx, subject string, at time.Time) ([]session.Session, error) {
		before, err := m.List(c, subject, time.Time{})
		if err != nil {
			return nil, err
		}
		ended, err := m.RevokeSubject(c, subject, at)
		for _, s := range before {
			if !slices.ContainsFunc(ended, func(e session.Session) bool { return e.ID == s.ID }) {
				s.RevokedAt = at
				ended = append(ended, s)
			}
		}
		return ended, err
	}}, "a revocation of a subject returns those that were live"},

	// Calls.
	"ignores the context": {store{
		lookup: func(m *session.Memory, c ctx, h handle) (session.Record, error) {
			return m.Lookup(context.WithoutCancel(c), h)
		},
	}, "a context that has ended ends the call"},
	"lists without a context": {store{
		list: func(m *session.Memory, c ctx, subject string, now time.Time) ([]session.Session, error) {
			return m.List(context.WithoutCancel(c), subject, now)
		},
	}, "a context that has ended ends the call"},
	"finds nothing when the context has ended": {store{
		lookup: func(m *session.Memory, c ctx, h handle) (session.Record, error) {
			if c.Err() != nil {
				return session.Record{}, session.ErrNotFound
			}
			return m.Lookup(c, h)
		},
	}, "a context that has ended ends the call"},
	"stays open": {store{close: func(*session.Memory) error { return nil }}, "a closed store returns ErrClosed"},
	"closes once": {store{close: func(m *session.Memory) error {
		if _, err := m.List(context.Background(), "", time.Time{}); err != nil {
			return err
		}
		return m.Close()
	}}, "a closed store returns ErrClosed"},
}

// delivering returns a store that delivers if is returns true, even what is delivered.
func delivering(is func(r *session.Record, tokenID string) bool) store {
	var known sync.Map // handles by ID
	return store{
		insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
			known.Store(r.ID, r.Handle)
			return m.Insert(c, r, limit)
		},
		deliver: func(m *session.Memory, c ctx, sessionID, tokenID string) error {
			h, ok := known.Load(sessionID)
			if !ok {
				return m.SetDelivered(c, sessionID, tokenID)
			}
			r, err := m.Lookup(c, h.(handle))
			if err != nil || !is(&r, tokenID) {
				return err
			}
			r.Delivered = true
			return m.Update(c, r)
		},
	}
}

// hiding returns a store whose deliveries leave the revision as it is.
func hiding() store {
	var mu sync.Mutex
	hidden := map[string]int64{} // revisions by ID
	known := map[handle]string{}
	return store{
		insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
			mu.Lock()
			defer mu.Unlock()
			known[r.Handle] = r.ID
			return m.Insert(c, r, limit)
		},
		lookup: func(m *session.Memory, c ctx, h handle) (session.Record, error) {
			mu.Lock()
			defer mu.Unlock()
			r, err := m.Lookup(c, h)
			r.Revision -= hidden[r.ID]
			return r, err
		},
		update: func(m *session.Memory, c ctx, r session.Record) error {
			mu.Lock()
			defer mu.Unlock()
			r.Revision += hidden[r.ID]
			return m.Update(c, r)
		},
		deliver: func(m *session.Memory, c ctx, sessionID, tokenID string) error {
			mu.Lock()
			defer mu.Unlock()
			for h, id := range known {
				if id != sessionID {
					continue
				}
				before, err := m.Lookup(c, h)
				if err != nil {
					return err
				}
				if err := m.SetDelivered(c, sessionID, tokenID); err != nil {
					return err
				}
				after, err := m.Lookup(c, h)
				hidden[id] += after.Revision - before.Revision
				return err
			}
			return m.SetDelivered(c, sessionID, tokenID)
		},
	}
}

func without(data map[string]string, name string) map[string]string {
	data = maps.Clone(data)
	delete(data, name)
	return data
}

// sharing returns a store that returns the same memory to each caller.
func sharing() store {
	var mu sync.Mutex
	known := map[handle]session.Record{}
	return store{lookup: func(m *session.Memory, c ctx, h handle) (session.Record, error) {
		mu.Lock()
		defer mu.Unlock()
		r, err := m.Lookup(c, h)
		if old, ok := known[h]; ok && err == nil && old.Revision == r.Revision {
			return old, nil
		}
		known[h] = r
		return r, err
	}}
}

// anySubject returns a store that ignores the subject of a revocation.
func anySubject() store {
	var subjects sync.Map
	return store{
		insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
			subjects.Store(r.ID, r.Subject)
			return m.Insert(c, r, limit)
		},
		revoke: func(m *session.Memory, c ctx, subject, id string, at time.Time) (session.Session, error) {
			if of, ok := subjects.Load(id); ok {
				subject = of.(string)
			}
			return m.Revoke(c, subject, id, at)
		},
	}
}

// countingRevoked returns a store whose revoked sessions count towards the limit.
func countingRevoked() store {
	var revoked atomic.Int64
	return store{
		insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
			return m.Insert(c, r, max(limit-int(revoked.Load()), 1))
		},
		revoke: func(m *session.Memory, c ctx, subject, id string, at time.Time) (session.Session, error) {
			revoked.Add(1)
			return m.Revoke(c, subject, id, at)
		},
	}
}

// countingAll returns a store with one limit for all subjects.
func countingAll() store {
	var inserted atomic.Int64
	return store{insert: func(m *session.Memory, c ctx, r session.Record, limit int) ([]session.Session, error) {
		own, err := m.List(c, r.Subject, time.Time{})
		if err != nil {
			return nil, err
		}
		others := int(inserted.Add(1)) - 1 - len(own)
		return m.Insert(c, r, max(limit-others, 1))
	}}
}

func TestWrongStoresFail(t *testing.T) {
	storetest.WantFailures(t, "TestWrongStore", stores, func(w wrongStore) string { return w.fails })
}

func TestWrongStore(t *testing.T) {
	w := stores[storetest.Wrong(t)]
	patience()
	sessiontest.TestStore(t, func(testing.TB) session.Store {
		s := w.store
		s.Memory = newMemory()
		return s
	})
}

// The code that the wrong stores share does not itself fail the suite.
func TestARightStorePasses(t *testing.T) {
	sessiontest.TestStore(t, func(testing.TB) session.Store { return store{Memory: newMemory()} })
}
