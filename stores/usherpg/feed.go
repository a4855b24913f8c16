package usherpg

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher"
)

// A feed follows what other programs change. It asks, again and again, on a connection of
// its own: that works behind PgBouncer too, which has no LISTEN, and each reply shows that
// the server can still be reached.
type feed struct{ conn *pgx.Conn }

const (
	// feedInterval is how long a change may stay unnoticed.
	feedInterval = 100 * time.Millisecond
	// feedTimeout bounds each question. With feedInterval it is less than a second.
	feedTimeout = 700 * time.Millisecond
)

// follow calls f with a feed, until ctx ends or the store is closed.
func (s *store) follow(ctx context.Context, pool *pgxpool.Pool, what string, f func(context.Context, *feed) error) error {
	return s.call(ctx, what, func(ctx context.Context) error {
		acquired, err := pool.Acquire(ctx)
		if err != nil {
			return &failure{text: what + ": " + reason(err), kind: usher.ErrUnavailable}
		}
		// Taken out of the pool, the connection uses none of its places.
		conn := acquired.Hijack()
		defer func() {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), feedTimeout)
			defer cancel()
			_ = conn.Close(closing)
		}()
		// It is not called again: f may have passed something on.
		if err := f(ctx, &feed{conn}); err != nil {
			return failed(what, err)
		}
		return nil
	})
}

// query asks once.
func (f *feed) query(ctx context.Context, sql string, args []any, into ...any) error {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	return f.conn.QueryRow(ctx, sql, args...).Scan(into...)
}

// pause waits until it is time to ask again.
func (f *feed) pause(ctx context.Context) error {
	timer := time.NewTimer(feedInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errUnreadable = &failure{kind: usher.ErrCorrupt, text: "what is stored cannot be read"}

// unmarshal reads a row, or a list of rows, that the server has sent as JSON.
func unmarshal(text []byte, into any) error {
	if json.Unmarshal(text, into) != nil {
		return errUnreadable
	}
	return nil
}

// binary is a bytea as JSON.
type binary []byte

// MarshalText implements [encoding.TextMarshaler].
func (b binary) MarshalText() ([]byte, error) { return hex.AppendEncode([]byte(`\x`), b), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (b *binary) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), `\x`)
	if !ok {
		return errUnreadable
	}
	var err error
	*b, err = hex.DecodeString(digits)
	return err
}

// micros returns t in microseconds since 1970, or nil for the zero time.
func micros(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	us := t.UnixMicro()
	return &us
}

// timeOf returns the time that micros was given.
func timeOf(us *int64) time.Time {
	if us == nil {
		return time.Time{}
	}
	return time.UnixMicro(*us).UTC()
}
