package session

import (
	"net/http"
	"time"

	"github.com/usher-go/usher"
)

// A Cookie says how a token is delivered in a cookie. Whatever is chosen, scripts
// cannot read it (HttpOnly), and it ends with its token (Max-Age).
//
// A browser sends a cookie whoever asks it to. SameSite keeps other sites from
// asking, but not other hosts of the same site; so a [Handler] refuses
// requests of other origins that come with a cookie or would be given one, and a
// server whose [jwtauth.Verifier] takes access tokens from a cookie puts
// [http.CrossOriginProtection] before its routes.
//
// After a change of Path or Domain browsers send the former cookie as well, until it
// ends. Of up to four cookies of one name the one of a live session counts, and of
// several live sessions of one subject that of the last login. Those of two subjects
// are refused, as another host of the domain may have planted one; choose another
// Name to be rid of the former cookies at once.
type Cookie struct {
	// Name is the name of the cookie. Empty means refresh_token or access_token
	// behind __Host-, which makes browsers insist that no other host set it, or
	// behind __Secure- where Path or Domain rule that out.
	Name string
	// Path is the path that the cookie is sent to; empty means "/".
	Path string
	// Domain makes the cookie one of all hosts below a domain; empty means this
	// host alone.
	Domain string
	// SameSite is Strict or Lax; zero means Strict.
	SameSite http.SameSite
	// DangerouslyInsecure sends the cookie without encryption as well, for
	// development on plain HTTP.
	DangerouslyInsecure bool
}

// complete fills in what c leaves open and returns all that is wrong with it.
func (c *Cookie) complete(token, path string) (errs []error) {
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: path + "." + field, Reason: reason})
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.SameSite == 0 {
		c.SameSite = http.SameSiteStrictMode
	}
	if c.SameSite != http.SameSiteStrictMode && c.SameSite != http.SameSiteLaxMode {
		fault("SameSite", "must be Strict or Lax")
	}
	if c.Name == "" {
		switch {
		case c.DangerouslyInsecure:
			c.Name = token
		case c.Path != "/" || c.Domain != "":
			c.Name = "__Secure-" + token
		default:
			c.Name = "__Host-" + token
		}
	}
	if c.Path[0] != '/' {
		fault("Path", "must begin with a slash")
	}
	if err := c.make("x", time.Minute).Valid(); err != nil {
		fault("Name", "Name, Path and Domain do not make a cookie")
	}
	return errs
}

// make returns the cookie with this value, or one that removes it if life is not
// a second.
func (c *Cookie) make(value string, life time.Duration) *http.Cookie {
	age := int(life / time.Second)
	if age <= 0 {
		// Net/http leaves 0 out, which would make it a cookie without an end.
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
