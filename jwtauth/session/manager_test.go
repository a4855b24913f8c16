package session_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// signing returns a key for an algorithm that can sign.
func signing(tb testing.TB, id string, a jwk.Algorithm) *jwk.Key {
	tb.Helper()
	c := jwk.KeyConfig{ID: id, Algorithm: a}
	switch {
	case strings.HasPrefix(string(a), "HS"):
		c.Secret = secret
	case strings.HasPrefix(string(a), "RS"), strings.HasPrefix(string(a), "PS"):
		c.Material = rsaKey()
	case a == jwk.ES256:
		c.Material = ecKey()
	case a == jwk.ES384:
		c.Material = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case a == jwk.ES512:
		c.Material = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	default:
		c.Material = ed25519Key()
	}
	return mustKey(tb, c)
}

func managerConfig(tb testing.TB) session.Config {
	tb.Helper()
	return session.Config{
		Issuer:    issuer,
		Audiences: []string{audience},
		Keys:      []session.SigningKey{{Key: signing(tb, "k1", jwk.HS256)}},
		Store:     newMemory(tb, 0),
	}
}

// newManager returns a Manager with a store of its own. Change, if not nil, changes its
// Config.
func newManager(tb testing.TB, change func(*session.Config)) *session.Manager {
	tb.Helper()
	c := managerConfig(tb)
	if change != nil {
		change(&c)
	}
	m, err := session.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// sessions returns a verifier of the tokens that m issues.
func sessions(tb testing.TB, m *session.Manager, revocations jwtauth.Revocations) *jwtauth.Verifier {
	tb.Helper()
	return mustVerifier(tb, jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer:    issuer,
			Audiences: []string{audience},
			Algorithms: []jwk.Algorithm{
				jwk.HS256, jwk.HS384, jwk.HS512, jwk.RS256, jwk.RS384, jwk.RS512,
				jwk.PS256, jwk.PS384, jwk.PS512, jwk.ES256, jwk.ES384, jwk.ES512,
				jwk.EdDSA, jwk.Ed25519,
			},
			Keys:       m.Keys(),
			Profile:    jwtauth.ProfileSession,
			OnVerified: m.Used,
		}},
		Revocations: revocations,
	})
}

func login(tb testing.TB, m *session.Manager) session.Tokens {
	tb.Helper()
	t, err := m.Login(tb.Context(), session.Session{Subject: "ann"})
	if err != nil {
		tb.Fatalf("Login: %v", err)
	}
	return t
}

var algorithms = []jwk.Algorithm{
	jwk.HS256, jwk.HS384, jwk.HS512, jwk.RS256, jwk.RS384, jwk.RS512,
	jwk.PS256, jwk.PS384, jwk.PS512, jwk.ES256, jwk.ES384, jwk.ES512,
	jwk.EdDSA, jwk.Ed25519,
}

func TestAccessTokensOfEveryAlgorithmAreAcceptedByAVerifier(t *testing.T) {
	for _, a := range algorithms {
		t.Run(string(a), func(t *testing.T) {
			m := newManager(t, func(c *session.Config) {
				c.Keys = []session.SigningKey{{Key: signing(t, "k1", a)}}
			})
			want(t, sessions(t, m, nil), login(t, m).AccessToken(), jwtauth.Accepted)
		})
	}
}

