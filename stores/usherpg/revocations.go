package usherpg

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

// revocations is the list of revocations. What its calls do is written in
// migrations/0009_revocations.sql; each is one statement.
type revocations struct {
	store
	pg *Postgres

	revoke, revoked, after string // statements
}

var _ jwtauth.RevocationSource = (*revocations)(nil)

func newRevocations(p *Postgres) *revocations {
	return &revocations{
		store: newStore(p.open), pg: p,
		revoke:  "SELECT " + p.function("revoke_v1") + "($1::smallint, $2::text, $3::text, $4::bigint, $5::bigint)",
		revoked: "SELECT " + p.function("revoked_v1") + "($1::text, $2::text, $3::text, $4::text, $5::bigint)",
		after:   "SELECT origin, last, page FROM " + p.function("revocations_after_v1") + "($1::bigint)",
	}
}

var errIdentifier = errors.New("usherpg: an issuer, ID or subject to revoke must be valid UTF-8 without NUL, of 1 to 1024 bytes")

// validIdentifier reports whether a token with this issuer, ID or subject can be revoked.
func validIdentifier(s string) bool {
	return s != "" && len(s) <= 1024 && utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}

// RevokeToken implements [jwtauth.Revoker].
func (s *revocations) RevokeToken(ctx context.Context, issuer, id string, until time.Time) error {
	return s.add(ctx, jwtauth.RevokedToken, issuer, id, nil, until)
}

// RevokeSession implements [jwtauth.Revoker].
func (s *revocations) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	return s.add(ctx, jwtauth.RevokedSession, issuer, id, nil, until)
}

// RevokeSubject implements [jwtauth.Revoker].
func (s *revocations) RevokeSubject(ctx context.Context, issuer, subject string, issuedBefore, until time.Time) error {
	before := ceiling(issuedBefore)
	return s.add(ctx, jwtauth.RevokedSubject, issuer, subject, &before, until)
}

// ceiling returns t in microseconds since 1970, rounded up.
func ceiling(t time.Time) int64 {
	us := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		us++
	}
	return us
}

func (s *revocations) add(ctx context.Context, kind jwtauth.RevocationKind, issuer, value string, issuedBefore *int64, until time.Time) error {
	if !validIdentifier(issuer) || !validIdentifier(value) {
		return errIdentifier
	}
	return s.call(ctx, "revoke", func(ctx context.Context) error {
		_, err := s.pg.pool.Exec(ctx, s.revoke, int16(kind), issuer, value, issuedBefore, ceiling(until))
		return err
	})
}

// Revoked implements [jwtauth.Revocations].
func (s *revocations) Revoked(ctx context.Context, t *jwtauth.Token) (revoked bool, err error) {
	// What cannot be revoked is not in the list, and some of it cannot be sent.
	part := func(text string) *string {
		if !validIdentifier(text) {
			return nil
		}
		return &text
	}
	issuer, id, sid, subject := part(t.Issuer), part(t.ID), part(t.SessionID), part(t.Subject)
	if issuer == nil || id == nil && sid == nil && subject == nil {
		return false, s.closed()
	}
	// Rounded down, as the present time of the issuer was.
	err = s.call(ctx, "look for a revocation", func(ctx context.Context) error {
		return s.pg.pool.QueryRow(ctx, s.revoked, issuer, id, sid, subject, micros(t.IssuedAt)).Scan(&revoked)
	})
	return revoked, err
}

// A revocationRow is a row of the table revocations as JSON.
type revocationRow struct {
	Kind         jwtauth.RevocationKind `json:"kind"`
	Issuer       string                 `json:"issuer"`
	Value        string                 `json:"value"`
	IssuedBefore *int64                 `json:"issued_before"`
	Until        int64                  `json:"until"`
	Position     int64                  `json:"position"`
}

// Follow implements [jwtauth.RevocationSource]. It has a connection of its own.
func (s *revocations) Follow(ctx context.Context, after string, ready func(), changed func(jwtauth.Revocation)) error {
	var origin string
	var at int64
	if after != "" {
		dot := strings.LastIndexByte(after, '.')
		if dot < 0 {
			return jwtauth.ErrPosition
		}
		var err error
		origin = after[:dot]
		if at, err = strconv.ParseInt(after[dot+1:], 10, 64); err != nil || at <= 0 {
			return jwtauth.ErrPosition
		}
	}
	lost := false
	err := s.follow(ctx, s.pg.pool, "follow the revocations", func(ctx context.Context, f *feed) error {
		newest := int64(-1) // when Follow was called; before ready
		for first := true; ; first = false {
			var now string
			var last int64
			var text []byte
			if err := f.query(ctx, s.after, []any{at}, &now, &last, &text); err != nil {
				return err
			}
			if origin == "" {
				origin = now
			}
			if now != origin || at > last {
				lost = true
				return errHistory
			}
			if first {
				newest = last
			}
			var rows []revocationRow
			if err := unmarshal(text, &rows); err != nil {
				return err
			}
			for i := range rows {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				r := &rows[i]
				at = r.Position
				changed(jwtauth.Revocation{
					Position: origin + "." + strconv.FormatInt(at, 10), Kind: r.Kind, Issuer: r.Issuer, Value: r.Value,
					IssuedBefore: timeOf(r.IssuedBefore), Until: timeOf(&r.Until),
				})
			}
			more := len(rows) == atOnce
			if !more {
				at = last // what is missing was extended or removed
			}
			if newest >= 0 && at >= newest {
				newest = -1
				if ctx.Err() != nil {
					return ctx.Err()
				}
				ready()
			}
			if more {
				continue
			}
			if err := f.pause(ctx); err != nil {
				return err
			}
		}
	})
	switch {
	case ctx.Err() != nil:
		return nil
	case lost:
		return fmt.Errorf("%w: %w", err, jwtauth.ErrPosition)
	}
	return err
}

// atOnce is how many revocations a call returns at most.
const atOnce = 1000

var errHistory = &failure{kind: usher.ErrUnavailable, text: "follow the revocations: the database has another history"}
