package jwtauth_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// tenants are issuers that a verifier resolves. All of them have the keys of hs256.
type tenants struct {
	mu     sync.Mutex
	known  map[string]bool
	err    error
	change func(*jwtauth.TrustedIssuer)
	takes  time.Duration
	calls  atomic.Int64
	most   atomic.Int64 // at a time
	now    atomic.Int64
}

func (l *tenants) set(iss string, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = make(map[string]bool)
	}
	l.known[iss] = known
}

// verifier returns a verifier of the issuer of good, which is configured, and of l.
func (l *tenants) verifier(t *testing.T, change func(*jwtauth.Config)) *jwtauth.Verifier {
	t.Helper()
	template := hs256(t)
	return verifier(t, func(c *jwtauth.Config) {
		c.OnError = func(context.Context, error) {}
		c.ResolveIssuer = func(_ context.Context, iss string) (jwtauth.TrustedIssuer, error) {
			l.calls.Add(1)
			l.most.Store(max(l.most.Load(), l.now.Add(1)))
			defer l.now.Add(-1)
			time.Sleep(l.takes)
			l.mu.Lock()
			defer l.mu.Unlock()
			i := template
			i.Issuer = iss
			switch {
			case l.err != nil:
				return i, l.err
			case !l.known[iss]:
				return i, fmt.Errorf("no tenant: %w", jwtauth.UnknownIssuer)
			case l.change != nil:
				l.change(&i)
			}
			return i, nil
		}
		if change != nil {
			change(c)
		}
	})
}

func (l *tenants) wantCalls(t *testing.T, want int64) {
	t.Helper()
	if got := l.calls.Load(); got != want {
		t.Errorf("%d calls of ResolveIssuer, want %d", got, want)
	}
}

// ofTenant returns a token of an issuer that expires after a day.
func ofTenant(iss string) string {
	return token(claims(map[string]any{"iss": iss, "exp": time.Now().Add(24 * time.Hour).Unix()}))
}

const tenant = "https://login.example/tenant"

func TestAnIssuerIsResolvedOncePerTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l tenants
		l.set(tenant, true)
		v := l.verifier(t, nil)
		want(t, v, good(), jwtauth.Accepted) // of the Config: not asked for
		l.wantCalls(t, 0)
		text := ofTenant(tenant)
		for range 3 {
			want(t, v, text, jwtauth.Accepted)
			want(t, v, ofTenant(tenant), jwtauth.Accepted)
		}
		l.wantCalls(t, 1)
		time.Sleep(10*time.Minute - time.Second)
		want(t, v, ofTenant(tenant), jwtauth.Accepted)
		l.wantCalls(t, 1)
		time.Sleep(2 * time.Second)
		want(t, v, text, jwtauth.Accepted)
		l.wantCalls(t, 2)
	})
}

func TestTheTokensOfATenantThatIsGoneAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l tenants
		l.set(tenant, true)
		v := l.verifier(t, func(c *jwtauth.Config) { c.CacheTTL = time.Hour })
		text, other := ofTenant(tenant), ofTenant(issuer)
		want(t, v, text, jwtauth.Accepted)
		want(t, v, other, jwtauth.Accepted)
		l.set(tenant, false)
		time.Sleep(10*time.Minute - time.Second)
		want(t, v, text, jwtauth.Accepted)
		time.Sleep(2 * time.Second)
		want(t, v, text, jwtauth.UnknownIssuer) // although it was remembered
		want(t, v, other, jwtauth.Accepted)
		if n := jwtauth.Remembered(v); n != 2 {
			t.Errorf("%d tokens are remembered, want 2: an issuer has dropped those of others", n)
		}
		l.set(tenant, true)
		want(t, v, text, jwtauth.UnknownIssuer)
		time.Sleep(time.Minute)
		want(t, v, text, jwtauth.Accepted)
	})
}

func TestAnUnknownIssuerIsRememberedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l tenants
		v := l.verifier(t, nil)
		for range 100 {
			want(t, v, ofTenant(tenant), jwtauth.UnknownIssuer)
		}
		l.wantCalls(t, 1)
		time.Sleep(time.Minute)
		want(t, v, ofTenant(tenant), jwtauth.UnknownIssuer)
		l.wantCalls(t, 2)
	})
}

func TestAFailureToResolveAnIssuerIsA503(t *testing.T) {
	var l tenants
	var cause error
	v := l.verifier(t, func(c *jwtauth.Config) { c.OnError = func(_ context.Context, err error) { cause = err } })
	l.set(tenant, true)
	l.err = errDown
	want(t, v, ofTenant(tenant), jwtauth.Unavailable)
	if !errors.Is(cause, errDown) || !strings.Contains(cause.Error(), tenant) {
		t.Errorf("OnError got %v", cause)
	}
	want(t, v, good(), jwtauth.Accepted)
	l.err = nil
	want(t, v, ofTenant(tenant), jwtauth.Accepted) // failures are not remembered
	panics := l.verifier(t, func(c *jwtauth.Config) {
		c.ResolveIssuer = func(context.Context, string) (jwtauth.TrustedIssuer, error) { panic("broken") }
	})
	want(t, panics, ofTenant(tenant), jwtauth.Unavailable)
	want(t, panics, good(), jwtauth.Accepted)
}