func TestAccessTokenHasTheClaimsOfTheSession(t *testing.T) {
	m := newManager(t, func(c *session.Config) {
		c.Claims = func(_ context.Context, s session.Session) (map[string]any, error) {
			return map[string]any{"email": s.Subject + "@example.com", "role": "admin"}, nil
		}
	})
	before := time.Now().Truncate(time.Second)
	tokens, err := m.Login(t.Context(), session.Session{
		Subject: "ann", Scopes: []string{"read", "write"}, Data: map[string]string{"device": "phone"},
		// The caller cannot set these:
		ID: "mine", EndsAt: before.Add(1e6 * time.Hour), RevokedAt: before,
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := sessions(t, m, nil).Verify(t.Context(), tokens.AccessToken())
	if err != nil {
		t.Fatal(err)
	}
	if token.Subject != "ann" || token.SessionID != tokens.Session.ID || token.SessionID == "mine" || token.ID == "" ||
		!compare.Equal(token.Scopes, []string{"read", "write"}) || !compare.Equal(token.Audience, []string{audience}) ||
		token.IssuedAt.Before(before) || token.ExpiresAt.Sub(token.IssuedAt) != 15*time.Minute {
		t.Errorf("%+v", token)
	}
	var private struct {
		Email string `json:"email"`
		Role  string `json:"role"`
	}
	if err := token.Claims(&private); err != nil || private.Email != "ann@example.com" || private.Role != "admin" {
		t.Errorf("%+v, %v", private, err)
	}
	s := tokens.Session
	if s.EndsAt.Sub(s.CreatedAt) != 30*24*time.Hour || s.ExpiresAt.Sub(s.CreatedAt) != 7*24*time.Hour ||
		!s.RevokedAt.IsZero() || s.Data["device"] != "phone" {
		t.Errorf("%+v", s)
	}
	if tokens.AccessLifetime != 15*time.Minute || tokens.RefreshLifetime != 7*24*time.Hour {
		t.Errorf("lifetimes %v and %v", tokens.AccessLifetime, tokens.RefreshLifetime)
	}
	other := login(t, m)
	if other.Session.ID == s.ID || other.RefreshToken() == tokens.RefreshToken() || other.AccessToken() == tokens.AccessToken() {
		t.Error("two logins have something in common")
	}
}

func TestLoginRefusesWhatATokenCannotHave(t *testing.T) {
	m := newManager(t, nil)
	for name, template := range map[string]session.Session{
		"no subject":                    {},
		"a scope with a blank":          {Subject: "ann", Scopes: []string{"read write"}},
		"an empty scope":                {Subject: "ann", Scopes: []string{"read", ""}},
		"a scope with a quote":          {Subject: "ann", Scopes: []string{`"`}},
		"a subject that is not Unicode": {Subject: "ann\xff"},
		"a client that is not Unicode":  {Subject: "ann", Client: "web\xff"},
		"a client that is too long":     {Subject: "ann", Client: strings.Repeat("x", 256)},
		"a subject that is too long":    {Subject: strings.Repeat("x", 12<<10)},
	} {
		if tokens, err := m.Login(t.Context(), template); err == nil || tokens.AccessToken() != "" || tokens.RefreshToken() != "" {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestClaimsCannotSetReservedClaims(t *testing.T) {
	tests := map[string]map[string]any{
		"iss":                                {"iss": "https://evil.example"},
		"sub":                                {"sub": "root"},
		"exp":                                {"exp": 4102444800},
		"sid":                                {"sid": "x"},
		"scope":                              {"scope": "admin"},
		"client_id":                          {"client_id": "admin"},
		"a variant that could count":         {"EXP": 4102444800},
		"a variant beside the claim":         {"Sid": "x"},
		"a value that JSON cannot represent": {"x": func() {}},
		"more than fits into a token":        {"x": strings.Repeat("x", 12<<10)},
	}
	for name, private := range tests {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, func(c *session.Config) {
				c.Claims = func(context.Context, session.Session) (map[string]any, error) { return private, nil }
			})
			if tokens, err := m.Login(t.Context(), session.Session{Subject: "ann"}); err == nil || tokens.AccessToken() != "" {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestClaimsAreAskedAtEachRefreshAndMayRefuse(t *testing.T) {
	closed := &usher.Error{Status: http.StatusForbidden, Code: "account_closed"}
	role, refusal := "admin", error(nil)
	m := newManager(t, func(c *session.Config) {
		c.Claims = func(_ context.Context, s session.Session) (map[string]any, error) {
			s.Scopes[0] = "all" // of a copy
			return map[string]any{"role": role}, refusal
		}
	})
	first, err := m.Login(t.Context(), session.Session{Subject: "ann", Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	role = "user"
	second, err := m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()})
	if err != nil {
		t.Fatal(err)
	}
	token, err := sessions(t, m, nil).Verify(t.Context(), second.AccessToken())
	if err != nil {
		t.Fatal(err)
	}
	var private struct {
		Role string `json:"role"`
	}
	if err := token.Claims(&private); err != nil || private.Role != "user" || !compare.Equal(token.Scopes, []string{"read"}) {
		t.Errorf("role %q, scopes %v, %v", private.Role, token.Scopes, err)
	}

	refusal = closed
	if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: second.RefreshToken()}); !errors.Is(err, closed) {
		t.Errorf("error %v, want that of Claims", err)
	}
	refusal = errors.New("down")
	if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: second.RefreshToken()}); !errors.Is(err, refusal) || errors.Is(err, session.ErrInvalidRefreshToken) {
		t.Errorf("error %v, want one that permits a retry", err)
	}
	// Those refreshes exchanged nothing.
	refusal = nil
	if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: second.RefreshToken()}); err != nil {
		t.Error(err)
	}
}

func TestConfigFaultsAreReportedTogether(t *testing.T) {
	public := mustKey(t, jwk.KeyConfig{ID: "p", Algorithm: jwk.ES256, Material: &ecKey().PublicKey})
	nameless := mustKey(t, jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret})
	k1 := signing(t, "k1", jwk.HS256)
	later := time.Now().Add(time.Hour)
	tests := map[string]struct {
		change func(*session.Config)
		fields []string
	}{
		"nothing":              {func(c *session.Config) { *c = session.Config{} }, []string{"Issuer", "Audiences"}},
		"a store without keys": {func(c *session.Config) { c.Keys = nil }, []string{"Keys"}},
		"a bar":                {func(c *session.Config) { c.Issuer = "a|b" }, []string{"Issuer"}},
		"an empty audience":    {func(c *session.Config) { c.Audiences = []string{"a", ""} }, []string{"Audiences"}},
		"negative times": {func(c *session.Config) {
			c.AccessLifetime, c.RefreshLifetime, c.SessionLifetime, c.Timeout = -1, -2, -3, -1
		}, []string{"AccessLifetime", "RefreshLifetime", "SessionLifetime", "Grace", "Timeout"}},
		"a grace that is longer than an access token": {func(c *session.Config) { c.AccessLifetime, c.Grace = time.Minute, time.Minute }, []string{"Grace"}},
		"a grace of hours":                            {func(c *session.Config) { c.AccessLifetime, c.Grace = 6*time.Hour, time.Hour }, []string{"Grace"}},
		"a key that is nil":                           {func(c *session.Config) { c.Keys = []session.SigningKey{{}} }, []string{"Keys[0].Key"}},
		"a public key":                                {func(c *session.Config) { c.Keys = []session.SigningKey{{Key: public}} }, []string{"Keys[0].Key"}},
		"a key without ID":                            {func(c *session.Config) { c.Keys = []session.SigningKey{{Key: nameless}} }, []string{"Keys[0].Key"}},
		"one ID twice":                                {func(c *session.Config) { c.Keys = []session.SigningKey{{Key: k1}, {Key: k1, From: later}} }, []string{"Keys[1].Key"}},
		"two keys that sign at once": {func(c *session.Config) {
			c.Keys = []session.SigningKey{{Key: k1}, {Key: signing(t, "k2", jwk.HS256)}}
		}, []string{"Keys[1].From"}},
		"no key that signs yet": {func(c *session.Config) { c.Keys = []session.SigningKey{{Key: k1, From: later}} }, []string{"Keys"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := managerConfig(t)
			tt.change(&c)
			m, err := session.New(c)
			if m != nil {
				t.Error("New returned a Manager and faults")
			}
			var fields []string
			if joined, ok := err.(interface{ Unwrap() []error }); ok {
				for _, err := range joined.Unwrap() {
					if e, ok := errors.AsType[*usher.ConfigError](err); ok {
						fields = append(fields, strings.TrimPrefix(e.Field, "session.Config."))
					}
				}
			}
			if diff := compare.Diff(tt.fields, fields); diff != "" {
				t.Errorf("faults (-want +got):\n%s\n%v", diff, err)
			}
		})
	}
}

