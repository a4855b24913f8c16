package idempotency

import (
	"container/heap"
	"encoding/binary"
	"math"
	"time"

	"github.com/usher-go/usher/internal/queue"
)

// owners are the owners of the records in a [Memory], by a part of their hash.
type owners struct {
	byHash map[uint64]*owner
	most   int // that byHash has ever had; a map does not shrink

	borrowers queue.Queue[*borrower]
}

// An owner has at least one record.
type owner struct {
	id        [32]byte
	next      *owner // with the same part of the hash
	kept      list   // its records with a response, by when it was stored
	rest      list   // its other records, by when they became so
	bytes     int64  // of all records
	keptBytes int64  // of them, those of responses
	borrower  *borrower
}

// A borrower is an owner that has more than its share. They are in a heap: first comes the
// one with the most bytes of responses.
type borrower struct {
	*owner
	index int           // in the heap
	due   time.Duration // see Memory.shareDue; 0 if not known
}

// Before and Moved implement [queue.Item].
func (b *borrower) Before(other *borrower) bool { return b.keptBytes > other.keptBytes }

// Moved is described at Before.
func (b *borrower) Moved(index int) { b.index = index }

func (o *owners) find(id *[32]byte) *owner {
	found := o.byHash[hashOf(id)]
	for found != nil && found.id != *id {
		found = found.next
	}
	return found
}

func hashOf(id *[32]byte) uint64 { return binary.NativeEndian.Uint64(id[:]) }

func newOwner(id *[32]byte) *owner {
	return &owner{id: *id, kept: empty, rest: empty}
}

// add adds an owner, and returns how many bytes more that takes.
func (o *owners) add(added *owner) (bytes int64) {
	hash := hashOf(&added.id)
	added.next = o.byHash[hash]
	o.byHash[hash] = added
	if len(o.byHash) > o.most {
		o.most++
		return ownerBytes
	}
	return ownerBytes - ownerSlotBytes
}

// remove removes an owner that has no records, and returns how many bytes that gives back.
func (o *owners) remove(removed *owner) (bytes int64) {
	hash := hashOf(&removed.id)
	first := o.byHash[hash]
	switch {
	case first != removed:
		for first.next != removed {
			first = first.next
		}
		first.next = removed.next
	case removed.next == nil:
		delete(o.byHash, hash)
	default:
		o.byHash[hash] = removed.next
	}
	return ownerBytes - ownerSlotBytes
}

// count counts n bytes of an owner more.
func (m *Memory) count(o *owner, n int64) {
	m.bytes += n
	o.bytes += n
	b := o.borrower
	switch borrows := o.bytes > m.share; {
	case b == nil && borrows:
		o.borrower = &borrower{owner: o}
		heap.Push(&m.owners.borrowers, o.borrower)
	case b == nil:
	case borrows:
		heap.Fix(&m.owners.borrowers, b.index)
		if n > 0 {
			b.due = 0
		}
	default:
		heap.Remove(&m.owners.borrowers, b.index)
		o.borrower = nil
	}
}

// keep gives a response to an entry that has none. There is room for it.
func (m *Memory) keep(i uint32, payload []byte) {
	e := m.table.at(i)
	e.payload = payload
	if !e.hasResponse() {
		return
	}
	o := e.owner
	m.table.unlink(&o.rest, ofOwner, i)
	m.table.push(&o.kept, ofOwner, i)
	m.table.push(&m.table.kept, ofAll, i)
	n := int64(cap(payload))
	m.keptBytes += n
	o.keptBytes += n
	m.count(o, n)
}

// hasResponse reports whether e has a response that takes room.
func (e *entry) hasResponse() bool { return len(e.payload) > 0 }

// drop takes the response from an entry, if it has one, and returns how many bytes that
// gives back.
func (m *Memory) drop(i uint32) (n int64) {
	e := m.table.at(i)
	if !e.hasResponse() {
		return 0
	}
	o := e.owner
	m.table.unlink(&m.table.kept, ofAll, i)
	m.table.unlink(&o.kept, ofOwner, i)
	m.table.push(&o.rest, ofOwner, i)
	n = int64(cap(e.payload))
	e.payload = nil
	m.keptBytes -= n
	o.keptBytes -= n
	m.count(o, -n)
	return n
}

