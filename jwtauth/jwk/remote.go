package jwk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/outbound"
	"github.com/usher-go/usher/internal/report"
)

// RemoteConfig configures a [Remote].
type RemoteConfig struct {
	// URL is where the issuer publishes its keys. It must be https, unless
	// DangerouslyAllowHTTP is set. Required.
	URL string
	// Client fetches the keys; nil means [http.DefaultClient]. Its CheckRedirect and Jar
	// are not used: redirects are followed only on the host of URL, and no cookies are
	// sent.
	Client *http.Client
	// Timeout bounds each fetch, and how long a request waits for the first fetch; zero
	// means 5 seconds.
	Timeout time.Duration
	// RefreshEvery is how often the keys are fetched, and so how long a removed key may
	// still be accepted; zero means every 10 minutes. A jitter of up to 10% is
	// subtracted.
	RefreshEvery time.Duration
	// CoolDown is the shortest time between two fetches that tokens with an unknown kid
	// or a bad signature cause; zero means 30 seconds. It is also the longest time
	// between attempts after a failure.
	CoolDown time.Duration
	// StaleAfter is how long the last good set is used while no new one can be fetched.
	// After that the keys are unavailable, which leads to a 503 for every token. Zero
	// means 6 hours; StaleAfter must be longer than RefreshEvery.
	StaleAfter time.Duration
	// MaxBody limits the size of the set in bytes; zero means 1 MiB.
	MaxBody int64
	// MaxKeys limits the number of keys in the set; zero means 100.
	MaxKeys int
	// DangerouslyAllowHTTP accepts a URL without TLS. Anybody on the network path can
	// then add keys of their own.
	DangerouslyAllowHTTP bool
	// OnError is called for each fetch that fails, and for keys that are skipped because
	// they cannot be used. It is not called while an earlier call is still running; a
	// slow call delays no fetch. Nil logs to [log/slog.Default], at most one line a second.
	OnError func(ctx context.Context, err error)
}

