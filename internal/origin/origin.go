// Package origin decides which pages may send requests with the cookies of their user.
package origin

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/method"
)

// Trusting returns a protection that lets pages of the trusted origins pass, and adds to f
// a fault for each origin that no browser sends in this spelling.
func Trusting[E ~struct{ Field, Reason string }](f config.Faults[E], field string, trusted []string) *http.CrossOriginProtection {
	p := http.NewCrossOriginProtection()
	for n, text := range trusted {
		fault := Fault(text)
		if fault == "" && p.AddTrustedOrigin(text) != nil {
			fault = form
		}
		f.If(fault != "", fmt.Sprintf("%s[%d]", field, n), fault)
	}
	return p
}

// Check returns an error if the page of an origin that is neither that of r nor trusted by
// p may have made a browser send r, and r may change something: its method is not safe, or
// it asks for another protocol. Browsers let every page open a WebSocket to any origin,
// with the cookies of that origin. A client that is not a browser passes.
func Check(p *http.CrossOriginProtection, r *http.Request) error {
	if method.Safe(r.Method) && len(r.Header["Upgrade"]) == 0 {
		return nil
	}
	// The protection itself lets every GET pass.
	return p.Check(&http.Request{Method: http.MethodPost, URL: r.URL, Host: r.Host, Header: r.Header})
}

const form = "must be scheme://host or scheme://host:port"

// Fault returns what is wrong with a configured origin, or "". An origin is compared byte
// by byte, so it must have the spelling of browsers (RFC 6454, section 6.2).
func Fault(text string) string {
	switch right := spelling(text); {
	case strings.Contains(text, "*"):
		return "must be one origin, without a wildcard"
	case right == "":
		return form
	case right != text:
		return fmt.Sprintf("must be %q, as browsers send it", right)
	}
	return ""
}

// spelling returns an origin as browsers send it: in lower case and Punycode, without a
// default port and a path. It returns "" if text has no origin. The hosts of schemes other
// than http and https are names that an application chose, and stay as they are.
func spelling(text string) string {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil {
		return ""
	}
	usual := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	host, port := u.Hostname(), strings.TrimLeft(u.Port(), "0")
	if usual != "" {
		host = canonical(host)
	}
	switch {
	case host == "" || len(port) > 5 || host[0] != '[' && strings.ContainsFunc(host, notInName):
		return ""
	case port == "" || port == usual:
		return u.Scheme + "://" + host
	}
	return u.Scheme + "://" + host + ":" + port
}

// canonical returns the host of an http or https URL as browsers send it.
func canonical(host string) string {
	switch a, err := netip.ParseAddr(host); {
	case err != nil:
		return punycode(strings.ToLower(host))
	case a.Is6():
		return "[" + a.WithZone("").String() + "]"
	default:
		return a.String()
	}
}

// notInName reports whether no name of a host has c.
func notInName(c rune) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		return false
	}
	return true
}

// punycode returns a host without characters beyond ASCII (RFC 3492). The standard library
// encodes hosts only when it sends requests, so punycode lets it write one.
func punycode(host string) string {
	var sent bytes.Buffer
	r := http.Request{URL: &url.URL{Path: "/"}, Host: host}
	if r.Write(&sent) != nil {
		return host
	}
	if r, err := http.ReadRequest(bufio.NewReader(&sent)); err == nil {
		return r.Host
	}
	return host
}
