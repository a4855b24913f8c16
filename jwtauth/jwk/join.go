package jwk

import (
	"context"
	"errors"
	"time"
)

// A search is for the key of a token that the set of a [Remote] does not have, or not
// yet.
type search struct {
	kid       string
	algorithm Algorithm
	tried     []*Key // the keys that have not signed the token

	enough   uint64    // the first fetch that decides, whatever it finds
	snapshot *snapshot // the latest one

	// The result.
	keys []*Key
	err  error
}

// maxWaiting is how many requests may wait for a fetch that a token has caused, and
// maxWait how long.
const (
	maxWaiting = 64
	maxWait    = time.Second
)

// The reasons why no fetch decides.
var (
	errCoolDown = errors.New("jwk: the set does not have the key, and was fetched too recently to be fetched again")
	errBusy     = errors.New("jwk: the set does not have the key, and too many requests wait for it to be fetched again")
	errSlow     = errors.New("jwk: the set does not have the key, and is not fetched again in time")
	errClosed   = errors.New("jwk: the set does not have the key, and is closed")
)

// join returns the keys that q is for. It waits until a set has them, or a fetch that
// begins after the call has ended.
func (r *Remote) join(ctx context.Context, q *search) ([]*Key, uint64, error) {
	q.enough = r.begun.Load() + 1
	if !r.decide(q) {
		r.await(ctx, q)
	}
	return q.keys, q.snapshot.version, q.err
}

// await waits until q is decided.
func (r *Remote) await(ctx context.Context, q *search) {
	select {
	case r.waiting <- struct{}{}:
		defer func() { <-r.waiting }()
	default:
		q.giveUp(errBusy)
		return
	}
	patience := time.NewTimer(min(maxWait, r.timeout))
	defer patience.Stop()
	for {
		q.snapshot.want()
		select {
		case <-q.snapshot.replaced:
			if r.decide(q) {
				return
			}
		case <-patience.C:
			q.giveUp(errSlow)
			return
		case <-r.closed:
			q.giveUp(errClosed)
			return
		case <-ctx.Done():
			q.err = ctx.Err()
			return
		}
	}
}

// decide reports whether the present snapshot decides q.
func (r *Remote) decide(q *search) bool {
	s := r.state.Load()
	q.snapshot = s
	if q.err = r.usable(s); q.err != nil {
		return true
	}
	q.keys = without(fitting(s.keys, q.kid, q.algorithm), q.tried)
	switch {
	case len(q.keys) > 0:
	case s.fetch >= q.enough:
		if s.err != nil {
			q.giveUp(s.err)
		}
	case time.Now().Before(s.permitted):
		s.want() // at the end of the cool-down
		q.giveUp(errCoolDown)
	default:
		return false
	}
	return true
}

// giveUp ends q for this reason. The keys are unavailable, except if there is a better
// explanation for the token than a key that the issuer has published just now.
func (q *search) giveUp(reason error) {
	s := q.snapshot
	switch {
	case named(s.keys, q.kid):
		// The signature is bad. The issuer may have replaced the key under its ID, but
		// only a fetch shows that, and those of the cool-down have not.
		if s.err == nil && (errors.Is(reason, errCoolDown) || errors.Is(reason, errClosed)) {
			return
		}
	case named(s.removed, q.kid):
		// The token is older than the removal of its key. Such tokens are normal after
		// a rotation, and must not look like an outage.
		return
	}
	if s.err != nil {
		reason = s.err
	}
	q.err = &unavailableError{reason: reason, retryAt: s.permitted}
}
