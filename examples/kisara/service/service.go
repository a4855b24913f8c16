// Package service receives anonymous messages: the standard envelope, sessions
// before keys, and limits per address.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
)

// A Service receives anonymous messages. It has the standard shape, keys with a
// public identifier, sessions that go before keys, and limits per address, where
// that of a route replaces the general one and stands before authentication.
type Service struct {
	env      *envelope.Envelope
	auth     *apikey.Authenticator
	manager  *apikey.Manager
	keys     http.Handler // the management of keys
	issuer   *session.Manager
	tokens   *jwtauth.Verifier
	sessions *session.Handler
	limit    *ratelimit.Limiter

	mu       sync.Mutex
	accounts map[string]bool // false once deleted
	messages []kisaraMessage
	broken   error // what the statistics fail with
}

// New returns a service without accounts, keys or data.
func New() *Service {
	s := &Service{accounts: map[string]bool{"ada": true, "bert": true}}
	store := apikey.NewMemory()
	format := apikey.Split{Prefix: "ksr", Environments: []string{"live", "dev"}}

	s.env = usher.Must(envelope.New(envelope.Config{
		Shape: envelope.StandardConfig{ClientIP: true, OmitCode: true, OmitDetails: true, OmitRequestID: true}.Shape(),
		Catalogue: envelope.Catalogue{Codes: map[string]envelope.Entry{
			usher.CodeMissingCredential:   {Message: "Unauthorized: No credentials provided"},
			usher.CodeInvalidAPIKey:       {Message: "Invalid API key"},
			usher.CodeAPIKeyNotFound:      {Message: "API key not found"},
			usher.CodeInvalidToken:        {Message: "Invalid token"},
			usher.CodeInvalidRefreshToken: {Message: "Invalid refresh token"},
			usher.CodeRateLimited:         {Message: "Rate limit exceeded"},
			usher.CodeValidationFailed:    {Message: "Validation Error"},
			"api_key_created":             {Message: "API key generated successfully"},
			"api_keys_listed":             {Message: "API keys retrieved successfully"},
			"api_key_revoked":             {Message: "API key revoked successfully"},
			"token_refreshed":             {Message: "Token refreshed successfully"},
		}},
	}))
	s.manager = usher.Must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}))
	s.auth = usher.Must(apikey.New(apikey.Config{
		Manager:     s.manager,
		Environment: "live",
		Errors: map[apikey.Verdict]*usher.Error{
			apikey.Expired: {Status: http.StatusUnauthorized, Code: "api_key_expired", Message: "API key has expired"},
		},
		Check: s.ownerExists,
	}))
	s.keys = usher.Must(apikey.NewHandler(apikey.HandlerConfig{
		Manager:    s.manager,
		IDIsOwner:  []usher.Kind{usher.KindJWT},
		Unpaged:    true,
		IssuedView: kisaraIssued,
		ListView:   kisaraList,
	}))
	s.openSessions()
	s.limit = usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{perMinute("global", 100)},
		Headers:  ratelimit.DeltaHeaders,
	}))
	return s
}

const kisaraName = "https://kisara.example" // of the issuer and of the audience

var kisaraSecret = []byte("a secret of 32 bytes or of more.")

// openSessions makes the access tokens, of 15 minutes, and the refresh tokens, of
// 7 days and good once. Beside the claims that are documented, access tokens have
// an issuer and an audience, without which none is accepted.
func (s *Service) openSessions() {
	ended := new(jwtauth.RevocationList)
	key := usher.Must(jwk.New(jwk.KeyConfig{ID: "1", Algorithm: jwk.HS256, Secret: kisaraSecret}))
	s.issuer = usher.Must(session.New(session.Config{
		Issuer:      kisaraName,
		Audiences:   []string{kisaraName},
		Keys:        []session.SigningKey{{Key: key}},
		Store:       usher.Must(session.NewMemory(session.MemoryConfig{})),
		Grace:       -1, // a token that was rotated is refused at once
		Claims:      s.claims,
		Revocations: ended,
	}))
	s.tokens = usher.Must(jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer:     kisaraName,
			Audiences:  []string{kisaraName},
			Algorithms: []jwk.Algorithm{jwk.HS256},
			Keys:       s.issuer.Keys(),
			Profile:    jwtauth.ProfileSession,
			OnVerified: s.issuer.Used,
		}},
		Leeway:      -1,
		Revocations: ended,
		ExactBearer: true,
		Errors: map[jwtauth.Verdict]*usher.Error{
			jwtauth.Expired: {Status: http.StatusUnauthorized, Code: "token_expired", Message: "Token has expired"},
		},
		Check: s.userExists,
		Principal: func(t *jwtauth.Token, usual usher.Principal) usher.Principal {
			usual.ID, usual.Level = t.Subject, usher.LevelFull
			return usual
		},
	}))
	s.sessions = usher.Must(session.NewHandler(session.HandlerConfig{
		Manager:       s.issuer,
		RefreshCookie: &session.Cookie{Name: "refresh_token"},
		TokensView: func(t session.Tokens) any {
			return map[string]string{"access_token": t.AccessToken()}
		},
	}))
}

