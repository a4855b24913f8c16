// Package service has chat bots: bare lists, five keys for each account, and a
// monthly quota.
package service

import (
	"errors"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/ratelimit"
)

// A Service has chat bots for web sites. Its errors are one text, its keys are
// bearer tokens of which an account has five at most, and clients learn nothing of
// a limit until it is used up.
type Service struct {
	env     *envelope.Envelope
	auth    *apikey.Authenticator
	manager *apikey.Manager
	keys    http.Handler
	limit   *ratelimit.Limiter
	chat    *ratelimit.Limiter

	broken bool // the list of chat bots fails
}

// monthly is the quota of messages, small enough for a test.
const monthly = 3

// New returns a service without accounts, keys or data.
func New() *Service {
	store := apikey.NewMemory()
	format := apikey.Opaque{Prefix: "ic", Length: 44}
	s := new(Service)
	s.env = usher.Must(envelope.New(envelope.Config{
		Shape: envelope.Detail(),
		Catalogue: envelope.Catalogue{
			Codes:    map[string]envelope.Entry{usher.CodeAPIKeyLimit: {Status: http.StatusBadRequest}},
			Statuses: map[int]envelope.Entry{http.StatusUnauthorized: {Message: "Unauthorized"}},
		},
	}))
	s.manager = usher.Must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format, MaxActive: 5, Visible: 8}))
	s.auth = usher.Must(apikey.New(apikey.Config{Manager: s.manager, Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}))
	s.keys = usher.Must(apikey.NewHandler(apikey.HandlerConfig{
		Manager: s.manager, IDIsOwner: []usher.Kind{usher.KindJWT}, Unpaged: true,
	}))
	s.limit = usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{{
			Name:    "minute",
			Key:     ratelimit.ByPrincipal(),
			Limit:   ratelimit.RollingWindow(60, time.Minute),
			Message: "API rate limit exceeded. Max 60 requests per minute.",
		}},
		Headers:        ratelimit.NoHeaders,
		OmitRetryAfter: true,
	}))
	s.chat = usher.Must(s.limit.With(ratelimit.Policy{
		Name:    "month",
		Key:     ratelimit.ByOwner(),
		Limit:   ratelimit.CalendarWindow(monthly, ratelimit.Month),
		Count:   func(status int) bool { return status < 400 }, // only messages that succeeded
		Message: "Monthly message limit reached.",
	}))
	return s
}

// Close ends what goes on in the background.
func (s *Service) Close() error { return s.auth.Close() }

// App returns the routes.
func (s *Service) App() web.App {
	auth, login := usher.Authenticate(s.auth), usher.Authenticate(web.People)
	api := []usher.Middleware{auth, s.limit}
	keys := http.StripPrefix("/v1/api-keys", s.keys)
	return web.App{
		Middlewares: []usher.Middleware{s.env},
		Routes: []web.Route{
			web.Handle("GET", "/v1/chatbots", api, http.HandlerFunc(s.bots)),
			web.Handle("GET", "/v1/chatbots/{id}", api, http.HandlerFunc(s.bot)),
			web.Handle("GET", "/v1/chatbots/{id}/sources", api, http.HandlerFunc(s.sources)),
			web.Handle("POST", "/v1/chatbots/{id}/chat", []usher.Middleware{auth, s.chat}, http.HandlerFunc(s.talk)),
			web.Handle("GET", "/v1/api-keys", []usher.Middleware{login}, keys),
			web.Handle("POST", "/v1/api-keys", []usher.Middleware{login}, keys),
			web.Handle("DELETE", "/v1/api-keys/{id}", []usher.Middleware{login}, keys),
		},
		NotFound:         http.HandlerFunc(s.env.NotFound),
		MethodNotAllowed: http.HandlerFunc(s.env.MethodNotAllowed),
	}
}

type chatBot struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Slug      string `json:"slug"`
	Provider  string `json:"provider"`
	IsActive  bool   `json:"is_active"`
	CreatedAt string `json:"created_at"`
}

var bot = chatBot{"7a1e3f5c-0000-4000-8000-000000000001", "Help", "help", "gemini", true, "2026-01-02T15:04:05.678901+00:00"}

func (s *Service) bots(w http.ResponseWriter, r *http.Request) {
	if s.broken {
		usher.Fail(w, r, errors.New("psycopg: server closed the connection"))
		return
	}
	envelope.For(w, r).Value([]chatBot{bot})
}

// found reports whether the bot in the path exists, and responds with 404 if not.
func found(w http.ResponseWriter, r *http.Request) bool {
	ok := r.PathValue("id") == bot.ID
	if !ok {
		usher.Fail(w, r, &usher.Error{Status: http.StatusNotFound, Message: "Chatbot not found."})
	}
	return ok
}

func (*Service) bot(w http.ResponseWriter, r *http.Request) {
	if found(w, r) {
		envelope.For(w, r).Value(bot)
	}
}

func (*Service) sources(w http.ResponseWriter, r *http.Request) {
	type source struct {
		ID        string  `json:"id"`
		Type      string  `json:"type"`
		Title     string  `json:"title"`
		URL       *string `json:"url"`
		Status    string  `json:"status"`
		PageCount int     `json:"page_count"`
		CreatedAt string  `json:"created_at"`
	}
	if found(w, r) {
		envelope.For(w, r).Value([]source{{"s2", "text", "New", nil, "pending", 0, bot.CreatedAt}, {"s1", "text", "Old", nil, "done", 1, bot.CreatedAt}})
	}
}

func (*Service) talk(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Message string `json:"message"`
	}
	if !found(w, r) || !web.Decode(w, r, &in) {
		return
	}
	if in.Message == "" {
		envelope.For(w, r).Invalid(usher.Field{Name: "message", Message: "Field required"})
		return
	}
	envelope.For(w, r).Value(map[string]string{"response": "You said: " + in.Message})
}
