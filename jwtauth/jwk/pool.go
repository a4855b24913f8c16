package jwk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/shard"
)

// PoolConfig configures a [Pool].
type PoolConfig struct {
	// Remote is what the sets of the pool have in common. Its URL and Issuer must be
	// empty. OnError is called with errors that name the set, and may be called for
	// several sets at the same time.
	Remote RemoteConfig
	// Capacity is how many sets are kept; zero means 1,024. It is divided among shards, so
	// a set may be closed shortly before there are so many.
	Capacity int
	// IdleTimeout is how long a set is kept, and fetched, that no token asks for; zero
	// means an hour.
	IdleTimeout time.Duration
}

// A Pool has the published key sets of many issuers, such as the tenants of a service,
// most of which are idle. A set is fetched when a token asks for it, and kept until it is
// idle or the least recently used of too many. It is then fetched again for the next token.
// At most 64 sets are fetched for the first time at once; requests for other sets that are
// not in the Pool wait for half of the Timeout, and then get a 503. A Pool is safe for
// concurrent use.
//
// The application names the sets. Do not pass an iss that is not on a list of issuers: a
// caller chooses it, and would choose what the server connects to.
type Pool struct {
	template RemoteConfig
	idle     time.Duration
	reporter *report.Reporter

	remotes   *shard.Cache[source, *pooled]
	made      atomic.Uint64
	closed    atomic.Bool
	opening   *guard.Guard
	remaining sync.WaitGroup // the Remotes that have not been closed
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// A source says where a set is.
type source struct{ issuer, url string }

func (s source) String() string { return cmp.Or(s.issuer, s.url) }

// A pooled is a Remote in a Pool. The lock of its shard guards the last three fields.
type pooled struct {
	remote *Remote
	number uint64 // of all that the pool has made

	users   int // calls that use the Remote
	used    time.Time
	evicted bool
}

// NewPool returns an empty Pool, or all faults of c. It starts a goroutine that ends with
// [Pool.Close].
func NewPool(c PoolConfig) (*Pool, error) {
	f := config.Of[usher.ConfigError]("jwk.PoolConfig")
	f.If(c.Capacity < 0, "Capacity", config.NotNegative)
	f.If(c.IdleTimeout < 0, "IdleTimeout", config.NotNegative)
	remote := f.In("Remote")
	remote.If(c.Remote.URL != "", "URL", "must be empty, because each set has its own")
	remote.If(c.Remote.Issuer != "", "Issuer", "must be empty, because each set has its own")
	sample := c.Remote
	sample.URL, sample.Issuer = "https://issuer.example", ""
	timeout := newRemote(remote, sample).timeout
	if err := f.Err(); err != nil {
		return nil, err
	}
	p := &Pool{
		template: c.Remote,
		idle:     cmp.Or(c.IdleTimeout, time.Hour),
		reporter: report.New("jwk.Pool", c.Remote.OnError),
		opening:  guard.New(timeout, maxOpening).NeverOpen(),
	}
	p.remotes = shard.New(cmp.Or(c.Capacity, 1024), func(_ source, e *pooled) { p.evict(e) })
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	p.done.Go(func() { p.run(ctx) })
	return p, nil
}

// Issuer returns the set that the metadata of an issuer names; see [RemoteConfig.Issuer].
// It costs nothing and may be called for each token: the set is fetched when a verifier
// asks for a key. If the name is not that of an issuer with a set, the keys are
// unavailable.
func (p *Pool) Issuer(issuer string) Set { return tenant{p, source{issuer: issuer}} }

// URL returns the set at a URL, as Issuer does.
func (p *Pool) URL(url string) Set { return tenant{p, source{url: url}} }

// Close closes all sets. Their keys are unavailable after that.
func (p *Pool) Close() error {
	p.stop()
	p.closed.Store(true)
	for i := range p.remotes.Shards() {
		s := p.remotes.At(i)
		s.Lock()
		for _, e := range s.Values() {
			e.remote.cancel() // requests wait no more
		}
		s.Purge()
		s.Unlock()
	}
	p.done.Wait()
	p.remaining.Wait()
	return nil
}

var (
	errPoolClosed = errors.New("jwk: the pool is closed")
	errNotOpen    = errors.New("jwk: the set is not in the pool")
)

// maxOpening is how many sets are fetched for the first time at once. Callers who name many
// tenants could otherwise cause as many connections.
const maxOpening = 64

// acquire returns the set for use until release is called. If it is not in the pool,
// acquire makes it and waits until it was fetched.
func (p *Pool) acquire(ctx context.Context, from source) (*pooled, error) {
	if e := p.use(from); e != nil {
		return e, nil
	}
	e, err := guard.Call(ctx, p.opening, "", func(ctx context.Context) (*pooled, error) {
		e, err := p.open(from)
		if err == nil {
			_, _ = e.remote.current(ctx) // Find returns the error
		}
		return e, err
	}, func(e *pooled, err error) {
		if err == nil {
			p.release(from, e)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("jwk: a set that is not in the pool: %w", err)
	}
	return e, nil
}

// use returns the set for use, or nil if it is not in the pool.
func (p *Pool) use(from source) *pooled {
	s := p.remotes.Shard(from)
	s.Lock()
	defer s.Unlock()
	e, ok := s.Get(from)
	if !ok {
		return nil
	}
	e.users++
	e.used = time.Now()
	return e
}

// open returns the set for use, and makes it if it is not in the pool.
func (p *Pool) open(from source) (*pooled, error) {
	s := p.remotes.Shard(from)
	s.Lock()
	defer s.Unlock()
	e, ok := s.Get(from)
	if !ok {
		if p.closed.Load() {
			return nil, errPoolClosed
		}
		remote, err := NewRemote(p.config(from))
		if err != nil {
			return nil, err
		}
		e = &pooled{remote: remote, number: p.made.Add(1)}
		p.remaining.Add(1)
		s.Add(from, e)
	}
	e.users++
	e.used = time.Now()
	return e, nil
}

func (p *Pool) release(from source, e *pooled) {
	s := p.remotes.Shard(from)
	s.Lock()
	defer s.Unlock()
	e.users--
	e.used = time.Now()
	if e.evicted && e.users == 0 {
		p.close(e)
	}
}

// evict closes a set that is no longer in the pool, once nobody uses it.
func (p *Pool) evict(e *pooled) {
	e.evicted = true
	if e.users == 0 {
		p.close(e)
	}
}

func (p *Pool) close(e *pooled) {
	go func() {
		defer p.remaining.Done()
		_ = e.remote.Close()
	}()
}

// present returns the set if it is in the pool. It counts as a use.
func (p *Pool) present(from source) (*pooled, error) {
	s := p.remotes.Shard(from)
	s.Lock()
	defer s.Unlock()
	e, ok := s.Get(from)
	if !ok {
		return nil, errNotOpen
	}
	e.used = time.Now()
	return e, nil
}

// config returns the configuration of a set.
func (p *Pool) config(from source) RemoteConfig {
	c := p.template
	c.Issuer, c.URL = from.issuer, from.url
	c.OnError = func(ctx context.Context, err error) {
		p.reporter.Error(ctx, fmt.Errorf("jwk: the keys of %s: %w", from, err))
	}
	return c
}

// run closes sets that are idle, until ctx ends.
func (p *Pool) run(ctx context.Context) {
	timer := time.NewTicker(max(p.idle/8, time.Millisecond))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-timer.C:
			p.removeIdle(now)
		}
	}
}

func (p *Pool) removeIdle(now time.Time) {
	for i := range p.remotes.Shards() {
		s := p.remotes.At(i)
		s.Lock()
		for {
			_, e, ok := s.GetOldest()
			if !ok || e.users > 0 || now.Sub(e.used) < p.idle {
				break
			}
			s.RemoveOldest()
		}
		s.Unlock()
	}
}

// A tenant is the set of a source.
type tenant struct {
	pool *Pool
	from source
}

var _ Refresher = tenant{}

// Find implements [Set].
func (t tenant) Find(ctx context.Context, kid string, a Algorithm) ([]*Key, uint64, error) {
	e, err := t.pool.acquire(ctx, t.from)
	if err != nil {
		return nil, 0, err
	}
	defer t.pool.release(t.from, e)
	keys, version, err := e.remote.Find(ctx, kid, a)
	return keys, e.version(version), err
}

// Refresh implements [Refresher].
func (t tenant) Refresh(ctx context.Context, kid string, a Algorithm, verifies func(*Key) bool) (uint64, bool, error) {
	e, err := t.pool.acquire(ctx, t.from)
	if err != nil {
		return 0, false, err
	}
	defer t.pool.release(t.from, e)
	version, ok, err := e.remote.Refresh(ctx, kid, a, verifies)
	return e.version(version), ok, err
}

// peek implements peeker.
func (t tenant) peek(kid string, a Algorithm) ([]*Key, error) {
	e, err := t.pool.present(t.from)
	if err != nil {
		return nil, err
	}
	return e.remote.peek(kid, a)
}

// Version implements [Set].
func (t tenant) Version() (uint64, error) {
	e, err := t.pool.present(t.from)
	if err != nil {
		return 0, err
	}
	version, err := e.remote.Version()
	return e.version(version), err
}

// version returns the version of a set among all that the pool has made: one that is made
// again may lack keys that the former one had.
func (e *pooled) version(of uint64) uint64 { return combine(combine(0, e.number), of) }
