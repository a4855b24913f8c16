package jwk

import (
	"errors"
	"slices"
	"time"
)

// A snapshot is what a [Remote] knows after a fetch. It never changes, and the next fetch
// that ends replaces it.
type snapshot struct {
	fetch   uint64 // the number of the fetch, from 1; 0 before the first has ended
	keys    []*Key
	removed []*Key    // keys that the set had before, the latest first
	version uint64    // changes when a key is removed
	fetched time.Time // when the set was requested; zero if there is none

	began     time.Time // when the fetch began
	err       error     // why the fetch failed
	failures  int       // the number of fetches in a row that have failed
	next      time.Time // when the next fetch is due
	permitted time.Time // when a token may cause one earlier

	wanted   chan bool     // has an element if a token asks for the next fetch
	replaced chan struct{} // closed when there is a newer snapshot
}

// maxRemoved is how many removed keys are remembered.
const maxRemoved = 64

func newSnapshot() *snapshot {
	return (&snapshot{err: errors.New("jwk: no keys have been fetched yet")}).successor(0)
}

// successor returns a copy of s for this fetch, to be changed before it is stored. What
// was asked of s is not asked of its successor: those who still want a fetch then ask
// again.
func (s *snapshot) successor(fetch uint64) *snapshot {
	c := *s
	c.fetch, c.wanted, c.replaced = fetch, make(chan bool, 1), make(chan struct{})
	return &c
}

// replaceKeys replaces the keys, and reports whether one of them is fresh: neither in the
// set before nor removed from it. Keys that stay remain the same pointers.
func (s *snapshot) replaceKeys(keys []*Key) (fresh bool) {
	former := s.keys
	s.keys = slices.Clone(keys)
	for i, k := range s.keys {
		if old := find(former, k); old != nil {
			s.keys[i] = old
		} else if find(s.removed, k) == nil {
			fresh = true
		}
	}
	gone := without(former, s.keys)
	if len(gone) > 0 {
		s.version++
	}
	s.removed = slices.Concat(gone, without(s.removed, s.keys))
	s.removed = s.removed[:min(len(s.removed), maxRemoved)]
	return fresh
}

// want asks for another fetch. If it finds no new key, it starts a cool-down if cause is
// set.
func (s *snapshot) want(cause bool) {
	select {
	case s.wanted <- cause:
	default:
	}
}

// find returns the key of the list that is equal to k, or nil.
func find(list []*Key, k *Key) *Key {
	if i := slices.IndexFunc(list, func(other *Key) bool { return sameKey(other, k) }); i >= 0 {
		return list[i]
	}
	return nil
}

// without returns the keys of a list that are not among others.
func without(list, others []*Key) []*Key {
	if len(others) == 0 {
		return list
	}
	var rest []*Key
	for _, k := range list {
		if find(others, k) == nil {
			rest = append(rest, k)
		}
	}
	return rest
}

// named reports whether a key of the list has this ID, which is not empty.
func named(list []*Key, id string) bool {
	return id != "" && slices.ContainsFunc(list, func(k *Key) bool { return k.id == id })
}
