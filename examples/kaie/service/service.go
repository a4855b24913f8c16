// Package service automates workflows: upper-case error codes, three kinds of
// bearer tokens, and levels and scopes.
package service

import (
	"crypto"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/tokentest"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/ratelimit"
)

// A Service automates workflows. It has {data} and {error}, upper-case codes, and a
// limit per caller and hour. Three kinds of bearer tokens are told apart by their
// form and issuer: keys with three levels, access tokens of its authorization
// server with scopes, and what the servers of customers sign for themselves.
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

// New returns a service without accounts, keys or data.
func New() *Service {
	store := apikey.NewMemory()
	format := apikey.Native{Prefix: "kaie"}
	s := new(Service)
	s.env = web.Must(envelope.New(envelope.Config{
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
	s.auth = web.Must(apikey.New(apikey.Config{
		Store:   store,
		Formats: []apikey.Format{format},
		Bearer:  true,
		Principal: func(_ *apikey.Key, usual usher.Principal) usher.Principal {
			usual.Scopes = kaieScopes // its level says what a key permits
			return usual
		},
	}))
	s.manager = web.Must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}))
	s.tokens = web.Must(jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{
			{
				Issuer:     kaieAuthority,
				Audiences:  []string{kaieAPI},
				Algorithms: []jwk.Algorithm{jwk.ES256},
				Keys:       tokentest.Trust(jwk.ES256, tokentest.Keys().Authority.Public()),
				Profile:    jwtauth.ProfileAccessToken,
			},
			customer("https://rsa.customer.example", jwk.RS256, tokentest.Keys().RSA.Public()),
			customer("https://ec.customer.example", jwk.ES256, tokentest.Keys().EC.Public()),
			customer("https://ed.customer.example", jwk.EdDSA, tokentest.Keys().Ed.Public()),
		},
		Principal: kaieCaller,
	}))
	s.limit = web.Must(ratelimit.New(ratelimit.Config{
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

// customer trusts what a customer's server signs about itself, for an hour at most.
func customer(name string, a jwk.Algorithm, public crypto.PublicKey) jwtauth.TrustedIssuer {
	return jwtauth.TrustedIssuer{
		Issuer:     name,
		Audiences:  []string{kaieAPI},
		Algorithms: []jwk.Algorithm{a},
		Keys:       tokentest.Trust(a, public),
		Profile:    jwtauth.ProfileAssertion,
	}
}

// kaieCaller says what a token permits, and what its requests are counted by.
func kaieCaller(t *jwtauth.Token, usual usher.Principal) usher.Principal {
	if t.Issuer == kaieAuthority {
		// Its scopes say what it permits, and it is counted for itself.
		usual.Kind, usual.Level = usher.KindOAuth, usher.LevelFull
		usual.ID, usual.Owner = t.Issuer+"|"+t.ID, t.Subject
		return usual
	}
	// A server signs as many tokens as it likes, and in them what it likes. So it
	// is counted by its name, and may do what servers may.
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
	// What has neither the form of a key nor that of a token is taken for a token.
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