// Issuer and audience alone make a Manager for one process, whose verifier refuses the
// access tokens of a session as soon as it has ended.
func TestASmallConfigHasImmediateLogout(t *testing.T) {
	m := must(session.New(session.Config{Issuer: issuer, Audiences: []string{audience}}))
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{m.TrustedIssuer()}})
	first, second := login(t, m), login(t, m)
	want(t, v, first.AccessToken(), jwtauth.Accepted)
	if _, err := m.Logout(t.Context(), first.Session.Subject, first.Session.ID); err != nil {
		t.Fatal(err)
	}
	want(t, v, first.AccessToken(), jwtauth.Revoked)
	want(t, v, second.AccessToken(), jwtauth.Accepted)
	mustRefresh(t, m, second.RefreshToken())
	if other := must(session.New(session.Config{Issuer: issuer, Audiences: []string{audience}})); other != nil {
		want(t, v, login(t, other).AccessToken(), jwtauth.UnknownKey)
	}
}

// The configuration of a Manager is stated only once.
func TestTrustedIssuerIsWhatTheManagerIssues(t *testing.T) {
	later := time.Now().Add(time.Hour)
	m := newManager(t, func(c *session.Config) {
		c.Type, c.Revocations = "example+jwt", new(jwtauth.RevocationList)
		c.Audiences = []string{"a", "b"}
		c.Keys = []session.SigningKey{{Key: signing(t, "k1", jwk.HS256)}, {Key: signing(t, "k2", jwk.EdDSA), From: later}}
	})
	trusted := m.TrustedIssuer()
	if !slices.Equal(trusted.Algorithms, []jwk.Algorithm{jwk.HS256, jwk.EdDSA}) || !slices.Equal(trusted.Audiences, []string{"a", "b"}) {
		t.Errorf("%+v", trusted)
	}
	trusted.Audiences[0] = "changed"
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{m.TrustedIssuer()}})
	opened := login(t, m)
	want(t, v, opened.AccessToken(), jwtauth.Accepted)
	if _, err := m.LogoutAll(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	want(t, v, opened.AccessToken(), jwtauth.Revoked)
}

