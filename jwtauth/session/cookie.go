package session

import (
	"cmp"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// A Cookie configures the delivery of a token in a cookie. Scripts can never read it
// (HttpOnly), and it expires with its token (Max-Age).
//
// A browser sends a cookie with requests of any page. SameSite excludes pages of other
// sites, but not of other hosts of the same site; so a [Handler] refuses requests of
// other origins that send a cookie or would receive one, and a server whose
// [jwtauth.Verifier] takes access tokens from a cookie puts
// [http.CrossOriginProtection] before its routes.
//
// After a change of Path or Domain browsers also send the former cookie, until it
// expires. Of up to four cookies of one name the one of a live session counts, and of
// several live sessions of one subject that of the last login. Those of two subjects are
// refused, as another host of the domain may have planted one; choose another Name to
// discard the former cookies at once.
type Cookie struct {
	// Name is the name of the cookie. Empty means refresh_token or access_token with
	// the prefix __Host-, so that browsers accept it from no other host, or __Secure-
	// if Path or Domain rule that out.
	Name string
	// Path is the path that the cookie is sent to; empty means "/".
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

// complete returns a copy of c with all fields set, and adds its faults to f. Token is
// the name of the token in the cookie.
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
		// net/http omits 0, which would make a cookie that does not expire.
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