// claims returns the claims of the owner of a session for its access tokens.
func (s *Service) claims(_ context.Context, of session.Session) (map[string]any, error) {
	return map[string]any{"id": of.Subject, "email": of.Subject + "@kisara.example", "role": "USER"}, nil
}

// userExists refuses the tokens of accounts that do not exist.
func (s *Service) userExists(_ context.Context, t *jwtauth.Token) error {
	var user struct {
		Email string `json:"email"`
	}
	err := t.Claims(&user)
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := strings.CutSuffix(user.Email, "@kisara.example"); err != nil || !ok || !s.accounts[name] {
		return &usher.Error{Status: http.StatusUnauthorized, Code: "authentication_failed", Message: "Authentication failed"}
	}
	return nil
}

func perMinute(name string, n int) ratelimit.Policy {
	return ratelimit.Policy{Name: name, Key: ratelimit.ByAddress(), Limit: ratelimit.RollingWindow(n, time.Minute)}
}

// Close ends what goes on in the background.
func (s *Service) Close() error { return s.auth.Close() }

// App returns the routes.
func (s *Service) App() web.App {
	login := usher.Authenticate(tokenRequired{s.tokens})
	either := usher.Authenticate(usher.Precedence(s.tokens, s.auth))
	only := func(name string, n int) usher.Middleware { return usher.Must(s.limit.Only(perMinute(name, n))) }
	use := func(m ...usher.Middleware) []usher.Middleware { return m }
	keys := http.StripPrefix("/auth/api-keys", s.keys)
	return web.App{
		Middlewares: use(s.env),
		Routes: []web.Route{
			web.Handle("GET", "/", use(s.limit), http.HandlerFunc(s.welcome)),
			web.Handle("GET", "/stats", use(s.limit), http.HandlerFunc(s.stats)),
			web.Handle("GET", "/user", use(only("user", 5), either), http.HandlerFunc(s.user)),
			web.Handle("GET", "/auth/api-keys", use(only("keys", 10), login), keys),
			web.Handle("POST", "/auth/api-keys", use(only("keys_create", 10), login), keys),
			web.Handle("DELETE", "/auth/api-keys/{id}", use(only("keys_revoke", 10), login), keys),
			web.Handle("POST", "/auth/refresh", use(s.limit), http.HandlerFunc(s.sessions.Refresh)),
			web.Handle("POST", "/auth/logout", use(s.limit), http.HandlerFunc(s.sessions.Logout)),
			web.Handle("GET", "/message/{link_id}", use(only("messages", 30)), http.HandlerFunc(s.list)),
			web.Handle("POST", "/message/{link_id}", use(only("messages_post", 30)), http.HandlerFunc(s.post)),
			web.Handle("POST", "/message/{link_id}/{message_id}", use(only("messages_reply", 30), either), http.HandlerFunc(s.reply)),
		},
		NotFound:         s.limit.Wrap(http.HandlerFunc(s.env.NotFound)),
		MethodNotAllowed: s.limit.Wrap(http.HandlerFunc(s.env.MethodNotAllowed)),
	}
}

// tokenRequired has a text of its own for requests without a token.
type tokenRequired struct{ *jwtauth.Verifier }

func (t tokenRequired) Authenticate(r *http.Request) (*usher.Principal, error) {
	p, err := t.Verifier.Authenticate(r)
	if errors.Is(err, usher.ErrNoCredential) {
		err = &usher.Error{Status: http.StatusUnauthorized, Code: "missing_token", Message: "Unauthorized: No token provided"}
	}
	return p, err
}

// ownerExists refuses the keys of deleted accounts.
func (s *Service) ownerExists(_ context.Context, k *apikey.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.accounts[k.Owner] {
		return &usher.Error{Status: http.StatusNotFound, Code: "user_not_found", Message: "User not found"}
	}
	return nil
}

func (s *Service) deleteAccount(name string) {
	s.mu.Lock()
	s.accounts[name] = false
	s.mu.Unlock()
}

func (s *Service) welcome(w http.ResponseWriter, r *http.Request) {
	envelope.For(w, r).Message("Welcome to the Kisara API").Value(nil)
}

func (s *Service) stats(w http.ResponseWriter, r *http.Request) {
	if s.broken != nil {
		usher.Fail(w, r, s.broken)
		return
	}
	envelope.For(w, r).Message("Stats retrieved successfully").Value(json.RawMessage(`{"user_count":2,"comment_count":0,"reply_count":0}`))
}

func (s *Service) user(w http.ResponseWriter, r *http.Request) {
	p, _ := usher.PrincipalFrom(r.Context())
	envelope.For(w, r).Message("User found").Value(struct {
		Name       string  `json:"name"`
		LinkID     string  `json:"link_id"`
		ProfileURL *string `json:"profile_url"`
	}{Name: account(p), LinkID: account(p)})
}

// account returns who a principal belongs to.
func account(p usher.Principal) string {
	if p.Owner != "" {
		return p.Owner
	}
	return p.ID
}

