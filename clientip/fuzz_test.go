package clientip_test

import (
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher/clientip"
)

// The slow oracle consists of the grammars as regular expressions and of a walk over the
// list of all elements.

const token = "[0-9A-Za-z!#$%&'*+.^_`|~-]+"

var (
	port     = `(?::(?:[0-9]{1,5}|_` + token + `))?`
	nodeForm = regexp.MustCompile(`^(?s:` +
		`([0-9.]+)` + port + `|` +
		`\[([0-9A-Fa-f:.]+)(?:%[^\]]+)?\]` + port + `|` +
		`([0-9A-Fa-f:.]+)(?:%.+)?` +
		`)$`)

	quoted      = `"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*"`
	pair        = `(` + token + `)=(` + quoted + `|[^\x00-\x20",;\\\x7f-\x{10ffff}]+)`
	pairForm    = regexp.MustCompile(pair)
	elementForm = regexp.MustCompile(`^[ \t;]*(?:` + pair + `[ \t]*(?:;[ \t;]*|$))*$`)
	pairEscape  = regexp.MustCompile(`(?s)\\(.)`)
)

func slowNode(s string) netip.Addr {
	m := nodeForm.FindStringSubmatch(s)
	if m == nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(m[1] + m[2] + m[3])
	bare6 := m[3] != ""
	if err != nil || m[2] != "" && !addr.Is6() || bare6 && strings.Contains(s, "%") && !addr.Is6() {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// absent stands for an empty element. No element has an address with a zone.
var absent = netip.IPv6Unspecified().WithZone("absent")

func slowXForwardedFor(lines []string) (all []netip.Addr) {
	for element := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		if element = strings.Trim(element, " \t"); element == "" {
			all = append(all, absent)
		} else {
			all = append(all, slowNode(element))
		}
	}
	return all
}

// slowForwarded repeatedly cuts the shortest well-formed suffix off each line, as its
// last element. What remains is one malformed element.
func slowForwarded(lines []string) (all []netip.Addr) {
	for _, line := range lines {
		var elements []netip.Addr
		for more := true; more; {
			end, found := len(line), false
			for !found && end >= 0 {
				end = strings.LastIndexByte(line[:end], ',')
				found = elementForm.MatchString(line[end+1:])
			}
			if !found {
				elements = append(elements, netip.Addr{})
				break
			}
			elements = append(elements, slowElement(line[end+1:]))
			if more = end >= 0; more {
				line = line[:end]
			}
		}
		slices.Reverse(elements)
		all = append(all, elements...)
	}
	return all
}

func slowElement(element string) netip.Addr {
	if strings.Trim(element, " \t") == "" {
		return absent
	}
	var nodes []string
	for _, m := range pairForm.FindAllStringSubmatch(element, -1) {
		if strings.ToLower(m[1]) != "for" {
			continue
		}
		value := m[2]
		if strings.HasPrefix(value, `"`) {
			value = pairEscape.ReplaceAllString(value[1:len(value)-1], "$1")
		}
		nodes = append(nodes, value)
	}
	if len(nodes) != 1 {
		return netip.Addr{}
	}
	return slowNode(nodes[0])
}

var slowTrusted = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:aaaa::/48"), netip.MustParsePrefix("192.0.2.10/32"),
}

