package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/internal/race"
)

// newAuthenticator returns the Authenticator for the keys of m. It accepts native keys
// unless m has formats, and it is closed when the test ends.
func newAuthenticator(t testing.TB, m apikey.ManagerConfig, c apikey.Config) *apikey.Authenticator {
	t.Helper()
	c.Manager = newManager(t, m)
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

// request returns a request with these header fields, names and values in turn.
func request(fields ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

// verdictOf returns the verdict of an error of Authenticate.
func verdictOf(t testing.TB, err error) apikey.Verdict {
	t.Helper()
	var v apikey.Verdict
	switch {
	case err == nil:
		return apikey.Accepted
	case errors.Is(err, usher.ErrNoCredential):
		return apikey.Missing
	case errors.As(err, &v):
		return v
	}
	t.Fatalf("an error without a verdict: %v", err)
	return 0
}

func TestAuthenticatorReportsAllFaultsAtOnce(t *testing.T) {
	_, err := apikey.New(apikey.Config{
		Carriers: []apikey.Carrier{
			{Header: "X Key"}, {}, {Header: "X-Key", Scheme: "Bearer"}, {Scheme: "a b"}, {Scheme: "basic"},
			{Header: "X-A", ExactScheme: true}, {Header: "x-a"}, {Header: "authorization"}, {Header: "cookie"},
			{Scheme: "Token"}, {Scheme: "TOKEN", ExactScheme: true}, {DangerousQueryParameter: "key"}, {DangerousQueryParameter: "KEY"},
			{BasicUser: true}, {BasicUser: true}, {BasicUser: true, Header: "X-B"},
		},
		Errors: map[apikey.Verdict]*usher.Error{
			apikey.Revoked: {Status: 200}, apikey.Expired: nil, apikey.Unavailable: {Status: 401}, apikey.Missing: {Status: 401}, 77: {Status: 401},
		},
	})
	want := map[string]bool{}
	for _, f := range []string{
		"Manager", "Carriers[0].Header", "Carriers[1].Header", "Carriers[2].Header", "Carriers[3].Scheme", "Carriers[4].Scheme",
		"Carriers[5].ExactScheme", "Carriers[6].Header", "Carriers[8].Header", "Carriers[10].Header",
		"Carriers[14].Header", "Carriers[15].Header",
		"Errors[revoked]", "Errors[expired]", "Errors[unavailable]", "Errors[missing]", "Errors[Verdict(77)]",
	} {
		want["apikey.Config."+f] = true
	}
	if diff := compare.Diff(want, fieldsOf(err)); diff != "" {
		t.Error(diff)
	}
}

func newManagerOn(t testing.TB) (*apikey.Manager, apikey.Store) {
	t.Helper()
	store := apikey.NewMemory()
	return newManager(t, apikey.ManagerConfig{Store: store}), store
}

// situations returns the text of a key for each verdict that a key can get. It must run
// in a synctest bubble, because one of the keys expires.
func situations(t *testing.T, store apikey.Store) map[apikey.Verdict]string {
	m := newManager(t, apikey.ManagerConfig{Store: store})
	_, accepted := create(t, m, apikey.Key{})
	revoked, revokedText := create(t, m, apikey.Key{})
	_, expired := create(t, m, apikey.Key{ExpiresAt: time.Now().Add(time.Minute)})
	_, elsewhere := create(t, m, apikey.Key{Environment: "test"})
	_, disabled := create(t, m, apikey.Key{DisabledAt: time.Now()})
	_, outside := create(t, m, apikey.Key{AllowedNetworks: networks("198.51.100.0/24")})
	if _, err := m.Revoke(t.Context(), server, "ann", revoked.ID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	return map[apikey.Verdict]string{
		apikey.Accepted: accepted, apikey.Malformed: accepted[:len(accepted)-1] + "!", apikey.Unknown: generate(t, native, ""),
		apikey.Revoked: revokedText, apikey.Expired: expired, apikey.WrongEnvironment: elsewhere,
		apikey.Disabled: disabled, apikey.WrongNetwork: outside,
	}
}

func TestVerdicts(t *testing.T) {
	for name, cached := range map[string]bool{"from the store": false, "from a cache": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var store apikey.Store = apikey.NewMemory()
				if cached {
					store = newCache(t, apikey.CacheConfig{Store: silent{store}})
				}
				a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{Environment: "live"})
				for want, text := range situations(t, store) {
					for range 2 {
						_, err := a.Authenticate(request("X-API-Key", text))
						if got := verdictOf(t, err); got != want {
							t.Errorf("%v, want %v", got, want)
						}
						if err != nil && !errors.Is(err, want) {
							t.Errorf("%v is no %v", err, want)
						}
					}
				}
			})
		})
	}
}

