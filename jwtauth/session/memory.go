package session

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/queue"
)

const (
	// sessionsPerSubject bounds how much of the store one account can use.
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
}

// MemoryConfig configures a [Memory].
type MemoryConfig struct {
	// Capacity is how many sessions are kept, about 2 KiB each; zero means 65,536.
	Capacity int
}

// NewMemory returns an empty Memory, or all faults of c.
//
// When a Memory is full, a new session ends the one that would expire first, which is the
// one that was refreshed least recently. A subject has at most 1000 sessions; one more
// ends another of its own, so that one account cannot end the sessions of others.
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
func (m *Memory) Insert(ctx context.Context, r Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID[r.ID] != nil || m.byHandle[r.Handle] != nil {
		return ErrConflict
	}
	m.makeRoom(r.Subject, r.CreatedAt)
	s := &storedSession{Record: r.clone()}
	m.byID[s.ID], m.byHandle[s.Handle] = s, s
	own := m.bySubject[s.Subject]
	if own == nil {
		own = make(map[*storedSession]struct{})
		m.bySubject[s.Subject] = own
	}
	own[s] = struct{}{}
	heap.Push(&m.queue, s)
	return nil
}

// Lookup implements [Store].
func (m *Memory) Lookup(ctx context.Context, handle [sha256.Size]byte) (Record, error) {
	if err := ctx.Err(); err != nil {
		return Record{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if s := m.byHandle[handle]; s != nil {
		return s.clone(), nil
	}
	return Record{}, ErrNotFound
}

// Update implements [Store].
func (m *Memory) Update(ctx context.Context, r Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.byID[r.ID]
	if s == nil || s.Revision != r.Revision || !s.RevokedAt.IsZero() {
		return ErrConflict
	}
	s.RefreshedAt, s.ExpiresAt = r.RefreshedAt, r.ExpiresAt
	s.Current, s.Previous, s.Delivered = r.Current, r.Previous, r.Delivered
	s.Response = slices.Clone(r.Response)
	s.Revision++
	heap.Fix(&m.queue, s.place)
	return nil
}

// Revoke implements [Store].
func (m *Memory) Revoke(ctx context.Context, id string, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.byID[id]; s != nil {
		m.revoke(s, at)
	}
	return nil
}

// RevokeSubject implements [Store].
func (m *Memory) RevokeSubject(ctx context.Context, subject string, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.bySubject[subject] {
		m.revoke(s, at)
	}
	return nil
}

// The methods below need m.mu.

func (m *Memory) revoke(s *storedSession, at time.Time) {
	if s.RevokedAt.IsZero() {
		s.RevokedAt = at
		heap.Fix(&m.queue, s.place)
	}
}

// makeRoom removes sessions until there is room for one of subject. At most two ended
// sessions are removed at a time: that is faster than others are added, and no call
// visits all.
func (m *Memory) makeRoom(subject string, now time.Time) {
	for range 2 {
		if len(m.queue) > 0 && !m.queue[0].leavesAt().After(now) {
			m.remove(m.queue[0])
		}
	}
	if own := m.bySubject[subject]; len(own) >= sessionsPerSubject {
		var first *storedSession
		for s := range own {
			if first == nil || s.leavesAt().Before(first.leavesAt()) {
				first = s
			}
		}
		m.remove(first)
	}
	if len(m.queue) >= m.capacity {
		m.remove(m.queue[0])
	}
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
