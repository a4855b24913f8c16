package clientip

import (
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// A Resolver is the [usher.Middleware] that finds the address of each client and stores
// it in the request, where [Of], [Via], [Network], [In], [RequireTLS] and the other packages
// of this module read it. If a request passes several Resolvers, the innermost counts. A
// Resolver is immutable and safe for concurrent use.
type Resolver struct {
	trusted  []netip.Prefix
	sockets  bool // peers of Unix sockets are trusted
	anyPeer  bool
	header   string
	format   format
	ipv6Bits uint8
}

var _ usher.Middleware = (*Resolver)(nil)

// Wrap returns a handler that stores the client of each request and calls next.
func (res *Resolver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { res.ServeNext(w, r, next) })
}

// ServeNext stores the client of r and calls next.
func (res *Resolver) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	x, inner := exchange.Enter(r)
	x.SetClient(res.resolve(r))
	exchange.Serve(next, w, r, inner)
}

// Of returns the address of the client of r: the one that a [Resolver] or [WithAddr] has
// stored, else that of the peer of the connection. It is an IPv4 address, or an IPv6
// address that is not IPv4-mapped and has no zone. It is the zero Addr if the address is
// unknown: a trusted proxy may state none that can be read ([Via]), the peer of a Unix
// socket has no address, and a RemoteAddr that a middleware has overwritten may not be an
// address.
func Of(r *http.Request) netip.Addr {
	if c := stored(r); c != nil {
		return c.Known()
	}
	return peerOf(r)
}

// Via returns the address of the trusted proxy behind which the client of r is unknown,
// because the proxy has stated no address that can be read. It is the zero Addr for all
// other requests, and if the proxy has no address, on a Unix socket.
//
// Limits count the clients that are unknown behind one proxy together, and never as the
// proxy itself.
func Via(r *http.Request) netip.Addr {
	if c := stored(r); c != nil && c.Hidden {
		return c.Addr
	}
	return netip.Addr{}
}

// String returns the client of r as a text for logs: the address that [Of] returns, or
// "unknown", or "unknown via" and the address that [Via] returns.
func String(r *http.Request) string {
	if addr := Of(r); addr.IsValid() {
		return addr.String()
	}
	if via := Via(r); via.IsValid() {
		return "unknown via " + via.String()
	}
	return "unknown"
}

// Network returns the network by which to count the client of r: a whole IPv4 address, or
// the first [Config.IPv6Prefix] bits of an IPv6 address, 64 without a Resolver. It is the
// zero Prefix if the address is unknown. An address in 64:ff9b::/96 is that of an IPv4
// client behind a translator (RFC 6052), and counts as the IPv4 address in it.
func Network(r *http.Request) netip.Prefix {
	if c := stored(r); c != nil {
		return network(c.Known(), c.IPv6Bits)
	}
	return network(peerOf(r), defaultIPv6Prefix)
}

// translated has the IPv6 addresses of IPv4 hosts: RFC 6052, section 2.1.
var translated = netip.MustParsePrefix("64:ff9b::/96")

func network(addr netip.Addr, ipv6Bits uint8) netip.Prefix {
	if translated.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	bits := addr.BitLen()
	if addr.Is6() {
		bits = int(ipv6Bits)
	}
	// The only possible error is a number of bits that the address does not have.
	p, _ := addr.Prefix(bits)
	return p
}

// In returns a function that reports whether the client of a request is in one of
// networks. An IPv4-mapped network matches as its IPv4 form. A client whose address
// is unknown is in no network.
func In(networks ...netip.Prefix) func(*http.Request) bool {
	networks = slices.Clone(networks)
	for i, n := range networks {
		if a := n.Addr(); a.Is4In6() && n.Bits() >= 96 {
			networks[i] = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
		}
	}
	return func(r *http.Request) bool { return contains(networks, Of(r)) }
}

