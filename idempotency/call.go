package idempotency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// A Call is a request that does not come over HTTP: a message of a queue, for instance, or
// a call of a gRPC method.
type Call struct {
	// Owner is whom the key belongs to, as [Config.Owner] returns it for a request over
	// HTTP: the account of the caller, or the name of the queue.
	Owner string
	// Operation names what is done, as a route does. Each operation has keys of its own,
	// which are never those of requests over HTTP.
	Operation string
	// Key is the caller's key: the ID of the message, say. It may be any text.
	Key string
	// Payload is what the caller sent. Another call with the same key must have the same.
	Payload []byte
}

// errCall is a fault of the program, and not of the caller.
var errCall = errors.New("idempotency: a Call needs an Owner and an Operation")

// Execute executes c once, as [Middleware.Wrap] executes a request. The first call runs fn
// and stores its result; a later one gets that, and replayed is true. A duplicate of a call
// that is running waits for it.
//
// The ctx of fn outlives that of Execute for up to [Config.DisconnectTimeout], and [From]
// returns the [Execution] from it. With [Execution.Commit] fn leaves the end of its
// transaction to Execute.
//
// The [Profile] determines what is stored. It gets the status 200 if fn returns no error,
// that of an [*usher.Error] in the error's chain, 500 for any other error, and 0 for a
// panic, which goes on after the claim has ended. So after an error that is no *usher.Error
// the outcome is unknown by [ProfileDefault], and no later call runs. If fn is a single
// transaction, use [ProfileReleaseServerErrors]. If an error is stored, a later call gets
// an *usher.Error with the same public parts; it is written as the first would be.
//
// Execute returns the errors with which [Middleware.Wrap] refuses requests, each an
// *usher.Error with the same code: [usher.CodeIdempotencyInProgress] and
// [usher.CodeIdempotencyUnavailable] mean that the call should be repeated later, as
// RetryAfter says. A call without a Key is always refused. One without an Owner or an
// Operation is a fault of the program, for which the error is another one.
//
// [Config.Resolve] gets a request that describes the call: its pattern is the Operation, its
// body the Payload, and the header field of the key has the Key. Fields of [Config] about
// methods, owners, routes and request bodies do not apply.
func (m *Middleware) Execute(ctx context.Context, c Call, fn func(ctx context.Context) ([]byte, error)) (reply []byte, replayed bool, err error) {
	if c.Owner == "" || c.Operation == "" {
		return nil, false, errCall
	}
	w := &callWriter{header: make(http.Header)}
	r := w.request(ctx, m.config.Header, &c)
	in := newBuffer()
	claim, refusal := m.prepareCall(r.Context(), in, &c)
	if refusal != nil {
		in.release()
		m.refuse(w, r, refused, &claim.Key, refusal)
		return nil, false, w.failure
	}
	m.serve(w, r, http.HandlerFunc(func(inner http.ResponseWriter, r *http.Request) {
		w.ran = true
		if reply, err = fn(r.Context()); err != nil {
			w.failing = true
			usher.Fail(inner, r, err)
			w.failing = false
			return
		}
		_, _ = inner.Write(reply)
	}), in, &claim, 0)
	switch {
	case w.failure != nil:
		return nil, false, w.failure
	case w.ran:
		return reply, false, err
	}
	reply, err = w.result()
	return reply, true, err
}

// prepareCall writes the payload of c into the buffer, from its beginning. It returns the
// claim for c.
func (m *Middleware) prepareCall(ctx context.Context, in *buffer, c *Call) (claim Claim, err error) {
	if c.Key == "" {
		return claim, m.refusals.missing
	}
	if m.config.ValidKey != nil {
		if err := m.validate(ctx, c.Key); err != nil {
			return claim, err
		}
	}
	claim = Claim{Key: callKey(c.Owner, c.Operation, c.Key), Token: newToken()}
	claim.Lease, claim.TTL = m.leaseAndTTL()
	in.b = append(in.b[:0], c.Payload...)
	claim.Fingerprint = m.hash.fingerprint(&claim.Key, in.b)
	return claim, nil
}

// callKey returns the key of the record for a call. A request over HTTP has a method, so
// its key is never that of a call.
func callKey(owner, operation, key string) Key {
	const noMethod = ""
	return Key{
		Owner: sha256.Sum256(appendPart(appendPart(nil, byOwner), owner)),
		Name:  sha256.Sum256(appendName(nil, noMethod, operation, key)),
	}
}

