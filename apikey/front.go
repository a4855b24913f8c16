package apikey

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/internal/siphash"
)

// A front finds keys in use by their text, before the text is parsed, hashed and looked
// up. The text does not stay in memory: a key is found by a code of its text under a
// random key of this front, which discloses no more of the text than its [Hash] does.
//
// It remembers keys, but decides nothing: the [Cache] or the [Memory] must still have the
// entries of a key, and the state of the key is checked for each request.
type front struct {
	seed  maphash.Seed
	key   siphash.Key
	slots []atomic.Pointer[remembered]
}

// frontSlots is the number of places of a front, two of which suit a key.
const frontSlots = 1 << 15

// A remembered is a key that was accepted.
type remembered struct {
	hash   uint64 // of the text; it finds the place, but proves nothing
	code   siphash.Sum
	entry  *entry
	parent *entry // of a derived key, or nil
	view   *view
	// until is when the first of the entries and the view ends, and expires when the first
	// of the keys does; zero means never. bound is set if a key is accepted only from some
	// networks.
	until, expires time.Time
	bound          bool
	// used is set when the key is found, and cleared when another key wants the place.
	used atomic.Bool
}

func newFront() *front {
	return &front{maphash.MakeSeed(), siphash.Random(), make([]atomic.Pointer[remembered], frontSlots)}
}

// places returns the two places for a text with this hash.
func (f *front) places(hash uint64) [2]*atomic.Pointer[remembered] {
	return [2]*atomic.Pointer[remembered]{
		&f.slots[hash%frontSlots],
		&f.slots[hash/frontSlots%frontSlots],
	}
}

// find returns the key with this text if it is remembered, whether or not it is still as
// it was. For any other text it costs only a fast hash.
func (f *front) find(text string) *remembered {
	return f.findAt(maphash.String(f.seed, text), text)
}

func (f *front) findAt(hash uint64, text string) *remembered {
	for _, place := range f.places(hash) {
		if m := place.Load(); m != nil && m.hash == hash && m.code.Equal(f.key.Sum(text)) {
			if !m.used.Load() {
				m.used.Store(true)
			}
			return m
		}
	}
	return nil
}

// remember keeps a key that was accepted, unless it has no entry that others keep. A key
// that was found since another one wanted its place keeps it.
func (f *front) remember(text string, e, parent *entry, v *view, now time.Time) {
	if !e.current(now) || parent != nil && !parent.current(now) {
		return
	}
	hash := maphash.String(f.seed, text)
	places := f.places(hash)
	place, old := places[0], places[0].Load()
	if second := places[1].Load(); old != nil && old.hash != hash && old.current(now) &&
		(second == nil || second.hash == hash || !second.current(now)) {
		place, old = places[1], second
	}
	if old != nil && old.hash != hash && old.current(now) && old.used.Swap(false) {
		return
	}
	m := &remembered{hash: hash, code: f.key.Sum(text), entry: e, parent: parent, view: v}
	m.include(e)
	if parent != nil {
		m.include(parent)
	}
	m.until = sooner(m.until, v.until)
	place.Store(m)
}

// forget frees the place of m.
func (f *front) forget(m *remembered) {
	for _, place := range f.places(m.hash) {
		place.CompareAndSwap(m, nil)
	}
}

// include takes over of e what the passing of time or the network of a client makes
// unusable. Nothing else of an entry changes.
func (m *remembered) include(e *entry) {
	m.until = sooner(m.until, e.until)
	m.expires = sooner(m.expires, e.record.ExpiresAt)
	m.bound = m.bound || len(e.record.AllowedNetworks) > 0
}

// sooner returns the earlier of two times, of which a zero one means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// current reports whether a lookup at now would find the same entries, and their keys
// unexpired. It reads little memory, because most keys are not in the cache of the processor.
func (m *remembered) current(now time.Time) bool {
	return before(now, m.until) && before(now, m.expires) &&
		m.entry.kept.Load() && (m.parent == nil || m.parent.kept.Load())
}

// before reports whether now is before end, where zero means never.
func before(now, end time.Time) bool { return end.IsZero() || now.Before(end) }
