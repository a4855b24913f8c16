package stacks

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/httprate"
	"github.com/go-chi/jwtauth/v5"
	"github.com/go-chi/render"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/usher-go/usher/benchmarks/internal/byhand"
)

func newToday(c Config) (http.Handler, error) {
	var (
		auth   []func(http.Handler) http.Handler
		caller httprate.KeyFunc
	)
	switch c.Credential {
	case Key:
		auth = append(auth, byhand.NewKeys(keyText(), owner).Wrap)
		caller = func(r *http.Request) (string, error) { return byhand.Caller(r.Context()), nil }
	case JWT:
		tokens := jwtauth.New("HS256", tokenSecret, nil, jwt.WithIssuer(issuer), jwt.WithAudience(audience))
		auth = append(auth, jwtauth.Verifier(tokens), jwtauth.Authenticator(tokens))
		// jwtauth.FromContext would copy all claims into a map for each of the limits.
		caller = func(r *http.Request) (string, error) {
			token, _ := r.Context().Value(jwtauth.TokenCtxKey).(jwt.Token)
			return token.Subject(), nil
		}
	default:
		return nil, fmt.Errorf("stacks: no credential %q", c.Credential)
	}
	once := &byhand.Idempotency{Fingerprint: true}
	r := chi.NewRouter()
	r.Group(func(r chi.Router) {
		r.Use(auth...)
		r.Use(httprate.LimitBy(plenty, time.Second, caller), httprate.LimitBy(plenty, time.Second, caller), once.Wrap)
		r.Get("/notes", rendered)
		r.Post("/notes", rendered)
	})
	return r, nil
}

// rendered is plain with the envelope as a type.
func rendered(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	status, n := handle(r)
	message := "OK"
	if status == http.StatusCreated {
		message = "Created"
	}
	render.Status(r, status)
	render.JSON(w, r, byhand.NewResponse(r, start, status, message, n))
}
