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

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/telemetry"
)

// RemoteConfig configures a [Remote].
type RemoteConfig struct {
	// URL is where the issuer publishes its keys. It must be https, unless
	// DangerouslyAllowHTTP is set. Required, unless Issuer is set.
	URL string
	// Issuer is the issuer's name, in place of URL: the keys are at the jwks_uri of its
	// metadata, which is that of OpenID Connect Discovery 1.0 or, if there is none, of RFC
	// 8414. The issuer that the metadata names must equal Issuer exactly, a slash at the
	// end included; metadata of another issuer is a failed fetch. Each routine refresh
	// asks for the metadata again. The name must be a URL, with https as in URL.
	Issuer string
	// Client fetches the keys; nil means [http.DefaultClient]. Its CheckRedirect and Jar
	// are not used: redirects are followed only on the host that was asked, and no cookies
	// are sent.
	Client *http.Client
	// Timeout bounds each fetch, that of the metadata included, and how long a request
	// waits for the first fetch; zero means 5 seconds.
	Timeout time.Duration
	// RefreshEvery is how often the keys are fetched, and so how long a removed key may
	// still be accepted; zero means every 10 minutes. A jitter of up to 10% is
	// subtracted.
	RefreshEvery time.Duration
	// CoolDown is how long no token causes a fetch after one that a token has caused and
	// that has found no new key; zero means 30 seconds. It is also the longest time
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
	// Use is the use (RFC 7517, section 4.2) of the keys in the set that are for tokens;
	// empty means "sig", and keys that name no use. Keys with another use are ignored. For
	// the trust bundle of a SPIFFE trust domain, Use is "jwt-svid".
	Use string
	// DangerouslyAllowHTTP accepts URLs without TLS. Anybody on the network path can
	// then add keys of their own.
	DangerouslyAllowHTTP bool
	// OnError is called for each fetch that fails, and for keys for signatures that are
	// skipped because they cannot be used: once, and again when other keys are skipped. It
	// is not called while an earlier call is still running; a slow call delays no fetch.
	// OnError may close the Remote. Nil logs to [log/slog.Default], at most one line a
	// second.
	OnError func(ctx context.Context, err error)
	// MeterProvider measures the fetches as usher.jwk.fetch.duration; nil means the global
	// one.
	MeterProvider metric.MeterProvider
}

// A Remote is a [Set] that its issuer publishes (RFC 7517, section 5).
// It is safe for concurrent use.
//
// Requests wait for the first fetch, which is over at most Timeout after [NewRemote].
// Later the set is fetched ahead of time, and a token whose key is in the set never
// waits. The key of any other token may have been published a moment ago. Its request
// waits for a fetch that begins after the request came, but at most a second; all requests
// share one fetch, and at most 64 wait. The token is refused if the fetched set does not
// have its key either. If no fetch ends in time or succeeds, the keys are unavailable,
// which leads to a 503.
//
// A fetch that such a token has caused and that has found no new key starts a CoolDown,
// before the end of which no token causes another. Until then the keys are unavailable,
// but if the set has a key with the kid of the token, its signature is bad. Tokens of the
// last 64 keys that were removed from the set are refused too, and cause a fetch only if
// the last one is older than a CoolDown.
//
// Keys are skipped if they are too weak, not for signatures, symmetric, or of an unknown
// type. A response that is not a set, or has no usable key, counts as a failed fetch and
// changes nothing.
type Remote struct {
	fetcher
	refresh, coolDown, stale, timeout time.Duration
	reporter                          *report.Reporter
	durations                         *telemetry.Timer

	state   atomic.Pointer[snapshot]
	begun   atomic.Uint64 // the number of fetches that have begun
	waiting chan struct{} // has an element for each request that waits in await
	closed  <-chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

var _ Refresher = (*Remote)(nil)

// NewRemote returns a Remote, or all faults of c. It starts a goroutine that fetches
// the keys at once and ends with [Remote.Close].
func NewRemote(c RemoteConfig) (*Remote, error) {
	f := config.Of[usher.ConfigError]("jwk.RemoteConfig")
	r := newRemote(f, c)
	if err := f.Err(); err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	r.closed = ctx.Done()
	r.done.Go(func() { r.run(ctx) })
	return r, nil
}

// newRemote returns a Remote that does nothing yet, and adds the faults of c to f.
func newRemote(f config.Faults[usher.ConfigError], c RemoteConfig) *Remote {
	fetcher := newFetcher(f, c)
	f.If(c.Timeout < 0, "Timeout", config.NotNegative)
	f.If(c.RefreshEvery < 0, "RefreshEvery", config.NotNegative)
	f.If(c.CoolDown < 0, "CoolDown", config.NotNegative)
	f.If(c.StaleAfter < 0, "StaleAfter", config.NotNegative)
	r := &Remote{
		fetcher:   fetcher,
		refresh:   cmp.Or(c.RefreshEvery, 10*time.Minute),
		coolDown:  cmp.Or(c.CoolDown, 30*time.Second),
		stale:     cmp.Or(c.StaleAfter, 6*time.Hour),
		timeout:   cmp.Or(c.Timeout, 5*time.Second),
		reporter:  report.New("jwk.Remote", c.OnError),
		durations: fetches.Timer(c.MeterProvider, nil),
		waiting:   make(chan struct{}, maxWaiting),
	}
	f.If(r.stale >= 0 && r.stale <= r.refresh, "StaleAfter", "must be longer than RefreshEvery")
	r.state.Store(newSnapshot())
	return r
}

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
	if a.Symmetric() {
		return nil, 0, nil // a published set has no secrets
	}
	s, err := r.current(ctx)
	if err != nil {
		return nil, 0, err
	}
	if keys := fitting(s.keys, kid, a); len(keys) > 0 {
		return keys, s.version, nil
	}
	return r.join(ctx, &search{kid: kid, algorithm: a})
}

