package idempotency

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// MemoryConfig configures a [Memory]. The zero value of each field means its default.
//
// A server that gets 10 keys a second and keeps each for a day needs room for 864,000
// records.
type MemoryConfig struct {
	// MaxRecords limits the number of records; zero means 262,144. A record takes about
	// 400 bytes plus its response.
	MaxRecords int
	// MaxRecordsPerOwner limits the number of records of one owner; zero means a quarter
	// of MaxRecords.
	MaxRecordsPerOwner int
	// MaxBytes limits the total size of stored responses; zero means 128 MiB.
	MaxBytes int64
	// MaxBytesPerOwner limits the total size of the stored responses of one owner; zero
	// means an eighth of MaxBytes.
	MaxBytesPerOwner int64
}

// Memory is a [Store] for a single process. Its records are lost when the process ends.
// It is safe for concurrent use and starts no goroutine.
//
// It never drops a record before it expires. At its limits it refuses new keys, with
// [ErrOwnerFull] or [usher.ErrFull], and keeps a tombstone in place of a response for which
// there is no room: a retry is then neither replayed nor run.
//
// Each claim removes a few expired records.
type Memory struct {
	config  MemoryConfig
	base    time.Time
	epoch   uint64 // base in microseconds since 1970
	records atomic.Int64
	bytes   atomic.Int64
	closed  atomic.Bool
	shards  [memoryShards]memoryShard
}

// NewMemory returns an empty store. It reports every fault of c at once, each as a
// [*usher.ConfigError].
func NewMemory(c MemoryConfig) (*Memory, error) {
	faults := config.Of[usher.ConfigError]("idempotency.MemoryConfig")
	faults.If(c.MaxRecords < 0, "MaxRecords", config.NotNegative)
	faults.If(c.MaxRecordsPerOwner < 0, "MaxRecordsPerOwner", config.NotNegative)
	faults.If(c.MaxBytes < 0, "MaxBytes", config.NotNegative)
	faults.If(c.MaxBytesPerOwner < 0, "MaxBytesPerOwner", config.NotNegative)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return newMemory(c), nil
}

func newMemory(c MemoryConfig) *Memory {
	c.MaxRecords = cmp.Or(c.MaxRecords, 1<<18)
	c.MaxRecordsPerOwner = cmp.Or(c.MaxRecordsPerOwner, max(c.MaxRecords/4, 1))
	c.MaxBytes = cmp.Or(c.MaxBytes, 128<<20)
	c.MaxBytesPerOwner = cmp.Or(c.MaxBytesPerOwner, max(c.MaxBytes/8, 1))
	now := time.Now()
	m := &Memory{config: c, base: now, epoch: uint64(now.UnixMicro())}
	for i := range m.shards {
		m.shards[i].reset()
	}
	return m
}

// Close implements [Store]. It drops all records.
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

// Len returns the number of records, including some that have expired.
func (m *Memory) Len() int { return int(m.records.Load()) }

// lock locks the shard of key. It returns the shard and the time since base, which never
// goes back within a shard.
func (m *Memory) lock(key *Key) (*memoryShard, time.Duration, error) {
	s := &m.shards[key.Owner[0]%memoryShards]
	s.mu.Lock()
	if m.closed.Load() {
		s.mu.Unlock()
		return nil, 0, errClosed
	}
	return s, time.Since(m.base), nil
}

// purgeAtOnce is how many expired records a claim removes: more than the one that it may
// add.
const purgeAtOnce = 4

// Claim implements [Store]. It does not block, so it ignores ctx.
func (m *Memory) Claim(_ context.Context, c Claim) (Record, error) {
	if c.Token == (Token{}) {
		return Record{}, errNoToken
	}
	s, now, err := m.lock(&c.Key)
	if err != nil {
		return Record{}, err
	}
	r, err := m.claim(s, &c, now)
	s.mu.Unlock()
	if errors.Is(err, errFull) && m.makeRoom() {
		s.mu.Lock()
		if !m.closed.Load() {
			r, err = m.claim(s, &c, time.Since(m.base))
		}
		s.mu.Unlock()
	}
	return r, err
}

