package apikey_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A client whose key is rotated, even twice, remains the same caller: a retry with the next
// key gets the response of the first request, and the limit of the caller does not begin
// again.
func TestARotatedKeyIsTheSameCaller(t *testing.T) {
	store := apikey.NewMemory()
	m, err := apikey.NewManager(apikey.ManagerConfig{Store: store, Format: apikey.Native{Prefix: "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	authenticator, err := apikey.New(apikey.Config{
		Manager: newManager(t, apikey.ManagerConfig{Store: store, Formats: []apikey.Format{apikey.Native{Prefix: "shop"}}}),
		Principal: func(_ *apikey.Key, p usher.Principal) usher.Principal {
			p.Line = "of another caller"
			return p
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = authenticator.Close() })
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		t.Fatal(err)
	}
	limiter, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "calls", Limit: ratelimit.RollingWindow(3, time.Hour), Key: ratelimit.ByPrincipal()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	var lines []string
	h := usher.Chain(usher.Authenticate(authenticator), limiter, once).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		p, _ := usher.PrincipalFrom(r.Context())
		lines = append(lines, p.Line)
		fmt.Fprint(w, "run ", runs)
	}))
	send := func(secret apikey.Secret, key string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
		r.Header.Set("X-API-Key", secret.Reveal())
		r.Header.Set("Idempotency-Key", key)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	first, secret, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	send(secret, "1")
	last := first
	for range 2 {
		if last, secret, err = m.Rotate(t.Context(), server, "ann", last.ID, time.Hour); err != nil {
			t.Fatal(err)
		}
		if last.Line != first.ID {
			t.Errorf("line %q, want %q", last.Line, first.ID)
		}
		if w := send(secret, "1"); w.Code != 200 || w.Body.String() != "run 1" || w.Header().Get("Idempotency-Replayed") != "true" {
			t.Errorf("the retry with the next key: %d %s", w.Code, w.Body)
		}
	}
	if w := send(secret, "2"); w.Code != http.StatusTooManyRequests {
		t.Errorf("the fourth request in the hour: %d", w.Code)
	}
	// Another key of the owner is another caller, even if it has such a line in its ID.
	_, other, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "y", Line: first.ID})
	if err != nil {
		t.Fatal(err)
	}
	if w := send(other, "1"); w.Body.String() != "run 2" {
		t.Errorf("another key of the owner: %d %s", w.Code, w.Body)
	}
	if len(lines) != 2 || lines[0] != "" || lines[1] != "" {
		t.Errorf("lines %q, want none before a rotation", lines)
	}
}
