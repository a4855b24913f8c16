package usherredis

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher"
)

// oldest is the first version of Redis on which the scripts run. Valkey reports a later
// version of Redis.
const oldest = 7

// Check implements [usher.Checker]. It reports in one round trip whether the server can be
// used: whether it can be reached, is a Redis server of version 7 or later, accepts writes,
// and drops nothing before it expires. It changes nothing. With a Client for a cluster it
// asks one of the nodes.
func (r *Redis) Check(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.limits.ctx, cancel)()
	info, err := r.forLimits.info(ctx)
	switch {
	case err != nil && r.limits.ctx.Err() != nil:
		return errClosed
	case replyCode(err) != "":
		return fmt.Errorf("%w; correct the credentials in Config.URL, or permit their user the command INFO", err)
	case err != nil:
		return fmt.Errorf("%w; start the Redis server, or correct Config.URL", err)
	}
	return info.fault()
}

// An info has what a server reports about itself.
type info map[string]string

func (l *link) info(ctx context.Context) (info, error) {
	m, err := l.call(ctx, func(c rueidis.Client) rueidis.RedisResult { return c.Do(ctx, c.B().Info().Build()) })
	if err != nil {
		return nil, err
	}
	text, err := m.ToString()
	if err != nil {
		return nil, unexpected()
	}
	fields := make(info)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}

// fault returns why the server cannot be used, or nil.
func (i info) fault() error {
	major, _, _ := strings.Cut(i["redis_version"], ".")
	version, _ := strconv.Atoi(major)
	switch {
	case version == 0:
		return fmt.Errorf("usherredis: the server does not identify itself as Redis: correct Config.URL: %w", usher.ErrUnavailable)
	case i["redis_mode"] == "sentinel":
		return fmt.Errorf("usherredis: the server is a Sentinel, which keeps no data: "+
			"set Config.Client to a client for Sentinel, or Config.URL to the primary: %w", usher.ErrUnavailable)
	case version < oldest:
		return fmt.Errorf("usherredis: the server has version %s: use Redis %d or later, or Valkey: %w", i["redis_version"], oldest, usher.ErrUnavailable)
	case i["loading"] == "1":
		return fmt.Errorf("usherredis: the server is loading its data: wait until it has finished: %w", usher.ErrUnavailable)
	case i["role"] != "master":
		return fmt.Errorf("usherredis: the server is a read-only replica: set Config.URL to its primary: %w", usher.ErrUnavailable)
	case i["maxmemory_policy"] != "noeviction":
		return fmt.Errorf("usherredis: the server drops keys when its memory is full, and with them limits and records: "+
			"set maxmemory-policy to noeviction; it is %s", i["maxmemory_policy"])
	}
	return nil
}

var _ usher.Checker = (*Redis)(nil)
