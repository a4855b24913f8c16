package jwtauth_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
)

func TestAnAuthorizationServerThatFailsIs503InTime(t *testing.T) {
	for _, kind := range []string{"hangs", "panics", "fails", "exits"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := tokentest.NewStall(t, kind)
			i := must(jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
				Endpoint: "https://issuer.example", ClientID: "api", ClientSecret: "x", Issuer: issuer, Audiences: []string{audience},
				Client: &http.Client{Transport: tokentest.RoundTrip(func(*http.Request) (*http.Response, error) { return nil, s.Do() })}, Timeout: tokentest.Impatience,
			}))
			api := served(t, i)
			if got := status(t, tokentest.Patient(api.Client()), api.URL, opaque); got != 503 {
				t.Errorf("%d, want 503", got)
			}
		})
	}
}

// While the revocations hang, requests accumulate neither calls nor goroutines, and each
// gets a 503 at once or within the timeout.
func TestCallsOfRevocationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 5000
		s := tokentest.NewStall(t, "hangs")
		method := "Revoked"
		s.On.Store(&method)
		v := verifier(t, func(c *jwtauth.Config) { c.Revocations = &tokentest.Stalling{Stall: s} })
		text := good()
		began := time.Now()
		got := make(chan jwtauth.Verdict, requests)
		for range requests {
			go func() { got <- verdict(t, v, text) }()
		}
		synctest.Wait()
		if calls, refused := s.Calls.Load(), len(got); calls != 64 || refused != requests-64-16*64 {
			t.Errorf("%d calls, and %d were refused at once", calls, refused)
		}
		for range requests {
			if v := <-got; v != jwtauth.Unavailable {
				t.Errorf("%v", v)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("the last has waited %v, want the default of a second", took)
		}
		if s.Calls.Load() != 64 {
			t.Errorf("%d calls", s.Calls.Load())
		}
	})
}

// Clients that send invented tokens and hang up leave nothing behind that grows.
func TestAbandonedIntrospectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 2000
		release := make(chan struct{})
		defer func() { close(release); synctest.Wait() }()
		var calls atomic.Int64
		i := introspection(t, nil, func(c *jwtauth.IntrospectionConfig) {
			c.MaxCalls = 2
			c.Client = &http.Client{Transport: tokentest.RoundTrip(func(*http.Request) (*http.Response, error) {
				calls.Add(1)
				<-release // whatever its context says
				return nil, errDown
			})}
		})
		for n := range requests {
			ctx, hangUp := context.WithCancel(t.Context())
			go func() {
				_, err := i.Verify(ctx, "invented"+strconv.Itoa(n))
				// The queue may be full before the server notices that the client has
				// gone.
				if !errors.Is(err, jwtauth.Abandoned) && !errors.Is(err, jwtauth.Unavailable) {
					t.Error(err)
				}
			}()
			synctest.Wait() // the client waits for the server
			hangUp()
		}
		synctest.Wait()
		if n := goroutinesOfIntrospection(); n > 100 {
			t.Errorf("%d goroutines are left", n)
		}
		if calls.Load() != 2 {
			t.Errorf("%d calls", calls.Load())
		}
		time.Sleep(time.Minute)
		if n := goroutinesOfIntrospection(); n < 2 || n > 10 {
			t.Errorf("%d goroutines are left after the timeout, where 2 hang", n)
		}
	})
}

// goroutinesOfIntrospection returns how many goroutines run an introspection.
func goroutinesOfIntrospection() (n int) {
	stacks := make([]byte, 64<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for goroutine := range bytes.SplitSeq(stacks, []byte("\n\n")) {
		if bytes.Contains(goroutine, []byte("/introspection.go:")) {
			n++
		}
	}
	return n
}

func TestRevocationTimeoutIsNotNegative(t *testing.T) {
	_, err := jwtauth.New(jwtauth.Config{RevocationTimeout: -1})
	wantFaults(t, err, "jwtauth.Config.RevocationTimeout", "jwtauth.Config.Issuers")
	_, err = jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{RevocationTimeout: -1})
	if err == nil || !strings.Contains(err.Error(), "jwtauth.IntrospectionConfig.RevocationTimeout") {
		t.Error(err)
	}
}
