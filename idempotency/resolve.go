package idempotency

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
)

// A Resolution says what has become of a request whose outcome was not known.
type Resolution struct {
	// Outcome is one of these:
	//
	//   - Release: the request had no effect. A retry runs.
	//   - Keep: it had its effect. A retry gets Response.
	//   - KeepStatus: it had its effect. A retry gets the status of Response alone.
	//   - Forget: it had its effect, and there is no response. A retry gets the error
	//     [usher.CodeIdempotencyResponseNotKept].
	//   - Unknown: it is still not known. A retry gets the error
	//     [usher.CodeIdempotencyOutcomeUnknown]. The zero Outcome means the same if
	//     [Config.Resolve] returns it.
	Outcome Outcome
	// Response belongs to Keep and KeepStatus; otherwise it is ignored. It is what the
	// handler would have written, so an outer envelope wraps it as it wraps that. Header
	// fields that are not stored with a response are not sent either.
	Response *Response
}

var (
	errOutcome  = errors.New("idempotency: a Resolution needs one of the outcomes Release, Keep, KeepStatus, Forget and Unknown")
	errResponse = errors.New("idempotency: a Resolution that keeps a response needs one with a status of 200 to 999")
	errTooLarge = errors.New("idempotency: the Response of a Resolution is larger than MaxResponse")
)

// check returns an error if no claim can end with s.
func (s *Resolution) check() error {
	switch s.Outcome {
	case Release, Forget, Unknown:
		return nil
	case Keep, KeepStatus:
		if s.Response == nil || s.Response.Status < 200 || s.Response.Status > 999 {
			return errResponse
		}
		return nil
	}
	return errOutcome
}

// tooLarge reports whether s has a body of more than most bytes.
func (s *Resolution) tooLarge(most int) bool {
	return s.Outcome == Keep && bodyAllowed(s.Response.Status) && len(s.Response.Body) > most
}

// result returns how the claim of e ends with s, and the response to send for Keep and
// KeepStatus, in its stored form. If that is too large it is sent all the same, as that of
// a handler is, and a tombstone is stored.
func (s *Resolution) result(e *Execution) (r Result, response []byte) {
	switch {
	case s.Outcome == Keep:
		response = e.stored(s.Response)
		r = Result{State: StateDone, Status: s.Response.Status, Payload: response, TTL: e.m.config.TTL}
		if s.tooLarge(e.m.config.MaxResponse) {
			r.State, r.Payload = StateTombstone, nil
		}
		return r, response
	case s.Outcome == KeepStatus:
		r = e.resultWithoutResponse(KeepStatus, s.Response.Status)
		return r, r.Payload
	}
	return e.resultWithoutResponse(s.Outcome, 0), nil
}

// stored returns the stored form of a response.
func (e *Execution) stored(r *Response) []byte {
	b := appendHead(nil, r.Status, r.Header, e.m.keptHeaders, nil)
	if bodyAllowed(r.Status) {
		b = append(b, r.Body...)
	}
	seal(b, 0, &e.key)
	return b
}

// isUnresolved reports whether r is the record of an earlier request like c whose outcome
// is unknown.
func isUnresolved(r *Record, c *Claim) bool {
	return r.State == StateUnknown && r.Fingerprint == c.Fingerprint && len(r.Payload) == 0
}

// claimUnresolved claims the key for a retry of a request whose outcome is unknown. If
// another retry was faster, this one waits for it as for any request in flight, and does
// not ask for the outcome again.
func (m *Middleware) claimUnresolved(ctx context.Context, c *Claim) (record Record, asked time.Time, err error) {
	taking := *c
	taking.TakeUnknown = true
	for {
		record, asked, err = m.ask(ctx, &taking)
		if err != nil || !inFlight(&record, c) {
			return record, asked, err
		}
		faster := record.Generation
		record, asked, err = m.claim(ctx, c)
		// Requests that began to wait before the other retry took the key may have shared
		// a result from that time. It is out of date.
		if err != nil || !isUnresolved(&record, c) || record.Generation >= faster {
			return record, asked, err
		}
	}
}

