package jwtauth

import (
	"context"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// maxStoreCalls bounds how many calls of one store run at a time, those that hang
// included.
const maxStoreCalls = 64

// defaultRevocationTimeout is above what a healthy store takes, also far away, and
// below what a client waits.
const defaultRevocationTimeout = time.Second

// guardedRevocations bounds the calls of Revocations that wait for another process.
type guardedRevocations struct {
	revocations Revocations
	guard       *guard.Guard
}

// guardRevocations returns r with bounded calls. A [RevocationList] waits for
// nothing and stays as it is.
func guardRevocations(r Revocations, timeout time.Duration) Revocations {
	if _, local := r.(*RevocationList); r == nil || local {
		return r
	}
	return guardedRevocations{r, guard.New(timeout, maxStoreCalls)}
}

func (g guardedRevocations) Revoked(ctx context.Context, t *Token) (bool, error) {
	return guard.Call(ctx, g.guard, func(ctx context.Context) (bool, error) { return g.revocations.Revoked(ctx, t) }, nil)
}
