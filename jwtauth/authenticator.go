package jwtauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/origin"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/scope"
	"github.com/usher-go/usher/internal/telemetry"
)

// An authenticator is the common part of [Verifier] and [Introspection]: it finds the
// token in a request, has it verified, and decides about the request.
type authenticator struct {
	tokens      tokenVerifier
	field       string // that carries a token: Authorization, unless the Config names another
	exactBearer bool
	cookie      string
	origins     *http.CrossOriginProtection // of requests to which browsers or proxies add the token
	challenge   string
	refusals    *refusals
	revocations Revocations
	check       func(context.Context, *Token) error
	confirm     func(*http.Request, *Token) error
	principal   func(*Token, usher.Principal) usher.Principal
	decisions   *telemetry.Decisions
	reporter    *report.Reporter
}

// A tokenVerifier verifies the text of a token, or remembers that it has.
type tokenVerifier interface {
	verifyText(ctx context.Context, text string, now time.Time) (verified, Verdict, error)
}

// A verified is a verified token with the principal made from it.
type verified struct {
	token     *Token
	principal *usher.Principal
	issuer    *issuer // nil after an introspection
}

// options are the fields that [Config] and [IntrospectionConfig] share.
type options struct {
	source            string // of failures, for reports
	verifications     *telemetry.Instrument
	header, cookie    string
	trustedOrigins    []string
	realm, metadata   string
	scopes            []string // of the challenges
	exactBearer       bool
	revocations       Revocations
	revocationTimeout time.Duration
	errors            map[Verdict]*usher.Error
	check             func(context.Context, *Token) error
	confirm           func(*http.Request, *Token) error
	principal         func(*Token, usher.Principal) usher.Principal
	onError           func(context.Context, error)
	meters            metric.MeterProvider
}

// notAScope is the fault of text that should be a scope.
const notAScope = "must be one scope: visible ASCII without quotation mark and backslash"

// newAuthenticator returns an authenticator without its tokens, and adds the faults
// of o to f.
func newAuthenticator(f config.Faults[usher.ConfigError], o options) authenticator {
	field := newField(f, o.header)
	f.If(o.header != "" && o.exactBearer, "ExactBearer", "must not be set if Header is")
	f.If(o.cookie != "" && (&http.Cookie{Name: o.cookie, Value: "x"}).Valid() != nil, "Cookie", "must be a valid name of a cookie")
	if o.metadata != "" {
		checkPublicURL(f, "ResourceMetadata", o.metadata)
	}
	for n, s := range o.scopes {
		f.If(!scope.Valid(s), fmt.Sprintf("Scopes[%d]", n), notAScope)
	}
	f.If(o.revocationTimeout < 0, "RevocationTimeout", config.NotNegative)
	scopes := strings.Join(o.scopes, " ")
	challenge := func(code string) string {
		return usher.Challenge("Bearer", "realm", o.realm, "error", code, "scope", scopes, "resource_metadata", o.metadata)
	}
	return authenticator{
		field:       field,
		exactBearer: o.exactBearer,
		cookie:      o.cookie,
		origins:     origin.Trusting(f, "TrustedOrigins", o.trustedOrigins),
		challenge:   challenge(""),
		refusals:    newRefusals(f, o.errors, challenge),
		revocations: guardRevocations(o.revocations, o.revocationTimeout, o.meters),
		check:       o.check,
		confirm:     o.confirm,
		principal:   o.principal,
		reporter:    report.New(o.source, o.onError),
		decisions:   o.verifications.Decisions(o.meters),
	}
}

// Authenticate returns the principal of the token in r, an error that matches
// [usher.ErrNoCredential] if there is none, or an [*usher.Error] whose cause is the
// [Verdict]. A token that is remembered costs no allocation, unless it arrives in a
// cookie.
func (a *authenticator) Authenticate(r *http.Request) (*usher.Principal, error) {
	var (
		found verified
		err   error
	)
	text, cookies, v := a.extract(r)
	if len(cookies) > 0 || v == Accepted && a.field != authorization {
		if err = origin.Check(a.origins, r); err != nil {
			v = CrossOrigin
		}
	}
	switch {
	case v == CrossOrigin:
	case len(cookies) > 1:
		found, v, err = a.chooseCookie(r, cookies)
	case v == Accepted:
		found, v, err = a.decide(r.Context(), r, text)
	case v == Malformed:
		err = errField
	case v == Ambiguous:
		err = errTwoFields
	}
	err = a.conclude(r.Context(), v, err)
	return found.principal, err
}

