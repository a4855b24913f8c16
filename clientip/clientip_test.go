package clientip_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/race"
)

func newResolver(t testing.TB, c clientip.Config) *clientip.Resolver {
	t.Helper()
	res, err := clientip.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// request returns a request from peer with these values of one field.
func request(peer, field string, lines ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = peer
	if len(lines) > 0 {
		r.Header[http.CanonicalHeaderKey(field)] = lines
	}
	return r
}

// text returns the address as text, or "" if it is unknown.
func text(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

func TestPeer(t *testing.T) {
	tests := map[string]struct{ peer, want string }{
		"IPv4":                               {"192.0.2.1:1234", "192.0.2.1"},
		"IPv6":                               {"[2001:db8::1]:1234", "2001:db8::1"},
		"mapped IPv4 is IPv4":                {"[::ffff:192.0.2.1]:1234", "192.0.2.1"},
		"mapped IPv4 in hexadecimal is IPv4": {"[::ffff:c000:201]:1234", "192.0.2.1"},
		"a zone is removed":                  {"[fe80::1%eth0]:1234", "fe80::1"},
		"no port":                            {"192.0.2.1", "192.0.2.1"},
		"IPv6 without brackets or port":      {"2001:db8::1", "2001:db8::1"},
		"a Unix socket has no address":       {"@", ""},
		"an empty text is no address":        {"", ""},
		"a name is no address":               {"localhost:80", ""},
		"a named socket has no address":      {"/run/app.sock", ""},
	}
	none, err := clientip.New(clientip.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := request(tt.peer, "")
			if got := text(none.Addr(r)); got != tt.want {
				t.Errorf("zero Config: got %q, want %q", got, tt.want)
			}
			if got := text(clientip.Of(r)); got != tt.want {
				t.Errorf("without a Resolver: got %q, want %q", got, tt.want)
			}
		})
	}
}

// headers are the fields in which clients claim to have another address.
var headers = map[string][]string{
	"X-Forwarded-For":  {"203.0.113.66"},
	"Forwarded":        {"for=203.0.113.66"},
	"X-Real-Ip":        {"203.0.113.66"},
	"True-Client-Ip":   {"203.0.113.66"},
	"Cf-Connecting-Ip": {"203.0.113.66"},
	"X-Client-Ip":      {"203.0.113.66"},
	"X_Forwarded_For":  {"203.0.113.66"},
	"X_forwarded_for":  {"203.0.113.66"},
}

func TestNoHeaderOfAnUntrustedPeerIsBelieved(t *testing.T) {
	for _, field := range []string{"", "X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP"} {
		for _, trusted := range [][]string{nil, {"10.0.0.0/8", "::1"}} {
			res := newResolver(t, clientip.Config{Header: field, TrustedProxies: trusted})
			r := request("198.51.100.7:4000", "")
			maps.Copy(r.Header, headers)
			if got := text(res.Addr(r)); got != "198.51.100.7" {
				t.Errorf("header %q, trusted %q: got %s, want the peer", field, trusted, got)
			}
		}
	}
}

// TestR01 shows over a real connection that header fields change nothing. The peer is on
// the loopback.
func TestR01AnUntrustedPeerStaysInItsBucket(t *testing.T) {
	for _, field := range []string{"", "Forwarded", "X-Real-IP", "True-Client-IP"} {
		t.Run("header "+field, func(t *testing.T) {
			untrusted := newResolver(t, clientip.Config{Header: field, TrustedProxies: []string{"10.0.0.0/8"}})
			trusted := newResolver(t, clientip.Config{Header: field, TrustedProxies: []string{"127.0.0.1"}})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprintf(w, "%v %v", network(untrusted, r), network(trusted, r))
			}))
			defer server.Close()
			for i := range 3 {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				claim := fmt.Sprintf("203.0.113.%d", i)
				for name, lines := range headers {
					r.Header[name] = []string{strings.ReplaceAll(lines[0], "203.0.113.66", claim)}
				}
				resp, err := server.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				if diff := compare.Diff("127.0.0.1/32 "+claim+"/32", string(body)); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			}
		})
	}
}

