package jwtauth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

const assertion = "Cf-Access-Jwt-Assertion"

func TestATokenMayComeInAnotherHeaderField(t *testing.T) {
	for name, tt := range map[string]struct {
		header http.Header
		want   jwtauth.Verdict
		detect string
	}{
		"the token":                 {http.Header{assertion: {good()}}, jwtauth.Accepted, assertion},
		"blanks around it":          {http.Header{assertion: {" " + good() + " "}}, jwtauth.Accepted, assertion},
		"none":                      {http.Header{}, jwtauth.Missing, ""},
		"an empty field":            {http.Header{assertion: {""}}, jwtauth.Missing, ""},
		"with a scheme":             {http.Header{assertion: {"Bearer " + good()}}, jwtauth.Malformed, assertion},
		"two lines":                 {http.Header{assertion: {good(), good()}}, jwtauth.Malformed, assertion},
		"a list":                    {http.Header{assertion: {good() + ", " + good()}}, jwtauth.Malformed, assertion},
		"in Authorization":          {http.Header{"Authorization": {"Bearer " + good()}}, jwtauth.Missing, ""},
		"beside Authorization":      {http.Header{assertion: {good()}, "Authorization": {"Basic eDp4"}}, jwtauth.Accepted, assertion},
		"beside a malformed one":    {http.Header{assertion: {good()}, "Authorization": {"Bearer"}}, jwtauth.Accepted, assertion},
		"in the cookie":             {http.Header{"Cookie": {"t=" + good()}}, jwtauth.Accepted, "Cookie"},
		"in the field and a cookie": {http.Header{assertion: {good()}, "Cookie": {"t=" + good()}}, jwtauth.Ambiguous, "Cookie"},
	} {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, func(c *jwtauth.Config) { c.Header, c.Cookie = strings.ToLower(assertion), "t" })
			r := request(t, "")
			r.Header = tt.header
			p, err := v.Authenticate(r)
			if got := verdictOf(t, p, err); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
			if carrier, certain := v.Detect(r); carrier != tt.detect || certain != (tt.want == jwtauth.Accepted) {
				t.Errorf("detected in %q, certain: %t", carrier, certain)
			}
		})
	}
}

func TestCachesDistinguishCallersByTheHeaderField(t *testing.T) {
	v := verifier(t, func(c *jwtauth.Config) { c.Header = assertion })
	if got := v.Carriers(); !slices.Equal(got, []string{assertion}) {
		t.Errorf("carriers %q", got)
	}
	r := request(t, "")
	r.Header.Set(assertion, good())
	if w := respond(t, v, r); w.Code != http.StatusOK || !slices.Equal(w.Header()["Vary"], []string{assertion}) {
		t.Errorf("%d, Vary %q", w.Code, w.Header()["Vary"])
	}
}

// The token of a proxy and the credential of the client are two credentials.
func TestATokenInAnotherFieldIsNotRankedByItself(t *testing.T) {
	byProxy := verifier(t, func(c *jwtauth.Config) { c.Header = assertion })
	own := verifier(t, nil)
	r := request(t, good())
	r.Header.Set(assertion, good())
	_, err := usher.Precedence(byProxy, own).Authenticate(r)
	if err != nil {
		t.Error(err)
	}
	h := usher.Authenticate(byProxy, own).Wrap(http.NotFoundHandler())
	if w := serve(h, r); w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), usher.CodeAmbiguousCredentials) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestFaultsOfTheHeaderField(t *testing.T) {
	for header, reason := range map[string]string{
		"authorization":    "reads Authorization",
		"cookie":           "name of the cookie",
		"host":             "must not be Host",
		"a b":              "name of a header field",
		"X-Token ":         "name of a header field",
		"x-amzn-oidc-data": "AWS pads its segments",
	} {
		c := jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{hs256(t)}, Header: header}
		_, err := jwtauth.New(c)
		fault, ok := errors.AsType[*usher.ConfigError](err)
		if !ok || fault.Field != "jwtauth.Config.Header" || !strings.Contains(fault.Reason, reason) {
			t.Errorf("%q: %v", header, err)
		}
	}
	_, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{hs256(t)}, Header: assertion, ExactBearer: true})
	wantFaults(t, err, "jwtauth.Config.ExactBearer")
}

// serve returns the response of h to r.
func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
