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
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/outbound"
	"github.com/usher-go/usher/internal/report"
)

// RemoteConfig configures a [Remote].
type RemoteConfig struct {
	// URL is where the issuer publishes its keys. It must be https, unless
	// DangerouslyAllowHTTP is set. Required.
	URL string
	// Client fetches them; nil means
	// [http.DefaultClient]. Its CheckRedirect and Jar are
	// not used: redirects stay on the host of URL, and no cookies are sent.
	Client *http.Client
	// Timeout bounds each fetch, and how long a request waits for the first one;
	// zero means 5 seconds.
	Timeout time.Duration
	// RefreshEvery is how often the keys are fetched, and so how long a key that
	// was removed may still be accepted; zero means 10 minutes. A tenth of it is
	// left to chance, so that not all servers ask at once.
	RefreshEvery time.Duration
	// CoolDown is the least time between two fetches that were asked for by tokens
	// with a kid that is not known, or with a signature that does not fit; zero
	// means 30 seconds. It is also the longest time between tries after a failure.
	CoolDown time.Duration
	// StaleAfter is how long the last good set is used while no new one can be
	// fetched. After that the keys are not known, and every token is answered with
	// 503. Zero means 6 hours; it must be longer than RefreshEvery.
	StaleAfter time.Duration
	// MaxBody is the most that the set may have, in bytes; zero means 1 MiB.
	MaxBody int64
	// MaxKeys is the most keys that it may have; zero means 100.
	MaxKeys int
	// Algorithms says what keys are for that do not say it themselves: the first
	// that a key is good for. None means RS256, the ES algorithm of the curve, and
	// EdDSA.
	Algorithms []Algorithm
	// DangerouslyAllowHTTP accepts a URL without TLS, over which whoever is on the
	// way can put in keys of their own.
	DangerouslyAllowHTTP bool
	// OnError is called for each fetch that fails, and for keys that are skipped
	// because they cannot be used. Nil logs to [slog.Default], at most one line a
	// second.
	OnError func(ctx context.Context, err error)
}

