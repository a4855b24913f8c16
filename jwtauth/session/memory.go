package session

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/queue"
)

const (
	// sessionsPerSubject bounds how much of the store one account can use. It is the
	// greatest limit of Insert, so that only sessions that are not live exceed it.
	sessionsPerSubject = 1000
	// revokedFor is how long a revoked session is kept, so that an audit can distinguish
	// its tokens from tokens that never existed.
	revokedFor = time.Hour
)

// Memory is a [Store] in the memory of one process. All sessions are lost when the
// process ends. It is safe for concurrent use and has no goroutine: ended sessions are
// removed when others are added.
type Memory struct {
	mu        sync.RWMutex
	capacity  int
	byHandle  map[[sha256.Size]byte]*storedSession
	byID      map[string]*storedSession
	bySubject map[string]map[*storedSession]struct{}
	queue     queue.Queue[*storedSession] // the first to be removed comes first
	closed    bool
}

// MemoryConfig configures a [Memory].
type MemoryConfig struct {
	// Capacity is how many sessions are kept, about 2 KiB each; zero means 65,536.
	Capacity int
}

// NewMemory returns an empty Memory, or all faults of c.
//
// When a Memory is full, a new session removes the one that would expire first, which is
// usually the one that was refreshed least recently. If that was live, Insert returns it
// too, although it may be another subject's. A subject has at most 1000 sessions, ended
// ones included, so that one account cannot end the sessions of others.
func NewMemory(c MemoryConfig) (*Memory, error) {
	f := config.Of[usher.ConfigError]("session.MemoryConfig")
	f.If(c.Capacity < 0, "Capacity", config.NotNegative)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return &Memory{
		capacity:  cmp.Or(c.Capacity, 1<<16),
		byHandle:  make(map[[sha256.Size]byte]*storedSession),
		byID:      make(map[string]*storedSession),
		bySubject: make(map[string]map[*storedSession]struct{}),
	}, nil
}

var _ Store = (*Memory)(nil)

// Len returns the number of sessions, including ended ones that were not removed yet.
func (m *Memory) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.queue)
}

// Insert implements [Store].
func (m *Memory) Insert(ctx context.Context, r Record, limit int) ([]Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	if m.byID[r.ID] != nil || m.byHandle[r.Handle] != nil {
		return nil, ErrConflict
	}
	var ended []Session
	limit = min(limit, sessionsPerSubject)
	if len(m.bySubject[r.Subject]) >= limit {
		live := m.live(r.Subject, r.CreatedAt)
		for _, s := range live[min(limit-1, len(live)):] {
			m.revoke(s, r.CreatedAt)
			ended = append(ended, s.Session.clone())
		}
	}
	ended = append(ended, m.makeRoom(r.Subject, r.CreatedAt)...)
	s := &storedSession{Record: r.clone()}
	m.byID[s.ID], m.byHandle[s.Handle] = s, s
	own := m.bySubject[s.Subject]
	if own == nil {
		own = make(map[*storedSession]struct{})
		m.bySubject[s.Subject] = own
	}
	own[s] = struct{}{}
	heap.Push(&m.queue, s)
	return ended, nil
}

// Lookup implements [Store].
func (m *Memory) Lookup(ctx context.Context, handle [sha256.Size]byte) (Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(ctx); err != nil {
		return Record{}, err
	}
	if s := m.byHandle[handle]; s != nil {
		return s.clone(), nil
	}
	return Record{}, ErrNotFound
}

// List implements [Store].
func (m *Memory) List(ctx context.Context, subject string, now time.Time) ([]Session, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	var list []Session
	for _, s := range m.live(subject, now) {
		list = append(list, s.Session.clone())
	}
	return list, nil
}

// Update implements [Store].
func (m *Memory) Update(ctx context.Context, r Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	s := m.byID[r.ID]
	if s == nil || s.Revision != r.Revision || !s.RevokedAt.IsZero() {
		return ErrConflict
	}
	s.RefreshedAt, s.ExpiresAt = r.RefreshedAt, r.ExpiresAt
	s.Current, s.Previous = r.Current, r.Previous
	s.TokenID, s.Delivered = r.TokenID, r.Delivered
	s.Response = slices.Clone(r.Response)
	s.Revision++
	heap.Fix(&m.queue, s.place)
	return nil
}