// claim claims the key of c. The caller holds s.mu.
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
	case e.state == StateReleased:
		m.take(s, e, c, now)
		return e.record(true, now), nil
	case !mine && (e.state == StateClaimed && e.leaseEnds <= now ||
		e.state == StateUnknown && c.TakeUnknown && e.fingerprint == c.Fingerprint):
		m.take(s, e, c, now)
		e.takenOver = true
		return e.record(true, now), nil
	case e.state == StateClaimed && mine:
		e.leaseEnds = now + c.Lease
		s.expire(e, max(e.expires, now+c.TTL))
		return e.record(true, now), nil
	}
	return e.record(false, now), nil
}

// take turns e into the claim c.
func (m *Memory) take(s *memoryShard, e *entry, c *Claim, now time.Duration) {
	e.state, e.token, e.fingerprint = StateClaimed, c.Token, c.Fingerprint
	e.generation = max(e.generation+1, m.epoch+uint64(now.Microseconds()))
	e.leaseEnds = now + c.Lease
	e.takenOver, e.status, e.payload = false, 0, nil
	s.expire(e, now+c.TTL)
}

func (e *entry) record(won bool, now time.Duration) Record {
	r := Record{
		State: e.state, Won: won, Generation: e.generation, Fingerprint: e.fingerprint,
		Status: e.status, Payload: e.payload,
	}
	if e.state == StateClaimed {
		r.Lease = max(e.leaseEnds-now, 0)
		r.TakenOver = won && e.takenOver
	}
	return r
}

// Find implements [Store].
func (m *Memory) Find(_ context.Context, key Key) (Record, error) {
	s, now, err := m.lock(&key)
	if err != nil {
		return Record{}, err
	}
	defer s.mu.Unlock()
	e := s.find(&key, now)
	if e == nil {
		return Record{}, ErrNotFound
	}
	r := e.record(false, now)
	r.TTL = e.expires - now
	return r, nil
}

// Delete implements [Store]. A Memory has no record that cannot be read.
func (m *Memory) Delete(_ context.Context, key Key, generation uint64) error {
	s, now, err := m.lock(&key)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	switch e := s.find(&key, now); {
	case e == nil:
		return ErrNotFound
	case e.generation != generation, e.state == StateClaimed && e.leaseEnds > now:
		return ErrLost
	default:
		m.remove(s, e)
		return nil
	}
}

// Renew implements [Store].
func (m *Memory) Renew(_ context.Context, claims []ClaimID, lease time.Duration) (lost []ClaimID, err error) {
	switch {
	case len(claims) > MaxRenew:
		return nil, errRenew
	case m.closed.Load():
		return nil, errClosed
	}
	for i := range claims {
		renewed, err := m.renew(&claims[i], lease)
		if err != nil {
			return nil, err
		}
		if !renewed {
			lost = append(lost, claims[i])
		}
	}
	return lost, nil
}

// renew renews one claim. It returns false if the claim is lost.
func (m *Memory) renew(c *ClaimID, lease time.Duration) (bool, error) {
	if c.Token == (Token{}) {
		return false, errNoToken
	}
	s, now, err := m.lock(&c.Key)
	if err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	e := s.entries[c.Key]
	if e == nil || e.expires <= now || e.state != StateClaimed || e.token != c.Token {
		return false, nil
	}
	e.leaseEnds = now + lease
	s.expire(e, max(e.expires, e.leaseEnds))
	return true, nil
}

// Finish implements [Store].
func (m *Memory) Finish(_ context.Context, c Completion) (kept State, err error) {
	r := &c.Result
	switch {
	case c.Token == (Token{}):
		return 0, errNoToken
	case !r.valid():
		return 0, errResult
	}
	var payload []byte
	if r.State == StateDone {
		payload = bytes.Clone(r.Payload) // outside the lock
	}
	s, now, err := m.lock(&c.Key)
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	e := s.entries[c.Key]
	if e == nil || e.expires <= now || e.token != c.Token {
		return 0, ErrLost
	}
	if e.state != StateClaimed {
		return e.state, nil
	}
	e.state, e.status = r.State, r.Status
	if m.reserve(s.owners[c.Key.Owner], int64(len(payload))) {
		e.payload = payload
	} else {
		e.state = StateTombstone
	}
	s.expire(e, now+r.TTL)
	return e.state, nil
}
