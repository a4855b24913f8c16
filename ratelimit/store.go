package ratelimit

import (
	"context"
	"time"
)

// A Store keeps count of what keys have used. [NewMemory] returns one for a single
// process; other modules provide stores that several processes share.
//
// A Store is safe for concurrent use, and retains nothing of its arguments after a
// call has returned. It decides by its own clock, which never goes back. The order of
// the policies of a decision makes no difference. Package ratelimittest checks this
// contract.
//
// A store that processes share must also drop the places of concurrency limits that
// nobody refunds, after somewhat more time than the longest request takes: the process
// may have died, or a call that failed may have taken effect. No caller repeats such a
// call, since that could free the place of another request. If the store never dropped
// these places, an outage would take them for good.
type Store interface {
	// Take decides one request. It admits the request if every charge that is not in
	// shadow fits, and then charges all that fit; otherwise it charges nothing. In
	// either case it sets the results in charges. A decision is one round trip. A
	// policy occurs at most once in charges.
	//
	// An error means that nothing was decided; either everything that fits was charged,
	// or nothing.
	Take(ctx context.Context, charges []Charge) (admitted bool, err error)

	// Adjust changes what earlier calls of Take have charged, by the Cost of each charge.
	// A positive cost is charged as far as the key has anything left. A negative one is
	// refunded, but no more than the key has used, and nothing once its window has ended.
	// Adjust sets Moved to the number of units that it has moved, since callers must
	// refund no unit that did not fit. At is the value that Take has set.
	Adjust(ctx context.Context, charges []Charge) error
}

// A Charge is the part of one policy in a decision.
type Charge struct {
	// Policy is the name of the policy, which is unique in a store.
	Policy string
	// Key identifies whom the policy counts.
	Key Key
	// Limit is what the key may use. It may differ from one decision to the next. Each
	// limit still enforces its own bound: what is charged under one counts under the
	// others. A quota of 0 covers no cost above 0, whatever the algorithm, and its Wait
	// is negative.
	Limit Limit
	// Cost is how many units to take, or by how many to adjust. Take refuses a cost
	// above what the limit can ever cover; a cost of 0 always fits.
	Cost int64
	// Least is how many units must be left for Take to admit a Cost below it.
	Least int64
	// Shadow is set for a policy that counts but never refuses.
	Shadow bool

	// Violated is set by Take if the cost does not fit.
	Violated bool
	// Remaining is set by Take to the whole units that are left, after the charge
	// if the request is admitted.
	Remaining int64
	// Reset is set by Take to the time until more than Remaining is left; 0 for a
	// concurrency limit, where no time makes a difference.
	Reset time.Duration
	// Wait is set by Take for a violated policy to the time until the cost fits if
	// nothing else is taken; 0 if that is unknown, negative if it never fits.
	Wait time.Duration
	// At is set by Take, for Adjust: an instant of the store's clock.
	At int64
	// Moved is set by Adjust to the units that were charged or, negative, refunded:
	// from 0 to Cost.
	Moved int64

	table *table // of a Memory, as are the others
	entry *entry
	shard int
	hash  uint64
}
