package idempotency

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/usher-go/usher"
)

// A Store keeps one record for each key in use. [NewMemory] returns a Store for a single
// process; other modules provide stores that several processes share. Package
// idempotencytest checks the contract.
//
// A record has one of five states: claimed, while its request runs; done, with the
// response; tombstone, if the request has run and there is no response to replay; unknown,
// if the request may have had an effect; and released, if it had none. A key is free if it
// has no record, or one that is released or has expired.
//
// Claim, Finish, Find and Delete are one atomic step each, and so is the renewal of each
// claim by Renew: a step happens entirely or not at all, and concurrent calls have the same
// results as in some sequential order. A call may be repeated with the same token, for
// instance by a caller that lost the reply, and then has the effect and the result of a
// single call. All
// durations are measured by the clock of the store; no caller passes an instant of its own
// clock. A store retains none of its arguments, and returns an error for an empty token.
// It is safe for concurrent use.
//
// A claim belongs to its token until another token takes over the key or the record
// expires, even after the lease has ended. So a late owner can still finish if no other
// request has taken the key, and never if one has. The key also stays bound to the request:
// no claim with another fingerprint takes it over.
//
// A record belongs to one key and is never returned for another: every part of the key
// counts, to its last byte. A [Middleware] detects a store that returns the record of
// another key nevertheless, for instance over a connection that is out of step. It begins
// each fingerprint with a digest of the key, and repeats the digest in the payload of a
// response. A store treats both as opaque bytes.
//
// Every method returns when ctx ends. Errors match those of package usher:
// [usher.ErrUnavailable] if the store cannot be reached, [usher.ErrCorrupt] if the record
// cannot be read, [usher.ErrFull] and [usher.ErrClosed]. A key whose record cannot be read
// is never free. A call that returns ErrLost, ErrNotFound, ErrOwnerFull, ErrFull or
// ErrCorrupt has changed nothing. A call that returns any other error may or may not have
// taken effect.
type Store interface {
	// Claim takes the key if it is free, and returns the claimed record with Won set. It
	// also takes the key from another token with the same fingerprint, if the lease of its
	// claim has ended, or with TakeUnknown if it has left the key in StateUnknown.
	// Otherwise it changes nothing and returns the existing record. There is one exception:
	// if that record is a claim of the same token, the call is a repeated one. Won is then
	// set, and TakenOver as before; the lease starts again, and the record expires no earlier
	// than it would have, and not before its TTL from now.
	//
	// Each claim of a key gets a Generation greater than all earlier ones, if possible even
	// after their records have expired. A good choice is the larger of the last generation
	// plus 1 and the store's time in microseconds.
	//
	// Claim returns ErrLost to a token that has released the key, so that a delayed copy
	// of its call cannot claim the key again. It may return ErrOwnerFull or usher.ErrFull
	// instead of taking a key, in a [*FullError] if it knows when there will be room.
	Claim(ctx context.Context, c Claim) (Record, error)

	// Renew starts the leases of at most [MaxRenew] claims again, from now. A process
	// renews all its claims in one call. No record expires before its lease ends. A claim
	// is lost if its key is not claimed by its token, or if its record cannot be read.
	// Renew returns the lost claims, in any order, and changes nothing about them; it
	// renews all others. After an error it may have renewed some.
	Renew(ctx context.Context, claims []ClaimID, lease time.Duration) (lost []ClaimID, err error)

	// Finish ends a claim: it sets the state, status, payload and TTL of the record, and
	// returns the state that the record has now. That is the state of the result, except
	// that a store without room for a payload keeps StateTombstone in place of StateDone.
	//
	// If this token has already finished its claim, in whatever way, Finish changes
	// nothing and returns the state of the record; so a response may be stored earlier,
	// for instance in the transaction of the handler. If the key does not belong to this
	// token, Finish changes nothing and returns ErrLost.
	Finish(ctx context.Context, c Completion) (kept State, err error)

	// Find returns the record of a key, and changes nothing. It returns ErrNotFound if the
	// key is free.
	Find(ctx context.Context, key Key) (Record, error)

	// Delete removes the record with this generation, in whatever state, so that the key is
	// free. A claim whose lease has not ended is not removed, as its request is running:
	// then, and if the record has another generation, Delete returns ErrLost. It returns
	// ErrNotFound if the key is free; so may a repeated call. Generation 0 stands for a
	// record that cannot be read, which has none, and for no other.
	//
	// A delayed copy of the removed claim's call can claim the key again.
	Delete(ctx context.Context, key Key, generation uint64) error

	// Close closes the store: later calls return usher.ErrClosed. Running calls end, and
	// return usher.ErrClosed or their result. Close does not wait for a server that does
	// not respond. A second Close does nothing and returns nil.
	Close() error
}

// MaxRenew is the maximum number of claims in one call of [Store.Renew].
const MaxRenew = 1000

// A TxStore is a [Store] that keeps its records where a handler keeps its own data. Tx is
// the type of its transactions.
type TxStore[Tx any] interface {
	Store
	// FinishTx is Finish in a transaction of the handler: it takes effect when tx is
	// committed. Until then no other caller sees the result, and if tx is rolled back the
	// key is still claimed. If FinishTx returns an error, the handler must roll tx back:
	// after ErrLost, another request may be running with the key.
	//
	// The zero Completion is that of a request without a key: FinishTx does nothing and
	// returns 0 and nil. Finish refuses it.
	FinishTx(ctx context.Context, tx Tx, c Completion) (kept State, err error)
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
	// TakeUnknown also takes a key whose outcome is unknown, for a caller that finds out
	// whether the earlier request had an effect.
	TakeUnknown bool
}

