package leaked_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/examples/leaked"
)

// A github signs reports, and publishes its keys.
type github struct {
	mu      sync.Mutex
	keys    map[string]*ecdsa.PrivateKey
	raw     map[string]string // further keys in PEM
	status  int
	fetches int
	token   string // of the last fetch
}

func newGitHub() *github {
	return &github{keys: map[string]*ecdsa.PrivateKey{"first": newKey(elliptic.P256())}, raw: map[string]string{}, status: 200}
}

func newKey(c elliptic.Curve) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

// RoundTrip serves the keys, without a network.
func (g *github) RoundTrip(r *http.Request) (*http.Response, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fetches++
	g.token = r.Header.Get("Authorization")
	type key struct {
		ID  string `json:"key_identifier"`
		PEM string `json:"key"`
	}
	var set struct {
		Keys []key `json:"public_keys"`
	}
	for id, text := range g.raw {
		set.Keys = append(set.Keys, key{id, text})
	}
	for id, k := range g.keys {
		der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, key{id, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	}
	w := httptest.NewRecorder()
	w.WriteHeader(g.status)
	if err := json.NewEncoder(w).Encode(set); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// set changes g.
func (g *github) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

// report returns a report that is signed with a key.
func (g *github) report(t testing.TB, id, body string) *http.Request {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := sha256.Sum256([]byte(body))
	signature, err := ecdsa.SignASN1(rand.Reader, g.keys[id], sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, id, base64.StdEncoding.EncodeToString(signature), body)
}

func signed(t testing.TB, id, signature, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/leaked-keys", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("GITHUB-PUBLIC-KEY-IDENTIFIER", id)
	r.Header.Set("GITHUB-PUBLIC-KEY-SIGNATURE", signature)
	return r
}

func newHandler(t testing.TB, g *github, c leaked.Config) http.Handler {
	t.Helper()
	if c.Keys == nil {
		c.Keys = newManager(apikey.NewMemory())
	}
	if c.OnError == nil {
		c.OnError = func(_ context.Context, err error) { t.Errorf("reported: %v", err) }
	}
	c.Client = &http.Client{Transport: g}
	h, err := leaked.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newManager(s apikey.Store) *apikey.Manager {
	return usher.Must(apikey.NewManager(apikey.ManagerConfig{
		Store: s, Format: apikey.Native{Prefix: "shop"},
		OnError: func(context.Context, error) {},
	}))
}

func create(t testing.TB, m *apikey.Manager) (apikey.Key, string) {
	t.Helper()
	k, secret, err := m.Create(t.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ann", Name: "a key"})
	if err != nil {
		t.Fatal(err)
	}
	return k, secret.Reveal()
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// body returns the body of a report of these texts.
func body(t testing.TB, texts ...string) string {
	t.Helper()
	type match struct {
		Token  string `json:"token"`
		Type   string `json:"type"`
		URL    string `json:"url"`
		Source string `json:"source"`
	}
	all := make([]match, len(texts))
	for i, text := range texts {
		all[i] = match{text, "shop_api_key", "https://github.com/ann/shop/blob/1/main.go", "content"}
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAReportRevokesTheKeysInIt(t *testing.T) {
	g, keys := newGitHub(), newManager(apikey.NewMemory())
	var notified []string
	h := newHandler(t, g, leaked.Config{
		Keys: keys, Token: apikey.NewSecret("gh-token"),
		Notify: func(_ context.Context, k apikey.Key, where leaked.Place) {
			if k.RevokedAt.IsZero() || where.Source != "content" || !strings.HasSuffix(where.URL, "main.go") {
				t.Errorf("%+v in %+v", k, where)
			}
			notified = append(notified, k.ID)
		},
	})
	leakedKey, text := create(t, keys)
	other, _ := create(t, keys)
	_, foreign := create(t, newManager(apikey.NewMemory()))
	for range 2 {
		w := serve(h, g.report(t, "first", body(t, text, foreign, text, "", strings.Repeat("x", 300))))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), text) {
			t.Error("the response has the text of the key")
		}
		var got []map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got) != 5 {
			t.Fatalf("%s, %v", w.Body, err)
		}
		sum := sha256.Sum256([]byte(text))
		for i, label := range []string{"true_positive", "false_positive", "true_positive", "false_positive", "false_positive"} {
			if got[i]["label"] != label || got[i]["token_type"] != "shop_api_key" || len(got[i]) != 3 {
				t.Errorf("match %d: %v", i, got[i])
			}
		}
		if got[0]["token_hash"] != hex.EncodeToString(sum[:]) {
			t.Errorf("the hash is %s", got[0]["token_hash"])
		}
	}
	if len(notified) != 1 || notified[0] != leakedKey.ID {
		t.Errorf("notified %v", notified)
	}
	if k, err := keys.Find(t.Context(), "ann", leakedKey.ID); err != nil || k.RevokedAt.IsZero() {
		t.Errorf("%+v, %v", k, err)
	}
	if k, err := keys.Find(t.Context(), "ann", other.ID); err != nil || !k.RevokedAt.IsZero() {
		t.Errorf("%+v, %v", k, err)
	}
	if g.fetches != 1 || g.token != "Bearer gh-token" {
		t.Errorf("%d fetches with %q", g.fetches, g.token)
	}
}

// The example in the documentation of GitHub, with the key that it was signed with.
func TestTheExampleOfGitHubIsAccepted(t *testing.T) {
	const id = "90a421169f0a406205f1563a953312f0be898d3c7b6c06b681aa86a874555f4a"
	g := newGitHub()
	g.raw[id] = "-----BEGIN PUBLIC KEY-----\n" +
		"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9MJJHnMfn2+H4xL4YaPDA4RpJqUq\n" +
		"kCmRCBnYERxZanmcpzQSXs1X/AljlKkbJ8qpVIW4clayyef9gWhFbNHWAA==\n" +
		"-----END PUBLIC KEY-----\n"
	const signature = "MEUCIQDKZokqnCjrRtw0tni+2Ltvl/uiMJ1EGumEsp1BsNr32AIgQY1YXD2nlj+XNfGK4rBfkMJ1JDOQcYXxa2sY8FNkrKc="
	const report = `[{"token":"some_token","type":"some_type","url":"some_url"}]`
	h := newHandler(t, g, leaked.Config{})
	if w := serve(h, signed(t, id, signature, report)); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "false_positive") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := serve(h, signed(t, id, signature, report+"\n")); w.Code != http.StatusForbidden {
		t.Errorf("with a further byte: %d %s", w.Code, w.Body)
	}
}

func TestAReportThatGitHubHasNotSignedRevokesNothing(t *testing.T) {
	g, keys := newGitHub(), newManager(apikey.NewMemory())
	k, text := create(t, keys)
	report := body(t, text)
	der := func(c elliptic.Curve) (*ecdsa.PrivateKey, string) {
		k := newKey(c)
		b, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return k, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}))
	}
	wide, widePEM := der(elliptic.P384())
	g.raw["wide"], g.raw["broken"], g.raw["text"] = widePEM, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "key"
	for name, edit := range map[string]func(r *http.Request){
		"no identifier":     func(r *http.Request) { r.Header.Del("Github-Public-Key-Identifier") },
		"two identifiers":   func(r *http.Request) { r.Header.Add("Github-Public-Key-Identifier", "first") },
		"an unknown key":    func(r *http.Request) { r.Header.Set("Github-Public-Key-Identifier", "second") },
		"an empty key":      func(r *http.Request) { r.Header.Set("Github-Public-Key-Identifier", "") },
		"a key that breaks": func(r *http.Request) { r.Header.Set("Github-Public-Key-Identifier", "broken") },
		"no signature":      func(r *http.Request) { r.Header.Del("Github-Public-Key-Signature") },
		"two signatures": func(r *http.Request) {
			r.Header.Add("Github-Public-Key-Signature", r.Header.Get("Github-Public-Key-Signature"))
		},
		"an empty signature": func(r *http.Request) { r.Header.Set("Github-Public-Key-Signature", "") },
		"no base64":          func(r *http.Request) { r.Header.Set("Github-Public-Key-Signature", "%") },
		"no ASN.1":           func(r *http.Request) { r.Header.Set("Github-Public-Key-Signature", "AAAA") },
		"a signature of zeros": func(r *http.Request) {
			r.Header.Set("Github-Public-Key-Signature", base64.StdEncoding.EncodeToString([]byte{0x30, 6, 2, 1, 0, 2, 1, 0}))
		},
		"another body": func(r *http.Request) {
			*r = *signed(t, "first", r.Header.Get("Github-Public-Key-Signature"), body(t, text)+" ")
		},
		"another curve": func(r *http.Request) {
			sum := sha256.Sum256([]byte(report))
			signature, err := ecdsa.SignASN1(rand.Reader, wide, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			*r = *signed(t, "wide", base64.StdEncoding.EncodeToString(signature), report)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t, g, leaked.Config{Keys: keys})
			r := g.report(t, "first", report)
			edit(r)
			if w := serve(h, r); w.Code != http.StatusForbidden {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	if k, err := keys.Find(t.Context(), "ann", k.ID); err != nil || !k.RevokedAt.IsZero() {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestAReportMustBeAListOfBoundedLength(t *testing.T) {
	g := newGitHub()
	h := newHandler(t, g, leaked.Config{})
	for _, test := range []struct {
		name, body string
		want       int
	}{
		{"an empty list", "[]", 200},
		{"an object", "{}", 400},
		{"nothing", "", 400},
		{"two lists", "[][]", 400},
		{"a number as a text", `[{"token":1}]`, 400},
		{"a megabyte", "[" + strings.Repeat(" ", 1<<20-2) + "]", 200},
		{"a megabyte and a byte", "[" + strings.Repeat(" ", 1<<20-1) + "]", 413},
	} {
		if w := serve(h, g.report(t, "first", test.body)); w.Code != test.want {
			t.Errorf("%s: %d %s", test.name, w.Code, w.Body)
		}
	}
}

func TestManyKeysInOneReport(t *testing.T) {
	g, keys := newGitHub(), usher.Must(apikey.NewManager(apikey.ManagerConfig{
		Store: apikey.NewMemory(), Format: apikey.Native{Prefix: "shop"}, MaxActive: 1000,
	}))
	notified := 0
	h := newHandler(t, g, leaked.Config{Keys: keys, Notify: func(context.Context, apikey.Key, leaked.Place) { notified++ }})
	texts := make([]string, 1000)
	for i := range texts {
		_, texts[i] = create(t, keys)
	}
	w := serve(h, g.report(t, "first", body(t, texts...)))
	if n := bytes.Count(w.Body.Bytes(), []byte(`"true_positive"`)); w.Code != 200 || n != 1000 || notified != 1000 {
		t.Errorf("%d, %d true positives, %d owners notified", w.Code, n, notified)
	}
}

// A store that fails is no reason to report a false positive.
func TestAStoreThatFailsIs503(t *testing.T) {
	g := newGitHub()
	reported := 0
	store := &failing{Memory: apikey.NewMemory()}
	keys := newManager(store)
	h := newHandler(t, g, leaked.Config{Keys: keys, OnError: func(context.Context, error) { reported++ }})
	_, text := create(t, keys)
	store.lookup = errors.New("down")
	if w := serve(h, g.report(t, "first", body(t, text))); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	store.lookup, store.revoke = nil, errors.New("down")
	if w := serve(h, g.report(t, "first", body(t, text))); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	store.revoke = nil
	if w := serve(h, g.report(t, "first", body(t, text))); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if reported != 2 {
		t.Errorf("%d failures were reported", reported)
	}
}

type failing struct {
	*apikey.Memory
	lookup, revoke error
}

func (s *failing) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	if s.lookup != nil {
		return apikey.Record{}, s.lookup
	}
	return s.Memory.Lookup(ctx, h)
}

func (s *failing) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	if s.revoke != nil {
		return apikey.Record{}, s.revoke
	}
	return s.Memory.Revoke(ctx, owner, id, at)
}

func TestANewKeyOfGitHubIsFetchedOnceAMinuteAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGitHub()
		h := newHandler(t, g, leaked.Config{})
		want := func(id string, status, fetches int) {
			t.Helper()
			if w := serve(h, g.report(t, id, "[]")); w.Code != status || g.fetches != fetches {
				t.Errorf("%d after %d fetches, want %d after %d", w.Code, g.fetches, status, fetches)
			}
		}
		want("first", 200, 1)
		g.set(func() { g.keys["second"] = newKey(elliptic.P256()) })
		want("second", 403, 1)
		for range 100 {
			if w := serve(h, signed(t, rand.Text(), "AAAA", "[]")); w.Code != 403 {
				t.Errorf("an invented key: %d", w.Code)
			}
		}
		want("first", 200, 1)
		time.Sleep(time.Minute)
		want("second", 200, 2)
		want("first", 200, 2)
		// A key that GitHub has withdrawn is no longer accepted an hour later.
		withdrawn := g.report(t, "first", "[]")
		g.set(func() { delete(g.keys, "first") })
		time.Sleep(time.Hour)
		if w := serve(h, withdrawn); w.Code != 403 || g.fetches != 3 {
			t.Errorf("%d after %d fetches", w.Code, g.fetches)
		}
	})
}

func TestKeysOfGitHubAreKeptForADayWhileTheyCannotBeFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGitHub()
		h := newHandler(t, g, leaked.Config{OnError: func(context.Context, error) {}})
		want := func(status int) {
			t.Helper()
			if w := serve(h, g.report(t, "first", "[]")); w.Code != status {
				t.Errorf("%d, want %d: %s", w.Code, status, w.Body)
			}
		}
		g.set(func() { g.status = 500 })
		want(503)
		want(503)
		if g.fetches != 1 {
			t.Errorf("%d fetches", g.fetches)
		}
		g.set(func() { g.status = 200 })
		time.Sleep(time.Minute)
		want(200)
		g.set(func() { g.status = 403 })
		time.Sleep(24*time.Hour - time.Nanosecond)
		want(200)
		time.Sleep(time.Minute)
		want(503)
		g.set(func() { g.status = 200 })
		time.Sleep(time.Minute)
		want(200)
	})
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := leaked.New(leaked.Config{}); err == nil {
		t.Error("a handler without keys")
	}
}
