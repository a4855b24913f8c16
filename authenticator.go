package usher

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// An Authenticator verifies one kind of credential.
//
// Authenticate returns the principal of a valid credential; an error that matches
// [ErrNoCredential] if r carries no credential of its kind; an [*Error] for a credential
// that is refused (401), to which [Authenticate] adds the challenges if it has none; and
// any other error if it could not verify the credential, in which case the response is
// 503, never 401. It must be safe for concurrent use and must not keep or change r.
//
// [Authenticate] does more with an Authenticator that is also a [Detector] or a
// [CarrierLister].
type Authenticator interface {
	Authenticate(r *http.Request) (*Principal, error)
}

// ErrNoCredential is what an [Authenticator] returns for a request without a
// credential of its kind. [Fail] responds to it with 401 and [CodeMissingCredential].
var ErrNoCredential error = errMissing

var errMissing = newMissing(nil)

// isMissing reports whether err means that an authenticator has found no credential. An
// authenticator that refuses with an Error of its own has found one, even if the cause of
// that Error is the ErrNoCredential of another.
func isMissing(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e == errMissing
}

// A Detector reports whether, and in which header field, a request carries a credential
// of its kind, without verifying the credential. Detectors let several authenticators
// share a route.
type Detector interface {
	Authenticator
	// Detect returns the carrier of the credential, usually the canonical name of a
	// header field, or "" if there is none. It reports certain if the credential has a
	// form that only this authenticator issues. A carrier that several authenticators
	// share, such as Authorization, goes to the one that is certain. If several carriers
	// hold a credential, Detect returns one that other authenticators do not share: two
	// credentials are refused because their carriers differ.
	Detect(r *http.Request) (carrier string, certain bool)
	// Challenge returns the one challenge that asks for a credential of this kind, as a
	// value of WWW-Authenticate (RFC 9110, section 11.6.1), or "". It always returns the
	// same value. [Require] repeats the parameters of a Bearer challenge, such as realm
	// and resource_metadata, if the credential lacks a scope.
	Challenge() string
}

// A CarrierLister lists the header fields by which a cache can distinguish the
// authenticator's callers. With any other Authenticator, responses have Vary: *, so that
// no shared cache reuses them.
type CarrierLister interface {
	Authenticator
	// Carriers returns the names of all request header fields that may carry the
	// credential. It always returns the same names. Query parameters are not listed, as
	// caches distinguish URLs; "*" stands for what no cache sees, such as a client
	// certificate.
	Carriers() []string
}

// Optional returns an authenticator that admits a request without a credential as
// anonymous. A credential that is present must still be valid. Among several
// authenticators, Optional has this effect only if all of them are optional.
func Optional(a Authenticator) Authenticator {
	return optional{newSelection(false, a)}
}

// Precedence returns an authenticator for requests that may carry several credentials.
// Only the first of list for which the request carries a credential decides: if it
// refuses, the request is refused, whatever else it carries. So an authenticator with
// several carriers, such as a header field and Authorization, refuses a request in which
// two of them hold something, be it for another of list. If several of list share that
// carrier, one that is certain of the credential precedes one that is not.
//
// Without Precedence, two credentials in one request are refused.
func Precedence(list ...Authenticator) Authenticator {
	return newSelection(true, list...)
}

var (
	// errAnonymous is what Optional returns instead of ErrNoCredential. So an
	// authenticator that returns neither principal nor error is never mistaken for
	// Optional.
	errAnonymous = errors.New("usher: anonymous")
	// errAmbiguous is what a selection returns for two credentials in one request.
	errAmbiguous = errors.New("usher: more than one credential")
)

type optional struct{ selection }

func (o optional) Authenticate(r *http.Request) (*Principal, error) {
	p, _, err := o.verify(r)
	return p, err
}

func (o optional) verify(r *http.Request) (*Principal, *candidate, error) {
	p, by, err := o.selection.verify(r)
	if isMissing(err) {
		return nil, nil, errAnonymous
	}
	return p, by, err
}

// A selection is a list of authenticators, of which one verifies each request.
type selection struct {
	list []candidate
	// ranked means that the first authenticator that finds a credential decides.
	// Otherwise a second carrier with a credential makes the request ambiguous.
	ranked bool
	// optional means that a request without a credential is anonymous.
	optional bool
}

func newSelection(ranked bool, list ...Authenticator) selection {
	s := selection{ranked: ranked, optional: len(list) > 0}
	for _, a := range list {
		if _, ok := a.(optional); !ok {
			s.optional = false
		}
		s.list = append(s.list, newCandidate(a))
	}
	return s
}

// A candidate is an authenticator of a selection, and what does not change about it.
type candidate struct {
	Detector
	challenges []string
	// repeated are the challenges if [Require] repeats a parameter of them; else it is nil,
	// so that nothing is stored for a caller that the authenticator accepts.
	repeated *[]string
}

func newCandidate(a Authenticator) candidate {
	var c candidate
	switch a := a.(type) {
	case nil:
		panic("usher: nil Authenticator") //nolint:forbidigo // documented at Authenticate
	case selection:
		c.Detector, c.challenges = a, a.challenges()
	case optional:
		c.Detector, c.challenges = a, a.challenges()
	case Detector:
		c.Detector = a
		if challenge := a.Challenge(); challenge != "" {
			own := []string{challenge}
			c.challenges = own
			if params, _ := bearerParams(challenge); len(params) > 0 {
				c.repeated = &own
			}
		}
	default:
		c.Detector = newProber(a)
	}
	return c
}

