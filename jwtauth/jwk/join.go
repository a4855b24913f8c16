package jwk

import (
	"context"
	"errors"
	"slices"
	"time"
)

// A search is for the key of a token that the set of a [Remote] does not have, or not
// yet.
type search struct {
	kid       string
	algorithm Algorithm
	verifies  func(*Key) bool // nil if any key of the kid will do

	enough   uint64    // the first fetch that decides, whatever it finds
	snapshot *snapshot // the latest one
	old      bool      // the key was removed from the set

	// The result.
	keys []*Key
	err  error
}

// Bounds of a search.
const (
	maxWaiting = 64 // requests of a Remote that wait
	maxWait    = time.Second
	maxTried   = 4 // removed keys that are tried, the latest first
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
		q.snapshot.want(!q.old)
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
	if q.err = r.usable(s); q.err != nil || q.find(s) {
		return true
	}
	permitted := s.permitted
	if again := s.began.Add(r.coolDown); q.old && again.After(permitted) {
		permitted = again
	}
	switch {
	case s.fetch >= q.enough:
		if s.err != nil {
			q.giveUp(s.err)
		}
	case time.Now().Before(permitted):
		if !q.old {
			s.want(true) // at the end of the cool-down
		}
		q.giveUp(errCoolDown)
	default:
		return false
	}
	return true
}

// find reports whether s has the key. If not, it also looks among the removed keys.
func (q *search) find(s *snapshot) bool {
	q.keys = q.verifying(fitting(s.keys, q.kid, q.algorithm))
	if len(q.keys) == 0 && !q.old {
		if q.verifies == nil {
			q.old = named(s.removed, q.kid)
		} else {
			removed := fitting(s.removed, q.kid, q.algorithm)
			q.old = len(q.verifying(removed[:min(len(removed), maxTried)])) > 0
		}
	}
	return len(q.keys) > 0
}

// verifying returns those of the keys that verify the token, as far as q can distinguish.
func (q *search) verifying(keys []*Key) []*Key {
	if q.verifies == nil {
		return keys
	}
	n := slices.IndexFunc(keys, q.verifies)
	if n < 0 {
		return nil
	}
	return keys[n : n+1]
}

// giveUp ends q for this reason. The keys are unavailable, except if there is a better
// explanation for the token than a key that the issuer has published just now.
func (q *search) giveUp(reason error) {
	s := q.snapshot
	switch {
	case q.old:
		// Such tokens are normal after a rotation, and must not look like an outage.
		return
	case named(s.keys, q.kid) && s.err == nil && (errors.Is(reason, errCoolDown) || errors.Is(reason, errClosed)):
		// The issuer may have replaced the key under its ID, but more likely the
		// signature is bad, and the fetches of the cool-down have shown no other key.
		return
	case s.err != nil:
		reason = s.err
	}
	q.err = &unavailableError{reason: reason, retryAt: s.permitted}
}
