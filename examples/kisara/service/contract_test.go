package service

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/session"
)

const noCredential = "Unauthorized: No credentials provided"

// key issues a key for account in an environment and returns the header line that
// carries it.
func (s *Service) key(c *contract.Client, account, environment string) (string, apikey.Key) {
	c.TB.Helper()
	k, secret, err := s.manager.Create(c.TB.Context(), apikey.Actor{System: true}, apikey.Key{Owner: account, Name: "k", Environment: environment})
	if err != nil {
		c.TB.Fatal(err)
	}
	return "X-API-Key: " + secret.Reveal(), k
}

// login opens a session for account.
func (s *Service) login(c *contract.Client, account string) session.Tokens {
	c.TB.Helper()
	t, err := s.issuer.Login(c.TB.Context(), session.Session{Subject: account})
	if err != nil {
		c.TB.Fatal(err)
	}
	return t
}

// as returns the header line that carries an access token of account.
func (s *Service) as(c *contract.Client, account string) string {
	c.TB.Helper()
	return contract.Bearer(s.login(c, account).AccessToken())
}

// forged returns the header line that carries a token of ada with some claims
// changed, or removed by nil, and signed with a secret.
func forged(secret []byte, change map[string]any) string {
	now := time.Now().Unix()
	return contract.Bearer(tokentest.Sign(`{"alg":"HS256","typ":"session+jwt","kid":"1"}`, tokentest.Claims(tokentest.With(map[string]any{
		"iss": kisaraName, "aud": kisaraName, "sub": "ada", "sid": "s", "jti": "t", "iat": now, "exp": now + 900,
		"id": "ada", "email": "ada@kisara.example", "role": "USER",
	}, change)), tokentest.HS256(secret)))
}

// refresh returns the body that carries a refresh token.
func refresh(text string) string { return `{"refresh_token":"` + text + `"}` }

// refreshed checks the response to a refresh and returns the new tokens.
func refreshed(a *contract.Response) (access, next string) {
	a.Client.TB.Helper()
	a.Enveloped(200, "Token refreshed successfully", `{"access_token":"<jwt>"}`).Has("Cache-Control", "no-store").
		Has("Set-Cookie", "refresh_token=<token>; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Strict")
	return a.Member("data.access_token"), a.Cookies()[0].Value
}

func TestContract(t *testing.T) { contract.Run(t, New, rows) }

