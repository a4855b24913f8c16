package clientip

import (
	"net/http"
	"net/netip"
	"slices"
)

// A Resolver finds the addresses of clients. It is immutable and safe for
// concurrent use. A nil Resolver knows no proxy.
type Resolver struct {
	trusted  []netip.Prefix
	anyPeer  bool
	header   string
	format   format
	ipv6Bits int
}

// Addr returns the address of the client of r: an IPv4 address, or an IPv6
// address that is neither IPv4-mapped nor has a zone. It is the zero Addr if the
// address of the peer is unknown, as on a Unix socket, and no proxy is believed.
func (res *Resolver) Addr(r *http.Request) netip.Addr {
	peer := parsePeer(r.RemoteAddr)
	if res == nil || !res.anyPeer && !res.trusts(peer) {
		return peer
	}
	lines := r.Header[res.header]
	if res.format != single {
		return res.walk(peer, lines)
	}
	if len(lines) == 1 && len(lines[0]) <= maxElement {
		if addr := parseNode(trim(lines[0])); addr.IsValid() {
			return addr
		}
	}
	return peer
}

// Prefix returns what [Resolver.PrefixOf] returns for the client of r.
func (res *Resolver) Prefix(r *http.Request) netip.Prefix { return res.PrefixOf(res.Addr(r)) }

// PrefixOf returns the network by which to count the client at addr: a whole
// IPv4 address, but the first 64 bits of an IPv6 address, or as many as
// [Config.IPv6Prefix] says. It is the zero Prefix for the zero Addr.
func (res *Resolver) PrefixOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = defaultIPv6Prefix
		if res != nil {
			bits = res.ipv6Bits
		}
	}
	// The only error is a number of bits that no such address has.
	p, _ := addr.Prefix(bits)
	return p
}

func (res *Resolver) trusts(addr netip.Addr) bool {
	for _, p := range res.trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// The bounds of the work that a hostile header costs. Both are far above what
// chains of proxies produce.
const (
	maxElements = 32
	maxElement  = 512 // bytes
)

// walk returns the client of a request that came from hop with these lines of
// the header.
func (res *Resolver) walk(hop netip.Addr, lines []string) netip.Addr {
	elements := 0
	for _, line := range slices.Backward(lines) {
		for more := true; more; {
			if elements++; elements > maxElements {
				return hop
			}
			var addr netip.Addr
			addr, line, more = res.format.last(line)
			if !addr.IsValid() {
				return hop
			}
			if !res.trusts(addr) {
				return addr
			}
			hop = addr
		}
	}
	return hop
}
