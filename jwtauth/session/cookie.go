package session

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// A Cookie configures the delivery of a token in a cookie. Scripts can never read the
// cookie (HttpOnly), and it expires with its token (Max-Age). Browsers keep no cookie whose
// name and value have more than 4,096 bytes: a login or refresh that would make one fails
// with 500, and changes nothing.
//
// A browser sends a cookie with requests from any page. SameSite excludes pages of other
// sites, but not of other hosts of the same site; so a [Handler] refuses requests from
// other origins that send a cookie or would receive one. A [jwtauth.Verifier] that takes
// access tokens from a cookie, by its [jwtauth.Config.Cookie], does the same where a request
// may change something, with TrustedOrigins of its own.
//
// After a change of Path or Domain, browsers also send the former cookie until it
// expires. Of up to four cookies of one name, the one of a live session counts; if
// several are of live sessions of one subject, the one of the last login counts. Cookies
// of two subjects are refused, because another host of the domain may have planted one.
// To discard the former cookies at once, choose another Name.
type Cookie struct {
	// Name is the name of the cookie, of up to 255 bytes. Empty means refresh_token or
	// access_token with a prefix: __Host-, so that browsers accept the cookie from no other
	// host, or __Secure- if Path or Domain rules out __Host-. A name with a prefix must
	// obey the rule of that prefix, as browsers ignore the cookie otherwise.
	Name string
	// Path is the path to which browsers send the cookie, and to all below it; empty means
	// "/". That of the RefreshCookie must include the paths of Refresh and Logout: a Logout
	// to which the browser does not send it ends only the session of an access token.
	Path string
	// Domain makes the browser send the cookie to all hosts of a domain; empty means
	// this host only.
	Domain string
	// SameSite is Strict or Lax; zero means Strict. Browsers do not send a Strict cookie
	// when somebody follows a link from another site, for instance in a mail: the page then
	// loads without a session. Strict suits tokens that only the scripts of a page use; if
	// pages themselves are behind the cookie, choose Lax.
	SameSite http.SameSite
	// EndsWithBrowser, if not nil, is called for each login and refresh. If it returns
	// true, the cookie has no Max-Age, so that browsers remove it when they close; those
	// that restore their windows may keep it. The token in the cookie is valid no longer
	// than otherwise. To ask users whether they want to be remembered, put what they chose
	// into the Data of the session.
	EndsWithBrowser func(s Session) bool
	// DangerouslyInsecure sends the cookie without encryption as well, for
	// development with plain HTTP.
	DangerouslyInsecure bool
}

// complete returns a copy of c with all fields set, and adds its faults to f. The
// argument token is the name of the token in the cookie.
func (c *Cookie) complete(f config.Faults[usher.ConfigError], token string) *Cookie {
	if c == nil {
		return nil
	}
	full := *c
	full.Path = cmp.Or(c.Path, "/")
	full.SameSite = cmp.Or(c.SameSite, http.SameSiteStrictMode)
	if full.Name == "" {
		switch {
		case full.DangerouslyInsecure:
			full.Name = token
		case full.Path != "/" || full.Domain != "":
			full.Name = "__Secure-" + token
		default:
			full.Name = "__Host-" + token
		}
	}
	prefix := func(p string) bool { return len(full.Name) >= len(p) && strings.EqualFold(full.Name[:len(p)], p) }
	f.If(prefix("__Host-") && (full.DangerouslyInsecure || full.Path != "/" || full.Domain != ""),
		"Name", `must not begin with __Host-, in any case, unless Path is "/", Domain is empty and DangerouslyInsecure is false`)
	f.If((prefix("__Secure-") || prefix("__Http-")) && full.DangerouslyInsecure,
		"Name", "must not begin with __Secure- or __Http-, in any case, if DangerouslyInsecure is set")
	f.If(len(full.Name) > maxCookieName, "Name", "must have at most 255 bytes")
	f.If(len(full.Path) > maxCookieAttribute, "Path", "must have at most 1024 bytes")
	f.If(full.SameSite != http.SameSiteStrictMode && full.SameSite != http.SameSiteLaxMode, "SameSite", "must be Strict or Lax")
	f.If(full.Path[0] != '/', "Path", "must begin with a slash")
	f.If(full.make("x", time.Minute).Valid() != nil, "Name", "must make a valid cookie, together with Path and Domain")
	return &full
}

// The bounds of browsers (draft-ietf-httpbis-rfc6265bis, section 5.6): they
// ignore a cookie whose name and value have more bytes, and an attribute that has more.
const (
	maxCookie          = 4096
	maxCookieAttribute = 1024
	maxCookieName      = 255 // leaves room for every refresh token
)

// of returns the cookie with a token of a session.
func (c *Cookie) of(s Session, token string, lifetime time.Duration) *http.Cookie {
	made := c.make(token, lifetime)
	if made.MaxAge > 0 && c.EndsWithBrowser != nil && c.EndsWithBrowser(s) {
		made.MaxAge = 0
	}
	return made
}

// make returns the cookie with this value, or one that removes it if lifetime is less
// than a second.
func (c *Cookie) make(value string, lifetime time.Duration) *http.Cookie {
	age := int(lifetime / time.Second)
	if age <= 0 {
		// net/http omits a Max-Age of 0, and a cookie without one would not expire.
		value, age = "", -1
	}
	return &http.Cookie{
		Name:     c.Name,
		Value:    value,
		Path:     c.Path,
		Domain:   c.Domain,
		MaxAge:   age,
		Secure:   !c.DangerouslyInsecure,
		HttpOnly: true,
		SameSite: c.SameSite,
	}
}
