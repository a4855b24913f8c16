package usher

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/telemetry"
)

// An Access makes the middlewares that decide who may call, [Access.Authenticate] and
// [Access.Require], with choices for operators. With the zero value they are [Authenticate]
// and [Require].
type Access struct {
	// MeterProvider counts decisions as usher.authentication.requests and
	// usher.authorization.requests; nil means the global one. The attributes
	// usher.authentication.result and usher.authorization.result, which a span that is
	// being recorded gets too, say how each request was decided.
	MeterProvider metric.MeterProvider

	// Shadow admits every request, and reports what would have been refused: counters,
	// spans and OnRefusal are as without Shadow, except that everything that is counted or
	// noted also has the attribute usher.shadow with the value true. A span has
	// usher.error.code only if something else has refused the request. So a server that
	// already has clients can find out which of them would fail, before any does.
	//
	// Danger: Shadow protects nothing. A request that Authenticate would refuse goes on as
	// an anonymous one, whatever credential it carries, and also if the credential could not
	// be checked. So a handler must not take a request for authenticated because it has
	// arrived; it finds no principal, and so do limits and idempotency, which count such a
	// request by its address or not at all. A Require inside that is not in Shadow still
	// refuses the request. A request that Require would refuse goes on as it is, with its
	// principal.
	//
	// Other middlewares in Shadow that such a request reaches report nothing more about it,
	// as it would not have reached them.
	Shadow bool

	// OnRefusal, if not nil, is called once for each refusal, before the response: for a
	// status of 401 or 403, for the 404 of another owner, and for the 503 of a credential
	// that could not be checked. It is not called if the client has disconnected.
	//
	// The error has the code and the private cause, and must not be changed. In the context
	// of the request, envelope.RequestID finds its ID, and [PrincipalFrom] who was refused by
	// Require. The pattern of the request is known inside the router, and with [Pattern] also
	// outside.
	//
	// Clients can cause any number of refusals: limit what OnRefusal logs. The response
	// waits for it. OnRefusal must be safe for concurrent use. A panic is logged and changes
	// no response.
	OnRefusal func(r *http.Request, e *Error)

	// TracePrincipal notes on the current span, if it is being recorded, who calls: user.id
	// with the [Principal.ID], usher.principal.kind, and usher.principal.owner if there is
	// one. These are never on a metric, and the span of an anonymous request has none of
	// them. IDs may be personal data, so protect the store of the traces.
	TracePrincipal bool
}

// Authenticate is the function [Authenticate] with the choices of a.
func (a Access) Authenticate(list ...Authenticator) Middleware {
	return newAuthentication(newEnforcer(a, authenticationRequests), list)
}

// Require is the function [Require] with the choices of a.
func (a Access) Require(want Requirement) Middleware {
	return newRequirement(newEnforcer(a, authorizationRequests), want)
}

// An enforcer is what Authenticate and Require have in common.
type enforcer struct {
	access    Access
	decisions *telemetry.Decisions
	failures  *report.Reporter // for panics of OnRefusal
}

func newEnforcer(a Access, counter *telemetry.Instrument) enforcer {
	var fixed []attribute.KeyValue
	if a.Shadow {
		fixed = append(fixed, inShadow.Bool(true))
	}
	return enforcer{
		access:    a,
		decisions: counter.Decisions(a.MeterProvider, fixed...),
		failures:  report.New("usher: Access", nil),
	}
}

// report counts and notes the decision about a request, whose principal is p unless p is nil.
// In Shadow it does nothing and returns false if an outer middleware in Shadow would have
// refused the request.
func (n *enforcer) report(ctx context.Context, outcome int, p *Principal) bool {
	if n.access.Shadow && isShadowed(ctx) {
		return false
	}
	n.decisions.Count(ctx, outcome)
	n.decisions.Note(ctx, outcome)
	if n.access.TracePrincipal && p != nil {
		notePrincipal(ctx, p)
	}
	return true
}

// reportRefusal reports that r is refused with e.
func (n *enforcer) reportRefusal(r *http.Request, outcome int, p *Principal, e *Error) {
	if !n.report(r.Context(), outcome, p) {
		return
	}
	if n.access.OnRefusal == nil || e.status() == StatusClientClosedRequest {
		return
	}
	if err := guard.Run(func() error { n.access.OnRefusal(r, e); return nil }); err != nil {
		n.failures.Error(r.Context(), err)
	}
}

func notePrincipal(ctx context.Context, p *Principal) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(userID.String(p.ID), principalKind.String(string(p.Kind)))
	if p.Owner != "" {
		span.SetAttributes(principalOwner.String(p.Owner))
	}
}

// shadowed is the key of a context value that marks a request that a middleware in Shadow
// would have refused.
type shadowed struct{}

func isShadowed(ctx context.Context) bool { return ctx.Value(shadowed{}) != nil }

// shadow returns a copy of r that is marked as one that would have been refused.
func shadow(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), shadowed{}, true))
}
