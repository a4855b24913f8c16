package jwk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

const (
	openIDPath = "/.well-known/openid-configuration"
	oauthPath  = "/.well-known/oauth-authorization-server"
)

// An authorizationServer responds with a body for each path, and with 404 for others.
type authorizationServer struct {
	mu     sync.Mutex
	bodies map[string]string
	asked  []string // the paths, in order
}

func (s *authorizationServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.URL.EscapedPath())
	body, ok := s.bodies[r.URL.EscapedPath()]
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = io.WriteString(w, body)
}

// set sets the body for a path; an empty one removes it.
func (s *authorizationServer) set(path, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if body == "" {
		delete(s.bodies, path)
		return
	}
	if s.bodies == nil {
		s.bodies = make(map[string]string)
	}
	s.bodies[path] = body
}

// requests returns the paths that were asked for since the last call.
func (s *authorizationServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// start starts s and returns the URL of the server and a client for it.
func (s *authorizationServer) start(t *testing.T) (origin string, client *http.Client) {
	t.Helper()
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	return server.URL, server.Client()
}

func metadata(issuer, jwks string) string {
	return string(must(json.Marshal(map[string]any{
		"issuer": issuer, "jwks_uri": jwks, "authorization_endpoint": issuer + "/authorize", "scopes_supported": []string{"openid"},
	})))
}

// discovering returns a Remote of an issuer and a channel with what OnError is called with.
func discovering(t *testing.T, issuer string, client *http.Client) (*jwk.Remote, <-chan error) {
	t.Helper()
	reports := make(chan error, 100)
	return mustJWKS(t, jwk.RemoteConfig{
		Issuer: issuer, Client: client, CoolDown: 20 * time.Millisecond, RefreshEvery: time.Hour,
		OnError: func(_ context.Context, err error) {
			select {
			case reports <- err:
			default:
			}
		},
	}), reports
}

func TestKeysAreThoseThatTheMetadataOfTheIssuerNames(t *testing.T) {
	s := newSigner("1")
	for name, c := range map[string]struct {
		issuer, document string
		asked            []string // before the keys
	}{
		"OpenID Connect":                             {"", openIDPath, nil},
		"OpenID Connect, slash":                      {"/", openIDPath, nil},
		"OpenID Connect, path":                       {"/realms/a", "/realms/a" + openIDPath, nil},
		"OpenID Connect, path with slash":            {"/realms/a/", "/realms/a" + openIDPath, nil},
		"OpenID Connect, path with an escaped slash": {"/a%2Fb", "/a%2Fb" + openIDPath, nil},
		"OAuth":                  {"", oauthPath, []string{openIDPath}},
		"OAuth, slash":           {"/", oauthPath, []string{openIDPath}},
		"OAuth, path":            {"/a/b", oauthPath + "/a/b", []string{"/a/b" + openIDPath}},
		"OAuth, path with slash": {"/a/b/", oauthPath + "/a/b", []string{"/a/b" + openIDPath}},
		"OAuth, path, document below it": {
			"/a/b", "/a/b" + oauthPath, []string{"/a/b" + openIDPath, oauthPath + "/a/b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := new(authorizationServer)
			origin, client := server.start(t)
			server.set(c.document, metadata(origin+c.issuer, origin+"/keys"))
			server.set("/keys", publish(s))
			keys, _ := discovering(t, origin+c.issuer, client)
			want(t, trusting(t, keys), s.Token(), jwtauth.Accepted)
			if asked := server.requests(); !slices.Equal(asked, slices.Concat(c.asked, []string{c.document, "/keys"})) {
				t.Errorf("asked for %q", asked)
			}
			if _, err := keys.Health(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The keys of an issuer that can name another one's metadata its own would be accepted for
// the other's tokens, and nothing but the strings shows why keys are missing.
func TestMetadataOfAnotherIssuerIsRefused(t *testing.T) {
	s := newSigner("1")
	for name, change := range map[string]func(origin string) (asked, named string){
		"another issuer":       func(o string) (string, string) { return o, "https://other.example" },
		"a slash more":         func(o string) (string, string) { return o, o + "/" },
		"a slash less":         func(o string) (string, string) { return o + "/", o },
		"another path":         func(o string) (string, string) { return o + "/a", o + "/b" },
		"another case":         func(o string) (string, string) { return o + "/a", o + "/A" },
		"a port that is usual": func(o string) (string, string) { return o, strings.Replace(o, "https://", "HTTPS://", 1) },
		"none":                 func(o string) (string, string) { return o, "" },
		"a very long one":      func(o string) (string, string) { return o, o + strings.Repeat("/a", 10_000) },
	} {
		t.Run(name, func(t *testing.T) {
			server := new(authorizationServer)
			origin, client := server.start(t)
			asked, named := change(origin)
			server.set(strings.TrimSuffix(strings.TrimPrefix(asked, origin), "/")+openIDPath, metadata(named, origin+"/keys"))
			server.set("/keys", publish(s))
			keys, reports := discovering(t, asked, client)
			want(t, trusting(t, keys), s.Token(), jwtauth.Unavailable)
			err := <-reports
			for _, text := range []string{fmt.Sprintf("%q", asked), fmt.Sprintf("%q", named[:min(len(named), 200)])} {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v does not have %s", err, text)
				}
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if slices.Contains(server.requests(), "/keys") {
				t.Error("the keys are fetched")
			}
		})
	}
}

func TestMetadataThatIsNotUsable(t *testing.T) {
	s := newSigner("1")
	for name, c := range map[string]struct {
		status int
		body   string
		reason string
	}{
		"nothing anywhere":       {404, "", "404"},
		"an error":               {500, "", "500"},
		"not allowed":            {403, "", "403"},
		"an empty body":          {200, "", "JSON object"},
		"HTML":                   {200, "<html></html>", "JSON object"},
		"an array":               {200, "[]", "JSON object"},
		"two objects":            {200, `{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}{}`, "JSON object"},
		"two issuers":            {200, `{"issuer":"https://other.example","issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, "JSON object"},
		"two jwks_uri":           {200, `{"issuer":"ISSUER","jwks_uri":"https://other.example","jwks_uri":"ISSUER/keys"}`, "JSON object"},
		"an issuer of a number":  {200, `{"issuer":7,"jwks_uri":"ISSUER/keys"}`, "of the issuer"},
		"Issuer":                 {200, `{"Issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, "of the issuer"},
		"no jwks_uri":            {200, `{"issuer":"ISSUER"}`, "jwks_uri"},
		"a jwks_uri of a list":   {200, `{"issuer":"ISSUER","jwks_uri":["ISSUER/keys"]}`, "jwks_uri"},
		"a jwks_uri without TLS": {200, `{"issuer":"ISSUER","jwks_uri":"http://issuer.example/keys"}`, "must be https"},
		"a relative jwks_uri":    {200, `{"issuer":"ISSUER","jwks_uri":"/keys"}`, "jwks_uri"},
		"a jwks_uri of a name":   {200, `{"issuer":"ISSUER","jwks_uri":"https:keys"}`, "jwks_uri"},
		"a jwks_uri of a user":   {200, `{"issuer":"ISSUER","jwks_uri":"https://u:p@issuer.example/keys"}`, "jwks_uri"},
		"a jwks_uri of no user":  {200, `{"issuer":"ISSUER","jwks_uri":"https://@issuer.example/keys"}`, "jwks_uri"},
		"a jwks_uri of no host":  {200, `{"issuer":"ISSUER","jwks_uri":"https://:443/keys"}`, "jwks_uri"},
		"a jwks_uri of data":     {200, `{"issuer":"ISSUER","jwks_uri":"data:application/json,{}"}`, "jwks_uri"},
		"Jwks_uri":               {200, `{"issuer":"ISSUER","Jwks_uri":"ISSUER/keys"}`, "jwks_uri"},
		"a byte order mark":      {200, "\ufeff" + `{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, "JSON object"},
		"half of it":             {206, `{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, "206"},
		"a jwks_uri of a file":   {200, `{"issuer":"ISSUER","jwks_uri":"file:///etc/passwd"}`, "jwks_uri"},
		"more than 64 KiB":       {200, `{"issuer":"ISSUER","jwks_uri":"ISSUER/keys","x":"` + strings.Repeat("x", 64<<10) + `"}`, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			var origin string
			mux := http.NewServeMux()
			mux.HandleFunc("/keys", func(http.ResponseWriter, *http.Request) { t.Error("the keys are fetched") })
			mux.HandleFunc(openIDPath, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, strings.ReplaceAll(c.body, "ISSUER", origin))
			})
			if c.status != 404 {
				mux.HandleFunc(oauthPath, func(http.ResponseWriter, *http.Request) { t.Error("RFC 8414 is tried") })
			}
			server := httptest.NewTLSServer(mux)
			defer server.Close()
			origin = server.URL
			keys, reports := discovering(t, origin, server.Client())
			defer func() { _ = keys.Close() }()
			want(t, trusting(t, keys), s.Token(), jwtauth.Unavailable)
			if err := <-reports; !strings.Contains(err.Error(), c.reason) {
				t.Error(err)
			}
		})
	}
}

// The metadata and the keys may be on different hosts, but a redirect leads to neither.
func TestDiscoveryFollowsRedirectsOnlyOnTheHost(t *testing.T) {
	s := newSigner("1")
	for _, elsewhere := range []bool{false, true} {
		t.Run(fmt.Sprint("elsewhere ", elsewhere), func(t *testing.T) {
			other := new(authorizationServer)
			otherOrigin, _ := other.start(t)
			mux := http.NewServeMux()
			server := httptest.NewTLSServer(mux)
			defer server.Close()
			target := server.URL
			if elsewhere {
				target = otherOrigin
			}
			mux.HandleFunc(openIDPath, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, target+"/metadata", http.StatusFound)
			})
			mux.HandleFunc("/metadata", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, metadata(server.URL, otherOrigin+"/keys"))
			})
			other.set("/metadata", metadata(server.URL, otherOrigin+"/keys"))
			other.set("/keys", publish(s))
			client := server.Client() // whose certificate is that of the other server, too
			keys, _ := discovering(t, server.URL, client)
			verdict := jwtauth.Accepted
			if elsewhere {
				verdict = jwtauth.Unavailable
			}
			want(t, trusting(t, keys), s.Token(), verdict)
			if asked := other.requests(); elsewhere == (len(asked) > 0) {
				t.Errorf("the other host was asked for %q", asked)
			}
		})
	}
}

// simulatedIssuer returns a Remote of an issuer without a network, for use under synctest.
func simulatedIssuer(t *testing.T, h http.Handler) *jwk.Remote {
	t.Helper()
	p := new(publisher)
	p.Serve(h.ServeHTTP)
	return simulated(t, p, func(c *jwk.RemoteConfig) { c.URL, c.Issuer = "", issuer })
}

// No place is asked twice for the metadata.
func TestAnIssuerWithoutAPathHasTwoPlacesForItsMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := new(authorizationServer)
		want(t, trusting(t, simulatedIssuer(t, server)), newSigner("1").Token(), jwtauth.Unavailable)
		if asked := server.requests(); !slices.Equal(asked, []string{openIDPath, "/.well-known/oauth-authorization-server"}) {
			t.Errorf("asked for %q", asked)
		}
	})
}

