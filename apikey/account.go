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
	// open are the ends of the keys that are not revoked: of those that are not replaced,
	// and of those that are.
	open [2]ends
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
		a.ends(r.ReplacedBy != "").add(endOf(r))
	}
}

func (a *account) discount(r *Record) {
	if r.RevokedAt.IsZero() {
		a.ends(r.ReplacedBy != "").remove(endOf(r))
	}
}

// ends returns the ends of the keys that are replaced, or of those that are not.
func (a *account) ends(replaced bool) *ends {
	if replaced {
		return &a.open[1]
	}
	return &a.open[0]
}

// unended returns how many of the keys that are replaced, or of those that are not, have
// not ended at now.
func (a *account) unended(now time.Time, replaced bool) int {
	all := *a.ends(replaced)
	// Times of stores are whole microseconds: the first end after now is not before the
	// next one.
	i, _ := slices.BinarySearch(all, now.UnixMicro()+1)
	return len(all) - i
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