// SetDelivered implements [Store].
func (m *Memory) SetDelivered(ctx context.Context, sessionID, tokenID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	s := m.byID[sessionID]
	if s != nil && s.TokenID == tokenID && s.RevokedAt.IsZero() && !s.Delivered {
		s.Delivered = true
		s.Revision++
	}
	return nil
}

// Revoke implements [Store].
func (m *Memory) Revoke(ctx context.Context, subject, id string, at time.Time) (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return Session{}, err
	}
	s := m.byID[id]
	if s == nil || s.Subject != subject {
		return Session{}, ErrNotFound
	}
	m.revoke(s, at)
	return s.Session.clone(), nil
}

// RevokeSubject implements [Store].
func (m *Memory) RevokeSubject(ctx context.Context, subject string, at time.Time) ([]Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	var ended []Session
	for s := range m.bySubject[subject] {
		m.revoke(s, at)
		if s.endedAt(at) {
			ended = append(ended, s.Session.clone())
		}
	}
	return ended, nil
}

// Close implements [Store].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// The methods below need m.mu.

// usable returns why a call with ctx must fail, or nil.
func (m *Memory) usable(ctx context.Context) error {
	if m.closed {
		return fmt.Errorf("session: %w", usher.ErrClosed)
	}
	return ctx.Err()
}

// live returns the subject's sessions that are live at now, in the order of List.
func (m *Memory) live(subject string, now time.Time) []*storedSession {
	var live []*storedSession
	for s := range m.bySubject[subject] {
		if s.liveAt(now) {
			live = append(live, s)
		}
	}
	slices.SortFunc(live, func(a, b *storedSession) int {
		return cmp.Or(b.RefreshedAt.Compare(a.RefreshedAt), cmp.Compare(b.ID, a.ID))
	})
	return live
}

func (m *Memory) revoke(s *storedSession, at time.Time) {
	if s.RevokedAt.IsZero() {
		s.RevokedAt = at
		heap.Fix(&m.queue, s.place)
	}
}

// makeRoom removes sessions until there is room for one of subject, and returns those
// that were live. At most two ended sessions are removed at a time: that is faster than
// others are added, and no call visits all.
func (m *Memory) makeRoom(subject string, now time.Time) (ended []Session) {
	for range 2 {
		if len(m.queue) > 0 && !m.queue[0].leavesAt().After(now) {
			m.remove(m.queue[0])
		}
	}
	if own := m.bySubject[subject]; len(own) >= sessionsPerSubject {
		var first *storedSession
		for s := range own {
			if !s.liveAt(now) && (first == nil || s.leavesAt().Before(first.leavesAt())) {
				first = s
			}
		}
		m.remove(first) // Insert has left fewer live ones
	}
	if len(m.queue) >= m.capacity {
		s := m.queue[0]
		if s.liveAt(now) {
			s.RevokedAt = now
			ended = append(ended, s.Session)
		}
		m.remove(s)
	}
	return ended
}

func (m *Memory) remove(s *storedSession) {
	heap.Remove(&m.queue, s.place)
	delete(m.byID, s.ID)
	delete(m.byHandle, s.Handle)
	own := m.bySubject[s.Subject]
	delete(own, s)
	if len(own) == 0 {
		delete(m.bySubject, s.Subject)
	}
}

// A storedSession is a session and its place in the queue.
type storedSession struct {
	Record
	place int
}

// leavesAt returns when the session may be removed.
func (s *storedSession) leavesAt() time.Time {
	if !s.RevokedAt.IsZero() {
		if at := s.RevokedAt.Add(revokedFor); at.Before(s.ExpiresAt) {
			return at
		}
	}
	return s.ExpiresAt
}

// Before and Moved implement [queue.Item].
func (s *storedSession) Before(other *storedSession) bool {
	return s.leavesAt().Before(other.leavesAt())
}

func (s *storedSession) Moved(index int) { s.place = index }

// liveAt reports whether s is live at a time.
func (s *Session) liveAt(at time.Time) bool { return s.RevokedAt.IsZero() && at.Before(s.ExpiresAt) }

// endedAt reports whether s was live until it was ended at this time.
func (s *Session) endedAt(at time.Time) bool { return s.RevokedAt.Equal(at) && at.Before(s.ExpiresAt) }

// clone returns a copy that shares nothing with r.
func (r Record) clone() Record {
	r.Session = r.Session.clone()
	r.Response = slices.Clone(r.Response)
	return r
}

func (s Session) clone() Session {
	s.Scopes = slices.Clone(s.Scopes)
	s.Data = maps.Clone(s.Data)
	return s
}
