package idempotency

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// An Event is what has become of one request with a key, for [Config.OnResult].
type Event struct {
	// Result is the value of usher.idempotency.result on the counter of requests: executed
	// for a request that runs, replayed for one that gets the response of an earlier one,
	// in_progress, mismatched or not_replayable for one that conflicts with an earlier one,
	// and refused, store_failed, resolve_failed, unprotected or unreadable for all others.
	Result string
	// Key names the record. It is zero if the request was refused before its key and the
	// owner of that were known. It reveals neither.
	Key Key
	// Generation is that of the execution if the request runs, and otherwise 0.
	Generation uint64
	// Err is the error that the client gets, with its private cause; nil if the request
	// runs or is replayed.
	Err error
}

// A Change is an entry for an audit log, for [Config.OnChange]: what was done with a record,
// by an operator or by [Config.Resolve]. It has nothing of the request but its Key.
type Change struct {
	// Time is when the action ended.
	Time time.Time
	// Action is lookup, resolve or delete for the methods of [Middleware], and ask for a
	// call of [Config.Resolve].
	Action string
	// Key names the record. It is zero if a [RequestKey] was invalid.
	Key Key
	// Generation is that of the record, or of the claim under which the record was
	// resolved; 0 if there is none.
	Generation uint64
	// Outcome is that of the [Resolution], if there is one.
	Outcome Outcome
	// Before and After are the states of the record before the action and after it. After
	// is StateClaimed if the retry that has asked runs. A state is 0 if there is no record
	// or if it is not known, as after most errors.
	Before, After State
	// Err is why the action failed.
	Err error
}

// String returns 32 hexadecimal digits that identify k in a log. They reveal nothing about
// a caller.
func (k Key) String() string {
	digest := k.digest()
	return hex.EncodeToString(digest[:])
}

// note counts the result of a request, and passes it to [Config.OnResult].
func (m *Middleware) note(ctx context.Context, result int, key *Key, generation uint64, err error) {
	m.requests.Record(ctx, result)
	if m.config.OnResult == nil {
		return
	}
	e := Event{Result: requestResults[result].Name(), Key: *key, Generation: generation, Err: err}
	m.call(ctx, "OnResult", func() { m.config.OnResult(ctx, e) })
}

// changed passes a change to [Config.OnChange].
func (m *Middleware) changed(ctx context.Context, c Change) {
	if m.config.OnChange != nil {
		c.Time = time.Now()
		m.call(ctx, "OnChange", func() { m.config.OnChange(ctx, c) })
	}
}

// call calls a hook. A panic of it is reported, and changes nothing for the request.
func (m *Middleware) call(ctx context.Context, name string, hook func()) {
	if err := guard.Run(func() error { hook(); return nil }); err != nil {
		m.failures.Error(ctx, fmt.Errorf("idempotency: Config.%s: %w", name, err))
	}
}