// The environment of a key whose text names none is that of its record.
func TestTheEnvironmentOfTheRecordCounts(t *testing.T) {
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store, Format: opaque})
	_, live := create(t, m, apikey.Key{Environment: "live"})
	_, staging := create(t, m, apikey.Key{Environment: "staging"})
	_, none := create(t, m, apikey.Key{})
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store, Formats: []apikey.Format{opaque}}, apikey.Config{Environment: "live"})
	for text, want := range map[string]apikey.Verdict{live: apikey.Accepted, staging: apikey.WrongEnvironment, none: apikey.WrongEnvironment} {
		_, err := a.Authenticate(request("X-API-Key", text))
		if got := verdictOf(t, err); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestExpiryIsCheckedForKeysInTheCacheToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{Store: apikey.NewMemory()}
		cache := newCache(t, apikey.CacheConfig{Store: s, TTL: time.Hour})
		m := newManager(t, apikey.ManagerConfig{Store: cache})
		k, text := create(t, m, apikey.Key{})
		_, expiring := create(t, m, apikey.Key{ExpiresAt: time.Now().Add(2 * time.Second)})
		_, secret, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		a := newAuthenticator(t, apikey.ManagerConfig{Store: cache}, apikey.Config{})
		verdicts := func() (got [3]apikey.Verdict) {
			for i, text := range []string{text, expiring, secret.Reveal()} {
				_, err := a.Authenticate(request("X-API-Key", text))
				got[i] = verdictOf(t, err)
			}
			return got
		}
		steps := []struct {
			wait time.Duration
			want [3]apikey.Verdict
		}{
			{0, [3]apikey.Verdict{apikey.Accepted, apikey.Accepted, apikey.Accepted}},
			{time.Second - 1, [3]apikey.Verdict{apikey.Accepted, apikey.Accepted, apikey.Accepted}},
			{1, [3]apikey.Verdict{apikey.Expired, apikey.Accepted, apikey.Accepted}},
			{time.Second, [3]apikey.Verdict{apikey.Expired, apikey.Expired, apikey.Accepted}},
		}
		for i, step := range steps {
			time.Sleep(step.wait)
			if got := verdicts(); got != step.want {
				t.Errorf("step %d: %v, want %v", i, got, step.want)
			}
		}
		if got := s.lookups.Load(); got != 3 {
			t.Errorf("%d lookups, want 3", got)
		}
	})
}

// The responses that a client gets from a real server, byte for byte.
func TestRefusalsAreTheSameBytes(t *testing.T) {
	for name, cached := range map[string]bool{"from the store": false, "from a cache": true} {
		t.Run(name, func(t *testing.T) {
			var store apikey.Store = apikey.NewMemory()
			if cached {
				store = newCache(t, apikey.CacheConfig{Store: silent{store}})
			}
			m := newManager(t, apikey.ManagerConfig{Store: store})
			revoked, revokedText := create(t, m, apikey.Key{})
			if _, err := m.Revoke(t.Context(), server, "ann", revoked.ID); err != nil {
				t.Fatal(err)
			}
			expiring := time.Now().Add(10 * time.Millisecond)
			_, expired := create(t, m, apikey.Key{ExpiresAt: expiring})
			_, elsewhere := create(t, m, apikey.Key{Environment: "test"})
			_, disabled := create(t, m, apikey.Key{DisabledAt: time.Now()})
			_, outside := create(t, m, apikey.Key{AllowedNetworks: networks("198.51.100.0/24")})
			<-time.After(time.Until(expiring))
			a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{Environment: "live", Realm: `a "shop"`})
			srv := httptest.NewServer(usher.Authenticate(a).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Error("the handler was reached")
			})))
			defer srv.Close()
			responses := map[string][]string{}
			for name, text := range map[string]string{
				"malformed": "shop_live_x", "no such prefix": "hello", "wrong checksum": revokedText[:len(revokedText)-1] + "!",
				"unknown": generate(t, native, ""), "revoked": revokedText, "expired": expired, "wrong environment": elsewhere,
				"disabled": disabled, "from another network": outside, "unknown of the wrong environment": generate(t, native, "test"), "long": strings.Repeat("a", 100<<10),
			} {
				for range 2 {
					response := exchange(t, srv, "X-API-Key", text)
					responses[response] = append(responses[response], name)
				}
			}
			if len(responses) != 1 {
				t.Fatalf("different responses: %v", responses)
			}
			for response := range responses {
				for _, want := range []string{"401", `Www-Authenticate:[ApiKey realm="a \"shop\"", in="header", name="X-API-Key"]`, `"code":"invalid_api_key"`} {
					if !strings.Contains(response, want) {
						t.Errorf("no %q in %s", want, response)
					}
				}
			}
		})
	}
}

