package jwtauth

import (
	"errors"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/bearer"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/httptoken"
)

// detect returns the header field that carries a token, and its text if it is exactly one
// token. If both fields may carry one, detect returns Cookie: the credential in the other
// field may be for another authenticator, and must not hide the cookie.
func (a *authenticator) detect(r *http.Request) (carrier, text string) {
	text, _, v := a.extract(r)
	if v == Missing {
		return "", ""
	}
	if found, err := a.inField(r.Header); v != Ambiguous && (found != "" || err != nil) {
		return a.field, text
	}
	return "Cookie", text
}

// newField returns the name of the field that carries tokens. It adds the faults of the
// Header of a Config to f.
func newField(f config.Faults[usher.ConfigError], header string) string {
	if header == "" {
		return authorization
	}
	f.If(!httptoken.Valid(header), "Header", "must be the name of a header field")
	header = http.CanonicalHeaderKey(header)
	switch header {
	case authorization, "Host":
		f.Add("Header", "must not be "+header+"; a Verifier without Header reads Authorization")
	case "Cookie":
		f.Add("Header", "must not be Cookie; set Cookie to the name of the cookie")
	case "X-Amzn-Oidc-Data":
		f.Add("Header", "must not be X-Amzn-Oidc-Data, because it carries no JSON Web Token: AWS pads its segments, "+
			"which RFC 7515 forbids; X-Amzn-Oidc-Accesstoken carries the token of the issuer")
	}
	return header
}

const authorization = "Authorization"

// inField returns the token in the header field, or "" if there is none.
func (a *authenticator) inField(h http.Header) (string, error) {
	if a.field == authorization {
		return bearer.Token(h, "Bearer", a.exactBearer)
	}
	return bearer.Header(h, a.field)
}

// extract returns the text of the token in r and the verdict Accepted, or another
// verdict. If tokens arrived in cookies, cookies has all of them.
func (a *authenticator) extract(r *http.Request) (text string, cookies []string, v Verdict) {
	text, err := a.inField(r.Header)
	v = Missing
	switch {
	case err != nil:
		v = Malformed
	case text != "":
		v = Accepted
	}
	if a.cookie == "" || len(r.Header["Cookie"]) == 0 {
		return text, nil, v
	}
	switch cookies = bearer.Cookies(r, a.cookie, bearer.MaxCookies+1); {
	case len(cookies) == 0:
		return text, nil, v
	case v != Missing:
		return "", nil, Ambiguous
	case len(cookies) > bearer.MaxCookies:
		return "", nil, Malformed
	default:
		return cookies[0], cookies, Accepted
	}
}

// chooseCookie decides between several cookies of one name. A browser sends two after
// their path or domain was changed, and another host of the domain may plant one. So the
// only accepted token counts, or the latest if all accepted ones are of one caller;
// tokens of two callers are refused. If none is accepted, the verdict on the first one
// counts.
func (a *authenticator) chooseCookie(r *http.Request, cookies []string) (best verified, v Verdict, err error) {
	for n, text := range cookies {
		found, verdict, cause := a.decide(r.Context(), r, text)
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
