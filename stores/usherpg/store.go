package usherpg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/usher-go/usher"
)

// A store has what all stores have in common: calls that end when the store is closed, and
// whose errors match those of package usher.
type store struct {
	open  context.Context // ends when the store is closed
	close context.CancelFunc
}

// newStore returns a store that is closed when parent ends.
func newStore(parent context.Context) store {
	ctx, cancel := context.WithCancel(parent)
	return store{ctx, cancel}
}

// Close implements the Close methods of all stores.
func (s *store) Close() error {
	s.close()
	return nil
}

// call calls f with a context that ends with ctx, and when the store is closed. It calls f
// a second time if the first call has certainly had no effect, and another attempt may well
// succeed at once.
func (s *store) call(ctx context.Context, what string, f func(context.Context) error) error {
	if err := s.closed(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.open, cancel)()
	err := f(ctx)
	if err != nil && again(err) {
		err = f(ctx)
	}
	switch {
	case err == nil:
		return nil
	case s.closed() != nil:
		return errClosed
	case canceled(err) && ctx.Err() != nil:
		return failed(what, ctx.Err())
	default:
		return failed(what, err)
	}
}

// canceled reports whether the server has canceled a statement: a pool may ask for that
// when the context of a call ends.
func canceled(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "57014"
}

var errClosed = fmt.Errorf("usherpg: %w", usher.ErrClosed)

// closed returns an error if the store is closed.
func (s *store) closed() error {
	if s.open.Err() != nil {
		return errClosed
	}
	return nil
}

// again reports whether a call had no effect and may succeed if it is repeated: it was
// rolled back for the sake of another transaction, or its connection had been closed
// before.
func again(err error) bool {
	if _, final := errors.AsType[*failure](err); final {
		return false
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "40001" || e.Code == "40P01"
	}
	return pgconn.SafeToRetry(err)
}
