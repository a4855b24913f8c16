package idempotency

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// MemoryConfig configures a [Memory]. The zero value of each field means its default.
//
// A record takes 168 bytes besides its response, and an owner takes 120 more. With the
// default, a server can keep the responses of 5 requests a second for a day if they have
// 100 bytes, or of 5 requests a minute with 20 KiB each: see [Memory.Capacity].
type MemoryConfig struct {
	// MaxBytes limits the memory that records and their responses take, at least 1 MiB and
	// at most 32 GiB; zero means 192 MiB.
	MaxBytes int64
	// OwnerShare is how many bytes one owner may always use, at least 1 KiB. An owner may
	// use more while the store is at most three quarters full. Zero means 1/64 of MaxBytes.
	OwnerShare int64
}

const (
	defaultMaxBytes = 192 << 20
	minMaxBytes     = 1 << 20
	maxMaxBytes     = 32 << 30 // so that there are fewer than maxEntries
	minOwnerShare   = 1 << 10
	ownersAtLeast   = 64
)

// What a Memory takes besides responses; a test measures it.
const (
	recordBytes    = 168
	foreignBytes   = 200 // of a record that no Middleware has made; see Memory.foreign
	ownerBytes     = 120
	ownerSlotBytes = 40                         // of ownerBytes, what remains when the owner has gone
	fixedBytes     = 2 * pageSize * recordBytes // a page that is not full, and one in reserve
)

// Memory is a [Store] for a single process. Its records are lost when the process ends.
// It is safe for concurrent use and starts no goroutine. Several Middlewares can share it if
// each has the Memory itself as its Store: within another Store it has other fingerprints, so
// a request that one Middleware has executed would be another request to the other.
//
// All its records and their responses take at most [MemoryConfig.MaxBytes]. When there is no
// room for a new record or response, the oldest responses are evicted: their records become
// tombstones, so a late retry of an old request gets the error
// [usher.CodeIdempotencyResponseNotKept], and does not run. Above three quarters, an owner
// that has more than [MemoryConfig.OwnerShare] only makes room at its own expense; others
// then take room from the owners that have more than their share. So each owner has its
// share, whatever the others do. A [Middleware] reports and counts the responses that were
// evicted.
//
// Nothing else is dropped before it expires. If no responses are left to evict, new keys are
// refused, with [ErrOwnerFull] or [usher.ErrFull] in a [*FullError].
//
// Each claim removes a few expired records, and all of them before it is refused.
type Memory struct {
	config MemoryConfig
	share  int64 // of one owner
	loan   int64 // up to which all bytes may be lent
	seed   maphash.Seed
	hash   requestHash // of all Middlewares that share the Memory
	base   time.Time
	epoch  uint64 // base in microseconds since 1970

	mu        sync.Mutex // no call holds it for long, whatever the number of records
	closed    bool
	table     table
	owners    owners
	bytes     int64
	keptBytes int64 // of them, those of responses
	// foreign has the first half of fingerprints that do not begin with the digest of
	// their key, as those of a Middleware do.
	foreign map[Key]keyDigest

	evicted  atomic.Int64 // responses that are not reported yet
	reported atomic.Int64 // when some were last reported, since base
}

// NewMemory returns an empty store. It reports every fault of c at once, each as a
// [*usher.ConfigError]. It logs at the level Debug how many records fit.
func NewMemory(c MemoryConfig) (*Memory, error) {
	faults := config.Of[usher.ConfigError]("idempotency.MemoryConfig")
	faults.If(c.MaxBytes != 0 && (c.MaxBytes < minMaxBytes || c.MaxBytes > maxMaxBytes), "MaxBytes", "must be 1 MiB to 32 GiB")
	faults.If(c.OwnerShare != 0 && (c.OwnerShare < minOwnerShare || c.OwnerShare > cmp.Or(c.MaxBytes, defaultMaxBytes)),
		"OwnerShare", "must be 1 KiB to MaxBytes")
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return newMemory(c), nil
}

func newMemory(c MemoryConfig) *Memory {
	c.MaxBytes = cmp.Or(c.MaxBytes, defaultMaxBytes)
	c.OwnerShare = cmp.Or(c.OwnerShare, c.MaxBytes/ownersAtLeast)
	now := time.Now()
	m := &Memory{
		config: c, share: c.OwnerShare, loan: c.MaxBytes / 4 * 3,
		seed: maphash.MakeSeed(), hash: newRequestHash(), base: now, epoch: uint64(now.UnixMicro()),
	}
	m.reported.Store(-int64(reportInterval))
	m.reset()
	slog.Debug("idempotency: how many records fit into a Memory", "bytes", c.MaxBytes,
		"with_100_bytes", m.Capacity(100), "with_4_KiB", m.Capacity(4<<10))
	return m
}

func (m *Memory) reset() {
	m.table = table{kept: empty}
	m.owners = owners{byHash: make(map[uint64]*owner)}
	m.foreign = nil
	m.bytes, m.keptBytes = fixedBytes, 0
}

// Close implements [Store]. It drops all records.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.reset()
	return nil
}

// Len returns the number of records, including some that have expired.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int(m.table.n)
}

// Bytes returns how many bytes the records and their responses take.
func (m *Memory) Bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}

// Capacity returns how many records fit whose responses have that many bytes each, header
// fields included. One owner alone can have three quarters of them.
func (m *Memory) Capacity(responseBytes int) int {
	n := int64(headerAt + max(responseBytes, 0))
	if n <= maxSmall {
		n = int64(cap(bytes.Clone(make([]byte, n))))
	} else {
		n = (n + pageBytes - 1) / pageBytes * pageBytes
	}
	return int((m.config.MaxBytes - fixedBytes) / (recordBytes + n))
}

// How the Go runtime rounds sizes up: small ones to those of its classes, larger ones to
// whole pages.
const (
	maxSmall  = 32 << 10
	pageBytes = 8 << 10
)

// lock locks m. It returns the time since base, which never goes back.
func (m *Memory) lock() (now time.Duration, err error) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return 0, errClosed
	}
	return time.Since(m.base), nil
}

// How many expired records a call removes: more than the one that a claim may add, and many
// if the store is not empty enough to lend room.
const (
	purgeAtOnce     = 4
	purgeToMakeRoom = 1000
)

// purge removes expired entries, but not many at once. It returns whether there were any. The
// caller will add n bytes.
func (m *Memory) purge(n int64, now time.Duration) (found bool) {
	most := purgeAtOnce
	if m.bytes+n > m.loan {
		most = purgeToMakeRoom
	}
	for range most {
		if m.table.n == 0 || m.table.node(0).due() > now {
			break
		}
		m.remove(m.table.node(0).entry())
		found = true
	}
	return found
}

// reportInterval is the least time between two reports of evicted responses.
const reportInterval = time.Second

// takeEvicted returns how many responses were evicted that are not reported yet, or 0 if
// others were reported a moment ago.
func (m *Memory) takeEvicted() int64 {
	if m.evicted.Load() == 0 {
		return 0
	}
	now, last := int64(time.Since(m.base)), m.reported.Load()
	if now-last < int64(reportInterval) || !m.reported.CompareAndSwap(last, now) {
		return 0
	}
	return m.evicted.Swap(0)
}

// evictedError is the error that reports evicted responses.
func evictedError(n int64) error {
	return fmt.Errorf("idempotency: %d responses were evicted to make room for newer ones, so a retry gets an error: %w", n, usher.ErrFull)
}
