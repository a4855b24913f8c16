package ratelimit_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/ratelimit"
)

// A client whose proxy states no address that can be read is counted, with the others of
// that proxy, and no list exempts it.
func TestClientsThatCannotBeReadAreCounted(t *testing.T) {
	ips := usher.Must(clientip.New(clientip.Config{TrustedProxies: []string{"unix", "10.0.0.0/8"}}))
	internal := clientip.In(netip.MustParsePrefix("10.0.0.0/8"))
	for name, key := range map[string]ratelimit.KeyFunc{
		"ByAddress": ratelimit.ByAddress(), "ByPrincipal": ratelimit.ByPrincipal(), "ByOwner": ratelimit.ByOwner(),
	} {
		t.Run(name, func(t *testing.T) {
			policy := ratelimit.Policy{Name: "p", Key: key, Limit: ratelimit.RollingWindow(1, time.Hour)}
			exempting := usher.Chain(ips, newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{policy}, Exempt: internal,
			})).Wrap(ok)
			through := func(peer, list string) func(*http.Request) {
				return func(r *http.Request) {
					r.RemoteAddr = peer
					if list != "" {
						r.Header.Set("X-Forwarded-For", list)
					}
				}
			}
			wantCodes(t, codes(3, exempting, through("10.0.0.1:1", "")), 200, 200, 200) // the proxy itself
			wantCodes(t, codes(2, exempting, through("10.0.0.1:1", "unknown")), 200, 429)
			wantCodes(t, codes(1, exempting, through("10.0.0.1:1", "_hidden")), 429)
			wantCodes(t, codes(1, exempting, through("10.0.0.2:1", "198.51.100.7, unix:, 10.0.0.1")), 429)
			wantCodes(t, codes(2, exempting, through("10.0.0.2:1", "unknown")), 200, 429) // of another proxy
			wantCodes(t, codes(2, exempting, through("@", "unknown")), 200, 429)          // not over a socket

			// Nor is the key that of the proxy, where the proxy is counted.
			counting := usher.Chain(ips, limiterOf(t, policy)).Wrap(ok)
			wantCodes(t, codes(2, counting, through("10.0.0.1:1", "")), 200, 429)
			wantCodes(t, codes(2, counting, through("10.0.0.1:1", "unknown")), 200, 429)
			wantCodes(t, codes(1, counting, through("192.0.2.1:1", "unknown")), 200) // not a proxy
		})
	}
}

// The loopback address of IPv6 is in the network ::/64, whose bytes are all zero.
func TestUnknownClientsAreNoAddress(t *testing.T) {
	byAddress := ratelimit.ByAddress()
	keys := make(map[ratelimit.Key]string)
	for _, peer := range []string{"@", "[::1]:80", "127.0.0.1:80", "0.0.0.0:80"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = peer
		k, counted := byAddress(r)
		if other, known := keys[k]; known || !counted {
			t.Errorf("%s is counted: %v, as %q", peer, counted, other)
		}
		keys[k] = peer
	}
}
