package jwtauth

import (
	"cmp"
	"container/heap"
	"container/list"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/queue"
)

// A RevocationList is a [RevocationSource] in memory, for a single process. Its zero value
// is ready for use. It must not be copied, and is safe for concurrent use.
//
// A revocation stays until its time until, and is never removed earlier: when the list is
// full, adding fails with [usher.ErrFull]. Set until to the latest exp of the affected
// tokens plus the Leeway of the verifier. If access tokens are valid for 15 minutes, the
// list has the logouts of the last quarter of an hour.
type RevocationList struct {
	// Capacity is the maximum number of revocations, of about 400 bytes each; zero
	// means 1,000,000. Set it before the first use.
	Capacity int

	mu    sync.RWMutex
	known map[revoked]*revocation
	ends  queue.Queue[*revocation] // the first to end comes first
	size  atomic.Int64

	// name begins each position, so that positions of other lists are recognized. log has
	// the revocations in the order of their numbers, and the places of the followers.
	// added, if not nil, is closed when log grows.
	name   string
	number uint64
	log    list.List
	added  chan struct{}
}

var _ RevocationSource = (*RevocationList)(nil)

// A revoked identifies what a revocation applies to.
type revoked struct {
	kind   RevocationKind
	issuer string
	value  string
}

type revocation struct {
	revoked
	issuedBefore time.Time // for a subject
	until        time.Time
	index        int // in ends
	number       uint64
	place        *list.Element
}

// RevokeToken implements [Revoker]. Like the other methods that revoke, it returns only
// [usher.ErrFull] and the error for invalid arguments.
func (l *RevocationList) RevokeToken(_ context.Context, issuer, id string, until time.Time) error {
	return l.add(revoked{RevokedToken, issuer, id}, time.Time{}, until)
}

// RevokeSession implements [Revoker].
func (l *RevocationList) RevokeSession(_ context.Context, issuer, id string, until time.Time) error {
	return l.add(revoked{RevokedSession, issuer, id}, time.Time{}, until)
}

// RevokeSubject implements [Revoker]. The iat of a token has whole seconds, so a
// token issued within the second of issuedBefore is revoked too.
func (l *RevocationList) RevokeSubject(_ context.Context, issuer, subject string, issuedBefore, until time.Time) error {
	return l.add(revoked{RevokedSubject, issuer, subject}, issuedBefore, until)
}

