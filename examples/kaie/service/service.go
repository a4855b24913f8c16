// Package service automates workflows: upper-case error codes, three kinds of
// bearer tokens, and levels and scopes.
package service

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/ratelimit"
)

// A Service automates workflows. It has {data} and {error}, upper-case codes, and a
// limit per caller and hour. Three kinds of bearer tokens are distinguished by
// form and issuer: keys with three levels, access tokens of its authorization
// server with scopes, and tokens that the servers of customers sign.
type Service struct {
	env     *envelope.Envelope
	auth    *apikey.Authenticator
	tokens  *jwtauth.Verifier
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

// Keys are those that tokens are verified with.
type Keys struct {
	Authority jwk.Static // of the authorization server, for ES256
	Customers []Customer
}

// A Customer has a server that signs its own tokens.
type Customer struct {
	Issuer    string
	Algorithm jwk.Algorithm
	Keys      jwk.Static
}

// New returns a service without API keys or workflows.
func New(keys Keys) *Service {
	store := apikey.NewMemory()
	format := apikey.Native{Prefix: "kaie"}
	s := new(Service)
	s.env = usher.Must(envelope.New(envelope.Config{
		Shape: envelope.Data(),
		Catalogue: envelope.Catalogue{
			Codes: map[string]envelope.Entry{
				usher.CodeMissingCredential:      {Code: "MISSING_AUTHENTICATION"},
				usher.CodeInvalidAPIKey:          {Code: "INVALID_API_KEY", Message: "The API key is invalid or expired."},
				usher.CodeInvalidToken:           {Code: "INVALID_TOKEN", Message: "The access token is invalid or expired."},
				usher.CodeInsufficientPermission: {Code: "INSUFFICIENT_PERMISSIONS"},
				usher.CodeInsufficientScope:      {Code: "SCOPE_INSUFFICIENT"},
				usher.CodeValidationFailed:       {Code: "INVALID_REQUEST"},
				usher.CodeRateLimited:            {Code: "RATE_LIMIT_EXCEEDED"},
			},
			Statuses: map[int]envelope.Entry{
				http.StatusNotFound:              {Code: "NOT_FOUND"},
				http.StatusMethodNotAllowed:      {Code: "METHOD_NOT_ALLOWED"},
				http.StatusRequestEntityTooLarge: {Code: "PAYLOAD_TOO_LARGE"},
				http.StatusInternalServerError:   {Code: "INTERNAL_ERROR"},
			},
		},
	}))
	s.manager = usher.Must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}))
	s.auth = usher.Must(apikey.New(apikey.Config{
		Manager:  s.manager,
		Carriers: []apikey.Carrier{{Scheme: "Bearer"}},
		Principal: func(_ *apikey.Key, usual usher.Principal) usher.Principal {
			usual.Scopes = kaieScopes // its level limits a key
			return usual
		},
	}))
	s.tokens = usher.Must(jwtauth.New(jwtauth.Config{Issuers: issuers(keys), Principal: kaieCaller}))
	s.limit = usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{{
			Name:  "hour",
			Key:   ratelimit.ByPrincipal(),
			Limit: ratelimit.RollingWindow(1000, time.Hour),
		}},
		Headers: ratelimit.EpochHeaders,
	}))
	return s
}

const (
	kaieAPI       = "https://api.kaie.example"
	kaieAuthority = "https://auth.kaie.example"
	canRead       = "workflows:read"
	canWrite      = "workflows:write"
)

var kaieScopes = []string{canRead, canWrite}