// A Remote is a [Set] that its issuer publishes at a URL (RFC 7517, section 5).
// It is safe for concurrent use.
//
// No request waits for a fetch, but for the first: until that is over, at most
// Timeout after [NewRemote], requests with a token wait for it. Keys are fetched
// ahead of time. A token that names a key which is not known is refused at once
// and has the keys fetched, once a CoolDown however many there are. Keys that
// cannot be used are skipped: such as are too weak, not for signatures,
// symmetric, or of a kind that is not known. A response that is no set, or one
// without a key that can be used, is a failed fetch and changes nothing.
type Remote struct {
	fetcher
	refresh, coolDown, stale, timeout time.Duration
	reporter                          *report.Reporter

	state  atomic.Pointer[snapshot]
	first  chan struct{} // closed when the first fetch is over
	wanted chan struct{} // holds something when a fetch is wanted
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// A snapshot is what is known at a time. It never changes.
type snapshot struct {
	keys    []*Key
	version uint64
	fetched time.Time // when the set was asked for; zero if there is none
	err     error     // why the last fetch failed
	next    time.Time // when the next one is due
}

var _ Refresher = (*Remote)(nil)

// NewRemote returns a Remote, or all faults of c. It starts a goroutine that fetches
// the keys at once and ends with [Remote.Close].
func NewRemote(c RemoteConfig) (*Remote, error) {
	var errs []error
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: "jwk.RemoteConfig." + field, Reason: reason})
	}
	u, err := outbound.ParseURL(c.URL, c.DangerouslyAllowHTTP)
	if err != nil {
		fault("URL", err.Error())
	}
	for _, d := range []struct {
		field string
		value int64
	}{
		{"Timeout", int64(c.Timeout)}, {"RefreshEvery", int64(c.RefreshEvery)}, {"CoolDown", int64(c.CoolDown)},
		{"StaleAfter", int64(c.StaleAfter)}, {"MaxBody", c.MaxBody}, {"MaxKeys", int64(c.MaxKeys)},
	} {
		if d.value < 0 {
			fault(d.field, "must not be negative")
		}
	}
	j := &Remote{
		refresh:  cmp.Or(c.RefreshEvery, 10*time.Minute),
		coolDown: cmp.Or(c.CoolDown, 30*time.Second),
		stale:    cmp.Or(c.StaleAfter, 6*time.Hour),
		timeout:  cmp.Or(c.Timeout, 5*time.Second),
		reporter: report.New("jwk.Remote", c.OnError),
		first:    make(chan struct{}),
		wanted:   make(chan struct{}, 1),
	}
	if j.stale <= j.refresh {
		fault("StaleAfter", "must be longer than RefreshEvery")
	}
	for i, a := range c.Algorithms {
		if s, ok := schemes[a]; !ok || s.family == hmacFamily {
			fault(fmt.Sprintf("Algorithms[%d]", i), "is not an asymmetric algorithm of this package")
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	j.fetcher = newFetcher(u, c)
	j.state.Store(&snapshot{err: errNoKeys})
	var ctx context.Context
	ctx, j.cancel = context.WithCancel(context.Background())
	j.done.Go(func() { j.run(ctx) })
	return j, nil
}

var errNoKeys = errors.New("jwk: no keys were fetched yet")

// Close ends the fetching of keys. Those that are known are used until they are
// stale.
func (j *Remote) Close() error {
	j.cancel()
	j.done.Wait()
	return nil
}

// Health returns how old the set is that is in use, and why the last fetch
// failed if it did. Before there is a set its age is 0 and the error is not nil.
func (j *Remote) Health() (age time.Duration, err error) {
	s := j.state.Load()
	if !s.fetched.IsZero() {
		age = time.Since(s.fetched)
	}
	return age, s.err
}

// Find implements [Set].
func (j *Remote) Find(ctx context.Context, kid string, a Algorithm) ([]*Key, uint64, error) {
	s, err := j.current(ctx)
	if err != nil {
		return nil, 0, err
	}
	keys := fitting(s.keys, kid, a)
	if len(keys) == 0 {
		j.Refresh()
	}
	return keys, s.version, nil
}

// Version implements [Set].
func (j *Remote) Version() (uint64, error) {
	s := j.state.Load()
	return s.version, j.usable(s)
}

// Refresh implements [Refresher]. The keys are fetched at most once a CoolDown.
func (j *Remote) Refresh() {
	select {
	case j.wanted <- struct{}{}:
	default:
	}
}

// current returns the state if its keys may be used. It waits for the first
// fetch.
func (j *Remote) current(ctx context.Context) (*snapshot, error) {
	s := j.state.Load()
	if s.next.IsZero() {
		patience := time.NewTimer(j.timeout)
		defer patience.Stop()
		select {
		case <-j.first:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-patience.C:
		}
		s = j.state.Load()
	}
	return s, j.usable(s)
}

// usable returns why the keys of s must not be used, or nil.
func (j *Remote) usable(s *snapshot) error {
	if !s.fetched.IsZero() && time.Since(s.fetched) < j.stale {
		return nil
	}
	reason := s.err
	if reason == nil {
		reason = errors.New("jwk: the keys are stale")
	}
	return &unavailableError{reason: reason, retryAfter: time.Until(s.next)}
}

// An unavailableError says when the next fetch is due.
type unavailableError struct {
	reason     error
	retryAfter time.Duration
}

func (e *unavailableError) Error() string             { return e.reason.Error() }
func (e *unavailableError) Unwrap() error             { return e.reason }
func (e *unavailableError) RetryAfter() time.Duration { return e.retryAfter }

// run fetches the keys when they are due or wanted, until ctx ends.
func (j *Remote) run(ctx context.Context) {
	failures := 0
	for started := false; ; started = true {
		// Who has asked until now is served by this fetch.
		select {
		case <-j.wanted:
		default:
		}
		last := time.Now()
		err := j.update(ctx, last, &failures)
		if !started {
			close(j.first)
		}
		if err != nil && ctx.Err() == nil {
			j.reporter.Error(ctx, err)
		}
		if !j.wait(ctx, last) {
			return
		}
	}
}

// wait waits until the next fetch is due, and reports false if there is none.
func (j *Remote) wait(ctx context.Context, last time.Time) bool {
	due := j.state.Load().next
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for wanted := j.wanted; ; wanted = nil {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-wanted:
			if soon := last.Add(j.coolDown); soon.Before(due) {
				timer.Reset(time.Until(soon))
			}
		}
	}
}

// update fetches the set and makes it the state, or notes why it could not.
// The error may also be that of keys which were skipped.
func (j *Remote) update(ctx context.Context, now time.Time, failures *int) error {
	old := j.state.Load()
	s := *old
	ctx, cancel := context.WithTimeout(ctx, j.timeout)
	defer cancel()
	var set fetchedSet
	err := guard.Run(func() (err error) { set, err = j.fetch(ctx); return err })
	if err != nil {
		*failures++
		s.err = fmt.Errorf("jwk: fetching keys: %w", err)
		s.next = time.Now().Add(j.backoff(*failures))
		j.state.Store(&s)
		return s.err
	}
	*failures = 0
	s.err, s.fetched = nil, now
	s.next = now.Add(j.refresh - rand.N(j.refresh/10+1))
	if old.fetched.IsZero() || !sameKeys(old.keys, set.keys) {
		s.keys, s.version = set.keys, old.version+1
	}
	j.state.Store(&s)
	return set.skipped
}

// backoff returns how long to wait after so many failures.
func (j *Remote) backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 20), j.coolDown, j.refresh)
}
