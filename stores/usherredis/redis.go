package usherredis

import (
	"cmp"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A Config configures a [Redis].
type Config struct {
	// URL names the server and the credentials, for instance
	// "redis://user:password@redis.internal:6379/0". The scheme rediss uses TLS, and unix a
	// socket. The query parameter dial_timeout limits the time for a new connection; its
	// default is 200 ms. The query parameter write_timeout is the time without a response
	// from the server after which a connection counts as dead; its default is 1 s. URL is
	// required unless there is a Client.
	URL string
	// Client is used in place of connections to URL, for instance for Redis Cluster or
	// Sentinel. Close does not close it. Make it with AlwaysPipelining, so that a late
	// reply does not cost a connection, with a Dialer.Timeout of at most a few hundred
	// milliseconds, and with a ConnWriteTimeout of about a second: an abandoned call takes
	// up memory for that long.
	Client rueidis.Client
	// Prefix begins all keys. The keys of one prefix belong to one application, so two
	// applications that share a server must use different prefixes. Prefix is the hash tag
	// of all keys, so a cluster keeps them on one node. It is required, and has up to 64
	// bytes, none of which is a brace.
	Prefix string
}

// A Redis keeps limits and idempotency records on a Redis server. Any number of processes
// may share them. A Redis is safe for concurrent use.
type Redis struct {
	// A response of a megabyte must not delay decisions, so records have connections of
	// their own, unless the client is the caller's.
	forLimits, forRecords *link
	limits                *limits
	records               *records
}

const maxPrefix = 64

// Open returns a Redis. It makes no connection: the first call of a store does. So a
// program can start while the server is down; [Redis.Check] reports whether the server can
// be used. Open reports every fault of c at once, each as a [*usher.ConfigError].
func Open(c Config) (*Redis, error) {
	var faults []error
	fault := func(faulty bool, field, reason string) {
		if faulty {
			faults = append(faults, &usher.ConfigError{Field: "usherredis.Config." + field, Reason: reason})
		}
	}
	fault(c.Prefix == "", "Prefix", "is required")
	fault(len(c.Prefix) > maxPrefix || strings.ContainsAny(c.Prefix, "{}"), "Prefix", "must have up to 64 bytes and no braces")
	fault(c.URL == "" && c.Client == nil, "URL", "is required unless there is a Client")
	fault(c.URL != "" && c.Client != nil, "URL", "must be empty if there is a Client")
	var option rueidis.ClientOption
	if c.URL != "" {
		var err error
		option, err = options(c.URL)
		// The reason must not repeat any part of the URL, which might be a part of the
		// password.
		fault(err != nil, "URL", "must be a URL such as redis://user:password@host:6379/0")
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}

	tag := "{" + c.Prefix + "}:"
	r := &Redis{forLimits: newLink(option, c.Client), forRecords: newLink(option, c.Client)}
	r.limits = &limits{store: newStore(r.forLimits), tag: tag}
	r.records = &records{store: newStore(r.forRecords), tag: tag}
	return r, nil
}

// Defaults for what the URL does not say.
const (
	dialTimeout  = 200 * time.Millisecond
	writeTimeout = time.Second
	keepAlive    = 500 * time.Millisecond
	bufferSize   = 64 << 10
)

// options returns the options of a client that repeats no call by itself and never waits
// longer than its caller.
func options(address string) (rueidis.ClientOption, error) {
	u, err := url.Parse(address)
	if err != nil {
		return rueidis.ClientOption{}, err
	}
	if u.Host == "" && u.Path == "" {
		return rueidis.ClientOption{}, errors.New("neither host nor path")
	}
	o, err := rueidis.ParseURL(address)
	if err != nil {
		return o, err
	}
	o.Dialer.Timeout = cmp.Or(o.Dialer.Timeout, dialTimeout)
	o.Dialer.KeepAlive = keepAlive
	o.ConnWriteTimeout = cmp.Or(o.ConnWriteTimeout, writeTimeout)
	o.ReadBufferEachConn, o.WriteBufferEachConn = bufferSize, bufferSize
	o.DisableCache, o.DisableRetry = true, true
	o.ForceSingleClient = len(o.InitAddress) == 1 && o.Sentinel.MasterSet == ""
	// Otherwise a call that is alone on its connection ends with its deadline, but not when
	// its context is canceled, and closes the connection if it is late.
	o.AlwaysPipelining = true
	return o, nil
}

// Limits returns the store of package ratelimit: the same one each time. It keeps the usage
// of a key until that no longer counts.
func (r *Redis) Limits() ratelimit.Store { return r.limits }

// Idempotency returns the store of package idempotency: the same one each time.
func (r *Redis) Idempotency() idempotency.Store { return r.records }

// Close closes both stores and the connections. Calls that are running end with
// [usher.ErrClosed] at once; Close itself may take a second if the server is silent. It
// always returns nil.
func (r *Redis) Close() error {
	_ = r.limits.Close()
	_ = r.records.Close()
	r.forLimits.close()
	r.forRecords.close()
	return nil
}
