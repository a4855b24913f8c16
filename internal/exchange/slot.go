package exchange

import "sync/atomic"

// A Slot is the place of one pointer in every [Exchange]. The zero Slot has no place:
// Load returns nil, and Store panics. Use [NewSlot].
type Slot[T any] struct{ place uint8 } // counted from 1

// places is the number of slots in this module. A test checks it, since each request pays
// for all of them.
const places = 7

type values [places]atomic.Value

var taken uint8

// NewSlot returns a slot that no other package has. It is for package variables, which
// are initialized one after another. It panics if there are more slots than places.
func NewSlot[T any]() Slot[T] {
	if taken == places {
		panic("exchange: more slots than places") //nolint:forbidigo // documented
	}
	taken++
	return Slot[T]{taken}
}

// Load returns what was last stored, or nil.
func (s Slot[T]) Load(x *Exchange) *T {
	if s.place == 0 {
		return nil
	}
	v, _ := x.values[s.place-1].Load().(*T)
	return v
}

// Store stores v, which may be nil. What v points to must not change afterwards,
// unless that is safe for concurrent use.
func (s Slot[T]) Store(x *Exchange, v *T) { x.values[s.place-1].Store(v) }

// The slots that several packages use.
var (
	// Responder holds a usher.Responder.
	Responder = NewSlot[any]()
	// Challenges holds the challenges of the authenticator that has accepted the caller,
	// or those for a caller without a credential.
	Challenges = NewSlot[[]string]()
)
