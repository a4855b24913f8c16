package apikey_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher/apikey"
)

func newAuthenticator(t testing.TB, c apikey.Config) *apikey.Authenticator {
	t.Helper()
	if c.Formats == nil {
		c.Formats = []apikey.Format{native}
	}
	a, err := apikey.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// request returns a request with one header field.
func request(name, value string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header[name] = []string{value}
	return r
}