// A State is the state of a record.
type State uint8

// The states of a record. Stores may persist these numbers.
const (
	StateClaimed   State = 1 // its request is running
	StateDone      State = 2 // the response is the payload
	StateTombstone State = 3 // the request has run; its response is not kept
	StateReleased  State = 4 // the request had no effect
	StateUnknown   State = 5 // the request may have had an effect
)

var stateNames = [...]string{
	StateClaimed: "claimed", StateDone: "done", StateTombstone: "tombstone", StateReleased: "released", StateUnknown: "unknown",
}

// String returns the name of the state: claimed, done, tombstone, released or unknown. It is
// empty for no state.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// A Record is what [Store.Claim] has found or made, or [Store.Find] has found.
type Record struct {
	// State is never StateReleased, as the key is free then.
	State State
	// Won is set if the claim belongs to the caller. Find never sets it.
	Won bool
	// TakenOver is set with Won if the claim was taken from another token, whose lease had
	// ended or whose outcome is unknown: the earlier request may have had an effect.
	TakenOver bool
	// Generation grows with each claim of the key.
	Generation uint64
	// Fingerprint is that of the claim that the record belongs to.
	Fingerprint [32]byte
	// Lease is the rest of the lease if State is StateClaimed; 0 if it has ended.
	Lease time.Duration
	// TTL is for how much longer the record is kept. Only Find sets it.
	TTL time.Duration
	// Status and Payload are those of the Result; a claim has neither. Only a record in
	// StateDone has a payload. The payload may be shared and must not be modified.
	Status  int
	Payload []byte
}

// check returns an error if r cannot be the result of c: it is the record of another key,
// or one that Claim never returns. Such a reply was meant for another call, for instance
// over a connection that is out of step.
func (r *Record) check(c *Claim) error {
	if r.Won && (r.State != StateClaimed || r.Fingerprint != c.Fingerprint) {
		return errRecord
	}
	return r.checkKey(&c.Key)
}

// checkKey returns an error if r cannot be a record of key.
func (r *Record) checkKey(key *Key) error {
	switch r.State {
	case StateClaimed, StateDone, StateTombstone, StateUnknown:
		if keyDigest(r.Fingerprint[:]) == key.digest() {
			return nil
		}
	}
	return errRecord
}

// A ClaimID names a claim: a key, and the token that has claimed it.
type ClaimID struct {
	Key   Key
	Token Token
}

// A Completion ends a claim. It is a plain value: [Execution.Commit] passes one to its
// function, for [TxStore.FinishTx].
type Completion struct {
	Key    Key
	Token  Token
	Result Result
}

// IsZero reports whether c is the zero Completion, which ends no claim.
func (c *Completion) IsZero() bool {
	return c.Key == Key{} && c.Token == Token{} && c.Result.isZero()
}

// A Result is how a claim ends.
type Result struct {
	// State is any but StateClaimed.
	State State
	// Status is the HTTP status of the response; 0 if there was none.
	Status int
	// Payload is opaque to the store. It belongs to StateDone, and is ignored with any
	// other state.
	Payload []byte
	// TTL is how long the record is kept.
	TTL time.Duration
}

// valid reports whether a claim can end with r.
func (r *Result) valid() bool { return r.State >= StateDone && r.State <= StateUnknown }

func (r *Result) isZero() bool {
	return r.State == 0 && r.Status == 0 && r.Payload == nil && r.TTL == 0
}

// A FullError is the error of a [Store] that has no room for another record at present. The
// response to the request has RetryAfter as its Retry-After, rounded up to whole seconds.
type FullError struct {
	Err        error         // matches ErrOwnerFull or usher.ErrFull
	RetryAfter time.Duration // after that there is room, as far as the store can know
}

func (e *FullError) Error() string {
	return fmt.Sprintf("%v; there may be room in %v", e.Err, e.RetryAfter)
}

// Unwrap returns Err.
func (e *FullError) Unwrap() error { return e.Err }

var (
	// ErrLost means that the key is not, or no longer, claimed by this token. From Delete
	// it means that the record was not found in a state in which it may be removed.
	ErrLost = errors.New("idempotency: the claim is lost")
	// ErrNotFound means that a key has no record, or one that is released or has expired.
	ErrNotFound = errors.New("idempotency: the key has no record")
	// ErrOwnerFull means that the owner has as many records as allowed.
	ErrOwnerFull = errors.New("idempotency: too many keys of one owner")

	errNoToken = errors.New("idempotency: empty token")
	errResult  = errors.New("idempotency: a claim cannot end in this state")
	errRenew   = fmt.Errorf("idempotency: more than %d claims in one call", MaxRenew)
	errRecord  = fmt.Errorf("idempotency: the store has returned the record of another key: %w", usher.ErrCorrupt)
	errFull    = fmt.Errorf("idempotency: no room for another record: %w", usher.ErrFull)
	errDropped = fmt.Errorf("idempotency: a tombstone is stored in place of the response, so a retry gets an error: %w", usher.ErrFull)
	errClosed  = fmt.Errorf("idempotency: %w", usher.ErrClosed)
)