// A predecessor is an earlier request with an unknown outcome, as its record shows it. It is
// zero if the process of that request has died.
type predecessor struct {
	state  State
	status int
}

// resolve asks [Config.Resolve] what has become of the earlier request with the key, and
// reports whether that had no effect, so that this one runs. Otherwise it ends the claim of
// e and responds.
func (m *Middleware) resolve(w http.ResponseWriter, r *http.Request, in *buffer, bodyAt int, e *Execution, found predecessor) (runs bool) {
	s, err := m.askResolve(e, r, in.b[bodyAt:])
	e.SetOutcome(0) // in case Resolve has called it
	change := Change{
		Action: "ask", Key: e.key, Generation: e.generation,
		Before: cmp.Or(found.state, StateClaimed), Outcome: s.Outcome, Err: err,
	}
	if s.Outcome == Release && !e.isLost() {
		change.After = StateClaimed
		m.changed(r.Context(), change)
		return true
	}
	defer e.work.end()
	in.release()
	result, response := s.result(e)
	if s.Outcome == Unknown {
		result.Status = found.status
	}
	if !e.isLost() {
		// After an error the store may still accept the result later.
		kept, failure := e.finish(result)
		change.After, change.Err = kept, cmp.Or(err, failure)
	} else {
		change.Err = cmp.Or(err, ErrLost)
	}
	m.changed(r.Context(), change)
	m.respondResolved(w, r, e, &result, response, err)
	return false
}

// respondResolved responds to a retry that does not run: with the response of the earlier
// request, or with an error. Err is that of Resolve.
func (m *Middleware) respondResolved(w http.ResponseWriter, r *http.Request, e *Execution, result *Result, response []byte, err error) {
	switch {
	case e.isLost():
		// Another request has the key by now.
		m.refuse(w, r, inProgress, &e.key, m.refusals.inProgress)
	case err != nil:
		m.failures.Error(r.Context(), err)
		m.refuse(w, r, resolveFailed, &e.key, m.unresolved(err))
	case response == nil:
		m.replay(w, r, &Claim{Key: e.key}, &Record{State: result.State, Status: result.Status})
	default:
		m.replay(w, r, &Claim{Key: e.key}, &Record{State: StateDone, Payload: response})
	}
}

// maxResolving limits the concurrent calls of [Config.Resolve], including those that hang.
const maxResolving = 64

// askResolve calls [Config.Resolve]. Any failure is an error, with the outcome Unknown.
func (m *Middleware) askResolve(e *Execution, r *http.Request, content []byte) (Resolution, error) {
	ctx, cancel := e.Context(e.request.Context())
	defer cancel()
	// A Resolve that goes on after its time shares nothing with later requests: it has a
	// copy of this one, whose body can no longer be read.
	asking := r.Clone(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		b := &body{rest: content}
		defer func() { _ = b.Close() }()
		asking.Body = b
	}
	s, err := guard.Call(ctx, m.resolving, "", func(ctx context.Context) (Resolution, error) {
		asking := asking.WithContext(ctx)
		defer removeFiles(asking, r.MultipartForm)
		return m.config.Resolve(asking, e)
	}, nil)
	s.Outcome = cmp.Or(s.Outcome, Unknown)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return Resolution{Outcome: Unknown}, fmt.Errorf("idempotency: Config.Resolve: %w", err)
	}
	return s, nil
}

// removeFiles removes the temporary files of a multipart form that Resolve has parsed. The
// server removes only those of its own request.
func removeFiles(r *http.Request, before *multipart.Form) {
	if before == nil && r.MultipartForm != nil {
		_ = r.MultipartForm.RemoveAll() // At worst a temporary file is left.
	}
}

// unresolved returns the error for a retry if Resolve has failed. The request was not
// processed again, but it may have been before.
func (m *Middleware) unresolved(cause error) *usher.Error {
	return &usher.Error{
		Status: http.StatusServiceUnavailable, Code: usher.CodeIdempotencyUnavailable, RetryAfter: retryAfter, Cause: cause,
		Message: "The outcome of the first request with this idempotency key could not be determined. Please try again with the same key.",
		Details: map[string]any{newKeySafe: false},
	}
}
