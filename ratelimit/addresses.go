package ratelimit

import (
	"net/http"
	"net/netip"
	"slices"

	"github.com/usher-go/usher/clientip"
)

// Addresses returns a function for Config.Allow and Config.Block that reports
// whether a request comes from one of the networks, by the address that ips
// resolves. An IPv4-mapped network means the IPv4 one.
func Addresses(ips *clientip.Resolver, networks ...netip.Prefix) func(*http.Request) bool {
	networks = slices.Clone(networks)
	for i, n := range networks {
		if a := n.Addr(); a.Is4In6() && n.Bits() >= 96 {
			networks[i] = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
		}
	}
	return func(r *http.Request) bool {
		addr := ips.Addr(r)
		for _, n := range networks {
			if n.Contains(addr) {
				return true
			}
		}
		return false
	}
}
