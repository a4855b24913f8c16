package jwtauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// jwkOf returns the public half of a key of the tests as a JWK with further members.
func jwkOf(t *testing.T, a jwk.Algorithm, members map[string]any) string {
	t.Helper()
	material := any(&rsaKey().PublicKey)
	if a == jwk.ES256 {
		material = &ecKey().PublicKey
	}
	public := must(json.Marshal(mustKey(t, jwk.KeyConfig{Algorithm: a, Material: material})))
	var all map[string]any
	if err := json.Unmarshal(public, &all); err != nil {
		t.Fatal(err)
	}
	delete(all, "alg")
	delete(all, "use")
	maps.Copy(all, members)
	return string(must(json.Marshal(all)))
}

// published returns a remote key set with these keys.
func published(t *testing.T, use string, keys ...string) *jwk.Remote {
	t.Helper()
	p := new(publisher)
	p.Say(tokentest.KeySetOf(keys...))
	set := tokentest.MustRemote(t, jwk.RemoteConfig{URL: "https://issuer.example/jwks", Use: use, Client: &http.Client{Transport: p}})
	eventually(t, "the keys are fetched", func() bool { _, err := set.Version(); return err == nil })
	return set
}

// byClient makes the ID of a principal from a claim other than sub.
func byClaim(name string) func(*jwtauth.Token, usher.Principal) usher.Principal {
	return func(t *jwtauth.Token, p usher.Principal) usher.Principal {
		var all map[string]any
		if err := t.Claims(&all); err != nil {
			return usher.Principal{}
		}
		if text, _ := all[name].(string); text != "" {
			p.ID = t.Issuer + "|" + name + "|" + text
		}
		return p
	}
}