func slowTrusts(addr netip.Addr) bool {
	for _, p := range slowTrusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// check compares the result of a Resolver with that of the walk over all elements, and
// asserts what the package promises for every walk.
func check(t *testing.T, res *clientip.Resolver, r *http.Request, all []netip.Addr) {
	t.Helper()
	want, via := netip.MustParseAddr(fallback), netip.Addr{}
	for i := len(all) - 1; i >= 0 && slowTrusts(want); i-- {
		if len(all)-i > 32 || !all[i].IsValid() {
			want, via = netip.Addr{}, want
		} else if all[i] != absent {
			want = all[i]
		}
	}
	text := found(t, res, r)
	r = through(res, r)
	got := clientip.Of(r)
	if got != want || clientip.Via(r) != via {
		t.Errorf("got %v via %v, want %v via %v of %v", got, clientip.Via(r), want, via, all)
	}
	if !got.IsValid() {
		if !slowTrusts(via) || text != "unknown via "+via.String() {
			t.Errorf("%q does not name the trusted proxy %v", text, via)
		}
		return
	}
	if got.Zone() != "" || got.Is4In6() {
		t.Errorf("%v is not the one form of its address", got)
	}
	if got == netip.MustParseAddr(fallback) {
		return
	}
	for _, addr := range slices.Backward(all) {
		if addr == got {
			return
		}
		if addr != absent && !slowTrusts(addr) {
			t.Fatalf("got %v, which is left of the untrusted %v in %v", got, addr, all)
		}
	}
	t.Errorf("%v is neither the peer nor in %v", got, all)
}

// short reports whether no line can hold an element that is too long to be read.
func short(lines []string) bool {
	for _, line := range lines {
		if len(line) > 512 {
			return false
		}
	}
	return true
}

func FuzzXForwardedFor(f *testing.F) {
	for _, seed := range []string{
		"", "198.51.100.7", "203.0.113.66, 198.51.100.7, 10.0.0.2", "198.51.100.7\n10.0.0.2", "10.0.0.3,10.0.0.2",
		"[2001:db8::7]:80, 2001:db8:aaaa::1", "::ffff:10.0.0.2,::ffff:a00:2", "fe80::1%eth0", "[fe80::1%a]b]:1",
		"198.51.100.7,,10.0.0.2", "198.51.100.7:_x", "unknown", "\n\n", strings.Repeat("10.0.0.2,", 40) + "10.0.0.3", "1.2.3.4%a", "%", "[", ":", "[]:",
	} {
		f.Add(seed)
	}
	res := newResolver(f, clientip.Config{TrustedProxies: proxies})
	f.Fuzz(func(t *testing.T, header string) {
		lines := strings.Split(header, "\n")
		if !short(lines) {
			t.Skip("longer than the oracle reads")
		}
		check(t, res, request(proxy, "X-Forwarded-For", lines...), slowXForwardedFor(lines))
	})
}

// FuzzPeer shows that the fast parser of the peer's address returns what the grammar
// requires.
func FuzzPeer(f *testing.F) {
	for _, seed := range []string{
		"", "192.0.2.1:80", "192.0.2.1", "192.0.2.1:", "192.0.2.1:123456", "192.0.2.01:80", "0.0.0.0:0", "256.0.2.1:80", "1.2.3:80", "1.2.3.4.5:80",
		"1..3.4:80", "192.0.2.1:_x", "[2001:db8::1]:80", "[::ffff:192.0.2.1]:80", "@", "255.255.255.255:65535", "1.2.3.4:5:6", "1.2.3.4:80 ",
	} {
		f.Add(seed)
	}
	res := newResolver(f, clientip.Config{})
	f.Fuzz(func(t *testing.T, peer string) {
		if got, want := res.Addr(request(peer, "")), slowNode(peer); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func FuzzForwarded(f *testing.F) {
	for _, seed := range []string{
		"", "for=198.51.100.7", `for=203.0.113.66, for="[2001:db8::7]:80";proto=https, for=10.0.0.2`,
		"for=198.51.100.7\nfor=10.0.0.2", `for="\, for="10.0.0.2"`, `for=1.2.3.4;x="a\", for=10.0.0.2"`, `x=",\\";for=10.0.0.2`,
		`for="1.2.3.4, for=5.6.7.8`, `;;for=1.2.3.4 ; by=x`, "for=_x", "for=unknown", `for="1\.2.3.4"`, "for=1.2.3.4;for=1.2.3.4", "=", `"`, `\"`, `for="\`,
		`x="a, b=";for=10.0.0.2;c=""`,
	} {
		f.Add(seed)
	}
	res := newResolver(f, clientip.Config{TrustedProxies: proxies, Header: "Forwarded"})
	f.Fuzz(func(t *testing.T, header string) {
		lines := strings.Split(header, "\n")
		if !short(lines) {
			t.Skip("longer than the oracle reads")
		}
		check(t, res, request(proxy, "Forwarded", lines...), slowForwarded(lines))
	})
}

// FuzzForwardedPrefix shows that nothing that a client sends changes how the element of
// a proxy is read.
func FuzzForwardedPrefix(f *testing.F) {
	for _, seed := range []string{"", `for="`, `\`, `for="\`, `x="a",`, `"`, `for=203.0.113.66`} {
		f.Add(seed)
	}
	res := newResolver(f, clientip.Config{TrustedProxies: proxies, Header: "Forwarded"})
	f.Fuzz(func(t *testing.T, prefix string) {
		for _, appended := range []string{
			`for=198.51.100.7`, `for="198.51.100.7:80"`, `by=10.0.0.1;for="198.51.100.7";host="a,\"b"`,
		} {
			got := res.Addr(request(proxy, "Forwarded", prefix+", "+appended+", for=10.0.0.2"))
			if got != netip.MustParseAddr(client) {
				t.Errorf("%q turned %s into %v", prefix, appended, got)
			}
		}
	})
}

var secureScheme = regexp.MustCompile(`^[ \t]*([hH][tT][tT][pP][sS]|[wW][sS][sS])[ \t]*$`)

// FuzzRequireTLS shows that only trusted proxies can state that a client used TLS, and
// only if nothing else that they state contradicts this.
func FuzzRequireTLS(f *testing.F) {
	for _, seed := range []string{
		"", "https", "http", "https, https", "https,http", "https\nhttp", "HTTPS", "wss", `"https"`, "https,", ",https", "\n", "http\u017f",
	} {
		f.Add(seed, "")
		f.Add(seed, "for=198.51.100.7;proto=https")
	}
	f.Add("https", "for=198.51.100.7;proto=http")
	f.Add("https", "for=203.0.113.66;proto=https, for=198.51.100.7;proto=http")
	f.Add("", `for=203.0.113.66;x="`)
	both := map[string]*clientip.Resolver{
		"X-Forwarded-For": newResolver(f, clientip.Config{TrustedProxies: proxies}),
		"Forwarded":       newResolver(f, clientip.Config{TrustedProxies: proxies, Header: "Forwarded"}),
	}
	f.Fuzz(func(t *testing.T, protos, elements string) {
		if !short(strings.Split(protos, "\n")) {
			t.Skip("longer than the oracle reads")
		}
		const plain, secure = "for=198.51.100.7;proto=http", "for=198.51.100.7;proto=https"
		for field, res := range both {
			// with returns whether a request from peer with these fields is admitted.
			with := func(peer, protos, elements string) bool {
				r := request(peer, "")
				for name, text := range map[string]string{"X-Forwarded-Proto": protos, "Forwarded": elements} {
					if text != "" {
						r.Header[name] = strings.Split(text, "\n")
					}
				}
				return admits(res, r)
			}
			if with("198.51.100.7:80", protos, elements) {
				t.Errorf("%s: a client chooses its own scheme", field)
			}
			all := protos != "" && strings.Count(protos, ",")+strings.Count(protos, "\n") < 32
			for proto := range strings.SplitSeq(strings.ReplaceAll(protos, "\n", ","), ",") {
				all = all && secureScheme.MatchString(proto)
			}
			admitted := with(proxy, protos, elements)
			if admitted && protos != "" && !all {
				t.Errorf("%s: admitted although X-Forwarded-Proto is %q", field, protos)
			}
			switch field {
			case "X-Forwarded-For":
				if admitted && protos == "" {
					t.Errorf("admitted by Forwarded alone")
				}
				if got := with(proxy, protos, ""); got != all {
					t.Errorf("%q: admitted: %v, want %v", protos, got, all)
				}
				if with(proxy, protos+", http", elements) {
					t.Errorf("%q hides the scheme that a proxy appends", protos)
				}
			case "Forwarded":
				if admitted && elements == "" {
					t.Errorf("admitted by X-Forwarded-Proto alone")
				}
				if got := with(proxy, "", elements+", "+secure+", for=10.0.0.2;proto=http"); !got {
					t.Errorf("%q hides the element that a proxy appends", elements)
				}
			}
			if with(proxy, protos, elements+", "+plain) {
				t.Errorf("%s: %q hides the plain element that a proxy appends", field, elements)
			}
		}
	})
}

// FuzzSingleField shows that a field of one address names a client or nobody, and never
// the proxy that has sent it.
func FuzzSingleField(f *testing.F) {
	for _, seed := range []string{
		"", client, client + "\n" + client, "unknown", "unix:", " 10.0.0.5 ", "10.0.0.5, " + client, "[2001:db8::7]:80", "::ffff:10.0.0.5", "\n",
	} {
		f.Add(seed)
	}
	res := newResolver(f, clientip.Config{TrustedProxies: append([]string{"unix"}, proxies...), Header: "X-Real-IP"})
	f.Fuzz(func(t *testing.T, header string) {
		lines := strings.Split(header, "\n")
		if !short(lines) {
			t.Skip("longer than the oracle reads")
		}
		want := "unknown via " + fallback
		if len(lines) == 1 {
			if addr := slowNode(strings.Trim(lines[0], " \t")); addr.IsValid() {
				want = addr.String()
			}
		}
		if got := found(t, res, request(proxy, "X-Real-IP", lines...)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		onSocket := overUnix(request("@", "X-Real-IP", lines...))
		if got := found(t, res, onSocket); got != strings.TrimSuffix(want, " via "+fallback) {
			t.Errorf("over a Unix socket: got %q, want %q", got, want)
		}
		if got := found(t, res, request("@", "X-Real-IP", lines...)); got != "unknown" {
			t.Errorf("a RemoteAddr that looks like a Unix socket is trusted: got %q", got)
		}
	})
}
