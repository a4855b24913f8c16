package idempotency

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/httptoken"
	"github.com/usher-go/usher/internal/method"
)

// Config configures a [Middleware]. The zero value is ready for a service that is a single
// process and authenticates its callers.
//
// Most services set fields of the first group only. The groups that follow are about the keys,
// whom they belong to, the responses, unknown outcomes, what a request may take, the times
// and failures of the store, and what is reported.
type Config struct {
	// Store keeps the records. Nil means a [Memory] with its defaults, which suffices for a
	// single process; several processes must share a store.
	Store Store
	// Required refuses requests without a key with 400. Otherwise they run, and so does each
	// retry of them. [Middleware.Require] requires the key on single routes.
	Required bool
	// Profile decides by its status whether a response is stored, so that a retry gets it, or
	// its key is freed, so that a retry runs. Nil means [ProfileDefault].
	Profile Profile
	// TTL is how long a record is kept; zero means 24 hours.
	TTL time.Duration
	// Wait is how long a duplicate request waits for the one in flight before it gets
	// 409, whose Retry-After is the rest of the lease. Zero means 5 seconds: most HTTP
	// clients do not retry 409, so one that lost its connection while its first attempt
	// was running needs the response of that attempt. [NoWait] means 409 at once. Wait
	// must be shorter than the time that the server has to write a response.
	Wait time.Duration

	// Header is the name of the header field with the key; empty means Idempotency-Key. A key
	// has 1 to 255 visible ASCII characters. In quotes, as a String of RFC 9651, it may also
	// have spaces; parameters after it have no meaning.
	Header string
	// ValidKey reports whether a key, without quotes, has the form that the service requires,
	// such as [IsUUID]; another key gets 400, before the body is read or the store is asked.
	// A panic gets 503. Nil accepts all keys.
	ValidKey func(key string) bool
	// Methods are the request methods whose keys count; empty means POST and PATCH.
	// Requests with other methods pass, with a key or without. Methods are written in
	// capitals, as in requests; safe methods, such as GET and QUERY, are not allowed.
	Methods []string
	// FingerprintHeaders names request header fields that change what a request means, such
	// as an API version, a connected account or Accept. A key that is reused with other
	// values gets 422, and an absent field differs from an empty one. Host, media type and
	// content encoding are always compared. A field that a retry may change without meaning
	// another request, such as a credential or the ID of a trace, must not be listed; those
	// known to this package are faults. Nil means that no other field is compared.
	FingerprintHeaders []string

	// Owner returns the owner of the keys of r, in place of the principal: the account
	// for instance, so that a key survives a change of credentials. False refuses the
	// request with 401.
	Owner func(r *http.Request) (owner string, ok bool)
	// DangerouslyAllowAnonymous accepts keys from callers without a principal. All of
	// them share one set of keys: a caller that guesses the key of another gets its
	// response. It has no effect if Owner is set.
	DangerouslyAllowAnonymous bool
	// Route returns the route pattern that r has matched. Nil means
	// http.Request.Pattern, which [usher.Pattern] and the adapters set where the router
	// does not.
	Route func(r *http.Request) string

	// KeepHeaders names header fields of responses that are stored in addition to
	// Content-Type, Content-Encoding, Location and the like. Set-Cookie and fields
	// that belong to a single exchange are not allowed. Neither is Retry-After: it is
	// always stored with a success or a redirect, as in a 202 whose location is polled,
	// and never with an error.
	KeepHeaders []string
	// Sanitize changes what is stored of the response of a handler, to keep personal data
	// out of the store for instance; nil changes nothing. The first client gets the response
	// as the handler wrote it, and replays get the sanitized one. Sanitize may replace or
	// change Header and Body. It may set Status to 0, so that only the status that
	// was sent is remembered, and a retry gets 409 and [usher.CodeIdempotencyResponseNotKept].
	//
	// The same happens, and is reported to OnError, if Sanitize panics, sets another status,
	// makes the body longer than MaxResponse, or turns the JSON that [Response] describes
	// into something else. It is called on the goroutine of the request, before the first
	// byte is sent. The body of r has been read. For [Middleware.Execute], r describes the
	// call, as for Resolve, and Body is what fn has returned: its reply, or its error as
	// JSON. What Resolve returns is not sanitized.
	Sanitize func(r *http.Request, response *Response)
	// ReplayHeader is the name of the header field that marks a replay, with the value
	// true; empty means Idempotency-Replayed. Stripe uses Idempotent-Replayed.
	ReplayHeader string
	// Documentation is the absolute http or https URL of the page on which the service
	// documents its keys, without a fragment. If it is set, each refusal links to it, as
	// draft-ietf-httpapi-idempotency-key-header asks: Link has the URL with the relation
	// describedby, and the type of the problem is the URL with the code as its fragment.
	Documentation string

	// Resolve finds out what has become of an earlier request with the key of r, for
	// instance by asking the payment provider for the [Execution.DownstreamKey] of e. It is
	// called before a retry is refused because the outcome of that request is unknown, and
	// before a retry runs because the process of that request has died. Nil means that the
	// first is refused, and the second runs. A request that differs from the earlier one is
	// no retry: it gets 422 in any case.
	//
	// Resolve runs under the claim of the retry: for each key, one call at a time in all
	// processes. Duplicates wait meanwhile, as for a handler. It may read the body of r,
	// which the handler then reads again. The context of r is that of the request. It ends
	// after ResolveTimeout, and with [ErrLost] when the claim is lost. If Resolve returns
	// an error, panics or does not return in time, the outcome is as unknown as before: the
	// failure is reported to OnError, and the retry gets 503. At most 64 calls run at the
	// same time, including those that hang. SetOutcome of e has no effect in Resolve, and
	// Commit returns an error.
	//
	// All processes that share the store need a Resolve: one without it runs the retry of a
	// request whose process has died.
	Resolve func(r *http.Request, e *Execution) (Resolution, error)
	// ResolveTimeout limits each call of Resolve; zero means 10 seconds.
	ResolveTimeout time.Duration

	// MaxBody limits the body of a request with a key, in bytes; a longer one gets
	// 413. Zero means 1 MiB.
	MaxBody int64
	// BodyTimeout limits how long a request body may take to arrive; one that is slower,
	// or stalls, gets 408, and the connection is closed. Zero means 30 seconds. An earlier
	// deadline of the server, as from http.Server.ReadTimeout, has the same effect.
	BodyTimeout time.Duration
	// MaxResponse limits the body of a stored response, in bytes. A longer response
	// is sent, but cannot be replayed. Zero means 1 MiB.
	MaxResponse int
	// MaxWaiters limits how many requests wait at the same time, and a tenth of it how
	// many of one owner do; further ones get 409 at once. Each keeps its body in memory.
	// Zero means 1,000.
	MaxWaiters int

	// Lease is how long retries get 409 after the process that executes a request has
	// died; zero means 30 seconds. It is renewed while the handler runs. The keys of a
	// Memory end with their process, so there Lease only limits the Retry-After of a 409.
	Lease time.Duration
	// DisconnectTimeout is how long a request with a key may go on after its client
	// has disconnected; zero means 60 seconds. The client's retry gets the response of
	// the work that was done. After that time the context of the request ends with the
	// cause [ErrDisconnected].
	//
	// A deadline of the request's own context, as set by http.TimeoutHandler, still ends
	// its work. Any other cancellation from outside counts as a disconnect, for instance
	// that of a base context when the server shuts down. If the response is streamed
	// rather than stored, the context ends as soon as the client disconnects.
	DisconnectTimeout time.Duration
	// StoreTimeout limits each call of the store; zero means 250 milliseconds. It does
	// not apply to a Memory, whose calls do not block.
	StoreTimeout time.Duration
	// FinishTimeout is how long a response is delayed, over several attempts, while the
	// store fails to accept it; zero means 2 seconds. After that the client gets the
	// response, and attempts to store it go on in the background until the store accepts
	// it, but for TTL at most.
	FinishTimeout time.Duration
	// DangerouslyFailOpen executes requests without protection while the store fails.
	// They are counted, and their responses carry "Idempotency-Status: ignored". By
	// default such requests get 503.
	DangerouslyFailOpen bool

	// OnError is called for failures of the store, lost claims, responses that the store
	// has no room for, and panics of the other functions of this Config but Owner and Route,
	// which end the request as those of a handler do. It is called on any goroutine.
	// Responses that a Memory has evicted are reported together, at most once a second. If
	// several attempts to store one result fail, OnError is called for the first failure,
	// and again if the result is given up. If several renewals fail together, it is called
	// once. The context is that of the request, or of one of the requests. Nil means that
	// failures are logged to [log/slog.Default], at most one line a second. A panic of
	// OnError is logged and goes no further.
	OnError func(ctx context.Context, err error)
	// OnResult is called once for each request with a key, before its handler runs or its
	// response is sent, on the goroutine of the request, which waits for it. The context is
	// that of the request, so that [usher.PrincipalFrom] finds the caller. A panic is
	// reported to OnError, and changes nothing. Nil costs nothing.
	OnResult func(ctx context.Context, e Event)
	// OnChange is an audit log: it is called for each call of [Middleware.Lookup],
	// [Middleware.Resolve] and [Middleware.Delete], with the context of the call, and for
	// each call of Resolve, with the context of the request. It is called on the goroutine
	// of the call, which waits for it. A panic is reported to OnError, and changes nothing.
	OnChange func(ctx context.Context, c Change)
	// MeterProvider provides the counters usher.idempotency.requests, by
	// usher.idempotency.result, usher.idempotency.claims, by usher.idempotency.end, and
	// usher.idempotency.evictions, and measures the calls of Store as
	// usher.store.operation.duration. Nil means the global provider.
	MeterProvider metric.MeterProvider
}

