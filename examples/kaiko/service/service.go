// Package service recognizes emotions: typed errors, idempotency, concurrent
// requests, and a monthly budget of tokens.
package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A Service recognises emotions. It has typed errors, takes keys in two header fields,
// distinguishes revoked keys from unknown ones, limits requests, simultaneous
// requests and tokens, and runs an analysis with an idempotency key once.
type Service struct {
	env     *envelope.Envelope
	auth    *apikey.Authenticator
	manager *apikey.Manager
	limit   *ratelimit.Limiter
	chat    *ratelimit.Limiter
	once    *idempotency.Middleware

	outage error         // what the store of keys fails with
	resume chan struct{} // analyses wait for it, if it is not nil

	mu  sync.Mutex
	ids map[string]bool // external IDs in the one context there is
	ran int             // analyses
}

// New returns a service without accounts, keys or data.
func New() *Service {
	s := &Service{ids: make(map[string]bool)}
	store := failingStore{apikey.NewMemory(), &s.outage}
	format := apikey.Opaque{Prefix: "kaiko", Environments: []string{"live", "test"}}
	s.env = usher.Must(envelope.New(envelope.Config{
		Shape:           envelope.Typed(),
		RequestIDPrefix: "req-",
		Catalogue: envelope.Catalogue{
			Codes: map[string]envelope.Entry{
				usher.CodeMissingCredential:         {Code: "invalid_api_key"},
				usher.CodeAmbiguousCredentials:      {Code: "invalid_api_key"},
				usher.CodeAuthenticationUnavailable: {Code: "service_unavailable"},
				usher.CodeInsufficientPermission:    {Code: "insufficient_permissions"},
				usher.CodeTooManyConcurrent:         {Code: "too_many_requests"},
				usher.CodeRateLimited:               {Code: "too_many_requests"},
				usher.CodeValidationFailed:          {Code: "invalid_request"},
			},
		},
	}))
	s.manager = usher.Must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}))
	s.auth = usher.Must(apikey.New(apikey.Config{
		Manager:     s.manager,
		Carriers:    []apikey.Carrier{{Header: "x-api-key"}, {Scheme: "Bearer"}},
		Environment: "live",
		Errors: map[apikey.Verdict]*usher.Error{
			apikey.Revoked: {Status: http.StatusForbidden, Code: "key_revoked", Message: "The API key is revoked or expired."},
			apikey.Expired: {Status: http.StatusForbidden, Code: "key_revoked", Message: "The API key is revoked or expired."},
		},
	}))

	key := ratelimit.ByPrincipal()
	s.limit = usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{
			{Name: "minute", Key: key, Limit: ratelimit.RollingWindow(1000, time.Minute)},
			{Name: "simultaneous", Key: key, Limit: ratelimit.Concurrency(10)},
		},
		Headers: ratelimit.EpochHeaders,
	}))
	// The cost of a chat is known when it is done.
	s.chat = usher.Must(s.limit.With(ratelimit.Policy{
		Name:    "tokens",
		Key:     ratelimit.ByOwner(),
		Limit:   ratelimit.CalendarWindow(100_000, ratelimit.Month),
		Settle:  true,
		Hidden:  true,
		Message: "The monthly token limit is reached.",
	}))
	s.once = usher.Must(idempotency.New(idempotency.Config{}))
	return s
}

// Close ends what goes on in the background.
func (s *Service) Close() error { return s.auth.Close() }

// App returns the routes.
func (s *Service) App() web.App {
	auth := usher.Authenticate(s.auth)
	write := usher.Require(usher.Requirement{Level: usher.LevelReadWrite})
	guard := []usher.Middleware{auth, s.limit, write, s.once}
	return web.App{
		Middlewares: []usher.Middleware{s.env},
		Routes: []web.Route{
			web.Handle("POST", "/v2/emotions/analysis", guard, http.HandlerFunc(s.analyse)),
			web.Handle("POST", "/v2/emotions/batch-analysis", guard, http.HandlerFunc(s.batch)),
			web.Handle("POST", "/v2/chat", []usher.Middleware{auth, s.chat, write}, http.HandlerFunc(s.talk)),
		},
		NotFound:         http.HandlerFunc(s.env.NotFound),
		MethodNotAllowed: http.HandlerFunc(s.env.MethodNotAllowed),
	}
}

