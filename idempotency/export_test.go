package idempotency

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Internals that the tests of keys and stored responses use.
var (
	ParseKey   = parseKey
	AppendHead = appendHead
	Room       = room

	SplitMultipart = splitMultipart
)

// Seal completes a response that is stored under key.
func Seal(b []byte, key Key) { seal(b, 0, &key) }

// SetForm says that the last bytes of b, a response without a body yet, are its form.
func SetForm(b []byte, length int) {
	binary.BigEndian.PutUint32(b[formLengthAt:], uint32(length))
}

// ReadResponse returns the parts of the response that is stored under key.
func ReadResponse(b []byte, key Key) (status int, header, body []byte, err error) {
	r, err := readResponse(b, &key)
	return r.status, r.header, r.body, err
}

// ClaimID names the claim of e.
func (e *Execution) ClaimID() ClaimID { return ClaimID{e.key, e.token} }

// Leases returns how many leases are kept.
func (m *Middleware) Leases() int { return m.heartbeat.Len() }

// Pending returns how many results are pending, and the bytes of their responses.
func (m *Middleware) Pending() (n, bytes int) {
	m.pending.mu.Lock()
	defer m.pending.mu.Unlock()
	return len(m.pending.of), m.pending.bytes
}

// Waiting returns how many requests wait, and how many entries there are for them.
func (m *Middleware) Waiting() int {
	m.waiters.mu.Lock()
	defer m.waiters.mu.Unlock()
	return int(m.waiters.count.Load()) + len(m.waiters.flights) + len(m.waiters.owners)
}

// What a Memory takes besides responses, and what it lends.
const (
	RecordBytes = recordBytes
	OwnerBytes  = ownerBytes
	HeadBytes   = headerAt
	FixedBytes  = fixedBytes
)

// Check returns an error if the parts of m do not agree with each other.
func (m *Memory) Check() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &m.table
	type sums struct{ kept, rest, bytes, keptBytes int64 }
	of := make(map[*owner]*sums)
	var all sums
	for i := range t.n {
		e := t.at(i)
		key, at := e.key(), *t.nodeOf(i)
		switch {
		case t.find(&key, m.hashOf(&key)) != i:
			return fmt.Errorf("entry %d is not found", i)
		case t.node(at).entry() != i || t.node(at).due() < min(e.expires, maxDue) || t.node(at).due()-tick > e.expires:
			return fmt.Errorf("the node of entry %d is wrong", i)
		case i > 0 && t.node(i).before(*t.node((i - 1) / arity)):
			return fmt.Errorf("node %d comes before its parent", i)
		case e.hasResponse() != (len(e.payload) > 0), e.hasResponse() && e.state != StateDone:
			return fmt.Errorf("entry %d has a response in state %d", i, e.state)
		}
		o := of[e.owner]
		if o == nil {
			o = new(sums)
			of[e.owner] = o
		}
		if _, foreign := m.foreign[key]; foreign {
			o.bytes += foreignBytes
			all.bytes += foreignBytes
		}
		for _, s := range []*sums{o, &all} {
			s.bytes += recordBytes + int64(cap(e.payload))
			s.keptBytes += int64(cap(e.payload))
			if e.hasResponse() {
				s.kept++
			} else {
				s.rest++
			}
		}
	}
	if t.n > 0 && (t.mask < t.n-1 || t.mask>>1 >= t.n-1 && t.n > 1) {
		return fmt.Errorf("the mask is %x for %d entries", t.mask, t.n)
	}
	count := func(l *list, of int) (n int64) {
		last := uint32(none)
		for i := l.oldest; i != none; i = t.at(i).links[of].newer {
			if t.at(i).links[of].older != last || n > int64(t.n) {
				return -1
			}
			last = i
			n++
		}
		if l.newest != last {
			return -1
		}
		return n
	}
	borrowers := 0
	owners := 0
	for _, o := range m.owners.byHash {
		for ; o != nil; o = o.next {
			owners++
			want := of[o]
			if want == nil {
				return errors.New("an owner has no records")
			}
			if got := (sums{count(&o.kept, ofOwner), count(&o.rest, ofOwner), o.bytes, o.keptBytes}); got != *want {
				return fmt.Errorf("an owner has %+v, want %+v", got, *want)
			}
			if b := o.borrower; (b != nil) != (o.bytes > m.share) || b != nil && m.owners.borrowers[b.index] != b {
				return errors.New("an owner is a borrower, or should be one")
			}
			if o.borrower != nil {
				borrowers++
			}
		}
	}
	if owners != len(of) || borrowers != len(m.owners.borrowers) {
		return fmt.Errorf("%d of %d owners and %d of %d borrowers are known", owners, len(of), len(m.owners.borrowers), borrowers)
	}
	for i, b := range m.owners.borrowers {
		if i > 0 && b.Before(m.owners.borrowers[(i-1)/2]) {
			return errors.New("the borrowers are not in order")
		}
	}
	ownersBytes := int64(owners*(ownerBytes-ownerSlotBytes) + m.owners.most*ownerSlotBytes)
	if m.bytes != fixedBytes+all.bytes+ownersBytes || m.keptBytes != all.keptBytes || count(&t.kept, ofAll) != all.kept {
		return fmt.Errorf("there are %d bytes, %d of responses; counted are %+v", m.bytes, m.keptBytes, all)
	}
	if m.bytes > m.config.MaxBytes {
		return fmt.Errorf("%d bytes are more than %d", m.bytes, m.config.MaxBytes)
	}
	return nil
}
