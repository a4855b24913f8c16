package jwtauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
)

// RevocationMirrorConfig configures a [RevocationMirror].
type RevocationMirrorConfig struct {
	// Source has the list to follow. Required.
	Source RevocationSource
	// Capacity is the maximum number of revocations, as in a [RevocationList]; zero means
	// 1,000,000. A mirror that has no room for the whole list is not current.
	Capacity int
	// StaleAfter is how long the mirror still decides after it has lost its connection to
	// the Source; zero means half a second, within which a connection is usually made
	// again.
	StaleAfter time.Duration
	// OnError is called with each error that has ended a connection to the Source. Nil
	// logs to [log/slog.Default], at most one line a second.
	OnError func(ctx context.Context, err error)
}

// A RevocationMirror is a [Revoker] that follows a [RevocationSource] and keeps the whole
// list in this process, so that no request waits for the source. A revocation that any
// process has made takes effect as soon as the message of the source arrives. If the source
// can no longer be reached, Follow notices that within a second, and Revoked fails after
// StaleAfter. It never reports "not revoked" later than that. Revoked works again once the
// mirror is current again.
//
// A RevocationMirror is safe for concurrent use. Close ends its goroutine.
type RevocationMirror struct {
	source     RevocationSource
	staleAfter time.Duration
	list       RevocationList
	reporter   *report.Reporter

	start time.Time
	// current is the time until which the list counts as current, in nanoseconds since
	// start, or one of the constants below.
	current atomic.Int64
	first   chan struct{} // closed when the list is current for the first time
	once    sync.Once
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

const (
	incomplete = 0
	following  = math.MaxInt64
	closed     = math.MinInt64
	// The pause before a source is followed again doubles from shortestPause to
	// longestPause while that fails.
	shortestPause = 10 * time.Millisecond
	longestPause  = time.Second
)

var _ Revoker = (*RevocationMirror)(nil)

// NewRevocationMirror returns a RevocationMirror that has begun to follow c.Source, or all
// faults of c.
func NewRevocationMirror(c RevocationMirrorConfig) (*RevocationMirror, error) {
	f := config.Of[usher.ConfigError]("jwtauth.RevocationMirrorConfig")
	f.If(c.Source == nil, "Source", config.Required)
	f.If(c.Capacity < 0, "Capacity", config.NotNegative)
	f.If(c.StaleAfter < 0, "StaleAfter", config.NotNegative)
	if err := f.Err(); err != nil {
		return nil, err
	}
	m := &RevocationMirror{
		source:     c.Source,
		staleAfter: cmp.Or(c.StaleAfter, 500*time.Millisecond),
		reporter:   report.New("jwtauth.RevocationMirror", c.OnError),
		start:      time.Now(),
		first:      make(chan struct{}),
	}
	m.list.Capacity = c.Capacity
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.done.Go(func() { m.run(ctx) })
	return m, nil
}

// Close ends the goroutine of m. Revoked then returns [usher.ErrClosed] for every token
// that is not known to be revoked.
func (m *RevocationMirror) Close() error {
	m.cancel()
	m.done.Wait()
	return nil
}

// run follows the source until ctx ends.
func (m *RevocationMirror) run(ctx context.Context) {
	defer m.current.Store(closed)
	position, pause := "", shortestPause
	for ctx.Err() == nil {
		was, err := m.follow(ctx, &position)
		lost := int64(time.Since(m.start) + m.staleAfter)
		if was {
			pause = shortestPause
			m.current.CompareAndSwap(following, lost)
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, ErrPosition) {
			position = ""
		}
		m.reporter.Background(ctx, fmt.Errorf("jwtauth: follow the revocations: %w", err))
		timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, longestPause)
	}
}

var errNotFollowed = errors.New("the source has returned without an error")

// follow follows the source from a position, and sets position to that of each revocation
// that it adds to the list. It reports whether the list was current.
func (m *RevocationMirror) follow(ctx context.Context, position *string) (current bool, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err = guard.Run(func() error {
		return m.source.Follow(ctx, *position, func() {
			if ctx.Err() == nil {
				current = true
				m.current.Store(following)
				m.once.Do(func() { close(m.first) })
			}
		}, func(r Revocation) {
			if ctx.Err() != nil {
				return
			}
			if err := m.list.add(revoked{r.Kind, r.Issuer, r.Value}, r.IssuedBefore, r.Until); err != nil {
				m.current.Store(incomplete)
				stop(err)
				return
			}
			*position = r.Position
		})
	})
	return current, cmp.Or(context.Cause(ctx), err, errNotFollowed)
}

// Revoked implements [Revocations]. The error matches [usher.ErrUnavailable] if the
// mirror is not current. When a mirror is new, Revoked waits until it is current for the
// first time, but no longer than StaleAfter.
func (m *RevocationMirror) Revoked(ctx context.Context, t *Token) (bool, error) {
	// The order matters: a list that is current now still has, when it is read, every
	// revocation that it had.
	err := m.usable(ctx)
	if m.list.revoked(t) {
		return true, nil
	}
	return false, err
}

// usable returns why the list cannot prove that a token was not revoked, or nil.
func (m *RevocationMirror) usable(ctx context.Context) error {
	current := m.current.Load()
	if current == incomplete && m.waitForFirst(ctx) {
		current = m.current.Load()
	}
	switch {
	case current == following:
		return nil
	case current == closed:
		return errMirrorClosed
	case time.Since(m.start) < time.Duration(current):
		return nil
	default:
		return errNotCurrent
	}
}

var (
	errMirrorClosed = fmt.Errorf("jwtauth: the mirror of the revocations: %w", usher.ErrClosed)
	errNotCurrent   = fmt.Errorf("jwtauth: the mirror of the revocations is not current: %w", usher.ErrUnavailable)
)

// waitForFirst reports whether the list was current at some time.
func (m *RevocationMirror) waitForFirst(ctx context.Context) bool {
	timer := time.NewTimer(m.staleAfter - time.Since(m.start))
	defer timer.Stop()
	select {
	case <-m.first:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// RevokeToken implements [Revoker]. Like the other methods that revoke, it first revokes in
// the source. Once it returns nil, the revocation has taken effect in this process too.
func (m *RevocationMirror) RevokeToken(ctx context.Context, issuer, id string, until time.Time) error {
	if err := m.source.RevokeToken(ctx, issuer, id, until); err != nil {
		return err
	}
	return m.list.RevokeToken(ctx, issuer, id, until)
}

// RevokeSession implements [Revoker].
func (m *RevocationMirror) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	if err := m.source.RevokeSession(ctx, issuer, id, until); err != nil {
		return err
	}
	return m.list.RevokeSession(ctx, issuer, id, until)
}

// RevokeSubject implements [Revoker].
func (m *RevocationMirror) RevokeSubject(ctx context.Context, issuer, subject string, issuedBefore, until time.Time) error {
	if err := m.source.RevokeSubject(ctx, issuer, subject, issuedBefore, until); err != nil {
		return err
	}
	return m.list.RevokeSubject(ctx, issuer, subject, issuedBefore, until)
}
