package exchange

import (
	"context"
	"errors"
)

// Left reports whether the client of a request with this context has disconnected. A
// context that ended for another reason has a deadline or a cause.
func Left(ctx context.Context) bool { return errors.Is(context.Cause(ctx), context.Canceled) }
