package idempotency

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/method"
)

// Config configures a [Middleware]. The zero value is ready for use.
type Config struct {
	// Store keeps the records; nil means a [Memory] of its own.
	Store Store

	// Header is the name of the field with the key; empty means Idempotency-Key.
	Header string
	// Required refuses requests without a key with 400; see also
	// [Middleware.Require].
	Required bool
	// Methods are those that are looked at; empty means POST and PATCH. All others
	// pass, with a key or without. They are in capitals, as they come in requests;
	// those that are registered as safe, QUERY for one, cannot be among them.
	Methods []string
	// Owner says who calls, if that is not the principal of the request: its owner
	// for instance, so that a key survives a change of credentials. False refuses
	// the request.
	Owner func(r *http.Request) (owner string, ok bool)
	// DangerouslyAllowAnonymous accepts keys of callers without a principal, who
	// are then one caller: whoever guesses a key gets the answer. It has no effect
	// with Owner.
	DangerouslyAllowAnonymous bool
	// Route returns the pattern that r has matched, for routers that do not set
	// http.Request.Pattern.
	Route func(r *http.Request) string

	// MaxBody is the longest body of a request with a key, in bytes; a longer one
	// gets 413. Zero means 1 MiB.
	MaxBody int64
	// BodyTimeout is how long a body may take to arrive; after that it gets 408.
	// Zero means 30 seconds.
	BodyTimeout time.Duration
	// MaxResponse is the longest body of an answer that is kept, in bytes; zero means
	// 1 MiB.
	MaxResponse int
	// KeepHeaders are further fields of answers that are kept, beside Content-Type,
	// Content-Encoding, Location and the like. Set-Cookie and what belongs to one
	// exchange cannot be among them.
	KeepHeaders []string
	// ReplayHeader marks replays, with the value true; empty means
	// Idempotency-Replayed. Stripe's is Idempotent-Replayed.
	ReplayHeader string

	// Profile says which answers are kept.
	Profile Profile
	// Outcome, if not nil, is asked before Profile, with the status of the response, or
	// 0 for a handler that did not return, or that wrote nothing as its context
	// ended. The zero Outcome leaves it to Profile, and a panic means Unknown.
	Outcome func(r *http.Request, status int) Outcome

	// TTL is how long a key is remembered; zero means 24 hours.
	TTL time.Duration
	// Lease is how long a key stays taken when the process that runs the request
	// has died; zero means 30 seconds. It is renewed while the handler runs.
	Lease time.Duration
	// Wait is how long a request waits for another with its key that is running;
	// zero means that it gets 409 at once.
	Wait time.Duration
	// MaxWaiters is how many may wait at once; the next gets 409. Zero means 100.
	MaxWaiters int

	// DisconnectTimeout is how long a request with a key may go on after its client
	// has gone; zero means 60 seconds. The client's retry gets the response of what
	// was done in that time. After it the context of the request ends with the cause
	// [ErrDisconnected]. A deadline of the context that the request came with still
	// ends its work, as of http.TimeoutHandler; any other cancellation from outside,
	// of a base context when the server shuts down for instance, is taken for that of
	// the client. A response that is passed on and not kept, as after a flush, lets
	// the context end with the client again.
	DisconnectTimeout time.Duration
	// StoreTimeout is how long a call of the store may take; zero means 250
	// milliseconds. It does not apply to a Memory, which does not wait.
	StoreTimeout time.Duration
	// FinishTimeout is how long a response is held back while the store fails to take
	// it, over several calls; zero means 2 seconds. After that the client gets it, and
	// it is stored in the background: until the store takes it, at most for TTL.
	FinishTimeout time.Duration
	// DangerouslyFailOpen lets requests run unprotected while the store fails; they
	// are counted, and answered with "Idempotency-Status: ignored". By default they
	// get 503.
	DangerouslyFailOpen bool

	// OnError, if not nil, is told of failures of the store, of lost claims and of
	// panics of Outcome, on any goroutine. A panic of its own is logged to
	// [slog.Default] and goes no further.
	OnError func(r *http.Request, err error)
	// MeterProvider makes the counters usher.idempotency.requests, by
	// usher.idempotency.result, and usher.idempotency.claims, by
	// usher.idempotency.end; nil means the global one.
	MeterProvider metric.MeterProvider
}

