package idempotency

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/queue"
)

// MemoryConfig bounds a [Memory]. The zero value of each field means its default.
//
// A server that gets 10 keys a second and keeps each for a day needs room for
// 864,000 records.
type MemoryConfig struct {
	// MaxRecords is the most records in all; 262,144 by default. One takes about 400
	// bytes and its answer.
	MaxRecords int
	// MaxRecordsPerOwner is the most records of one caller; a quarter of MaxRecords by
	// default.
	MaxRecordsPerOwner int
	// MaxBytes is the most bytes of answers in all; 128 MiB by default.
	MaxBytes int64
	// MaxBytesPerOwner is the most bytes of answers of one caller; an eighth of MaxBytes
	// by default.
	MaxBytesPerOwner int64
}

// Memory is the [Store] of a single process, which forgets everything when that
// ends. It is safe for concurrent use and starts no goroutine.
//
// It never forgets a record before its life has ended. Past its bounds it refuses
// new keys, with [ErrOwnerFull] or [ErrFull], and keeps a [StateTombstone] instead of
// an answer for which there is no room: a request is then not answered again, but
// neither does it run again.
//
// MaxRecords whose life has ended make room a few at a time, with each claim.
type Memory struct {
	config  MemoryConfig
	base    time.Time
	epoch   uint64 // base in microseconds since 1970
	records atomic.Int64
	bytes   atomic.Int64
	closed  atomic.Bool
	shards  [memoryShards]memoryShard
}

const memoryShards = 64

// A memoryShard has all the records of its owners.
type memoryShard struct {
	mu      sync.Mutex
	entries map[Key]*entry
	owners  map[[32]byte]*usage
	queue   queue.Queue[*entry] // by when to look at them
	_       [64]byte            // neighbours on one cache line would slow each other down
}

// usage is what one owner has.
type usage struct {
	records int
	bytes   int64
}

type entry struct {
	key         Key
	token       Token
	fingerprint [32]byte
	state       State
	status      int
	generation  uint64
	lease       time.Duration // when it is over, since base
	expires     time.Duration // when the life is over, since base
	due         time.Duration // when to look at it: not after expires
	index       int           // in the queue
	payload     []byte
}

// NewMemory returns an empty store. It reports every fault of c at once, as
// [*usher.ConfigError]s.
func NewMemory(c MemoryConfig) (*Memory, error) {
	var errs []error
	fault := func(bad bool, field string) {
		if bad {
			errs = append(errs, &usher.ConfigError{Field: "idempotency.MemoryConfig." + field, Reason: "must not be negative"})
		}
	}
	fault(c.MaxRecords < 0, "MaxRecords")
	fault(c.MaxRecordsPerOwner < 0, "MaxRecordsPerOwner")
	fault(c.MaxBytes < 0, "MaxBytes")
	fault(c.MaxBytesPerOwner < 0, "MaxBytesPerOwner")
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return newMemory(c), nil
}

func newMemory(c MemoryConfig) *Memory {
	if c.MaxRecords == 0 {
		c.MaxRecords = 1 << 18
	}
	if c.MaxRecordsPerOwner == 0 {
		c.MaxRecordsPerOwner = max(c.MaxRecords/4, 1)
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 128 << 20
	}
	if c.MaxBytesPerOwner == 0 {
		c.MaxBytesPerOwner = max(c.MaxBytes/8, 1)
	}
	now := time.Now()
	m := &Memory{config: c, base: now, epoch: uint64(now.UnixMicro())}
	for i := range m.shards {
		m.shards[i].reset()
	}
	return m
}

func (s *memoryShard) reset() {
	s.entries = make(map[Key]*entry)
	s.owners = make(map[[32]byte]*usage)
	s.queue = nil
}

// Close forgets everything and lets every later call fail.
func (m *Memory) Close() error {
	m.closed.Store(true)
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.reset()
		s.mu.Unlock()
	}
	m.records.Store(0)
	m.bytes.Store(0)
	return nil
}

// Len returns the number of records, of which some may be past their life.
func (m *Memory) Len() int { return int(m.records.Load()) }

// lock locks the shard of key and returns it and the time since base, which for
// a shard never goes back.
func (m *Memory) lock(key *Key, token *Token) (*memoryShard, time.Duration, error) {
	if *token == (Token{}) {
		return nil, 0, errNoToken
	}
	s := &m.shards[key.Owner[0]%memoryShards]
	s.mu.Lock()
	if m.closed.Load() {
		s.mu.Unlock()
		return nil, 0, errClosed
	}
	return s, time.Since(m.base), nil
}

// purgeAtOnce is how many records past their life a claim removes: more than the
// one that it may add.
const purgeAtOnce = 4

// Claim implements [Store]. It does not wait, and so does not look at ctx.
func (m *Memory) Claim(_ context.Context, c Claim) (Record, error) {
	s, now, err := m.lock(&c.Key, &c.Token)
	if err != nil {
		return Record{}, err
	}
	r, err := m.claim(s, &c, now)
	s.mu.Unlock()
	if errors.Is(err, ErrFull) && m.makeRoom() {
		s.mu.Lock()
		if !m.closed.Load() {
			r, err = m.claim(s, &c, time.Since(m.base))
		}
		s.mu.Unlock()
	}
	return r, err
}