// A client that sends many tokens of issuers that cannot be resolved makes no tenant
// unavailable that is not known yet.
func TestFailuresOfOtherIssuersDoNotCount(t *testing.T) {
	var l tenants
	v := l.verifier(t, nil)
	l.err = errDown
	for n := range 300 {
		want(t, v, ofTenant(fmt.Sprint("https://invented.example/", n)), jwtauth.Unavailable)
	}
	l.err = nil
	l.set(tenant, true)
	want(t, v, ofTenant(tenant), jwtauth.Accepted)
}

func TestAnIssuerWithFaultsIsA503ThatNamesAll(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*jwtauth.TrustedIssuer)
		fields []string
	}{
		"no audience and no key":  {func(i *jwtauth.TrustedIssuer) { i.Audiences, i.Keys = nil, nil }, []string{"Audiences", "Keys"}},
		"another issuer":          {func(i *jwtauth.TrustedIssuer) { i.Issuer += "/" }, []string{"Issuer"}},
		"one of the Config":       {func(i *jwtauth.TrustedIssuer) { i.Issuer, i.Aliases = issuer, []string{i.Issuer} }, []string{"Issuer"}},
		"an alias of the Config":  {func(i *jwtauth.TrustedIssuer) { i.Aliases = []string{issuer} }, []string{"Aliases"}},
		"of tokens without iss":   {func(i *jwtauth.TrustedIssuer) { i.WithoutIssuer = true }, []string{"WithoutIssuer"}},
		"nothing, and no failure": {func(i *jwtauth.TrustedIssuer) { *i = jwtauth.TrustedIssuer{} }, []string{"Issuer", "Audiences", "Algorithms", "Keys"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := tenants{change: tt.change}
			l.set(tenant, true)
			var cause error
			v := l.verifier(t, func(c *jwtauth.Config) { c.OnError = func(_ context.Context, err error) { cause = err } })
			want(t, v, ofTenant(tenant), jwtauth.Unavailable)
			for _, field := range tt.fields {
				wantFaults(t, cause, "jwtauth.TrustedIssuer."+field)
			}
		})
	}
	l := tenants{change: func(i *jwtauth.TrustedIssuer) { i.Issuer, i.Aliases = "https://canonical.example", []string{i.Issuer} }}
	l.set(tenant, true)
	if got, err := l.verifier(t, nil).Verify(t.Context(), ofTenant(tenant)); err != nil || got.Issuer != "https://canonical.example" {
		t.Errorf("an alias: %+v, %v", got, err)
	}
}

// Nobody has verified the token whose iss ResolveIssuer gets, so the token must at least
// be one that could be accepted.
func TestOnlyAPlausibleIssuerIsResolved(t *testing.T) {
	var l tenants
	v := l.verifier(t, nil)
	iss := func(value string) string { return plain(jwtHeader, `{"iss":`+value+`,"sub":"a","exp":4102444800}`) }
	for name, text := range map[string]string{
		"no form":            "garbage",
		"too long a token":   token(claims(map[string]any{"iss": tenant, "x": strings.Repeat("x", 40000)})),
		"an extension":       plain(`{"alg":"HS256","crit":["x"],"x":1}`, payload(`"x":1`)),
		"alg none":           plain(`{"alg":"none"}`, `{"iss":"`+tenant+`"}`),
		"an unknown alg":     plain(`{"alg":"HS1"}`, `{"iss":"`+tenant+`"}`),
		"no iss":             plain(jwtHeader, `{"sub":"a"}`),
		"an empty iss":       iss(`""`),
		"an iss of a number": iss(`7`),
		"iss null":           iss(`null`),
		"an iss of a list":   iss(`["` + tenant + `"]`),
		"a long iss":         iss(`"` + strings.Repeat("x", 1025) + `"`),
		"a line end":         iss(`"a\nb"`),
		"NUL":                iss(`"a\u0000b"`),
		"C1":                 iss(`"a\u0085b"`),
		"a blank at the end": iss(`"a "`),
		"a bar":              iss(`"a|b"`),
	} {
		if got := verdict(t, v, text); got != jwtauth.UnknownIssuer && got != jwtauth.Malformed {
			t.Errorf("%s: %v", name, got)
		}
		if n := l.calls.Swap(0); n != 0 {
			t.Errorf("%s: resolved", name)
		}
	}
	want(t, v, iss(`"`+strings.Repeat("x", 1024)+`"`), jwtauth.UnknownIssuer)
	l.wantCalls(t, 1)
}

func TestRequestsOfOneIssuerShareACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := tenants{takes: time.Second}
		l.set(tenant, true)
		v := l.verifier(t, nil)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { want(t, v, ofTenant(tenant), jwtauth.Accepted) })
		}
		all.Wait()
		l.wantCalls(t, 1)
	})
}

