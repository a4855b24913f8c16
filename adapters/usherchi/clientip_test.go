package usherchi_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/usher-go/usher/adapters/usherchi"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/ratelimit"
)

func TestClientIP(t *testing.T) {
	behindProxy := middleware.ClientIPFromXFF("192.0.2.0/24")
	tests := []struct {
		name         string
		resolver     func(http.Handler) http.Handler
		peer, header string
		addr, counts string
	}{
		{"the address that the proxy states", behindProxy, "192.0.2.7:1000", "203.0.113.5", "203.0.113.5", "203.0.113.5/32"},
		{"IPv6 by its network", behindProxy, "192.0.2.7:1000", "2001:db8:1:2:3::4", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"the client is not trusted", behindProxy, "203.0.113.9:1000", "203.0.113.5", "203.0.113.9", "203.0.113.9/32"},
		{"nonsense of a client is the proxy's", behindProxy, "192.0.2.7:1000", "me", "192.0.2.7", "192.0.2.7/32"},
		{"without a resolver it is the peer", nil, "203.0.113.9:1000", "203.0.113.5", "203.0.113.9", "203.0.113.9/32"},
		{"the peer", middleware.ClientIPFromRemoteAddr, "203.0.113.9:1000", "203.0.113.5", "203.0.113.9", "203.0.113.9/32"},
		{"the peer, with a zone", middleware.ClientIPFromRemoteAddr, "[fe80::1%eth0]:1000", "", "fe80::1", "fe80::/64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var addr netip.Addr
			var key ratelimit.Key
			router := chi.NewRouter()
			if tt.resolver != nil {
				router.Use(tt.resolver)
			}
			router.Use(usherchi.ClientIP)
			router.Get("/", func(_ http.ResponseWriter, r *http.Request) {
				addr = clientip.Of(r)
				key, _ = ratelimit.ByAddress()(r)
			})
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = tt.peer
			r.Header.Set("X-Forwarded-For", tt.header)
			router.ServeHTTP(httptest.NewRecorder(), r)
			if addr.String() != tt.addr {
				t.Errorf("address %s, want %s", addr, tt.addr)
			}
			if key != ratelimit.AddressKey(netip.MustParsePrefix(tt.counts)) {
				t.Errorf("key %v, want that of %s", key, tt.counts)
			}
		})
	}
}