// claim needs s.mu.
func (m *Memory) claim(s *memoryShard, c *Claim, now time.Duration) (Record, error) {
	m.purge(s, now)
	e := s.entries[c.Key]
	if e != nil && e.expires <= now {
		m.remove(s, e)
		e = nil
	}
	if e == nil {
		var err error
		if e, err = m.add(s, c.Key, now+c.TTL); err != nil {
			return Record{}, err
		}
		m.take(s, e, c, now)
		return e.record(true, now), nil
	}
	mine := e.token == c.Token
	switch {
	case e.state == StateReleased && mine:
		return Record{}, ErrLost
	case e.state == StateReleased, e.state == StateClaimed && !mine && e.lease <= now:
		m.take(s, e, c, now)
		return e.record(true, now), nil
	case e.state == StateClaimed && mine:
		e.lease = now + c.Lease
		s.expire(e, max(e.expires, now+c.TTL))
		return e.record(true, now), nil
	}
	return e.record(false, now), nil
}

// take makes e the claim of c.
func (m *Memory) take(s *memoryShard, e *entry, c *Claim, now time.Duration) {
	e.state, e.token, e.fingerprint = StateClaimed, c.Token, c.Fingerprint
	e.generation = max(e.generation+1, m.epoch+uint64(now.Microseconds()))
	e.lease = now + c.Lease
	e.status, e.payload = 0, nil
	s.expire(e, now+c.TTL)
}

func (e *entry) record(won bool, now time.Duration) Record {
	r := Record{
		State: e.state, Won: won, Generation: e.generation, Fingerprint: e.fingerprint,
		Status: e.status, Payload: e.payload,
	}
	if e.state == StateClaimed {
		r.Lease = max(e.lease-now, 0)
	}
	return r
}

// Renew implements [Store].
func (m *Memory) Renew(_ context.Context, key Key, token Token, lease time.Duration) error {
	s, now, err := m.lock(&key, &token)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil || e.expires <= now || e.state != StateClaimed || e.token != token {
		return ErrLost
	}
	e.lease = now + lease
	s.expire(e, max(e.expires, e.lease))
	return nil
}

// Finish implements [Store].
func (m *Memory) Finish(_ context.Context, key Key, token Token, r Result) error {
	if r.State != StateDone && r.State != StateTombstone && r.State != StateReleased {
		return errResult
	}
	var payload []byte
	if r.State != StateReleased {
		payload = bytes.Clone(r.Payload) // not under the lock
	}
	s, now, err := m.lock(&key, &token)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil || e.expires <= now || e.token != token {
		return ErrLost
	}
	if e.state != StateClaimed {
		return nil
	}
	e.state, e.status = r.State, r.Status
	if m.hold(s.owners[key.Owner], int64(len(payload))) {
		e.payload = payload
	} else {
		e.state = StateTombstone
	}
	s.expire(e, now+r.TTL)
	return nil
}

// hold takes room for n bytes of an answer, if there is any.
func (m *Memory) hold(u *usage, n int64) bool {
	if u.bytes+n > m.config.MaxBytesPerOwner {
		return false
	}
	if m.bytes.Add(n) > m.config.MaxBytes {
		m.bytes.Add(-n)
		return false
	}
	u.bytes += n
	return true
}

// add adds an empty entry whose life ends at a time.
func (m *Memory) add(s *memoryShard, key Key, expires time.Duration) (*entry, error) {
	u := s.owners[key.Owner]
	if u == nil {
		u = new(usage)
	}
	if u.records >= m.config.MaxRecordsPerOwner {
		return nil, ErrOwnerFull
	}
	if m.records.Add(1) > int64(m.config.MaxRecords) {
		m.records.Add(-1)
		return nil, ErrFull
	}
	if u.records++; u.records == 1 {
		s.owners[key.Owner] = u
	}
	e := &entry{key: key, expires: expires, due: expires}
	s.entries[key] = e
	heap.Push(&s.queue, e)
	return e, nil
}

// remove removes an entry.
func (m *Memory) remove(s *memoryShard, e *entry) {
	heap.Remove(&s.queue, e.index)
	delete(s.entries, e.key)
	n := int64(len(e.payload))
	u := s.owners[e.key.Owner]
	u.bytes -= n
	if u.records--; u.records == 0 {
		delete(s.owners, e.key.Owner)
	}
	m.records.Add(-1)
	m.bytes.Add(-n)
}

// expire sets when the life of e ends. A later end is found out when the entry
// comes up, which costs nothing now.
func (s *memoryShard) expire(e *entry, at time.Duration) {
	e.expires = at
	if at < e.due {
		e.due = at
		heap.Fix(&s.queue, e.index)
	}
}

// purge removes a few entries whose life has ended, and reports whether there
// were any.
func (m *Memory) purge(s *memoryShard, now time.Duration) bool {
	before := len(s.queue)
	for range purgeAtOnce {
		if len(s.queue) == 0 || s.queue[0].due > now {
			break
		}
		e := s.queue[0]
		if e.expires <= now {
			m.remove(s, e)
			continue
		}
		e.due = e.expires
		heap.Fix(&s.queue, 0)
	}
	return len(s.queue) < before
}

// makeRoom looks in every shard for entries whose life has ended.
func (m *Memory) makeRoom() (found bool) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		found = m.purge(s, time.Since(m.base)) || found
		s.mu.Unlock()
	}
	return found
}

// Before and Moved implement [queue.Item].
func (e *entry) Before(other *entry) bool { return e.due < other.due }

func (e *entry) Moved(index int) { e.index = index }
