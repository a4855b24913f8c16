package idempotency

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"
)

// A Store keeps one record for each key in use. [NewMemory] returns one for a single
// process; other modules provide stores that several processes share. Package
// idempotencytest checks the contract.
//
// A record has one of four states: claimed, while its request runs; done, with the
// response; tombstone, if the request has run and there is no response to replay; and
// released, if the request had no effect. A key is free if it has no record, or one that
// is released or has expired.
//
// Every method is one atomic step: it happens entirely or not at all, and concurrent
// calls have the same results as in some sequential order. A call may be repeated with
// the same token, for instance by a client library that lost the reply, and then has the
// effect and the result of a single call. All durations are measured by the clock of the
// store; no caller passes an instant of its own clock. A store retains none of its
// arguments, and returns an error for an empty token. After an error that is not one of
// this package, the step may or may not have happened.
//
// A claim belongs to its token until another token takes the key over or the record
// expires, even after the lease has ended. So a late owner can still finish if no other
// request has taken the key, and never if one has.
type Store interface {
	// Claim takes the key if it is free, or claimed by another token whose lease has
	// ended, and returns the claimed record with Won set. Otherwise it changes nothing
	// and returns the existing record. If that is a claim of the same token, the call is
	// a repeated one: Won is set, and lease and TTL start again.
	//
	// Each claim of a key gets a Generation greater than all earlier ones, if possible
	// even after their records have expired. A good choice is the larger of the last one
	// plus 1 and the store's time in microseconds.
	//
	// Claim returns ErrLost to a token that has released the key, so that a delayed copy
	// of its call cannot claim the key again. It may return ErrOwnerFull or ErrFull
	// instead of taking a key.
	Claim(ctx context.Context, c Claim) (Record, error)

	// Renew starts the lease of a claim again, from now. The record does not expire
	// before the lease ends. If the key is not claimed by this token, Renew changes
	// nothing and returns ErrLost.
	Renew(ctx context.Context, key Key, token Token, lease time.Duration) error

	// Finish ends a claim: it sets the state, status, payload and TTL of the record. If
	// this token has already finished its claim, in whatever way, Finish changes nothing
	// and returns nil; so a response may be stored earlier, for instance in the
	// transaction of the handler. If the key does not belong to this token, Finish
	// changes nothing and returns ErrLost.
	//
	// A released record has no payload. A store without room for a payload keeps the
	// record as a tombstone without one.
	Finish(ctx context.Context, key Key, token Token, r Result) error
}

// A Key names a record. Both parts are hashes, so they have a fixed length and reveal
// nothing about a caller.
type Key struct {
	// Owner identifies the caller. A store that is spread over several machines keeps
	// all records of an owner on one of them.
	Owner [32]byte
	// Name identifies the method, the route and the client's key.
	Name [32]byte
}

// A Token identifies one attempt to claim a key. It is random and never all zero.
type Token [16]byte

// newToken returns a unique token. Tokens are not secret: no client ever sends or sees
// one. So the generator of the runtime, a ChaCha8 seeded by the system, is good enough,
// and saves a system call.
func newToken() (t Token) {
	binary.NativeEndian.PutUint64(t[:], rand.Uint64()|1)
	binary.NativeEndian.PutUint64(t[8:], rand.Uint64())
	return t
}

// A Claim asks for the right to execute a request.
type Claim struct {
	Key   Key
	Token Token
	// Fingerprint identifies the key and the request. It is kept with the record.
	Fingerprint [32]byte
	// Lease is how long the key is taken unless the claim is renewed.
	Lease time.Duration
	// TTL is how long the claimed record is kept; it is at least Lease.
	TTL time.Duration
}

// A State is the state of a record.
type State uint8

// The states of a record. Stores may persist these numbers.
const (
	StateClaimed   State = 1
	StateDone      State = 2
	StateTombstone State = 3
	StateReleased  State = 4
)

// A Record is what [Store.Claim] has found or made.
type Record struct {
	// State is never StateReleased, as the key is free then.
	State State
	// Won is set if the claim belongs to the caller.
	Won bool
	// Generation grows with each claim of the key.
	Generation uint64
	// Fingerprint is that of the claim that the record belongs to.
	Fingerprint [32]byte
	// Lease is the rest of the lease if State is StateClaimed; 0 if it has ended.
	Lease time.Duration
	// Status and Payload are those of the Result. The payload may be shared and must not
	// be modified.
	Status  int
	Payload []byte
}

// check returns an error if r cannot be the result of c: it is the record of another
// key, or one that Claim never returns. Such a reply was meant for another call, as on a
// connection that is out of step.
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
	// Status is the HTTP status of the response; 0 if there was none.
	Status int
	// Payload is opaque to the store.
	Payload []byte
	// TTL is how long the record is kept.
	TTL time.Duration
}

var (
	// ErrLost means that the key is not, or no longer, claimed by this token.
	ErrLost = errors.New("idempotency: the claim is lost")
	// ErrOwnerFull means that the owner has as many records as allowed.
	ErrOwnerFull = errors.New("idempotency: too many keys of one owner")
	// ErrFull means that the store has no room for another record.
	ErrFull = errors.New("idempotency: the store is full")

	errNoToken = errors.New("idempotency: empty token")
	errResult  = errors.New("idempotency: the result must be done, tombstone or released")
	errRecord  = errors.New("idempotency: the store has returned the record of another key")
	errClosed  = errors.New("idempotency: the store is closed")
)