func (s selection) Authenticate(r *http.Request) (*Principal, error) {
	p, _, err := s.verify(r)
	return p, err
}

// verify also returns the authenticator that has verified the credential.
func (s selection) verify(r *http.Request) (*Principal, *candidate, error) {
	if len(s.list) != 1 {
		p, by, err := s.choose(r).verify(r)
		// One that is optional has found that the credential is none of its own.
		if errors.Is(err, errAnonymous) && !s.optional {
			err = ErrNoCredential
		}
		return p, by, err
	}
	switch d := s.list[0].Detector.(type) { // the only one needs no detection
	case selection:
		return d.verify(r)
	case optional:
		return d.verify(r)
	default:
		return choice{by: &s.list[0]}.verify(r)
	}
}

// A choice is the authenticator that decides about a request.
type choice struct {
	by       *candidate // nil if err refuses the request
	carrier  string     // "" if the request carries no credential
	certain  bool
	more     bool // a [Precedence] has passed over another carrier
	optional bool

	verified bool // principal and err are the result of by
	p        *Principal
	err      error
}

func (c choice) verify(r *http.Request) (*Principal, *candidate, error) {
	if c.by == nil {
		return nil, nil, c.err
	}
	if !c.verified {
		c.p, c.err = c.by.Authenticate(r)
	}
	if c.optional && isMissing(c.err) {
		return nil, nil, errAnonymous
	}
	return c.p, c.by, c.err
}

// choose detects each credential of r once, and decides which one counts.
func (s selection) choose(r *http.Request) choice {
	var chosen choice
	for i := range s.list {
		d := &s.list[i]
		if _, ok := d.Detector.(*prober); ok && s.ranked && chosen.carrier != "" {
			continue // a prober shares no carrier, so its credential cannot count
		}
		c := detect(d, r)
		switch {
		case len(s.list) == 1:
			return c
		case c.carrier == "":
		case chosen.carrier == "":
			chosen = c
		case c.carrier == chosen.carrier:
			if c.certain && !chosen.certain {
				chosen, c = c, chosen
			}
			if c.more && !s.ranked {
				return choice{carrier: chosen.carrier, err: errAmbiguous}
			}
			chosen.more = chosen.more || c.more
		case s.ranked:
			chosen.more = true
		default:
			return choice{carrier: chosen.carrier, err: errAmbiguous}
		}
	}
	if chosen.carrier == "" {
		chosen.err = ErrNoCredential
		if s.optional {
			chosen.err = errAnonymous
		}
	}
	return chosen
}

// detect returns the choice for r as if by were the only authenticator.
func detect(by *candidate, r *http.Request) choice {
	switch d := by.Detector.(type) {
	case selection:
		return d.choose(r)
	case optional:
		c := d.choose(r)
		c.optional = true
		if c.carrier == "" {
			c.err = errAnonymous
		}
		return c
	case *prober:
		p, err := d.Authenticate(r)
		if isMissing(err) {
			return choice{err: ErrNoCredential}
		}
		return choice{by: by, carrier: d.carrier, verified: true, p: p, err: err}
	default:
		carrier, certain := d.Detect(r)
		if carrier == "" {
			return choice{err: ErrNoCredential}
		}
		return choice{by: by, carrier: carrier, certain: certain}
	}
}

func (s selection) Detect(r *http.Request) (carrier string, certain bool) {
	c := s.choose(r)
	return c.carrier, c.certain
}

// Carriers returns the carriers of all authenticators in the list: whichever of them
// decides, a request with another credential might have got another response.
func (s selection) Carriers() []string {
	var all []string
	for i := range s.list {
		for _, name := range carriersOf(s.list[i].Detector) {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// carriersOf returns the canonical names of the header fields that may carry a
// credential for a.
func carriersOf(a Authenticator) []string {
	l, ok := a.(CarrierLister)
	if !ok {
		return []string{"*"}
	}
	var names []string
	for _, name := range l.Carriers() {
		names = append(names, textproto.CanonicalMIMEHeaderKey(name))
	}
	return names
}

// Challenge returns the challenges of all authenticators, as one list.
func (s selection) Challenge() string { return strings.Join(s.challenges(), ", ") }

// challenges returns each distinct challenge once. One field line per challenge is easier
// for clients to parse than a list in one line. Some OAuth clients read only the first
// challenge, so those that name the metadata of the service (RFC 9728) come first.
func (s selection) challenges() []string {
	var first, others []string
	for i := range s.list {
		for _, c := range s.list[i].challenges {
			switch {
			case slices.Contains(first, c), slices.Contains(others, c):
			case namesMetadata(c):
				first = append(first, c)
			default:
				others = append(others, c)
			}
		}
	}
	return append(first, others...)
}

// A prober turns an authenticator that is not a [Detector] into one: it detects a
// credential by verifying it.
type prober struct {
	Authenticator
	carrier string // a made-up name that no other authenticator has
}

func newProber(a Authenticator) *prober {
	p := &prober{Authenticator: a}
	p.carrier = fmt.Sprintf("authenticator %p", p)
	return p
}

func (p *prober) Detect(r *http.Request) (carrier string, certain bool) {
	c := detect(&candidate{Detector: p}, r)
	return c.carrier, c.certain
}

func (p *prober) Carriers() []string { return carriersOf(p.Authenticator) }

func (*prober) Challenge() string { return "" }