// issuers accepts the tokens of the authorization server, and those that the servers
// of customers sign, valid for an hour at most.
func issuers(keys Keys) []jwtauth.TrustedIssuer {
	list := []jwtauth.TrustedIssuer{{
		Issuer:     kaieAuthority,
		Audiences:  []string{kaieAPI},
		Algorithms: []jwk.Algorithm{jwk.ES256},
		Keys:       keys.Authority,
		Profile:    jwtauth.ProfileAccessToken,
	}}
	for _, c := range keys.Customers {
		list = append(list, jwtauth.TrustedIssuer{
			Issuer:     c.Issuer,
			Audiences:  []string{kaieAPI},
			Algorithms: []jwk.Algorithm{c.Algorithm},
			Keys:       c.Keys,
			Profile:    jwtauth.ProfileAssertion,
		})
	}
	return list
}

// kaieCaller returns what a token permits, and the ID that its requests count for.
func kaieCaller(t *jwtauth.Token, usual usher.Principal) usher.Principal {
	if t.Issuer == kaieAuthority {
		// The scopes limit it, and each token has a limit of its own.
		usual.Kind, usual.Level = usher.KindOAuth, usher.LevelFull
		usual.ID, usual.Owner = t.Issuer+"|"+t.ID, t.Subject
		return usual
	}
	// A server signs as many tokens as it likes, with any claims. So its requests
	// count for its name, and its claims grant nothing.
	usual.Level, usual.Scopes = usher.LevelReadWrite, kaieScopes
	return usual
}

// Close ends what goes on in the background.
func (s *Service) Close() error { return s.auth.Close() }

// App returns the routes.
func (s *Service) App() web.App {
	// Reading needs the lowest level, deleting the highest.
	levels := map[string]usher.Level{
		http.MethodGet:    usher.LevelReadOnly,
		http.MethodPost:   usher.LevelReadWrite,
		http.MethodDelete: usher.LevelFull,
	}
	// A credential with neither form is refused as a token.
	auth := usher.Authenticate(s.tokens, s.auth)
	guard := func(scope string) []usher.Middleware {
		return []usher.Middleware{auth, s.limit, usher.Require(usher.Requirement{
			Level:        usher.LevelReadWrite,
			MethodLevels: levels,
			Scopes:       []string{scope},
		})}
	}
	return web.App{
		Middlewares: []usher.Middleware{s.env},
		Routes: []web.Route{
			web.Handle("GET", "/v1/workflows", guard(canRead), http.HandlerFunc(s.list)),
			web.Handle("POST", "/v1/workflows", guard(canWrite), http.HandlerFunc(s.create)),
			web.Handle("DELETE", "/v1/workflows/{id}", guard(canWrite), http.HandlerFunc(s.delete)),
		},
		NotFound:         http.HandlerFunc(s.env.NotFound),
		MethodNotAllowed: http.HandlerFunc(s.env.MethodNotAllowed),
	}
}

func (s *Service) list(w http.ResponseWriter, r *http.Request) {
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
	envelope.For(w, r).List(s.workflows[start:min(start+page.Limit, page.Total)], page)
}

func (s *Service) create(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Name string `json:"name"`
	}
	if !web.Decode(w, r, &in) {
		return
	}
	if in.Name == "" {
		usher.Fail(w, r, &usher.Error{
			Status:  http.StatusBadRequest,
			Code:    usher.CodeValidationFailed,
			Message: "The request is invalid.",
			Details: "Workflow name is required",
		})
		return
	}
	if in.Name == "panic" {
		panic("a fault of the handler")
	}
	s.mu.Lock()
	wf := workflow{"w" + strconv.Itoa(len(s.workflows)+1), in.Name, web.Now()}
	s.workflows = append(s.workflows, wf)
	s.mu.Unlock()
	envelope.For(w, r).Created("/v1/workflows/"+wf.ID, wf)
}

func (s *Service) delete(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, wf := range s.workflows {
		if wf.ID == r.PathValue("id") {
			s.workflows = append(s.workflows[:i:i], s.workflows[i+1:]...)
			envelope.For(w, r).Value(map[string]string{"id": wf.ID})
			return
		}
	}
	usher.Fail(w, r, &usher.Error{Status: http.StatusNotFound, Message: "Workflow not found"})
}