func TestManagerKeepsNothingOfItsConfig(t *testing.T) {
	c := managerConfig(t)
	m := must(session.New(c))
	c.Audiences[0], c.Keys[0].From = "https://other.example", time.Now().Add(time.Hour)
	want(t, sessions(t, m, nil), login(t, m).AccessToken(), jwtauth.Accepted)
}

// A key is published before it signs and signs from its From on. Its predecessor verifies
// until its last token has expired.
func TestKeysAreChangedWithoutRefusingAnybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		change := time.Now().Add(time.Hour)
		old, next := signing(t, "old", jwk.HS256), signing(t, "next", jwk.EdDSA)
		m := newManager(t, func(c *session.Config) {
			c.Keys = []session.SigningKey{{Key: next, From: change}, {Key: old}}
		})
		v := sessions(t, m, nil)
		kid := func(tokens session.Tokens) string {
			t.Helper()
			var header struct{ Kid, Alg string }
			part, _, _ := strings.Cut(tokens.AccessToken(), ".")
			if err := json.Unmarshal(must(unb64(part)), &header); err != nil {
				t.Fatal(err)
			}
			return header.Kid + " " + header.Alg
		}
		version := func() uint64 {
			t.Helper()
			n, err := m.Keys().Version()
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if got := kid(login(t, m)); got != "old HS256" {
			t.Errorf("before the change %q signs", got)
		}
		time.Sleep(time.Hour - time.Second)
		last := login(t, m)
		if got := kid(last); got != "old HS256" {
			t.Errorf("just before the change %q signs", got)
		}
		start := version()
		time.Sleep(time.Second)
		first := login(t, m)
		if got := kid(first); got != "next EdDSA" {
			t.Errorf("after the change %q signs", got)
		}
		time.Sleep(14*time.Minute + 58*time.Second)
		want(t, v, last.AccessToken(), jwtauth.Accepted)
		want(t, v, first.AccessToken(), jwtauth.Accepted)
		if got := version(); got != start {
			t.Errorf("version %d, was %d: no key has gone", got, start)
		}
		time.Sleep(5*time.Minute + 2*time.Second) // whatever leeway a verifier has
		if got := version(); got == start {
			t.Errorf("version %d as before, though a key has gone", got)
		}
		keys, n, err := m.Keys().Find(t.Context(), "old", jwk.HS256)
		if len(keys) != 0 || n != version() || err != nil {
			t.Errorf("the old key is still known: %v, %d, %v", keys, n, err)
		}
		want(t, v, login(t, m).AccessToken(), jwtauth.Accepted)
	})
}

func TestLogoutEndsASessionAtOnceAndOnlyThat(t *testing.T) {
	var list jwtauth.RevocationList
	m := newManager(t, func(c *session.Config) { c.Revocations = &list })
	v := sessions(t, m, &list)
	ended, other := login(t, m), login(t, m)
	want(t, v, ended.AccessToken(), jwtauth.Accepted) // and remembered
	for range 2 {
		if _, err := m.Logout(t.Context(), ended.Session.Subject, ended.Session.ID); err != nil {
			t.Fatal(err)
		}
		want(t, v, ended.AccessToken(), jwtauth.Revoked)
		wantInvalid(t, m, ended.RefreshToken())
	}
	want(t, v, other.AccessToken(), jwtauth.Accepted)
	mustRefresh(t, m, other.RefreshToken())
	for _, id := range []string{"no such session", ""} {
		if _, err := m.Logout(t.Context(), "ann", id); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("the unknown session %q: %v", id, err)
		}
	}
}

