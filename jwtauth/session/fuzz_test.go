package session_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher/jwtauth/session"
)

// Text that was not issued is refused, and text in the form of a token has only one
// spelling.
func FuzzRefreshToken(f *testing.F) {
	store := &hooked{Store: newMemory(f, 0)}
	m := newManager(f, func(c *session.Config) { c.Store = store })
	good := login(f, m).RefreshToken()
	for _, seed := range []string{"", good, good[:85], good + "A", strings.Repeat("A", 86), strings.Repeat("_", 86), good[:84] + "\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == good {
			t.Skip("the one that is valid")
		}
		store.calls.Store(0)
		if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: text}); !errors.Is(err, session.ErrInvalidRefreshToken) {
			t.Fatalf("error %v for %q", err, text)
		}
		b, err := unb64(text)
		formed := err == nil && len(b) == 64 && b64(b) == text
		if asked := store.calls.Load() > 0; asked != formed {
			t.Errorf("the store was asked: %t, for %q", asked, text)
		}
	})
}

// Whatever the body is, the response is a refusal in JSON.
func FuzzRefreshBody(f *testing.F) {
	m := newManager(f, nil)
	h := newHandler(f, m, inCookie)
	for _, seed := range []string{"", "{}", "null", `{"refresh_token":"x"}`, `{"refresh_token":"\ud800"}`, `{"refresh_token":"x","refresh_token":""}`, `{"a":1e999}`, `[`, `{"refresh_token":"x"}{}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.Refresh(w, r)
		if w.Code != 400 && w.Code != 401 && w.Code != 413 || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%d %s for %q", w.Code, w.Body, body)
		}
	})
}