// Every issuer below can be configured: its tokens and its keys have the shape that its
// documentation shows.
func TestIssuersAsTheyAre(t *testing.T) {
	const rs, es, hs = jwk.RS256, jwk.ES256, jwk.HS256
	rsa := jwkOf(t, rs, map[string]any{"kid": "1", "alg": "RS256", "use": "sig"})
	noAlg := jwkOf(t, rs, map[string]any{"kid": "1", "use": "sig"})
	ec := jwkOf(t, es, map[string]any{"kid": "1", "alg": "ES256", "use": "sig"})
	shared := jwk.Static{mustKey(t, jwk.KeyConfig{ID: "h", Algorithm: hs, Secret: secret})}
	encryption := strings.Replace(rsa, `"RS256"`, `"RSA-OAEP"`, 1)
	encryption = strings.Replace(encryption, `"sig"`, `"enc"`, 1)
	leadingZero := func() string {
		n := rsaKey().N.Bytes()
		return `{"kty":"RSA","alg":"RS256","use":"sig","kid":"1","e":"AQAB","n":"` + b64(append([]byte{0}, n...)) + `"}`
	}()
	var groups []string
	for range 160 {
		groups = append(groups, `"0b1f4c6e-8d1b-4f39-9a53-1d9c2f7a6e40"`)
	}
	type row struct {
		alg    jwk.Algorithm
		header string // besides alg and kid
		claims string // besides exp
		issuer jwtauth.TrustedIssuer
		change func(*jwtauth.Config)
		field  string // that carries the token; empty means Authorization
		id     string
		scopes []string
	}
	for name, tt := range map[string]row{
		"Google, an ID token": {rs, `,"typ":"JWT"`, `"iss":"https://accounts.google.com","azp":"c","aud":"c","sub":"108","email_verified":true`,
			jwtauth.TrustedIssuer{Issuer: "https://accounts.google.com", Aliases: []string{"accounts.google.com"}, Audiences: []string{"c"}, Keys: published(t, "", rsa)},
			nil, "", "https://accounts.google.com|108", nil},
		"Google, the other spelling": {rs, `,"typ":"JWT"`, `"iss":"accounts.google.com","azp":"c","aud":"c","sub":"108"`,
			jwtauth.TrustedIssuer{Issuer: "https://accounts.google.com", Aliases: []string{"accounts.google.com"}, Audiences: []string{"c"}, Keys: published(t, "", rsa)},
			nil, "", "https://accounts.google.com|108", nil},
		"Apple": {rs, ``, `"iss":"https://appleid.apple.com","aud":"com.example.app","sub":"001.a","email_verified":"true","nonce_supported":true`,
			jwtauth.TrustedIssuer{Issuer: "https://appleid.apple.com", Audiences: []string{"com.example.app"}, Keys: published(t, "", strings.Replace(rsa, `"1"`, `"0"`, 1), rsa)},
			nil, "", "https://appleid.apple.com|001.a", nil},
		"Entra v2": {rs, `,"typ":"JWT"`, `"iss":"https://login.microsoftonline.com/t1/v2.0","aud":"api","sub":"s","oid":"o","tid":"t1","scp":"Orders.Read Orders.Write","ver":"2.0"`,
			jwtauth.TrustedIssuer{Issuer: "https://login.microsoftonline.com/t1/v2.0", Audiences: []string{"api"},
				Keys: published(t, "", jwkOf(t, rs, map[string]any{"kid": "1", "use": "sig", "x5t": "1", "x5c": []string{"MII"}, "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}))},
			nil, "", "https://login.microsoftonline.com/t1/v2.0|s", []string{"Orders.Read", "Orders.Write"}},
		"Entra v1, with many groups": {rs, `,"typ":"JWT","x5t":"1"`, `"iss":"https://sts.windows.net/t1/","aud":"api://x","sub":"s","tid":"t1","groups":[` + strings.Join(groups, ",") + `]`,
			jwtauth.TrustedIssuer{Issuer: "https://sts.windows.net/t1/", Audiences: []string{"api://x"}, Keys: published(t, "", noAlg)},
			nil, "", "https://sts.windows.net/t1/|s", nil},
		"Entra, an application": {rs, `,"typ":"JWT"`, `"iss":"https://login.microsoftonline.com/t1/v2.0","aud":"api","sub":"s","azp":"c","idtyp":"app","roles":["Orders.Read.All"]`,
			jwtauth.TrustedIssuer{Issuer: "https://login.microsoftonline.com/t1/v2.0", Audiences: []string{"api"}, ScopeClaims: []string{"roles"}, Keys: published(t, "", noAlg)},
			nil, "", "https://login.microsoftonline.com/t1/v2.0|s", []string{"Orders.Read.All"}},
		"Entra, any customer": {rs, `,"typ":"JWT"`, `"iss":"https://login.microsoftonline.com/t1/v2.0","aud":"api","sub":"s","tid":"t1"`,
			jwtauth.TrustedIssuer{Issuer: "https://other.example", Audiences: []string{"x"}, Keys: published(t, "", noAlg)},
			func(c *jwtauth.Config) {
				i := c.Issuers[0]
				c.ResolveIssuer = func(_ context.Context, iss string) (jwtauth.TrustedIssuer, error) {
					if iss != "https://login.microsoftonline.com/t1/v2.0" {
						return i, jwtauth.UnknownIssuer
					}
					i.Issuer, i.Audiences = iss, []string{"api"}
					return i, nil
				}
			}, "", "https://login.microsoftonline.com/t1/v2.0|s", nil},
		"Auth0": {rs, `,"typ":"JWT"`, `"iss":"https://t.eu.auth0.com/","sub":"auth0|1","aud":["https://api.example","https://t.eu.auth0.com/userinfo"],"azp":"c","scope":"openid read:orders","permissions":["delete:orders"]`,
			jwtauth.TrustedIssuer{Issuer: "https://t.eu.auth0.com/", Audiences: []string{"https://api.example"}, Keys: published(t, "", rsa)},
			nil, "", "https://t.eu.auth0.com/|auth0|1", []string{"openid", "read:orders"}},
		"Auth0, the RFC 9068 profile": {rs, `,"typ":"at+jwt"`, `"iss":"https://t.eu.auth0.com/","sub":"auth0|1","aud":"https://api.example","client_id":"c","jti":"1","iat":1700000000,"scope":"read:orders"`,
			jwtauth.TrustedIssuer{Issuer: "https://t.eu.auth0.com/", Audiences: []string{"https://api.example"}, Profile: jwtauth.ProfileAccessToken, Keys: published(t, "", rsa)},
			nil, "", "https://t.eu.auth0.com/|auth0|1", []string{"read:orders"}},
		"Okta, a custom server": {rs, ``, `"ver":1,"jti":"AT.1","iss":"https://t.okta.com/oauth2/default","aud":"api://default","cid":"c","uid":"u","scp":["openid","orders"],"sub":"ann@example.org"`,
			jwtauth.TrustedIssuer{Issuer: "https://t.okta.com/oauth2/default", Audiences: []string{"api://default"}, Keys: published(t, "", rsa)},
			nil, "", "https://t.okta.com/oauth2/default|ann@example.org", []string{"openid", "orders"}},
		"Cognito, an ID token": {rs, ``, `"iss":"https://cognito-idp.eu-west-1.amazonaws.com/p","sub":"s","aud":"c","token_use":"id","cognito:groups":["admins"]`,
			jwtauth.TrustedIssuer{Issuer: "https://cognito-idp.eu-west-1.amazonaws.com/p", Audiences: []string{"c"}, ScopeClaims: []string{"cognito:groups"}, Keys: published(t, "", rsa)},
			nil, "", "https://cognito-idp.eu-west-1.amazonaws.com/p|s", []string{"admins"}},
		"Cognito, an access token": {rs, ``, `"iss":"https://cognito-idp.eu-west-1.amazonaws.com/p","sub":"s","client_id":"c","token_use":"access","scope":"aws.cognito.signin.user.admin","version":2`,
			jwtauth.TrustedIssuer{Issuer: "https://cognito-idp.eu-west-1.amazonaws.com/p", Audiences: []string{"c"}, AudienceClaim: "client_id", Keys: published(t, "", rsa)},
			nil, "", "https://cognito-idp.eu-west-1.amazonaws.com/p|s", []string{"aws.cognito.signin.user.admin"}},
		"Keycloak": {rs, `,"typ":"JWT"`, `"iss":"https://sso.example/realms/r","aud":["api","account"],"sub":"s","typ":"Bearer","azp":"web","scope":"email","realm_access":{"roles":["user"]}`,
			jwtauth.TrustedIssuer{Issuer: "https://sso.example/realms/r", Audiences: []string{"api"}, ScopeClaims: []string{"/realm_access/roles"}, Keys: published(t, "", encryption, rsa)},
			nil, "", "https://sso.example/realms/r|s", []string{"email", "user"}},
		"Keycloak, moving to at+jwt": {rs, `,"typ":"at+jwt"`, `"iss":"https://sso.example/realms/r","aud":"api","sub":"s","typ":"Bearer","azp":"web"`,
			jwtauth.TrustedIssuer{Issuer: "https://sso.example/realms/r", Audiences: []string{"api"}, Types: []string{"JWT", "at+jwt"}, Keys: published(t, "", rsa)},
			nil, "", "https://sso.example/realms/r|s", nil},
		"Keycloak, a lightweight token": {rs, `,"typ":"JWT"`, `"iss":"https://sso.example/realms/r","aud":"api","typ":"Bearer","azp":"web"`,
			jwtauth.TrustedIssuer{Issuer: "https://sso.example/realms/r", Audiences: []string{"api"}, Keys: published(t, "", rsa)},
			func(c *jwtauth.Config) { c.Principal = byClaim("azp") }, "", "https://sso.example/realms/r|azp|web", nil},
		"GitHub Actions": {rs, `,"typ":"JWT","x5t":"1"`, `"iss":"https://token.actions.githubusercontent.com","aud":"https://api.example","sub":"repo:o/r:ref:refs/heads/main","repository":"o/r"`,
			jwtauth.TrustedIssuer{Issuer: "https://token.actions.githubusercontent.com", Audiences: []string{"https://api.example"}, Keys: published(t, "", rsa)},
			nil, "", "https://token.actions.githubusercontent.com|repo:o/r:ref:refs/heads/main", nil},
		"Kubernetes, a projected token": {rs, ``, `"iss":"https://kubernetes.default.svc.cluster.local","aud":["api"],"sub":"system:serviceaccount:ns:sa","kubernetes.io":{"namespace":"ns","serviceaccount":{"name":"sa"}}`,
			jwtauth.TrustedIssuer{Issuer: "https://kubernetes.default.svc.cluster.local", Audiences: []string{"api"}, Keys: published(t, "", rsa)},
			nil, "", "https://kubernetes.default.svc.cluster.local|system:serviceaccount:ns:sa", nil},
		"Kubernetes, a legacy token": {rs, ``, `"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"ns","sub":"system:serviceaccount:ns:sa"`,
			jwtauth.TrustedIssuer{Issuer: "kubernetes/serviceaccount", Audiences: []string{"ns"}, AudienceClaim: "kubernetes.io/serviceaccount/namespace",
				DangerouslyAcceptWithoutExpiry: true, Keys: published(t, "", rsa)},
			nil, "", "kubernetes/serviceaccount|system:serviceaccount:ns:sa", nil},
		"GitLab CI": {rs, `,"typ":"JWT"`, `"iss":"https://gitlab.example","aud":"https://api.example","sub":"project_path:g/p:ref_type:branch:ref:main","project_id":"22"`,
			jwtauth.TrustedIssuer{Issuer: "https://gitlab.example", Audiences: []string{"https://api.example"}, Keys: published(t, "", rsa)},
			nil, "", "https://gitlab.example|project_path:g/p:ref_type:branch:ref:main", nil},
		"Firebase": {rs, `,"typ":"JWT"`, `"iss":"https://securetoken.google.com/p","aud":"p","auth_time":1700000000,"user_id":"u","sub":"u","firebase":{"identities":{},"sign_in_provider":"custom"}`,
			jwtauth.TrustedIssuer{Issuer: "https://securetoken.google.com/p", Audiences: []string{"p"}, Keys: published(t, "", leadingZero)},
			nil, "", "https://securetoken.google.com/p|u", nil},
		"Supabase, a user, the old secret": {hs, `,"typ":"JWT"`, `"iss":"https://p.supabase.co/auth/v1","aud":"authenticated","sub":"u","role":"authenticated"`,
			jwtauth.TrustedIssuer{Issuer: "https://p.supabase.co/auth/v1", Audiences: []string{"authenticated"}, Keys: jwk.Sets{shared, published(t, "", ec)}},
			nil, "", "https://p.supabase.co/auth/v1|u", nil},
		"Supabase, a user, the new keys": {es, `,"typ":"JWT"`, `"iss":"https://p.supabase.co/auth/v1","aud":"authenticated","sub":"u","role":"authenticated"`,
			jwtauth.TrustedIssuer{Issuer: "https://p.supabase.co/auth/v1", Audiences: []string{"authenticated"}, Keys: jwk.Sets{shared, published(t, "", ec)}},
			nil, "", "https://p.supabase.co/auth/v1|u", nil},
		"Supabase, a key of the API": {hs, `,"typ":"JWT"`, `"iss":"supabase","ref":"p","role":"anon","iat":1700000000`,
			jwtauth.TrustedIssuer{Issuer: "supabase", Audiences: []string{"p"}, AudienceClaim: "ref", Keys: shared},
			func(c *jwtauth.Config) { c.Principal = byClaim("role") }, "", "supabase|role|anon", nil},
		"Clerk": {rs, `,"typ":"JWT"`, `"azp":"https://app.example","iss":"https://clerk.app.example","sub":"user_1","sid":"sess_1","nbf":1700000000`,
			jwtauth.TrustedIssuer{Issuer: "https://clerk.app.example", Audiences: []string{"https://app.example"}, AudienceClaim: "azp", Keys: published(t, "", rsa)},
			nil, "", "https://clerk.app.example|user_1", nil},
		"Ory Hydra": {rs, `,"typ":"JWT"`, `"aud":[],"client_id":"c","iss":"https://hydra.example/","sub":"u","jti":"1","scp":["openid"],"ext":{}`,
			jwtauth.TrustedIssuer{Issuer: "https://hydra.example/", Audiences: []string{"c"}, AudienceClaim: "client_id", Keys: published(t, "", rsa)},
			nil, "", "https://hydra.example/|u", []string{"openid"}},
		"WorkOS": {rs, ``, `"iss":"https://api.workos.com","sub":"user_1","sid":"session_1","jti":"1","org_id":"org_1","role":"member","permissions":["posts:read"]`,
			jwtauth.TrustedIssuer{Issuer: "https://api.workos.com", DangerouslyAcceptAnyAudience: true, Keys: published(t, "", rsa)},
			nil, "", "https://api.workos.com|user_1", nil},
		"Duende and Logto": {es, `,"typ":"at+jwt"`, `"iss":"https://id.example","aud":"https://api.example","client_id":"c","sub":"u","jti":"1","iat":1700000000,"scope":["openid","orders"]`,
			jwtauth.TrustedIssuer{Issuer: "https://id.example", Audiences: []string{"https://api.example"}, Profile: jwtauth.ProfileAccessToken, Keys: published(t, "", ec)},
			nil, "", "https://id.example|u", []string{"openid", "orders"}},
		"Zitadel": {rs, `,"typ":"JWT"`, `"iss":"https://z.zitadel.cloud","aud":["1@p","2"],"sub":"u","client_id":"1@p","urn:zitadel:iam:org:project:roles":{"reader":{"3":"z.zitadel.cloud"}}`,
			jwtauth.TrustedIssuer{Issuer: "https://z.zitadel.cloud", Audiences: []string{"2"}, ScopeClaims: []string{"urn:zitadel:iam:org:project:roles"}, Keys: published(t, "", rsa)},
			nil, "", "https://z.zitadel.cloud|u", []string{"reader"}},
		"Cloudflare Access": {rs, ``, `"aud":["a1"],"email":"ann@example.org","iss":"https://team.cloudflareaccess.com","type":"app","identity_nonce":"n","sub":"u"`,
			jwtauth.TrustedIssuer{Issuer: "https://team.cloudflareaccess.com", Audiences: []string{"a1"}, Keys: published(t, "", rsa)},
			func(c *jwtauth.Config) { c.Header = "Cf-Access-Jwt-Assertion" }, "Cf-Access-Jwt-Assertion", "https://team.cloudflareaccess.com|u", nil},
		"Cloudflare Access, a service": {rs, ``, `"type":"app","aud":"a1","iss":"https://team.cloudflareaccess.com","common_name":"c.access","sub":""`,
			jwtauth.TrustedIssuer{Issuer: "https://team.cloudflareaccess.com", Audiences: []string{"a1"}, Keys: published(t, "", rsa)},
			func(c *jwtauth.Config) { c.Header, c.Principal = "Cf-Access-Jwt-Assertion", byClaim("common_name") },
			"Cf-Access-Jwt-Assertion", "https://team.cloudflareaccess.com|common_name|c.access", nil},
		"Google's proxy": {es, `,"typ":"JWT"`, `"iss":"https://cloud.google.com/iap","aud":"/projects/1/apps/p","sub":"accounts.google.com:1","hd":"example.org","google":{"access_levels":[]}`,
			jwtauth.TrustedIssuer{Issuer: "https://cloud.google.com/iap", Audiences: []string{"/projects/1/apps/p"}, Keys: published(t, "", ec)},
			func(c *jwtauth.Config) { c.Header = "X-Goog-Iap-Jwt-Assertion" }, "X-Goog-Iap-Jwt-Assertion", "https://cloud.google.com/iap|accounts.google.com:1", nil},
		"AWS, the token of the issuer": {rs, ``, `"iss":"https://cognito-idp.eu-west-1.amazonaws.com/p","sub":"s","client_id":"c","token_use":"access"`,
			jwtauth.TrustedIssuer{Issuer: "https://cognito-idp.eu-west-1.amazonaws.com/p", Audiences: []string{"c"}, AudienceClaim: "client_id", Keys: published(t, "", rsa)},
			func(c *jwtauth.Config) { c.Header = "X-Amzn-Oidc-Accesstoken" }, "X-Amzn-Oidc-Accesstoken", "https://cognito-idp.eu-west-1.amazonaws.com/p|s", nil},
		"SPIFFE": {es, `,"typ":"JOSE"`, `"aud":["spiffe://example.org/api"],"sub":"spiffe://example.org/web"`,
			jwtauth.TrustedIssuer{Issuer: "spiffe://example.org", WithoutIssuer: true, Audiences: []string{"spiffe://example.org/api"}, Types: []string{"JWT", "JOSE"},
				Keys: published(t, "jwt-svid", jwkOf(t, es, map[string]any{"kid": "1", "use": "jwt-svid"}))},
			nil, "", "spiffe://example.org|spiffe://example.org/web", nil},
		"rauthy, client credentials": {rs, `,"typ":"JWT"`, `"iss":"https://iam.example/auth/v1","aud":"api","azp":"job","sub":null,"typ":"Bearer","scope":"read"`,
			jwtauth.TrustedIssuer{Issuer: "https://iam.example/auth/v1", Audiences: []string{"api"}, Keys: published(t, "", rsa)},
			func(c *jwtauth.Config) { c.Principal = byClaim("azp") }, "", "https://iam.example/auth/v1|azp|job", []string{"read"}},
		"Simple JWT and gin-jwt": {hs, `,"typ":"JWT"`, `"token_type":"access","jti":"1","user_id":"7"`,
			jwtauth.TrustedIssuer{Issuer: "the-django-app", WithoutIssuer: true, DangerouslyAcceptAnyAudience: true, Keys: shared},
			func(c *jwtauth.Config) { c.Principal = byClaim("user_id") }, "", "the-django-app|user_id|7", nil},
		"Laravel Passport": {rs, `,"typ":"JWT"`, `"aud":"1","jti":"1","sub":"7","scopes":["orders"]`,
			jwtauth.TrustedIssuer{Issuer: "the-laravel-app", WithoutIssuer: true, Audiences: []string{"1"}, ScopeClaims: []string{"scopes"}, Keys: published(t, "", noAlg)},
			nil, "", "the-laravel-app|7", []string{"orders"}},
	} {
		t.Run(name, func(t *testing.T) {
			method, key, kid := jwt.SigningMethod(jwt.SigningMethodRS256), any(rsaKey()), "1"
			switch tt.alg {
			case es:
				method, key = jwt.SigningMethodES256, any(ecKey())
			case hs:
				method, key, kid = jwt.SigningMethodHS256, any(secret), "h"
			}
			tt.issuer.Algorithms = []jwk.Algorithm{tt.alg}
			if _, ok := tt.issuer.Keys.(jwk.Sets); ok {
				tt.issuer.Algorithms = []jwk.Algorithm{hs, es}
			}
			c := jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{tt.issuer}}
			if tt.change != nil {
				tt.change(&c)
			}
			v := mustVerifier(t, c)
			body := "{" + tt.claims + "}"
			if !tt.issuer.DangerouslyAcceptWithoutExpiry {
				body = `{"exp":` + string(must(json.Marshal(time.Now().Add(time.Minute).Unix()))) + "," + tt.claims + "}"
			}
			text := sealed(`{"alg":"`+string(tt.alg)+`","kid":"`+kid+`"`+tt.header+`}`, body, method, key)
			r := request(t, text)
			if tt.field != "" {
				r.Header = http.Header{tt.field: {text}}
			}
			p, err := v.Authenticate(r)
			if err != nil {
				t.Fatal(err)
			}
			if p.ID != tt.id || !slices.Equal(p.Scopes, tt.scopes) {
				t.Errorf("%s with %q, want %s with %q", p.ID, p.Scopes, tt.id, tt.scopes)
			}
			if w := respond(t, v, r); w.Code != http.StatusOK {
				t.Errorf("%d", w.Code)
			}
		})
	}
}

// What cannot be supported is refused with the reason, before any request.
func TestAnIssuerThatCannotBeSupportedIsAFault(t *testing.T) {
	_, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{hs256(t)}, Header: "X-Amzn-Oidc-Data"})
	fault, ok := errors.AsType[*usher.ConfigError](err)
	if !ok || !strings.Contains(fault.Reason, "pads its segments") || !strings.Contains(fault.Reason, "X-Amzn-Oidc-Accesstoken") {
		t.Error(err)
	}
}