func TestALogoutIsRememberedAsLongAsAnAccessTokenLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list jwtauth.RevocationList
		m := newManager(t, func(c *session.Config) { c.Revocations = &list })
		v := sessions(t, m, &list)
		one, all := login(t, m), must(m.Login(t.Context(), session.Session{Subject: "bert"}))
		time.Sleep(time.Second)
		if _, err := m.Logout(t.Context(), "ann", one.Session.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := m.LogoutAll(t.Context(), "bert"); err != nil {
			t.Fatal(err)
		}
		forget := func(id string) { // the list forgets as others come
			if err := list.RevokeToken(t.Context(), issuer, id, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(15*time.Minute + 3*time.Second) // the leeway of v is five seconds
		forget("other")
		want(t, v, one.AccessToken(), jwtauth.Revoked)
		want(t, v, all.AccessToken(), jwtauth.Revoked)
		time.Sleep(10 * time.Minute) // by which clocks may differ, and the largest leeway
		forget("another")
		forget("one more")
		if n := list.Len(); n != 3 {
			t.Errorf("%d revocations, want the last three", n)
		}
	})
}

func TestLogoutAllEndsTheSessionsOfOneSubjectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list jwtauth.RevocationList
		m := newManager(t, func(c *session.Config) { c.Revocations = &list })
		v := sessions(t, m, &list)
		phone, laptop := login(t, m), login(t, m)
		other := must(m.Login(t.Context(), session.Session{Subject: "bert"}))
		for _, tokens := range []session.Tokens{phone, laptop, other} {
			want(t, v, tokens.AccessToken(), jwtauth.Accepted)
		}
		time.Sleep(300 * time.Millisecond)
		if _, err := m.LogoutAll(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
		for _, tokens := range []session.Tokens{phone, laptop} {
			want(t, v, tokens.AccessToken(), jwtauth.Revoked)
			wantInvalid(t, m, tokens.RefreshToken())
		}
		want(t, v, other.AccessToken(), jwtauth.Accepted)
		mustRefresh(t, m, other.RefreshToken())

		// A user who changes her password is logged out everywhere and in again at once.
		// Tokens have whole seconds in iat, so the login waits for the next second.
		before := time.Now()
		again := login(t, m)
		if waited := time.Since(before); waited > time.Second {
			t.Errorf("the login took %v", waited)
		}
		want(t, v, again.AccessToken(), jwtauth.Accepted)
		mustRefresh(t, m, again.RefreshToken())
	})
}

func TestARevokedSubjectGetsNoTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list jwtauth.RevocationList
		m := newManager(t, func(c *session.Config) { c.Revocations = &list })
		tokens := login(t, m)
		if err := list.RevokeSession(t.Context(), issuer, tokens.Session.ID, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		got, err := m.Refresh(t.Context(), session.RefreshRequest{Token: tokens.RefreshToken()})
		if e, ok := errors.AsType[*usher.Error](err); !ok || e.Status != http.StatusForbidden || got.AccessToken() != "" {
			t.Errorf("error %v", err)
		}
	})
}

func TestAccessTokenDoesNotOutliveItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, func(c *session.Config) {
			c.RefreshLifetime, c.SessionLifetime = 20*time.Minute, 50*time.Minute
		})
		tokens := login(t, m)
		end := time.Now().Add(50 * time.Minute)
		for range 2 {
			time.Sleep(19 * time.Minute)
			tokens = mustRefresh(t, m, tokens.RefreshToken())
		}
		token := must(sessions(t, m, nil).Verify(t.Context(), tokens.AccessToken()))
		if !token.ExpiresAt.Equal(end.Truncate(time.Second)) || tokens.AccessLifetime != 12*time.Minute || tokens.RefreshLifetime != 12*time.Minute {
			t.Errorf("expires at %v after %v and %v, want %v", token.ExpiresAt, tokens.AccessLifetime, tokens.RefreshLifetime, end)
		}
		time.Sleep(12 * time.Minute)
		wantInvalid(t, m, tokens.RefreshToken())
	})
}

