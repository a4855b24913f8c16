package clientip_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/usher-go/usher/clientip"
)

func Example() {
	ips, err := clientip.New(clientip.Config{TrustedProxies: []string{"10.0.0.0/8"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.1:4000" // the load balancer
	r.Header.Set("X-Forwarded-For", "2001:db8:1:2::7, 10.0.0.9")

	fmt.Println(ips.Addr(r))
	fmt.Println(ips.Prefix(r))
	// Output:
	// 2001:db8:1:2::7
	// 2001:db8:1:2::/64
}

// Without a trusted proxy, what a client says about itself is never read.
func ExampleResolver_Addr_peerOnly() {
	var ips *clientip.Resolver // as good as clientip.New(clientip.Config{})

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "198.51.100.7:4000"
	r.Header.Set("X-Forwarded-For", "203.0.113.66")

	fmt.Println(ips.Addr(r))
	// Output: 198.51.100.7
}

// The common mistake: to take the leftmost address of X-Forwarded-For. That one
// is written by the client, so each request can claim another.
func ExampleResolver_Addr_incorrect() {
	leftmost := func(r *http.Request) string {
		first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
		return first
	}
	ips, err := clientip.New(clientip.Config{TrustedProxies: []string{"10.0.0.1"}})
	if err != nil {
		fmt.Println(err)
		return
	}

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.1:4000"
	// The client at 198.51.100.7 sent "203.0.113.66"; the proxy appended the rest.
	r.Header.Set("X-Forwarded-For", "203.0.113.66, 198.51.100.7")

	fmt.Println("incorrect:", leftmost(r))
	fmt.Println("correct:  ", ips.Addr(r))
	// Output:
	// incorrect: 203.0.113.66
	// correct:   198.51.100.7
}

// The other common mistake: to trust every proxy there could be.
func ExampleNew_incorrect() {
	_, err := clientip.New(clientip.Config{TrustedProxies: []string{"0.0.0.0/0"}})
	fmt.Println(err)
	// Output:
	// clientip.Config.TrustedProxies[0]: trusts every address; to believe whoever calls, set DangerouslyTrustAnyPeer
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
