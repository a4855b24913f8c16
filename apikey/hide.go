package apikey

import (
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// HideKey returns a middleware that removes the key from the request that the handler
// gets, for a handler that passes requests on, such as [net/http/httputil.ReverseProxy], or
// stores them. Put it inside [usher.Authenticate]. It copies requests; those outside keep
// the key.
//
// It removes the header fields and query parameters among the carriers of a, whatever they
// hold. It removes Authorization only if the caller is authenticated by an API key or the
// field holds text with the prefix of one, so that a token for another authenticator
// stays.
func (a *Authenticator) HideKey() usher.Middleware {
	return usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		exchange.Serve(next, w, r, a.hide(r))
	})
}

// hide returns a copy of r without the key, or r if it carries none.
func (a *Authenticator) hide(r *http.Request) *http.Request {
	hidden := r
	// change returns the copy, which has its own header and URL.
	change := func() *http.Request {
		if hidden == r {
			hidden = new(http.Request)
			*hidden = *r
			hidden.Header = r.Header.Clone()
			if r.URL != nil {
				u := *r.URL
				hidden.URL = &u
			}
		}
		return hidden
	}
	p, _ := usher.PrincipalFrom(r.Context())
	byKey := p.Kind == usher.KindAPIKey
	for i := range a.carriers {
		c := &a.carriers[i]
		switch {
		case c.field == "":
			given := hidden.URL.RawQuery // without the parameters of earlier carriers
			if query := without(given, c.DangerousQueryParameter); query != given {
				setQuery(change(), query, c.DangerousQueryParameter)
			}
		case len(r.Header[c.field]) == 0:
		case c.field != authorization || a.holdsKey(c, r, byKey):
			change().Header.Del(c.field)
		}
	}
	return hidden
}

// holdsKey reports whether the field Authorization of r, whose caller is authenticated by
// an API key or not, holds one in the form of c.
func (a *Authenticator) holdsKey(c *carrier, r *http.Request, byKey bool) bool {
	text, err := c.find(r)
	return err != nil || text != "" && (byKey || a.claims(text))
}

// without returns query without the parameters of this name.
func without(query, name string) string {
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if _, ok := valueOf(pair, name); !ok {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// setQuery replaces the query of r, from which a parameter of this name was removed.
func setQuery(r *http.Request, query, name string) {
	r.URL.RawQuery = query
	if path, _, ok := strings.Cut(r.RequestURI, "?"); ok {
		r.RequestURI = path
		if query != "" {
			r.RequestURI += "?" + query
		}
	}
	if r.Form != nil { // parsed already
		r.Form = maps.Clone(r.Form)
		setValues(r.Form, name, r.PostForm[name])
	}
}

func setValues(form url.Values, name string, values []string) {
	if len(values) == 0 {
		delete(form, name)
		return
	}
	form[name] = values
}
