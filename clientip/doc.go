// Package clientip finds the address of the client of an HTTP request, also behind
// proxies, without believing what a client claims about itself.
//
//	ips, err := clientip.New(clientip.Config{
//		TrustedProxies: []string{"10.0.0.0/8", "127.0.0.1"},
//	})
//	...
//	http.ListenAndServe(addr, usher.Chain(ips, clientip.RequireTLS(), limiter).Wrap(mux))
//
// The [Resolver] stores the address in the request. A handler reads it with [Of], and
// so does every package of this module: there is one rule for the address of a client
// in a service. Without a Resolver the client is the peer of the connection, and no
// header field is ever read; a server without proxies needs no Resolver.
//
// # How a header field is read
//
// Each proxy appends the address that it was called from, so the right end of
// X-Forwarded-For and Forwarded is the only one that a client cannot write. A
// [Resolver] reads the field only if the peer is a trusted proxy. It then walks from
// the right, over all lines of the field, past the addresses of trusted proxies; the
// first address that is not one is the client.
//
//   - An element without an address stops the walk: "unknown", an obfuscated name, an
//     empty element, a broken quotation. The client is then the last address that was
//     read, which is that of a trusted proxy, and never anything further left.
//   - If every address belongs to a trusted proxy, the leftmost is the client:
//     a proxy has called on its own behalf.
//   - Nothing to the left of an element changes how it is read: the quotes of
//     Forwarded are matched from the right too, so a client cannot swallow what a
//     proxy appends by opening one.
//   - At most 32 elements are read, and 512 bytes of each.
//
// # TLS
//
// [RequireTLS] refuses a request that its client sent in plain text. A connection from
// a peer that is no trusted proxy counts as it is. A trusted proxy that forwards
// has to state that the client used TLS, even if its own connection uses TLS:
//
//   - where [Config.Header] is Forwarded, by proto=https in the element of the client,
//     which the outermost trusted proxy appends; hops between proxies may be plain;
//   - else by X-Forwarded-Proto, all of whose values must be https: it has no order
//     that all proxies keep, so one http among them refuses the request.
//
// If a proxy sends both fields, the other one must not contradict. The scheme wss
// counts as https. Everything else, a missing field included, counts as plain text.
// Configure proxies to replace the X-Forwarded-Proto that a client has sent.
//
// # Addresses
//
// IPv4-mapped IPv6 addresses such as ::ffff:192.0.2.1 become IPv4, in every notation;
// zones are removed; ports and brackets are accepted. So each client has one address,
// which is safe to print. [Network] groups IPv6 addresses, of which one client has
// many.
//
// # Guarantees
//
//   - What a peer that is no trusted proxy sends never changes the address or the
//     scheme, whatever field it is in.
//   - The work per request is bounded, however long the header is.
//   - A Resolver allocates nothing within another middleware of this module. As the
//     outermost it costs the one copy of the request that all of them share.
//
// # Order
//
// The Resolver stands right inside the envelope, where it allocates nothing, or outside,
// and in any case outside every limit and every middleware that reads a credential. The
// envelope reads the address when it writes a response. RequireTLS follows the Resolver,
// inside the envelope, which gives the refusal its shape. An access log outside reads the
// address from the request that [usher.Track] returns. A Resolver reads
// [http.Request.RemoteAddr]: no middleware outside it may overwrite that field from a
// header.
package clientip
