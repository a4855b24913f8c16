package idempotency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/telemetry"
)

// A Middleware runs a request with an Idempotency-Key once and answers its
// repetitions with the answer of the first. It is a [usher.Middleware], safe for
// concurrent use, and does not change.
//
// Within another Middleware that has already taken the request it does nothing.
type Middleware struct {
	config  Config
	store   Store
	memory  bool // the store is a Memory, which does not fail for a while
	fields  []string
	errors  failures
	waiting *atomic.Int64

	heartbeat *heartbeat
	debts     *debts

	requests, claims *telemetry.Decisions
}

var _ usher.Middleware = (*Middleware)(nil)

// New returns the Middleware that c describes. It reports every fault of c at
// once, as [*usher.ConfigError]s. It starts no goroutine.
func New(c Config) (*Middleware, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Middleware{
		config:  c,
		fields:  fieldsToStore(c.KeepHeaders),
		errors:  newFailures(c.Header),
		waiting: new(atomic.Int64),

		heartbeat: &heartbeat{base: time.Now()},
		debts:     new(debts),
	}
	if c.Store == nil {
		c.Store = newMemory(MemoryConfig{})
	}
	m.store = c.Store
	if _, m.memory = c.Store.(*Memory); !m.memory {
		m.store = newRemote(c.Store, c.StoreTimeout)
	}
	m.requests, m.claims = newDecisions(&c)
	return m, nil
}

// Require returns a Middleware for routes on which the key is required. It
// shares everything with m.
func (m *Middleware) Require() *Middleware {
	required := *m
	required.config.Required = true
	return &required
}

// Wrap returns a handler that runs m before next.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.ServeNext(w, r, next) })
}

// ServeNext hands the request to next if it has no key or is the first with its
// key, and else answers it.
func (m *Middleware) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if !slices.Contains(m.config.Methods, r.Method) {
		next.ServeHTTP(w, r)
		return
	}
	keys := r.Header[m.config.Header]
	if len(keys) == 0 && !m.config.Required || From(r.Context()) != nil {
		next.ServeHTTP(w, r)
		return
	}
	in := newBuffer()
	c, at, err := m.prepare(in, r, keys)
	if err != nil {
		in.release()
		m.leaveBody(w, r, err)
		m.refuse(w, r, refused, err)
		return
	}
	record, err := m.claim(r.Context(), &c)
	switch {
	case err == nil && record.Won:
		m.requests.Record(r.Context(), executed)
		m.run(w, r, next, in, at, newExecution(m, &c, record.Generation))
	case err != nil && m.config.DangerouslyFailOpen && !errors.Is(err, ErrOwnerFull) && !errors.Is(err, errRecord):
		m.tell(r, err)
		m.requests.Record(r.Context(), unprotected)
		w.Header()[statusHeader] = []string{"ignored"}
		m.runUnprotected(w, r, next, in, at)
	case err != nil:
		in.release()
		m.failed(w, r, err)
	default:
		in.release()
		m.answer(w, r, &c, &record)
	}
}

// prepare reads r and returns the claim for it, and where in the buffer its body
// begins.
func (m *Middleware) prepare(in *buffer, r *http.Request, keys []string) (c Claim, at int, err error) {
	if len(keys) == 0 {
		return c, 0, m.errors.missing
	}
	key, ok := parseKey(keys[0])
	if !ok || len(keys) > 1 {
		return c, 0, m.errors.invalid
	}
	if c.Key, in.b, ok = m.storeKey(in.b, r, key); !ok {
		return c, 0, anonymous(r)
	}
	in.b = appendRequest(in.b[:0], r)
	at = len(in.b)
	if in.b, err = m.readBody(in.b, r); err != nil {
		return c, 0, err
	}
	c.Fingerprint = fingerprint(&c.Key, in.b)
	c.Lease, c.TTL = m.config.Lease, m.config.TTL
	c.Token = newToken()
	return c, at, nil
}

// The pauses between looks at a key that another request has.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// claim asks the store for the key, and waits for it if that is configured. Each
// look is a claim with the same token, so a waiter whose twin was released runs.
func (m *Middleware) claim(ctx context.Context, c *Claim) (Record, error) {
	record, err := m.store.Claim(ctx, *c)
	if m.config.Wait == 0 || err != nil || !awaits(&record, c) {
		return record, err
	}
	defer m.waiting.Add(-1)
	if m.waiting.Add(1) > int64(m.config.MaxWaiters) {
		return record, nil
	}
	deadline := time.Now().Add(m.config.Wait)
	for pause := firstPause; awaits(&record, c); pause = min(2*pause, lastPause) {
		left := time.Until(deadline)
		if left <= 0 {
			break
		}
		select {
		case <-ctx.Done():
			return record, nil
		case <-time.After(min(pause, left)):
		}
		if record, err = m.store.Claim(ctx, *c); err != nil {
			break
		}
	}
	return record, err
}

// awaits reports whether c is a repetition of the request that has the key.
func awaits(r *Record, c *Claim) bool {
	return r.State == StateClaimed && !r.Won && r.Fingerprint == c.Fingerprint
}

// run runs the request as the one that has the key.
func (m *Middleware) run(w http.ResponseWriter, r *http.Request, next http.Handler, in *buffer, at int, e *Execution) {
	e.work.init(r.Context(), m.config.DisconnectTimeout)
	var ctx context.Context = &e.work
	if e.x = exchange.From(r.Context()); e.x == nil {
		e.x = &e.own
		e.own.Context = ctx
		ctx = &e.own
	}
	executions.Store(e.x, e)
	e.request = *r.WithContext(ctx)
	inner := &e.request
	if r.Body != nil && r.Body != http.NoBody {
		e.input.rest = in.b[at:]
		inner.Body = &e.input
	}
	e.encoding = w.Header()["Content-Encoding"]
	e.writer.Init(w, (*hook)(e))
	e.keepLease()
	returned := false
	defer func() {
		defer e.work.end()
		executions.Store(e.x, nil)
		exchange.Leave(r, inner)
		_ = e.input.Close()
		in.release()
		e.end(returned)
	}()
	next.ServeHTTP(&e.writer, inner)
	returned = true
}

