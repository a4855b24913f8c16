package idempotency

import (
	"container/heap"
	"sync"
	"time"

	"github.com/usher-go/usher/internal/queue"
)

const memoryShards = 64

// A memoryShard holds all records of its owners.
type memoryShard struct {
	mu      sync.Mutex
	entries map[Key]*entry
	owners  map[[32]byte]*usage
	queue   queue.Queue[*entry] // by due
	_       [64]byte            // keeps shards on separate cache lines
}

// usage counts the records of one owner and the bytes of their responses.
type usage struct {
	records int
	bytes   int64
}

type entry struct {
	key         Key
	token       Token
	fingerprint [32]byte
	state       State
	takenOver   bool // see Record
	status      int
	generation  uint64
	leaseEnds   time.Duration // since base
	expires     time.Duration // since base
	due         time.Duration // when to check whether it has expired: never after expires
	index       int           // in the queue
	payload     []byte
}

func (s *memoryShard) reset() {
	s.entries = make(map[Key]*entry)
	s.owners = make(map[[32]byte]*usage)
	s.queue = nil
}

// find returns the entry of a key that is not free, or nil.
func (s *memoryShard) find(key *Key, now time.Duration) *entry {
	e := s.entries[*key]
	if e == nil || e.expires <= now || e.state == StateReleased {
		return nil
	}
	return e
}

// reserve takes room for a response of n bytes, if there is any.
func (m *Memory) reserve(u *usage, n int64) bool {
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

// add adds an empty entry.
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
		return nil, errFull
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

// expire sets when e expires. A later time than before costs nothing now: it takes effect
// when the entry is due.
func (s *memoryShard) expire(e *entry, at time.Duration) {
	e.expires = at
	if at < e.due {
		e.due = at
		heap.Fix(&s.queue, e.index)
	}
}

// purge removes a few expired entries, and reports whether there were any.
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

// makeRoom removes expired entries from every shard, and reports whether there were any.
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