// J14: neither kind of token is accepted in place of the other.
func TestJ14TokensOfOneKindAreNeverTakenForTheOther(t *testing.T) {
	store := &hooked{Store: newMemory(t, 0)}
	m := newManager(t, func(c *session.Config) { c.Store = store })
	tokens := login(t, m)
	want(t, sessions(t, m, nil), tokens.RefreshToken(), jwtauth.Malformed)
	store.calls.Store(0)
	wantInvalid(t, m, tokens.AccessToken())
	if n := store.calls.Load(); n != 0 {
		t.Errorf("an access token as refresh token costs %d calls of the store", n)
	}

	trusted := jwtauth.TrustedIssuer{
		Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: m.Keys(),
	}
	for name, tt := range map[string]struct {
		change func(*jwtauth.TrustedIssuer)
		want   jwtauth.Verdict
	}{
		"as a plain token":         {func(*jwtauth.TrustedIssuer) {}, jwtauth.WrongType},
		"as an OAuth access token": {func(c *jwtauth.TrustedIssuer) { c.Profile = jwtauth.ProfileAccessToken }, jwtauth.WrongType},
		"as an assertion":          {func(c *jwtauth.TrustedIssuer) { c.Profile = jwtauth.ProfileAssertion }, jwtauth.WrongType},
		"for another audience": {func(c *jwtauth.TrustedIssuer) {
			c.Profile, c.Audiences = jwtauth.ProfileSession, []string{"https://other.example"}
		}, jwtauth.WrongAudience},
	} {
		t.Run(name, func(t *testing.T) {
			c := trusted
			tt.change(&c)
			want(t, mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{c}}), tokens.AccessToken(), tt.want)
		})
	}
	// A token that the same key signed, but that is not a session's.
	forged := sealed(`{"alg":"HS256","kid":"k1","typ":"JWT"}`, string(must(json.Marshal(claims(map[string]any{"sid": "x", "jti": "y"})))), hs256Method, secret)
	want(t, sessions(t, m, nil), forged, jwtauth.WrongType)
}

func TestAManagerWithAnotherType(t *testing.T) {
	m := newManager(t, func(c *session.Config) {
		c.Type = "at+jwt"
	})
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: m.Keys(),
		Profile: jwtauth.ProfileAccessToken,
	}}})
	tokens := must(m.Login(t.Context(), session.Session{Subject: "ann", Client: "web"}))
	want(t, v, tokens.AccessToken(), jwtauth.Accepted)
}

// An access token of the type of RFC 9068 that its verifiers refuse reaches no client.
func TestATokenOfRFC9068NeedsAClient(t *testing.T) {
	for _, typ := range []string{"at+jwt", "AT+JWT", "application/at+jwt"} {
		m := newManager(t, func(c *session.Config) { c.Type = typ })
		_, err := m.Login(t.Context(), session.Session{Subject: "ann"})
		if e, ok := errors.AsType[*usher.Error](err); !ok || e.Status != 500 || !strings.Contains(e.Error(), "client_id") {
			t.Errorf("%s: %v", typ, err)
		}
	}
}

func TestBlanksAtTheEndsOfNamesAreFaults(t *testing.T) {
	_, err := session.New(session.Config{Issuer: issuer + "\n", Audiences: []string{audience, " a"}, Type: "x+jwt "})
	wantFaults(t, err, "session.Config.Issuer", "session.Config.Audiences", "session.Config.Type")
}

func TestARestartWithoutAStore(t *testing.T) {
	for name, tt := range map[string]struct {
		keys        []session.SigningKey
		revocations jwtauth.Revoker
		want        jwtauth.Verdict // on a token whose session had ended
	}{
		"with a new key":                    {nil, nil, jwtauth.UnknownKey},
		"with the same key":                 {[]session.SigningKey{{Key: signing(t, "k1", jwk.HS256)}}, nil, jwtauth.Accepted},
		"with the same key and revocations": {[]session.SigningKey{{Key: signing(t, "k1", jwk.HS256)}}, new(jwtauth.RevocationList), jwtauth.Revoked},
	} {
		t.Run(name, func(t *testing.T) {
			start := func() (*session.Manager, *jwtauth.Verifier) {
				m := newManager(t, func(c *session.Config) { c.Store, c.Keys, c.Revocations = nil, tt.keys, tt.revocations })
				return m, mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{m.TrustedIssuer()}})
			}
			m, v := start()
			opened := login(t, m)
			if _, err := m.Logout(t.Context(), opened.Session.Subject, opened.Session.ID); err != nil {
				t.Fatal(err)
			}
			want(t, v, opened.AccessToken(), jwtauth.Revoked)
			m, v = start()
			want(t, v, opened.AccessToken(), tt.want)
			wantInvalid(t, m, opened.RefreshToken())
		})
	}
}