const (
	defaultHeader       = "Idempotency-Key"
	defaultReplayHeader = "Idempotency-Replayed"
	statusHeader        = "Idempotency-Status"

	// maxSize bounds MaxBody and MaxResponse, so that lengths fit into a record.
	maxSize = 1 << 30
)

// withDefaults returns a copy of c with every default filled in, and all faults of c.
func (c Config) withDefaults() (Config, error) {
	faults := config.Of[usher.ConfigError]("idempotency.Config")
	faults.If(c.Header != "" && !httptoken.Valid(c.Header), "Header", "must be the name of a header field")
	faults.If(c.ReplayHeader != "" && !httptoken.Valid(c.ReplayHeader), "ReplayHeader", "must be the name of a header field")
	c.Header = textproto.CanonicalMIMEHeaderKey(cmp.Or(c.Header, defaultHeader))
	c.ReplayHeader = textproto.CanonicalMIMEHeaderKey(cmp.Or(c.ReplayHeader, defaultReplayHeader))
	c.Methods = slices.Clone(c.Methods)
	if len(c.Methods) == 0 {
		c.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	for i, name := range c.Methods {
		field := fmt.Sprintf("Methods[%d]", i)
		if reason := method.Fault(name); reason != "" {
			faults.Add(field, reason)
		} else {
			faults.If(method.Safe(name) || name == http.MethodConnect, field, "must be a method that changes something")
		}
	}
	for i, name := range c.FingerprintHeaders {
		name = textproto.CanonicalMIMEHeaderKey(name)
		field := fmt.Sprintf("FingerprintHeaders[%d]", i)
		faults.If(!httptoken.Valid(name), field, "must be the name of a header field")
		if reason := unfitField(name, c.Header); reason != "" {
			faults.Add(field, reason)
		}
	}
	c.FingerprintHeaders = listedFields(c.FingerprintHeaders)
	c.KeepHeaders = slices.Clone(c.KeepHeaders)
	for i, name := range c.KeepHeaders {
		name = textproto.CanonicalMIMEHeaderKey(name)
		field := fmt.Sprintf("KeepHeaders[%d]", i)
		faults.If(!httptoken.Valid(name), field, "must be the name of a header field")
		faults.If(neverStored(name, http.StatusOK), field, "must not be "+name+", which belongs to a single exchange")
		faults.If(name == "Retry-After", field, "must not be Retry-After, which is stored with a success or a redirect anyway, and never with an error")
	}
	faults.If(c.Documentation != "" && !documents(c.Documentation), "Documentation", "must be an absolute http or https URL without a fragment")
	faults.If(c.MaxBody < 0 || c.MaxBody > maxSize, "MaxBody", "must be 0 to 1 GiB")
	faults.If(c.MaxResponse < 0 || c.MaxResponse > maxSize, "MaxResponse", "must be 0 to 1 GiB")
	faults.If(c.Wait < 0 && c.Wait != NoWait, "Wait", "must be NoWait or not negative")
	faults.If(c.MaxWaiters < 0, "MaxWaiters", config.NotNegative)
	c.MaxBody = cmp.Or(c.MaxBody, 1<<20)
	c.MaxResponse = cmp.Or(c.MaxResponse, 1<<20)
	c.Wait = cmp.Or(c.Wait, 5*time.Second)
	c.MaxWaiters = cmp.Or(c.MaxWaiters, 1000)
	for _, d := range []struct {
		field    string
		value    *time.Duration
		standard time.Duration
	}{
		{"BodyTimeout", &c.BodyTimeout, 30 * time.Second},
		{"DisconnectTimeout", &c.DisconnectTimeout, 60 * time.Second},
		{"TTL", &c.TTL, 24 * time.Hour},
		{"Lease", &c.Lease, 30 * time.Second},
		{"StoreTimeout", &c.StoreTimeout, 250 * time.Millisecond},
		{"FinishTimeout", &c.FinishTimeout, 2 * time.Second},
		{"ResolveTimeout", &c.ResolveTimeout, 10 * time.Second},
	} {
		faults.If(*d.value < 0, d.field, config.NotNegative)
		*d.value = cmp.Or(*d.value, d.standard)
	}
	faults.If(c.TTL >= 0 && c.TTL < c.Lease, "TTL", "must not be shorter than Lease")
	faults.If(c.Lease >= 0 && c.Lease/4 < c.StoreTimeout, "Lease", "must be at least four times StoreTimeout, to be renewed in time")
	return c, faults.Err()
}
