package apikey

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// An account has the keys of one owner in a [Memory]. They are in the order of Store.List,
// and are counted by the time at which they end, so that no call visits all of them.
type account struct {
	// keys are ordered by CreatedAt and then by ID, the opposite of Store.List. Neither
	// ever changes.
	keys []*Record
	// open are the ends of the keys that are not revoked, by their kinds.
	open [kinds]ends
}

// A kind is one of the kinds of keys that Limits count.
type kind uint8

const (
	kindActive kind = iota
	kindReplaced
	kindDerived
	kinds
)

func kindOf(k *Key) kind {
	switch {
	case k.DerivedFrom != "":
		return kindDerived
	case k.ReplacedBy != "":
		return kindReplaced
	}
	return kindActive
}

// room returns an error if the owner is at one of the limits at now. A nil account has no
// keys.
func (a *account) room(limits Limits, now time.Time) error {
	if a == nil || limits == (Limits{}) {
		return nil
	}
	active, replaced, derived := a.open[kindActive].from(now), a.open[kindReplaced].from(now), a.open[kindDerived].from(now)
	at := func(n, limit int) bool { return limit > 0 && n >= limit }
	switch {
	case at(active, limits.Active), at(replaced, limits.Replaced), at(active+replaced, limits.Working), at(derived, limits.Derived):
		return ErrLimit
	case at(len(a.keys), limits.Total):
		return ErrFull
	}
	return nil
}

func inOrder(a, b *Record) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
}

// add adds a new key. Usually it is the newest, and nothing moves.
func (a *account) add(r *Record) {
	i := len(a.keys)
	if i > 0 && inOrder(r, a.keys[i-1]) < 0 {
		i, _ = slices.BinarySearchFunc(a.keys, r, inOrder)
	}
	a.keys = slices.Insert(a.keys, i, r)
	a.count(r)
}

// remove removes keys for good.
func (a *account) remove(gone func(*Record) bool) {
	a.keys = slices.DeleteFunc(a.keys, func(r *Record) bool {
		if !gone(r) {
			return false
		}
		a.discount(r)
		return true
	})
}

// count adds r to open, and discount removes it before r changes.
func (a *account) count(r *Record) {
	if r.RevokedAt.IsZero() {
		a.open[kindOf(&r.Key)].add(endOf(r))
	}
}

func (a *account) discount(r *Record) {
	if r.RevokedAt.IsZero() {
		a.open[kindOf(&r.Key)].remove(endOf(r))
	}
}

// ends are times in microseconds since 1970, in ascending order.
type ends []int64

// endOf returns when r expires.
func endOf(r *Record) int64 {
	if r.ExpiresAt.IsZero() {
		return math.MaxInt64
	}
	return r.ExpiresAt.UnixMicro()
}

// from returns how many ends are after now.
func (e ends) from(now time.Time) int {
	// Times of stores are whole microseconds: the first end after now is not before the
	// next one.
	i, _ := slices.BinarySearch(e, now.UnixMicro()+1)
	return len(e) - i
}

func (e *ends) add(at int64) {
	*e = slices.Insert(*e, e.after(at), at)
}

func (e *ends) remove(at int64) {
	i := e.after(at)
	*e = slices.Delete(*e, i-1, i)
}

// after returns how many ends are later than at. An end is added and removed after the ends
// that equal it, where the fewest others move.
func (e *ends) after(at int64) int {
	if at == math.MaxInt64 {
		return len(*e)
	}
	i, _ := slices.BinarySearch(*e, at+1)
	return i
}
