package ratelimit

import (
	"context"
	"crypto/sha256"
	"time"
)

// A Store counts what each key has used. [NewMemory] returns a Store for a single process;
// other modules provide stores that several processes share. Package ratelimittest checks
// the contract that follows.
//
// A Store is safe for concurrent use, and retains none of its arguments after a call has
// returned. It decides by its own clock, which never goes back. A decision has at most 16
// charges, in any order; two charges of one policy in a decision are an error. A store
// identifies a key by its [Key.Digest]. On a server that is split into shards, a store
// keeps everything that one decision may charge in one shard.
//
// Errors match those of package usher, such as [usher.ErrUnavailable]. A call that returns
// an error has taken effect as a whole or not at all; another call with the same ID finds
// out which. Stored data that cannot be read is [usher.ErrCorrupt]: a store never treats it
// as a key that has used nothing.
//
// # Arithmetic
//
// All stores compute the same results in exact integers: a [Memory] in nanoseconds, stores
// on servers in microseconds. Periods are whole numbers of microseconds, and results are
// rounded up, so that all stores agree at instants of whole microseconds.
//
// The need of a charge is max(Cost, MinRemaining). A charge fits if its need is 0, or is at
// most the number of units that are left. Under a quota of 0 no units are left. For
// [Unlimited], [Nothing] and a quota of 0, a store reads and changes no stored data.
//
// The state of a [TokenBucket] is the instant at which the bucket is full. It earns n tokens
// in span(n) = n × Per / Quota, exactly. If the bucket will be full after a time D, the
// number of used tokens is the least n with span(n) >= D, and max(Burst - n, 0) are left;
// Reset is D - span(min(n, Burst) - 1), and Wait is D + span(need) - span(Burst). A charge
// starts from the instant or the present time, whichever is later, and moves it on by
// span(Cost). A refund of n tokens moves the instant back by span(n). An Adjust with Overdraw
// charges beyond the burst: no token is left until that debt is earned, and a refund reduces
// it first. A key uses at most 1e9 tokens at a time, and at most those of 36,600 days.
//
// The state of a [RollingWindow] is the instants of its charges, with their costs. Each
// charge counts for the period that begins at its instant, and not an instant longer. A
// refund reduces the charge of TakenAt. An upward adjustment adds to the charge of TakenAt,
// or charges at the present time if the period of that charge has ended.
//
// The state of a [CalendarWindow] is the end of its window, the instant at which the key
// first used the window, and the units used since then. The window stays until its end, for
// callers whose clock is ahead too. If the present time is before the end of the first of
// Windows, and that ends before the window of the state, the clock was ahead and has been
// set back: the first of Windows takes the place of the later one, with what was used in it.
// The instant of the first use is then the present time, if it was later.
//
// After the end of a window, the first of Windows that has not ended begins. If both have
// ended, the clocks of the caller and the store are too far apart: the call returns an error
// and charges nothing. A charge whose TakenAt is before the first use of the window is not
// refunded. Limits with the same quota and the same results of [Limit.Calendar] are one
// limit.
//
// The state of a [Concurrency] limit is the places of the key: for each decision its ID, the
// number of its places, and the end of their lease, at which they become free. An adjustment
// changes the places of TakenBy, and moves nothing if TakenBy has none. Places do not count
// under limits of other algorithms.
//
// # Holds
//
// Under a limit of another algorithm, a charge with Hold reserves units: for each decision
// the key has, as for places, the ID, the number of those units, and the end of their lease,
// at which they become free. What a key holds is not left for any charge of the policy,
// whatever its limit: a charge fits if its need is 0, or is at most the number of units that
// are left under its limit, less those that are reserved. Remaining is that number, or 0 if
// it is negative. Take computes Reset and Wait as if nothing were reserved; Wait is 0 if the
// charge would fit then.
//
// If the request is admitted, a charge with Hold holds its Cost instead of charging it: what
// is used does not change. An adjustment with Hold changes what TakenBy holds by Cost,
// upwards as far as units are left, and moves nothing if TakenBy holds none. With EndHold, it
// frees all that TakenBy holds, if any, and then charges Cost at the present time, as far as
// units are left besides those that other decisions hold, or all of it with Overdraw. A
// negative Cost then charges nothing.
//
// # Several limits of one key
//
// A key may have one limit in one decision and another in the next. A store keeps a count of
// the key under its present limit, and under up to three others that still count anything.
// What moves under the present limit also moves under the others, as far as it fits there;
// a refund first reduces what did not fit there. When a calendar window among the others
// ends, the next window begins; when that one ends, its count is dropped.
//
// A limit without a count begins with the debts of the others. A debt is the number of used
// units, and the instant until which they are used, rounded up to a microsecond. A bucket
// and a calendar window begin with the largest debt, or, of several equal ones, with the one
// that lasts longest: a bucket lacks min(used, Burst) tokens from now on, and a calendar
// window has used min(used, Quota). A rolling window takes all debts, beginning with the one
// that lasts longest: each charges min(used, Quota), less what is charged already, at the
// instant at which a charge must be made to end with the debt, but never after the present
// time. When there are four others, the one whose debt ends first is dropped.
type Store interface {
	// Take decides d: it sets the results of the charges and Admitted. It admits the
	// request if every charge fits that is not in shadow. It then charges all that fit;
	// otherwise it charges nothing. A decision takes one round trip.
	//
	// If Take is called again with the same ID within 5 seconds, it sets the same results,
	// and the units are charged once, even if the first call is still running on a server.
	//
	// If Peek is set, Take sets the same results as for a new request, but it charges
	// nothing and changes no stored data. Its results are not kept for a repetition.
	// Remaining is then what is left without the charge.
	Take(ctx context.Context, d *Decision) error

	// Adjust changes what earlier calls of Take have charged, by the Cost of each charge,
	// and sets Moved. It charges a positive Cost as far as the key has units left, unless
	// Overdraw is set. It refunds a negative Cost, but no more than the key has used, and
	// nothing once the window of the charge has ended. TakenBy and TakenAt are those that
	// Take has set; the ID is that of this call. If Adjust is called again with the same ID
	// within 5 seconds, it sets the same results, and the units are moved once.
	Adjust(ctx context.Context, d *Decision) error

	// Renew starts the leases of at most [MaxRenew] places and holds again. It returns those
	// that are lost, in any order, and changes nothing about them: their lease has ended, they
	// were refunded, they are unknown, or their data cannot be read. It renews all others,
	// and never takes a place. Callers may repeat it at any time.
	Renew(ctx context.Context, places []Place, lease time.Duration) (lost []Place, err error)

	// Reset forgets what the keys of at most [MaxRenew] counters have used, under all limits:
	// the next decision is that of a new key. Places and holds stay. Charges from before a Reset
	// can still be refunded, but no more than has been used since. Callers may repeat it at
	// any time.
	Reset(ctx context.Context, counters []Counter) error

	// Close releases the resources of the store. Later calls return [usher.ErrClosed], and
	// so do running calls that would not end otherwise. A second Close returns nil.
	Close() error
}

