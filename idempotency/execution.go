package idempotency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/httpwriter"
)

// An Execution is the one run of a request that has a key, for its handler. All
// methods may be called on nil, for a request that has none, and from any
// goroutine.
type Execution struct {
	m          *Middleware
	key        Key
	token      Token
	generation uint64

	request http.Request // for the handler
	work    workContext  // of the request
	x       *exchange.Exchange
	own     exchange.Exchange // unless someone further out has attached one
	writer  httpwriter.Writer
	input   body
	// encoding is the Content-Encoding that somebody further out has announced.
	encoding []string

	// out guards what becomes of the answer; a handler may have left a goroutine
	// behind.
	out      sync.Mutex
	phase    phase
	status   int
	answer   *buffer // while phase is holding
	flags    byte    // of the answer
	declared int64   // the Content-Length of the response, or -1
	excess   bool    // more than that was written
	finished bool

	mu     sync.Mutex
	mark   Outcome
	over   bool // no lease is needed any more
	ending bool // Finish has been called, and says whether the claim is lost
	owed   *owed
	lost   bool
	alarm  context.Context // ends when the claim is lost; made when asked for
	cancel context.CancelFunc
	until  time.Time // when the lease ends, by our own clock
	beat   beat
}

// A phase is what an Execution does with the answer.
type phase uint8

const (
	waiting phase = iota // for the status
	holding              // collect it until it is stored
	passing              // it cannot be kept: pass it on
	ended
)

func newExecution(m *Middleware, c *Claim, generation uint64) *Execution {
	e := &Execution{m: m, key: c.Key, token: c.Token, generation: generation}
	e.beat.execution = e
	return e
}

// executions holds the execution of a request.
var executions = exchange.NewSlot[Execution]()

// From returns the execution that the handler with this context is, or nil if
// its request has no key, has one that is not looked at, or runs unprotected.
func From(ctx context.Context) *Execution {
	if x := exchange.From(ctx); x != nil {
		return executions.Load(x)
	}
	return nil
}

// Mark says what becomes of the key, whatever the status of the answer: Release
// if the request had no effect, Keep if its answer is final, Unknown if nobody
// can say. The last call counts, until the handler returns or its answer has
// begun to pass by, as after a flush. The zero Outcome takes a mark back.
//
// A handler that marks Keep and panics has no answer: that is Unknown.
func (e *Execution) SetOutcome(o Outcome) {
	if e == nil {
		return
	}
	e.mu.Lock()
	e.mark = o
	e.mu.Unlock()
}

// Key returns the key of the record, for a [Store] that finishes the claim in
// the handler's own transaction.
func (e *Execution) Key() Key {
	if e == nil {
		return Key{}
	}
	return e.key
}

// Token returns the token of the claim, for the same purpose.
func (e *Execution) Token() Token {
	if e == nil {
		return Token{}
	}
	return e.token
}

// Result returns the result that keeps this answer, for the same purpose: a
// store that finishes the claim with it, in one transaction with the effect of
// the request, makes both happen or neither. The handler then sends the same
// answer.
func (e *Execution) Result(status int, header http.Header, body []byte) Result {
	if e == nil {
		return Result{}
	}
	b := appendHead(nil, status, header, e.m.fields, e.encoding)
	b = append(b, body...)
	seal(b, 0, &e.key)
	return Result{State: StateDone, Status: status, Payload: b, TTL: e.m.config.TTL}
}

// Generation returns a number that is greater than that of every earlier
// execution with the same key, for those who can refuse the past: a row that
// takes a write only with a number above the last one (a fencing token). It is 0
// on nil.
func (e *Execution) Generation() uint64 {
	if e == nil {
		return 0
	}
	return e.generation
}

// DownstreamKey returns a key of 64 hexadecimal digits for a call that the
// handler makes to another service. It is the same in every execution with the
// same key, and another for each purpose; it says nothing about the client's key.
// It is empty on nil.
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

// Lost returns a channel that is closed when the claim is lost: another request
// may be running with the same key, and what this one answers will not be kept.
// It is nil on nil.
func (e *Execution) Lost() <-chan struct{} {
	if e == nil {
		return nil
	}
	return e.lostContext().Done()
}

// Context returns a copy of parent that ends with the cause [ErrLost] when the
// claim is lost. The caller calls cancel when done.
func (e *Execution) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	if e == nil {
		return context.WithCancel(parent)
	}
	ctx, cancelCause := context.WithCancelCause(parent)
	stop := context.AfterFunc(e.lostContext(), func() { cancelCause(ErrLost) })
	return ctx, func() {
		stop()
		cancelCause(nil)
	}
}

func (e *Execution) lostContext() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.alarm == nil {
		e.alarm, e.cancel = context.WithCancel(context.Background())
		if e.lost {
			e.cancel()
		}
	}
	return e.alarm
}

