package idempotency_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// A response that failed after it had begun is not stored as a success.
func TestAFailureAfterTheFirstByteIsNeverReplayed(t *testing.T) {
	env, err := envelope.New(envelope.Config{
		Wrap: true, Shape: envelope.Data(), OnError: func(context.Context, error) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	once := newMiddleware(t, idempotency.Config{DangerouslyAllowAnonymous: true})
	s := httptest.NewServer(env.Wrap(once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "[1,2]")
		usher.Fail(w, r, &usher.Error{Status: http.StatusServiceUnavailable})
	}))))
	defer s.Close()
	send := func() (status int, body string, err error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Idempotency-Key", "k")
		r.GetBody = nil // so that the client does not try again by itself
		resp, err := s.Client().Do(r)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	if status, body, err := send(); err == nil {
		t.Errorf("a whole response: %d %s", status, body)
	}
	if status, body, err := send(); status != http.StatusConflict || err != nil {
		t.Errorf("the retry got %d %s, %v", status, body, err)
	}
}

// Without an envelope, which would cut the connection, such a response is not stored
// either: the client gets what any server would send.
func TestAnErrorAfterASuccessIsNeverReplayedWithoutAnEnvelope(t *testing.T) {
	for _, c := range []struct {
		name   string
		handle func(w http.ResponseWriter, r *http.Request)
		want   string
	}{
		{"usher.Fail after the first byte", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "part")
			usher.Fail(w, r, errDown)
		}, unknown},
		{"http.Error after the first byte", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "part")
			http.Error(w, "down", http.StatusBadGateway)
		}, unknown},
		{"usher.Fail after the status", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusCreated)
			usher.Fail(w, r, errDown)
		}, unknown},
		{"a refusal after the first byte", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "part")
			usher.Fail(w, r, &usher.Error{Status: http.StatusConflict})
		}, unknown},
		{"an error after an error", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusGone)
			w.WriteHeader(http.StatusInternalServerError)
		}, ""},
		{"a success after a success", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			w.WriteHeader(http.StatusOK)
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := &counting{next: c.handle}
			s := httptest.NewUnstartedServer(asAlice(newMiddleware(t, idempotency.Config{}).Wrap(calls)))
			s.Config.ErrorLog = log.New(io.Discard, "", 0) // which names the second status
			s.Start()
			defer s.Close()
			roundTrip(t, s, request(t, s.URL, "k"))
			again := roundTrip(t, s, request(t, s.URL, "k"))
			if c.want == "" && !again.replayed() || c.want != "" && (again.status != 409 || !strings.Contains(again.text, c.want)) {
				t.Errorf("the retry got %d %s", again.status, again.text)
			}
			calls.want(t, 1)
		})
	}
}