// exchange sends a request with these header fields and returns all of the
// response but its date.
func exchange(t testing.TB, srv *httptest.Server, fields ...string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Header.Del("Date")
	return fmt.Sprintf("%s %v %s", resp.Status, resp.Header, body)
}

func TestGarbageCausesNoLookup(t *testing.T) {
	const garbage = 1_000_000
	s := newScripted(t, 0)
	a := newAuthenticator(t, apikey.ManagerConfig{Store: s}, apikey.Config{Environment: "live", LastUseInterval: -1})
	valid := generate(t, native, "")
	elsewhere := generate(t, native, "test")
	r := request("X-API-Key", "")
	// Every kind of garbage in turn: of any length, with the right shape and a
	// wrong checksum, and a well-formed key of another environment.
	text := []byte(valid)
	for i := range garbage {
		switch i % 4 {
		case 0:
			n := i % (2 * len(valid))
			r.Header["X-Api-Key"][0] = strings.Repeat("a", n)
		case 1:
			// One different digit of the body is always found by a CRC.
			text[10+i%43] ^= 1 << (i / 43 % 3)
			r.Header["X-Api-Key"][0] = string(text)
			copy(text, valid)
		case 2:
			r.Header["X-Api-Key"][0] = valid[:i%len(valid)]
		case 3:
			r.Header["X-Api-Key"][0] = elsewhere
		}
		if _, err := a.Authenticate(r); err == nil {
			t.Fatalf("%q is accepted", r.Header["X-Api-Key"][0])
		}
	}
	if got := s.lookups.Load(); got != 0 {
		t.Errorf("%d lookups", got)
	}
	if _, err := a.Authenticate(request("X-API-Key", valid)); !errors.Is(err, apikey.Unknown) || s.lookups.Load() != 1 {
		t.Errorf("a well-formed key: %v after %d lookups", err, s.lookups.Load())
	}
}

func TestStoreThatFailsIs503(t *testing.T) {
	s := newScripted(t, 0)
	down := errors.New("password=hunter2 refused")
	s.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) { return apikey.Record{}, down }
	for name, store := range map[string]apikey.Store{"bare": s, "cached": newCache(t, apikey.CacheConfig{Store: s})} {
		t.Run(name, func(t *testing.T) {
			a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
			srv := httptest.NewServer(usher.Authenticate(a).Wrap(http.NotFoundHandler()))
			defer srv.Close()
			response := exchange(t, srv, "X-API-Key", generate(t, native, ""))
			for _, want := range []string{"503", "Retry-After:[1]", `"code":"authentication_unavailable"`} {
				if !strings.Contains(response, want) {
					t.Errorf("no %q in %s", want, response)
				}
			}
			if strings.Contains(response, "hunter2") {
				t.Errorf("the cause is sent: %s", response)
			}
			_, err := a.Authenticate(request("X-API-Key", generate(t, native, "")))
			if !errors.Is(err, down) || !errors.Is(err, apikey.Unavailable) {
				t.Errorf("the error lacks its cause: %v", err)
			}
		})
	}
}

