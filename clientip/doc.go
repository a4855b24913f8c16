// Package clientip finds the address of the client of an HTTP request, also
// behind proxies, without believing what a client claims about itself.
//
//	ips, err := clientip.New(clientip.Config{
//		TrustedProxies: []string{"10.0.0.0/8", "127.0.0.1"},
//	})
//	...
//	addr := ips.Addr(r)   // for logs
//	key := ips.Prefix(r)  // for limits: an IPv6 client owns a whole /64
//
// The zero [Config], and a nil [*Resolver], know no proxy: the client is the peer
// of the connection, and no header is ever read.
//
// # How a header is read
//
// Each proxy appends the address that it was called from, so the right end of
// X-Forwarded-For and Forwarded is the only one that a client cannot write. A
// [Resolver] looks at the header only if the peer is a trusted proxy. It then
// walks from the right, over all lines of the field, past the addresses of
// trusted proxies; the first address that is not one is the client.
//
//   - What is no address stops the walk, be it "unknown", an obfuscated name, an
//     empty element or a broken quotation. The client is then the last address
//     that was good, which is a trusted proxy, and never anything further left.
//   - If every address belongs to a trusted proxy, the leftmost is the client:
//     a proxy has called on its own behalf.
//   - Nothing to the left of an element changes how it is read: the quotes of
//     Forwarded are matched from the right too, so a client cannot swallow what a
//     proxy appends by opening one.
//   - At most 32 elements are looked at, and 512 bytes of each.
//
// # Addresses
//
// IPv4-mapped IPv6 addresses such as ::ffff:192.0.2.1 become IPv4, in whatever
// notation they come; zones are removed; ports and brackets are accepted. So each
// client has one address, and it is safe to print.
//
// # Order
//
// A [Resolver] reads [http.Request.RemoteAddr]. Do not put a middleware before
// it that overwrites that field from a header.
package clientip
