package usher

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// An Authenticator judges one kind of credential.
//
// Authenticate returns the principal of a good credential; an error that
// matches [ErrNoCredential] if r carries none of its kind; an [*Error] for a
// credential that is refused (401), to which [Authenticate] adds the challenges
// if it has none; and any other error if it could not judge, which is answered
// with 503, never with 401. It must be safe for concurrent use and must not keep
// or change r.
//
// Authenticators that also implement [Detector], [CarrierLister] or [UseRecorder]
// get more out of [Authenticate].
type Authenticator interface {
	Authenticate(r *http.Request) (*Principal, error)
}

// ErrNoCredential is what an [Authenticator] answers to a request without a
// credential of its kind.
var ErrNoCredential = errors.New("usher: no credential")

// A Detector is an [Authenticator] that can tell where a request carries a
// credential for it without judging it, which lets several authenticators share
// a route without verifying anything twice.
type Detector interface {
	Authenticator
	// Detect returns the carrier of the credential, the canonical name of a
	// header field as a rule, or "" if there is none. It reports certain if the
	// credential has the shape that only this authenticator issues; a carrier
	// that several share, such as Authorization, goes to the one that is certain.
	Detect(r *http.Request) (carrier string, certain bool)
	// Challenge is the value for WWW-Authenticate that asks for a credential of
	// this kind (RFC 9110, section 11.6.1), or "".
	Challenge() string
}

// A CarrierLister is an [Authenticator] that can name the header fields by which a
// cache tells its callers apart. The responses of any other one have Vary: *, so
// that no shared cache gives one to a second request.
type CarrierLister interface {
	Authenticator
	// Carriers returns the names of all request header fields that may carry a
	// credential for it, always the same. A query parameter is not among them, as
	// caches tell URLs apart; "*" stands for what no cache sees, such as the
	// certificate of a client.
	Carriers() []string
}

// A UseRecorder is an [Authenticator] that wants to know which calls went
// through. RecordUse is called for what it has accepted itself, when the handler
// has returned or panicked, unless the request was refused on its way by [Fail]
// with 401, 403 or 429. The handler may have changed r, so what r carries by then
// says nothing about who called: p does.
type UseRecorder interface {
	Authenticator
	RecordUse(r *http.Request, p *Principal)
}

// Optional returns an authenticator that lets a request without a credential
// pass as anonymous. A credential that is present must still be good. Among
// several authenticators it has this effect only if all of them are optional.
func Optional(a Authenticator) Authenticator {
	return optional{newSelection(false, a)}
}

// Precedence returns an authenticator for requests that may carry several
// credentials: the first of list for which the request carries one decides,
// alone and finally. If it refuses, the request is refused, whatever else it
// carries. Where several of list share that carrier, one that is certain of the
// credential goes before one that is not.
//
// Without Precedence, two credentials in one request are refused. An
// authenticator that is no [Detector] is asked twice.
func Precedence(list ...Authenticator) Authenticator {
	return newSelection(true, list...)
}

var (
	// errAnonymous is what Optional answers instead of ErrNoCredential. An
	// authenticator that answers nothing at all is never taken for it.
	errAnonymous = errors.New("usher: anonymous")
	// errAmbiguous is what a selection answers to two credentials in one request.
	errAmbiguous = errors.New("usher: more than one credential")
)

type optional struct{ selection }

func (o optional) Authenticate(r *http.Request) (*Principal, error) {
	p, _, err := o.judge(r)
	return p, err
}

func (o optional) judge(r *http.Request) (*Principal, UseRecorder, error) {
	p, by, err := o.selection.judge(r)
	if errors.Is(err, ErrNoCredential) {
		return nil, nil, errAnonymous
	}
	return p, by, err
}

// A selection is several authenticators of which one judges each request.
type selection struct {
	list []Detector
	// ranked: the first that finds a credential decides. Otherwise a second
	// carrier with a credential makes the request ambiguous.
	ranked bool
	// optional: a request without a credential is anonymous.
	optional bool
}

func newSelection(ranked bool, list ...Authenticator) selection {
	s := selection{ranked: ranked, optional: len(list) > 0}
	for _, a := range list {
		if _, ok := a.(optional); !ok {
			s.optional = false
		}
		switch a := a.(type) {
		case nil:
			panic("usher: nil Authenticator") //nolint:forbidigo // documented at Authenticate
		case Detector:
			s.list = append(s.list, a)
		default:
			s.list = append(s.list, prober{a, fmt.Sprintf("authenticator %d", len(s.list))})
		}
	}
	return s
}

func (s selection) Authenticate(r *http.Request) (*Principal, error) {
	p, _, err := s.judge(r)
	return p, err
}

// judge also returns who has judged, if that is a [UseRecorder]. Once the handler
// has run nobody can tell any more: it may have changed the credentials in r.
func (s selection) judge(r *http.Request) (p *Principal, by UseRecorder, err error) {
	d, _, _, err := s.choose(r)
	if err != nil {
		return nil, nil, err
	}
	switch d := d.(type) {
	case selection:
		return d.judge(r)
	case optional:
		return d.judge(r)
	case prober:
		by, _ = d.Authenticator.(UseRecorder)
	default:
		by, _ = d.(UseRecorder)
	}
	p, err = d.Authenticate(r)
	return p, by, err
}

// choose returns the detector that shall judge r, and what it detected.
func (s selection) choose(r *http.Request) (chosen Detector, carrier string, certain bool, err error) {
	if len(s.list) == 1 {
		return s.list[0], "", false, nil
	}
	for _, d := range s.list {
		c, sure := d.Detect(r)
		switch {
		case c == "":
		case chosen == nil, c == carrier && sure && !certain:
			chosen, carrier, certain = d, c, sure
		case c != carrier && !s.ranked:
			return nil, carrier, false, errAmbiguous
		}
	}
	switch {
	case chosen != nil:
		return chosen, carrier, certain, nil
	case s.optional:
		return nil, "", false, errAnonymous
	default:
		return nil, "", false, ErrNoCredential
	}
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

// Carriers returns those of all: whichever of them judges, a request that carries
// another credential might have got another response.
func (s selection) Carriers() []string {
	var all []string
	for _, d := range s.list {
		for _, name := range carriersOf(d) {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

func (s selection) Detect(r *http.Request) (carrier string, certain bool) {
	if len(s.list) == 1 {
		return s.list[0].Detect(r)
	}
	_, carrier, certain, _ = s.choose(r)
	return carrier, certain
}

// Challenge returns the challenges of all, as one list.
func (s selection) Challenge() string { return strings.Join(s.challenges(), ", ") }

// challenges returns each different challenge once. One field line for each is
// easier on clients than a list in one line.
func (s selection) challenges() []string {
	var all []string
	add := func(c string) {
		if c != "" && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	for _, d := range s.list {
		switch d := d.(type) {
		case selection:
			for _, c := range d.challenges() {
				add(c)
			}
		case optional:
			for _, c := range d.challenges() {
				add(c)
			}
		default:
			add(d.Challenge())
		}
	}
	return all
}

// A prober detects by judging, for authenticators that cannot detect.
type prober struct {
	Authenticator
	carrier string
}

func (p prober) Detect(r *http.Request) (carrier string, certain bool) {
	if _, err := p.Authenticate(r); errors.Is(err, ErrNoCredential) {
		return "", false
	}
	return p.carrier, false
}

func (p prober) Carriers() []string { return carriersOf(p.Authenticator) }

func (prober) Challenge() string { return "" }