// Verify verifies a token that did not arrive in a request. Its errors are those of
// Authenticate.
func (a *authenticator) Verify(ctx context.Context, token string) (*Token, error) {
	found, v, err := a.decide(ctx, nil, token)
	err = a.conclude(ctx, v, err)
	return found.token, err
}

// conclude records v, and returns the error for v with this cause.
func (a *authenticator) conclude(ctx context.Context, v Verdict, cause error) error {
	a.decisions.Record(ctx, int(v))
	switch v {
	case Accepted:
		return nil
	case Missing:
		return usher.ErrNoCredential
	case Denied:
		if e, ok := errors.AsType[*usher.Error](cause); ok && errors.Is(e, usher.ErrNoCredential) {
			// The request has a credential, so it must not count as anonymous.
			denied := *e
			return &denied
		}
		return cause
	case Unavailable:
		if cause != nil {
			a.reporter.Error(ctx, cause)
		}
	}
	return a.refusals.error(v, cause)
}

// Carriers implements [usher.CarrierLister].
func (a *authenticator) Carriers() []string {
	if a.cookie != "" {
		return []string{a.field, "Cookie"}
	}
	return []string{a.field}
}

// Challenge implements [usher.Detector].
func (a *authenticator) Challenge() string { return a.challenge }

// decide verifies a token that arrived in r, or without a request if r is nil. A
// verification may be remembered; confirmation, revocations and Check are consulted each
// time. Unless the token is accepted, found is empty.
func (a *authenticator) decide(ctx context.Context, r *http.Request, text string) (found verified, v Verdict, err error) {
	found, v, err = a.tokens.verifyText(ctx, text, time.Now())
	if v == Accepted {
		v, err = a.admit(ctx, r, found)
	}
	if v == Unavailable && exchange.Left(ctx) {
		v = Abandoned
	}
	if v != Accepted {
		found = verified{}
	}
	return found, v, err
}

// admit consults Confirm, Revocations and Check, which may refuse a valid token.
func (a *authenticator) admit(ctx context.Context, r *http.Request, found verified) (Verdict, error) {
	t := found.token
	if t.bound {
		switch {
		case a.confirm == nil:
			return Unconfirmed, errNoConfirm
		case r == nil:
			return Unconfirmed, errNoRequest
		}
		if err := a.confirm(r, t); err != nil {
			return callbackVerdict(err, Unconfirmed), err
		}
	}
	if v, err := revocationVerdict(ctx, a.revocations, t); v != Accepted {
		return v, err
	}
	if found.issuer != nil {
		if v, err := revocationVerdict(ctx, found.issuer.revocations, t); v != Accepted {
			return v, err
		}
	}
	if a.check != nil {
		if err := a.check(ctx, t); err != nil {
			return callbackVerdict(err, Unavailable), err
		}
	}
	return Accepted, nil
}

func revocationVerdict(ctx context.Context, r Revocations, t *Token) (Verdict, error) {
	if r == nil {
		return Accepted, nil
	}
	switch revoked, err := r.Revoked(ctx, t); {
	case err != nil:
		return Unavailable, fmt.Errorf("jwtauth: revocations: %w", err)
	case revoked:
		return Revoked, revokedToken(t)
	}
	return Accepted, nil
}

// callbackVerdict returns the verdict for an error of a callback: Denied if the error is
// a response to the client, Unavailable if it is a failure of the server, and otherwise
// fallback.
func callbackVerdict(err error, fallback Verdict) Verdict {
	var e *usher.Error
	switch {
	case !errors.As(err, &e) || e == nil:
		return fallback
	case e.Status >= 400 && e.Status <= 499:
		return Denied
	default:
		return Unavailable
	}
}

// newPrincipal returns the principal of t, or nil if that has no ID.
func (a *authenticator) newPrincipal(t *Token, kind usher.Kind) *usher.Principal {
	p := usher.Principal{ID: t.principalID(), Kind: kind, Scopes: t.Scopes}
	if a.principal != nil {
		p = a.principal(t, p)
	}
	p.Details = t
	if p.Kind == "" {
		p.Kind = kind
	}
	if p.ID == "" {
		return nil
	}
	return &p
}
