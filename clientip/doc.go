// Package clientip finds the address of the client of an HTTP request, also behind
// proxies, without trusting what a client claims about itself.
//
//	ips, err := clientip.New(clientip.Config{
//		TrustedProxies: []string{"10.0.0.0/8", "127.0.0.1"},
//	})
//	...
//	http.ListenAndServe(addr, usher.Chain(ips, clientip.RequireTLS(), limiter).Wrap(mux))
//
// The [Resolver] stores the address in the request. Handlers read it with [Of], and so
// does every package of this module: a service has one rule for the address of a client.
// Without a Resolver the client is the peer of the connection, and no header field is
// ever read; a server without proxies needs no Resolver.
//
// # How a header field is read
//
// Each proxy appends the address that called it, so a client cannot write the right end
// of X-Forwarded-For and Forwarded. A [Resolver] reads the field only if the peer is a
// trusted proxy. It then walks from the right, over all lines of the field, past the
// addresses of trusted proxies; the first address that is not a trusted proxy is the
// client.
//
//   - An element without an address stops the walk: "unknown", an obfuscated name, a
//     broken quotation. The client is then unknown: [Of] returns the zero Addr, and never
//     anything further left, nor the address of the proxy, which a list of internal
//     networks would exempt. [In] is false for such a client. Limits by address count the
//     unknown clients of each proxy together, and [Via] and [String] name the proxy.
//   - Empty elements are ignored, as RFC 9110, section 5.6.1.2, requires. So a proxy must
//     never append an empty element for a peer without an address.
//   - If every address belongs to a trusted proxy, the leftmost is the client:
//     a proxy has called on its own behalf.
//   - Nothing to the left of an element changes how the element is read. Quotes in
//     Forwarded are also matched from the right, so a client that opens a quote cannot
//     hide what a proxy appends.
//   - At most 32 elements are read, and 512 bytes of each. If there is more to read, the
//     client is unknown.
//   - If a trusted proxy sends no such field, the client is the proxy itself: so the
//     health checks of a load balancer arrive. A proxy that forwards must always send it.
//     Otherwise all its clients count as one, and pass where the network of the proxy does.
//
// Nginx sends the field only if it is configured to, on TCP and on a Unix socket alike:
//
//	proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
//
// # TLS
//
// [RequireTLS] refuses a request that its client sent in plain text. For a peer that is
// not a trusted proxy, its own connection counts. A trusted proxy that forwards a request
// must state that the client used TLS, even if the proxy's own connection uses TLS:
//
//   - where [Config.Header] is Forwarded, by proto=https in the element of the client,
//     which the outermost trusted proxy appends; hops between proxies may be plain;
//   - else by X-Forwarded-Proto, all of whose values must be https: proxies do not agree
//     on the order of the values, so a single http refuses the request.
//
// If a proxy sends both fields, the other field must not contradict this. The scheme wss
// counts as https. Everything else, a missing field included, counts as plain text.
// Configure proxies to replace the X-Forwarded-Proto that a client has sent.
//
// # Unix sockets
//
// The peers of a Unix socket have no address, even if the name of their end looks like one.
// To trust them, list "unix" in [Config.TrustedProxies]. If the same handler is also served
// over TCP, its peers there are not trusted by this.
//
// # Addresses
//
// IPv4-mapped IPv6 addresses such as ::ffff:192.0.2.1 become IPv4, in every notation;
// zones are removed; ports and brackets are accepted. So each address has one form, which
// is safe to print. As one client has many IPv6 addresses, [Network] groups them.
//
// # Guarantees
//
//   - No header field from a peer that is not a trusted proxy ever changes the address or
//     the scheme.
//   - The work per request is bounded, however long the header is.
//   - A Resolver allocates nothing inside another middleware of this module. As the
//     outermost middleware it makes the one copy of the request that all of them share.
//
// # Order
//
// Put the Resolver directly inside the envelope, where it allocates nothing, or outside
// the envelope, and in any case outside every limit and every middleware that reads a
// credential. If the shape of the envelope shows the address, it reads it when the response
// is written. Put RequireTLS inside the Resolver and inside the envelope, which gives the
// refusal its shape. An access log outside the Resolver reads the address from the request
// that [usher.Track] returns. A Resolver reads [http.Request.RemoteAddr]: no middleware
// outside it may overwrite that field from a header.
package clientip
