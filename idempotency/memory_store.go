package idempotency

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"math"
	"time"
)

func (m *Memory) hashOf(k *Key) uint32 { return uint32(maphash.Comparable(m.seed, *k)) }

// after returns the time d after now, or the last one: a record that is kept for the longest
// Duration must not expire at once.
func after(now, d time.Duration) time.Duration { return now + min(d, math.MaxInt64-now) }

// Claim implements [Store]. It does not block, so it ignores ctx.
func (m *Memory) Claim(_ context.Context, c Claim) (r Record, err error) {
	err = m.claim(&c, &r)
	return r, err
}

// claim is Claim without copies of what it takes and returns. After an error, r is as it was.
func (m *Memory) claim(c *Claim, r *Record) error {
	if c.Token == (Token{}) {
		return errNoToken
	}
	hash := m.hashOf(&c.Key)
	for {
		now, err := m.lock()
		if err != nil {
			return err
		}
		found := m.purge(recordBytes+ownerBytes, now)
		err = m.claimAt(c, hash, now, r)
		m.mu.Unlock()
		// What has expired must not be a reason to refuse a key.
		if err == nil || errors.Is(err, ErrLost) || !found {
			return err
		}
	}
}

// claimAt claims the key of c, whose hash is given.
func (m *Memory) claimAt(c *Claim, hash uint32, now time.Duration, r *Record) error {
	i := m.table.find(&c.Key, hash)
	if i == none {
		i, err := m.add(c, hash, now)
		if err != nil {
			return err
		}
		m.take(i, c, now, false, r)
		return nil
	}
	e := m.table.at(i)
	mine := e.token == c.Token
	lapsed := e.state == StateClaimed && e.leaseEnds <= now
	switch {
	case e.expires <= now:
		m.take(i, c, now, false, r)
	case e.state == StateReleased && mine:
		return ErrLost
	case e.state == StateReleased:
		m.take(i, c, now, false, r)
	case !mine && (lapsed || e.state == StateUnknown && c.TakeUnknown) && m.fingerprint(e) == c.Fingerprint:
		m.take(i, c, now, true, r)
	case e.state == StateClaimed && mine:
		e.leaseEnds = after(now, c.Lease)
		m.expire(i, max(e.expires, after(now, c.TTL)))
		m.record(e, true, now, r)
	default:
		m.record(e, false, now, r)
	}
	return nil
}

// add adds an entry for the key of c.
func (m *Memory) add(c *Claim, hash uint32, now time.Duration) (uint32, error) {
	o, n := m.owners.find(&c.Key.Owner), int64(recordBytes)
	isNew := o == nil
	if isNew {
		o, n = newOwner(&c.Key.Owner), n+ownerBytes
	}
	if c.isForeign() {
		n += foreignBytes
	}
	if err := m.makeRoom(o, n, now); err != nil {
		return none, err
	}
	if isNew {
		m.bytes += m.owners.add(o)
	}
	i := m.table.add(o, &c.Key.Name, hash, after(now, c.TTL))
	m.table.push(&o.rest, ofOwner, i)
	m.count(o, recordBytes)
	return i, nil
}

// remove removes an entry.
func (m *Memory) remove(i uint32) {
	m.drop(i)
	e := m.table.at(i)
	o := e.owner
	m.forgetForeign(e)
	m.table.unlink(&o.rest, ofOwner, i)
	m.table.remove(i)
	m.count(o, -recordBytes)
	if o.bytes == 0 {
		m.bytes -= m.owners.remove(o)
	}
}

func (e *entry) key() Key { return Key{Owner: e.owner.id, Name: e.name} }

// take turns an entry into the claim c, whose record is r.
func (m *Memory) take(i uint32, c *Claim, now time.Duration, takenOver bool, r *Record) {
	m.drop(i)
	e := m.table.at(i)
	e.state, e.token, e.takenOver, e.status = StateClaimed, c.Token, takenOver, 0
	e.generation = max(e.generation+1, m.epoch+uint64(now.Microseconds()))
	m.setFingerprint(e, c)
	e.leaseEnds = after(now, c.Lease)
	m.expire(i, after(now, c.TTL))
	m.record(e, true, now, r)
}

// setFingerprint stores the fingerprint of c. That of a Middleware begins with the digest of
// the key, which is not stored again.
func (m *Memory) setFingerprint(e *entry, c *Claim) {
	copy(e.fingerprint[:], c.Fingerprint[len(e.fingerprint):])
	m.forgetForeign(e)
	if !c.isForeign() {
		return
	}
	if m.foreign == nil {
		m.foreign = make(map[Key]keyDigest)
	}
	m.foreign[c.Key] = keyDigest(c.Fingerprint[:])
	m.count(e.owner, foreignBytes)
}

// isForeign reports whether no Middleware has made the fingerprint of c.
func (c *Claim) isForeign() bool { return keyDigest(c.Fingerprint[:]) != c.Key.digest() }