// A loose store finds a key by something that is not its hash, or not all of it.
func TestTheHashOfWhatTheStoreReturnsIsCompared(t *testing.T) {
	s := newScripted(t, 0)
	m := newManager(t, apikey.ManagerConfig{Store: s})
	_, text := create(t, m, apikey.Key{})
	a := newAuthenticator(t, apikey.ManagerConfig{Store: s}, apikey.Config{})
	s.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) { return record(0), nil }
	if _, err := a.Authenticate(request("X-API-Key", generate(t, native, ""))); !errors.Is(err, apikey.Unknown) {
		t.Error(err)
	}
	for i := range (apikey.Hash{}) {
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			r, err := s.Store.Lookup(ctx, h)
			r.Hash[i] ^= 1
			return r, err
		}
		if _, err := a.Authenticate(request("X-API-Key", text)); !errors.Is(err, apikey.Unknown) {
			t.Errorf("a hash that differs in byte %d: %v", i, err)
		}
	}
}

func TestErrorsAreConfigurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := apikey.NewMemory()
		forbidden := &usher.Error{Status: 403, Code: "key_revoked", Message: "The key has been revoked."}
		expired := &usher.Error{Status: 401, Code: "expired", Message: "API key has expired"}
		why := errors.New("own cause")
		a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{
			Carriers:    []apikey.Carrier{{Header: "X-API-Key"}, {Scheme: "Bearer"}},
			Environment: "live",
			Errors: map[apikey.Verdict]*usher.Error{
				apikey.Revoked: forbidden, apikey.Expired: expired, apikey.Ambiguous: {Status: 400, Code: "two", Cause: why},
			},
		})
		for v, text := range situations(t, store) {
			_, err := a.Authenticate(request("X-API-Key", text))
			var e *usher.Error
			if v == apikey.Accepted {
				continue
			}
			if !errors.As(err, &e) || !errors.Is(err, v) {
				t.Fatalf("%v: %v", v, err)
			}
			switch v {
			case apikey.Revoked: // KK-05
				if e.Status != 403 || e.Code != "key_revoked" || len(e.Challenges) != 0 {
					t.Errorf("%v: %v", v, e)
				}
			case apikey.Expired: // KS-05
				if e.Status != 401 || e.Message != "API key has expired" || !compare.Equal(e.Challenges, []string{`Bearer error="invalid_token"`}) {
					t.Errorf("%v: %v %v", v, e, e.Challenges)
				}
			default:
				if e.Status != 401 || e.Code != usher.CodeInvalidAPIKey {
					t.Errorf("%v: %v", v, e)
				}
			}
		}
		_, err := a.Authenticate(request("X-API-Key", "a", "Authorization", "Bearer b"))
		if statusOf(err) != 400 || !errors.Is(err, why) || !errors.Is(err, apikey.Ambiguous) {
			t.Error(err)
		}
		if forbidden.Cause != nil || expired.Challenges != nil {
			t.Error("the errors of the Config have changed")
		}
	})
}

// Only a caller with the text of a key learns its state.
func TestOnlyTheHolderOfAKeyLearnsItsState(t *testing.T) {
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store, Format: split})
	k, text := create(t, m, apikey.Key{})
	if _, err := m.Revoke(t.Context(), server, "ann", k.ID); err != nil {
		t.Fatal(err)
	}
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store, Formats: []apikey.Format{split}}, apikey.Config{
		Errors: map[apikey.Verdict]*usher.Error{apikey.Revoked: {Status: 403, Code: "key_revoked"}},
	})
	if _, err := a.Authenticate(request("X-API-Key", text)); statusOf(err) != 403 {
		t.Errorf("the holder: %v", err)
	}
	forged := k.Prefix + "." + strings.Repeat("x", 43)
	if _, err := a.Authenticate(request("X-API-Key", forged)); statusOf(err) != 401 {
		t.Errorf("a caller with the identifier only: %v", err)
	}
}