func TestUnixSocket(t *testing.T) {
	res := newResolver(t, clientip.Config{DangerouslyTrustAnyPeer: true})
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%q %q", text(clientip.Of(r)), text(res.Addr(r)))
	}))
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", listener.Addr().String())
		},
	}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://socket.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", "203.0.113.66, 198.51.100.7")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"" "198.51.100.7"`; string(body) != want {
		t.Errorf("got %s, want %s", body, want)
	}
}

// The proxies of the tables below; 10.0.0.1 is the peer.
var proxies = []string{"10.0.0.0/8", "2001:db8:aaaa::/48", "192.0.2.10"}

const (
	proxy    = "10.0.0.1:9999"
	evil     = "203.0.113.66"
	client   = "198.51.100.7"
	fallback = "10.0.0.1"
	unread   = "unknown via " + fallback
)

// found returns the client of r behind res as a text. It asserts that the ways to ask for
// the client agree.
func found(t *testing.T, res *clientip.Resolver, r *http.Request) string {
	t.Helper()
	r = through(res, r)
	addr := clientip.Of(r)
	if again := res.Addr(r); again != addr {
		t.Errorf("Addr returns %v, and Of returns %v", again, addr)
	}
	if n := clientip.Network(r); n.IsValid() != addr.IsValid() {
		t.Errorf("Network returns %v for %v", n, addr)
	}
	everywhere := clientip.In(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
	if everywhere(r) != addr.IsValid() {
		t.Errorf("In reports %v for %v", everywhere(r), addr)
	}
	return clientip.String(r)
}

func TestXForwardedFor(t *testing.T) {
	long := strings.Repeat(" ", 1000)
	tests := map[string]struct {
		lines []string
		want  string
	}{
		"without the field, the peer":                       {nil, fallback},
		"one hop":                                           {[]string{client}, client},
		"a claim on the left does not count":                {[]string{evil + ", " + client}, client},
		"trusted proxies on the right are passed":           {[]string{evil + ", " + client + ", 10.0.0.3,10.0.0.2"}, client},
		"lines are one list in order":                       {[]string{evil, client, "10.0.0.2"}, client},
		"a list and a line":                                 {[]string{evil + "," + client, "10.0.0.2"}, client},
		"a trusted address left of a client is not reached": {[]string{"10.9.9.9, " + client}, client},
		"all trusted: the leftmost":                         {[]string{"10.0.0.4, 10.0.0.3", "10.0.0.2"}, "10.0.0.4"},
		"IPv6":                                              {[]string{evil + ", 2001:db8::7"}, "2001:db8::7"},
		"IPv6 in brackets":                                  {[]string{evil + ", [2001:db8::7]"}, "2001:db8::7"},
		"IPv6 with a port":                                  {[]string{evil + ", [2001:db8::7]:443"}, "2001:db8::7"},
		"IPv4 with a port":                                  {[]string{evil + ", " + client + ":443"}, client},
		"mapped IPv4":                                       {[]string{evil + ", ::ffff:198.51.100.7"}, client},
		"mapped IPv4 in hexadecimal":                        {[]string{evil + ", ::FFFF:c633:6407"}, client},
		"a mapped IPv4 address of a proxy is that proxy":    {[]string{client + ", ::ffff:10.0.0.2, [::ffff:a00:3]:80"}, client},
		"a zone is removed":                                 {[]string{evil + ", fe80::7%eth0"}, "fe80::7"},
		"a zone with a newline is removed":                  {[]string{evil + ", fe80::7%a\nb"}, "fe80::7"},
		"an IPv6 proxy is passed":                           {[]string{client + ", 2001:db8:aaaa::5"}, client},
		"a single trusted address is passed":                {[]string{client + ", 192.0.2.10"}, client},
		"its neighbour is the client":                       {[]string{client + ", 192.0.2.11"}, "192.0.2.11"},
		"blanks and tabs":                                   {[]string{evil + " ,\t " + client + " \t"}, client},

		"a word stops the walk at the peer":          {[]string{client + ", unknown"}, unread},
		"a word stops the walk at the nearest proxy": {[]string{client + ", unknown, 10.0.0.3, 10.0.0.2"}, "unknown via 10.0.0.3"},
		"an empty header has nobody":                 {[]string{""}, fallback},
		"commas alone have nobody":                   {[]string{", ,", ","}, fallback},
		"an empty element is ignored":                {[]string{client + ",, 10.0.0.2"}, client},
		"a trailing comma is ignored":                {[]string{evil + "," + client + " , "}, client},
		"an empty line is ignored":                   {[]string{client, "", "10.0.0.2"}, client},
		"32 empty elements are walked, and no more":  {[]string{client + strings.Repeat(",", 32)}, unread},
		"two addresses without a comma stop it":      {[]string{client + " 10.0.0.2"}, unread},
		"leading zeros stop it":                      {[]string{client + ", 010.0.0.2"}, unread},
		"an empty port stops it":                     {[]string{client + ":"}, unread},
		"a port of letters stops it":                 {[]string{client + ":http"}, unread},
		"a port of six digits stops it":              {[]string{client + ":123456"}, unread},
		"an open bracket stops it":                   {[]string{"[2001:db8::7"}, unread},
		"text behind a bracket stops it":             {[]string{"[2001:db8::7]443"}, unread},
		"IPv4 in brackets stops it":                  {[]string{"[" + client + "]"}, unread},
		"a zone on IPv4 stops it":                    {[]string{client + "%eth0"}, unread},
		"an empty zone stops it":                     {[]string{"fe80::7%"}, unread},
		"quotes stop it":                             {[]string{`"` + client + `"`}, unread},
		"an address as one number stops it":          {[]string{"3325256711"}, unread},
		"a CIDR block stops it":                      {[]string{client + "/32"}, unread},
		"an overlong element stops it":               {[]string{client + "," + long + "10.0.0.3, 10.0.0.2"}, "unknown via 10.0.0.2"},
		"32 elements are walked":                     {[]string{client + strings.Repeat(", 10.0.0.2", 31)}, client},
		"33 elements are not":                        {[]string{client + ", 10.0.0.3" + strings.Repeat(", 10.0.0.2", 31)}, "unknown via 10.0.0.3"},
		"33 lines are not":                           {append([]string{client, "10.0.0.3"}, slicesRepeat("10.0.0.2", 31)...), "unknown via 10.0.0.3"},
	}
	res := newResolver(t, clientip.Config{TrustedProxies: proxies})
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := found(t, res, request(proxy, "X-Forwarded-For", tt.lines...)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func slicesRepeat(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

func TestForwarded(t *testing.T) {
	tests := map[string]struct {
		lines []string
		want  string
	}{
		"without the field, the peer":             {nil, fallback},
		"one hop":                                 {[]string{"for=" + client}, client},
		"a claim on the left does not count":      {[]string{"for=" + evil + ", for=" + client}, client},
		"the case of a name does not matter":      {[]string{"For=" + evil + ", FOR=" + client}, client},
		"other parameters around it":              {[]string{"for=" + evil + `, by=10.0.0.1;for=` + client + `;proto=https;host="a, for=9.9.9.9"`}, client},
		"IPv6 is quoted":                          {[]string{"for=" + evil + `, for="[2001:db8::7]"`}, "2001:db8::7"},
		"IPv6 with a port":                        {[]string{"for=" + evil + `, for="[2001:db8::7]:4711"`}, "2001:db8::7"},
		"IPv4 with a port":                        {[]string{"for=" + evil + `, for="198.51.100.7:4711"`}, client},
		"an obfuscated port":                      {[]string{"for=" + evil + `, for="198.51.100.7:_p.1-x"`}, client},
		"mapped IPv4":                             {[]string{`for="[::ffff:198.51.100.7]"`}, client},
		"a zone is removed":                       {[]string{`for="[fe80::7%eth0]"`}, "fe80::7"},
		"proxies are passed, over lines":          {[]string{"for=" + evil, "for=" + client + ", for=10.0.0.3", `for="[2001:db8:aaaa::1]"`}, client},
		"all trusted: the leftmost":               {[]string{"for=10.0.0.4, for=10.0.0.3"}, "10.0.0.4"},
		"quoted pairs":                            {[]string{"for=" + evil + `, for="198.51.\1\00.7"`}, client},
		"an escaped quote in another parameter":   {[]string{"for=" + evil + `, for=` + client + `;x="\", for=9.9.9.9"`}, client},
		"an escaped backslash before a quote":     {[]string{"for=" + evil + `, for=` + client + `;x=",\\"`}, client},
		"empty parameters":                        {[]string{"for=" + evil + `, ;;for=` + client + `;`}, client},
		"blanks around semicolons":                {[]string{"for=" + evil + `, for=` + client + ` ; proto=http`}, client},
		"colons that are not quoted":              {[]string{"for=" + evil + `, for=[2001:db8::7]:80;host=a.example:80`}, "2001:db8::7"},
		"an open quote on the left hides nothing": {[]string{`for="` + evil + `, for=` + client}, client},
		"an open quote on the line before":        {[]string{`for="`, `for=` + client}, client},
		"a half escape on the left hides nothing": {[]string{`for="\, for="198.51.100.7"`}, client},
		"quotes on the left that meet its quotes": {[]string{`for=` + evil + `;x=", for="198.51.100.7"`}, client},

		"unknown stops the walk":              {[]string{"for=" + client + ", for=unknown"}, unread},
		"it stops at the nearest proxy":       {[]string{"for=" + client + ", for=unknown, for=10.0.0.2"}, "unknown via 10.0.0.2"},
		"an obfuscated name stops it":         {[]string{"for=" + client + ", for=_hidden, for=10.0.0.2"}, "unknown via 10.0.0.2"},
		"an element without for stops it":     {[]string{"for=" + client + ", proto=https"}, unread},
		"for twice stops it":                  {[]string{"for=" + client + ";for=" + client}, unread},
		"empty elements count as none":        {[]string{"for=" + client + ", ,for=10.0.0.2, "}, client},
		"an empty line counts as none":        {[]string{"for=" + client, " , "}, client},
		"an empty value stops it":             {[]string{"for="}, unread},
		"an empty quoted value stops it":      {[]string{`for=""`}, unread},
		"a bare address stops it":             {[]string{client}, unread},
		"blanks around the equals sign stop":  {[]string{"for = " + client}, unread},
		"text behind a quoted value stops it": {[]string{`for="198.51.100.7"x`}, unread},
		"an open quote on the right stops it": {[]string{`for=198.51.100.7, for="10.0.0.2`}, unread},
		"a quote inside a value stops it":     {[]string{`for=198.51.100.7"`}, unread},
		"a bad parameter beside it stops it":  {[]string{"for=" + client + ";by"}, unread},
		"a bad name beside it stops it":       {[]string{"for=" + client + ";b y=1"}, unread},
		"a control character stops it":        {[]string{"for=" + client + ";x=\"\x01\""}, unread},
		"an escaped backslash is kept":        {[]string{`for="\\198.51.100.7"`}, unread},
		"an overlong element stops it":        {[]string{"for=" + client + `, for=10.0.0.3;x="` + strings.Repeat("y", 600) + `", for=10.0.0.2`}, "unknown via 10.0.0.2"},
		"33 elements are not walked":          {[]string{"for=" + client + ", for=10.0.0.3" + strings.Repeat(", for=10.0.0.2", 31)}, "unknown via 10.0.0.3"},
	}
	res := newResolver(t, clientip.Config{TrustedProxies: proxies, Header: "forwarded"})
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := found(t, res, request(proxy, "Forwarded", tt.lines...)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSingleField(t *testing.T) {
	tests := map[string]struct {
		lines []string
		want  string
	}{
		"without the field, the peer":   {nil, fallback},
		"the address":                   {[]string{client}, client},
		"with blanks":                   {[]string{" " + client + "\t"}, client},
		"with a port":                   {[]string{client + ":80"}, client},
		"IPv6":                          {[]string{"2001:db8::7"}, "2001:db8::7"},
		"mapped IPv4":                   {[]string{"::ffff:198.51.100.7"}, client},
		"a trusted address is taken":    {[]string{"10.0.0.5"}, "10.0.0.5"},
		"two lines mean nobody":         {[]string{client, client}, unread},
		"a list means nobody":           {[]string{evil + ", " + client}, unread},
		"an empty line means nobody":    {[]string{""}, unread},
		"a word means nobody":           {[]string{"unknown"}, unread},
		"an overlong line means nobody": {[]string{strings.Repeat(" ", 600) + client}, unread},
	}
	res := newResolver(t, clientip.Config{TrustedProxies: proxies, Header: "cf-connecting-ip"})
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := request(proxy, "CF-Connecting-IP", tt.lines...)
			r.Header.Set("X-Forwarded-For", evil)
			if got := found(t, res, r); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestOnlyTheConfiguredFieldIsRead(t *testing.T) {
	for _, field := range []string{"", "Forwarded", "X-Real-IP"} {
		res := newResolver(t, clientip.Config{TrustedProxies: proxies, Header: field})
		r := request(proxy, "")
		for name, lines := range headers {
			if chosen := field == "" && name == "X-Forwarded-For" || http.CanonicalHeaderKey(field) == name; !chosen {
				r.Header[name] = lines
			}
		}
		if got := text(res.Addr(r)); got != fallback {
			t.Errorf("header %q: got %s, want the peer", field, got)
		}
	}
}

func TestDangerouslyTrustAnyPeer(t *testing.T) {
	tests := map[string]struct {
		config clientip.Config
		peer   string
		field  string
		lines  []string
		want   string
	}{
		"the rightmost of the list, not the leftmost": {clientip.Config{}, "@", "X-Forwarded-For", []string{evil + ", " + client}, client},
		"known proxies are passed": {
			clientip.Config{TrustedProxies: proxies}, "@", "X-Forwarded-For", []string{evil + ", " + client + ", 10.0.0.2"}, client,
		},
		"a peer outside the list is trusted": {
			clientip.Config{TrustedProxies: proxies}, "8.8.8.8:1", "X-Forwarded-For", []string{client}, client,
		},
		"a single field":                       {clientip.Config{Header: "X-Real-IP"}, "@", "X-Real-IP", []string{client}, client},
		"no field leaves the peer":             {clientip.Config{}, "8.8.8.8:1", "", nil, "8.8.8.8"},
		"a bad field leaves it unknown":        {clientip.Config{}, "@", "X-Forwarded-For", []string{client + ", x"}, "unknown"},
		"no field leaves it unknown":           {clientip.Config{Header: "Forwarded"}, "@", "", nil, "unknown"},
		"a bad single field leaves it unknown": {clientip.Config{Header: "X-Real-IP"}, "8.8.8.8:1", "X-Real-IP", []string{"x"}, "unknown via 8.8.8.8"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.config.DangerouslyTrustAnyPeer = true
			res := newResolver(t, tt.config)
			if got := found(t, res, request(tt.peer, tt.field, tt.lines...)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// network returns the network of the client of r behind res.
func network(res *clientip.Resolver, r *http.Request) netip.Prefix {
	return clientip.Network(through(res, r))
}

func TestNetworkOfEveryAddress(t *testing.T) {
	tests := []struct {
		bits       int
		addr, want string
	}{
		{0, "192.0.2.1", "192.0.2.1/32"},
		{0, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{0, "::ffff:192.0.2.1", "192.0.2.1/32"},
		{0, "fe80::1%eth0", "fe80::/64"},
		{0, "2001:db8::192.0.2.1", "2001:db8::/64"},
		{0, "64:ff9b::192.0.2.1", "192.0.2.1/32"},
		{48, "64:ff9b::c000:202", "192.0.2.2/32"},
		{0, "64:ff9b:1::192.0.2.1", "64:ff9b:1::/64"},
		{1, "2001:db8::1", "::/1"},
		{1, "192.0.2.1", "192.0.2.1/32"},
		{48, "2001:db8:1:2::1", "2001:db8:1::/48"},
		{56, "2001:db8:1:2ff::1", "2001:db8:1:200::/56"},
		{128, "2001:db8::1", "2001:db8::1/128"},
		{48, "::ffff:192.0.2.1", "192.0.2.1/32"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s by %d", tt.addr, tt.bits), func(t *testing.T) {
			res := newResolver(t, clientip.Config{IPv6Prefix: tt.bits})
			if got := network(res, request(net.JoinHostPort(tt.addr, "80"), "")); got.String() != tt.want {
				t.Errorf("of the peer: got %v, want %v", got, tt.want)
			}
			r := clientip.WithAddr(through(res, request("@", "")), netip.MustParseAddr(tt.addr))
			if got := clientip.Network(r); got.String() != tt.want {
				t.Errorf("of a stored address: got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestR03OneClientHasOneBucket(t *testing.T) {
	res := newResolver(t, clientip.Config{TrustedProxies: proxies})
	buckets := map[netip.Prefix]bool{}
	for i := range 1000 {
		buckets[network(res, request(proxy, "X-Forwarded-For", fmt.Sprintf("2001:db8:1:2:%x::%x", i, i*7)))] = true
		buckets[network(res, request(fmt.Sprintf("[2001:db8:1:2::%x]:80", i), ""))] = true
	}
	if len(buckets) != 1 {
		t.Errorf("one /64 has %d buckets", len(buckets))
	}
	clear(buckets)
	for _, notation := range []string{"1.2.3.4", "::ffff:1.2.3.4", "::FFFF:102:304", "[::ffff:1.2.3.4]:80", "0:0:0:0:0:ffff:0102:0304", "1.2.3.4:5"} {
		buckets[network(res, request(proxy, "X-Forwarded-For", notation))] = true
	}
	if len(buckets) != 1 {
		t.Errorf("one IPv4 address has %d buckets: %v", len(buckets), buckets)
	}
	clear(buckets)
	for i := range 100 {
		buckets[network(res, request(proxy, "X-Forwarded-For", fmt.Sprintf("::ffff:1.2.3.%d", i)))] = true
	}
	if len(buckets) != 100 {
		t.Errorf("100 mapped IPv4 addresses share %d buckets", len(buckets))
	}
}

func TestNewReportsEveryFault(t *testing.T) {
	_, err := clientip.New(clientip.Config{
		TrustedProxies: []string{"10.0.0.0/8", "10.0.0.0/33", "0.0.0.0/0", "::/0", "::ffff:0:0/96", "::/1", "::ffff:0:0/90", "fe80::1%eth0", "proxy.example", "", "::ffff:10.0.0.0/104"},
		Header:         "X-Real IP",
		IPv6Prefix:     129,
	})
	if err == nil {
		t.Fatal("no error")
	}
	const (
		shape = `must be an IP address or a CIDR block, without a zone, or "unix"`
		all   = "must not trust every address; to trust every peer, set DangerouslyTrustAnyPeer"
		at    = "clientip.Config.TrustedProxies"
	)
	want := []string{
		at + "[1]: " + shape,
		at + "[2]: " + all,
		at + "[3]: " + all,
		at + "[4]: " + all,
		at + "[6]: must not mix IPv4 and IPv6; list a block of each",
		at + "[7]: " + shape,
		at + "[8]: " + shape,
		at + "[9]: " + shape,
		"clientip.Config.Header: must be the name of a header field",
		"clientip.Config.IPv6Prefix: must be between 1 and 128, or 0 for 64",
	}
	if diff := compare.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := clientip.New(clientip.Config{IPv6Prefix: -1}); err == nil {
		t.Error("New accepts a negative prefix")
	}
}

func TestTrustedProxiesMatchInEveryNotation(t *testing.T) {
	for _, trusted := range []string{"10.0.0.0/8", "10.0.0.1", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1", "10.1.2.3/8"} {
		for _, peer := range []string{"10.0.0.1:80", "[::ffff:10.0.0.1]:80"} {
			res := newResolver(t, clientip.Config{TrustedProxies: []string{trusted}})
			if got := text(res.Addr(request(peer, "X-Forwarded-For", client))); got != client {
				t.Errorf("trusted %s, peer %s: got %s", trusted, peer, got)
			}
		}
	}
}

func TestConfigIsCopied(t *testing.T) {
	trusted := []string{"10.0.0.0/8"}
	res := newResolver(t, clientip.Config{TrustedProxies: trusted})
	trusted[0] = "192.0.2.0/24"
	if got := text(res.Addr(request(proxy, "X-Forwarded-For", client))); got != client {
		t.Errorf("got %s", got)
	}
}

func TestAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	none := newResolver(t, clientip.Config{})
	xff := newResolver(t, clientip.Config{TrustedProxies: proxies})
	fwd := newResolver(t, clientip.Config{TrustedProxies: proxies, Header: "Forwarded"})
	one := newResolver(t, clientip.Config{TrustedProxies: proxies, Header: "X-Real-IP"})
	tests := map[string]struct {
		res *clientip.Resolver
		r   *http.Request
	}{
		"peer only":             {none, request("192.0.2.1:80", "X-Forwarded-For", client)},
		"peer only, IPv6":       {none, request("[2001:db8::1%eth0]:80", "")},
		"X-Forwarded-For":       {xff, request(proxy, "X-Forwarded-For", evil+", "+client+", 10.0.0.2")},
		"X-Forwarded-For lines": {xff, request(proxy, "X-Forwarded-For", evil, "2001:db8::7", "10.0.0.2")},
		"Forwarded":             {fwd, request(proxy, "Forwarded", `for=`+evil+`, for="[2001:db8::7]:80";proto=https`)},
		"a single field":        {one, request(proxy, "X-Real-IP", client)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := testing.AllocsPerRun(100, func() { tt.res.Addr(tt.r) }); got != 0 {
				t.Errorf("%v allocations", got)
			}
		})
	}
}

func BenchmarkAddr(b *testing.B) {
	benchmarks := map[string]struct {
		config clientip.Config
		r      *http.Request
	}{
		"peer":            {clientip.Config{}, request("192.0.2.1:80", "")},
		"X-Forwarded-For": {clientip.Config{TrustedProxies: proxies}, request(proxy, "X-Forwarded-For", evil+", "+client+", 10.0.0.2")},
		"Forwarded": {
			clientip.Config{TrustedProxies: proxies, Header: "Forwarded"},
			request(proxy, "Forwarded", `for=`+evil+`, for="[2001:db8::7]:80";proto=https, for=10.0.0.2`),
		},
		"hostile commas": {clientip.Config{TrustedProxies: proxies}, request(proxy, "X-Forwarded-For", strings.Repeat(",", 900<<10))},
		"hostile length": {clientip.Config{TrustedProxies: proxies}, request(proxy, "X-Forwarded-For", strings.Repeat("1", 900<<10))},
		"hostile hops":   {clientip.Config{TrustedProxies: proxies}, request(proxy, "X-Forwarded-For", strings.Repeat(", 10.0.0.2", 90<<10))},
		"hostile quotes": {
			clientip.Config{TrustedProxies: proxies, Header: "Forwarded"},
			request(proxy, "Forwarded", strings.Repeat(`\"`, 450<<10)),
		},
	}
	for name, bb := range benchmarks {
		b.Run(name, func(b *testing.B) {
			res := newResolver(b, bb.config)
			b.ReportAllocs()
			for b.Loop() {
				res.Addr(bb.r)
			}
		})
	}
}
