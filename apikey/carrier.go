package apikey

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/bearer"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/httptoken"
)

// A Carrier is a place in a request that may carry a key. Exactly one of Header, Scheme,
// BasicUser and DangerousQueryParameter is set. Carriers of the field Authorization are
// distinguished by what the field holds, so there may be several of them.
type Carrier struct {
	// Header is a header field whose value is the key, such as X-API-Key. For
	// Authorization, the value must be one word: a field with a scheme carries no key.
	Header string
	// Scheme is the scheme of "Authorization: <Scheme> <key>", such as Bearer or ApiKey. A
	// field with another scheme carries no key.
	Scheme string
	// ExactScheme accepts Scheme only in the case in which it is spelled here; RFC 9110,
	// section 11.1, allows any.
	ExactScheme bool
	// BasicUser is set if the key is the user name of the scheme Basic (RFC 7617), with an
	// empty password: curl -u <key>: https://api.example.
	BasicUser bool
	// DangerousQueryParameter is a query parameter whose value is the key. URLs end up in
	// logs, histories and Referer fields, and the keys with them.
	DangerousQueryParameter string
}

const authorization = "Authorization"

// A carrier is a Carrier with the canonical name of its header field, or "".
type carrier struct {
	Carrier
	field string
}

// carriers are the places in a request that may carry a key, those in the field
// Authorization last.
type carriers []carrier

// newCarriers returns the carriers of a [Config].
func newCarriers(list []Carrier, faults config.Faults[usher.ConfigError]) carriers {
	if len(list) == 0 {
		list = []Carrier{{Header: "X-API-Key"}}
	}
	all := make(carriers, 0, len(list))
	for i, given := range list {
		c := carrier{given, textproto.CanonicalMIMEHeaderKey(given.Header)}
		if c.Scheme != "" || c.BasicUser {
			c.field = authorization
		}
		c.check(all, faults.In(fmt.Sprintf("Carriers[%d]", i)))
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b carrier) int {
		return cmp.Compare(one(a.field == authorization), one(b.field == authorization))
	})
	return all
}

// check adds the faults of c, which follows others.
func (c *carrier) check(others carriers, faults config.Faults[usher.ConfigError]) {
	faults.If(one(c.Header != "")+one(c.Scheme != "")+one(c.BasicUser)+one(c.DangerousQueryParameter != "") != 1,
		"Header", "must be set, or one of Scheme, BasicUser and DangerousQueryParameter")
	faults.If(c.Header != "" && !httptoken.Valid(c.Header) || c.field == "Cookie",
		"Header", "must be the name of a header field other than Cookie")
	faults.If(c.Scheme != "" && !httptoken.Valid(c.Scheme), "Scheme", "must be the name of a scheme")
	faults.If(strings.EqualFold(c.Scheme, "Basic"), "Scheme", "must not be Basic; see BasicUser")
	faults.If(c.ExactScheme && c.Scheme == "", "ExactScheme", "must not be set unless Scheme is")
	faults.If(slices.ContainsFunc(others, c.same), "Header", "must not be a carrier that is listed before")
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// same reports whether b is the same place as c.
func (c *carrier) same(b carrier) bool {
	return c.field == b.field && strings.EqualFold(c.Scheme, b.Scheme) && c.BasicUser == b.BasicUser &&
		c.DangerousQueryParameter == b.DangerousQueryParameter
}

// find returns what the carrier holds in r, "" if it is empty, or an error if that is not
// one credential.
func (c *carrier) find(r *http.Request) (text string, err error) {
	switch {
	case c.Scheme != "":
		return bearer.Token(r.Header, c.Scheme, c.ExactScheme)
	case c.BasicUser:
		return basicUser(r.Header)
	case c.field == authorization:
		return bearer.Bare(r.Header)
	case c.field != "":
		return bearer.Header(r.Header, c.field)
	}
	return queryValue(r.URL.RawQuery, c.DangerousQueryParameter)
}

var strictBase64 = base64.StdEncoding.Strict()

// basicUser returns the user name of the scheme Basic. A password is malformed.
func basicUser(h http.Header) (string, error) {
	token, err := bearer.Token(h, "Basic", false)
	if token == "" || err != nil {
		return "", err
	}
	var encoded [(maxLength + 1 + 2) / 3 * 4]byte
	var decoded [len(encoded) / 4 * 3]byte
	if len(token) > len(encoded) {
		return "", bearer.ErrMalformed
	}
	n, err := strictBase64.Decode(decoded[:], encoded[:copy(encoded[:], token)])
	if err != nil {
		return "", bearer.ErrMalformed
	}
	// A colon ends the user name, so none but the last character may be one.
	user, ok := strings.CutSuffix(string(decoded[:n]), ":")
	if !ok || user == "" || strings.Contains(user, ":") {
		return "", bearer.ErrMalformed
	}
	return user, nil
}

// name returns the name of the carrier for [usher.Detector].
func (c *carrier) name() string {
	if c.field != "" {
		return c.field
	}
	return "query parameter " + c.DangerousQueryParameter
}

// list returns the names of the header fields among the carriers.
func (all carriers) list() (names []string) {
	for i := range all {
		if field := all[i].field; field != "" && !slices.Contains(names, field) {
			names = append(names, field)
		}
	}
	return names
}

// challenges returns the challenge for a request without a key, and that for one whose
// key is not valid.
func (all carriers) challenges(realm string) (missing, invalid string) {
	challenge := func(c carrier) string {
		switch {
		case c.Scheme != "":
			return usher.Challenge(c.Scheme, "realm", realm)
		case c.Header != "":
			return usher.Challenge("ApiKey", "realm", realm, "in", "header", "name", c.Header)
		case c.DangerousQueryParameter != "":
			return usher.Challenge("ApiKey", "realm", realm, "in", "query", "name", c.DangerousQueryParameter)
		}
		return usher.Challenge("Basic", "realm", cmp.Or(realm, "API")) // which RFC 7617 requires
	}
	rank := func(c carrier) int {
		return 3*one(c.Scheme == "") + one(c.DangerousQueryParameter != "") + 2*one(c.BasicUser)
	}
	c := slices.MinFunc(all, func(a, b carrier) int { return cmp.Compare(rank(a), rank(b)) })
	missing = challenge(c)
	if strings.EqualFold(c.Scheme, "Bearer") {
		// RFC 6750, section 3.1.
		return missing, usher.Challenge(c.Scheme, "realm", realm, "error", usher.CodeInvalidToken)
	}
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