type kisaraKey struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	KeyID     string     `json:"key_id"`
	LastFour  string     `json:"last_four"`
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
	RevokedAt *time.Time `json:"revoked_at"`
	ExpiresAt *time.Time `json:"expires_at"`
}

func kisaraList(keys []apikey.Key) any {
	items := make([]kisaraKey, 0, len(keys))
	for _, k := range keys {
		items = append(items, kisaraKey{
			k.ID, k.Name, kisaraKeyID(k), k.LastFour, k.CreatedAt, k.UpdatedAt, orNull(k.RevokedAt), orNull(k.ExpiresAt),
		})
	}
	return map[string]any{"items": items}
}

func kisaraIssued(k apikey.Key, secret apikey.Secret) any {
	type key struct {
		Name     string `json:"name"`
		KeyID    string `json:"key_id"`
		LastFour string `json:"last_four"`
		KeyType  string `json:"key_type"`
	}
	return struct {
		APIKey string `json:"api_key"`
		Key    key    `json:"key"`
	}{secret.Reveal(), key{k.Name, kisaraKeyID(k), k.LastFour, k.Environment}}
}

// kisaraKeyID returns the public identifier: what stands between the environment
// and the dot.
func kisaraKeyID(k apikey.Key) string { return strings.TrimPrefix(k.Prefix, "ksr_"+k.Environment+"_") }

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

type kisaraMessage struct {
	ID        string `json:"id"`
	Content   string `json:"message_content"`
	Liked     bool   `json:"like_by_creator"`
	CreatedAt string `json:"created_at"`
}

// content reads a message of 1 to 500 characters, or responds with what is wrong.
func (s *Service) content(w http.ResponseWriter, r *http.Request) (string, bool) {
	var in struct {
		Content string `json:"message_content"`
	}
	if !web.Decode(w, r, &in) {
		return "", false
	}
	if n := utf8.RuneCountInString(in.Content); n < 1 || n > 500 {
		envelope.For(w, r).Invalid(usher.Field{Name: "message_content", Message: "'message_content' must have 1 to 500 characters."})
		return "", false
	}
	return in.Content, true
}

// author reports whether the owner of a link exists, and responds with 404 if not.
func (s *Service) author(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	found := s.accounts[r.PathValue("link_id")]
	s.mu.Unlock()
	if !found {
		usher.Fail(w, r, &usher.Error{Status: http.StatusNotFound, Code: "link_not_found", Message: "Link not found"})
	}
	return found
}

func (s *Service) post(w http.ResponseWriter, r *http.Request) {
	if !s.author(w, r) {
		return
	}
	text, ok := s.content(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	m := kisaraMessage{ID: "m" + strconv.Itoa(len(s.messages)+1), Content: text, CreatedAt: web.Now()}
	s.messages = append(s.messages, m)
	s.mu.Unlock()
	envelope.For(w, r).Message("Message posted successfully").Created("", struct {
		ID        string `json:"id"`
		Content   string `json:"message_content"`
		CreatedAt string `json:"created_at"`
	}{m.ID, m.Content, m.CreatedAt})
}

func (s *Service) reply(w http.ResponseWriter, r *http.Request) {
	if p, _ := usher.PrincipalFrom(r.Context()); account(p) != r.PathValue("link_id") {
		// The documentation requires 401, not 403.
		usher.Fail(w, r, &usher.Error{Status: http.StatusUnauthorized, Code: "not_owner", Message: "User not authorized to reply"})
		return
	}
	if text, ok := s.content(w, r); ok {
		envelope.For(w, r).Message("Reply posted successfully").Created("", struct {
			MessageID string `json:"message_id"`
			ReplyID   string `json:"reply_message_id"`
			Content   string `json:"message_content"`
			CreatedAt string `json:"created_at"`
		}{r.PathValue("message_id"), "r1", text, web.Now()})
	}
}

func (s *Service) list(w http.ResponseWriter, r *http.Request) {
	if !s.author(w, r) {
		return
	}
	page, limit := 1, 10
	var faults []usher.Field
	for name, v := range map[string]*int{"page": &page, "limit": &limit} {
		text := r.URL.Query().Get(name)
		if text == "" {
			continue
		}
		var err error
		if *v, err = strconv.Atoi(text); err != nil || *v < 1 {
			faults = append(faults, usher.Field{Name: name, Message: fmt.Sprintf("'%s' must be at least 1.", name)})
		}
	}
	if len(faults) > 0 {
		envelope.For(w, r).Invalid(faults...)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	start := min((page-1)*limit, len(s.messages))
	envelope.For(w, r).Message("Messages retrieved successfully").Value(map[string]any{
		"page": page, "limit": limit, "total_records": len(s.messages), "total_pages": (len(s.messages) + limit - 1) / limit,
		"author":   map[string]any{"name": r.PathValue("link_id"), "role": "USER", "profile_url": nil},
		"comments": append([]kisaraMessage{}, s.messages[start:min(start+limit, len(s.messages))]...),
	})
}
