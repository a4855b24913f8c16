package contract

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/ratelimit"
)

// insiteChat has chat bots for web sites. Its errors are one text, its keys are
// bearer tokens of which an account has five at most, and it says nothing of
// limits but that they are used up.
type insiteChat struct {
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

func newInsiteChat(tb testing.TB) *insiteChat {
	store := apikey.NewMemory()
	format := apikey.Opaque{Prefix: "ic", Length: 44}
	s := new(insiteChat)
	s.env = must(envelope.New(envelope.Config{
		Shape: envelope.Detail(),
		Catalogue: envelope.Catalogue{
			Codes:    map[string]envelope.Entry{usher.CodeAPIKeyLimit: {Status: http.StatusBadRequest}},
			Statuses: map[int]envelope.Entry{http.StatusUnauthorized: {Message: "Unauthorized"}},
		},
	}))
	s.auth = must(apikey.New(apikey.Config{Store: store, Formats: []apikey.Format{format}, Bearer: true}))
	tb.Cleanup(func() { _ = s.auth.Close() })
	s.manager = must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format, MaxActive: 5, Visible: 8}))
	s.keys = must(apikey.NewHandler(apikey.HandlerConfig{
		Manager: s.manager, IDIsOwner: []usher.Kind{usher.KindJWT}, Unpaged: true,
	}))
	s.limit = must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{{
			Name:    "minute",
			Key:     ratelimit.ByPrincipal(nil),
			Limit:   ratelimit.RollingWindow(60, time.Minute),
			Message: "API rate limit exceeded. Max 60 requests per minute.",
		}},
		Headers:        ratelimit.NoHeaders,
		OmitRetryAfter: true,
	}))
	s.chat = must(s.limit.With(ratelimit.Policy{
		Name:    "month",
		Key:     ratelimit.ByOwner(nil),
		Limit:   ratelimit.CalendarWindow(monthly, ratelimit.Month, time.UTC),
		Count:   func(status int) bool { return status < 400 }, // only messages that were answered
		Message: "Monthly message limit reached.",
	}))
	return s
}

func (s *insiteChat) app() App {
	auth, login := usher.Authenticate(s.auth), usher.Authenticate(people)
	api := []usher.Middleware{auth, s.limit}
	keys := http.StripPrefix("/v1/api-keys", s.keys)
	return App{
		Middlewares: []usher.Middleware{s.env},
		Routes: []Route{
			{"GET", "/v1/chatbots", api, handle(s.bots)},
			{"GET", "/v1/chatbots/{id}", api, handle(s.bot)},
			{"GET", "/v1/chatbots/{id}/sources", api, handle(s.sources)},
			{"POST", "/v1/chatbots/{id}/chat", []usher.Middleware{auth, s.chat}, handle(s.talk)},
			{"GET", "/v1/api-keys", []usher.Middleware{login}, keys},
			{"POST", "/v1/api-keys", []usher.Middleware{login}, keys},
			{"DELETE", "/v1/api-keys/{id}", []usher.Middleware{login}, keys},
		},
		NotFound:         handle(s.env.NotFound),
		MethodNotAllowed: handle(s.env.MethodNotAllowed),
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

func (s *insiteChat) bots(w http.ResponseWriter, r *http.Request) {
	if s.broken {
		usher.Fail(w, r, errors.New("psycopg: server closed the connection"))
		return
	}
	envelope.To(w, r).Value([]chatBot{bot})
}

// found reports whether the bot in the path exists, or answers that not.
func found(w http.ResponseWriter, r *http.Request) bool {
	ok := r.PathValue("id") == bot.ID
	if !ok {
		usher.Fail(w, r, &usher.Error{Status: http.StatusNotFound, Message: "Chatbot not found."})
	}
	return ok
}

func (*insiteChat) bot(w http.ResponseWriter, r *http.Request) {
	if found(w, r) {
		envelope.To(w, r).Value(bot)
	}
}

func (*insiteChat) sources(w http.ResponseWriter, r *http.Request) {
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
		envelope.To(w, r).Value([]source{{"s2", "text", "New", nil, "pending", 0, bot.CreatedAt}, {"s1", "text", "Old", nil, "done", 1, bot.CreatedAt}})
	}
}

func (*insiteChat) talk(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Message string `json:"message"`
	}
	if !found(w, r) || !decode(w, r, &in) {
		return
	}
	if in.Message == "" {
		envelope.To(w, r).Invalid(usher.Field{Name: "message", Message: "Field required"})
		return
	}
	envelope.To(w, r).Value(map[string]string{"response": "You said: " + in.Message})
}
