package usher_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher"
)

// refusing is an authenticator that refuses every request with the same error.
type refusing struct{ err *usher.Error }

func (a refusing) Authenticate(*http.Request) (*usher.Principal, error) { return nil, a.err }

func TestNoAuthenticatorAtAllAdmitsNobody(t *testing.T) {
	for name, m := range map[string]usher.Middleware{
		"none":                usher.Authenticate(),
		"an empty precedence": usher.Authenticate(usher.Precedence()),
		"two empty ones":      usher.Authenticate(usher.Precedence(), usher.Precedence()),
		"one in another":      usher.Authenticate(usher.Precedence(usher.Precedence())),
	} {
		w := httptest.NewRecorder()
		m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Errorf("%s: the request is admitted", name)
		})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code != http.StatusUnauthorized {
			t.Errorf("%s: status %d", name, w.Code)
		}
	}
}

// An authenticator may return one error for all its refusals, at the same time.
func TestTheErrorOfAnAuthenticatorIsNotChanged(t *testing.T) {
	shared := &usher.Error{Status: http.StatusUnauthorized, Code: "no"}
	w := httptest.NewRecorder()
	usher.Authenticate(refusing{shared}, challenging{}).Wrap(http.NotFoundHandler()).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusUnauthorized || len(w.Header().Values("WWW-Authenticate")) == 0 {
		t.Errorf("status %d, %v", w.Code, w.Header())
	}
	if shared.Challenges != nil {
		t.Errorf("the error got the challenges %q", shared.Challenges)
	}
}

// challenging is a detector that never finds a credential.
type challenging struct{}

func (challenging) Authenticate(*http.Request) (*usher.Principal, error) {
	return nil, usher.ErrNoCredential
}
func (challenging) Detect(*http.Request) (string, bool) { return "", false }
func (challenging) Challenge() string                   { return `Bearer realm="shop"` }

// A layer outside may append a value to a field, which must not become that of another.
func TestTheFieldsOfAResponseShareNoRoom(t *testing.T) {
	for name, respond := range map[string]http.HandlerFunc{
		"a refusal": func(w http.ResponseWriter, r *http.Request) {
			usher.Fail(w, r, &usher.Error{Status: http.StatusUnauthorized, Challenges: []string{"Bearer"}})
		},
		"a failure": func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, http.ErrNotSupported) },
		"a reply": func(w http.ResponseWriter, r *http.Request) {
			usher.Respond(w, r, usher.Reply{Data: "x"})
		},
	} {
		w := httptest.NewRecorder()
		respond(w, httptest.NewRequest(http.MethodGet, "/", nil))
		want := w.Header().Clone()
		for field := range want {
			_ = append(w.Header()[field], "appended")
		}
		for field := range want {
			if got := w.Header().Values(field); len(got) != 1 || got[0] != want.Get(field) {
				t.Errorf("%s: %s is %q, want %q", name, field, got, want.Get(field))
			}
		}
	}
}
