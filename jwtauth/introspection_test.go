package jwtauth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
)

const opaque = "mF_9.B5f-4.1JqM~+/="

// active returns the response about a good token, changed by some.
func active(some map[string]any) string {
	all := claims(map[string]any{"active": true, "scope": "read", "client_id": "app"})
	for name, v := range some {
		if all[name] = v; v == nil {
			delete(all, name)
		}
	}
	return string(must(json.Marshal(all)))
}

func introspection(tb testing.TB, p *publisher, change func(*jwtauth.IntrospectionConfig)) *jwtauth.Introspection {
	tb.Helper()
	c := jwtauth.IntrospectionConfig{
		Endpoint: "https://issuer.example/introspect", Client: &http.Client{Transport: p},
		ClientID: "api", ClientSecret: "s3cret", Issuer: issuer, Audiences: []string{audience},
	}
	if change != nil {
		change(&c)
	}
	i, err := jwtauth.NewIntrospection(c)
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

func TestIntrospectionCall(t *testing.T) {
	p := new(publisher)
	p.Serve(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if r.Method != http.MethodPost || id != "api+id%2F" || secret != "p%3Aq" || r.Header.Get("X-Private") != "v" {
			t.Errorf("%s %q %q %v", r.Method, id, secret, r.Header)
		}
		if r.PostFormValue("token") != opaque || r.PostFormValue("token_type_hint") != "access_token" || r.URL.RawQuery != "" {
			t.Errorf("%v %s", r.PostForm, r.URL)
		}
		_, _ = io.WriteString(w, active(nil))
	})
	i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) {
		c.ClientID, c.ClientSecret, c.Header = "api id/", "p:q", http.Header{"X-Private": {"v"}}
	})
	got, err := i.Authenticate(request(t, opaque))
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != issuer+"|ann" || got.Kind != usher.KindOAuth || !got.HasScopes("read") {
		t.Errorf("%+v", got)
	}
	if tok := got.Details.(*jwtauth.Token); tok.ClientID != "app" || tok.Subject != "ann" {
		t.Errorf("%+v", tok)
	}
	h := usher.Authenticate(i).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if c, err := jwtauth.Claims[struct {
			ClientID string `json:"client_id"`
		}](r.Context()); err != nil || c.ClientID != "app" {
			t.Errorf("%+v %v", c, err)
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), request(t, opaque))
}

func TestIntrospectionPrintsNoSecret(t *testing.T) {
	i := introspection(t, new(publisher), func(c *jwtauth.IntrospectionConfig) { c.Header = http.Header{"X-Private": {"canary"}} })
	basic := strings.TrimRight(base64.StdEncoding.EncodeToString([]byte("api:s3cret")), "=")
	c := jwtauth.IntrospectionConfig{ClientID: "api", ClientSecret: "s3cret", Header: http.Header{"X-Private": {"canary"}}}
	for _, v := range []any{i, struct{ i *jwtauth.Introspection }{i}, c, &c, struct{ C any }{c}, []jwtauth.IntrospectionConfig{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, basic) || strings.Contains(got, "canary") || strings.Contains(got, "s3cret") {
				t.Errorf("%s of a %T prints a secret: %s", verb, v, got)
			}
		}
	}
}