// lose notes that the claim is lost.
func (e *Execution) lose(err error) {
	e.mu.Lock()
	again := e.lost
	e.lost = true
	if e.cancel != nil {
		e.cancel()
	}
	e.mu.Unlock()
	if !again {
		e.m.claims.Record(e.request.Context(), leaseLost)
		e.m.tell(&e.request, err)
	}
}

// A hook is an execution as its response writer sees it. The type keeps the
// methods of [httpwriter.Hook] away from handlers.
type hook Execution

func (h *hook) Head(status int) {
	e := (*Execution)(h)
	e.out.Lock()
	defer e.out.Unlock()
	if e.phase != waiting {
		return
	}
	e.status = status
	if !e.keepable(status) {
		e.letGo()
		e.writer.Detach()
		return
	}
	e.hold()
}

// hold begins to collect the answer.
func (e *Execution) hold() {
	e.phase = holding
	e.declared = declaredLength(e.writer.Header())
	e.answer = newBuffer()
	e.answer.b = appendHead(e.answer.b, e.status, e.writer.Header(), e.m.fields, e.encoding)
	// To be asked now: an envelope further out notes next that it has wrapped this.
	if e.x.Rendered() == e.status {
		e.flags = flagRendered
	}
}

// declaredLength returns the Content-Length that the server goes by, or -1.
func declaredLength(h http.Header) int64 {
	values := h["Content-Length"]
	if len(values) == 0 {
		return -1
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// keepable reports whether an answer with this head can be stored.
func (e *Execution) keepable(status int) bool {
	h := e.writer.Header()
	if status < 200 || len(h["Trailer"]) > 0 {
		return false
	}
	return declaredLength(h) <= int64(e.m.config.MaxResponse)
}

var errEnded = errors.New("idempotency: written after the handler has returned")

func (h *hook) Body(inner http.ResponseWriter, p []byte) (int, error) {
	e := (*Execution)(h)
	e.out.Lock()
	defer e.out.Unlock()
	switch {
	case e.phase == ended:
		return 0, errEnded
	case e.phase != holding || e.status == http.StatusNoContent || e.status == http.StatusNotModified:
		return inner.Write(p)
	case e.declared >= 0 && (e.excess || int64(len(bodyOf(e.answer.b))+len(p)) > e.declared):
		// The server refuses such a piece, and all after it.
		e.excess = true
		return 0, http.ErrContentLength
	case len(bodyOf(e.answer.b))+len(p) <= e.m.config.MaxResponse:
		e.answer.b = append(e.answer.b, p...)
		return len(p), nil
	}
	held := e.answer
	e.letGo()
	e.writer.Detach()
	defer held.release()
	if err := forward(inner, held); err != nil {
		return 0, err
	}
	return inner.Write(p)
}

// forward sends the body that was collected.
func forward(inner http.ResponseWriter, answer *buffer) error {
	p := bodyOf(answer.b)
	if len(p) == 0 {
		return nil
	}
	_, err := inner.Write(p)
	return err
}

func (h *hook) Release(hijacked bool) {
	e := (*Execution)(h)
	e.out.Lock()
	defer e.out.Unlock()
	if e.phase != waiting && e.phase != holding {
		return
	}
	if hijacked && e.status == 0 {
		e.status = http.StatusSwitchingProtocols
	}
	held := e.answer
	e.letGo()
	if held != nil {
		// The error comes again with the next write.
		_ = forward(e.writer.Unwrap(), held)
		held.release()
	}
	e.writer.Detach()
}

// letGo gives up on keeping the answer, which is about to pass by. The key is
// finished first, so that no retry runs after the client has seen a byte, also if
// this process dies now.
func (e *Execution) letGo() {
	e.phase, e.answer = passing, nil
	if o := e.outcome(e.status); o != Release {
		e.bury(o, e.status)
	}
	e.work.bind()
}

// outcome returns what becomes of the key after an answer of this status.
func (e *Execution) outcome(status int) Outcome {
	e.mu.Lock()
	o := e.mark
	e.mu.Unlock()
	if o == 0 && e.m.config.Outcome != nil {
		o = e.configured(status)
	}
	if o == 0 && status == http.StatusSwitchingProtocols {
		return Keep
	}
	if o == 0 {
		o = e.m.config.Profile.Outcome(status)
		// Such an error may only say that the time was over.
		if o == Keep && status >= 400 && e.work.Err() != nil {
			o = Unknown
		}
	}
	return o
}

// configured returns what [Config.Outcome] says, or Unknown if it panics: the work
// is done then, and must not be done again.
func (e *Execution) configured(status int) (o Outcome) {
	err := guard.Run(func() error {
		o = e.m.config.Outcome(&e.request, status)
		return nil
	})
	if err != nil {
		e.m.tell(&e.request, fmt.Errorf("idempotency: Config.Outcome: %w", err))
		return Unknown
	}
	return o
}

// end is called when the handler has returned, or has not.
func (e *Execution) end(returned bool) {
	defer e.leaveLease()
	e.out.Lock()
	defer e.out.Unlock()
	defer e.close()
	if e.x.Broken() != nil {
		returned = false
	}
	defer func() {
		if !e.finished { // as something below has not returned
			e.bury(Unknown, e.status)
		}
	}()
	switch {
	case e.phase == passing:
		e.endPassed()
	case !returned, e.phase == waiting && e.work.deserted():
		e.endFailed()
	default:
		if e.phase == waiting {
			e.status = http.StatusOK // as the server will say
			e.hold()
		}
		e.endHeld()
		// The client may have gone; there is nobody left to tell.
		_ = forward(e.writer.Unwrap(), e.answer)
	}
}

// close lets go of the answer. From here on nothing that is written is taken.
func (e *Execution) close() {
	e.phase = ended
	if e.answer != nil {
		e.answer.release()
		e.answer = nil
	}
}

// endPassed ends an execution whose answer has passed by.
func (e *Execution) endPassed() {
	if e.finished {
		return
	}
	if o := e.outcome(e.status); o != Release {
		e.bury(o, e.status)
		return
	}
	e.release()
}

// endFailed ends one that has not returned, or has returned without a response
// as its client has gone or its time is over, and has sent nothing.
func (e *Execution) endFailed() {
	if e.outcome(0) == Release {
		e.release()
		return
	}
	e.bury(Unknown, 0)
}

// endHeld ends one whose answer is whole and not yet sent.
func (e *Execution) endHeld() {
	switch o := e.outcome(e.status); {
	case o == Release:
		e.release()
	case o == Keep && (e.cut() || e.failedLate()):
		e.bury(Unknown, e.status)
	case o == Keep && !e.hasTrailers():
		seal(e.answer.b, e.flags, &e.key)
		e.finish(Result{State: StateDone, Status: e.status, Payload: e.answer.b, TTL: e.m.config.TTL}, kept)
	default:
		e.bury(o, e.status)
	}
}

// cut reports whether the body that was collected is not the one that the handler
// has declared: an upstream that broke off, for instance. The client notices that, as
// the server closes its connection; a retry would take the part for the whole.
func (e *Execution) cut() bool {
	if e.declared < 0 || e.status == http.StatusNoContent || e.status == http.StatusNotModified {
		return false
	}
	return e.excess || int64(len(bodyOf(e.answer.b))) != e.declared
}

// failedLate reports whether the handler has sent an error after the status of a
// success: whatever it had written by then is not the whole.
func (e *Execution) failedLate() bool { return e.status < 400 && e.writer.LateError() != 0 }

// hasTrailers reports whether the handler has set trailers that it had not
// announced.
func (e *Execution) hasTrailers() bool {
	for name := range e.writer.Header() {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// bury leaves a tombstone: of an effect that nobody can be sure of, or of an
// answer that cannot be kept.
func (e *Execution) bury(o Outcome, status int) {
	k := notKept
	if o == Unknown {
		k = unknown
	}
	e.finish(Result{State: StateTombstone, Status: status, Payload: mark(k, status, &e.key), TTL: e.m.config.TTL}, tombstoned)
}

// release frees the key. The record goes on for a lease, for calls that are
// repeated.
func (e *Execution) release() {
	e.finish(Result{State: StateReleased, TTL: e.m.config.Lease}, released)
}

// finish ends the claim, and tries to for a while if the store fails. What it
// passes lives until it returns. Until the store has taken the result, the lease is
// kept: whoever got the key would run the request again.
func (e *Execution) finish(r Result, end int) {
	e.finished = true
	if e.m.memory {
		e.leaveLease()
		e.settle(e.m.store.Finish(e.request.Context(), e.key, e.token, r), end)
		return
	}
	e.mu.Lock()
	e.ending = true
	e.mu.Unlock()
	// A call that outlives its time must not read a buffer of another request.
	r.Payload = bytes.Clone(r.Payload)
	err := e.finishWithin(r)
	if err != nil && !errors.Is(err, ErrLost) && e.owe(r, end) {
		e.m.tell(&e.request, fmt.Errorf("idempotency: finish the claim, to be tried again: %w", err))
		return
	}
	e.leaveLease()
	e.settle(err, end)
}

// finishWithin tries to finish the claim until [Config.FinishTimeout].
func (e *Execution) finishWithin(r Result) error {
	deadline := time.Now().Add(e.m.config.FinishTimeout)
	for pause := firstPause; ; pause *= 2 {
		err := e.m.store.Finish(e.request.Context(), e.key, e.token, r)
		if err == nil || errors.Is(err, ErrLost) || time.Now().Add(pause).After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// settle notes how the claim has ended for good.
func (e *Execution) settle(err error, end int) {
	switch {
	case err == nil:
		e.m.claims.Record(e.request.Context(), end)
	case errors.Is(err, ErrLost):
		e.lose(fmt.Errorf("idempotency: finish the claim: %w", err))
	default:
		e.m.claims.Record(e.request.Context(), finishFailed)
		e.m.tell(&e.request, fmt.Errorf("idempotency: finish the claim: %w", err))
	}
}
