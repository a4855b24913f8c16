package jwtauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// Otherwise any client that disconnects would raise an alarm.
func TestAClientThatLeavesIsNoFailureOfWhatIsAsked(t *testing.T) {
	asked := make(chan struct{}, 1)
	ask := func(ctx context.Context) {
		select {
		case asked <- struct{}{}:
		default: // it is asked again
		}
		<-ctx.Done()
	}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not see that the client has gone
		ask(r.Context())
	}))
	defer server.Close()
	byServer, err := jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
		Endpoint: server.URL, Issuer: issuer, ClientID: "api", ClientSecret: "secret", Audiences: []string{audience},
		Timeout: time.Second, DangerouslyAllowHTTP: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]usher.Authenticator{
		"revocations": verifier(t, func(c *jwtauth.Config) {
			c.Revocations, c.RevocationTimeout = revocationsFunc(ask), time.Hour
		}),
		"a key set": mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: keysFunc(ask),
		}}}),
		"the authorization server": byServer,
	} {
		t.Run(name, func(t *testing.T) {
			select {
			case <-asked:
			default:
			}
			causes := make(chan error, 1)
			s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, err := a.Authenticate(r)
				causes <- err
			}))
			defer s.Close()
			ctx, leave := context.WithCancel(t.Context())
			go func() {
				<-asked
				leave()
			}()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+good())
			if response, err := s.Client().Do(r); err == nil {
				_ = response.Body.Close()
				t.Fatalf("the client got %s before it left", response.Status)
			}
			cause := <-causes
			var e *usher.Error
			if !errors.As(cause, &e) || e.Status != usher.StatusClientClosedRequest || !errors.Is(cause, jwtauth.Abandoned) || errors.Is(cause, jwtauth.Unavailable) {
				t.Errorf("got %v, want Abandoned with status 499", cause)
			}
		})
	}
}

// A context that the server ends is a failure of the server.
func TestWhatTheServerEndsIsUnavailable(t *testing.T) {
	v := verifier(t, func(c *jwtauth.Config) {
		c.Revocations = revocationsFunc(func(ctx context.Context) { <-ctx.Done() })
	})
	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	stopped, interrupt := context.WithCancelCause(t.Context())
	interrupt(errors.New("interrupt signal received"))
	for _, ctx := range []context.Context{late, stopped} {
		if _, err := v.Authenticate(request(t, good()).WithContext(ctx)); !errors.Is(err, jwtauth.Unavailable) {
			t.Errorf("%v: got %v, want Unavailable", context.Cause(ctx), err)
		}
	}
}

// A revocationsFunc is a Revocations that calls it.
type revocationsFunc func(context.Context)

func (f revocationsFunc) Revoked(ctx context.Context, _ *jwtauth.Token) (bool, error) {
	f(ctx)
	return false, ctx.Err()
}

// A keysFunc is a key set that calls it.
type keysFunc func(context.Context)

func (f keysFunc) Find(ctx context.Context, _ string, _ jwk.Algorithm) ([]*jwk.Key, uint64, error) {
	f(ctx)
	return nil, 1, ctx.Err()
}

func (keysFunc) Version() (uint64, error) { return 1, nil }
