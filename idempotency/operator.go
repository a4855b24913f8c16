package idempotency

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// A RequestKey names the record of a request for an operator, by what the request had. All
// of it must be as the [Middleware] has seen it.
type RequestKey struct {
	// Principal is the caller, of which only what identifies it counts. It is nil for a
	// caller without a principal, and if there is a [Config.Owner].
	Principal *usher.Principal
	// Owner is what [Config.Owner] has returned; without that it is empty.
	Owner string
	// Method is the method, in capitals. It is empty for a [Call], which has an Owner in
	// any case, and whose Operation is the Route.
	Method string
	// Route is the pattern of the route, as in [net/http.Request.Pattern] or as
	// [Config.Route] has returned it: with net/http.ServeMux it begins with the method if
	// the pattern does. Empty means that no route was known.
	Route string
	// Key is the client's key, as it stands in the header field.
	Key string
	// Generation is that of the [Entry] by which the operator has decided. If the request
	// has been executed again meanwhile, so that the decision may be wrong by now, Resolve
	// and Delete return [ErrLost]. Zero means whatever execution was the last; Lookup
	// ignores it.
	Generation uint64
}

// An Entry is what is known about a request with a key.
type Entry struct {
	// Key is a digest of the RequestKey.
	Key Key
	// State says what has become of the request. StateClaimed with a Lease of zero means
	// that its process has died, or could not renew its lease.
	State State
	// Generation is that of the execution.
	Generation uint64
	// Lease is for how much longer a running request has its key, unless it renews that.
	Lease time.Duration
	// TTL is for how much longer the record is kept.
	TTL time.Duration
	// Status is that of the response; 0 if there was none.
	Status int
	// Response is the stored response, in StateDone. It belongs to the caller.
	Response *Response
}

// ErrResolved means that the outcome of a request is known already.
var ErrResolved = errors.New("idempotency: the outcome of the request is known already")

// Lookup returns what is known about a request. It changes nothing.
//
// It returns [ErrNotFound] if there is no record of the request, or a released one, which
// means that it had no effect. The same happens if a part of k is not what the Middleware
// has seen: most often the Route. The error matches [usher.ErrCorrupt] if the record cannot be
// read. If only the response cannot be read, the error comes with the rest of the Entry.
func (m *Middleware) Lookup(ctx context.Context, k RequestKey) (entry Entry, err error) {
	c := Change{Action: "lookup"}
	defer func() { m.audit(ctx, c, err) }()
	if c.Key, err = m.recordKey(&k); err != nil {
		return Entry{}, err
	}
	found, err := m.store.Find(ctx, c.Key)
	if err != nil {
		return Entry{}, err
	}
	c.Generation, c.Before, c.After = found.Generation, found.State, found.State
	entry = Entry{
		Key: c.Key, State: found.State, Generation: found.Generation,
		Lease: min(found.Lease, m.config.Lease), TTL: min(found.TTL, m.config.TTL), Status: found.Status,
	}
	if found.State != StateDone {
		return entry, nil
	}
	stored, err := readResponse(found.Payload, &c.Key)
	if err != nil {
		return entry, err
	}
	entry.Response = stored.response()
	return entry, nil
}

// Resolve records what has become of a request whose outcome is unknown, or whose process
// has died. A retry then gets the response, or runs, as s says.
//
// It returns [ErrNotFound] if there is no record of the request, [ErrResolved] if its
// outcome is known, and [ErrLost] if it is running or has been executed again: look it up
// again later. After any other error of the store, s may still be stored: if the key was
// claimed, attempts go on in the background, as for the result of a request (see
// [Middleware.Shutdown]), and a retry gets 409 until then. Call Resolve again to find out;
// ErrResolved or, after a Release, ErrNotFound then means that s is stored.
func (m *Middleware) Resolve(ctx context.Context, k RequestKey, s Resolution) (err error) {
	c := Change{Action: "resolve", Outcome: s.Outcome}
	defer func() { m.audit(ctx, c, err) }()
	if c.Key, err = m.recordKey(&k); err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	if s.tooLarge(m.config.MaxResponse) {
		return errTooLarge
	}
	found, err := m.store.Find(ctx, c.Key)
	if err != nil {
		return err
	}
	c.Generation, c.Before = found.Generation, found.State
	if found.State != StateClaimed && found.State != StateUnknown {
		return ErrResolved
	}
	if k.Generation != 0 && k.Generation != found.Generation {
		return ErrLost
	}
	if s.Outcome == Release {
		// This frees the key of the execution that was found, and of no later one.
		if err = m.store.Delete(ctx, c.Key, found.Generation); err == nil {
			c.After = StateReleased
		}
		return err
	}
	e, err := m.takeOver(ctx, &c.Key, &found)
	if err != nil {
		return err
	}
	c.Generation = e.generation
	result, _ := s.result(e)
	c.After, err = e.finish(result)
	return err
}