func (m *Memory) forgetForeign(e *entry) {
	if len(m.foreign) == 0 {
		return
	}
	key := e.key()
	if _, ok := m.foreign[key]; ok {
		delete(m.foreign, key)
		m.count(e.owner, -foreignBytes)
	}
	if len(m.foreign) == 0 {
		m.foreign = nil // a map does not shrink
	}
}

func (m *Memory) fingerprint(e *entry) (f [32]byte) {
	first := digestOf(&e.owner.id, &e.name)
	if len(m.foreign) > 0 {
		if d, ok := m.foreign[e.key()]; ok {
			first = d
		}
	}
	copy(f[copy(f[:], first[:]):], e.fingerprint[:])
	return f
}

// expire sets when an entry without a response expires.
func (m *Memory) expire(i uint32, at time.Duration) {
	m.table.expire(i, at)
	if rest := &m.table.at(i).owner.rest; rest.newest != i {
		m.table.unlink(rest, ofOwner, i)
		m.table.push(rest, ofOwner, i)
	}
}

// record makes r the record of e.
func (m *Memory) record(e *entry, won bool, now time.Duration, r *Record) {
	*r = Record{
		State: e.state, Won: won, Generation: e.generation, Fingerprint: m.fingerprint(e),
		Status: int(e.status), Payload: e.payload,
	}
	if e.state == StateClaimed {
		r.Lease = max(e.leaseEnds-now, 0)
		r.TakenOver = won && e.takenOver
	}
}

// Renew implements [Store].
func (m *Memory) Renew(_ context.Context, claims []ClaimID, lease time.Duration) (lost []ClaimID, err error) {
	if len(claims) > MaxRenew {
		return nil, errRenew
	}
	now, err := m.lock()
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	for i := range claims {
		c := &claims[i]
		if c.Token == (Token{}) {
			return nil, errNoToken
		}
		if !m.renew(c, after(now, lease), now) {
			lost = append(lost, *c)
		}
	}
	return lost, nil
}

// renew renews one claim. It returns false if the claim is lost.
func (m *Memory) renew(c *ClaimID, until, now time.Duration) bool {
	i, ok := m.owned(&c.Key, &c.Token, now)
	if !ok {
		return false
	}
	e := m.table.at(i)
	if e.state != StateClaimed {
		return false
	}
	if e.leaseEnds = until; until > e.expires {
		m.expire(i, until)
	}
	return true
}

// owned returns the entry of a key that belongs to a token.
func (m *Memory) owned(k *Key, t *Token, now time.Duration) (i uint32, ok bool) {
	i = m.table.find(k, m.hashOf(k))
	if i == none {
		return i, false
	}
	e := m.table.at(i)
	return i, e.expires > now && e.token == *t
}

// Finish implements [Store].
func (m *Memory) Finish(_ context.Context, c Completion) (kept State, err error) {
	return m.finish(&c.Key, &c.Token, &c.Result)
}

// finish is Finish without copies of what it takes.
func (m *Memory) finish(key *Key, token *Token, r *Result) (kept State, err error) {
	switch {
	case *token == (Token{}):
		return 0, errNoToken
	case !r.valid():
		return 0, errResult
	}
	var payload []byte
	if r.State == StateDone {
		payload = bytes.Clone(r.Payload) // outside the lock
	}
	now, err := m.lock()
	if err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	if len(payload) > 0 {
		m.purge(int64(cap(payload)), now)
	}
	i, ok := m.owned(key, token, now)
	if !ok {
		return 0, ErrLost
	}
	e := m.table.at(i)
	if e.state != StateClaimed {
		return e.state, nil
	}
	e.state, e.status = r.State, uint16(min(max(r.Status, 0), math.MaxUint16))
	m.expire(i, after(now, r.TTL))
	if m.makeRoom(e.owner, int64(cap(payload)), now) == nil {
		m.keep(i, payload)
	} else {
		e.state = StateTombstone
	}
	return e.state, nil
}

// Find implements [Store].
func (m *Memory) Find(_ context.Context, key Key) (r Record, err error) {
	now, err := m.lock()
	if err != nil {
		return Record{}, err
	}
	defer m.mu.Unlock()
	i, err := m.taken(&key, now)
	if err != nil {
		return Record{}, err
	}
	e := m.table.at(i)
	m.record(e, false, now, &r)
	r.TTL = e.expires - now
	return r, nil
}

// Delete implements [Store]. A Memory has no record that cannot be read.
func (m *Memory) Delete(_ context.Context, key Key, generation uint64) error {
	now, err := m.lock()
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	i, err := m.taken(&key, now)
	if err != nil {
		return err
	}
	if e := m.table.at(i); e.generation != generation || e.state == StateClaimed && e.leaseEnds > now {
		return ErrLost
	}
	m.remove(i)
	return nil
}

// taken returns the entry of a key that is not free, or ErrNotFound.
func (m *Memory) taken(k *Key, now time.Duration) (uint32, error) {
	i := m.table.find(k, m.hashOf(k))
	if i == none {
		return none, ErrNotFound
	}
	if e := m.table.at(i); e.expires <= now || e.state == StateReleased {
		return none, ErrNotFound
	}
	return i, nil
}
