// Package outbound sends requests to servers that receive secrets or supply keys.
package outbound

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/usher-go/usher/internal/config"
)

// ParseURL parses the URL of such a server. It must be absolute, have no user or
// fragment, and be https unless plain permits http.
func ParseURL(text string, plain bool) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return nil, errors.New(config.Required)
	case err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return nil, errors.New("must be an absolute URL without user or fragment")
	case u.Scheme != "https" && (u.Scheme != "http" || !plain):
		return nil, errors.New("must be https")
	}
	return u, nil
}

// ParsePublicURL parses a URL that is published for clients. It must be as in ParseURL, but
// may be http if its host is the client's own, as that of a server under development is.
func ParsePublicURL(text string) (*url.URL, error) {
	u, err := ParseURL(text, true)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, errors.New("must be https, or http on a loopback host")
	}
	return u, nil
}

// isLoopback reports whether a host is always the client's own. The names are those of RFC
// 6761, section 6.3, which no server may resolve to another host.
func isLoopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// SameHost returns a copy of c, or of [http.DefaultClient] if c is nil, that follows
// redirects only to the host of the original request and keeps no cookies.
func SameHost(c *http.Client) *http.Client {
	client := new(http.Client)
	if c != nil {
		*client = *c
	}
	client.Jar = nil
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		const maxRedirects = 3
		first := via[0].URL
		switch {
		case len(via) > maxRedirects:
			return errors.New("too many redirects")
		case r.URL.Scheme != first.Scheme || r.URL.Host != first.Host:
			return errors.New("a redirect to another host")
		}
		return nil
	}
	return client
}

// A StatusError is the status of a response that is not 200.
type StatusError int

func (e StatusError) Error() string { return fmt.Sprintf("the server responded with %d", int(e)) }

// ErrTooLong is wrapped by the error for a response that is too long.
var ErrTooLong = errors.New("the response is too long")

// Do sends r and returns the body of the response, which must be a 200 of at most
// limit bytes.
func Do(client *http.Client, r *http.Request, limit int64) ([]byte, error) {
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, StatusError(resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
	}
	return body, nil
}