// runUnprotected runs the request although its key could not be claimed.
func (*Middleware) runUnprotected(w http.ResponseWriter, r *http.Request, next http.Handler, in *buffer, at int) {
	var input body
	defer func() {
		_ = input.Close()
		in.release()
	}()
	if r.Body != nil && r.Body != http.NoBody {
		input.rest = in.b[at:]
		r.Body = &input
	}
	next.ServeHTTP(w, r)
}

// answer answers a request whose key another has or had.
func (m *Middleware) answer(w http.ResponseWriter, r *http.Request, c *Claim, record *Record) {
	switch {
	case record.Fingerprint != c.Fingerprint:
		m.refuse(w, r, mismatched, m.errors.reused)
	case record.State == StateClaimed:
		m.refuse(w, r, inProgress, m.errors.inProgress)
	default:
		m.replay(w, r, c, record)
	}
}

// replay answers with what was stored.
func (m *Middleware) replay(w http.ResponseWriter, r *http.Request, c *Claim, record *Record) {
	if record.State == StateTombstone && len(record.Payload) == 0 {
		m.refuse(w, r, notReplayable, m.errors.withStatus(&m.errors.notKept, record.Status))
		return
	}
	a, err := readAnswer(record.Payload, &c.Key)
	if err == nil && (record.State == StateDone) != (a.kind == replayable) {
		err = errCorrupt
	}
	switch {
	case err != nil:
		m.tell(r, err)
		m.refuse(w, r, unreadable, m.errors.unreadable(err))
		return
	case a.kind == notKept:
		m.refuse(w, r, notReplayable, m.errors.withStatus(&m.errors.notKept, a.status))
		return
	case a.kind == unknown:
		m.refuse(w, r, notReplayable, m.errors.withStatus(&m.errors.unknown, a.status))
		return
	}
	m.requests.Record(r.Context(), replayed)
	h := w.Header()
	compressed := len(h["Content-Encoding"]) > 0 // by somebody further out, to another length
	a.setHeader(h, m.config.ReplayHeader, "true")
	if len(a.body) > serverCounts && !compressed {
		h["Content-Length"] = []string{strconv.Itoa(len(a.body))}
	}
	if a.rendered {
		if x := exchange.From(r.Context()); x != nil {
			x.Render(a.status)
		}
	}
	w.WriteHeader(a.status)
	if len(a.body) > 0 {
		// The client may have gone; there is nobody left to tell.
		_, _ = w.Write(a.body)
	}
}

// serverCounts is the length up to which the server finds out Content-Length by
// itself.
const serverCounts = 2 << 10

// refuse answers with err and counts why.
func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, why int, err error) {
	m.requests.Record(r.Context(), why)
	usher.Fail(w, r, err)
}

// failed answers a request whose key could not be claimed.
func (m *Middleware) failed(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, ErrOwnerFull) {
		m.refuse(w, r, refused, m.errors.tooMany)
		return
	}
	m.tell(r, err)
	m.refuse(w, r, storeFailed, m.errors.unavailable(err))
}

// tell tells the operator of err. That may be on a goroutine of the heartbeat, where
// a panic would end the process, or while a claim has yet to be finished.
func (m *Middleware) tell(r *http.Request, err error) {
	if m.config.OnError == nil {
		return
	}
	panicked := guard.Run(func() error {
		m.config.OnError(r, err)
		return nil
	})
	if p, ok := errors.AsType[*guard.PanicError](panicked); ok {
		// Nobody can tell what the value holds.
		slog.Default().LogAttrs(r.Context(), slog.LevelError, "idempotency: Config.OnError panicked",
			slog.String("panic", fmt.Sprintf("%T", p.Value)),
			slog.String("stack", string(p.Stack)))
	}
}

// What becomes of requests with a key, as indices of requestResults.
const (
	executed = iota
	replayed
	inProgress
	mismatched
	notReplayable
	refused
	storeFailed
	unprotected
	unreadable
)

var requestResults = []string{
	executed: "executed", replayed: "replayed", inProgress: "in_progress", mismatched: "mismatched",
	notReplayable: "not_replayable", refused: "refused", storeFailed: "store_failed",
	unprotected: "unprotected", unreadable: "unreadable",
}

// How claims end, as indices of claimEnds.
const (
	kept = iota
	tombstoned
	released
	leaseLost
	finishFailed
)

var claimEnds = []string{
	kept: "kept", tombstoned: "tombstoned", released: "released",
	leaseLost: "lease_lost", finishFailed: "finish_failed",
}

func newDecisions(c *Config) (requests, claims *telemetry.Decisions) {
	const scope = "github.com/usher-go/usher/idempotency"
	return telemetry.NewDecisions(telemetry.Config{
			MeterProvider: c.MeterProvider,
			Scope:         scope,
			Counter:       "usher.idempotency.requests",
			Description:   "Requests with an idempotency key by what became of them.",
			Attribute:     "usher.idempotency.result",
			Outcomes:      requestResults,
		}), telemetry.NewDecisions(telemetry.Config{
			MeterProvider: c.MeterProvider,
			Scope:         scope,
			Counter:       "usher.idempotency.claims",
			Description:   "Executed requests by how their claim of the key has ended.",
			Attribute:     "usher.idempotency.end",
			Outcomes:      claimEnds,
		})
}
