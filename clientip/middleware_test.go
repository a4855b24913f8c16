package clientip_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/race"
)

// through returns r as a handler behind m gets it.
func through(m usher.Middleware, r *http.Request) (got *http.Request) {
	m.ServeNext(httptest.NewRecorder(), r, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	return got
}

func TestOf(t *testing.T) {
	behind := newResolver(t, clientip.Config{TrustedProxies: proxies})
	direct := newResolver(t, clientip.Config{})
	forwarded := func() *http.Request { return request(proxy, "X-Forwarded-For", client) }
	tests := map[string]struct {
		r    *http.Request
		want string
	}{
		"without a Resolver it is the peer, whatever the header says": {forwarded(), fallback},
		"a Unix socket has none":                     {request("@", ""), ""},
		"a malformed RemoteAddr has none":            {request("192.0.2.1:80:80", ""), ""},
		"a Resolver stores the client":               {through(behind, forwarded()), client},
		"a Resolver without proxies stores the peer": {through(direct, forwarded()), fallback},
		"a Resolver stores an unknown address":       {through(behind, request("@", "")), ""},
		"the innermost Resolver counts":              {through(usher.Chain(behind, direct), forwarded()), fallback},
		"a stored address counts":                    {clientip.WithAddr(forwarded(), netip.MustParseAddr(evil)), evil},
		"a stored address is unmapped":               {clientip.WithAddr(forwarded(), netip.MustParseAddr("::ffff:192.0.2.1")), "192.0.2.1"},
		"a stored address has no zone":               {clientip.WithAddr(forwarded(), netip.MustParseAddr("fe80::1%eth0")), "fe80::1"},
		"an unknown address can be stored":           {clientip.WithAddr(forwarded(), netip.Addr{}), ""},
		"one stored inside a Resolver counts":        {clientip.WithAddr(through(behind, forwarded()), netip.MustParseAddr(evil)), evil},
		"one stored outside does not":                {through(behind, clientip.WithAddr(forwarded(), netip.MustParseAddr(evil))), client},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := text(clientip.Of(tt.r)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestVia(t *testing.T) {
	behind := newResolver(t, clientip.Config{TrustedProxies: proxies})
	unknown := func() *http.Request { return through(behind, request(proxy, "X-Forwarded-For", "unknown, 10.0.0.2")) }
	tests := map[string]struct {
		r         *http.Request
		via, text string
	}{
		"a client that the proxy states":     {through(behind, request(proxy, "X-Forwarded-For", client)), "", client},
		"one that it does not":               {through(behind, request(proxy, "X-Forwarded-For", "unknown")), fallback, unread},
		"of several proxies, the last":       {unknown(), "10.0.0.2", "unknown via 10.0.0.2"},
		"a proxy calls on its own behalf":    {through(behind, request(proxy, "")), "", fallback},
		"a peer that is not trusted":         {through(behind, request("192.0.2.1:80", "X-Forwarded-For", "unknown")), "", "192.0.2.1"},
		"inside a Resolver that trusts less": {through(usher.Chain(behind, newResolver(t, clientip.Config{})), request(proxy, "X-Forwarded-For", "unknown")), "", fallback},
		"without a Resolver":                 {request(proxy, "X-Forwarded-For", client), "", fallback},
		"a stored address has none":          {clientip.WithAddr(unknown(), netip.MustParseAddr(evil)), "", evil},
		"an unknown address that is stored":  {clientip.WithAddr(unknown(), netip.Addr{}), "", "unknown"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if via, text := text(clientip.Via(tt.r)), clientip.String(tt.r); via != tt.via || text != tt.text {
				t.Errorf("got %q via %q, want %q via %q", text, via, tt.text, tt.via)
			}
		})
	}
}

// An access log outside the Resolver reads the address once the handler has returned.
func TestTheAddressReachesATrackedRequestOutside(t *testing.T) {
	behind := newResolver(t, clientip.Config{TrustedProxies: proxies})
	tracked := usher.Track(request(proxy, "X-Forwarded-For", client))
	if through(behind, tracked); text(clientip.Of(tracked)) != client {
		t.Errorf("got %q, want %q", text(clientip.Of(tracked)), client)
	}
}

func TestNetwork(t *testing.T) {
	const v6 = "[2001:db8:1:2:3::4]:80"
	wide := newResolver(t, clientip.Config{IPv6Prefix: 48})
	tests := map[string]struct {
		r    *http.Request
		want string
	}{
		"an IPv4 address is one client":           {request("192.0.2.1:80", ""), "192.0.2.1/32"},
		"IPv6 has 64 bits without a Resolver":     {request(v6, ""), "2001:db8:1:2::/64"},
		"a Resolver sets the number of bits":      {through(wide, request(v6, "")), "2001:db8:1::/48"},
		"also for a stored address":               {clientip.WithAddr(through(wide, request("@", "")), netip.MustParseAddr("2001:db8:7::1")), "2001:db8:7::/48"},
		"a stored address has 64 bits by itself":  {clientip.WithAddr(request("@", ""), netip.MustParseAddr("2001:db8:7::1")), "2001:db8:7::/64"},
		"a Resolver does not widen IPv4 networks": {through(wide, request("[::ffff:192.0.2.1]:80", "")), "192.0.2.1/32"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := clientip.Network(tt.r).String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	for _, r := range []*http.Request{request("@", ""), through(wide, request("@", ""))} {
		if got := clientip.Network(r); got != (netip.Prefix{}) {
			t.Errorf("an unknown address is in %v", got)
		}
	}
}

func TestIn(t *testing.T) {
	networks := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::ffff:172.16.0.0/108"), netip.MustParsePrefix("2001:db8:bad::/48"), {},
	}
	in := clientip.In(networks...)
	networks[0] = netip.MustParsePrefix("192.0.2.0/24")
	tests := map[string]struct {
		peer string
		want bool
	}{
		"an address of the network":      {"10.1.2.3:80", true},
		"in its IPv4-mapped form":        {"[::ffff:10.1.2.3]:80", true},
		"of a network that is mapped":    {"172.16.0.1:80", true},
		"outside a mapped network":       {"172.32.0.1:80", false},
		"IPv6":                           {"[2001:db8:bad::1]:80", true},
		"IPv6 outside":                   {"[2001:db8:bae::1]:80", false},
		"outside":                        {"11.0.0.1:80", false},
		"networks are copied":            {"192.0.2.1:80", false},
		"an unknown address":             {"@", false},
		"an address that is unspecified": {"0.0.0.0:80", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := in(request(tt.peer, "")); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
	behind := newResolver(t, clientip.Config{TrustedProxies: proxies})
	if !in(request(proxy, "X-Forwarded-For", client)) || in(through(behind, request(proxy, "X-Forwarded-For", client))) {
		t.Error("the address is not the one that the Resolver has stored")
	}
	if clientip.In()(request("10.1.2.3:80", "")) {
		t.Error("no networks hold an address")
	}
}

func TestThePatternOfTheOuterRequestIsRestored(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{id}", func(http.ResponseWriter, *http.Request) {})
	r := httptest.NewRequest(http.MethodGet, "/items/1", nil)
	newResolver(t, clientip.Config{}).Wrap(mux).ServeHTTP(httptest.NewRecorder(), r)
	if r.Pattern != "GET /items/{id}" {
		t.Errorf("the pattern is %q", r.Pattern)
	}
}

// An abandoned handler may still be on its way through a Resolver while the
// middlewares outside read the address.
func TestAnAbandonedHandlerAndItsMiddlewaresDoNotRace(t *testing.T) {
	behind := newResolver(t, clientip.Config{TrustedProxies: proxies})
	done := make(chan struct{})
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		for range 1000 {
			through(behind, r)
		}
	})
	h := behind.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.TimeoutHandler(inner, time.Nanosecond, "").ServeHTTP(w, r)
		for range 1000 {
			if got := text(clientip.Of(r)); got != client {
				t.Fatalf("got %s", got)
			}
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), request(proxy, "X-Forwarded-For", client))
	<-done
}

func TestMiddlewareAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	nothing := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { clientip.Network(r) })
	behind := newResolver(t, clientip.Config{TrustedProxies: proxies}).Wrap(clientip.RequireTLS().Wrap(nothing))
	const list = evil + ", " + client + ", 10.0.0.2"
	tests := map[string]struct {
		make func() *http.Request
		want float64
	}{
		"outermost: the exchange with the copy of the request": {func() *http.Request { return request(proxy, "X-Forwarded-For", list) }, 1},
		"an exchange is there":                                 {func() *http.Request { return usher.Track(request(proxy, "X-Forwarded-For", list)) }, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			// Each run needs a new request: storing a second address in the same request
			// costs another allocation.
			requests := make([]*http.Request, 101)
			for i := range requests {
				requests[i] = tt.make()
				requests[i].Header.Set("X-Forwarded-Proto", "https, https")
			}
			w, i := httptest.NewRecorder(), 0
			if got := testing.AllocsPerRun(100, func() { behind.ServeHTTP(w, requests[i]); i++ }); got != tt.want {
				t.Errorf("%v allocations, want %v", got, tt.want)
			}
			if w.Code != http.StatusOK {
				t.Errorf("status %d", w.Code)
			}
		})
	}
}

func BenchmarkMiddleware(b *testing.B) {
	nothing := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { clientip.Network(r) })
	res := newResolver(b, clientip.Config{TrustedProxies: proxies})
	r := request(proxy, "X-Forwarded-For", evil+", "+client+", 10.0.0.2")
	r.Header.Set("X-Forwarded-Proto", "https")
	for name, h := range map[string]http.Handler{
		"Resolver": res.Wrap(nothing), "Resolver and RequireTLS": res.Wrap(clientip.RequireTLS().Wrap(nothing)),
	} {
		b.Run(name, func(b *testing.B) {
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}
