package apikey_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

func TestAHiddenKeyReachesNoUpstream(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	_, key := create(t, m, apikey.Key{})
	a := newFromManager(t, apikey.Config{Manager: m, Carriers: []apikey.Carrier{
		{Header: "X-API-Key"}, {Scheme: "Bearer"}, {Scheme: "Token"}, {BasicUser: true}, {Header: "Authorization"}, {DangerousQueryParameter: "key"},
	}})
	var upstream strings.Builder
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upstream.Reset()
		dump, err := httputil.DumpRequest(r, true)
		if err != nil {
			t.Error(err)
		}
		upstream.Write(dump)
		_, _ = io.WriteString(w, "ok")
	}))
	defer behind.Close()
	target, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	srv := httptest.NewServer(usher.Chain(usher.Authenticate(a), a.HideKey()).Wrap(proxy))
	defer srv.Close()
	for name, tt := range map[string]struct {
		query, field, value string
	}{
		"a field":                {"a=b", "X-API-Key", key},
		"Bearer":                 {"a=b", "Authorization", "Bearer " + key},
		"another scheme":         {"a=b", "Authorization", "token " + key},
		"no scheme":              {"a=b", "Authorization", key},
		"a user name":            {"a=b", "Authorization", basic(key + ":")},
		"a parameter":            {"key=" + key + "&a=b", "X-Other", "x"},
		"a parameter in between": {"a=b&%6bey=" + key + "&c=d", "X-Other", "x"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/path?"+tt.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(tt.field, tt.value)
		r.Header.Set("Cookie", "session=1")
		response, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		got := upstream.String()
		if response.StatusCode != http.StatusOK || !strings.Contains(got, "Cookie: session=1") || !strings.Contains(got, "a=b") || !strings.HasPrefix(got, "GET /path?") {
			t.Errorf("%s: %d, %s", name, response.StatusCode, got)
		}
		for _, secret := range []string{key, tt.value, "Authorization", "X-Api-Key", "key="} {
			if secret != "x" && strings.Contains(got, secret) {
				t.Errorf("%s: the upstream got %q:\n%s", name, secret, got)
			}
		}
	}
}

// anotherAuthenticator accepts whatever Authorization holds.
type anotherAuthenticator struct{}

func (anotherAuthenticator) Authenticate(r *http.Request) (*usher.Principal, error) {
	if r.Header.Get("Authorization") == "" {
		return nil, usher.ErrNoCredential
	}
	return &usher.Principal{ID: "u", Kind: usher.KindJWT}, nil
}

func TestHideKeyRemovesNothingElse(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	_, key := create(t, m, apikey.Key{})
	a := newFromManager(t, apikey.Config{Manager: m, Carriers: []apikey.Carrier{
		{Header: "X-API-Key"}, {Scheme: "Bearer"}, {DangerousQueryParameter: "key"},
	}})
	other := anotherAuthenticator{}
	for name, tt := range map[string]struct {
		by                usher.Authenticator
		field, value      string
		wantAuthorization string
	}{
		"a key in another field":            {a, "X-API-Key", key, ""},
		"the token of another caller":       {other, "Authorization", "Bearer header.payload.signature", "Bearer header.payload.signature"},
		"another scheme":                    {other, "Authorization", "Digest x", "Digest x"},
		"a key that another has identified": {other, "Authorization", "Bearer " + key, ""},
	} {
		r := request(tt.field, tt.value, "X-Other", "kept")
		r.URL.RawQuery, r.RequestURI = "a=%zz&&key=x&b=c&my_key=1", "/?a=%zz&&key=x&b=c&my_key=1"
		if tt.by == usher.Authenticator(a) {
			r.URL.RawQuery, r.RequestURI = "a=%zz&&b=c&my_key=1", "/?a=%zz&&b=c&my_key=1"
		}
		uri := r.RequestURI
		reached := false
		mux := http.NewServeMux()
		mux.HandleFunc("GET /{$}", func(_ http.ResponseWriter, got *http.Request) {
			reached = true
			if v := got.Header.Get("Authorization"); v != tt.wantAuthorization {
				t.Errorf("%s: Authorization %q, want %q", name, v, tt.wantAuthorization)
			}
			if got.Header.Get("X-API-Key") != "" || got.Header.Get("X-Other") != "kept" {
				t.Errorf("%s: header %v", name, got.Header)
			}
			if got.URL.RawQuery != "a=%zz&&b=c&my_key=1" || got.RequestURI != "/?a=%zz&&b=c&my_key=1" {
				t.Errorf("%s: query %q, URI %q", name, got.URL.RawQuery, got.RequestURI)
			}
			if p, ok := usher.PrincipalFrom(got.Context()); !ok || p.ID == "" {
				t.Errorf("%s: no principal", name)
			}
		})
		var outer *http.Request
		spy := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) { outer = r; next.ServeHTTP(w, r) })
		usher.Chain(usher.Authenticate(tt.by), spy, a.HideKey()).Wrap(mux).ServeHTTP(httptest.NewRecorder(), r)
		if !reached {
			t.Fatalf("%s: the handler was not reached", name)
		}
		if outer.Header.Get(tt.field) != tt.value || outer.RequestURI != uri || outer.URL.RawQuery != strings.TrimPrefix(uri, "/?") {
			t.Errorf("%s: the outer request was changed", name)
		}
		if outer.Pattern != "GET /{$}" {
			t.Errorf("%s: the outer request has the pattern %q", name, outer.Pattern)
		}
	}
}