// A16: the owner is disabled or its rights reduced after the key was issued.
func TestCheckIsCalledForEveryRequest(t *testing.T) {
	store := newCache(t, apikey.CacheConfig{Store: apikey.NewMemory()})
	m := newManager(t, apikey.ManagerConfig{Store: store})
	k, text := create(t, m, apikey.Key{})
	gone := &usher.Error{Status: 404, Code: "user_not_found", Message: "User not found"}
	var refusal error
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{
		Check: func(_ context.Context, got *apikey.Key) error {
			if got.ID != k.ID || got.Owner != "ann" {
				t.Errorf("checked %+v", got)
			}
			return refusal
		},
	})
	for _, test := range []struct {
		name    string
		refusal error
		status  int
	}{
		{"still a customer", nil, 0},
		{"KS-06 owner deleted", gone, 404},
		{"owner disabled", &usher.Error{Status: 401, Code: "disabled"}, 401},
		{"reduced", fmt.Errorf("wrapped: %w", &usher.Error{Status: 403}), 403},
		{"the check failed", errors.New("down"), 503},
		{"the check failed with an error of the server", &usher.Error{Status: 500}, 503},
		{"again a customer", nil, 0},
	} {
		refusal = test.refusal
		_, err := a.Authenticate(request("X-API-Key", text))
		if got := statusOf(err); got != test.status || (err == nil) != (test.status == 0) {
			t.Errorf("%s: %v, want %d", test.name, err, test.status)
		}
	}
}

func TestAKeyThatCheckRefusesIsNeverAnonymous(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	_, text := create(t, m, apikey.Key{})
	for name, refusal := range map[string]error{
		"no credential":      usher.ErrNoCredential,
		"a wrapped one":      fmt.Errorf("the session: %w", usher.ErrNoCredential),
		"the cause of a 401": &usher.Error{Status: http.StatusUnauthorized, Cause: usher.ErrNoCredential},
		"any other refusal":  &usher.Error{Status: http.StatusUnauthorized},
	} {
		a := newFromManager(t, apikey.Config{Manager: m, Check: func(context.Context, *apikey.Key) error { return refusal }})
		for way, admits := range map[string]usher.Authenticator{
			"alone": a, "optional": usher.Optional(a), "in a list": usher.Optional(usher.Precedence(a)),
		} {
			w := httptest.NewRecorder()
			usher.Authenticate(admits).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Errorf("%s, %s: admitted", name, way)
			})).ServeHTTP(w, request("X-API-Key", text))
			if w.Code != http.StatusUnauthorized || len(w.Header()["Www-Authenticate"]) != 1 {
				t.Errorf("%s, %s: %d %v", name, way, w.Code, w.Header())
			}
		}
	}
}

func TestPrincipalOfAKey(t *testing.T) {
	store := newCache(t, apikey.CacheConfig{Store: silent{apikey.NewMemory()}})
	m := newManager(t, apikey.ManagerConfig{Store: store})
	k, text := create(t, m, apikey.Key{Name: "ci", Scopes: []string{"read"}, Level: usher.LevelReadOnly, Plan: "pro", Environment: "test"})
	usual := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
	p, err := usual.Authenticate(request("X-API-Key", text))
	if err != nil {
		t.Fatal(err)
	}
	want := &usher.Principal{
		ID: k.ID, Kind: usher.KindAPIKey, Owner: "ann", Name: "ci", Scopes: []string{"read"},
		Level: usher.LevelReadOnly, Plan: "pro", Environment: "test", Details: &k,
	}
	if p.OnUse == nil {
		t.Error("no use is noted")
	}
	p.OnUse = nil
	if diff := compare.Diff(want, p); diff != "" {
		t.Error(diff)
	}
	calls := 0
	own := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{
		Principal: func(k *apikey.Key, p usher.Principal) usher.Principal {
			calls++
			return usher.Principal{ID: "forged", Kind: "forged", Owner: p.Owner, Scopes: append([]string{"role"}, p.Scopes...), Details: k.Name}
		},
	})
	for range 3 {
		p, err = own.Authenticate(request("X-API-Key", text))
		if err != nil {
			t.Fatal(err)
		}
	}
	want = &usher.Principal{ID: k.ID, Kind: usher.KindAPIKey, Owner: "ann", Scopes: []string{"role", "read"}, Details: "ci"}
	p.OnUse = nil
	if diff := compare.Diff(want, p); diff != "" {
		t.Error(diff)
	}
	if calls != 1 {
		t.Errorf("made %d times for one key in the cache", calls)
	}
	if p, err = usual.Authenticate(request("X-API-Key", text)); err != nil || p.Name != "ci" {
		t.Errorf("the other authenticator: %+v, %v", p, err)
	}
}