// An ID identifies one call of Take or Adjust. Node is random for each [Limiter] over a
// store, and Seq counts its calls. Only calls of a [Memory] may have the zero ID: such a
// call is never repeated, so its results are not kept.
type ID struct{ Node, Seq uint64 }

// A Decision is one request under all policies that count it, for a [Store]: its Take and
// its Adjust read the first fields, and set the results. A Decision belongs to one call at a
// time.
type Decision struct {
	// ID identifies the call.
	ID ID
	// Charges are at most 16, each of another policy.
	Charges []Charge
	// Peek is set for a call of Take that only reports what it would decide.
	Peek bool
	// Admitted is set by Take: it reports whether the request is admitted.
	Admitted bool
}

// A Window is a window of the calendar: from Start until just before End.
type Window struct{ Start, End time.Time }

// A Charge is the part of a decision that belongs to one policy.
type Charge struct {
	// Policy is the name of the policy, which is unique in a store.
	Policy string
	// Key identifies whom the policy counts.
	Key Key
	// Limit is what the key may use. It may differ from one decision to the next. Each
	// limit still enforces its own bound: what is charged under one counts under the
	// others. Under a quota of 0 no cost above 0 fits, whatever the algorithm, and Wait is
	// negative.
	Limit Limit
	// Cost is how many units to take, or by how many to adjust. A cost above what the limit
	// can ever cover never fits. A cost of 0 always fits if MinRemaining is 0 too.
	Cost int64
	// MinRemaining is how many units must be left for the charge to fit, even if Cost is
	// less.
	MinRemaining int64
	// Overdraw makes Adjust charge a positive Cost under a [TokenBucket] even beyond what is
	// left. It has no effect under other limits.
	Overdraw bool
	// Shadow is set for a policy that counts but never refuses.
	Shadow bool
	// Hold makes Take reserve Cost for the decision instead of charging it, and Adjust change
	// what the decision holds. It needs an ID and a Lease, and has no effect under a
	// [Concurrency] limit.
	Hold bool
	// EndHold makes Adjust of a charge with Hold free all that the decision holds, and then
	// charge Cost.
	EndHold bool
	// Windows are, for a [CalendarWindow], the window that contains the caller's present
	// time and the next one. The caller sets them for each call of Take and Adjust. They
	// may be zero only for a [Memory], which then computes them.
	Windows [2]Window
	// Lease is how long the places of a [Concurrency] limit stay in use, and units stay
	// reserved, unless they are renewed. It may be zero only for a [Memory], where they stay
	// until they are refunded, or until EndHold.
	Lease time.Duration

	// Violated is set by Take if the charge does not fit.
	Violated bool
	// Remaining is set by Take to the whole units that are left, after the charge
	// if the request is admitted.
	Remaining int64
	// Reset is set by Take to the time until more than Remaining is left. It is 0 if all
	// units are left, and for a concurrency limit, whose places become free at no known
	// time.
	Reset time.Duration
	// Wait is set by Take for a violated policy to the time until the charge fits if
	// nothing else is taken. It is 0 if that time is unknown, and negative if the charge
	// never fits.
	Wait time.Duration
	// TakenBy is set by Take to the ID of the decision, and TakenAt to an instant of the
	// store's clock. They identify for Adjust what was charged: a place is refunded by
	// TakenBy, and at most once.
	TakenBy ID
	TakenAt int64
	// Moved is set by Adjust to the number of units that were charged or, if negative,
	// refunded. It is between 0 and Cost. Callers must not refund units that did not fit.
	Moved int64

	final   bool         // set by a Limiter if the policy refunds nothing
	place   *leasedPlace // set by a Limiter while it renews the place
	overrun int64        // set by Settle: how much of the cost exceeds what was left
	table   *table       // set by a Memory, as are the fields below
	part    *part
	slot    *slot
	hash    uint64
	wall    int64 // for a calendar: the present time, in nanoseconds since 1970
}

// A Place identifies what a decision has charged under a [Concurrency] limit, or what it
// holds. TakenBy is the ID of the decision.
type Place struct {
	Policy  string
	Key     Key
	TakenBy ID
}

// A Counter names what [Store].Reset forgets: what a key uses under a policy.
type Counter struct {
	Policy string // the name of the policy
	Key    Key
}

// Digest returns the first 16 bytes of the SHA-256 digest of [Key.String]. It is what
// stores keep in place of the key: it has one length, and no client can choose it.
func (k Key) Digest() [16]byte {
	var buf [128]byte
	sum := sha256.Sum256(k.append(buf[:0]))
	return [16]byte(sum[:16])
}
