package contract

import (
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/ratelimit"
)

// kaie automates workflows. It has {data} and {error}, upper-case codes, keys as
// bearer tokens with three levels, and a limit per key and hour.
type kaie struct {
	env     *envelope.Envelope
	auth    *apikey.Authenticator
	manager *apikey.Manager
	limit   *ratelimit.Limiter

	mu        sync.Mutex
	workflows []workflow
}

type workflow struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	CreatedAt string `json:"created_at"`
}

func newKaie(tb testing.TB) *kaie {
	store := apikey.NewMemory()
	format := apikey.Native{Prefix: "kaie"}
	s := new(kaie)
	s.env = must(envelope.New(envelope.Config{
		Shape: envelope.Data(),
		Catalogue: envelope.Catalogue{
			Codes: map[string]envelope.Entry{
				usher.CodeMissingCredential:      {Code: "MISSING_AUTHENTICATION"},
				apikey.CodeInvalidKey:            {Code: "INVALID_API_KEY", Message: "The API key is invalid or expired."},
				usher.CodeInsufficientPermission: {Code: "INSUFFICIENT_PERMISSIONS"},
				envelope.CodeValidationFailed:    {Code: "INVALID_REQUEST"},
				ratelimit.CodeRateLimited:        {Code: "RATE_LIMIT_EXCEEDED"},
			},
			Statuses: map[int]envelope.Entry{
				http.StatusNotFound:              {Code: "NOT_FOUND"},
				http.StatusMethodNotAllowed:      {Code: "METHOD_NOT_ALLOWED"},
				http.StatusRequestEntityTooLarge: {Code: "PAYLOAD_TOO_LARGE"},
				http.StatusInternalServerError:   {Code: "INTERNAL_ERROR"},
			},
		},
	}))
	s.auth = must(apikey.New(apikey.Config{Store: store, Formats: []apikey.Format{format}, Bearer: true}))
	tb.Cleanup(func() { _ = s.auth.Close() })
	s.manager = must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}))
	s.limit = must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{{
			Name:  "hour",
			Key:   ratelimit.ByPrincipal(nil),
			Limit: ratelimit.RollingWindow(1000, time.Hour),
		}},
		Headers: ratelimit.EpochHeaders,
	}))
	return s
}

func (s *kaie) app() App {
	// Reading needs the lowest level, deleting the highest.
	level := usher.Require(usher.Requirement{
		Level: usher.LevelReadWrite,
		MethodLevels: map[string]usher.Level{
			http.MethodGet:    usher.LevelReadOnly,
			http.MethodHead:   usher.LevelReadOnly,
			http.MethodDelete: usher.LevelFull,
		},
	})
	guard := []usher.Middleware{usher.Authenticate(s.auth), s.limit, level}
	return App{
		Middlewares: []usher.Middleware{s.env},
		Routes: []Route{
			{"GET", "/v1/workflows", guard, handle(s.list)},
			{"POST", "/v1/workflows", guard, handle(s.create)},
			{"DELETE", "/v1/workflows/{id}", guard, handle(s.delete)},
		},
		NotFound:         handle(s.env.NotFound),
		MethodNotAllowed: handle(s.env.MethodNotAllowed),
	}
}

func (s *kaie) list(w http.ResponseWriter, r *http.Request) {
	page := usher.Page{Number: 1, Limit: 20}
	if n, err := strconv.Atoi(r.URL.Query().Get("page")); err == nil && n >= 1 {
		page.Number = n
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && n >= 1 {
		page.Limit = min(n, 100)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	page.Total = len(s.workflows)
	start := min((page.Number-1)*page.Limit, page.Total)
	envelope.To(w, r).List(s.workflows[start:min(start+page.Limit, page.Total)], page)
}

func (s *kaie) create(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Name string `json:"name"`
	}
	if !decode(w, r, &in) {
		return
	}
	if in.Name == "" {
		usher.Fail(w, r, &usher.Error{
			Status:  http.StatusBadRequest,
			Code:    envelope.CodeValidationFailed,
			Message: "The request is invalid.",
			Details: "Workflow name is required",
		})
		return
	}
	if in.Name == "panic" {
		panic("a fault of the handler")
	}
	s.mu.Lock()
	wf := workflow{"w" + strconv.Itoa(len(s.workflows)+1), in.Name, now()}
	s.workflows = append(s.workflows, wf)
	s.mu.Unlock()
	envelope.To(w, r).Created("/v1/workflows/"+wf.ID, wf)
}

func (s *kaie) delete(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, wf := range s.workflows {
		if wf.ID == r.PathValue("id") {
			s.workflows = append(s.workflows[:i:i], s.workflows[i+1:]...)
			envelope.To(w, r).Value(map[string]string{"id": wf.ID})
			return
		}
	}
	usher.Fail(w, r, &usher.Error{Status: http.StatusNotFound, Message: "Workflow not found"})
}