const (
	defaultHeader = "Idempotency-Key"
	defaultMark   = "Idempotency-Replayed"
	statusHeader  = "Idempotency-Status"

	// maxSize bounds MaxBody and MaxResponse, so that lengths fit into a record.
	maxSize = 1 << 30
)

// withDefaults returns a copy of c in which nothing is left to a default, and
// all faults of c.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	fault := func(bad bool, field, reason string) {
		if bad {
			errs = append(errs, &usher.ConfigError{Field: "idempotency.Config." + field, Reason: reason})
		}
	}
	fault(!validFieldName(c.Header, true), "Header", "must be the name of a header field")
	fault(!validFieldName(c.ReplayHeader, true), "ReplayHeader", "must be the name of a header field")
	c.Header = textproto.CanonicalMIMEHeaderKey(cmp.Or(c.Header, defaultHeader))
	c.ReplayHeader = textproto.CanonicalMIMEHeaderKey(cmp.Or(c.ReplayHeader, defaultMark))
	c.Methods = slices.Clone(c.Methods)
	if len(c.Methods) == 0 {
		c.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	for i, name := range c.Methods {
		reason := method.Fault(name)
		if reason == "" && (method.Safe(name) || name == http.MethodConnect) {
			reason = "must be a method that changes something"
		}
		fault(reason != "", fmt.Sprintf("Methods[%d]", i), reason)
	}
	c.KeepHeaders = slices.Clone(c.KeepHeaders)
	for i, name := range c.KeepHeaders {
		name = textproto.CanonicalMIMEHeaderKey(name)
		field := fmt.Sprintf("KeepHeaders[%d]", i)
		fault(!validFieldName(name, false), field, "must be the name of a header field")
		fault(neverStored(name), field, name+" belongs to one exchange and is never stored")
	}
	fault(c.Profile > ProfileKeepSuccess, "Profile", "unknown profile")
	fault(c.MaxBody < 0 || c.MaxBody > maxSize, "MaxBody", "must be 0 to 1 GiB")
	fault(c.MaxResponse < 0 || c.MaxResponse > maxSize, "MaxResponse", "must be 0 to 1 GiB")
	fault(c.Wait < 0, "Wait", "must not be negative")
	fault(c.MaxWaiters < 0, "MaxWaiters", "must not be negative")
	c.MaxBody = cmp.Or(c.MaxBody, 1<<20)
	c.MaxResponse = cmp.Or(c.MaxResponse, 1<<20)
	c.MaxWaiters = cmp.Or(c.MaxWaiters, 100)
	for _, d := range []struct {
		field   string
		value   *time.Duration
		usually time.Duration
	}{
		{"BodyTimeout", &c.BodyTimeout, 30 * time.Second},
		{"DisconnectTimeout", &c.DisconnectTimeout, 60 * time.Second},
		{"TTL", &c.TTL, 24 * time.Hour},
		{"Lease", &c.Lease, 30 * time.Second},
		{"StoreTimeout", &c.StoreTimeout, 250 * time.Millisecond},
		{"FinishTimeout", &c.FinishTimeout, 2 * time.Second},
	} {
		fault(*d.value < 0, d.field, "must not be negative")
		*d.value = cmp.Or(*d.value, d.usually)
	}
	fault(c.TTL < c.Lease, "TTL", "must not be shorter than Lease")
	fault(c.Lease < 4*c.StoreTimeout, "Lease", "must be at least four times StoreTimeout, to be renewed in time")
	return c, errors.Join(errs...)
}

// validFieldName reports whether s is a token of RFC 9110, section 5.6.2.
func validFieldName(s string, orEmpty bool) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
			strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return orEmpty || s != ""
}
