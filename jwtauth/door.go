package jwtauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/bearer"
	"github.com/usher-go/usher/internal/telemetry"
)

// A door is what stands between a request and the one who judges its token, and
// is the same whoever that is.
type door struct {
	exact       bool
	cookie      string
	challenge   string
	answers     answers
	revocations Revocations
	check       func(context.Context, *Token) error
	confirm     func(*http.Request, *Token) error
	principal   func(*Token, usher.Principal) usher.Principal
	decisions   *telemetry.Decisions
}

// A doorConfig is the part of a Config that describes a door.
type doorConfig struct {
	path                    string // of the Config, in errors
	cookie, realm, metadata string
	exact                   bool
	revocations             Revocations
	patience                time.Duration // with the revocations
	answers                 map[Verdict]*usher.Error
	check                   func(context.Context, *Token) error
	confirm                 func(*http.Request, *Token) error
	principal               func(*Token, usher.Principal) usher.Principal
	meters                  metric.MeterProvider
	counter, attribute      string
}

func newDoor(c doorConfig) (d door, errs []error) {
	d = door{
		exact:       c.exact,
		cookie:      c.cookie,
		revocations: guardRevocations(c.revocations, orDefault(max(c.patience, 0), defaultRevocationTimeout)),
		check:       c.check,
		confirm:     c.confirm,
		principal:   c.principal,
	}
	if c.cookie != "" && (&http.Cookie{Name: c.cookie, Value: "x"}).Valid() != nil {
		errs = append(errs, &usher.ConfigError{Field: c.path + ".Cookie", Reason: "is not the name of a cookie"})
	}
	if c.metadata != "" {
		if u, err := url.Parse(c.metadata); err != nil || u.Scheme != "https" || u.Host == "" {
			errs = append(errs, &usher.ConfigError{Field: c.path + ".ResourceMetadata", Reason: "must be a URL with https"})
		}
	}
	challenge := func(code string) string {
		return usher.Challenge("Bearer", "realm", c.realm, "error", code, "resource_metadata", c.metadata)
	}
	d.challenge = challenge("")
	var more []error
	d.answers, more = newAnswers(c.answers, c.path+".Answers", challenge)
	d.decisions = telemetry.NewDecisions(telemetry.Config{
		MeterProvider: c.meters,
		Scope:         "github.com/usher-go/usher/jwtauth",
		Counter:       c.counter,
		Description:   "Requests by the verdict on their token.",
		Attribute:     c.attribute,
		Outcomes:      verdictNames[:],
	})
	return d, append(errs, more...)
}

// find returns the text of the token in r and the verdict Accepted, or another. Where
// there are several cookies, texts holds what is in each.
func (d *door) find(r *http.Request) (text string, texts []string, v Verdict) {
	text, err := bearer.Token(r.Header, d.exact)
	v = Missing
	switch {
	case err != nil:
		v = Malformed
	case text != "":
		v = Accepted
	}
	if d.cookie == "" || len(r.Header["Cookie"]) == 0 {
		return text, nil, v
	}
	switch texts = bearer.Cookies(r, d.cookie, bearer.MaxCookies+1); {
	case len(texts) == 0:
		return text, nil, v
	case v != Missing:
		return "", nil, Ambiguous
	case len(texts) > bearer.MaxCookies:
		return "", nil, Malformed
	default:
		return texts[0], texts, Accepted
	}
}

// detect returns the carrier that holds a token, and the token if it is one.
func (d *door) detect(r *http.Request) (carrier, text string) {
	if text, err := bearer.Token(r.Header, d.exact); text != "" || err != nil {
		return "Authorization", text
	}
	text, _, v := d.find(r)
	if v == Missing {
		return "", ""
	}
	return "Cookie", text
}

// Carriers implements [usher.CarrierLister].
func (d *door) Carriers() []string {
	if d.cookie != "" {
		return []string{"Authorization", "Cookie"}
	}
	return []string{"Authorization"}
}

// A verified token is one that was judged, with the principal made of it.
type verified struct {
	token     *Token
	principal *usher.Principal
	issuer    *trusted // nil after an introspection
}

// A judge tells what a token is worth.
type judge interface {
	judge(ctx context.Context, text string, now time.Time) (verified, Verdict, error)
}