func TestPeppersRotate(t *testing.T) {
	plain := apikey.Pepper{}
	old := apikey.Pepper{Version: 1, Key: apikey.NewSecret(strings.Repeat("1", 32))}
	current := apikey.Pepper{Version: 2, Key: apikey.NewSecret(strings.Repeat("2", 32))}
	store := apikey.NewMemory()
	texts := map[string]string{}
	hashes := map[string]apikey.Hash{}
	for name, peppers := range map[string][]apikey.Pepper{"none": nil, "old": {old, plain}, "current": {old, current}} {
		m := newManager(t, apikey.ManagerConfig{Store: store, Peppers: peppers})
		_, texts[name] = create(t, m, apikey.Key{})
		h, err := m.Hash(apikey.NewSecret(texts["none"] + "x"))
		if err != nil {
			t.Fatal(err)
		}
		hashes[name] = h
	}
	if hashes["none"][0] != 0 || hashes["old"][0] != 1 || hashes["current"][0] != 2 {
		t.Errorf("new keys do not use the newest pepper: %v", hashes)
	}
	for _, test := range []struct {
		name    string
		peppers []apikey.Pepper
		accepts []string
	}{
		{"no pepper", nil, []string{"none"}},
		{"one", []apikey.Pepper{current}, []string{"current"}},
		{"during a rotation", []apikey.Pepper{old, current}, []string{"old", "current"}},
		{"all", []apikey.Pepper{plain, current, old}, []string{"none", "old", "current"}},
		{"another key of the same version", []apikey.Pepper{{Version: 2, Key: old.Key}}, nil},
	} {
		a := newAuthenticator(t, apikey.ManagerConfig{Store: store, Peppers: test.peppers}, apikey.Config{})
		accepted := map[string]bool{}
		for _, name := range test.accepts {
			accepted[name] = true
		}
		for name, text := range texts {
			_, err := a.Authenticate(request("X-API-Key", text))
			if (err == nil) != accepted[name] {
				t.Errorf("%s: key %s: %v", test.name, name, err)
			}
		}
	}
}

func TestSeveralFormatsShareARoute(t *testing.T) {
	store := apikey.NewMemory()
	short := apikey.Opaque{Prefix: "shop", Environments: []string{"live"}, Length: 40}
	s := &scripted{Store: store}
	a := newAuthenticator(t, apikey.ManagerConfig{Store: s, Formats: []apikey.Format{apikey.Plain{}, native, short}}, apikey.Config{})
	for name, f := range map[string]apikey.Format{"new": native, "old with the same prefix": short} {
		_, text := create(t, newManager(t, apikey.ManagerConfig{Store: store, Format: f}), apikey.Key{})
		if _, err := a.Authenticate(request("X-API-Key", text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.lookups.Store(0)
	// Text that begins like a key of a stricter format is not a plain key.
	bad := generate(t, native, "")
	if _, err := a.Authenticate(request("X-API-Key", bad[:len(bad)-1]+"!")); !errors.Is(err, apikey.Malformed) || s.lookups.Load() != 0 {
		t.Errorf("%v after %d lookups", err, s.lookups.Load())
	}
}

func TestDetect(t *testing.T) {
	key := generate(t, native, "")
	a := newAuthenticator(t, apikey.ManagerConfig{Store: apikey.NewMemory(), Formats: []apikey.Format{native, apikey.Plain{}}}, apikey.Config{Carriers: []apikey.Carrier{{Header: "X-API-Key"}, {Scheme: "Bearer"}}, Realm: "r"})
	for _, test := range []struct {
		name    string
		header  []string
		carrier string
		certain bool
	}{
		{"nothing", nil, "", false},
		{"a key in the header", []string{"X-API-Key", key}, "X-Api-Key", true},
		{"a wrong key with the prefix", []string{"X-API-Key", "shop_live_?"}, "X-Api-Key", true},
		{"something in the header", []string{"X-API-Key", "hello"}, "X-Api-Key", false},
		{"two lines", []string{"X-API-Key", key, "X-API-Key", key}, "X-Api-Key", false},
		{"a key as bearer", []string{"Authorization", "Bearer " + key}, "Authorization", true},
		{"a JWT as bearer", []string{"Authorization", "Bearer a.b.c"}, "Authorization", false},
		{"basic", []string{"Authorization", "Basic abc"}, "", false},
	} {
		carrier, certain := a.Detect(request(test.header...))
		if carrier != test.carrier || certain != test.certain {
			t.Errorf("%s: %q, %v", test.name, carrier, certain)
		}
	}
	if got, want := a.Challenge(), `Bearer realm="r"`; got != want {
		t.Errorf("challenge %q, want %q", got, want)
	}
}

func TestEveryVerdictIsAudited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := apikey.NewMemory()
		var events []apikey.Event
		a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{Environment: "live", Audit: func(_ context.Context, e apikey.Event) { events = append(events, e) }})
		if _, err := a.Authenticate(request()); !errors.Is(err, usher.ErrNoCredential) || len(events) != 0 {
			t.Errorf("without a key: %v, %d events", err, len(events))
		}
		for v, text := range situations(t, store) {
			events = nil
			p, err := a.Authenticate(request("X-API-Key", text))
			if len(events) != 1 {
				t.Fatalf("%v: %d events", v, len(events))
			}
			e := events[0]
			// A key whose text names another environment is not looked up.
			known := v == apikey.Accepted || v == apikey.Revoked || v == apikey.Expired || v == apikey.Disabled || v == apikey.WrongNetwork
			if e.Action != "authenticate" || e.Verdict != v || !e.Time.Equal(time.Now()) || e.Actor.Address != netip.MustParseAddr("192.0.2.1") ||
				e.Actor.Principal != p || !errors.Is(e.Err, err) || (e.KeyID != "") != known || (e.Owner == "ann") != known {
				t.Errorf("%v: %+v", v, e)
			}
			if strings.Contains(fmt.Sprintf("%+v %#v", e, e), text[14:]) {
				t.Errorf("%v: the event shows the key", v)
			}
		}
	})
}

func TestVerdictsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := apikey.NewMemory()
		meter := new(oteltest.Meter)
		a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{Environment: "live", MeterProvider: meter})
		want := map[string]int64{"missing": 1}
		_, _ = a.Authenticate(request())
		for v, text := range situations(t, store) {
			_, _ = a.Authenticate(request("X-API-Key", text))
			want[v.String()]++
		}
		got := map[string]int64{}
		for _, c := range meter.Counts() {
			if c.Name != "usher.apikey.verifications" {
				t.Errorf("metric %q", c.Name)
			}
			v, _ := c.Attributes.Value("usher.apikey.result")
			got[v.AsString()] = c.Value
		}
		if diff := compare.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLongKeysCostNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	a := newAuthenticator(t, apikey.ManagerConfig{Store: apikey.NewMemory(), Formats: []apikey.Format{native, apikey.Plain{}}}, apikey.Config{Carriers: []apikey.Carrier{{Header: "X-API-Key"}, {Scheme: "Bearer"}}})
	for _, r := range []*http.Request{
		request("X-API-Key", strings.Repeat("a", 900<<10)),
		request("X-API-Key", "shop_live_"+strings.Repeat("a", 900<<10)),
		request("X-API-Key", strings.Repeat("a,", 450<<10)),
		request("X-API-Key", strings.Repeat("a", 60<<10)),
		request("Authorization", "Bearer "+strings.Repeat("a", 900<<10)),
		request("Authorization", "Bearer "+strings.Repeat("shop_live_", 6<<10)),
	} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := a.Authenticate(r); !errors.Is(err, apikey.Malformed) {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestKeyInMemoryCostsNoAllocation(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	pepper := []apikey.Pepper{{Version: 1, Key: apikey.NewSecret(strings.Repeat("k", 32))}}
	for name, tt := range map[string]struct {
		store   apikey.Store
		peppers []apikey.Pepper
	}{
		"a Cache":              {newCache(t, apikey.CacheConfig{Store: silent{apikey.NewMemory()}, TTL: time.Hour, NegativeTTL: time.Hour}), nil},
		"a Cache, with HMAC":   {newCache(t, apikey.CacheConfig{Store: silent{apikey.NewMemory()}, TTL: time.Hour, NegativeTTL: time.Hour}), pepper},
		"a Memory without one": {apikey.NewMemory(), nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, apikey.ManagerConfig{Store: tt.store, Peppers: tt.peppers})
			_, text := create(t, m, apikey.Key{Scopes: []string{"read"}})
			a := newAuthenticator(t, apikey.ManagerConfig{Store: tt.store, Peppers: tt.peppers}, apikey.Config{Environment: "live"})
			valid, unknown := request("X-API-Key", text), request("X-API-Key", generate(t, native, ""))
			if n := testing.AllocsPerRun(1000, func() {
				p, err := a.Authenticate(valid)
				if err != nil {
					t.Fatal(err)
				}
				p.OnUse(valid, http.StatusOK)
			}); n != 0 {
				t.Errorf("a valid key: %v allocations", n)
			}
			if n := testing.AllocsPerRun(1000, func() {
				if _, err := a.Authenticate(unknown); !errors.Is(err, apikey.Unknown) {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("an unknown key: %v allocations", n)
			}
		})
	}
}

func TestMiddlewareAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	store := apikey.NewMemory()
	_, text := create(t, newManager(t, apikey.ManagerConfig{Store: store}), apikey.Key{Scopes: []string{"read"}})
	h := usher.Authenticate(newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})).Wrap(handler)
	w := discard{http.Header{}}
	for name, r := range map[string]*http.Request{
		"a valid key: the exchange and the copy of the request": request("X-API-Key", text),
		"garbage: the challenge and the other header fields":    request("X-API-Key", text[:len(text)-1]+"!"),
	} {
		if n := testing.AllocsPerRun(1000, func() {
			h.ServeHTTP(w, r)
			clear(w.header)
		}); n > 2 {
			t.Errorf("%s: %v allocations, want at most 2", name, n)
		}
	}
}