func TestIntrospectionResponses(t *testing.T) {
	now := time.Now().Unix()
	for name, tt := range map[string]struct {
		response string
		want     jwtauth.Verdict
	}{
		"active":                      {active(nil), jwtauth.Accepted},
		"inactive":                    {`{"active":false}`, jwtauth.Inactive},
		"inactive with claims":        {active(map[string]any{"active": false}), jwtauth.Inactive},
		"active as a string":          {active(map[string]any{"active": "true"}), jwtauth.Unavailable},
		"active as a number":          {active(map[string]any{"active": 1}), jwtauth.Unavailable},
		"active twice":                {`{"active":false,"active":true,"sub":"a"}`, jwtauth.Unavailable},
		"Active":                      {strings.Replace(active(nil), `"active"`, `"Active"`, 1), jwtauth.Unavailable},
		"no active":                   {active(map[string]any{"active": nil}), jwtauth.Unavailable},
		"HTML":                        {"<html>", jwtauth.Unavailable},
		"nothing":                     {"", jwtauth.Unavailable},
		"an array":                    {"[" + active(nil) + "]", jwtauth.Unavailable},
		"a response that is too long": {`{"pad":"` + strings.Repeat("x", 64<<10) + `",` + active(nil)[1:], jwtauth.Unavailable},
		"no audience":                 {active(map[string]any{"aud": nil}), jwtauth.WrongAudience},
		"somebody else":               {active(map[string]any{"aud": "x"}), jwtauth.WrongAudience},
		"another issuer":              {active(map[string]any{"iss": "x"}), jwtauth.InvalidClaims},
		"no issuer":                   {active(map[string]any{"iss": nil}), jwtauth.Accepted},
		"expired":                     {active(map[string]any{"exp": now - 60}), jwtauth.Expired},
		"no exp":                      {active(map[string]any{"exp": nil}), jwtauth.InvalidClaims},
		"exp null":                    {strings.Replace(active(map[string]any{"exp": nil}), "{", `{"exp":null,`, 1), jwtauth.InvalidClaims},
		"exp of a string":             {active(map[string]any{"exp": "x"}), jwtauth.InvalidClaims},
		"not yet valid":               {active(map[string]any{"nbf": now + 60}), jwtauth.NotYetValid},
		"no subject, of a client":     {active(map[string]any{"sub": nil}), jwtauth.Accepted},
		"no subject, of a user":       {active(map[string]any{"sub": nil, "username": "ann"}), jwtauth.InvalidClaims},
		"no subject and no client":    {active(map[string]any{"sub": nil, "client_id": nil}), jwtauth.InvalidClaims},
		"no subject, client empty":    {active(map[string]any{"sub": nil, "client_id": ""}), jwtauth.InvalidClaims},
		"active null":                 {strings.Replace(active(nil), `"active":true`, `"active":null`, 1), jwtauth.Unavailable},
		"aud null":                    {null("aud"), jwtauth.WrongAudience},
		"aud of an empty list":        {active(map[string]any{"aud": []string{}}), jwtauth.InvalidClaims},
		"token_type null":             {strings.Replace(active(nil), "{", `{"token_type":null,`, 1), jwtauth.Accepted},
		"token_type in capitals":      {active(map[string]any{"token_type": "BEARER"}), jwtauth.Accepted},
		"token_type N_A":              {active(map[string]any{"token_type": "N_A"}), jwtauth.WrongType},
		"token_type of a number":      {active(map[string]any{"token_type": 1}), jwtauth.WrongType},
		"Token_Type":                  {active(map[string]any{"Token_Type": "Bearer"}), jwtauth.InvalidClaims},
		"token_use of Cognito":        {active(map[string]any{"token_use": "access"}), jwtauth.Accepted},
		"token_use of Ory Hydra":      {active(map[string]any{"token_use": "access_token"}), jwtauth.Accepted},
		"an ID token":                 {active(map[string]any{"token_use": "id"}), jwtauth.WrongType},
		"token_use of a list":         {active(map[string]any{"token_use": []string{"access"}}), jwtauth.WrongType},
		"typ Bearer":                  {active(map[string]any{"typ": "Bearer"}), jwtauth.Accepted},
		"without a required name":     {active(map[string]any{"username": nil}), jwtauth.InvalidClaims},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(publisher)
			p.Say(tt.response)
			i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) {
				if name == "without a required name" {
					c.RequiredClaims = []string{"username"}
				}
			})
			want(t, i, opaque, tt.want)
			status := map[jwtauth.Verdict]int{jwtauth.Accepted: 200, jwtauth.Unavailable: 503}[tt.want]
			if status == 0 {
				status = 401
			}
			if w := respond(t, i, request(t, opaque)); w.Code != status {
				t.Errorf("%d, want %d", w.Code, status)
			}
		})
	}
}

