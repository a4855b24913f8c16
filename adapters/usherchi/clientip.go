package usherchi

import (
	"net/http"
	"net/netip"

	"github.com/go-chi/chi/v5/middleware"

	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/ratelimit"
)

// direct knows no proxy.
var direct *clientip.Resolver

// ClientIP returns the address that one of chi's middlewares ClientIPFromXFF,
// ClientIPFromHeader and so on has found, which must stand outside. Where none has
// found one it is the address of the peer, as no client can choose that. It is
// made for envelope.Config.ClientIP.
func ClientIP(r *http.Request) netip.Addr {
	if addr := middleware.GetClientIPAddr(r.Context()); addr.IsValid() {
		return addr
	}
	return direct.Addr(r)
}

// ByClientIP counts each [ClientIP], IPv6 by the first 64 bits. On a chi router it
// takes the place of ratelimit.ByAddress if chi already resolves addresses.
func ByClientIP() ratelimit.KeyFunc {
	return func(r *http.Request) (ratelimit.Key, bool) {
		return ratelimit.AddressKey(direct.PrefixOf(ClientIP(r))), true
	}
}