// evict replaces a response by a tombstone, to make room, and returns how many bytes that
// gives back.
func (m *Memory) evict(i uint32) int64 {
	m.table.at(i).state = StateTombstone
	m.evicted.Add(1)
	return m.drop(i)
}

// makeRoom makes room for n bytes more of an owner, by evicting the oldest responses: those
// of the owner itself if it is above its share and the store is more than three quarters
// full, and otherwise those of the owner above its share that has most, or if there is no such
// owner, of any. If that is not enough, it returns an error.
func (m *Memory) makeRoom(o *owner, n int64, now time.Duration) error {
	beyondLoan := m.bytes + n - m.loan
	if beyondLoan <= 0 {
		return nil
	}
	if beyondShare := o.bytes + n - m.share; beyondShare > 0 {
		left := min(n, beyondLoan, beyondShare)
		if o.keptBytes < left {
			return m.ownerFull(o, beyondShare, beyondLoan, now)
		}
		for left > 0 {
			left -= m.evict(o.kept.oldest)
		}
	}
	left := m.bytes + n - m.config.MaxBytes
	if m.keptBytes < left {
		return m.full(left-m.keptBytes, now)
	}
	for left > 0 {
		left -= m.evict(m.victim())
	}
	return nil
}

// victim returns the entry whose response is evicted next.
func (m *Memory) victim() uint32 {
	if b := m.owners.borrowers; len(b) > 0 && b[0].keptBytes > 0 {
		return b[0].kept.oldest
	}
	return m.table.kept.oldest
}

// full returns the error for a store in which n bytes are missing. Only records that cannot
// be evicted are left, and each takes as much.
func (m *Memory) full(n int64, now time.Duration) error {
	return fullError(errFull, m.table.due(recordsFor(n))-now)
}

// ownerFull returns the error for an owner that is so far beyond its share, in a store that
// is so far beyond what it lends. There is room for it when either ends.
func (m *Memory) ownerFull(o *owner, beyondShare, beyondLoan int64, now time.Duration) error {
	due := time.Duration(math.MaxInt64)
	if n := recordsFor(beyondLoan); n <= 2 {
		due = m.table.due(n)
	}
	switch b := o.borrower; {
	case due != math.MaxInt64:
	case b == nil:
		due = m.shareDue(o, beyondShare)
	default:
		if b.due <= now {
			b.due = m.shareDue(o, beyondShare)
		}
		due = b.due
	}
	return fullError(ErrOwnerFull, due-now)
}

// recordsFor returns how many records must expire to give n bytes back.
func recordsFor(n int64) int { return int((n + recordBytes - 1) / recordBytes) }

// shareDue returns when so many records of o have expired that they give n bytes back. It
// does not look at more than maxLooked of them: if they are not enough, it returns when all
// have expired.
func (m *Memory) shareDue(o *owner, n int64) (due time.Duration) {
	if n > o.bytes {
		return math.MaxInt64 // it is more than a share
	}
	i := o.rest.oldest
	for looked := 0; n > 0 && i != none && looked < maxLooked; looked++ {
		e := m.table.at(i)
		if i = e.links[ofOwner].newer; e.running() {
			continue
		}
		due = max(due, e.due())
		n -= recordBytes
	}
	if n <= 0 {
		return due
	}
	for _, i := range []uint32{o.rest.newest, o.kept.newest} {
		for i != none && m.table.at(i).running() {
			i = m.table.at(i).links[ofOwner].older
		}
		if i != none {
			due = max(due, m.table.at(i).due())
		}
	}
	return due
}

// running reports whether e is kept until its request ends.
func (e *entry) running() bool { return e.expires >= processLifetime }

const maxLooked = 10_000

// due returns when e is due to be removed.
func (e *entry) due() time.Duration { return newNode(0, e.expires).due() }

const maxRetryAfter = 365 * 24 * time.Hour

func fullError(err error, left time.Duration) error {
	if left > maxRetryAfter {
		return err // nobody knows: requests must end
	}
	return &FullError{Err: err, RetryAfter: max(left, 0)}
}