// null returns the response about a good token in which these members are null.
func null(names ...string) string {
	var nulls strings.Builder
	without := make(map[string]any)
	for _, name := range names {
		without[name] = nil
		nulls.WriteString(`"` + name + `":null,`)
	}
	return "{" + nulls.String() + active(without)[1:]
}

// RFC 7662 makes all members but active optional, and servers send null for those that a
// token does not have.
func TestAMemberThatIsNullIsAbsent(t *testing.T) {
	for _, name := range []string{"iss", "sub", "nbf", "iat", "jti", "sid", "client_id", "scope", "scp", "cnf", "username", "token_type", "token_use"} {
		t.Run(name, func(t *testing.T) {
			p := new(publisher)
			p.Say(null(name))
			want(t, introspection(t, p, nil), opaque, jwtauth.Accepted)
		})
	}
	p := new(publisher)
	p.Say(null("exp", "nbf", "iat", "jti", "aud", "iss", "sub", "scope"))
	want(t, introspection(t, p, func(c *jwtauth.IntrospectionConfig) {
		c.Audiences, c.DangerouslyAcceptAnyAudience, c.DangerouslyAcceptWithoutExpiry = nil, true, true
	}), opaque, jwtauth.Accepted)
}

func TestAudiencesThatNobodyAsksForDoNotMatter(t *testing.T) {
	for aud, want := range map[string]int{`null`: 0, `[]`: 0, `""`: 0, `[""]`: 0, `{}`: 0, `7`: 0, `"other"`: 1, `["a","b"]`: 2} {
		p := new(publisher)
		p.Say(`{"aud":` + aud + "," + active(map[string]any{"aud": nil})[1:])
		i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.Audiences, c.DangerouslyAcceptAnyAudience = nil, true })
		got, err := i.Verify(t.Context(), opaque)
		if err != nil || len(got.Audience) != want {
			t.Errorf("aud %s: %v, %+v", aud, err, got)
		}
	}
}

// The response about a token of the client credentials grant has no sub.
func TestATokenWithoutASubjectIsTheClients(t *testing.T) {
	p := new(publisher)
	ids := make(map[string]string)
	for name, response := range map[string]string{
		"a client":                       active(map[string]any{"sub": nil}),
		"a client, sub null":             null("sub"),
		"a client, sub empty":            active(map[string]any{"sub": ""}),
		"a user of that name":            active(map[string]any{"sub": "app"}),
		"a user named like the ID":       active(map[string]any{"sub": "|app"}),
		"a user named like the whole ID": active(map[string]any{"sub": "|" + issuer + "|app"}),
	} {
		p.Say(response)
		got, err := introspection(t, p, nil).Authenticate(request(t, opaque))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ids[name] = got.ID
	}
	client := "|" + issuer + "|app"
	for name, id := range ids {
		if is := id == client; is != strings.HasPrefix(name, "a client") {
			t.Errorf("%s has the ID %q", name, id)
		}
	}
	p.Say(active(map[string]any{"sub": nil}))
	i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) {
		c.Principal = func(tok *jwtauth.Token, p usher.Principal) usher.Principal {
			p.Owner = tok.ClientID + " is " + p.ID + tok.Subject
			return p
		}
	})
	if got, err := i.Authenticate(request(t, opaque)); err != nil || got.Owner != "app is "+client {
		t.Errorf("%+v %v", got, err)
	}
}

