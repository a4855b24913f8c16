package clientip_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
)

func Example() {
	ips, err := clientip.New(clientip.Config{TrustedProxies: []string{"10.0.0.0/8"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := ips.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println(clientip.Of(r))      // for logs
		fmt.Println(clientip.Network(r)) // for limits: an IPv6 client owns a whole /64
	}))

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.1:4000" // the load balancer
	r.Header.Set("X-Forwarded-For", "2001:db8:1:2::7, 10.0.0.9")
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output:
	// 2001:db8:1:2::7
	// 2001:db8:1:2::/64
}

// Without a Resolver, what a client claims about itself is never read.
func ExampleOf() {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "198.51.100.7:4000"
	r.Header.Set("X-Forwarded-For", "203.0.113.66")

	fmt.Println(clientip.Of(r))
	// Output: 198.51.100.7
}

// The common mistake is to take the leftmost address of X-Forwarded-For. The client
// writes that address, so each request can claim a different one.
func ExampleOf_incorrect() {
	leftmost := func(r *http.Request) string {
		first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
		return first
	}
	ips, err := clientip.New(clientip.Config{TrustedProxies: []string{"10.0.0.1"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := ips.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println("incorrect:", leftmost(r))
		fmt.Println("correct:  ", clientip.Of(r))
	}))

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.1:4000"
	// The client at 198.51.100.7 sent "203.0.113.66"; the proxy appended the rest.
	r.Header.Set("X-Forwarded-For", "203.0.113.66, 198.51.100.7")
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output:
	// incorrect: 203.0.113.66
	// correct:   198.51.100.7
}

// Another mistake is to trust every possible proxy.
func ExampleNew_incorrect() {
	_, err := clientip.New(clientip.Config{TrustedProxies: []string{"0.0.0.0/0"}})
	fmt.Println(err)
	// Output:
	// clientip.Config.TrustedProxies[0]: must not trust every address; to trust every peer, set DangerouslyTrustAnyPeer
}

func ExampleConfig_forwarded() {
	ips, err := clientip.New(clientip.Config{
		TrustedProxies: []string{"10.0.0.0/8"},
		Header:         "Forwarded",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.1:4000"
	r.Header.Set("Forwarded", `for=unknown, for="[2001:db8::7]:4711";proto=https, for=10.0.0.9`)

	fmt.Println(ips.Addr(r))
	// Output: 2001:db8::7
}

// A proxy terminates TLS and states the scheme of each request that it forwards.
func ExampleRequireTLS() {
	ips, err := clientip.New(clientip.Config{TrustedProxies: []string{"10.0.0.0/8"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := usher.Chain(ips, clientip.RequireTLS()).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "served")
	}))

	for _, peer := range []string{"10.0.0.1:4000", "198.51.100.7:4000"} {
		for _, proto := range []string{"https", "http"} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = peer
			r.Header.Set("X-Forwarded-Proto", proto)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			fmt.Println(peer, proto, w.Code)
		}
	}
	// Output:
	// 10.0.0.1:4000 https 200
	// 10.0.0.1:4000 http 403
	// 198.51.100.7:4000 https 403
	// 198.51.100.7:4000 http 403
}

// A mistake is to put RequireTLS inside authentication: the credential has been verified,
// and perhaps logged, before the request is refused.
func ExampleRequireTLS_incorrect() {
	auth := usher.Authenticate()
	for _, m := range []usher.Middleware{
		usher.Chain(auth, clientip.RequireTLS()), // incorrect
		usher.Chain(clientip.RequireTLS(), auth), // correct
	} {
		w := httptest.NewRecorder()
		m.Wrap(nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		fmt.Println(w.Code)
	}
	// Output:
	// 401
	// 403
}
