package apikey_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

func of(carriers ...apikey.Carrier) apikey.Config { return apikey.Config{Carriers: carriers} }

func basic(userAndPassword string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(userAndPassword))
}

func TestAKeyIsReadFromItsCarrierOnly(t *testing.T) {
	m, store := newManagerOn(t)
	_, key := create(t, m, apikey.Key{})
	_, other := create(t, m, apikey.Key{})
	both := of(apikey.Carrier{Header: "x-api-key"}, apikey.Carrier{Scheme: "Bearer"})
	for _, test := range []struct {
		name   string
		config apikey.Config
		header []string
		want   apikey.Verdict
	}{
		{"the header by default", apikey.Config{}, []string{"X-API-Key", key}, apikey.Accepted},
		{"in any case", apikey.Config{}, []string{"x-api-key", key}, apikey.Accepted},
		{"with blanks around it", apikey.Config{}, []string{"X-API-Key", " " + key + "\t"}, apikey.Accepted},
		{"KS-02 nothing", apikey.Config{}, nil, apikey.Missing},
		{"KS-03 only blanks", apikey.Config{}, []string{"X-API-Key", "  "}, apikey.Missing},
		{"no bearer by default", apikey.Config{}, []string{"Authorization", "Bearer " + key}, apikey.Missing},
		{"underscores are another header", apikey.Config{}, []string{"X_API_Key", key}, apikey.Missing},
		{"no cookie", apikey.Config{}, []string{"Cookie", "X-API-Key=" + key}, apikey.Missing},
		{"A01 two equal lines", apikey.Config{}, []string{"X-API-Key", key, "X-API-Key", key}, apikey.Malformed},
		{"A01 two lines", apikey.Config{}, []string{"X-API-Key", key, "X-API-Key", other}, apikey.Malformed},
		{"A01 one empty line and one valid key", apikey.Config{}, []string{"X-API-Key", "", "X-API-Key", key}, apikey.Malformed},
		{"A02 a list", apikey.Config{}, []string{"X-API-Key", key + ", " + other}, apikey.Malformed},
		{"another header", apikey.Config{Carriers: []apikey.Carrier{{Header: "api_token"}}}, []string{"Api_token", key}, apikey.Accepted},
		{"not the default one then", apikey.Config{Carriers: []apikey.Carrier{{Header: "Api-Token"}}}, []string{"X-API-Key", key}, apikey.Missing},

		{"bearer", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"Authorization", "Bearer " + key}, apikey.Accepted},
		{"bearer in any case", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"Authorization", "bEARER " + key}, apikey.Accepted},
		{"KS-09 bearer in lower case, with the exact scheme", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer", ExactScheme: true}}}, []string{"Authorization", "bearer " + key}, apikey.Missing},
		{"IC-03 no header with bearer", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"X-API-Key", key}, apikey.Missing},
		{"another scheme", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"Authorization", "Basic " + key}, apikey.Missing},
		{"A02 two bearer lines", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"Authorization", "Bearer " + key, "Authorization", "Bearer " + key}, apikey.Malformed},
		{"A02 a bearer list", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"Authorization", "Bearer " + key + ", Bearer " + key}, apikey.Malformed},
		{"A02 two words", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"Authorization", "Bearer " + key + " " + key}, apikey.Malformed},
		{"a tab after the scheme", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"Authorization", "Bearer\t" + key}, apikey.Malformed},
		{"bearer without a token", apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"Authorization", "Bearer "}, apikey.Malformed},

		{"KK-01 the header of two", both, []string{"X-API-Key", key}, apikey.Accepted},
		{"KK-02 the bearer of two", both, []string{"Authorization", "Bearer " + key}, apikey.Accepted},
		{"KK-06 both, different", both, []string{"X-API-Key", key, "Authorization", "Bearer " + other}, apikey.Ambiguous},
		{"KK-06 both, equal", both, []string{"X-API-Key", key, "Authorization", "Bearer " + key}, apikey.Ambiguous},
		{"A03 two keys in the header and a valid bearer", both, []string{"X-API-Key", key, "X-API-Key", other, "Authorization", "Bearer " + key}, apikey.Ambiguous},
		{"any scheme", of(apikey.Carrier{Scheme: "Api-Key"}), []string{"Authorization", "Api-Key " + key}, apikey.Accepted},
		{"any scheme in any case", of(apikey.Carrier{Scheme: "Token"}), []string{"Authorization", "TOKEN " + key}, apikey.Accepted},
		{"a scheme, not another one", of(apikey.Carrier{Scheme: "Token"}), []string{"Authorization", "Bearer " + key}, apikey.Missing},
		{"a scheme, not none", of(apikey.Carrier{Scheme: "Token"}), []string{"Authorization", key}, apikey.Missing},
		{"two schemes, the first", of(apikey.Carrier{Scheme: "Token"}, apikey.Carrier{Scheme: "Bearer"}), []string{"Authorization", "Token " + key}, apikey.Accepted},
		{"two schemes, the second", of(apikey.Carrier{Scheme: "Token"}, apikey.Carrier{Scheme: "Bearer"}), []string{"Authorization", "bearer " + key}, apikey.Accepted},
		{"two schemes in two lines", of(apikey.Carrier{Scheme: "Token"}, apikey.Carrier{Scheme: "Bearer"}), []string{"Authorization", "Token " + key, "Authorization", "Bearer " + key}, apikey.Ambiguous},

		{"no scheme", of(apikey.Carrier{Header: "authorization"}), []string{"Authorization", key}, apikey.Accepted},
		{"no scheme, with blanks", of(apikey.Carrier{Header: "Authorization"}), []string{"Authorization", " " + key + "\t"}, apikey.Accepted},
		{"no scheme, not any", of(apikey.Carrier{Header: "Authorization"}), []string{"Authorization", "Bearer " + key}, apikey.Missing},
		{"no scheme, a list", of(apikey.Carrier{Header: "Authorization"}), []string{"Authorization", key + "," + other}, apikey.Malformed},
		{"no scheme, two lines", of(apikey.Carrier{Header: "Authorization"}), []string{"Authorization", key, "Authorization", other}, apikey.Malformed},
		{"no scheme, and a line with one", of(apikey.Carrier{Header: "Authorization"}), []string{"Authorization", key, "Authorization", "Bearer " + other}, apikey.Malformed},
		{"no scheme or Bearer, none", of(apikey.Carrier{Header: "Authorization"}, apikey.Carrier{Scheme: "Bearer"}), []string{"Authorization", key}, apikey.Accepted},
		{"no scheme or Bearer, Bearer", of(apikey.Carrier{Header: "Authorization"}, apikey.Carrier{Scheme: "Bearer"}), []string{"Authorization", "Bearer " + key}, apikey.Accepted},
		{"no scheme or Bearer, both", of(apikey.Carrier{Header: "Authorization"}, apikey.Carrier{Scheme: "Bearer"}), []string{"Authorization", key, "Authorization", "Bearer " + key}, apikey.Ambiguous},
		{"no scheme or Bearer, the scheme alone", of(apikey.Carrier{Header: "Authorization"}, apikey.Carrier{Scheme: "Bearer"}), []string{"Authorization", "Bearer"}, apikey.Ambiguous},

		{"a user name", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", basic(key + ":")}, apikey.Accepted},
		{"a user name, the scheme in any case", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", "bASIC " + basic(key + ":")[6:]}, apikey.Accepted},
		{"a user name with a password", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", basic(key + ":x")}, apikey.Malformed},
		{"a user name with a colon as the password", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", basic(key + "::")}, apikey.Malformed},
		{"a user name without a colon", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", basic(key)}, apikey.Malformed},
		{"a password alone", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", basic(":" + key)}, apikey.Malformed},
		{"neither a user name nor a password", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", basic(":")}, apikey.Malformed},
		{"a user name without padding", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", strings.TrimRight(basic(key+":"), "=") + "A"}, apikey.Malformed},
		{"no base64", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", "Basic " + key + "!"}, apikey.Malformed},
		{"a long user name", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", basic(strings.Repeat("k", 900) + ":")}, apikey.Malformed},
		{"a user name, not another scheme", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", "Bearer " + key}, apikey.Missing},
		{"two user names", of(apikey.Carrier{BasicUser: true}), []string{"Authorization", basic(key + ":"), "Authorization", basic(key + ":")}, apikey.Malformed},
		{"a user name and a field", of(apikey.Carrier{BasicUser: true}, apikey.Carrier{Header: "X-API-Key"}), []string{"Authorization", basic(key + ":"), "X-API-Key", key}, apikey.Ambiguous},

		{"A03 a valid key in the header and a malformed bearer", both, []string{"X-API-Key", key, "Authorization", "Bearer a b"}, apikey.Ambiguous},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := newAuthenticator(t, apikey.ManagerConfig{Store: store}, test.config).Authenticate(request(test.header...))
			if got := verdictOf(t, err); got != test.want || (p == nil) != (err != nil) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestTheQueryIsReadOnlyIfThatIsConfigured(t *testing.T) {
	m, store := newManagerOn(t)
	_, key := create(t, m, apikey.Key{})
	for _, test := range []struct {
		name, parameter, query string
		want                   apikey.Verdict
	}{
		{"never by default", "", "api_key=" + key, apikey.Missing},
		{"if configured", "api_key", "a=b&api_key=" + key, apikey.Accepted},
		{"twice", "api_key", "api_key=" + key + "&api_key=" + key, apikey.Malformed},
		{"in a long query", "api_key", "api_key=" + key + "&x=" + strings.Repeat("y", 9000), apikey.Malformed},
		{"with an encoded name", "api_key", "%61pi%5Fkey=" + key, apikey.Accepted},
		{"with a blank in the name", "api key", "api+key=" + key, apikey.Accepted},
		{"twice, once with an encoded name", "api_key", "api_key=" + key + "&api%5fkey=" + key, apikey.Malformed},
		{"twice, the second with a bad escape", "api_key", "api_key=" + key + "&api_key=%zz", apikey.Malformed},
		{"twice, the first with a bad escape", "api_key", "api_key=%zz&api_key=" + key, apikey.Malformed},
		{"with a bad escape", "api_key", "api_key=" + key + "%z", apikey.Malformed},
		{"with a semicolon", "api_key", "api_key=" + key + ";a=b", apikey.Malformed},
		{"twice, once empty", "api_key", "api_key=&api_key=" + key, apikey.Malformed},
		{"empty", "api_key", "api_key=", apikey.Missing},
		{"encoded", "api_key", "api_key=" + key[:3] + "%" + fmt.Sprintf("%02x", key[3]) + key[4:], apikey.Accepted},
		{"beside a bad escape of another", "api_key", "a=%zz&api_key=" + key, apikey.Accepted},
		{"in another case", "api_key", "API_KEY=" + key, apikey.Missing},
		{"with a bad escape in the name", "api_key", "api_ke%7=" + key, apikey.Missing},
		{"as another parameter", "api_key", "my_api_key=" + key, apikey.Missing},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c apikey.Config
			if test.parameter != "" {
				c.Carriers = []apikey.Carrier{{Header: "X-API-Key"}, {DangerousQueryParameter: test.parameter}}
			}
			a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, c)
			r := httptest.NewRequest(http.MethodGet, "/?"+test.query, nil)
			_, err := a.Authenticate(r)
			if got := verdictOf(t, err); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
			if carrier, _ := a.Detect(r); (carrier != "") != (test.want != apikey.Missing) {
				t.Errorf("carrier %q", carrier)
			}
		})
	}
}

// What net/url finds in a query is what counts, and what it would drop is refused.
func FuzzQuery(f *testing.F) {
	m, store := newManagerOn(f)
	_, key := create(f, m, apikey.Key{})
	for _, seed := range []string{"k=K", "%6b=K", "k=K&k=K", "k=%zz", "k=K;a", "a=b&&k=K", "k", "=", "k=K&%6B=", "+k=K", "%zz=K&k=K"} {
		f.Add(seed)
	}
	a := newAuthenticator(f, apikey.ManagerConfig{Store: store}, apikey.Config{LastUseInterval: -1, Carriers: []apikey.Carrier{{DangerousQueryParameter: "k"}}})
	f.Fuzz(func(t *testing.T, query string) {
		query = strings.ReplaceAll(query, "K", key)
		r := request()
		r.URL.RawQuery = query
		_, err := a.Authenticate(r)
		got := verdictOf(t, err)
		values, invalid := url.ParseQuery(query)
		switch found := values["k"]; {
		case len(found) > 1 && got != apikey.Malformed,
			len(found) == 1 && found[0] == key && got != apikey.Accepted && (invalid == nil && len(query) <= 8<<10 || got != apikey.Malformed),
			len(found) == 0 && invalid == nil && got != apikey.Missing,
			got == apikey.Accepted && (len(found) != 1 || found[0] != key):
			t.Errorf("%v of %q, which has %q", got, query, found)
		}
	})
}

func TestCarriersAreTheConfiguredHeaderFields(t *testing.T) {
	for name, tt := range map[string]struct {
		config apikey.Config
		want   []string
	}{
		"by default":           {apikey.Config{}, []string{"X-Api-Key"}},
		"another header field": {apikey.Config{Carriers: []apikey.Carrier{{Header: "x-shop-key"}}}, []string{"X-Shop-Key"}},
		"bearer":               {apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, []string{"Authorization"}},
		"both":                 {apikey.Config{Carriers: []apikey.Carrier{{Header: "X-API-Key"}, {Scheme: "Bearer"}}}, []string{"X-Api-Key", "Authorization"}},
		"two schemes":          {of(apikey.Carrier{Scheme: "Bearer"}, apikey.Carrier{BasicUser: true}, apikey.Carrier{Header: "authorization"}), []string{"Authorization"}},
		// A query parameter is part of the URL, which caches use as their key.
		"a query parameter, too": {apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}, {DangerousQueryParameter: "key"}}}, []string{"Authorization"}},
	} {
		if got := newAuthenticator(t, apikey.ManagerConfig{}, tt.config).Carriers(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// A client that follows the challenge sends the key in a place where it is read.
func TestChallengesNameACarrier(t *testing.T) {
	header, bearer := apikey.Carrier{Header: "X-Shop-Key"}, apikey.Carrier{Scheme: "Bearer"}
	user, query := apikey.Carrier{BasicUser: true}, apikey.Carrier{DangerousQueryParameter: "key"}
	for name, tt := range map[string]struct {
		config  apikey.Config
		missing string
		invalid string // empty if it is the same
	}{
		"by default":              {of(), `ApiKey in="header", name="X-API-Key"`, ""},
		"a field":                 {of(header), `ApiKey in="header", name="X-Shop-Key"`, ""},
		"a field with a realm":    {apikey.Config{Realm: "r", Carriers: []apikey.Carrier{header}}, `ApiKey realm="r", in="header", name="X-Shop-Key"`, ""},
		"Bearer":                  {of(bearer), `Bearer`, `Bearer error="invalid_token"`},
		"Bearer with a realm":     {apikey.Config{Realm: "r", Carriers: []apikey.Carrier{bearer}}, `Bearer realm="r"`, `Bearer realm="r", error="invalid_token"`},
		"another scheme":          {of(apikey.Carrier{Scheme: "Token"}), `Token`, ""},
		"no scheme":               {of(apikey.Carrier{Header: "Authorization"}), `ApiKey in="header", name="Authorization"`, ""},
		"a scheme before a field": {of(query, user, header, bearer), `Bearer`, `Bearer error="invalid_token"`},
		"the first scheme":        {of(apikey.Carrier{Scheme: "Token"}, bearer), `Token`, ""},
		"a field before a user":   {of(user, query, header), `ApiKey in="header", name="X-Shop-Key"`, ""},
		// A browser asks its user for the password that a Basic challenge wants.
		"a parameter before a user": {of(user, query), `ApiKey in="query", name="key"`, ""},
		"a user alone":              {of(user), `Basic realm="API"`, ""},
		"a user with a realm":       {apikey.Config{Realm: "r", Carriers: []apikey.Carrier{user}}, `Basic realm="r"`, ""},
	} {
		a := newAuthenticator(t, apikey.ManagerConfig{}, tt.config)
		if got := a.Challenge(); got != tt.missing {
			t.Errorf("%s: challenge %s, want %s", name, got, tt.missing)
		}
		if tt.invalid == "" {
			tt.invalid = tt.missing
		}
		r := request("X-Shop-Key", "x", "X-API-Key", "x")
		if len(tt.config.Carriers) > 0 && tt.config.Carriers[0] != header {
			r = request("Authorization", "x")
			if s := tt.config.Carriers[0].Scheme; s != "" {
				r = request("Authorization", s+" x")
			} else if tt.config.Carriers[0].BasicUser {
				r = request("Authorization", basic("x:"))
			} else if tt.config.Carriers[0] == query {
				r = httptest.NewRequest(http.MethodGet, "/?key=x", nil)
			}
		}
		_, err := a.Authenticate(r)
		e, ok := errors.AsType[*usher.Error](err)
		if !ok || len(e.Challenges) != 1 || e.Challenges[0] != tt.invalid {
			t.Errorf("%s: %+v, want %s", name, e, tt.invalid)
		}
	}
}

// Plain keys may have any character, so the carriers alone refuse these.
func TestCarriersRefuseTwoReadingsOfAPlainKey(t *testing.T) {
	a := newAuthenticator(t, apikey.ManagerConfig{Formats: []apikey.Format{apikey.Plain{}}}, of(
		apikey.Carrier{Scheme: "Bearer"}, apikey.Carrier{BasicUser: true}, apikey.Carrier{DangerousQueryParameter: "key"}, apikey.Carrier{Header: "X-API-Key"},
	))
	const key = "0123456789abcdefghij"
	if _, err := a.Authenticate(request("Authorization", basic(key+":more:"))); !errors.Is(err, apikey.Malformed) {
		t.Errorf("a password that ends with a colon: %v", err)
	}
	r := request()
	r.URL.RawQuery = "key=" + key + ";a=b"
	if _, err := a.Authenticate(r); !errors.Is(err, apikey.Malformed) {
		t.Errorf("a semicolon: %v", err)
	}
	// A token for another authenticator hides no key in another carrier.
	if carrier, _ := a.Detect(request("Authorization", "Bearer token", "X-API-Key", key)); carrier != "X-Api-Key" {
		t.Errorf("detected in %q", carrier)
	}
}
