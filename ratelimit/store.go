package ratelimit

import (
	"context"
	"crypto/sha256"
	"time"
)

// A Store keeps count of what keys have used. [NewMemory] returns one for a single
// process; other modules provide stores that several processes share. Package
// ratelimittest checks what follows.
//
// A Store is safe for concurrent use, and retains nothing of its arguments after a
// call has returned. It decides by its own clock, which never goes back. A decision has at
// most 16 charges, in any order, each of another policy; one with two charges of a policy
// is an error. A store knows keys by their [Key.Digest]. On a server that is split in
// shards, it keeps all that one decision may charge in one shard.
//
// Errors match those of package usher, such as [usher.ErrUnavailable]. After an error a
// call has changed all that it was to change, or nothing; which of them it was, another
// call with the same ID finds out. What cannot be read is [usher.ErrCorrupt], and is never
// taken for a key that has used nothing.
//
// # Arithmetic
//
// All stores count alike, in exact integers: a [Memory] in nanoseconds, stores on servers
// in microseconds. Periods are whole microseconds, and results are rounded up, so that
// stores agree at instants of whole microseconds.
//
// A charge fits if max(Cost, MinRemaining) units are left, or if that is 0. Under a quota of
// 0 nothing is left. [Unlimited], [Nothing] and a quota of 0 read and change nothing that is
// stored.
//
// A [TokenBucket] is the instant at which it is full. In span(n) = n × Per / Quota, exactly,
// n tokens are earned. If the bucket is full after D, the least n with span(n) >= D is used
// and Burst - n is left; Reset is D - span(n-1), and Wait is D + span(need) - span(Burst). A
// charge moves the instant, or the present time if that is later, on by span(Cost). A refund
// moves it back.
//
// A [RollingWindow] is the instants of charges, with their costs. Each counts for the period
// that begins with it, and not an instant longer. A refund takes from the charge of TakenAt.
// An adjustment upwards adds to that charge, or charges now if that has ended.
//
// A [CalendarWindow] is the end of a window, the instant at which the key first used it, and
// what was used since. It stays until its end, even if the clock is set back. Then the
// first of Windows that ends later begins; if there is none, the clocks of the caller and
// the store are too far apart, and the call is an error that charges nothing. A charge from
// before the window is not refunded. Limits with one quota, unit and name of the time zone
// are the same.
//
// A [Concurrency] limit is the places of a key: for each decision its ID, their number, and
// the end of the lease, at which they are free. An adjustment changes the places of TakenBy,
// and moves nothing if there are none. These places count for no other algorithm.
//
// # Several limits of one key
//
// A key may have one limit in one decision and another in the next. It keeps a count for
// the present limit and for the last three others, if these count anything. What moves under
// the present limit moves under the others, as far as it fits; a refund there first reduces
// what did not fit. A calendar window among the others becomes the next one at its end,
// and is dropped at the end of that one.
//
// A limit without a count begins with the debts of the others. A debt is what is used, and
// until when, rounded up to a microsecond. A bucket and a calendar window begin with the
// largest debt, and of those the one that lasts longest: a bucket with min(used, Burst)
// tokens less from now on, a calendar window with min(used, Quota). A rolling window takes
// all debts, from the one that lasts longest: each charges min(used, Quota), less what is
// charged already, at the instant that lets it end with the debt, but not after now. When
// there are four others, the one whose debt ends first is dropped.
type Store interface {
	// Take decides d: it sets the results of the charges and Admitted. It admits the
	// request if every charge that is not in shadow fits, and then charges all that fit;
	// otherwise it charges nothing. A decision is one round trip.
	//
	// Called again with the same ID within 5 seconds, Take sets the same results, and has
	// charged once, even if the first call is still running on a server.
	Take(ctx context.Context, d *Decision) error

	// Adjust changes what earlier calls of Take have charged, by the Cost of each charge,
	// and sets Moved. A positive cost is charged as far as the key has anything left. A
	// negative one is refunded, but no more than the key has used, and nothing once its
	// window has ended. TakenBy and TakenAt are those that Take has set; the ID is that of
	// this call. Called again with the same ID within 5 seconds, Adjust sets the same
	// results, and has moved the units once.
	Adjust(ctx context.Context, d *Decision) error

	// Renew starts the leases of at most [MaxRenew] places again, and returns the places
	// that are not in use: their lease has ended, they were refunded, or they are unknown.
	// It takes no place. If it cannot read some places, it renews the others and returns an
	// error. It may be called again at will.
	Renew(ctx context.Context, places []Place, lease time.Duration) (lost []Place, err error)

	// Close releases what the store has open. Later calls, and those that are running and
	// do not end otherwise, return [usher.ErrClosed]. A second Close returns nil.
	Close() error
}

// An ID identifies one call of Take or Adjust. Node is random for each [Limiter] over a
// store, and Seq counts its calls. Only calls of a [Memory] may have the zero ID: such a
// call is never repeated, which costs less.
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
	// Windows are, for a [CalendarWindow], the one that contains the present time of the
	// caller, and the next one, at each call of Take and Adjust. They are zero only for a
	// [Memory], which then computes them.
	Windows [2]Window
	// Lease is, for a [Concurrency] limit, how long places stay in use unless they are
	// renewed. It is zero only for a [Memory], where such places stay in use until they are
	// refunded.
	Lease time.Duration

	// Violated is set by Take if the cost does not fit.
	Violated bool
	// Remaining is set by Take to the whole units that are left, after the charge
	// if the request is admitted.
	Remaining int64
	// Reset is set by Take to the time until more than Remaining is left; 0 if all is
	// left, and for a concurrency limit, where no time makes a difference.
	Reset time.Duration
	// Wait is set by Take for a violated policy to the time until the cost fits if
	// nothing else is taken; 0 if that is unknown, negative if it never fits.
	Wait time.Duration
	// TakenBy is set by Take to the ID of the decision, and TakenAt to an instant of the
	// store's clock. They identify for Adjust what was charged: a place is refunded by
	// TakenBy, and at most once.
	TakenBy ID
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
// stores keep in place of the key: it has one length, and no client can choose it.
func (k Key) Digest() [16]byte {
	var buf [128]byte
	sum := sha256.Sum256(k.append(buf[:0]))
	return [16]byte(sum[:16])
}