var rows = []contract.Row[*Service]{
	{Name: "KS-01 a valid key gets a response in the envelope", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		c.Get("/user", key).Enveloped(200, "User found", `{"name":"ada","link_id":"ada","profile_url":null}`)
	}},
	{Name: "KS-02 no credential is 401 without data", Test: func(c *contract.Client, _ *Service) {
		a := c.Get("/user").Enveloped(401, noCredential, "")
		if got := strings.Join(a.Header.Values("WWW-Authenticate"), ", "); got != `Bearer, ApiKey in="header", name="X-API-Key"` {
			c.TB.Errorf("the challenges are %q", got)
		}
	}},
	{Name: "KS-03 an empty key and one of blanks are none", Test: func(c *contract.Client, _ *Service) {
		none := c.Get("/user")
		c.Get("/user", "X-API-Key: ").Enveloped(401, noCredential, "").Same(none)
		c.Get("/user", "X-API-Key:  \t ").Enveloped(401, noCredential, "").Same(none)
	}},
	{Name: "KS-04 malformed, unknown, wrong secret, revoked and wrong environment get the same response", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		revoked, k := s.key(c, "ada", "live")
		if _, err := s.manager.Revoke(c.TB.Context(), apikey.Actor{System: true}, "ada", k.ID); err != nil {
			c.TB.Fatal(err)
		}
		dev, _ := s.key(c, "ada", "dev")
		public, _, _ := strings.Cut(key, ".")
		malformed := c.Get("/user", "X-API-Key: ksr_live_nonsense").Enveloped(401, "Invalid API key", "")
		for _, bad := range []string{
			"X-API-Key: ksr_live_AAAAAAAAAAAAAAAA." + strings.Repeat("A", 43), // unknown
			public + "." + strings.Repeat("A", 43),                            // wrong secret
			revoked,
			dev,
		} {
			c.Get("/user", bad).Enveloped(401, "Invalid API key", "").Same(malformed)
		}
	}},
	{Name: "KS-05 only a client with the whole key learns that it has expired", Timed: true, Test: func(c *contract.Client, s *Service) {
		k, secret, err := s.manager.Create(c.TB.Context(), apikey.Actor{System: true}, apikey.Key{
			Owner: "ada", Name: "k", Environment: "live", ExpiresAt: time.Now().Add(time.Hour),
		})
		if err != nil {
			c.TB.Fatal(err)
		}
		c.Get("/user", "X-API-Key: "+secret.Reveal()).HasStatus(200)
		time.Sleep(time.Until(k.ExpiresAt))
		c.Get("/user", "X-API-Key: "+secret.Reveal()).Enveloped(401, "API key has expired", "")
		c.Get("/user", "X-API-Key: "+k.Prefix+"."+strings.Repeat("A", 43)).Enveloped(401, "Invalid API key", "")
	}},
	{Name: "KS-06 the key of a deleted account is 404", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		s.deleteAccount("ada")
		c.Get("/user", key).Enveloped(404, "User not found", "")
	}},
	{Name: "KS-07 a session decides and the key beside it is not looked at", Test: func(c *contract.Client, s *Service) {
		bert := s.as(c, "bert")
		c.Get("/user", bert, "X-API-Key: nonsense").Enveloped(200, "User found", `{"name":"bert","link_id":"bert","profile_url":null}`)
		key, _ := s.key(c, "ada", "live")
		c.Get("/user", bert, key).Enveloped(200, "User found", `{"name":"bert","link_id":"bert","profile_url":null}`)
	}},
	{Name: "KS-08 a bad session never falls back to a good key", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		c.Get("/user", "Authorization: Bearer bad", key).Enveloped(401, "Invalid token", "")
		c.Get("/user", forged([]byte("another secret of 32 bytes ......"), nil), key).Enveloped(401, "Invalid token", "")
	}},
	{Name: "KS-09 Authorization of another scheme is ignored and the key decides", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		token := s.login(c, "bert").AccessToken()
		for _, authorization := range []string{"Basic YTpi", "bearer " + token, "BEARER " + token, token} {
			c.Get("/user", "Authorization: "+authorization, key).Enveloped(200, "User found", `{"name":"ada","link_id":"ada","profile_url":null}`)
		}
	}},
	{Name: "KS-10 the management of keys takes no key", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		c.Get("/auth/api-keys").Enveloped(401, "Unauthorized: No token provided", "").Has("WWW-Authenticate", "Bearer")
		c.Get("/auth/api-keys", key).Enveloped(401, "Unauthorized: No token provided", "")
	}},
	{Name: "KS-11 an access token is good for 15 minutes and then has expired", Timed: true, Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		time.Sleep(15*time.Minute - time.Second)
		c.Get("/auth/api-keys", ada).HasStatus(200)
		time.Sleep(time.Second)
		c.Get("/auth/api-keys", ada).Enveloped(401, "Token has expired", "")
		c.Get("/user", ada).Enveloped(401, "Token has expired", "")
	}},
	{Name: "KS-11 a forged token gets no message that it has expired", Test: func(c *contract.Client, _ *Service) {
		expired := map[string]any{"iat": time.Now().Unix() - 1800, "exp": time.Now().Unix() - 900}
		c.Get("/auth/api-keys", forged(kisaraSecret, expired)).Enveloped(401, "Token has expired", "")
		c.Get("/auth/api-keys", forged([]byte("another secret of 32 bytes ......"), expired)).Enveloped(401, "Invalid token", "")
	}},
	{Name: "KS-12 a bad signature, a malformed and a not yet valid token get the same response", Test: func(c *contract.Client, s *Service) {
		good := s.as(c, "ada")
		malformed := c.Get("/auth/api-keys", "Authorization: Bearer bad").Enveloped(401, "Invalid token", "")
		for _, bad := range []string{
			good[:len(good)-4] + "AAAA",
			good + "A",
			forged([]byte("another secret of 32 bytes ......"), nil),
			forged(kisaraSecret, map[string]any{"nbf": time.Now().Unix() + 60}),
			forged(kisaraSecret, map[string]any{"iss": "https://kisara.example/"}),
			forged(kisaraSecret, map[string]any{"exp": nil}),
			contract.Bearer(s.login(c, "ada").RefreshToken()),
		} {
			c.Get("/auth/api-keys", bad).Enveloped(401, "Invalid token", "").Same(malformed)
		}
	}},
	{Name: "KS-13 a token without an email, and one whose user has gone, are Authentication failed", Test: func(c *contract.Client, s *Service) {
		c.Get("/auth/api-keys", forged(kisaraSecret, nil)).HasStatus(200)
		for _, email := range []any{nil, "", 7, "carl@kisara.example"} {
			c.Get("/auth/api-keys", forged(kisaraSecret, map[string]any{"email": email})).Enveloped(401, "Authentication failed", "")
		}
		ada := s.as(c, "ada")
		c.Get("/auth/api-keys", ada).HasStatus(200)
		s.deleteAccount("ada")
		c.Get("/auth/api-keys", ada).Enveloped(401, "Authentication failed", "")
	}},
	{Name: "KS-14 a created key is shown once, and works", Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		made := c.Post("/auth/api-keys", `{"name":"x"}`, ada).Enveloped(201, "API key generated successfully",
			`{"api_key":"ksr_live_<16>.<43>","key":{"name":"x","key_id":"<16>","last_four":"<4>","key_type":"live"}}`).
			Has("Cache-Control", "no-store")
		key := made.Member("data.api_key")
		if four := made.Member("data.key.last_four"); !strings.HasSuffix(key, four) {
			c.TB.Errorf("last_four is %q", four)
		}
		c.Get("/user", "X-API-Key: "+key).HasStatus(200)
		if list := c.Get("/auth/api-keys", ada).HasStatus(200); strings.Contains(list.Text, key[len(key)-43:]) {
			c.TB.Error("the list shows the secret")
		}
	}},
	{Name: "KS-15 a name that is empty, too long, missing or no string is 400 with the field", Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		for body, message := range map[string]string{
			`{"name":""}`: "'name' must have a minimum length of 1. Current length is 0.",
			`{"name":"` + strings.Repeat("a", 81) + `"}`: "'name' must have a maximum length of 80. Current length is 81.",
			`{}`:         "'name' is required.",
			`{"name":7}`: "'name' must be a string.",
		} {
			c.Post("/auth/api-keys", body, ada).
				EnvelopedWith(400, "Validation Error", `,"errors":[{"field":"name","message":"`+message+`"}]`)
		}
		c.Post("/auth/api-keys", `{"name":"`+strings.Repeat("é", 80)+`"}`, ada).HasStatus(201)
	}},
	{Name: "KS-15 without a session it is 401 before the body is looked at (inferred)", Test: func(c *contract.Client, _ *Service) {
		c.Post("/auth/api-keys", `{"name":""}`).Enveloped(401, "Unauthorized: No token provided", "")
	}},
	{Name: "KS-16 the list has the newest first, the revoked ones too, and no secret", Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		_, first := s.key(c, "ada", "live")
		c.Delete("/auth/api-keys/"+first.ID, ada).HasStatus(200)
		key, _ := s.key(c, "ada", "live")
		s.key(c, "bert", "live")
		const shown = `{"id":"<id>","name":"k","key_id":"<16>","last_four":"<4>","created_at":"<instant>","updated_at":"<instant>",`
		list := c.Get("/auth/api-keys", ada).Enveloped(200, "API keys retrieved successfully",
			`{"items":[`+shown+`"revoked_at":null,"expires_at":null},`+shown+`"revoked_at":"<instant>","expires_at":null}]}`)
		if strings.Contains(list.Text, key[len(key)-43:]) {
			c.TB.Error("the list shows the secret")
		}
		s.key(c, "bert", "live")
	}},
	{Name: "KS-17 and KS-18 revoking a key twice gets the same response, and the time stays", Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		_, k := s.key(c, "ada", "live")
		first := c.Delete("/auth/api-keys/"+k.ID, ada).Enveloped(200, "API key revoked successfully", "")
		revoked, err := s.manager.Find(c.TB.Context(), "ada", k.ID)
		if err != nil || revoked.RevokedAt.IsZero() {
			c.TB.Fatalf("the key is %+v, %v", revoked, err)
		}
		c.Delete("/auth/api-keys/"+k.ID, ada).Enveloped(200, "API key revoked successfully", "").Same(first)
		if again, err := s.manager.Find(c.TB.Context(), "ada", k.ID); err != nil || again.RevokedAt != revoked.RevokedAt {
			c.TB.Errorf("revoked at %v, and again at %v, %v", revoked.RevokedAt, again.RevokedAt, err)
		}
	}},
	{Name: "KS-19 revoking an unknown key, another's, or a public identifier is the same 404", Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		_, k := s.key(c, "bert", "live")
		_, own := s.key(c, "ada", "live")
		unknown := c.Delete("/auth/api-keys/unknown", ada).Enveloped(404, "API key not found", "")
		c.Delete("/auth/api-keys/"+k.ID, ada).Enveloped(404, "API key not found", "").Same(unknown)
		c.Delete("/auth/api-keys/"+kisaraKeyID(own), ada).Enveloped(404, "API key not found", "").Same(unknown)
	}},
	{Name: "KS-20 a revoked key is refused at once", Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		key, k := s.key(c, "ada", "live")
		c.Get("/user", key).HasStatus(200)
		c.Delete("/auth/api-keys/"+k.ID, ada).HasStatus(200)
		c.Get("/user", key).Enveloped(401, "Invalid API key", "")
	}},
	{Name: "KS-21 a refresh gives an access token, and the next refresh token in a cookie alone", Test: func(c *contract.Client, s *Service) {
		first := s.login(c, "ada").RefreshToken()
		access, next := refreshed(c.Post("/auth/refresh", refresh(first)))
		if next == first {
			c.TB.Error("the refresh token is the same")
		}
		c.Get("/user", contract.Bearer(access)).Enveloped(200, "User found", `{"name":"ada","link_id":"ada","profile_url":null}`)
		refreshed(c.Post("/auth/refresh", refresh(next)))
	}},
	{Name: "KS-22 a rotated, a wrong and another kind of token are Invalid refresh token", Test: func(c *contract.Client, s *Service) {
		tokens := s.login(c, "ada")
		_, next := refreshed(c.Post("/auth/refresh", refresh(tokens.RefreshToken())))
		rotated := c.Post("/auth/refresh", refresh(tokens.RefreshToken())).Enveloped(401, "Invalid refresh token", "").Lacks("Set-Cookie")
		for _, bad := range []string{"bad", strings.Repeat("A", 86), tokens.AccessToken(), s.login(c, "bert").RefreshToken() + "A"} {
			c.Post("/auth/refresh", refresh(bad)).Enveloped(401, "Invalid refresh token", "").Same(rotated)
		}
		// The second use ended the session: one of the two who used it was a thief.
		c.Post("/auth/refresh", refresh(next)).Enveloped(401, "Invalid refresh token", "")
	}},
	{Name: "KS-22 a refresh token that is not used for 7 days is Invalid refresh token", Timed: true, Test: func(c *contract.Client, s *Service) {
		tokens, late := s.login(c, "ada"), s.login(c, "ada")
		_ = s.auth.Close() // its ticker would tick for a week
		time.Sleep(7*24*time.Hour - time.Second)
		refreshed(c.Post("/auth/refresh", refresh(tokens.RefreshToken())))
		time.Sleep(time.Second)
		c.Post("/auth/refresh", refresh(late.RefreshToken())).Enveloped(401, "Invalid refresh token", "")
	}},
	{Name: "KS-23 an empty refresh token and none are 400 with the field", Test: func(c *contract.Client, _ *Service) {
		for body, message := range map[string]string{
			refresh(""):           "'refresh_token' must not be empty.",
			`{}`:                  "'refresh_token' is required.",
			`{"refresh_token":7}`: "'refresh_token' must be a string.",
		} {
			c.Post("/auth/refresh", body).EnvelopedWith(400, "Validation Error", `,"errors":[{"field":"refresh_token","message":"`+message+`"}]`)
		}
	}},
	{Name: "after a logout neither token of the session is good, and others are (inferred)", Test: func(c *contract.Client, s *Service) {
		tokens, other := s.login(c, "ada"), s.as(c, "ada")
		c.Get("/user", contract.Bearer(tokens.AccessToken())).HasStatus(200)
		c.Post("/auth/logout", refresh(tokens.RefreshToken())).Enveloped(200, "Logged out.", "").
			Has("Set-Cookie", "refresh_token=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict")
		c.Get("/user", contract.Bearer(tokens.AccessToken())).Enveloped(401, "Invalid token", "")
		c.Post("/auth/refresh", refresh(tokens.RefreshToken())).Enveloped(401, "Invalid refresh token", "")
		c.Get("/user", other).HasStatus(200)
	}},
	{Name: "KS-27 anybody posts a message", Test: func(c *contract.Client, _ *Service) {
		c.Post("/message/ada", `{"message_content":"hi"}`).
			Enveloped(201, "Message posted successfully", `{"id":"m1","message_content":"hi","created_at":"<time>"}`)
		c.Post("/message/nobody", `{"message_content":"hi"}`).Enveloped(404, "Link not found", "")
		c.Post("/message/ada", `{"message_content":""}`).EnvelopedWith(400, "Validation Error",
			`,"errors":[{"field":"message_content","message":"'message_content' must have 1 to 500 characters."}]`)
	}},
	{Name: "KS-28 messages come in pages, and page 0 is 400", Test: func(c *contract.Client, _ *Service) {
		c.Post("/message/ada", `{"message_content":"hi"}`).HasStatus(201)
		c.Get("/message/ada?page=1&limit=10").Enveloped(200, "Messages retrieved successfully",
			`{"author":{"name":"ada","profile_url":null,"role":"USER"},"comments":[{"id":"m1","message_content":"hi","like_by_creator":false,"created_at":"<time>"}],"limit":10,"page":1,"total_pages":1,"total_records":1}`)
		c.Get("/message/ada?page=0").EnvelopedWith(400, "Validation Error", `,"errors":[{"field":"page","message":"'page' must be at least 1."}]`)
	}},
	{Name: "KS-29 the owner replies with a key", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		c.Post("/message/ada/m1", `{"message_content":"thanks"}`, key).Enveloped(201, "Reply posted successfully",
			`{"message_id":"m1","reply_message_id":"r1","message_content":"thanks","created_at":"<time>"}`)
	}},
	{Name: "KS-30 a reply by anybody else is 401 and not 403", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "bert", "live")
		c.Post("/message/ada/m1", `{"message_content":"thanks"}`, key).Enveloped(401, "User not authorized to reply", "")
	}},
	{Name: "KS-31 the root has no data and the statistics have", Test: func(c *contract.Client, _ *Service) {
		c.Get("/").Enveloped(200, "Welcome to the Kisara API", "")
		c.Get("/stats").Enveloped(200, "Stats retrieved successfully", `{"user_count":2,"comment_count":0,"reply_count":0}`)
	}},
	{Name: "KS-32 an unknown route is 404 in the envelope and counted", Test: func(c *contract.Client, _ *Service) {
		for range 100 {
			c.Get("/nowhere").Enveloped(404, "Not Found", "")
		}
		c.Get("/nowhere").Enveloped(429, "Rate limit exceeded", "")
		c.Get("/").Enveloped(429, "Rate limit exceeded", "")
	}},
	{Name: "KS-32 another method is 405 in the envelope with those allowed (inferred)", Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		a := c.Do("PUT", "/auth/api-keys", `{}`, ada).Enveloped(405, "Method Not Allowed", "")
		if allow := strings.Join(a.Header.Values("Allow"), ", "); !strings.Contains(allow, "GET") || !strings.Contains(allow, "POST") {
			c.TB.Errorf("Allow is %q", allow)
		}
	}},
	{Name: "KS-33 the sixth request in a minute is 429 exactly as documented", Timed: true, Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		for i := range 5 {
			c.Get("/user", key).HasStatus(200).Has("X-RateLimit-Limit", "5").Has("X-RateLimit-Remaining", fmt.Sprint(4-i)).
				Has("X-RateLimit-Reset", "60").Lacks("Retry-After", "RateLimit", "RateLimit-Policy")
		}
		time.Sleep(500 * time.Millisecond)
		c.Get("/user", key).Enveloped(429, "Rate limit exceeded", "").Has("Retry-After", "60").
			Has("X-RateLimit-Limit", "5").Has("X-RateLimit-Remaining", "0").Has("X-RateLimit-Reset", "60")
		time.Sleep(59500 * time.Millisecond)
		c.Get("/user", key).HasStatus(200)
	}},
	{Name: "KS-34 keys are 10 a minute, messages 30 and the rest 100 for an address, whatever the credential", Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		bert := s.as(c, "bert")
		c.Admitted(5, 200, "/auth/api-keys", ada)
		c.Admitted(5, 200, "/auth/api-keys", bert)
		c.Get("/auth/api-keys", ada).Enveloped(429, "Rate limit exceeded", "")
		c.Admitted(30, 200, "/message/ada")
		c.Get("/message/bert").Enveloped(429, "Rate limit exceeded", "")
		c.Admitted(100, 200, "/")
		c.Get("/stats").Enveloped(429, "Rate limit exceeded", "")
	}},
	{Name: "KS-35 the limit of a route replaces the general one, in both directions", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		c.Admitted(4, 200, "/user", key)
		c.Get("/").HasStatus(200).Has("X-RateLimit-Remaining", "99")
		c.Admitted(99, 200, "/")
		c.Get("/").HasStatus(429)
		c.Get("/user", key).HasStatus(200)
	}},
	{Name: "KS-36 the limit stands before authentication", Test: func(c *contract.Client, _ *Service) {
		c.Admitted(5, 401, "/user", "X-API-Key: bad")
		c.Get("/user", "X-API-Key: bad").Enveloped(429, "Rate limit exceeded", "")
	}},
	{Name: "KS-37 a failure without a code is 500 and shows nothing of it", Test: func(c *contract.Client, s *Service) {
		s.broken = errors.New("pq: relation \"users\" does not exist")
		c.Get("/stats").Enveloped(500, "Internal Server Error", "")
	}},
	{Name: "KS-38 forwarded addresses and start times of a client are not believed (inferred)", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada", "live")
		for i := range 5 {
			c.Get("/user", key, fmt.Sprintf("X-Forwarded-For: 203.0.113.%d", i), "X-Request-Start: t=1").
				Enveloped(200, "User found", `{"name":"ada","link_id":"ada","profile_url":null}`)
		}
		c.Get("/user", key, "X-Forwarded-For: 203.0.113.9").Enveloped(429, "Rate limit exceeded", "")
	}},
	{Name: "a body that is too large is 413 in the envelope (inferred)", Test: func(c *contract.Client, s *Service) {
		ada := s.as(c, "ada")
		key, _ := s.key(c, "ada", "live")
		large := `{"message_content":"` + strings.Repeat("a", 20<<10) + `"}`
		c.Post("/message/ada/m1", large, key).Enveloped(http.StatusRequestEntityTooLarge, "The request body is too large.", "")
		c.Post("/auth/api-keys", `{"name":"`+strings.Repeat("a", 20<<10)+`"}`, ada).
			Enveloped(http.StatusRequestEntityTooLarge, "The request body is too large.", "")
	}},
}
