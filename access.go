package usher

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/usher-go/usher/internal/exchange"
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
	// Danger: Shadow protects nothing. A request that Authenticate would refuse goes on as it
	// came, whatever credential it carries, and also if the credential could not be checked:
	// with the principal of an outer Authenticate or of [WithPrincipal], if there is one, else
	// as an anonymous one. So a handler must not take a request for authenticated because it
	// has arrived, nor a principal for one that this Authenticate admits. Limits count an
	// anonymous request by its address, and idempotency runs it as one without a key, unless
	// Config.Owner names its owner. What else needs a principal still refuses it: a Require
	// that is not in Shadow, or the management API of package apikey. A request that Require
	// would refuse goes on as it is, with its principal.
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
	n := enforcer{access: a, failures: report.New("usher: Access", nil)}
	if a.Shadow {
		n.decisions = counter.Decisions(a.MeterProvider, inShadow.Bool(true))
	} else {
		n.decisions = counter.Decisions(a.MeterProvider)
	}
	return n
}

// report counts and notes the decision about a request, whose principal is p unless p is nil.
// In Shadow it does nothing and returns false if an outer middleware in Shadow would have
// refused the request.
func (n *enforcer) report(ctx context.Context, outcome int, p *Principal) bool {
	if n.access.Shadow && exchange.Shadowed(ctx) {
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