// A client that invents issuers makes neither known tenants nor configured issuers wait.
func TestInventedIssuersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := tenants{takes: time.Minute} // it hangs
		v := l.verifier(t, nil)
		l.set(tenant, true)
		l.takes = 0
		want(t, v, ofTenant(tenant), jwtauth.Accepted)
		l.takes = time.Minute
		var all sync.WaitGroup
		for n := range 1000 {
			all.Go(func() { want(t, v, ofTenant(fmt.Sprint("https://invented.example/", n)), jwtauth.Unavailable) })
		}
		synctest.Wait()
		began := time.Now()
		want(t, v, ofTenant(tenant), jwtauth.Accepted)
		want(t, v, good(), jwtauth.Accepted)
		if time.Since(began) > 0 {
			t.Error("a known tenant has waited")
		}
		all.Wait()
		if n := l.most.Load(); n > 16 {
			t.Errorf("%d calls at a time", n)
		}
		time.Sleep(2 * time.Minute)
	})
}

// Ten thousand tenants take the room of IssuerCapacity, and unknown ones displace none.
func TestManyTenants(t *testing.T) {
	const capacity = 512
	var l tenants
	v := l.verifier(t, func(c *jwtauth.Config) { c.IssuerCapacity, c.CacheCapacity = capacity, 1<<15 })
	first := ofTenant(issuer)
	want(t, v, first, jwtauth.Accepted)
	const n = 10_000
	for i := range n {
		iss := fmt.Sprintf("https://tenant-%d.example", i)
		l.set(iss, true)
		p, err := v.Authenticate(request(t, ofTenant(iss)))
		if err != nil || p.ID != iss+"|ann" {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	l.wantCalls(t, n)
	if issuers, unknown := jwtauth.Resolved(v); issuers > capacity || issuers < capacity/2 || unknown != 0 {
		t.Errorf("%d issuers and %d unknown ones are remembered", issuers, unknown)
	}
	if got := jwtauth.Remembered(v); got < n {
		t.Errorf("%d tokens are remembered: those of an issuer were dropped with it", got)
	}
	before, _ := jwtauth.Resolved(v)
	for i := range n {
		want(t, v, ofTenant(fmt.Sprintf("https://unknown-%d.example", i)), jwtauth.UnknownIssuer)
	}
	if issuers, unknown := jwtauth.Resolved(v); issuers != before || unknown == 0 || unknown > capacity {
		t.Errorf("%d issuers and %d unknown ones are remembered, %d issuers before", issuers, unknown, before)
	}
}

// The keys of a tenant verify no token of another tenant.
func TestATenantSignsForNobodyElse(t *testing.T) {
	keys := map[string]jwk.Static{}
	secrets := map[string][]byte{}
	for _, name := range []string{"a", "b"} {
		iss := "https://" + name + ".example"
		secrets[iss] = []byte(strings.Repeat(name, 32))
		keys[iss] = jwk.Static{mustKey(t, jwk.KeyConfig{ID: "1", Algorithm: jwk.HS256, Secret: secrets[iss]})}
	}
	v := mustVerifier(t, jwtauth.Config{ResolveIssuer: func(_ context.Context, iss string) (jwtauth.TrustedIssuer, error) {
		if keys[iss] == nil {
			return jwtauth.TrustedIssuer{}, jwtauth.UnknownIssuer
		}
		return jwtauth.TrustedIssuer{Issuer: iss, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: keys[iss]}, nil
	}})
	for iss := range keys {
		for signer, key := range secrets {
			text := sealed(`{"alg":"HS256","kid":"1"}`, `{"iss":"`+iss+`","aud":"`+audience+`","sub":"ann","exp":4102444800}`, jwt.SigningMethodHS256, key)
			wanted := jwtauth.BadSignature
			if signer == iss {
				wanted = jwtauth.Accepted
			}
			want(t, v, text, wanted)
		}
	}
}

func TestFaultsOfAResolver(t *testing.T) {
	_, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{hs256(t)}, IssuerCapacity: -1, IssuerTTL: -1})
	wantFaults(t, err, "jwtauth.Config.IssuerCapacity", "jwtauth.Config.IssuerTTL")
	_, err = jwtauth.New(jwtauth.Config{})
	wantFaults(t, err, "jwtauth.Config.Issuers")
}

// Every token may be of an issuer that is resolved, so a verifier with fixed issuers is
// listed first.
func TestAResolverIsCertainOfEveryToken(t *testing.T) {
	var l tenants
	v := l.verifier(t, nil)
	if carrier, certain := v.Detect(request(t, ofTenant("https://nobody.example"))); carrier != "Authorization" || !certain {
		t.Errorf("%q, %t", carrier, certain)
	}
	if _, certain := v.Detect(request(t, "opaque")); certain {
		t.Error("certain of opaque text")
	}
	l.wantCalls(t, 0)
	fixed := ofIssuer(t, "https://fixed.example", nil)
	_, err := usher.Precedence(fixed, v).Authenticate(request(t, ofTenant("https://fixed.example")))
	if err != nil {
		t.Error(err)
	}
}
