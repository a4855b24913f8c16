package ratelimit

import (
	"context"
	"time"
)

// A Store keeps what keys have used. [NewMemory] makes one for a single process;
// other modules keep it where several processes share it.
//
// A Store is safe for concurrent use, and keeps nothing of its arguments after a
// call has returned. It decides by its own clock, which never goes back. Whether
// the policies of one decision come in one order or another makes no difference.
// The contract is checked by ratelimittest.
type Store interface {
	// Take decides one request: if every charge that is not in shadow can be
	// covered, all that can be are charged, else none is. It reports whether the
	// request is admitted, and sets the results in charges in either case. A
	// decision is one round trip. A policy occurs at most once in charges.
	//
	// An error means that nothing was decided; then at most everything or nothing
	// was charged.
	Take(ctx context.Context, charges []Charge) (admitted bool, err error)

	// Adjust changes what earlier calls of Take have charged, by the Cost of each
	// charge: a positive one is charged as far as the key has anything left, a
	// negative one is given back, but no more than the key has used, and nothing
	// once the window it was taken from has ended. It sets Moved to the units that
	// it has really moved, by which its callers go: what did not fit was never
	// taken, and is not given back. At is what Take has set.
	Adjust(ctx context.Context, charges []Charge) error
}

// A Charge is the part of one policy in a decision.
type Charge struct {
	// Policy is the name of the policy, which is unique in a store.
	Policy string
	// Key is whom the policy counts.
	Key Key
	// Limit is what the key may use. It may differ from one decision to the next,
	// and each limit then keeps what it bounds: it is charged with what others are,
	// and forgets nothing because of them. A quota of 0 covers no cost above 0,
	// whatever the algorithm, and its Wait is negative.
	Limit Limit
	// Cost is how much to take, or by how much to adjust. Take refuses a cost
	// above what the limit can ever cover; a cost of 0 is always covered.
	Cost int64
	// Least is how much must be left for Take to cover a Cost below it.
	Least int64
	// Shadow is set for a policy that is only watched: it never refuses.
	Shadow bool

	// Violated is set by Take if this policy cannot cover the cost.
	Violated bool
	// Remaining is set by Take to the whole units that are left, after the charge
	// if the request is admitted.
	Remaining int64
	// Reset is set by Take to the time until more than Remaining is left; 0 where
	// time brings nothing, as for a concurrency limit.
	Reset time.Duration
	// Wait is set by Take for a violated policy to the time until it covers the
	// cost if nothing else is taken; 0 if time does not tell, negative if never.
	Wait time.Duration
	// At is set by Take, for Adjust: an instant of the store's clock.
	At int64
	// Moved is set by Adjust to the units that were charged or, negative, given
	// back: from 0 to Cost.
	Moved int64

	table *table // the memory store's own
	entry *entry
	shard int
	hash  uint64
}