// A callWriter is the response writer of a call, and the responder of its request. It
// collects a replay, and the error of a refusal.
type callWriter struct {
	header  http.Header
	status  int
	body    []byte
	failure *usher.Error // with which the Middleware has refused the call
	ran     bool
	failing bool // while the error of fn is written
}

// request returns a request that describes c, and whose responder is w. It has an exchange
// of its own, as the call is not the request in which it may be made.
func (w *callWriter) request(ctx context.Context, header string, c *Call) *http.Request {
	r := new(exchange.Carrier).Attach((&http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: "/"}, Pattern: c.Operation,
		Header: http.Header{header: {c.Key}},
		Body:   io.NopCloser(bytes.NewReader(c.Payload)), ContentLength: int64(len(c.Payload)),
	}).WithContext(ctx))
	if p, ok := usher.PrincipalFrom(ctx); ok {
		r = usher.WithPrincipal(r, &p)
	}
	return usher.WithResponder(r, w)
}

func (w *callWriter) Header() http.Header { return w.header }

func (w *callWriter) WriteHeader(status int) { w.status = status }

func (w *callWriter) Write(p []byte) (int, error) {
	if !w.ran { // else Execute has the reply
		w.body = append(w.body, p...)
	}
	return len(p), nil
}

// result returns what is replayed.
func (w *callWriter) result() ([]byte, error) {
	if w.status < 400 {
		return w.body, nil
	}
	return nil, decodeError(w.status, w.body)
}

// WriteError implements [usher.Responder]. It gets the errors of fn, to be stored, and
// those of the Middleware.
func (w *callWriter) WriteError(to http.ResponseWriter, _ *http.Request, e *usher.Error) {
	if !w.failing {
		w.failure = e
		return
	}
	status := e.Status
	if status < 400 || status > 999 {
		status = http.StatusInternalServerError
	}
	to.WriteHeader(status)
	_, _ = to.Write(encodeError(e))
}

// WriteReply implements [usher.Responder].
func (w *callWriter) WriteReply(to http.ResponseWriter, _ *http.Request, reply usher.Reply) {
	to.WriteHeader(reply.Status)
}

// A storedError has the public parts of an error, but for its status.
type storedError struct {
	Code       string                     `json:"code,omitempty"`
	Type       string                     `json:"type,omitempty"`
	Message    string                     `json:"message,omitempty"`
	Param      string                     `json:"param,omitempty"`
	Fields     []usher.Field              `json:"fields,omitempty"`
	Members    map[string]json.RawMessage `json:"members,omitempty"` // details of a map, each apart
	Details    json.RawMessage            `json:"details,omitempty"` // other details
	RetryAfter time.Duration              `json:"retry_after,omitempty"`
	Challenges []string                   `json:"challenges,omitempty"`
}

// encodeError returns the public parts of e. Details that cannot be encoded are left out.
func encodeError(e *usher.Error) []byte {
	s := storedError{
		Code: e.Code, Type: e.Type, Message: e.Message, Param: e.Param, Fields: e.Fields,
		RetryAfter: e.RetryAfter, Challenges: e.Challenges,
	}
	if members, ok := e.Details.(map[string]any); ok {
		s.Members = make(map[string]json.RawMessage, len(members))
		for name, v := range members {
			if value, err := json.Marshal(v); err == nil {
				s.Members[name] = value
			}
		}
	} else if e.Details != nil {
		s.Details, _ = json.Marshal(e.Details)
	}
	b, _ := json.Marshal(s) // has nothing that cannot be encoded
	return b
}

// decodeError returns the error that was stored as b. If only its status was stored, or it
// comes from elsewhere, that is all that the error has.
func decodeError(status int, b []byte) *usher.Error {
	e := &usher.Error{Status: status}
	var s storedError
	if json.Unmarshal(b, &s) != nil {
		return e
	}
	e.Code, e.Type, e.Message, e.Param, e.Fields = s.Code, s.Type, s.Message, s.Param, s.Fields
	e.RetryAfter, e.Challenges = s.RetryAfter, s.Challenges
	switch {
	case s.Members != nil:
		members := make(map[string]any, len(s.Members))
		for name, value := range s.Members {
			members[name] = value // to be written as it was
		}
		e.Details = members
	case s.Details != nil:
		e.Details = s.Details
	}
	return e
}
