package contract

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/jwtauth"
)

const noCredential = "Unauthorized: No credentials provided"

// key issues a key for account in an environment and returns the header line that
// presents it.
func (s *kisara) key(c *client, account, environment string) (string, apikey.Key) {
	c.tb.Helper()
	k, secret, err := s.manager.Create(c.tb.Context(), apikey.Actor{System: true}, apikey.Key{Owner: account, Name: "k", Environment: environment})
	if err != nil {
		c.tb.Fatal(err)
	}
	return "X-API-Key: " + secret.Reveal(), k
}

// login opens a session for account.
func (s *kisara) login(c *client, account string) jwtauth.Tokens {
	c.tb.Helper()
	t, err := s.issuer.Login(c.tb.Context(), jwtauth.Session{Subject: account})
	if err != nil {
		c.tb.Fatal(err)
	}
	return t
}

// as returns the header line that presents an access token of account.
func (s *kisara) as(c *client, account string) string {
	c.tb.Helper()
	return bearer(s.login(c, account).AccessToken())
}

func bearer(text string) string { return "Authorization: Bearer " + text }

// forged returns the header line that presents a token of ada with some claims
// changed, or removed by nil, and signed with a secret.
func forged(secret []byte, change map[string]any) string {
	now := time.Now().Unix()
	return bearer(token(`{"alg":"HS256","typ":"session+jwt","kid":"1"}`, claims(with(map[string]any{
		"iss": kisaraName, "aud": kisaraName, "sub": "ada", "sid": "s", "jti": "t", "iat": now, "exp": now + 900,
		"id": "ada", "email": "ada@kisara.example", "role": "USER",
	}, change)), hs256(secret)))
}

// refresh returns the body that presents a refresh token.
func refresh(text string) string { return `{"refresh_token":"` + text + `"}` }

// refreshed checks the answer to a refresh and returns the new tokens.
func (a *answer) refreshed() (access, next string) {
	a.c.tb.Helper()
	a.env(200, "Token refreshed successfully", `{"access_token":"<jwt>"}`).has("Cache-Control", "no-store").
		has("Set-Cookie", "refresh_token=<token>; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Strict")
	return a.member("data.access_token"), a.Cookies()[0].Value
}

// env checks the answer to be the envelope with this data; empty data means none.
func (a *answer) env(status int, message, data string) *answer {
	a.c.tb.Helper()
	if data != "" {
		data = `,"data":` + data
	}
	return a.envelope(status, message, data)
}

func (a *answer) envelope(status int, message, members string) *answer {
	a.c.tb.Helper()
	url := strings.ReplaceAll(a.url, "&", `\u0026`)
	return a.is(status, fmt.Sprintf(
		`{"status_code":%d,"message":"%s"%s,"metadata":{"method":"%s","url":"%s","execution_time_ms":<n>,"ip":"%s","timestamp":"<time>"}}`,
		status, message, members, a.Request.Method, url, a.c.ip)).has("Content-Type", "application/json")
}

