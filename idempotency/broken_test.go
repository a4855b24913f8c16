package idempotency_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// A response that failed after it had begun is not kept as a success.
func TestAFailureAfterTheFirstByteIsNeverReplayed(t *testing.T) {
	env, err := envelope.New(envelope.Config{
		Wrap: true, Shape: envelope.Data(), OnError: func(*http.Request, *usher.Error) {},
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