// failingStore fails to look up keys while outage is set.
type failingStore struct {
	*apikey.Memory
	outage *error
}

func (s failingStore) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	if *s.outage != nil {
		return apikey.Record{}, *s.outage
	}
	return s.Memory.Lookup(ctx, h)
}

type kaikoRequest struct {
	Model      string         `json:"model"`
	Messages   []kaikoMessage `json:"messages"`
	ContextID  string         `json:"context_id"`
	ExternalID string         `json:"external_id"`
}

type kaikoMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// check returns what is wrong with a request, or nil.
func (s *Service) check(in *kaikoRequest) error {
	bad := func(status int, code, param, message string) error {
		return &usher.Error{Status: status, Code: code, Param: param, Message: message}
	}
	switch {
	case in.Messages == nil:
		return bad(http.StatusBadRequest, "missing_field", "messages", "The 'messages' field is required")
	case in.Model != "emotion-v2":
		return bad(http.StatusBadRequest, "invalid_model", "model", "The model does not exist")
	case in.ContextID != "" && in.ContextID != "ctx-1":
		return bad(http.StatusNotFound, "context_not_found", "context_id", "The context does not exist or has expired")
	}
	for i, m := range in.Messages {
		if !slices.Contains([]string{"user", "assistant", "system"}, m.Role) {
			return bad(http.StatusUnprocessableEntity, "invalid_role", fmt.Sprintf("messages[%d].role", i), "The role must be user, assistant or system")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids[in.ExternalID] {
		return bad(http.StatusConflict, "duplicate_id", "external_id", "The external ID has been used in this context")
	}
	if in.ExternalID != "" {
		s.ids[in.ExternalID] = true
	}
	return nil
}

func (s *Service) analyse(w http.ResponseWriter, r *http.Request) {
	var in kaikoRequest
	if !web.Decode(w, r, &in) {
		return
	}
	if err := s.check(&in); err != nil {
		usher.Fail(w, r, err)
		return
	}
	s.mu.Lock()
	s.ran++
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	if err := s.infer(ctx, in.Messages); err != nil {
		usher.Fail(w, r, err)
		return
	}
	envelope.For(w, r).Value(struct {
		Object   string             `json:"object"`
		Model    string             `json:"model"`
		Emotions map[string]float64 `json:"emotions"`
	}{"emotions.analysis", in.Model, map[string]float64{"joy": 1}})
}

// infer is where the work would be done.
func (s *Service) infer(ctx context.Context, messages []kaikoMessage) error {
	if len(messages) > 0 && messages[0].Content == "crash" {
		return errors.New("inference: cuda: out of memory at 0xdeadbeef")
	}
	if s.resume == nil {
		return nil
	}
	select {
	case <-s.resume:
		return nil
	case <-ctx.Done():
		return &usher.Error{
			Status:  http.StatusGatewayTimeout,
			Code:    "timeout",
			Message: "The request took longer than 30 seconds",
			Cause:   ctx.Err(),
		}
	}
}

func (*Service) batch(w http.ResponseWriter, r *http.Request) {
	var in kaikoRequest
	if !web.Decode(w, r, &in) {
		return
	}
	if len(in.Messages) > 100 {
		usher.Fail(w, r, &usher.Error{
			Status: http.StatusBadRequest, Code: "too_many_messages", Param: "messages", Message: "A batch has at most 100 messages",
		})
		return
	}
	envelope.For(w, r).Value(map[string]int{"analysed": len(in.Messages)})
}

// talk costs as many tokens as the request names.
func (*Service) talk(w http.ResponseWriter, r *http.Request) {
	tokens, err := strconv.Atoi(r.URL.Query().Get("tokens"))
	if err == nil {
		err = ratelimit.Settle(r.Context(), "tokens", tokens)
	}
	// A chat that goes beyond the month's tokens is already done; the next request is
	// refused.
	if err != nil && !errors.Is(err, ratelimit.ErrExhausted) {
		usher.Fail(w, r, err)
		return
	}
	envelope.For(w, r).Value(map[string]int{"total_tokens": tokens})
}
