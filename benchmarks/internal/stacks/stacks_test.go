package stacks_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher/benchmarks/internal/stacks"
)

func TestCheck(t *testing.T) {
	for _, name := range stacks.Names() {
		for _, credential := range []stacks.Credential{stacks.Key, stacks.JWT} {
			for _, server := range []bool{false, true} {
				s, err := stacks.New(stacks.Config{Stack: name, Credential: credential, Server: server})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Check(); err != nil {
					t.Error(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// A check that nothing fails would let anything be measured.
func TestCheckFindsARefusal(t *testing.T) {
	s, err := stacks.New(stacks.Config{Stack: stacks.Today, Credential: stacks.Key})
	if err != nil {
		t.Fatal(err)
	}
	good := s.Handler
	for name, h := range map[string]http.HandlerFunc{
		"refuses everybody": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"is bare": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"id":"n-1"}`))
		},
		"admits unknown callers": func(w http.ResponseWriter, r *http.Request) {
			r.Header = stacks.Works()[0].Header()
			good.ServeHTTP(w, r)
		},
		"forgets idempotency": func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Idempotency-Key")
			good.ServeHTTP(w, r)
		},
		"loses the body": func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.NoBody
			good.ServeHTTP(w, r)
		},
	} {
		s.Handler = h
		if s.Check() == nil {
			t.Errorf("a stack that %s passes", name)
		}
	}
}

func TestUnknown(t *testing.T) {
	for _, c := range []stacks.Config{{}, {Stack: stacks.Usher}, {Stack: stacks.Today, Credential: "cookie"}} {
		if _, err := stacks.New(c); err == nil {
			t.Errorf("%+v is built", c)
		}
	}
}

// Works must be usable by a client over the network as well.
func TestWorksOverLoopback(t *testing.T) {
	for _, work := range stacks.Works() {
		s, err := stacks.New(stacks.Config{Stack: stacks.Usher, Credential: work.Credential})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(s)
		r := work.NewRequest("loopback", 0)
		r, err = http.NewRequestWithContext(t.Context(), r.Method, server.URL+work.Path, r.Body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = work.Header()
		if key := work.IdempotencyKey("loopback", 0); key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != work.Status {
			t.Errorf("%s: %s", work.Name, resp.Status)
		}
		server.Close()
		_ = s.Close()
	}
}
