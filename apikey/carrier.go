package apikey

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/usher-go/usher/internal/bearer"
)

// carriers are the places in a request that may carry a key.
type carriers struct {
	header string // canonical name of a field, or ""
	bearer bool
	exact  bool // the scheme must be spelled "Bearer"
	query  string
}

// list returns the names of the header fields among the carriers.
func (c *carriers) list() (names []string) {
	if c.header != "" {
		names = append(names, c.header)
	}
	if c.bearer {
		names = append(names, "Authorization")
	}
	return names
}

// find returns the text of the key in r and Accepted, or the verdict Missing, Malformed
// or Ambiguous.
func (c *carriers) find(r *http.Request) (text string, v Verdict) {
	v = Missing
	if c.header != "" {
		found, err := bearer.Header(r.Header, c.header)
		text, v = join(text, v, found, err)
	}
	if c.bearer {
		found, err := bearer.Token(r.Header, c.exact)
		text, v = join(text, v, found, err)
	}
	if c.query != "" {
		found, err := queryValue(r.URL, c.query)
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
func (c *carriers) detect(r *http.Request) (carrier, text string) {
	if c.header != "" {
		if found, err := bearer.Header(r.Header, c.header); found != "" || err != nil {
			return c.header, found
		}
	}
	if c.query != "" {
		if found, err := queryValue(r.URL, c.query); found != "" || err != nil {
			return "query parameter " + c.query, found
		}
	}
	if c.bearer {
		if found, err := bearer.Token(r.Header, c.exact); found != "" || err != nil {
			return "Authorization", found
		}
	}
	return "", ""
}