// Refresh implements [Refresher]. It waits as Find does for a token whose key is not in
// the set.
func (r *Remote) Refresh(ctx context.Context, kid string, a Algorithm, verifies func(*Key) bool) (version uint64, ok bool, err error) {
	if a.Symmetric() {
		return 0, false, nil
	}
	// In Sets, Find may have returned keys of another set before the first fetch was over.
	if _, err := r.current(ctx); err != nil {
		return 0, false, err
	}
	keys, version, err := r.join(ctx, &search{kid: kid, algorithm: a, verifies: verifies})
	return version, len(keys) > 0, err
}

// peek implements peeker.
func (r *Remote) peek(kid string, a Algorithm) ([]*Key, error) {
	if a.Symmetric() {
		return nil, nil
	}
	s := r.state.Load()
	if err := r.usable(s); err != nil {
		return nil, err
	}
	return fitting(s.keys, kid, a), nil
}

// Version implements [Set].
func (r *Remote) Version() (uint64, error) {
	s := r.state.Load()
	return s.version, r.usable(s)
}

// current returns the snapshot if its keys may be used. It waits for the first fetch.
func (r *Remote) current(ctx context.Context) (*snapshot, error) {
	s := r.state.Load()
	if s.fetch == 0 {
		patience := time.NewTimer(r.timeout)
		defer patience.Stop()
		select {
		case <-s.replaced:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-patience.C:
		case <-r.closed:
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
	return &unavailableError{reason: reason, retryAt: s.next}
}

// An unavailableError reports when the next fetch is due.
type unavailableError struct {
	reason  error
	retryAt time.Time
}

func (e *unavailableError) Error() string             { return e.reason.Error() }
func (e *unavailableError) Unwrap() error             { return e.reason }
func (e *unavailableError) RetryAfter() time.Duration { return max(time.Until(e.retryAt), 0) }

// run fetches the keys when they are due or wanted, until ctx ends.
func (r *Remote) run(ctx context.Context) {
	caused, ok := false, true
	known := "" // the skipped keys that were reported
	for ok {
		skipped, err := r.update(ctx, caused)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.reporter.Background(ctx, err)
		case skipped == nil:
			known = ""
		case skipped.Error() != known && r.reporter.Background(ctx, skipped):
			known = skipped.Error()
		}
		caused, ok = r.wait(ctx)
	}
}

// wait waits until the next fetch is due, and reports whether a token has caused it that
// may name keys which never existed. It returns false if ctx ends first.
func (r *Remote) wait(ctx context.Context) (caused, ok bool) {
	s := r.state.Load()
	timer := time.NewTimer(time.Until(s.next))
	defer timer.Stop()
	for wanted := s.wanted; ; wanted = nil {
		select {
		case <-ctx.Done():
			return false, false
		case <-timer.C:
			return caused, true
		case cause := <-wanted:
			if s.permitted.Before(s.next) {
				caused = cause
				timer.Reset(time.Until(s.permitted))
			}
		}
	}
}

// update fetches the set, and stores it or the error, which it also returns. The error
// skipped describes the keys that were skipped.
func (r *Remote) update(ctx context.Context, caused bool) (skipped, err error) {
	old := r.state.Load()
	s := old.successor(r.begun.Add(1))
	s.began = time.Now()
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var set fetchedSet
	err = guard.Run(func() (err error) { set, err = r.fetch(limited, caused); return err })
	if ctx.Err() == nil {
		r.durations.Record(ctx, s.began, "", telemetry.CallFailureOf(limited, err))
	}
	switch {
	case ctx.Err() != nil:
		return nil, err // Close has interrupted the fetch, which shows nothing about the keys
	case err != nil:
		s.failures++
		s.err = fmt.Errorf("jwk: fetching keys: %w", err)
		s.next = time.Now().Add(r.backoff(s.failures))
		s.permitted = s.next
	default:
		s.failures, s.err, s.fetched = 0, nil, s.began
		s.next = s.began.Add(r.refresh - rand.N(r.refresh/10+1))
		if fresh := s.replaceKeys(set.keys); caused && !fresh {
			s.permitted = s.began.Add(r.coolDown)
		}
	}
	r.state.Store(s)
	close(old.replaced)
	return set.skipped, s.err
}

// backoff returns how long to wait after this number of failures.
func (r *Remote) backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 20), r.coolDown, r.refresh)
}