// An issuer may move its keys. It is asked where they are at each routine refresh.
func TestKeysThatMoveAreFollowedAtTheNextRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newSigner("old"), newSigner("next")
		server := new(authorizationServer)
		server.set(openIDPath, metadata(issuer, issuer+"/keys"))
		server.set("/keys", publish(old))
		v := trusting(t, simulatedIssuer(t, server))
		want(t, v, old.Token(), jwtauth.Accepted)
		server.set(openIDPath, metadata(issuer, "https://keys.example/moved"))
		server.set("/moved", publish(next))
		server.requests()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if asked := server.requests(); !slices.Equal(asked, []string{openIDPath, "/moved"}) {
			t.Errorf("asked for %q", asked)
		}
		want(t, v, next.Token(), jwtauth.Accepted)
	})
}

// While the metadata cannot be had, or is that of another issuer, the last keys are used
// until they are stale, as during any outage.
func TestAnOutageOfTheMetadata(t *testing.T) {
	for name, during := range map[string]string{"it is gone": "", "it is another's": metadata("https://other.example", issuer+"/keys")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSigner("1")
				server := new(authorizationServer)
				keys := simulatedIssuer(t, server) // before there is any metadata: New does not wait
				v := trusting(t, keys)
				want(t, v, s.Token(), jwtauth.Unavailable)
				server.set(openIDPath, metadata(issuer, issuer+"/keys"))
				server.set("/keys", publish(s))
				time.Sleep(time.Minute)
				want(t, v, s.Token(), jwtauth.Accepted)

				server.set(openIDPath, during)
				time.Sleep(5*time.Hour + 50*time.Minute)
				want(t, v, s.Token(), jwtauth.Accepted)
				if _, err := keys.Health(); err == nil {
					t.Error("healthy")
				}
				time.Sleep(20 * time.Minute)
				want(t, v, s.Token(), jwtauth.Unavailable)

				server.set(openIDPath, metadata(issuer, issuer+"/keys"))
				time.Sleep(time.Minute)
				want(t, v, s.Token(), jwtauth.Accepted)
			})
		})
	}
}

