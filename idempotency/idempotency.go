package idempotency

import (
	"errors"
	"net/http"
	"slices"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/heartbeat"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/telemetry"
)

// A Middleware executes a request with an Idempotency-Key once, and gives each
// duplicate of it the response of the first. It is a [usher.Middleware], immutable
// and safe for concurrent use.
//
// It does nothing inside another Middleware that has already claimed the key of the
// request.
type Middleware struct {
	config      Config
	store       Store
	memory      *Memory // the store, if it is a Memory, which neither blocks nor has outages
	keptHeaders []string
	refusals    refusals
	owners      *ownerSums
	hash        requestHash
	waiters     *waiters

	heartbeat *heartbeat.Heartbeat[*Execution]
	resolving *guard.Guard // of calls of Config.Resolve
	pending   *pendingResults

	failures         *report.Reporter
	requests, claims *telemetry.Decisions
	evictions        metric.Int64Counter
}

var _ usher.Middleware = (*Middleware)(nil)

// New returns the Middleware that c describes. It reports every fault of c at once,
// each as a [*usher.ConfigError]. It starts no goroutine.
func New(c Config) (*Middleware, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Middleware{
		config:      c,
		keptHeaders: keptHeaders(c.KeepHeaders),
		owners:      newOwnerSums(),
		refusals:    newRefusals(c.Header),
		waiters:     new(waiters),

		pending:  new(pendingResults),
		failures: report.New("idempotency", c.OnError),
	}
	m.heartbeat = newHeartbeat(m)
	m.resolving = guard.New(c.ResolveTimeout, maxResolving).NeverOpen()
	if c.Store == nil {
		c.Store = newMemory(MemoryConfig{})
	}
	m.store = c.Store
	if memory, ok := c.Store.(*Memory); ok {
		m.memory, m.hash = memory, memory.hash
	} else {
		m.store = newRemote(&c, m.failures)
	}
	m.requests = requestsCounter.Decisions(c.MeterProvider)
	m.claims = claimsCounter.Decisions(c.MeterProvider)
	m.evictions = evictionsCounter.Counter(c.MeterProvider)
	return m, nil
}

// Require returns a Middleware for routes on which the key is required. It shares
// everything with m.
func (m *Middleware) Require() *Middleware {
	required := *m
	required.config.Required = true
	return &required
}

// Wrap returns a handler that runs m before next.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.ServeNext(w, r, next) })
}

// ServeNext passes the request to next if it has no key or is the first with its
// key. Otherwise it responds itself.
func (m *Middleware) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	keys, ok := m.keys(r)
	if !ok {
		next.ServeHTTP(w, r)
		return
	}
	in := newBuffer()
	c, bodyAt, err := m.prepare(in, w, r, keys)
	if errors.Is(err, errAnonymous) && exchange.Shadowed(r.Context()) {
		in.release()
		w.Header()[statusHeader] = []string{"ignored"}
		next.ServeHTTP(w, r)
		return
	}
	if err != nil {
		in.release()
		m.leaveBody(w, r, err)
		m.refuse(w, r, refused, &c.Key, err)
		return
	}
	m.serve(w, r, next, in, &c, bodyAt)
}

// serve serves a request whose claim is c. Its body begins in the buffer at bodyAt.
func (m *Middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler, in *buffer, c *Claim, bodyAt int) {
	record, asked, err := m.claim(r.Context(), c)
	var found predecessor
	if m.config.Resolve != nil && err == nil && isUnresolved(&record, c) {
		found = predecessor{record.State, record.Status}
		record, asked, err = m.claimUnresolved(r.Context(), c)
	}
	switch {
	case err == nil && record.Won:
		e := newExecution(m, c, record.Generation, asked)
		e.begin(r)
		if record.TakenOver && m.config.Resolve != nil && !m.resolve(w, r, in, bodyAt, e, found) {
			return
		}
		m.execute(w, r, next, in, bodyAt, e)
	case err != nil && found.state == 0 && m.failsOpen(err):
		m.executeUnprotected(w, r, next, in, bodyAt, &c.Key, err)
	case err != nil:
		in.release()
		m.refuseUnclaimed(w, r, &c.Key, err)
	default:
		in.release()
		m.respond(w, r, c, &record)
	}
}

// keys returns the values of the header field with the key. It returns false for a
// request that passes without a claim.
func (m *Middleware) keys(r *http.Request) (values []string, ok bool) {
	if !slices.Contains(m.config.Methods, r.Method) {
		return nil, false
	}
	values = r.Header[m.config.Header]
	if len(values) == 0 && !m.config.Required {
		return nil, false
	}
	return values, running(r.Context()) == nil
}

// prepare reads r into the buffer. It returns the claim for r, and where in the
// buffer the body begins.
func (m *Middleware) prepare(in *buffer, w http.ResponseWriter, r *http.Request, keys []string) (c Claim, bodyAt int, err error) {
	if len(keys) == 0 {
		return c, 0, m.refusals.missing
	}
	key, ok := parseKey(keys[0])
	if !ok || len(keys) > 1 {
		return c, 0, m.refusals.invalid
	}
	if m.config.ValidKey != nil {
		if err := m.validate(r.Context(), key); err != nil {
			return c, 0, err
		}
	}
	if c.Key, in.b, ok = m.storeKey(in.b, r, key); !ok {
		return c, 0, anonymous(r)
	}
	in.b = appendRequest(in.b[:0], r, m.config.FingerprintHeaders)
	bodyAt = len(in.b)
	if in.b, err = m.readBody(in.b, w, r); err != nil {
		return c, 0, err
	}
	c.Fingerprint = m.hash.fingerprintOf(&c.Key, r, in.b, bodyAt)
	c.Lease, c.TTL = m.leaseAndTTL()
	c.Token = newToken()
	return c, bodyAt, nil
}

// failsOpen reports whether a request whose claim failed with err may run
// unprotected.
func (m *Middleware) failsOpen(err error) bool {
	return m.config.DangerouslyFailOpen && !errors.Is(err, ErrOwnerFull) && !errors.Is(err, usher.ErrCorrupt)
}

// respond responds to a request whose key was claimed before.
func (m *Middleware) respond(w http.ResponseWriter, r *http.Request, c *Claim, record *Record) {
	switch {
	case record.Fingerprint != c.Fingerprint:
		m.refuse(w, r, mismatched, &c.Key, m.refusals.reused)
	case record.State == StateClaimed:
		m.refuse(w, r, inProgress, &c.Key, m.stillInProgress(record))
	default:
		m.replay(w, r, c, record)
	}
}
