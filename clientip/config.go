package clientip

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/usher-go/usher"
)

// Config describes the proxies in front of a server. Its zero value describes a
// server without any.
type Config struct {
	// TrustedProxies are the addresses and CIDR blocks of the proxies whose word
	// about their callers is believed, for instance "127.0.0.1" and "10.0.0.0/8".
	// List every proxy of a chain, and nothing that a client can call from. None
	// means that no header is ever read.
	TrustedProxies []string
	// Header names the field that the proxies write. The default is
	// X-Forwarded-For. Forwarded is read as RFC 7239 says. Any other field, such
	// as X-Real-IP or CF-Connecting-IP, must come as one line with one address,
	// and is not looked at otherwise; make sure that the proxy replaces what the
	// client sent under that name.
	Header string
	// IPv6Prefix is how many bits of an IPv6 address make a client, from 1 to 128;
	// 0 means 64, the least that a network hands out to one subscriber.
	IPv6Prefix int
	// DangerouslyTrustAnyPeer believes the header whoever calls. It is for servers
	// that only a proxy can reach and whose peers have no address worth listing:
	// on a Unix socket, or in a platform's private network. Whoever else reaches
	// such a server chooses its own address. The rest of the chain is judged by
	// TrustedProxies all the same.
	DangerouslyTrustAnyPeer bool
}

const defaultIPv6Prefix = 64

// New returns a Resolver. Its error holds one [*usher.ConfigError] for each fault
// of c.
func New(c Config) (*Resolver, error) {
	var errs []error
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: "clientip.Config." + field, Reason: reason})
	}
	res := &Resolver{anyPeer: c.DangerouslyTrustAnyPeer, ipv6Bits: c.IPv6Prefix}
	for i, text := range c.TrustedProxies {
		p, err := parseTrusted(text)
		if err != nil {
			fault(fmt.Sprintf("TrustedProxies[%d]", i), err.Error())
			continue
		}
		res.trusted = append(res.trusted, p)
	}
	switch res.header = http.CanonicalHeaderKey(c.Header); res.header {
	case "", "X-Forwarded-For":
		res.header, res.format = "X-Forwarded-For", xForwardedFor
	case "Forwarded":
		res.format = forwarded
	default:
		res.format = single
		if !isToken(c.Header) {
			fault("Header", "is not the name of a header field")
		}
	}
	switch {
	case c.IPv6Prefix == 0:
		res.ipv6Bits = defaultIPv6Prefix
	case c.IPv6Prefix < 0 || c.IPv6Prefix > 128:
		fault("IPv6Prefix", "must be between 1 and 128, or 0 for 64")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return res, nil
}

// parseTrusted reads an address or a CIDR block. As clients are compared
// unmapped, so are proxies.
func parseTrusted(text string) (netip.Prefix, error) {
	var p netip.Prefix
	if strings.Contains(text, "/") {
		p, _ = netip.ParsePrefix(text)
	} else if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if !p.IsValid() {
		return p, errors.New("must be an IP address or a CIDR block, without a zone")
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, errors.New("mixes IPv4 and IPv6; list a block of each")
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Bits() == 0 {
		return p, errors.New("trusts every address; to believe whoever calls, set DangerouslyTrustAnyPeer")
	}
	return p.Masked(), nil
}