// authenticate answers for j as [usher.Authenticator] asks.
func (d *door) authenticate(r *http.Request, j judge) (*usher.Principal, error) {
	ctx := r.Context()
	var (
		found verified
		err   error
	)
	text, texts, v := d.find(r)
	switch {
	case len(texts) > 1:
		found, v, err = d.choose(r, texts, j)
	case v == Accepted:
		found, v, err = d.consider(ctx, r, text, j)
	}
	d.decisions.Record(ctx, int(v))
	switch v {
	case Accepted:
		return found.principal, nil
	case Missing:
		return nil, usher.ErrNoCredential
	default:
		return nil, d.answers.to(v, err)
	}
}

// verify judges a token that came in no request.
func (d *door) verify(ctx context.Context, text string, j judge) (*Token, error) {
	found, v, err := d.consider(ctx, nil, text, j)
	d.decisions.Record(ctx, int(v))
	if v != Accepted {
		return nil, d.answers.to(v, err)
	}
	return found.token, nil
}

// consider judges a token that came with r, or in no request if that is nil. What j
// may remember, the confirmation, revocations and the check are asked for each time.
func (d *door) consider(ctx context.Context, r *http.Request, text string, j judge) (verified, Verdict, error) {
	found, v, err := j.judge(ctx, text, time.Now())
	if v == Accepted {
		v, err = d.admit(ctx, r, found)
	}
	if v == Unavailable && errors.Is(ctx.Err(), context.Canceled) {
		v = Abandoned
	}
	return found, v, err
}

// choose judges the tokens in several cookies of one name. A browser sends two when
// their path or domain was changed, and another host of the domain may plant one. So
// the only one that is accepted counts, or the latest of one caller; those of two
// callers are refused. If none is accepted, the first says why.
func (d *door) choose(r *http.Request, texts []string, j judge) (best verified, v Verdict, err error) {
	for n, text := range texts {
		found, verdict, cause := d.consider(r.Context(), r, text, j)
		switch {
		case verdict == Unavailable, verdict == Abandoned:
			return verified{}, verdict, cause
		case n == 0, v != Accepted && verdict == Accepted:
			best, v, err = found, verdict, cause
		case verdict != Accepted:
		case found.principal.ID != best.principal.ID:
			return verified{}, Malformed, errSeveralCallers
		case found.token.IssuedAt.After(best.token.IssuedAt):
			best = found
		}
	}
	return best, v, err
}

var errSeveralCallers = errors.New("cookies of one name with the tokens of two callers")

func (d *door) admit(ctx context.Context, r *http.Request, found verified) (Verdict, error) {
	t := found.token
	if t.bound {
		if d.confirm == nil || r == nil {
			return Unconfirmed, nil
		}
		if err := d.confirm(r, t); err != nil {
			return refusal(err, Unconfirmed), err
		}
	}
	revocations := [2]Revocations{d.revocations}
	if found.issuer != nil {
		revocations[1] = found.issuer.revocations
	}
	for _, list := range revocations {
		if list == nil {
			continue
		}
		switch revoked, err := list.Revoked(ctx, t); {
		case err != nil:
			return Unavailable, fmt.Errorf("revocations: %w", err)
		case revoked:
			return Revoked, nil
		}
	}
	if d.check != nil {
		if err := d.check(ctx, t); err != nil {
			return refusal(err, Unavailable), err
		}
	}
	return Accepted, nil
}

// refusal returns the verdict for an error of a callback: Denied if the error is a
// response to the client, Unavailable if it is one of the server, else otherwise.
func refusal(err error, otherwise Verdict) Verdict {
	var e *usher.Error
	switch {
	case !errors.As(err, &e) || e == nil:
		return otherwise
	case e.Status >= 400 && e.Status <= 499:
		return Denied
	default:
		return Unavailable
	}
}

// principalOf returns who presents t, or nil if that cannot be told.
func (d *door) principalOf(t *Token, kind usher.Kind) *usher.Principal {
	p := usher.Principal{ID: t.qualified(), Kind: kind, Scopes: t.Scopes}
	if d.principal != nil {
		p = d.principal(t, p)
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
