package usherpg

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/usher-go/usher/jwtauth/session"
)

// sessions is the store of sessions. What its calls do is written in
// migrations/0008_sessions.sql and migrations/0013_deliveries.sql; each is one statement.
type sessions struct {
	store
	pg *Postgres

	insert, lookup, list, update, deliver, revoke, revokeSubject string // statements
}

var _ session.Store = (*sessions)(nil)

func newSessions(p *Postgres) *sessions {
	call := func(name, arguments string) string { return "SELECT " + p.function(name) + "(" + arguments + ")" }
	return &sessions{
		store: newStore(p.open), pg: p,
		insert:        call("insert_session_v1", "$1::jsonb, $2::bigint"),
		lookup:        call("lookup_session_v1", "$1::bytea"),
		list:          call("list_sessions_v1", "$1::text, $2::bigint"),
		update:        call("update_session_v1", "$1::jsonb"),
		deliver:       call("deliver_session_v1", "$1::text, $2::text"),
		revoke:        call("revoke_session_v1", "$1::text, $2::text, $3::bigint"),
		revokeSubject: call("revoke_subject_v1", "$1::text, $2::bigint"),
	}
}

// A sessionRow is a row of the table sessions as JSON.
type sessionRow struct {
	ID          string            `json:"id"`
	Handle      binary            `json:"handle"`
	Current     binary            `json:"current"`
	Previous    binary            `json:"previous"`
	Subject     string            `json:"subject"`
	Client      string            `json:"client"`
	Scopes      []string          `json:"scopes"`
	Data        map[string]string `json:"data"`
	CreatedAt   int64             `json:"created_at"`
	RefreshedAt int64             `json:"refreshed_at"`
	ExpiresAt   int64             `json:"expires_at"`
	EndsAt      int64             `json:"ends_at"`
	RevokedAt   *int64            `json:"revoked_at"`
	TokenID     string            `json:"token_id"`
	Delivered   bool              `json:"delivered"`
	Response    binary            `json:"response"`
	Revision    int64             `json:"revision"`
}

// rowOfSession returns r as an argument.
func rowOfSession(r *session.Record) (string, error) {
	row := sessionRow{
		ID: r.ID, Handle: r.Handle[:], Current: r.Current[:], Previous: r.Previous[:],
		Subject: r.Subject, Client: r.Client, Scopes: r.Scopes, Data: r.Data,
		CreatedAt: r.CreatedAt.UnixMicro(), RefreshedAt: r.RefreshedAt.UnixMicro(),
		ExpiresAt: r.ExpiresAt.UnixMicro(), EndsAt: r.EndsAt.UnixMicro(), RevokedAt: micros(r.RevokedAt),
		TokenID: r.TokenID, Delivered: r.Delivered, Response: r.Response, Revision: r.Revision,
	}
	if row.Scopes == nil {
		row.Scopes = []string{}
	}
	if row.Data == nil {
		row.Data = map[string]string{}
	}
	if row.Response == nil {
		row.Response = binary{}
	}
	text, err := json.Marshal(row)
	return string(text), err
}

// record returns the record of a row.
func (row *sessionRow) record() (r session.Record, err error) {
	for _, h := range []struct {
		to   *[sha256.Size]byte
		from binary
	}{{&r.Handle, row.Handle}, {&r.Current, row.Current}, {&r.Previous, row.Previous}} {
		if len(h.from) != sha256.Size {
			return r, errUnreadable
		}
		*h.to = [sha256.Size]byte(h.from)
	}
	r.Session = session.Session{
		ID: row.ID, Subject: row.Subject, Client: row.Client, Scopes: row.Scopes, Data: row.Data,
		CreatedAt: timeOf(&row.CreatedAt), RefreshedAt: timeOf(&row.RefreshedAt),
		ExpiresAt: timeOf(&row.ExpiresAt), EndsAt: timeOf(&row.EndsAt), RevokedAt: timeOf(row.RevokedAt),
	}
	r.TokenID, r.Delivered, r.Response, r.Revision = row.TokenID, row.Delivered, row.Response, row.Revision
	return r, nil
}

// read makes a call whose result is a JSON text. It reports false for null.
func (s *sessions) read(ctx context.Context, what string, into any, sql string, args ...any) (found bool, err error) {
	err = s.call(ctx, what, func(ctx context.Context) error {
		var text []byte
		if err := s.pg.pool.QueryRow(ctx, sql, args...).Scan(&text); err != nil {
			return err
		}
		if found = text != nil; !found {
			return nil
		}
		return unmarshal(text, into)
	})
	return found, err
}

// one makes a call whose result is a session, or null if there is none.
func (s *sessions) one(ctx context.Context, what, sql string, args ...any) (session.Record, error) {
	var row sessionRow
	found, err := s.read(ctx, what, &row, sql, args...)
	switch {
	case err != nil:
		return session.Record{}, err
	case !found:
		return session.Record{}, session.ErrNotFound
	}
	return row.record()
}

// many makes a call whose result is a list of sessions, or null if there is a conflict.
func (s *sessions) many(ctx context.Context, what, sql string, args ...any) ([]session.Session, error) {
	var rows []sessionRow
	found, err := s.read(ctx, what, &rows, sql, args...)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, session.ErrConflict
	}
	list := make([]session.Session, len(rows))
	for i := range rows {
		r, err := rows[i].record()
		if err != nil {
			return nil, err
		}
		list[i] = r.Session
	}
	return list, nil
}

// Insert implements [session.Store].
func (s *sessions) Insert(ctx context.Context, r session.Record, limit int) (ended []session.Session, err error) {
	row, err := rowOfSession(&r)
	if err != nil {
		return nil, err
	}
	return s.many(ctx, "insert a session", s.insert, row, limit)
}

// Lookup implements [session.Store].
func (s *sessions) Lookup(ctx context.Context, handle [sha256.Size]byte) (session.Record, error) {
	return s.one(ctx, "look up a session", s.lookup, handle[:])
}

// List implements [session.Store].
func (s *sessions) List(ctx context.Context, subject string, now time.Time) ([]session.Session, error) {
	return s.many(ctx, "list sessions", s.list, subject, now.UnixMicro())
}

// Update implements [session.Store].
func (s *sessions) Update(ctx context.Context, r session.Record) error {
	row, err := rowOfSession(&r)
	if err != nil {
		return err
	}
	var updated bool
	err = s.call(ctx, "update a session", func(ctx context.Context) error {
		return s.pg.pool.QueryRow(ctx, s.update, row).Scan(&updated)
	})
	if err != nil {
		return err
	}
	if !updated {
		return session.ErrConflict
	}
	return nil
}

// SetDelivered implements [session.Store].
func (s *sessions) SetDelivered(ctx context.Context, sessionID, tokenID string) error {
	return s.call(ctx, "store the delivery of a session", func(ctx context.Context) error {
		_, err := s.pg.pool.Exec(ctx, s.deliver, sessionID, tokenID)
		return err
	})
}

// Revoke implements [session.Store].
func (s *sessions) Revoke(ctx context.Context, subject, id string, at time.Time) (session.Session, error) {
	r, err := s.one(ctx, "revoke a session", s.revoke, subject, id, at.UnixMicro())
	return r.Session, err
}

// RevokeSubject implements [session.Store].
func (s *sessions) RevokeSubject(ctx context.Context, subject string, at time.Time) (ended []session.Session, err error) {
	return s.many(ctx, "revoke the sessions of a subject", s.revokeSubject, subject, at.UnixMicro())
}
