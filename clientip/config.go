package clientip

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/httptoken"
)

// Config describes the proxies in front of a server. Its zero value describes a server
// without proxies.
type Config struct {
	// TrustedProxies are the addresses and CIDR blocks of the proxies that are trusted to
	// state which client they forward for, for instance "127.0.0.1" and "10.0.0.0/8".
	// List every proxy of a chain, and no address that a client can send from. The text
	// "unix" stands for every peer that is connected to a Unix socket of this server; the
	// permissions of the socket must keep others away. If the list is empty, no header
	// field is ever read.
	TrustedProxies []string
	// Header names the field in which the proxies write the address. The default is
	// X-Forwarded-For. Forwarded has the grammar of RFC 7239. Any other field, such as
	// X-Real-IP or CF-Connecting-IP, must be one line with one address: otherwise the client
	// is unknown. Make sure that the proxy replaces a field of that name that a client has
	// sent.
	Header string
	// IPv6Prefix is the number of bits of an IPv6 address that identify a client, from 1
	// to 128; 0 means 64, as a network assigns at least a /64 to one subscriber.
	IPv6Prefix int
	// DangerouslyTrustAnyPeer trusts every peer of a connection as a proxy. It is for
	// servers that only a proxy can reach and whose peers have no address to list, in the
	// private network of a platform for instance. Anyone else who reaches such a server
	// can choose the address that it sees. TrustedProxies still applies to the rest of the
	// chain.
	DangerouslyTrustAnyPeer bool
}

const (
	defaultIPv6Prefix = 64
	// unixSocket is the entry of TrustedProxies for the peers of Unix sockets.
	unixSocket = "unix"
)

// New returns a Resolver. Its error joins an [*usher.ConfigError] for every fault of c.
func New(c Config) (*Resolver, error) {
	faults := config.Of[usher.ConfigError]("clientip.Config")
	res := &Resolver{anyPeer: c.DangerouslyTrustAnyPeer, ipv6Bits: uint8(cmp.Or(c.IPv6Prefix, defaultIPv6Prefix))}
	for i, text := range c.TrustedProxies {
		if text == unixSocket {
			res.sockets = true
			continue
		}
		p, err := parseTrusted(text)
		if err != nil {
			faults.Add(fmt.Sprintf("TrustedProxies[%d]", i), err.Error())
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
		faults.If(!httptoken.Valid(c.Header), "Header", "must be the name of a header field")
	}
	faults.If(c.IPv6Prefix < 0 || c.IPv6Prefix > 128, "IPv6Prefix", "must be between 1 and 128, or 0 for 64")
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return res, nil
}

// parseTrusted parses an address or a CIDR block. It unmaps an IPv4-mapped one, as the
// addresses that are compared with the result are unmapped.
func parseTrusted(text string) (netip.Prefix, error) {
	var p netip.Prefix
	if strings.Contains(text, "/") {
		p, _ = netip.ParsePrefix(text)
	} else if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if !p.IsValid() {
		return p, errors.New("must be an IP address or a CIDR block, without a zone, or \"unix\"")
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, errors.New("must not mix IPv4 and IPv6; list a block of each")
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Bits() == 0 {
		return p, errors.New("must not trust every address; to trust every peer, set DangerouslyTrustAnyPeer")
	}
	return p.Masked(), nil
}
