package session

import (
	"cmp"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// A Cookie configures the delivery of a token in a cookie. Scripts can never read the
// cookie (HttpOnly), and it expires with its token (Max-Age).
//
// A browser sends a cookie with requests from any page. SameSite excludes pages of other
// sites, but not of other hosts of the same site; so a [Handler] refuses requests from
// other origins that send a cookie or would receive one. A [jwtauth.Verifier] that takes
// access tokens from a cookie does the same on all routes, with TrustedOrigins of its own.
//
// After a change of Path or Domain, browsers also send the former cookie until it
// expires. Of up to four cookies of one name, the one of a live session counts; if
// several are of live sessions of one subject, the one of the last login counts. Cookies
// of two subjects are refused, because another host of the domain may have planted one.
// To discard the former cookies at once, choose another Name.
type Cookie struct {
	// Name is the name of the cookie. Empty means refresh_token or access_token with a
	// prefix: __Host-, so that browsers accept the cookie from no other host, or
	// __Secure- if Path or Domain rules out __Host-.
	Name string
	// Path is the path to which browsers send the cookie; empty means "/".
	Path string
	// Domain makes the browser send the cookie to all hosts of a domain; empty means
	// this host only.
	Domain string
	// SameSite is Strict or Lax; zero means Strict.
	SameSite http.SameSite
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
	f.If(full.SameSite != http.SameSiteStrictMode && full.SameSite != http.SameSiteLaxMode, "SameSite", "must be Strict or Lax")
	f.If(full.Path[0] != '/', "Path", "must begin with a slash")
	f.If(full.make("x", time.Minute).Valid() != nil, "Name", "must make a valid cookie, together with Path and Domain")
	return &full
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
