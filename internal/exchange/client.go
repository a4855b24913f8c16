package exchange

import "net/netip"

// A Client is what package clientip has resolved about the client of a request.
type Client struct {
	// Addr is the address of the client, or the zero Addr if it is unknown. Most callers
	// want Known.
	Addr netip.Addr
	// IPv6Bits is the length of the prefix that identifies an IPv6 client.
	IPv6Bits uint8
	// Hidden is set if the client is unknown behind a trusted proxy. Addr is then that of
	// the proxy.
	Hidden bool
	// TLS is set if the client sent the request over TLS.
	TLS bool
}

// Known returns the address of the client, or the zero Addr if it is unknown.
func (c *Client) Known() netip.Addr {
	if c.Hidden {
		return netip.Addr{}
	}
	return c.Addr
}

// SetClient stores c. The first call allocates nothing.
func (x *Exchange) SetClient(c Client) {
	if x.facts.set(clientTaken) {
		x.firstClient = c
		x.client.Store(&x.firstClient)
		return
	}
	again := c // so that c itself stays on the stack
	x.client.Store(&again)
}

// Client returns what was last passed to SetClient, or nil. The caller must not
// change it.
func (x *Exchange) Client() *Client { return x.client.Load() }
