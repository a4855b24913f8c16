package idempotency

import (
	"math"
	"time"
)

// A table holds the entries of a [Memory]. They are numbered without gaps: the last entry
// moves to the place of one that is removed. So a table takes room in proportion to the
// number of its entries at any time, and never copies more than one of them at once. An
// entry is found by the hash of its key, and the one that expires first is known.
type table struct {
	pages []*page
	n     uint32 // the number of entries, of buckets and of nodes in the heap
	mask  uint32 // the least power of two that is not below n, minus 1

	kept list // the entries with a response, by when it was stored
}

// none stands for no entry. Others are numbered up to maxEntries.
const (
	none       = math.MaxUint32
	entryBits  = 28
	maxEntries = 1 << entryBits
)

// A page has the parts of a table for as many entries as fill whole pages of the Go
// runtime, almost without loss.
// What is read of many entries to find one is apart from them, so that it stays in the cache
// of the processor.
type page struct {
	entries [pageSize]entry
	chains  [pageSize]chained // of the entries
	nodes   [pageSize]uint32  // of the entries: where their nodes are
	buckets [pageSize]uint32  // the first entry of each chain
	heap    [pageSize]node
}

const pageSize = 1024

// An entry is a record.
type entry struct {
	name        [32]byte
	token       Token
	fingerprint keyDigest // the second half; see Memory.fingerprint
	owner       *owner
	payload     []byte
	generation  uint64
	leaseEnds   time.Duration // since Memory.base
	expires     time.Duration // since Memory.base
	links       [2]links      // in the list of its owner, and in table.kept
	status      uint16
	state       State
	takenOver   bool // see Record
}

// A chained entry is in the chain of its bucket.
type chained struct {
	hash uint32 // of the key
	next uint32 // entry, or none
}

func (t *table) at(i uint32) *entry        { return &t.pages[i/pageSize].entries[i%pageSize] }
func (t *table) chained(i uint32) *chained { return &t.pages[i/pageSize].chains[i%pageSize] }
func (t *table) nodeOf(i uint32) *uint32   { return &t.pages[i/pageSize].nodes[i%pageSize] }
func (t *table) bucket(i uint32) *uint32   { return &t.pages[i/pageSize].buckets[i%pageSize] }
func (t *table) node(i uint32) *node       { return &t.pages[i/pageSize].heap[i%pageSize] }

// find returns the number of the entry of a key, or none.
func (t *table) find(k *Key, hash uint32) uint32 {
	if t.n == 0 {
		return none
	}
	for i := *t.chain(hash); i != none; i = t.chained(i).next {
		if t.chained(i).hash != hash {
			continue
		}
		if e := t.at(i); e.name == k.Name && e.owner.id == k.Owner {
			return i
		}
	}
	return none
}

// add adds an entry for a key of o, which is in no list yet.
func (t *table) add(o *owner, name *[32]byte, hash uint32, expires time.Duration) uint32 {
	i := t.n
	t.grow()
	e, first := t.at(i), t.chain(hash)
	e.owner, e.name, e.expires = o, *name, expires
	*t.chained(i) = chained{hash, *first}
	*first = i
	t.up(i, newNode(i, expires))
	return i
}

// remove removes an entry that is in no list any more.
func (t *table) remove(i uint32) {
	last := t.n - 1
	*t.linkTo(i) = t.chained(i).next
	t.fix(*t.nodeOf(i), *t.node(last), last)
	if i != last {
		t.move(last, i)
	}
	*t.at(last) = entry{}
	t.shrink()
}

// move gives an entry another number.
func (t *table) move(from, to uint32) {
	e := t.at(to)
	*e = *t.at(from)
	*t.linkTo(from) = to
	*t.chained(to) = *t.chained(from)
	at := *t.nodeOf(from)
	t.place(at, t.node(at).of(to))
	if !e.hasResponse() {
		t.renumber(&e.owner.rest, ofOwner, e, to)
		return
	}
	t.renumber(&e.owner.kept, ofOwner, e, to)
	t.renumber(&t.kept, ofAll, e, to)
}

// The table has as many buckets as entries. A new bucket takes its entries from a single
// other one, and gives them back when it goes (linear hashing).

// chain returns the first link of the chain for keys of this hash.
func (t *table) chain(hash uint32) *uint32 {
	i := hash & t.mask
	if i >= t.n {
		i &= t.mask >> 1
	}
	return t.bucket(i)
}

// linkTo returns the link to an entry in its chain.
func (t *table) linkTo(i uint32) *uint32 {
	link := t.chain(t.chained(i).hash)
	for *link != i {
		link = &t.chained(*link).next
	}
	return link
}

// grow adds a bucket, and room for an entry and a node.
func (t *table) grow() {
	added := t.n
	if int(added/pageSize) == len(t.pages) {
		t.pages = append(t.pages, new(page))
	}
	if t.n++; added > t.mask {
		t.mask = t.mask<<1 | 1
	}
	to := t.bucket(added)
	if *to = none; added == 0 {
		return
	}
	for link := t.bucket(added & (t.mask >> 1)); *link != none; {
		i := *link
		c := t.chained(i)
		if c.hash&t.mask != added {
			link = &c.next
			continue
		}
		*link = c.next
		c.next, *to = *to, i
	}
}

// shrink removes the last bucket and the room for the last entry and node. One page remains
// as a reserve.
func (t *table) shrink() {
	last := t.n - 1
	if last > 0 {
		first := t.bucket(last)
		end := first
		for *end != none {
			end = &t.chained(*end).next
		}
		other := t.bucket(last & (t.mask >> 1))
		*end = *other
		*other = *first
	}
	t.n = last
	if last > 0 && last-1 <= t.mask>>1 {
		t.mask >>= 1
	}
	if unused := len(t.pages) - int(last+pageSize-1)/pageSize; unused > 1 {
		t.pages[len(t.pages)-1] = nil
		t.pages = t.pages[:len(t.pages)-1]
	}
}

// A list has some entries in the order in which they were added.
type list struct{ oldest, newest uint32 }

// links are the neighbors of an entry in a list.
type links struct{ older, newer uint32 }

// The lists in which an entry may be, as indices of entry.links.
const (
	ofOwner = iota
	ofAll
)

var empty = list{none, none}

// push adds an entry as the newest.
func (t *table) push(l *list, of int, i uint32) {
	t.at(i).links[of] = links{l.newest, none}
	if l.newest == none {
		l.oldest = i
	} else {
		t.at(l.newest).links[of].newer = i
	}
	l.newest = i
}

// unlink removes an entry from a list.
func (t *table) unlink(l *list, of int, i uint32) {
	between := t.at(i).links[of]
	if between.older == none {
		l.oldest = between.newer
	} else {
		t.at(between.older).links[of].newer = between.newer
	}
	if between.newer == none {
		l.newest = between.older
	} else {
		t.at(between.newer).links[of].older = between.older
	}
}

// renumber makes a list name e by another number.
func (t *table) renumber(l *list, of int, e *entry, to uint32) {
	if older := e.links[of].older; older == none {
		l.oldest = to
	} else {
		t.at(older).links[of].newer = to
	}
	if newer := e.links[of].newer; newer == none {
		l.newest = to
	} else {
		t.at(newer).links[of].older = to
	}
}
