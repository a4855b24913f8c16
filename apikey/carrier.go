package apikey

import (
	"cmp"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/bearer"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/httptoken"
)

// A Carrier is a place in a request that may carry a key. Exactly one of Header, Scheme
// and DangerousQueryParameter is set.
type Carrier struct {
	// Header is a header field whose value is the key, such as X-API-Key.
	Header string
	// Scheme is the scheme of "Authorization: <Scheme> <key>", such as Bearer. A field
	// with another scheme carries no key.
	Scheme string
	// ExactScheme accepts Scheme only in the case in which it is spelled here; RFC 9110
	// allows any.
	ExactScheme bool
	// DangerousQueryParameter is a query parameter whose value is the key. URLs end up in
	// logs, histories and Referer fields, and the keys with them.
	DangerousQueryParameter string
}

const authorization = "Authorization"

// carriers are the places in a request that may carry a key, those in the field
// Authorization last.
type carriers []Carrier

// newCarriers returns the carriers of a [Config].
func newCarriers(list []Carrier, faults config.Faults[usher.ConfigError]) carriers {
	if len(list) == 0 {
		return carriers{{Header: "X-Api-Key"}}
	}
	all := make(carriers, 0, len(list))
	for i, c := range list {
		faults := faults.In(fmt.Sprintf("Carriers[%d]", i))
		faults.If(set(c.Header)+set(c.Scheme)+set(c.DangerousQueryParameter) != 1,
			"Header", "must be set, or Scheme or DangerousQueryParameter, and no two of them")
		header := textproto.CanonicalMIMEHeaderKey(c.Header)
		faults.If(c.Header != "" && !httptoken.Valid(c.Header) || header == authorization || header == "Cookie",
			"Header", "must be the name of a header field other than Authorization and Cookie")
		c.Header = header
		faults.If(c.Scheme != "" && !httptoken.Valid(c.Scheme) || strings.EqualFold(c.Scheme, "Basic"),
			"Scheme", "must be the name of a scheme other than Basic")
		faults.If(c.ExactScheme && c.Scheme == "", "ExactScheme", "must not be set unless Scheme is")
		faults.If(slices.ContainsFunc(all, c.same), "Header", "must differ from the other carriers")
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b Carrier) int { return cmp.Compare(set(a.Scheme), set(b.Scheme)) })
	return all
}

// set returns 1 if s is not empty.
func set(s string) int { return min(len(s), 1) }

// same reports whether b is the same place as c.
func (c Carrier) same(b Carrier) bool {
	return c.Header == b.Header && strings.EqualFold(c.Scheme, b.Scheme) && c.DangerousQueryParameter == b.DangerousQueryParameter
}

// find returns what the carrier holds in r, "" if it is empty, or an error if that is not
// one credential.
func (c *Carrier) find(r *http.Request) (text string, err error) {
	switch {
	case c.Header != "":
		return bearer.Header(r.Header, c.Header)
	case c.Scheme != "":
		return bearer.Token(r.Header, c.Scheme, c.ExactScheme)
	}
	return queryValue(r.URL, c.DangerousQueryParameter)
}

// name returns the name of the carrier for [usher.Detector].
func (c *Carrier) name() string {
	switch {
	case c.Header != "":
		return c.Header
	case c.Scheme != "":
		return authorization
	}
	return "query parameter " + c.DangerousQueryParameter
}

// list returns the names of the header fields among the carriers.
func (all carriers) list() (names []string) {
	for i := range all {
		if name := all[i].name(); all[i].DangerousQueryParameter == "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// challenges returns the challenge for a request without a key, and that for one whose
// key is not valid.
func (all carriers) challenges(realm string) (missing, invalid string) {
	for _, c := range all {
		if c.Scheme != "" {
			missing = usher.Challenge(c.Scheme, "realm", realm)
			if strings.EqualFold(c.Scheme, "Bearer") {
				// RFC 6750, section 3.1.
				return missing, usher.Challenge(c.Scheme, "realm", realm, "error", usher.CodeInvalidToken)
			}
			return missing, missing
		}
	}
	missing = usher.Challenge("ApiKey", "realm", realm)
	return missing, missing
}

// find returns the text of the key in r and Accepted, or the verdict Missing, Malformed
// or Ambiguous.
func (all carriers) find(r *http.Request) (text string, v Verdict) {
	v = Missing
	for i := range all {
		found, err := all[i].find(r)
		text, v = join(text, v, found, err)
	}
	return text, v
}

// join combines the result of the carriers so far with what another one holds.
func join(text string, v Verdict, found string, err error) (string, Verdict) {
	switch {
	case found == "" && err == nil:
		return text, v
	case v != Missing:
		return "", Ambiguous
	case err != nil:
		return "", Malformed
	default:
		return found, Accepted
	}
}

// queryValue returns the value of a query parameter, or "".
func queryValue(u *url.URL, name string) (string, error) {
	const maxQuery = 8 << 10
	if !strings.Contains(u.RawQuery, name) {
		return "", nil
	}
	if len(u.RawQuery) > maxQuery {
		return "", bearer.ErrMalformed
	}
	switch values := u.Query()[name]; len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", bearer.ErrMalformed
}

// detect returns the first carrier that is not empty, and its text if it holds exactly
// one credential. Authorization is the last: its credential may be for another
// authenticator, and must not hide a key in another carrier.
func (all carriers) detect(r *http.Request) (carrier, text string) {
	for i := range all {
		if found, err := all[i].find(r); found != "" || err != nil {
			return all[i].name(), found
		}
	}
	return "", ""
}