// A form that was parsed before has the query in it.
func TestAHiddenKeyIsInNoForm(t *testing.T) {
	a := newAuthenticator(t, apikey.ManagerConfig{}, apikey.Config{Carriers: []apikey.Carrier{{DangerousQueryParameter: "key"}}})
	r := httptest.NewRequest(http.MethodPost, "/?key=secret&a=b", strings.NewReader("key=body&c=d"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if err := r.ParseForm(); err != nil {
		t.Fatal(err)
	}
	a.HideKey().ServeNext(httptest.NewRecorder(), r, http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) {
		if v := got.FormValue("key"); v != "body" || len(got.Form["key"]) != 1 || got.FormValue("a") != "b" || got.FormValue("c") != "d" {
			t.Errorf("form %v", got.Form)
		}
	}))
	if len(r.Form["key"]) != 2 {
		t.Errorf("the outer form was changed: %v", r.Form)
	}
	r = httptest.NewRequest(http.MethodGet, "/?key=secret", nil)
	_ = r.ParseForm()
	a.HideKey().ServeNext(httptest.NewRecorder(), r, http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) {
		if got.Form.Has("key") || got.RequestURI != "/" {
			t.Errorf("form %v, URI %q", got.Form, got.RequestURI)
		}
	}))
}

func TestAKeyIsHiddenBesideAnEmptyParameterOfAnotherCarrier(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	_, key := create(t, m, apikey.Key{})
	a := newFromManager(t, apikey.Config{Manager: m, Carriers: []apikey.Carrier{
		{DangerousQueryParameter: "key"}, {DangerousQueryParameter: "token"},
	}})
	for _, query := range []string{"key=" + key + "&token=&a=b", "token=" + key + "&key=&a=b"} {
		r := request()
		r.URL.RawQuery, r.RequestURI = query, "/?"+query
		reached := false
		usher.Chain(usher.Authenticate(a), a.HideKey()).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) {
			reached = true
			if got.URL.RawQuery != "a=b" || got.RequestURI != "/?a=b" {
				t.Errorf("%s: query %q, URI %q", query, got.URL.RawQuery, got.RequestURI)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		if !reached {
			t.Errorf("%s: the handler was not reached", query)
		}
	}
}

func TestARequestWithoutAKeyIsNotCopied(t *testing.T) {
	a := newAuthenticator(t, apikey.ManagerConfig{}, apikey.Config{})
	r := request("Authorization", "Bearer x")
	a.HideKey().ServeNext(httptest.NewRecorder(), r, http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) {
		if got != r {
			t.Error("the request was copied")
		}
	}))
}

// The server removes the files of a form only from the request that it has made.
func TestTheFormOfARequestWithoutItsKeyReachesTheServer(t *testing.T) {
	a := newAuthenticator(t, apikey.ManagerConfig{Store: apikey.NewMemory()}, apikey.Config{})
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n"))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	r.Header.Set("X-API-Key", "key")
	a.HideKey().Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 10); err != nil {
			t.Error(err)
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
	if r.MultipartForm == nil {
		t.Error("the server does not get the form")
	}
}

// What holds a key in a form that is refused is removed, too, if another authenticator has
// admitted the request.
func TestAKeyInAMalformedFieldIsHidden(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	_, key := create(t, m, apikey.Key{})
	a := newFromManager(t, apikey.Config{Manager: m, Carriers: []apikey.Carrier{{Scheme: "Bearer"}, {BasicUser: true}}})
	for _, values := range [][]string{
		{"Bearer " + key, "Bearer " + key},
		{"Bearer x.y.z", "Bearer " + key},
		{basic("x:y"), "Bearer " + key},
		{"Bearer " + key + " " + key},
		{basic(key + ":password")},
	} {
		r := request("X-Other", "kept")
		r.Header["Authorization"] = values
		h := http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) {
			if v := got.Header["Authorization"]; v != nil || got.Header.Get("X-Other") != "kept" {
				t.Errorf("Authorization %q becomes %q", values, v)
			}
		})
		usher.Chain(usher.Authenticate(anotherAuthenticator{}), a.HideKey()).Wrap(h).ServeHTTP(httptest.NewRecorder(), r)
	}
}
