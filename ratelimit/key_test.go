package ratelimit_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/ratelimit"
)

// lengthy are the ways in which a text that a client has chosen becomes a key.
var lengthy = map[string]func(text string) ratelimit.Key{
	"TextKey": ratelimit.TextKey,
	"ByPrincipal": func(text string) ratelimit.Key {
		return keyFor(ratelimit.ByPrincipal(), usher.Principal{Kind: "jwt", ID: text})
	},
	"ByOwner": func(text string) ratelimit.Key {
		return keyFor(ratelimit.ByOwner(), usher.Principal{Kind: "jwt", ID: "a token", Owner: text})
	},
	"ByOwner without an owner": func(text string) ratelimit.Key {
		return keyFor(ratelimit.ByOwner(), usher.Principal{Kind: "jwt", ID: text})
	},
	"ByRoute": func(text string) ratelimit.Key {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Pattern = text
		k, _ := ratelimit.ByRoute()(r)
		return k
	},
	"ByPrincipal without a kind": func(text string) ratelimit.Key {
		return keyFor(ratelimit.ByPrincipal(), usher.Principal{ID: text})
	},
	"Combine": func(text string) ratelimit.Key {
		return keyFor(ratelimit.Combine(ratelimit.Global(), ratelimit.ByPrincipal()), usher.Principal{Kind: "jwt", ID: text})
	},
}

func keyFor(f ratelimit.KeyFunc, p usher.Principal) ratelimit.Key {
	k, _ := f(usher.WithPrincipal(httptest.NewRequest(http.MethodGet, "/", nil), &p))
	return k
}

// A key takes little memory however long its text is, and equals no other.
func TestALongTextIsAKeyOfItsOwn(t *testing.T) {
	digest := ratelimit.TextKey(strings.Repeat("x", 65)).Digest()
	texts := []string{string(digest[:]), "", "x"}
	for _, n := range []int{63, 64, 65, 66, 100, 511, 512, 513, 1024, 65_536} {
		// They differ in their first byte, in their last byte, and in their length.
		text := strings.Repeat("x", n-1)
		texts = append(texts, text+"x", text+"y", "y"+text)
	}
	seen := make(map[ratelimit.Key]string)
	add := func(k ratelimit.Key, what string) {
		if other, ok := seen[k]; ok {
			t.Errorf("%s is the same key as %s", what, other)
		}
		seen[k] = what
	}
	for _, p := range []string{"::/0", "::2/128", "192.0.2.1/32", "2001:db8::/64"} {
		add(ratelimit.AddressKey(netip.MustParsePrefix(p)), p)
	}
	// Clients choose IPv6 addresses too: these have the bytes of names, of numbers and of digests.
	for _, name := range []string{"text", "route", "owner", "combined", "jwt"} {
		address := netip.AddrFrom16([16]byte(append([]byte(name), make([]byte, 16-len(name))...)))
		add(ratelimit.AddressKey(netip.PrefixFrom(address, 128)), name+" as an address")
		texts = append(texts, name)
	}
	for _, text := range texts {
		sum := sha256.Sum256([]byte(text))
		for _, last := range []byte{0, 1, 2, sum[15], sum[15] | 1} {
			sum[15] = last
			address := netip.AddrFrom16([16]byte(sum[:16]))
			if k := ratelimit.AddressKey(netip.PrefixFrom(address, 128)); seen[k] == "" {
				add(k, fmt.Sprintf("the digest of a text of %d bytes, ending in %d, as an address", len(text), last))
			}
		}
	}
	for name, key := range lengthy {
		if name == "ByOwner without an owner" { // whose keys are those of ByPrincipal
			continue
		}
		for i, text := range texts {
			k := key(text)
			add(k, fmt.Sprintf("%s of text %d, of %d bytes", name, i, len(text)))
			if k != key(strings.Clone(text)) {
				t.Errorf("%s of text %d is two keys", name, i)
			}
		}
	}
	strs, digests := make(map[string]bool), make(map[[16]byte]bool)
	for k := range seen {
		strs[k.String()], digests[k.Digest()] = true, true
		if n := len(k.String()); n > 128 {
			t.Errorf("the text of a key has %d bytes", n)
		}
	}
	if len(strs) != len(seen) || len(digests) != len(seen) {
		t.Errorf("%d keys have %d texts and %d digests", len(seen), len(strs), len(digests))
	}
}

// A store keeps no text that a client has made long: not with what is used, nor with the
// places in use.
func TestAStoreKeepsNoLongText(t *testing.T) {
	const keys = 1024
	text := []byte(strings.Repeat("x", 64<<10))
	for name, l := range map[string]ratelimit.Limit{
		"token bucket":   ratelimit.TokenBucket(5, time.Hour, 5),
		"rolling window": ratelimit.RollingWindow(5, time.Hour),
		"places":         ratelimit.Concurrency(5),
	} {
		t.Run(name, func(t *testing.T) {
			m := memoryOf(t, keys)
			before := heap()
			for i := range keys {
				copy(text, fmt.Sprint(i, "."))
				c := []ratelimit.Charge{{Policy: "p", Key: ratelimit.TextKey(string(text)), Limit: l, Cost: 1}}
				if ok, err := take(t.Context(), m, c); !ok || err != nil {
					t.Fatalf("key %d: admitted %v (%v)", i, ok, err)
				}
			}
			if n := int64(heap() - before); n > 1000*keys {
				t.Errorf("%d bytes for each key", n/keys)
			}
			if n := m.Len("p"); n < keys/2 {
				t.Errorf("%d of %d keys are kept", n, keys)
			}
		})
	}
}

func TestALongTextIsHashedInPlace(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations are not exact under the race detector")
	}
	text := strings.Repeat("x", 64<<10)
	if n := testing.AllocsPerRun(10, func() { _ = ratelimit.TextKey(text) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAddressKeyIsThatOfRequestsFromTheBlock(t *testing.T) {
	for _, c := range []struct{ name, block, peer string }{
		{"an IPv4 address", "192.0.2.7/32", "192.0.2.7:4000"},
		{"its IPv4-mapped form", "::ffff:192.0.2.7/128", "192.0.2.7:4000"},
		{"the network of an IPv6 address", "2001:db8:1:2::/64", "[2001:db8:1:2::7]:4000"},
		{"an address and the length of its network", "2001:db8:1:2::9/64", "[2001:db8:1:2::7]:4000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = c.peer
			want, _ := ratelimit.ByAddress()(r)
			if got := ratelimit.AddressKey(netip.MustParsePrefix(c.block)); got != want {
				t.Errorf("AddressKey(%s) = %s, want %s", c.block, got, want)
			}
		})
	}
}