func TestAMemoryDropsTheEntryOfAKeyThatChanges(t *testing.T) {
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: store})
	k, text := create(t, m, apikey.Key{Scopes: []string{"read"}, Level: usher.LevelFull})
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
	level := func() usher.Level {
		p, err := a.Authenticate(request("X-API-Key", text))
		if err != nil {
			t.Fatal(err)
		}
		return p.Level
	}
	if got := level(); got != usher.LevelFull {
		t.Fatalf("level %v", got)
	}
	if _, err := m.Update(t.Context(), apikey.Actor{System: true}, k.Owner, k.ID, func(k *apikey.Key) { k.Level = usher.LevelReadOnly }); err != nil {
		t.Fatal(err)
	}
	if got := level(); got != usher.LevelReadOnly {
		t.Errorf("level %v after an update", got)
	}
	if _, err := m.Revoke(t.Context(), apikey.Actor{System: true}, k.Owner, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(request("X-API-Key", text)); !errors.Is(err, apikey.Revoked) {
		t.Errorf("after its revocation: %v", err)
	}
}

func TestParallelUse(t *testing.T) {
	store := newCache(t, apikey.CacheConfig{Store: apikey.NewMemory()})
	m := newManager(t, apikey.ManagerConfig{Store: store, Peppers: []apikey.Pepper{{Version: 1, Key: apikey.NewSecret(strings.Repeat("k", 32))}}})
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store, Peppers: []apikey.Pepper{{Version: 1, Key: apikey.NewSecret(strings.Repeat("k", 32))}}}, apikey.Config{})
	var texts [8]string
	for i := range texts {
		_, texts[i] = create(t, m, apikey.Key{Name: fmt.Sprint(i)})
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				k := (g + i) % len(texts)
				r := request("X-API-Key", texts[k])
				p, err := a.Authenticate(r)
				if err != nil || p.Name != fmt.Sprint(k) {
					t.Errorf("%+v, %v", p, err)
					return
				}
				p.OnUse(r, http.StatusOK)
			}
		})
	}
	wg.Wait()
}

// watched is a store that embeds a Memory and has a Lookup of its own.
type watched struct {
	*apikey.Memory
	lookups int
}

func (w *watched) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	w.lookups++
	return w.Memory.Lookup(ctx, h)
}

func TestAStoreThatEmbedsAMemoryIsCalledItself(t *testing.T) {
	m, store := newManagerOn(t)
	_, key := create(t, m, apikey.Key{})
	w := &watched{Memory: store.(*apikey.Memory)}
	if _, err := newAuthenticator(t, apikey.ManagerConfig{Store: w}, apikey.Config{}).Authenticate(request("X-API-Key", key)); err != nil {
		t.Fatal(err)
	}
	if w.lookups != 1 {
		t.Errorf("its Lookup was called %d times", w.lookups)
	}
}
