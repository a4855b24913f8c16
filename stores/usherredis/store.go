package usherredis

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// A store has what all stores have in common: a link, and a context that ends when the
// store is closed.
type store struct {
	link   *link
	ctx    context.Context // ends when the store is closed
	cancel context.CancelFunc
}

func newStore(l *link) store {
	ctx, cancel := context.WithCancel(context.Background())
	return store{l, ctx, cancel}
}

// Close implements ratelimit.Store and idempotency.Store. The connections belong to the
// Redis, so they stay open.
func (s *store) Close() error {
	s.cancel()
	return nil
}

// run runs a script in one round trip, or in two if the server does not know the script
// yet. It ends when ctx does or when the store is closed.
func (s *store) run(ctx context.Context, script *rueidis.Lua, keys, args []string) (rueidis.RedisMessage, error) {
	if s.ctx.Err() != nil {
		return rueidis.RedisMessage{}, errClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	m, err := s.link.call(ctx, func(c rueidis.Client) rueidis.RedisResult { return script.Exec(ctx, c, keys, args) })
	if err != nil && s.ctx.Err() != nil {
		return m, errClosed
	}
	return m, err
}

// integers runs a script that returns n integers.
func (s *store) integers(ctx context.Context, script *rueidis.Lua, keys, args []string, n int) ([]int64, error) {
	if len(keys) == 0 {
		if s.ctx.Err() != nil {
			return nil, errClosed
		}
		return nil, nil
	}
	m, err := s.run(ctx, script, keys, args)
	if err != nil {
		return nil, err
	}
	list, err := m.AsIntSlice()
	if err != nil || len(list) != n {
		return nil, unexpected()
	}
	return list, nil
}

// A clock, which only tests set, returns the time that the server takes for the present
// time, in microseconds since 1970. Nil means the clock of the server.
type clock func() int64

// time returns the first argument of a script.
func (c clock) time() string {
	if c == nil {
		return ""
	}
	return strconv.FormatInt(c(), 10)
}

// microseconds returns a duration in whole microseconds, rounded up.
func microseconds(d time.Duration) int64 {
	return int64((d + time.Microsecond - 1) / time.Microsecond)
}

func micros(d time.Duration) string { return strconv.FormatInt(microseconds(d), 10) }
