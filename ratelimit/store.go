package ratelimit

import (
	"context"
	"crypto/sha256"
	"time"
)

// A Store keeps count of what keys have used. [NewMemory] returns one for a single
// process; other modules provide stores that several processes share.
//
// A Store is safe for concurrent use, and retains nothing of its arguments after a
// call has returned. It decides by its own clock, which never goes back. The order of
// the charges of a decision makes no difference. A policy occurs at most once in a
// decision, and a decision has at most 16 charges. Package ratelimittest checks this
// contract.
//
// Errors match those of package usher, for instance [usher.ErrUnavailable]. A call that
// has failed with an error has changed nothing or everything that it was to change: to
// find out which, the caller calls again with the same ID.
type Store interface {
	// Take decides d: it sets the results of the charges and Admitted. It admits the
	// request if every charge that is not in shadow fits, and then charges all that fit;
	// otherwise it charges nothing. A decision is one round trip.
	//
	// Called again with the same ID within 5 seconds, Take sets the same results, and has
	// charged once. No two calls have one ID at a time.
	Take(ctx context.Context, d *Decision) error

	// Adjust changes what earlier calls of Take have charged, by the Cost of each charge,
	// and sets Moved. A positive cost is charged as far as the key has anything left. A
	// negative one is refunded, but no more than the key has used, and nothing once its
	// window has ended. The ID is that of this call, and TakenBy and TakenAt are those
	// that Take has set. Called again with the same ID within 5 seconds, Adjust sets the
	// same results, and has moved the units once.
	Adjust(ctx context.Context, d *Decision) error

	// Renew starts the leases of at most [MaxRenew] places again, and returns the places
	// that are not in use: their lease has ended, they were refunded, or they are unknown.
	// It takes no place. If it cannot read some places, it renews the others and returns an
	// error. It may be called again at will.
	Renew(ctx context.Context, places []Place, lease time.Duration) (lost []Place, err error)

	// Close releases what the store holds. Later calls, and calls that are running and
	// cannot end otherwise, return [usher.ErrClosed]. A second Close returns nil.
	Close() error
}

// An ID identifies one call of Take or Adjust. Node is random for each [Limiter] over a
// store, and Seq counts its calls. Only a call of a [Memory] may have the zero ID, which
// identifies nothing: such a call is never repeated.
type ID struct{ Node, Seq uint64 }

// A Decision is one request under all policies that count it.
type Decision struct {
	ID      ID
	Charges []Charge
	// Admitted is set by Take.
	Admitted bool
}

// A Window is a window of the calendar: from Start until just before End.
type Window struct{ Start, End time.Time }

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
	// MinRemaining is how many units must be left for Take to admit a Cost below it.
	MinRemaining int64
	// Shadow is set for a policy that counts but never refuses.
	Shadow bool
	// Windows are, for a [CalendarWindow], the window that contains the present time of
	// the caller, and the next one. They are zero only for a [Memory], which then computes
	// them.
	Windows [2]Window
	// Lease is, for a [Concurrency] limit, how long places stay in use unless they
	// are renewed. It is zero only for a [Memory], where such places stay in use until they
	// are refunded.
	Lease time.Duration

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
	// TakenBy is set by Take to the ID of the decision. With TakenAt it identifies for
	// Adjust what was charged: a place is refunded by TakenBy, and at most once.
	TakenBy ID
	// TakenAt is set by Take to an instant of the store's clock.
	TakenAt int64
	// Moved is set by Adjust to the units that were charged or, negative, refunded:
	// from 0 to Cost. Callers must refund no unit that did not fit.
	Moved int64

	place *leasedPlace // of a Limiter, while it is renewed
	table *table       // of a Memory, as are the others
	entry *entry
	shard int
	hash  uint64
	wall  int64 // of a calendar: the present time, in nanoseconds since 1970
}

// A Place is what a decision has charged under a [Concurrency] limit: TakenBy is the ID
// of the decision.
type Place struct {
	Policy  string
	Key     Key
	TakenBy ID
}

// Digest returns the first 16 bytes of the SHA-256 digest of [Key.String]. It is what
// stores keep: it has one length, and no client can choose it.
func (k Key) Digest() [16]byte {
	var buf [128]byte
	sum := sha256.Sum256(k.append(buf[:0]))
	return [16]byte(sum[:16])
}
