package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"

	"github.com/usher-go/usher/internal/exchange"
)

// An Execution is the single run of a request with a key, for the use of its handler. All
// methods are safe for concurrent use. They may be called on nil, which means a request
// without a key.
type Execution struct {
	m           *Middleware
	key         Key
	fingerprint [32]byte
	token       Token
	generation  uint64

	request     http.Request // as the handler gets it
	body        body
	work        workContext
	exchange    *exchange.Exchange
	response    capture
	transaction *transaction // of Commit; guarded by response.mu

	mu           sync.Mutex
	finished     bool    // Finish was called; guarded by response.mu
	outcome      Outcome // set by the handler
	finishing    bool    // Finish, and not Renew, finds out whether the claim is lost
	lost         bool
	leaseStopped bool // the lease is needed no longer
	pending      *pendingResult
	lostCtx      *lostContext // made on demand
	lease        *lease       // nil for a claim in a Memory, which has none
}

// A lostContext ends when the claim is lost.
type lostContext struct {
	context.Context
	cancel context.CancelFunc
}

// executions holds the execution of a request.
var executions = exchange.NewSlot[Execution]()

// From returns the Execution of the current request. It returns nil if the request
// has no key, has one that does not count, or runs unprotected. A handler that goes on after
// its request has been responded to, as inside http.TimeoutHandler, still gets its Execution,
// whose Commit then returns an error.
func From(ctx context.Context) *Execution {
	if e, ok := ctx.Value(executionKey{}).(*Execution); ok && e != nil {
		return e
	}
	return running(ctx)
}

// running returns the Execution that runs now in the exchange of ctx, or nil.
func running(ctx context.Context) *Execution {
	if x := exchange.From(ctx); x != nil {
		return executions.Load(x)
	}
	return nil
}

// SetOutcome decides the outcome, whatever the status of the response: Release if the
// request had no effect, Keep if its response is final, KeepStatus or Forget if it is final
// but must not be stored, Unknown if neither is certain. The last call counts. A call has
// no effect once the handler has returned or its response has begun to be sent, as after a
// flush. The zero Outcome undoes an earlier call.
//
// A handler that sets an outcome other than Release and then panics has no response: its
// outcome is Unknown.
func (e *Execution) SetOutcome(o Outcome) {
	if e == nil {
		return
	}
	e.mu.Lock()
	e.outcome = o
	e.mu.Unlock()
}

// Generation returns a fencing token: a number greater than that of every earlier
// execution with the same key. Store it with a row and reject writes with a lower
// one. It is 0 on nil.
func (e *Execution) Generation() uint64 {
	if e == nil {
		return 0
	}
	return e.generation
}

// DownstreamKey returns a key of 64 hexadecimal digits for a call that the handler
// makes to another service. It is the same in every execution with the same key,
// different for each purpose, and reveals nothing about the client's key. It is empty
// on nil.
func (e *Execution) DownstreamKey(purpose string) string {
	if e == nil {
		return ""
	}
	b := make([]byte, 0, 128)
	b = append(b, e.key.Owner[:]...)
	b = append(b, e.key.Name[:]...)
	sum := sha256.Sum256(append(b, purpose...))
	return hex.EncodeToString(sum[:])
}

// Context returns a copy of parent that ends with the cause [ErrLost] when the claim is
// lost: another request may then be running with the same key, and the response of this one
// is not stored. The caller calls cancel when done.
func (e *Execution) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	if e == nil {
		return context.WithCancel(parent)
	}
	ctx, cancelCause := context.WithCancelCause(parent)
	lost := e.lostContext()
	if lost.Err() != nil {
		cancelCause(ErrLost)
	}
	stop := context.AfterFunc(lost, func() { cancelCause(ErrLost) })
	return ctx, func() {
		stop()
		cancelCause(nil)
	}
}

func (e *Execution) lostContext() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lostCtx == nil {
		ctx, cancel := context.WithCancel(context.Background())
		if e.lost {
			cancel()
		}
		e.lostCtx = &lostContext{ctx, cancel}
	}
	return e.lostCtx
}
