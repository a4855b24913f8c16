// Package service signs people up: plans with two limits at once, and no envelope.
package service

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/ratelimit"
)

// A Service signs people up for other services. It has no envelope, short keys that
// were issued long ago, and for each plan two limits at once.
type Service struct {
	env     *envelope.Envelope
	auth    *apikey.Authenticator
	manager *apikey.Manager
	limit   *ratelimit.Limiter
}

// New returns a service without accounts, keys or data.
func New() *Service {
	store := apikey.NewMemory()
	issued := apikey.Opaque{Prefix: "sk", Environments: []string{"prod"}}
	short := apikey.Opaque{Prefix: "sk", Environments: []string{"prod"}, Length: 16} // recognised, no longer issued
	s := new(Service)
	s.env = usher.Must(envelope.New(envelope.Config{Shape: envelope.Bare()}))
	s.manager = usher.Must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: issued, Formats: []apikey.Format{short}}))
	s.auth = usher.Must(apikey.New(apikey.Config{Manager: s.manager, Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}))
	s.limit = usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{
			{
				Name:     "second",
				Key:      ratelimit.ByOwner(),
				Limit:    ratelimit.RollingWindow(10, time.Second),
				Plans:    map[string]ratelimit.Limit{"free": ratelimit.RollingWindow(10, time.Second), "pro": ratelimit.RollingWindow(100, time.Second)},
				LimitFor: enterprise(time.Second),
			},
			{
				Name:     "minute",
				Key:      ratelimit.ByOwner(),
				Limit:    ratelimit.RollingWindow(600, time.Minute),
				Plans:    map[string]ratelimit.Limit{"free": ratelimit.RollingWindow(600, time.Minute), "pro": ratelimit.RollingWindow(6000, time.Minute)},
				LimitFor: enterprise(time.Minute),
			},
		},
	}))
	return s
}

// enterprise returns the limits that were agreed with an account, here 20 a second
// with everybody. The zero Limit means that of the plan.
func enterprise(per time.Duration) func(*http.Request) ratelimit.Limit {
	return func(r *http.Request) ratelimit.Limit {
		if p, _ := usher.PrincipalFrom(r.Context()); p.Plan == "enterprise" {
			return ratelimit.RollingWindow(20*int(per/time.Second), per)
		}
		return ratelimit.Limit{}
	}
}

// Close ends what goes on in the background.
func (s *Service) Close() error { return s.auth.Close() }

// App returns the routes.
func (s *Service) App() web.App {
	return web.App{
		Middlewares: []usher.Middleware{s.env},
		Routes: []web.Route{web.Handle(
			"POST", "/v1/auth/sign-up",
			[]usher.Middleware{usher.Authenticate(s.auth), s.limit},
			http.HandlerFunc(s.signUp),
		)},
		NotFound:         http.HandlerFunc(s.env.NotFound),
		MethodNotAllowed: http.HandlerFunc(s.env.MethodNotAllowed),
	}
}

func (*Service) signUp(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Email    string          `json:"email"`
		Password string          `json:"password"`
		Metadata json.RawMessage `json:"metadata"`
	}
	if !web.Decode(w, r, &in) {
		return
	}
	var faults []usher.Field
	if !strings.Contains(in.Email, "@") {
		faults = append(faults, usher.Field{Name: "email", Message: "must be an e-mail address"})
	}
	if len(in.Password) < 8 {
		faults = append(faults, usher.Field{Name: "password", Message: "must have at least 8 characters"})
	}
	if len(in.Metadata) > 0 && in.Metadata[0] != '{' {
		faults = append(faults, usher.Field{Name: "metadata", Message: "must be an object"})
	}
	if len(faults) > 0 {
		envelope.For(w, r).Invalid(faults...)
		return
	}
	envelope.For(w, r).Created("", struct {
		UserID               string `json:"userId"`
		Email                string `json:"email"`
		CreatedAt            string `json:"createdAt"`
		VerificationRequired bool   `json:"verificationRequired"`
	}{"u1", in.Email, web.Now(), true})
}