// A Remote is a [Set] that its issuer publishes at a URL (RFC 7517, section 5).
// It is safe for concurrent use.
//
// Requests with a token wait only for the first fetch, which is over at most Timeout
// after [NewRemote]. Later fetches happen ahead of time, and no request waits for them. A
// token with an unknown kid is refused at once and causes a fetch, at most once per
// CoolDown. Keys are skipped if they are too weak, not for signatures, symmetric, or of
// an unknown type. A response that is not a set, or has no usable key, counts as a failed
// fetch and changes nothing.
type Remote struct {
	fetcher
	refresh, coolDown, stale, timeout time.Duration
	reporter                          *report.Reporter

	state  atomic.Pointer[snapshot]
	first  chan struct{} // closed when the first fetch is over
	wanted chan struct{} // not empty when a fetch is wanted
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// A snapshot is the state of the set at one time. It never changes.
type snapshot struct {
	keys    []*Key
	version uint64
	fetched time.Time // when the set was requested; zero if there is none
	err     error     // why the last fetch failed
	next    time.Time // when the next one is due
}

var _ Refresher = (*Remote)(nil)

// NewRemote returns a Remote, or all faults of c. It starts a goroutine that fetches
// the keys at once and ends with [Remote.Close].
func NewRemote(c RemoteConfig) (*Remote, error) {
	f := config.Of[usher.ConfigError]("jwk.RemoteConfig")
	u, err := outbound.ParseURL(c.URL, c.DangerouslyAllowHTTP)
	if err != nil {
		f.Add("URL", err.Error())
	}
	f.If(c.Timeout < 0, "Timeout", config.NotNegative)
	f.If(c.RefreshEvery < 0, "RefreshEvery", config.NotNegative)
	f.If(c.CoolDown < 0, "CoolDown", config.NotNegative)
	f.If(c.StaleAfter < 0, "StaleAfter", config.NotNegative)
	f.If(c.MaxBody < 0, "MaxBody", config.NotNegative)
	f.If(c.MaxKeys < 0, "MaxKeys", config.NotNegative)
	r := &Remote{
		refresh:  cmp.Or(c.RefreshEvery, 10*time.Minute),
		coolDown: cmp.Or(c.CoolDown, 30*time.Second),
		stale:    cmp.Or(c.StaleAfter, 6*time.Hour),
		timeout:  cmp.Or(c.Timeout, 5*time.Second),
		reporter: report.New("jwk.Remote", c.OnError),
		first:    make(chan struct{}),
		wanted:   make(chan struct{}, 1),
	}
	f.If(r.stale >= 0 && r.stale <= r.refresh, "StaleAfter", "must be longer than RefreshEvery")
	if err := f.Err(); err != nil {
		return nil, err
	}
	r.fetcher = newFetcher(u, c)
	r.state.Store(&snapshot{err: errNoKeys})
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	r.done.Go(func() { r.run(ctx) })
	return r, nil
}

var errNoKeys = errors.New("jwk: no keys have been fetched yet")

// Close stops fetching. The last keys are used until they are stale.
func (r *Remote) Close() error {
	r.cancel()
	r.done.Wait()
	return nil
}

// Health returns the age of the set, and the error of the last fetch if it failed. Until
// there is a set, the age is 0 and the error is not nil.
func (r *Remote) Health() (age time.Duration, err error) {
	s := r.state.Load()
	if !s.fetched.IsZero() {
		age = time.Since(s.fetched)
	}
	return age, s.err
}

// Find implements [Set].
func (r *Remote) Find(ctx context.Context, kid string, a Algorithm) ([]*Key, uint64, error) {
	s, err := r.current(ctx)
	if err != nil {
		return nil, 0, err
	}
	keys := fitting(s.keys, kid, a)
	if len(keys) == 0 {
		r.Refresh()
	}
	return keys, s.version, nil
}

// Version implements [Set].
func (r *Remote) Version() (uint64, error) {
	s := r.state.Load()
	return s.version, r.usable(s)
}

// Refresh implements [Refresher]. The keys are fetched at most once per CoolDown.
func (r *Remote) Refresh() {
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// current returns the snapshot if its keys may be used. It waits for the first fetch.
func (r *Remote) current(ctx context.Context) (*snapshot, error) {
	s := r.state.Load()
	if s.next.IsZero() {
		patience := time.NewTimer(r.timeout)
		defer patience.Stop()
		select {
		case <-r.first:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-patience.C:
		}
		s = r.state.Load()
	}
	return s, r.usable(s)
}

// usable returns the reason why the keys of s must not be used, or nil.
func (r *Remote) usable(s *snapshot) error {
	if !s.fetched.IsZero() && time.Since(s.fetched) < r.stale {
		return nil
	}
	reason := s.err
	if reason == nil {
		reason = errors.New("jwk: the keys are stale")
	}
	return &unavailableError{reason: reason, retryAfter: time.Until(s.next)}
}

// An unavailableError reports when the next fetch is due.
type unavailableError struct {
	reason     error
	retryAfter time.Duration
}

func (e *unavailableError) Error() string             { return e.reason.Error() }
func (e *unavailableError) Unwrap() error             { return e.reason }
func (e *unavailableError) RetryAfter() time.Duration { return e.retryAfter }

// run fetches the keys when they are due or wanted, until ctx ends.
func (r *Remote) run(ctx context.Context) {
	failures := 0
	for started := false; ; started = true {
		// This fetch serves all requests for a fetch until now.
		select {
		case <-r.wanted:
		default:
		}
		last := time.Now()
		err := r.update(ctx, last, &failures)
		if !started {
			close(r.first)
		}
		if err != nil && ctx.Err() == nil {
			r.reporter.Background(ctx, err)
		}
		if !r.wait(ctx, last) {
			return
		}
	}
}

// wait waits until the next fetch is due, and returns false if ctx ends first.
func (r *Remote) wait(ctx context.Context, last time.Time) bool {
	due := r.state.Load().next
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for wanted := r.wanted; ; wanted = nil {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-wanted:
			if soon := last.Add(r.coolDown); soon.Before(due) {
				timer.Reset(time.Until(soon))
			}
		}
	}
}

// update fetches the set, and stores it or the error. It also returns an error if keys
// were skipped.
func (r *Remote) update(ctx context.Context, now time.Time, failures *int) error {
	old := r.state.Load()
	s := *old
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var set fetchedSet
	err := guard.Run(func() (err error) { set, err = r.fetch(ctx); return err })
	if err != nil {
		*failures++
		s.err = fmt.Errorf("jwk: fetching keys: %w", err)
		s.next = time.Now().Add(r.backoff(*failures))
		r.state.Store(&s)
		return s.err
	}
	*failures = 0
	s.err, s.fetched = nil, now
	s.next = now.Add(r.refresh - rand.N(r.refresh/10+1))
	if old.fetched.IsZero() || !sameKeys(old.keys, set.keys) {
		s.keys, s.version = set.keys, old.version+1
	}
	r.state.Store(&s)
	return set.skipped
}

// backoff returns how long to wait after this number of failures.
func (r *Remote) backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 20), r.coolDown, r.refresh)
}
