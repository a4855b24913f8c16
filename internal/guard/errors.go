package guard

import "errors"

// The errors of stores. The root package exports and documents them.
var (
	ErrUnavailable = errors.New("the store is unavailable")
	ErrCorrupt     = errors.New("stored data cannot be read")
	ErrFull        = errors.New("the store is full")
	ErrClosed      = errors.New("the store is closed")
	ErrSchema      = errors.New("the store has no schema, or that of another version")
)

// An unavailable is a reason why a store is unavailable. It matches ErrUnavailable.
type unavailable string

func (u unavailable) Error() string { return string(u) }

func (u unavailable) Is(target error) bool { return target == ErrUnavailable }

// working reports whether err shows that the store is not down.
func working(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFull) || errors.Is(err, ErrClosed)
}