// A holder of a token that is refused cannot cause a call by each request.
func TestEveryRefusalIsRemembered(t *testing.T) {
	now := time.Now().Unix()
	for name, response := range map[string]string{
		"inactive":       `{"active":false}`,
		"wrong_audience": active(map[string]any{"aud": "x"}),
		"expired":        active(map[string]any{"exp": now - 60}),
		"not_yet_valid":  active(map[string]any{"nbf": now + 1e6}),
		"invalid_claims": active(map[string]any{"exp": "x"}),
		"wrong_type":     active(map[string]any{"token_use": "id"}),
	} {
		synctest.Test(t, func(t *testing.T) {
			p := new(publisher)
			p.Say(active(map[string]any{"exp": time.Now().Unix() + 1e6}))
			i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.CacheCapacity, c.CacheTTL = 16, time.Hour })
			want(t, i, "good", jwtauth.Accepted)
			p.Say(strings.Replace(response, strconv.FormatInt(now-60, 10), "1", 1))
			for range 100 {
				if got := verdict(t, i, opaque); got.String() != name {
					t.Errorf("%v, want %s", got, name)
				}
			}
			if n := p.Fetches.Load(); n != 2 {
				t.Errorf("%s: %d calls, want 2", name, n)
			}
			for n := range 500 {
				_ = verdict(t, i, "invented"+strconv.Itoa(n))
			}
			p.Fetches.Store(0)
			want(t, i, "good", jwtauth.Accepted)
			if n := p.Fetches.Load(); n != 0 {
				t.Errorf("%s: refused tokens have displaced an active one", name)
			}
			// After 5 seconds the server is asked again.
			p.Say(active(map[string]any{"exp": time.Now().Unix() + 1e6}))
			time.Sleep(5 * time.Second)
			want(t, i, opaque, jwtauth.Accepted)
		})
	}
}

func TestIntrospectionServerThatFails(t *testing.T) {
	redirected := new(publisher)
	redirected.Say(active(nil))
	other := httptest.NewTLSServer(redirected)
	defer other.Close()
	for name, serve := range map[string]func(w http.ResponseWriter, r *http.Request){
		"500": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, active(nil))
		},
		"our own credentials are refused": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		},
		"redirect on its host": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) },
		"abort":                func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"slow": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client has gone
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(publisher)
			p.Serve(serve)
			server := httptest.NewTLSServer(p)
			defer server.Close()
			i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) {
				c.Endpoint, c.Client, c.Timeout = server.URL, server.Client(), time.Second
				if name == "slow" {
					c.Timeout = 200 * time.Millisecond
				}
			})
			want(t, i, opaque, jwtauth.Unavailable)
			w := respond(t, i, request(t, opaque))
			if w.Code != 503 || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "mF_9") {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
			p.Say(active(nil)) // no failure is remembered
			eventually(t, "accepted", func() bool { return verdict(t, i, opaque) == jwtauth.Accepted })
		})
	}
	if n := redirected.Fetches.Load(); n != 0 {
		t.Errorf("%d tokens were sent elsewhere", n)
	}
	i := introspection(t, new(publisher), func(c *jwtauth.IntrospectionConfig) {
		c.Client = &http.Client{Transport: tokentest.RoundTrip(func(*http.Request) (*http.Response, error) { panic("no") })}
	})
	want(t, i, opaque, jwtauth.Unavailable)
}

func TestIntrospectionsOfOneTokenAtOnceAreOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		p.Serve(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			_, _ = io.WriteString(w, active(nil))
		})
		i := introspection(t, p, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { // the first gives up, and its going disturbs nobody
			if _, err := i.Verify(ctx, opaque); !errors.Is(err, jwtauth.Abandoned) {
				t.Error(err)
			}
		})
		synctest.Wait()
		for range 100 {
			wg.Go(func() { want(t, i, opaque, jwtauth.Accepted) })
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		if n := p.Fetches.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestIntrospectionCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		p.Serve(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(2 * time.Second)
			_, _ = io.WriteString(w, active(nil))
		})
		i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.MaxCalls = 2 })
		got := make(chan jwtauth.Verdict, 10)
		for n := range 10 {
			go func() { got <- verdict(t, i, "token"+strconv.Itoa(n)) }()
		}
		counts := map[jwtauth.Verdict]int{}
		start := time.Now()
		for range 10 {
			counts[<-got]++
		}
		// Two run at a time: the others give up after half of the timeout, 1.5 s.
		if d := time.Since(start); d != 2*time.Second || counts[jwtauth.Accepted] != 2 || counts[jwtauth.Unavailable] != 8 {
			t.Errorf("%v after %v", counts, d)
		}
	})
}

func TestIntrospectionCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		p.Say(active(map[string]any{"exp": time.Now().Unix() + 35}))
		i := introspection(t, p, nil)
		calls := func(n int64) {
			t.Helper()
			if got := p.Fetches.Swap(0); got != n {
				t.Errorf("%d calls, want %d", got, n)
			}
		}
		want(t, i, opaque, jwtauth.Accepted)
		time.Sleep(30*time.Second - 1)
		want(t, i, opaque, jwtauth.Accepted)
		calls(1)
		time.Sleep(time.Nanosecond)
		want(t, i, opaque, jwtauth.Accepted)
		calls(1)
		time.Sleep(10 * time.Second) // past exp and the leeway, and still remembered
		want(t, i, opaque, jwtauth.Expired)
		calls(0)

		p.Say(`{"active":false}`)
		want(t, i, "other", jwtauth.Inactive)
		want(t, i, "other", jwtauth.Inactive)
		calls(1)
		time.Sleep(5 * time.Second)
		want(t, i, "other", jwtauth.Inactive)
		calls(1)

		i = introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.CacheCapacity = -1 })
		want(t, i, "other", jwtauth.Inactive)
		want(t, i, "other", jwtauth.Inactive)
		calls(2)
	})
}

// However many tokens are invented, the good ones stay remembered.
func TestIntrospectionOfInventedTokensPushesOutNoGoodOne(t *testing.T) {
	p := new(publisher)
	p.Say(active(nil))
	i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.CacheCapacity = 16 })
	want(t, i, opaque, jwtauth.Accepted)
	p.Say(`{"active":false}`)
	for n := range 500 {
		want(t, i, "invented"+strconv.Itoa(n), jwtauth.Inactive)
	}
	want(t, i, opaque, jwtauth.Accepted)
}

func TestIntrospectionRevocationIsAskedEachTime(t *testing.T) {
	var list jwtauth.RevocationList
	p := new(publisher)
	p.Say(active(map[string]any{"jti": "1"}))
	i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.Revocations = &list })
	want(t, i, opaque, jwtauth.Accepted)
	if err := list.RevokeToken(t.Context(), issuer, "1", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	want(t, i, opaque, jwtauth.Revoked)
}

func TestIntrospectionRefusesWhatIsNoToken(t *testing.T) {
	p := new(publisher)
	i := introspection(t, p, nil)
	for _, text := range []string{"a&b=c", "a\u00e9", `a"b`, strings.Repeat("a", 16_385)} {
		want(t, i, text, jwtauth.Malformed)
	}
	want(t, i, "", jwtauth.Missing)
	if n := p.Fetches.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// Each token goes to the authenticator of its form and issuer, in whatever order they are
// listed.
func TestIntrospectionBesideAVerifier(t *testing.T) {
	const server = "https://opaque.example"
	p := new(publisher)
	p.Say(active(map[string]any{"iss": server}))
	i, v := introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.Issuer = server }), verifier(t, nil)
	theirs := token(claims(map[string]any{"iss": server}))
	for _, a := range [][]usher.Authenticator{{i, v}, {v, i}} {
		h := usher.Authenticate(a...).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, _ := usher.PrincipalFrom(r.Context())
			_, _ = io.WriteString(w, string(p.Kind))
		}))
		for text, kind := range map[string]usher.Kind{"opaque": usher.KindOAuth, good(): usher.KindJWT, theirs: usher.KindOAuth} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request(t, text))
			if w.Code != 200 || w.Body.String() != string(kind) {
				t.Errorf("%d %s, want %s", w.Code, w.Body, kind)
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request(t, ""))
		if got := w.Header().Values("WWW-Authenticate"); w.Code != 401 || len(got) != 1 || got[0] != "Bearer" {
			t.Errorf("%d %q", w.Code, got)
		}
	}
}