func (l *RevocationList) add(what revoked, issuedBefore, until time.Time) error {
	if !validIdentifier(what.issuer) || !validIdentifier(what.value) {
		return errIdentifier
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	// At most two expired revocations are removed at a time: they are removed faster than
	// others are added, and no call holds the lock while it removes many.
	for range 2 {
		if len(l.ends) > 0 && now.After(l.ends[0].until) {
			old := heap.Pop(&l.ends).(*revocation)
			l.log.Remove(old.place)
			delete(l.known, old.revoked)
		}
	}
	defer func() { l.size.Store(int64(len(l.known))) }()
	r, ok := l.known[what]
	switch {
	case ok && !issuedBefore.After(r.issuedBefore) && !until.After(r.until):
		return nil
	case ok:
		// A revocation is only ever extended.
		r.issuedBefore, r.until = later(r.issuedBefore, issuedBefore), later(r.until, until)
		heap.Fix(&l.ends, r.index)
		l.log.MoveToBack(r.place)
	case len(l.known) >= cmp.Or(l.Capacity, 1_000_000):
		return fmt.Errorf("jwtauth: the list of revocations: %w", usher.ErrFull)
	default:
		if l.known == nil {
			l.known = make(map[revoked]*revocation)
		}
		r = &revocation{revoked: what, issuedBefore: issuedBefore, until: until}
		l.known[what] = r
		heap.Push(&l.ends, r)
		r.place = l.log.PushBack(r)
	}
	l.number++
	r.number = l.number
	if l.added != nil {
		close(l.added)
		l.added = nil
	}
	return nil
}

var errIdentifier = errors.New("jwtauth: an issuer, ID or subject to revoke must be valid UTF-8 without NUL, of 1 to 1024 bytes")

func validIdentifier(s string) bool {
	return s != "" && len(s) <= 1024 && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Revoked implements [Revocations]. It returns no error.
func (l *RevocationList) Revoked(_ context.Context, t *Token) (bool, error) {
	return l.revoked(t), nil
}

func (l *RevocationList) revoked(t *Token) bool {
	if l.size.Load() == 0 {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if t.ID != "" && l.known[revoked{RevokedToken, t.Issuer, t.ID}] != nil {
		return true
	}
	if t.SessionID != "" && l.known[revoked{RevokedSession, t.Issuer, t.SessionID}] != nil {
		return true
	}
	r := l.known[revoked{RevokedSubject, t.Issuer, t.Subject}]
	return r != nil && t.IssuedAt.Before(r.issuedBefore)
}

// Len returns the number of revocations, including expired ones. Each call that revokes
// removes up to two expired ones.
func (l *RevocationList) Len() int { return int(l.size.Load()) }

// Follow implements [RevocationSource]. The list can continue from each of its positions,
// so the only error is [ErrPosition] for a position of another list.
func (l *RevocationList) Follow(ctx context.Context, after string, ready func(), changed func(Revocation)) error {
	place, newest, err := l.enter(after)
	if err != nil {
		return err
	}
	defer l.leave(place)
	for caughtUp := false; ctx.Err() == nil; {
		batch, passed, added := l.next(place)
		for _, r := range batch {
			if ctx.Err() != nil {
				return nil
			}
			changed(r)
		}
		if !caughtUp && (passed >= newest || added != nil) {
			caughtUp = true
			ready()
		}
		if added != nil {
			select {
			case <-added:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// enter puts the place of a follower after all revocations up to a position, and returns
// that place with the number of the newest revocation.
func (l *RevocationList) enter(after string) (place *list.Element, newest uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.name == "" {
		l.name = rand.Text()
	}
	if after == "" {
		return l.log.PushFront(nil), l.number, nil
	}
	name, digits, _ := strings.Cut(after, ".")
	number, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || name != l.name || number > l.number {
		return nil, 0, ErrPosition
	}
	for last := l.log.Back(); last != nil; last = last.Prev() {
		if r, ok := last.Value.(*revocation); ok && r.number <= number {
			return l.log.InsertAfter(nil, last), l.number, nil
		}
	}
	return l.log.PushFront(nil), l.number, nil
}

func (l *RevocationList) leave(place *list.Element) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log.Remove(place)
}

// next moves a follower past the next revocations. It returns those that have not expired,
// and the number of the last one passed. At the end of the list it also returns a channel
// that is closed when a revocation is added.
func (l *RevocationList) next(place *list.Element) (batch []Revocation, passed uint64, added <-chan struct{}) {
	const atOnce = 256 // so that no call has the lock for long
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	last := place
	for n := 0; n < atOnce && last.Next() != nil; n++ {
		last = last.Next()
		r, ok := last.Value.(*revocation)
		if !ok {
			continue // the place of another follower
		}
		passed = r.number
		if !now.After(r.until) {
			batch = append(batch, Revocation{
				Position: l.name + "." + strconv.FormatUint(r.number, 10),
				Kind:     r.kind, Issuer: r.issuer, Value: r.value,
				IssuedBefore: r.issuedBefore, Until: r.until,
			})
		}
	}
	if last.Next() == nil {
		if l.added == nil {
			l.added = make(chan struct{})
		}
		added = l.added
	}
	l.log.MoveAfter(place, last)
	return batch, passed, added
}

// Before and Moved implement [queue.Item].
func (r *revocation) Before(other *revocation) bool { return r.until.Before(other.until) }

func (r *revocation) Moved(index int) { r.index = index }
