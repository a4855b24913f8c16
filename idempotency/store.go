package idempotency

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"
)

// A Store keeps one record for each key that was used. [NewMemory] makes one for
// a single process; other modules keep it where several processes share it. The
// contract is checked by idempotencytest.
//
// A record is one of four: claimed, while a request runs; done, with its answer;
// a tombstone, for a request that ran and whose answer cannot be given again; and
// released, for one that had no effect. A key without a record, or with one that
// is released or whose life has ended, is free.
//
// Every method is one atomic step: it happens wholly or not at all, and for two
// at once it is as if one came first. A method may be repeated with the same
// token, by a client library that lost the reply for instance, and then has the
// effect and the result of one call. Everything is measured by the store's own
// clock, so no instant of a caller's clock is ever passed. A store keeps nothing
// of its arguments, and fails a call with an empty token. An error that is none of this package's means that the
// step may have happened or not.
//
// A claim belongs to its token until another token takes it over or its life
// ends, also when the lease is over. So a late owner can still finish if nobody
// has come in between, and never if somebody has.
type Store interface {
	// Claim takes the key if it is free, or claimed by another token whose lease
	// is over, and returns the claimed record with Won set. Else it changes nothing
	// and returns the record that is there, with Won set if that is a claim of the
	// same token: a repeated call, which begins the lease and the life anew.
	//
	// A taken key gets a Generation that is greater than any it had. It should also
	// grow beyond the life of records: the greater of the last one plus 1 and the
	// store's time in microseconds will do.
	//
	// It returns ErrLost to a token that has released the key, so that a delayed
	// copy of its call cannot claim it once more, and may return ErrOwnerFull or
	// ErrFull instead of taking a key.
	Claim(ctx context.Context, c Claim) (Record, error)

	// Renew begins the lease of a claim anew, from now; the record's life does not
	// end before it. If the key is not claimed by this token, Renew changes nothing
	// and returns ErrLost.
	Renew(ctx context.Context, key Key, token Token, lease time.Duration) error

	// Finish ends a claim: it sets state, status, payload and life of the record. A
	// claim that this token has already finished, in whatever way, stays as it is,
	// and Finish returns nil: so an answer may be stored earlier, in the handler's
	// own transaction for instance. If the key is not this token's, Finish changes
	// nothing and returns ErrLost.
	//
	// A released record keeps no payload, and a store that has no room for the
	// payload of another keeps a StateTombstone without one.
	Finish(ctx context.Context, key Key, token Token, r Result) error
}

// A Key names a record. Both parts are hashes, so they have a fixed length and
// say nothing about a caller.
type Key struct {
	// Owner is who calls. A store that is spread over several machines keeps the
	// records of an owner together.
	Owner [32]byte
	// Name is the method, the route and the client's key.
	Name [32]byte
}

// A Token names one attempt to claim a key. It is random and never all zero.
type Token [16]byte

// newToken returns a token that is nobody else's. It is not a secret: no client
// ever sends or sees one. So the generator of the runtime, a ChaCha8 seeded by
// the system, is good enough, and saves a system call.
func newToken() (t Token) {
	binary.NativeEndian.PutUint64(t[:], rand.Uint64()|1)
	binary.NativeEndian.PutUint64(t[8:], rand.Uint64())
	return t
}

// A Claim is the wish to run a request.
type Claim struct {
	Key   Key
	Token Token
	// Fingerprint is of the key and the request; it stays with the record.
	Fingerprint [32]byte
	// Lease is how long the key is taken unless it is renewed.
	Lease time.Duration
	// TTL is how long the claimed record is kept; it is not below Lease.
	TTL time.Duration
}

// A State is what a record is.
type State uint8

// The states of a record. Stores may write them down as these numbers.
const (
	StateClaimed   State = 1
	StateDone      State = 2
	StateTombstone State = 3
	StateReleased  State = 4
)

// A Record is what a claim has found or made.
type Record struct {
	// State is never StateReleased, as such a key is free.
	State State
	// Won is set if the caller has the claim.
	Won bool
	// Generation counts the claims of the key upwards.
	Generation uint64
	// Fingerprint is that of the claim which was taken.
	Fingerprint [32]byte
	// Lease is what is left of it while State is StateClaimed; 0 once it is over.
	Lease time.Duration
	// Status and Payload are those of the Result. The payload may be shared and
	// must not be changed.
	Status  int
	Payload []byte
}

// check returns an error if r cannot be what c has found: the record of another
// key, or one that no claim has. Such a reply was meant for somebody else, as when a
// connection is out of step, and says nothing about c.
func (r *Record) check(c *Claim) error {
	switch {
	case keyDigest(r.Fingerprint[:]) != c.Key.digest():
	case r.State == StateClaimed && (!r.Won || r.Fingerprint == c.Fingerprint):
		return nil
	case (r.State == StateDone || r.State == StateTombstone) && !r.Won:
		return nil
	}
	return errRecord
}

// A Result is how a claim ends.
type Result struct {
	// State is StateDone, StateTombstone or StateReleased.
	State State
	// Status is the HTTP status of the answer; 0 if there was none.
	Status int
	// Payload is opaque to the store.
	Payload []byte
	// TTL is how long the record is kept.
	TTL time.Duration
}

var (
	// ErrLost says that the key is not, or no longer, claimed by this token.
	ErrLost = errors.New("idempotency: the claim is lost")
	// ErrOwnerFull says that the owner has as many records as it may have.
	ErrOwnerFull = errors.New("idempotency: too many keys of one owner")
	// ErrFull says that the store has no room for another record.
	ErrFull = errors.New("idempotency: the store is full")

	errNoToken = errors.New("idempotency: empty token")
	errResult  = errors.New("idempotency: a claim ends as done, tombstone or released")
	errRecord  = errors.New("idempotency: the store has returned a record that is not of this key")
	errClosed  = errors.New("idempotency: the store is closed")
)