func TestIntrospectionConfigFaults(t *testing.T) {
	const path = "jwtauth.IntrospectionConfig."
	_, err := jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{})
	wantFaults(t, err, path+"Endpoint", path+"ClientID", path+"Issuer", path+"Audiences")
	_, err = jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
		Endpoint: "http://issuer.example", ClientID: "a", Header: http.Header{"Authorization": {"x"}}, Issuer: "a|b",
		Audiences: []string{"a"}, DangerouslyAcceptAnyAudience: true, RequiredClaims: []string{""}, ScopeClaims: []string{""},
		TokenPrefix: "a b", Timeout: -1, CacheTTL: -1, MaxCalls: -1, Leeway: time.Hour, MaxTokenLength: -1,
		TrustedOrigins: []string{"https://*.example"},
	})
	wantFaults(t, err, path+"Endpoint", path+"ClientSecret", path+"Header", path+"Issuer", path+"Audiences",
		path+"RequiredClaims", path+"ScopeClaims", path+"TokenPrefix", path+"Timeout", path+"CacheTTL", path+"MaxCalls", path+"Leeway", path+"MaxTokenLength", path+"TrustedOrigins[0]")
}

func TestBlanksAtTheEndsOfTheNamesOfAnIntrospection(t *testing.T) {
	const path = "jwtauth.IntrospectionConfig."
	_, err := jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
		Endpoint: "https://issuer.example", ClientID: "a", ClientSecret: "b", Issuer: issuer + "\n", Audiences: []string{"a", "b\r\n"},
		RequiredClaims: []string{" a"}, ScopeClaims: []string{"a\t"},
	})
	wantFaults(t, err, path+"Issuer", path+"Audiences", path+"RequiredClaims", path+"ScopeClaims")
}

// Credentials often come from files, which end with a line end.
func TestCredentialsOfAnIntrospectionThatNoCallCanCarry(t *testing.T) {
	const path = "jwtauth.IntrospectionConfig."
	for _, tt := range []struct {
		field       string
		id, private string
		header      http.Header
	}{
		{"ClientID", "api\n", "canary", nil},
		{"ClientSecret", "api", "canary\n", nil},
		{"ClientSecret", "api", "canary\r\n", nil},
		{"ClientSecret", "api", "\tcanary", nil},
		{"Header", "", "", http.Header{"Authorization": {"Bearer canary\n"}}},
		{"Header", "", "", http.Header{"Authorization": {"Bearer canary", "Bearer ca\x00nary"}}},
		{"Header", "", "", http.Header{"Authorization": {"Bearer canary\x7f"}}},
		{"Header", "", "", http.Header{"X Key": {"canary"}}},
		{"Header", "", "", http.Header{"": {"canary"}}},
		{"", "api", " canary \u00fc", nil},
		{"", "", "", http.Header{"Authorization": {"Bearer canary"}, "X-Note": {"a\tb \u00fc"}}},
	} {
		_, err := jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
			Endpoint: "https://issuer.example", ClientID: tt.id, ClientSecret: tt.private, Header: tt.header,
			Issuer: issuer, Audiences: []string{audience},
		})
		switch {
		case tt.field != "":
			wantFaults(t, err, path+tt.field)
			if strings.Contains(err.Error(), "nary") {
				t.Errorf("the fault shows the secret: %v", err)
			}
		case err != nil:
			t.Error(err)
		}
	}
}

func TestIntrospectionAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	p := new(publisher)
	p.Say(active(nil))
	i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.CacheTTL = time.Hour })
	r := request(t, opaque)
	_, _ = i.Authenticate(r)
	if n := testing.AllocsPerRun(100, func() { _, _ = i.Authenticate(r) }); n != 0 {
		t.Errorf("%v allocations for a token that is remembered", n)
	}
}