// takeOver claims the key of a request whose outcome is unknown, or whose process has died.
func (m *Middleware) takeOver(ctx context.Context, key *Key, found *Record) (*Execution, error) {
	c := Claim{
		Key: *key, Token: newToken(), Fingerprint: found.Fingerprint,
		Lease: m.config.Lease, TTL: m.config.TTL, TakeUnknown: true,
	}
	if m.config.Resolve == nil {
		// If this process died now, the next retry would run after the lease.
		c.Lease = c.TTL
	}
	asked := time.Now()
	record, err := m.store.Claim(ctx, c)
	if err != nil {
		return nil, err
	}
	if !record.Won {
		return nil, ErrLost
	}
	e := newExecution(m, &c, record.Generation, asked)
	e.begin((&http.Request{}).WithContext(context.WithoutCancel(ctx)))
	if !record.TakenOver {
		e.release()
		return nil, ErrNotFound // by now
	}
	return e, nil
}

// Delete removes the record of a request, even one that cannot be read. The key is then
// free: a retry runs, whatever the first request has done. If its outcome can be found out,
// call [Middleware.Resolve] instead.
//
// It returns [ErrNotFound] if there is no record of the request, and [ErrLost] if it is
// running, or if the record has changed meanwhile.
func (m *Middleware) Delete(ctx context.Context, k RequestKey) (err error) {
	c := Change{Action: "delete"}
	defer func() { m.audit(ctx, c, err) }()
	if c.Key, err = m.recordKey(&k); err != nil {
		return err
	}
	found, err := m.store.Find(ctx, c.Key)
	if err != nil && !errors.Is(err, usher.ErrCorrupt) {
		return err
	}
	// A record that cannot be read has the generation 0.
	c.Generation, c.Before = found.Generation, found.State
	return m.store.Delete(ctx, c.Key, cmp.Or(k.Generation, found.Generation))
}

// audit reports a call of an operator.
func (m *Middleware) audit(ctx context.Context, c Change, err error) {
	c.Err = err
	m.changed(ctx, c)
}

// recordKey returns the key of the record that k names.
func (m *Middleware) recordKey(k *RequestKey) (Key, error) {
	fault := func(field, reason string) (Key, error) {
		return Key{}, fmt.Errorf("idempotency: RequestKey.%s %s", field, reason)
	}
	if k.Method == "" && k.Owner != "" && k.Route != "" && k.Key != "" && k.Principal == nil {
		return callKey(k.Owner, k.Route, k.Key), nil
	}
	key, ok := parseKey(k.Key)
	switch {
	case !ok:
		return fault("Key", "must be a key as clients send it")
	case !slices.Contains(m.config.Methods, k.Method):
		return fault("Method", "must be one of Config.Methods, in capitals, or empty for a Call, which has an Owner, a Route and a Key")
	case m.config.Owner != nil && k.Principal != nil:
		return fault("Principal", "must be nil, as Config.Owner names the owner")
	case m.config.Owner == nil && k.Owner != "":
		return fault("Owner", "must be empty without a Config.Owner, as the Principal owns the key")
	case m.config.Owner == nil && k.Principal == nil && !m.config.DangerouslyAllowAnonymous:
		return fault("Principal", "must be the caller who owns the key")
	}
	owner := appendPart(nil, byNobody)
	switch {
	case m.config.Owner != nil:
		owner = appendPart(appendPart(nil, byOwner), k.Owner)
	case k.Principal != nil:
		owner = appendPrincipal(nil, k.Principal)
	}
	return Key{
		Owner: sha256.Sum256(owner),
		Name:  sha256.Sum256(appendName(nil, k.Method, k.Route, key)),
	}, nil
}