func TestIssuerFaults(t *testing.T) {
	const path = "jwk.RemoteConfig."
	for _, c := range []struct {
		config jwk.RemoteConfig
		field  string
	}{
		{jwk.RemoteConfig{}, "URL"},
		{jwk.RemoteConfig{URL: "https://issuer.example/keys", Issuer: issuer}, "URL"},
		{jwk.RemoteConfig{Issuer: "http://issuer.example"}, "Issuer"},
		{jwk.RemoteConfig{Issuer: "issuer"}, "Issuer"},
		{jwk.RemoteConfig{Issuer: "https://issuer.example?tenant=a"}, "Issuer"},
		{jwk.RemoteConfig{Issuer: "https://issuer.example?"}, "Issuer"},
		{jwk.RemoteConfig{Issuer: "https://issuer.example#a"}, "Issuer"},
		{jwk.RemoteConfig{Issuer: "https://user@issuer.example"}, "Issuer"},
	} {
		_, err := jwk.NewRemote(c.config)
		wantFaults(t, err, path+c.field)
	}
	server := new(authorizationServer)
	s := newSigner("1")
	plain := httptest.NewServer(server)
	defer plain.Close()
	server.set(openIDPath, metadata(plain.URL, plain.URL+"/keys"))
	server.set("/keys", publish(s))
	keys := mustJWKS(t, jwk.RemoteConfig{Issuer: plain.URL, Client: plain.Client(), DangerouslyAllowHTTP: true})
	want(t, trusting(t, keys), s.Token(), jwtauth.Accepted)
}
