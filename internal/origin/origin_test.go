package origin_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/origin"
)

func TestFault(t *testing.T) {
	const (
		form     = "must be scheme://host or scheme://host:port"
		wildcard = "must be one origin, without a wildcard"
	)
	for text, want := range map[string]string{
		"https://app.example.com":      "",
		"https://app.example.com:8443": "",
		"http://app.example.com":       "",
		"http://localhost:3000":        "",
		"http://app.example.com:443":   "",
		"https://127.0.0.1:8080":       "",
		"https://[::1]:8080":           "",
		"https://xn--bcher-kva.de":     "",
		"https://my_host.example":      "",
		"capacitor://localhost":        "",
		"ionic://localhost":            "",
		"app://MyApplication":          "",
		"chrome-extension://aapbdbdo":  "",

		"https://App.Example.com":         "https://app.example.com",
		"HTTPS://app.example.com":         "https://app.example.com",
		"Capacitor://localhost":           "capacitor://localhost",
		"https://app.example.com:443":     "https://app.example.com",
		"http://app.example.com:80":       "http://app.example.com",
		"https://app.example.com:":        "https://app.example.com",
		"https://app.example.com:08443":   "https://app.example.com:8443",
		"https://bücher.example":          "https://xn--bcher-kva.example",
		"https://BÜCHER.example:443":      "https://xn--bcher-kva.example",
		"https://日本語.example":             "https://xn--wgv71a119e.example",
		"https://app.example.com/":        "https://app.example.com",
		"https://app.example.com/login":   "https://app.example.com",
		"https://app.example.com?x":       "https://app.example.com",
		"https://app.example.com#x":       "https://app.example.com",
		" https://app.example.com":        "https://app.example.com",
		"https://app.example.com\n":       "https://app.example.com",
		"https://[0:0:0:0:0:0:0:1]:8080/": "https://[::1]:8080",
		"https://[2001:DB8::1]":           "https://[2001:db8::1]",

		"https://*.example.com":                wildcard,
		"*":                                    wildcard,
		"https://*":                            wildcard,
		"":                                     form,
		"null":                                 form,
		"app.example.com":                      form,
		"localhost:3000":                       form,
		"//app.example.com":                    form,
		"https://":                             form,
		"https://:443":                         form,
		"file:///index.html":                   form,
		"https://ann@app.example.com":          form,
		"https://a.example,https://b.example":  form,
		"https://a.example, https://b.example": form,
		"https://a.example https://b.example":  form,
		"https://a.example:123456":             form,
		"https://a.example:x":                  form,
		"https://a.example%00":                 form,
		"https://<app>.example":                form,
		"https://[fe80::1%25eth0]":             "https://[fe80::1]",
		"app://[::1]":                          form,
		"https://[::1]x":                       form,
	} {
		if strings.HasPrefix(want, "http") || strings.HasPrefix(want, "capacitor") {
			if fault := origin.Fault(want); fault != "" {
				t.Errorf("the right spelling %q of %q has the fault %q", want, text, fault)
			}
			want = `must be "` + want + `", as browsers send it`
		}
		if got := origin.Fault(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

type fault struct{ Field, Reason string }

func (f *fault) Error() string { return f.Field + " " + f.Reason }

func TestEachFaultIsNamed(t *testing.T) {
	f := config.Of[fault]("Config")
	origin.Trusting(f, "TrustedOrigins", []string{"https://a.example", "https://B.example", "b.example", "https://b.example/p"})
	const want = `Config.TrustedOrigins[1] must be "https://b.example", as browsers send it
Config.TrustedOrigins[2] must be scheme://host or scheme://host:port
Config.TrustedOrigins[3] must be "https://b.example", as browsers send it`
	if err := f.Err(); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestCheck sends what browsers send. They add Sec-Fetch-Site since 2023, and Origin to
// all requests below.
func TestCheck(t *testing.T) {
	p := origin.Trusting(config.Of[fault](""), "", []string{"https://app.example"})
	changes := map[string]*http.Request{
		"POST":                httptest.NewRequest("POST", "https://api.example/", nil),
		"PUT":                 httptest.NewRequest("PUT", "https://api.example/", nil),
		"a method of its own": httptest.NewRequest("MOVE", "https://api.example/", nil),
		"a WebSocket":         httptest.NewRequest("GET", "https://api.example/", nil),
		"a WebSocket (h2)":    httptest.NewRequest("CONNECT", "https://api.example/", nil),
	}
	changes["a WebSocket"].Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	changes["a WebSocket (h2)"].Host = "api.example"
	safe := map[string]*http.Request{
		"GET":   httptest.NewRequest("GET", "https://api.example/", nil),
		"HEAD":  httptest.NewRequest("HEAD", "https://api.example/", nil),
		"QUERY": httptest.NewRequest("QUERY", "https://api.example/", nil),
	}
	for name, from := range map[string]struct {
		origin, site string
		refused      bool
	}{
		"not a browser":                     {"", "", false},
		"the page itself":                   {"https://api.example", "same-origin", false},
		"the page, in an old browser":       {"https://api.example", "", false},
		"the user":                          {"", "none", false},
		"a trusted page":                    {"https://app.example", "cross-site", false},
		"a trusted page, in an old browser": {"https://app.example", "", false},
		"a trusted page, in another case":   {"https://App.example", "cross-site", true},
		"another site":                      {"https://evil.example", "cross-site", true},
		"another site, in an old browser":   {"https://evil.example", "", true},
		"another host of the site":          {"https://blog.example", "same-site", true},
		"a sandboxed frame":                 {"null", "cross-site", true},
		"a sandboxed frame, old":            {"null", "", true},
		"another port":                      {"https://api.example:8443", "same-site", true},
		"without an origin":                 {"", "cross-site", true},
	} {
		for _, list := range []map[string]*http.Request{changes, safe} {
			for of, r := range list {
				r := r.Clone(t.Context())
				if from.origin != "" {
					r.Header.Set("Origin", from.origin)
				}
				if from.site != "" {
					r.Header.Set("Sec-Fetch-Site", from.site)
				}
				refused := from.refused && changes[of] != nil
				if err := origin.Check(p, r); (err != nil) != refused {
					t.Errorf("%s from %s: %v", of, name, err)
				}
			}
		}
	}
}

// The spelling that a fault asks for has no fault, and passes as the Origin of a browser.
func FuzzFault(f *testing.F) {
	for _, seed := range []string{"https://a.example", "https://A.example:443/", "https://bücher.example", "app://X:0", "http://[::1]:080", "https://1.2.3.4", "x://[::ffff:1.2.3.4]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		right := text
		if fault := origin.Fault(text); fault != "" {
			quoted, ok := strings.CutSuffix(fault, ", as browsers send it")
			if !ok {
				return
			}
			var err error
			if right, err = strconv.Unquote(strings.TrimPrefix(quoted, "must be ")); err != nil {
				t.Fatal(err)
			}
		}
		list := config.Of[fault]("")
		p := origin.Trusting(list, "", []string{right})
		r := httptest.NewRequest("POST", "https://api.example/", nil)
		r.Header = http.Header{"Origin": {right}, "Sec-Fetch-Site": {"cross-site"}}
		if err := origin.Check(p, r); err != nil || list.Err() != nil {
			t.Errorf("%q of %q: %v, %v", right, text, err, list.Err())
		}
	})
}