// WithAddr returns a request whose client has the address addr, for tests and for
// middlewares that find the address in another way. If a middleware of this module has
// already seen r, WithAddr stores the address in r and returns r; otherwise it returns a
// copy.
func WithAddr(r *http.Request, addr netip.Addr) *http.Request {
	x, inner := exchange.Enter(r)
	c := exchange.Client{IPv6Bits: defaultIPv6Prefix, TLS: r.TLS != nil}
	if before := x.Client(); before != nil {
		c = *before
	}
	c.Addr, c.Hidden = addr.Unmap().WithZone(""), false
	x.SetClient(c)
	return inner
}

// stored returns the client that was stored in r, or nil.
func stored(r *http.Request) *exchange.Client {
	if x := exchange.From(r.Context()); x != nil {
		return x.Client()
	}
	return nil
}

// Addr returns the address that the Resolver would store in r.
func (res *Resolver) Addr(r *http.Request) netip.Addr {
	c := res.resolve(r)
	return c.Known()
}

// resolve returns the client of r.
func (res *Resolver) resolve(r *http.Request) exchange.Client {
	peer := peerOf(r)
	c := exchange.Client{Addr: peer, IPv6Bits: res.ipv6Bits, TLS: r.TLS != nil}
	if !res.trusts(peer, r) {
		return c
	}
	var proto string
	lines := r.Header[res.header]
	switch {
	case res.format != single:
		c.Addr, c.Hidden, proto = res.walk(res.format, peer, lines)
	case len(lines) > 0:
		c.Hidden = true
		if len(lines) == 1 && len(lines[0]) <= maxElement {
			if addr := parseNode(trim(lines[0])); addr.IsValid() {
				c.Addr, c.Hidden = addr, false
			}
		}
	}
	// If the proxy has forwarded the request, the connection is the proxy's own, and it
	// does not matter whether that uses TLS. One field states the scheme, and the other
	// field must not contradict it.
	schemes, elements := r.Header["X-Forwarded-Proto"], r.Header["Forwarded"]
	switch {
	case len(lines) == 0 && len(schemes) == 0 && len(elements) == 0:
	case res.format == forwarded:
		c.TLS = isSecure(proto) && (len(schemes) == 0 || allSecure(schemes))
	default:
		_, _, proto = res.walk(forwarded, peer, elements)
		c.TLS = allSecure(schemes) && (proto == "" || isSecure(proto))
	}
	return c
}

// trusts reports whether the peer of the connection of r is a trusted proxy.
func (res *Resolver) trusts(peer netip.Addr, r *http.Request) bool {
	return res.anyPeer || contains(res.trusted, peer) || res.sockets && onSocket(r)
}

// peerOf returns the address of the peer of the connection of r, or the zero Addr. Who
// connects to a Unix socket chooses the RemoteAddr, which may then look like an address.
func peerOf(r *http.Request) netip.Addr {
	addr := parsePeer(r.RemoteAddr)
	if addr.IsValid() && onSocket(r) {
		return netip.Addr{}
	}
	return addr
}

// onSocket reports whether r has arrived on a Unix socket.
func onSocket(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return local != nil && local.Network() == "unix"
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// Limits on the work that a hostile header causes. Both are far above what chains of
// proxies produce.
const (
	maxElements = 32
	maxElement  = 512 // bytes
)

// walk returns the client of a request that peer has sent with these lines of a field, and
// the scheme that the element of the client states, or "". If that element cannot be read,
// the client is hidden, and its address is that of the proxy that has called for it.
func (res *Resolver) walk(f format, peer netip.Addr, lines []string) (client netip.Addr, hidden bool, proto string) {
	client = peer
	elements := 0
	for _, line := range slices.Backward(lines) {
		for more := true; more; {
			if elements++; elements > maxElements {
				return client, true, ""
			}
			var e element
			e, line, more = f.last(line)
			if e.empty {
				continue // RFC 9110, section 5.6.1.2
			}
			if !e.addr.IsValid() {
				return client, true, ""
			}
			client, proto = e.addr, e.proto
			if !contains(res.trusted, client) {
				return client, false, proto
			}
		}
	}
	return client, false, proto
}