var kisaraRows = []row[*kisara]{
	{"KS-01 a valid key is answered in the envelope", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		c.get("/user", key).env(200, "User found", `{"name":"ada","link_id":"ada","profile_url":null}`)
	}},
	{"KS-02 no credential is 401 without data", false, func(c *client, _ *kisara) {
		a := c.get("/user").env(401, noCredential, "")
		if got := strings.Join(a.Header.Values("WWW-Authenticate"), ", "); got != "Bearer, ApiKey" {
			c.tb.Errorf("the challenges are %q", got)
		}
	}},
	{"KS-03 an empty key and one of blanks are none", false, func(c *client, _ *kisara) {
		none := c.get("/user")
		c.get("/user", "X-API-Key: ").env(401, noCredential, "").same(none)
		c.get("/user", "X-API-Key:  \t ").env(401, noCredential, "").same(none)
	}},
	{"KS-04 malformed, unknown, wrong secret, revoked and wrong environment are the same answer", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		revoked, k := s.key(c, "ada", "live")
		if _, err := s.manager.Revoke(c.tb.Context(), apikey.Actor{System: true}, "ada", k.ID); err != nil {
			c.tb.Fatal(err)
		}
		dev, _ := s.key(c, "ada", "dev")
		public, _, _ := strings.Cut(key, ".")
		malformed := c.get("/user", "X-API-Key: ksr_live_nonsense").env(401, "Invalid API key", "")
		for _, bad := range []string{
			"X-API-Key: ksr_live_AAAAAAAAAAAAAAAA." + strings.Repeat("A", 43), // unknown
			public + "." + strings.Repeat("A", 43),                            // wrong secret
			revoked,
			dev,
		} {
			c.get("/user", bad).env(401, "Invalid API key", "").same(malformed)
		}
	}},
	{"KS-05 an expired key says so, and only to who holds all of it", true, func(c *client, s *kisara) {
		k, secret, err := s.manager.Create(c.tb.Context(), apikey.Actor{System: true}, apikey.Key{
			Owner: "ada", Name: "k", Environment: "live", ExpiresAt: time.Now().Add(time.Hour),
		})
		if err != nil {
			c.tb.Fatal(err)
		}
		c.get("/user", "X-API-Key: "+secret.Reveal()).status(200)
		time.Sleep(time.Until(k.ExpiresAt))
		c.get("/user", "X-API-Key: "+secret.Reveal()).env(401, "API key has expired", "")
		c.get("/user", "X-API-Key: "+k.Prefix+"."+strings.Repeat("A", 43)).env(401, "Invalid API key", "")
	}},
	{"KS-06 the key of a deleted account is 404", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		s.deleteAccount("ada")
		c.get("/user", key).env(404, "User not found", "")
	}},
	{"KS-07 a session decides and the key beside it is not looked at", false, func(c *client, s *kisara) {
		bert := s.as(c, "bert")
		c.get("/user", bert, "X-API-Key: nonsense").env(200, "User found", `{"name":"bert","link_id":"bert","profile_url":null}`)
		key, _ := s.key(c, "ada", "live")
		c.get("/user", bert, key).env(200, "User found", `{"name":"bert","link_id":"bert","profile_url":null}`)
	}},
	{"KS-08 a bad session never falls back to a good key", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		c.get("/user", "Authorization: Bearer bad", key).env(401, "Invalid token", "")
		c.get("/user", forged([]byte("another secret of 32 bytes ......"), nil), key).env(401, "Invalid token", "")
	}},
	{"KS-09 Authorization of another scheme is ignored and the key decides", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		token := s.login(c, "bert").AccessToken()
		for _, authorization := range []string{"Basic YTpi", "bearer " + token, "BEARER " + token, token} {
			c.get("/user", "Authorization: "+authorization, key).env(200, "User found", `{"name":"ada","link_id":"ada","profile_url":null}`)
		}
	}},
	{"KS-10 the management of keys takes no key", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		c.get("/auth/api-keys").env(401, "Unauthorized: No token provided", "").has("WWW-Authenticate", "Bearer")
		c.get("/auth/api-keys", key).env(401, "Unauthorized: No token provided", "")
	}},
	{"KS-11 an access token is good for 15 minutes and then has expired", true, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		time.Sleep(15*time.Minute - time.Second)
		c.get("/auth/api-keys", ada).status(200)
		time.Sleep(time.Second)
		c.get("/auth/api-keys", ada).env(401, "Token has expired", "")
		c.get("/user", ada).env(401, "Token has expired", "")
	}},
	{"KS-11 that a token has expired is told to nobody who made it up", false, func(c *client, _ *kisara) {
		expired := map[string]any{"iat": time.Now().Unix() - 1800, "exp": time.Now().Unix() - 900}
		c.get("/auth/api-keys", forged(kisaraSecret, expired)).env(401, "Token has expired", "")
		c.get("/auth/api-keys", forged([]byte("another secret of 32 bytes ......"), expired)).env(401, "Invalid token", "")
	}},
	{"KS-12 a bad signature, a malformed and a not yet valid token are the same answer", false, func(c *client, s *kisara) {
		good := s.as(c, "ada")
		malformed := c.get("/auth/api-keys", "Authorization: Bearer bad").env(401, "Invalid token", "")
		for _, bad := range []string{
			good[:len(good)-4] + "AAAA",
			good + "A",
			forged([]byte("another secret of 32 bytes ......"), nil),
			forged(kisaraSecret, map[string]any{"nbf": time.Now().Unix() + 60}),
			forged(kisaraSecret, map[string]any{"iss": "https://kisara.example/"}),
			forged(kisaraSecret, map[string]any{"exp": nil}),
			bearer(s.login(c, "ada").RefreshToken()),
		} {
			c.get("/auth/api-keys", bad).env(401, "Invalid token", "").same(malformed)
		}
	}},
	{"KS-13 a token without an email, and one whose user has gone, are Authentication failed", false, func(c *client, s *kisara) {
		c.get("/auth/api-keys", forged(kisaraSecret, nil)).status(200)
		for _, email := range []any{nil, "", 7, "carl@kisara.example"} {
			c.get("/auth/api-keys", forged(kisaraSecret, map[string]any{"email": email})).env(401, "Authentication failed", "")
		}
		ada := s.as(c, "ada")
		c.get("/auth/api-keys", ada).status(200)
		s.deleteAccount("ada")
		c.get("/auth/api-keys", ada).env(401, "Authentication failed", "")
	}},
	{"KS-14 a created key is shown once, and works", false, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		made := c.post("/auth/api-keys", `{"name":"x"}`, ada).env(201, "API key generated successfully",
			`{"api_key":"ksr_live_<16>.<43>","key":{"name":"x","key_id":"<16>","last_four":"<4>","key_type":"live"}}`).
			has("Cache-Control", "no-store")
		key := made.member("data.api_key")
		if four := made.member("data.key.last_four"); !strings.HasSuffix(key, four) {
			c.tb.Errorf("last_four is %q", four)
		}
		c.get("/user", "X-API-Key: "+key).status(200)
		if list := c.get("/auth/api-keys", ada).status(200); strings.Contains(list.body, key[len(key)-43:]) {
			c.tb.Error("the list shows the secret")
		}
	}},
	{"KS-15 a name that is empty, too long, missing or no string is 400 with the field", false, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		for body, message := range map[string]string{
			`{"name":""}`: "'name' must have a minimum length of 1. Current length is 0.",
			`{"name":"` + strings.Repeat("a", 81) + `"}`: "'name' must have a maximum length of 80. Current length is 81.",
			`{}`:         "'name' is required.",
			`{"name":7}`: "'name' must be a string.",
		} {
			c.post("/auth/api-keys", body, ada).
				envelope(400, "Validation Error", `,"errors":[{"field":"name","message":"`+message+`"}]`)
		}
		c.post("/auth/api-keys", `{"name":"`+strings.Repeat("é", 80)+`"}`, ada).status(201)
	}},
	{"KS-15 without a session it is 401 before the body is looked at (inferred)", false, func(c *client, _ *kisara) {
		c.post("/auth/api-keys", `{"name":""}`).env(401, "Unauthorized: No token provided", "")
	}},
	{"KS-16 the list has the newest first, the revoked ones too, and no secret", false, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		_, first := s.key(c, "ada", "live")
		c.delete("/auth/api-keys/"+first.ID, ada).status(200)
		key, _ := s.key(c, "ada", "live")
		s.key(c, "bert", "live")
		const shown = `{"id":"<id>","name":"k","key_id":"<16>","last_four":"<4>","created_at":"<instant>","updated_at":"<instant>",`
		list := c.get("/auth/api-keys", ada).env(200, "API keys retrieved successfully",
			`{"items":[`+shown+`"revoked_at":null,"expires_at":null},`+shown+`"revoked_at":"<instant>","expires_at":null}]}`)
		if strings.Contains(list.body, key[len(key)-43:]) {
			c.tb.Error("the list shows the secret")
		}
		s.key(c, "bert", "live")
	}},
	{"KS-17 and KS-18 revoking a key twice is the same answer, and the time stays", false, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		_, k := s.key(c, "ada", "live")
		first := c.delete("/auth/api-keys/"+k.ID, ada).env(200, "API key revoked successfully", "")
		revoked, err := s.manager.Find(c.tb.Context(), "ada", k.ID)
		if err != nil || revoked.RevokedAt.IsZero() {
			c.tb.Fatalf("the key is %+v, %v", revoked, err)
		}
		c.delete("/auth/api-keys/"+k.ID, ada).env(200, "API key revoked successfully", "").same(first)
		if again, err := s.manager.Find(c.tb.Context(), "ada", k.ID); err != nil || again.RevokedAt != revoked.RevokedAt {
			c.tb.Errorf("revoked at %v, and again at %v, %v", revoked.RevokedAt, again.RevokedAt, err)
		}
	}},
	{"KS-19 revoking an unknown key, another's, or a public identifier is the same 404", false, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		_, k := s.key(c, "bert", "live")
		_, own := s.key(c, "ada", "live")
		unknown := c.delete("/auth/api-keys/unknown", ada).env(404, "API key not found", "")
		c.delete("/auth/api-keys/"+k.ID, ada).env(404, "API key not found", "").same(unknown)
		c.delete("/auth/api-keys/"+kisaraKeyID(own), ada).env(404, "API key not found", "").same(unknown)
	}},
	{"KS-20 a revoked key is refused at once", false, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		key, k := s.key(c, "ada", "live")
		c.get("/user", key).status(200)
		c.delete("/auth/api-keys/"+k.ID, ada).status(200)
		c.get("/user", key).env(401, "Invalid API key", "")
	}},
	{"KS-21 a refresh gives an access token, and the next refresh token in a cookie alone", false, func(c *client, s *kisara) {
		first := s.login(c, "ada").RefreshToken()
		access, next := c.post("/auth/refresh", refresh(first)).refreshed()
		if next == first {
			c.tb.Error("the refresh token is the same")
		}
		c.get("/user", bearer(access)).env(200, "User found", `{"name":"ada","link_id":"ada","profile_url":null}`)
		c.post("/auth/refresh", refresh(next)).refreshed()
	}},
	{"KS-22 a rotated, a wrong and another kind of token are Invalid refresh token", false, func(c *client, s *kisara) {
		tokens := s.login(c, "ada")
		_, next := c.post("/auth/refresh", refresh(tokens.RefreshToken())).refreshed()
		rotated := c.post("/auth/refresh", refresh(tokens.RefreshToken())).env(401, "Invalid refresh token", "").lacks("Set-Cookie")
		for _, bad := range []string{"bad", strings.Repeat("A", 86), tokens.AccessToken(), s.login(c, "bert").RefreshToken() + "A"} {
			c.post("/auth/refresh", refresh(bad)).env(401, "Invalid refresh token", "").same(rotated)
		}
		// The second use ended the session: one of the two who used it was a thief.
		c.post("/auth/refresh", refresh(next)).env(401, "Invalid refresh token", "")
	}},
	{"KS-22 a refresh token that is not used for 7 days is Invalid refresh token", true, func(c *client, s *kisara) {
		tokens, late := s.login(c, "ada"), s.login(c, "ada")
		_ = s.auth.Close() // its ticker would tick for a week
		time.Sleep(7*24*time.Hour - time.Second)
		c.post("/auth/refresh", refresh(tokens.RefreshToken())).refreshed()
		time.Sleep(time.Second)
		c.post("/auth/refresh", refresh(late.RefreshToken())).env(401, "Invalid refresh token", "")
	}},
	{"KS-23 an empty refresh token and none are 400 with the field", false, func(c *client, _ *kisara) {
		for body, message := range map[string]string{
			refresh(""):           "'refresh_token' must not be empty.",
			`{}`:                  "'refresh_token' is required.",
			`{"refresh_token":7}`: "'refresh_token' must be a string.",
		} {
			c.post("/auth/refresh", body).envelope(400, "Validation Error", `,"errors":[{"field":"refresh_token","message":"`+message+`"}]`)
		}
	}},
	{"after a logout neither token of the session is good, and others are (inferred)", false, func(c *client, s *kisara) {
		tokens, other := s.login(c, "ada"), s.as(c, "ada")
		c.get("/user", bearer(tokens.AccessToken())).status(200)
		c.post("/auth/logout", refresh(tokens.RefreshToken())).env(200, "Logged out.", "").
			has("Set-Cookie", "refresh_token=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict")
		c.get("/user", bearer(tokens.AccessToken())).env(401, "Invalid token", "")
		c.post("/auth/refresh", refresh(tokens.RefreshToken())).env(401, "Invalid refresh token", "")
		c.get("/user", other).status(200)
	}},
	{"KS-27 anybody posts a message", false, func(c *client, _ *kisara) {
		c.post("/message/ada", `{"message_content":"hi"}`).
			env(201, "Message posted successfully", `{"id":"m1","message_content":"hi","created_at":"<time>"}`)
		c.post("/message/nobody", `{"message_content":"hi"}`).env(404, "Link not found", "")
		c.post("/message/ada", `{"message_content":""}`).envelope(400, "Validation Error",
			`,"errors":[{"field":"message_content","message":"'message_content' must have 1 to 500 characters."}]`)
	}},
	{"KS-28 messages come in pages, and page 0 is 400", false, func(c *client, _ *kisara) {
		c.post("/message/ada", `{"message_content":"hi"}`).status(201)
		c.get("/message/ada?page=1&limit=10").env(200, "Messages retrieved successfully",
			`{"author":{"name":"ada","profile_url":null,"role":"USER"},"comments":[{"id":"m1","message_content":"hi","like_by_creator":false,"created_at":"<time>"}],"limit":10,"page":1,"total_pages":1,"total_records":1}`)
		c.get("/message/ada?page=0").envelope(400, "Validation Error", `,"errors":[{"field":"page","message":"'page' must be at least 1."}]`)
	}},
	{"KS-29 the owner replies with a key", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		c.post("/message/ada/m1", `{"message_content":"thanks"}`, key).env(201, "Reply posted successfully",
			`{"message_id":"m1","reply_message_id":"r1","message_content":"thanks","created_at":"<time>"}`)
	}},
	{"KS-30 a reply by anybody else is 401 and not 403", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "bert", "live")
		c.post("/message/ada/m1", `{"message_content":"thanks"}`, key).env(401, "User not authorized to reply", "")
	}},
	{"KS-31 the root has no data and the statistics have", false, func(c *client, _ *kisara) {
		c.get("/").env(200, "Welcome to the Kisara API", "")
		c.get("/stats").env(200, "Stats retrieved successfully", `{"user_count":2,"comment_count":0,"reply_count":0}`)
	}},
	{"KS-32 an unknown route is 404 in the envelope and counted", false, func(c *client, _ *kisara) {
		for range 100 {
			c.get("/nowhere").env(404, "Not Found", "")
		}
		c.get("/nowhere").env(429, "Rate limit exceeded", "")
		c.get("/").env(429, "Rate limit exceeded", "")
	}},
	{"KS-32 another method is 405 in the envelope and says which are allowed (inferred)", false, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		a := c.do("PUT", "/auth/api-keys", `{}`, ada).env(405, "Method Not Allowed", "")
		if allow := strings.Join(a.Header.Values("Allow"), ", "); !strings.Contains(allow, "GET") || !strings.Contains(allow, "POST") {
			c.tb.Errorf("Allow is %q", allow)
		}
	}},
	{"KS-33 the sixth request in a minute is 429 exactly as documented", true, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		for i := range 5 {
			c.get("/user", key).status(200).has("X-RateLimit-Limit", "5").has("X-RateLimit-Remaining", fmt.Sprint(4-i)).
				has("X-RateLimit-Reset", "60").lacks("Retry-After", "RateLimit", "RateLimit-Policy")
		}
		time.Sleep(500 * time.Millisecond)
		c.get("/user", key).env(429, "Rate limit exceeded", "").has("Retry-After", "60").
			has("X-RateLimit-Limit", "5").has("X-RateLimit-Remaining", "0").has("X-RateLimit-Reset", "60")
		time.Sleep(59500 * time.Millisecond)
		c.get("/user", key).status(200)
	}},
	{"KS-34 keys are 10 a minute, messages 30 and the rest 100 for an address, whoever asks", false, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		bert := s.as(c, "bert")
		c.admitted(5, 200, "/auth/api-keys", ada)
		c.admitted(5, 200, "/auth/api-keys", bert)
		c.get("/auth/api-keys", ada).env(429, "Rate limit exceeded", "")
		c.admitted(30, 200, "/message/ada")
		c.get("/message/bert").env(429, "Rate limit exceeded", "")
		c.admitted(100, 200, "/")
		c.get("/stats").env(429, "Rate limit exceeded", "")
	}},
	{"KS-35 the limit of a route replaces the general one, in both directions", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		c.admitted(4, 200, "/user", key)
		c.get("/").status(200).has("X-RateLimit-Remaining", "99")
		c.admitted(99, 200, "/")
		c.get("/").status(429)
		c.get("/user", key).status(200)
	}},
	{"KS-36 the limit stands before authentication", false, func(c *client, _ *kisara) {
		c.admitted(5, 401, "/user", "X-API-Key: bad")
		c.get("/user", "X-API-Key: bad").env(429, "Rate limit exceeded", "")
	}},
	{"KS-37 a failure without a code is 500 and shows nothing of it", false, func(c *client, s *kisara) {
		s.broken = errors.New("pq: relation \"users\" does not exist")
		c.get("/stats").env(500, "Internal Server Error", "")
	}},
	{"KS-38 forwarded addresses and start times of a client are not believed (inferred)", false, func(c *client, s *kisara) {
		key, _ := s.key(c, "ada", "live")
		for i := range 5 {
			c.get("/user", key, fmt.Sprintf("X-Forwarded-For: 203.0.113.%d", i), "X-Request-Start: t=1").
				env(200, "User found", `{"name":"ada","link_id":"ada","profile_url":null}`)
		}
		c.get("/user", key, "X-Forwarded-For: 203.0.113.9").env(429, "Rate limit exceeded", "")
	}},
	{"a body that is too large is 413 in the envelope (inferred)", false, func(c *client, s *kisara) {
		ada := s.as(c, "ada")
		key, _ := s.key(c, "ada", "live")
		large := `{"message_content":"` + strings.Repeat("a", 20<<10) + `"}`
		c.post("/message/ada/m1", large, key).env(http.StatusRequestEntityTooLarge, "The request body is too large.", "")
		c.post("/auth/api-keys", `{"name":"`+strings.Repeat("a", 20<<10)+`"}`, ada).
			env(http.StatusRequestEntityTooLarge, "The request body is too large.", "")
	}},
}
