package exchange

import (
	"sync/atomic"
	"unsafe"
)

// A Slot is the place of one pointer in every [Exchange]. Its zero value is no
// slot: use [NewSlot].
//
// This is the one use of unsafe in the module. A Slot writes and reads a place
// that no other Slot has, so what it reads is a *T that it wrote or nil; an
// atomic.Pointer for each type would say the same, but this package cannot name
// the types of those above it.
type Slot[T any] struct{ place uint8 }

type values [places]unsafe.Pointer

// places is how many slots this module has.
const places = 6

var taken uint8

// NewSlot returns a slot that is nobody else's. It is for variables of packages,
// which are initialized one after the other, and panics if there are more than
// this module has.
func NewSlot[T any]() Slot[T] {
	if taken == places {
		panic("exchange: more slots than places") //nolint:forbidigo // documented
	}
	taken++
	return Slot[T]{taken - 1}
}

// Load returns what was last stored, or nil.
func (s Slot[T]) Load(x *Exchange) *T {
	return (*T)(atomic.LoadPointer(&x.values[s.place]))
}

// Store stores v. Nobody may change what it points to any more, unless that is
// safe for concurrent use.
func (s Slot[T]) Store(x *Exchange, v *T) {
	atomic.StorePointer(&x.values[s.place], unsafe.Pointer(v))
}

// The slots that several packages use.
var (
	// Responder holds a usher.Responder.
	Responder = NewSlot[any]()
	// Challenges are what a caller who came without a credential may present.
	Challenges = NewSlot[[]string]()
)
