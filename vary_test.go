package usher_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// A carried authenticator lists the header fields that it reads.
type carried struct {
	detector
	carriers []string
}

func (c carried) Carriers() []string { return c.carriers }

func carrying(f field, carriers ...string) carried {
	return carried{detector{field: f}, carriers}
}

// caching is the part of a header for caches.
type caching struct{ CacheControl, Vary []string }

// over sends r to a server for h and returns the status and the header of the
// response.
func over(t *testing.T, h http.Handler, r *http.Request) (int, http.Header) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	r = r.Clone(t.Context())
	r.RequestURI, r.URL.Scheme, r.URL.Host = "", u.Scheme, u.Host
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header
}

func cachingOf(h http.Header) caching { return caching{h["Cache-Control"], h["Vary"]} }

func TestAuthenticatedResponsesAreMarkedForCaches(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("Vary", "Accept")
	}))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	set := func(name, value string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(name, value)
			_, _ = io.WriteString(w, "x")
		}
	}
	modified := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	whole := caching{[]string{"private"}, []string{"A, Authorization"}}
	tests := map[string]struct {
		handler http.Handler
		request *http.Request // GET, if it is nil
		status  int
		want    caching
	}{
		"a body":          {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }), nil, 200, whole},
		"a status":        {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(410) }), nil, 410, whole},
		"nothing at all":  {http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil, 200, whole},
		"HEAD":            {set("X", "y"), httptest.NewRequest(http.MethodHead, "/", nil), 200, whole},
		"404 of net/http": {http.NotFoundHandler(), nil, 404, whole},
		"304": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", modified, strings.NewReader("x"))
		}), conditional(modified), 304, whole},
		// The file server deletes Cache-Control if there is no such file.
		"404 of a file server": {http.FileServerFS(fstest.MapFS{}), nil, 404, whole},
		"a flush": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		}), nil, 200, whole},
		"a copied file": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 10_000)))
		}), nil, 200, whole},
		"after early hints": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(103)
			w.WriteHeader(200)
		}), nil, 200, whole},
		"within a time-out": {http.TimeoutHandler(set("Vary", "Accept"), time.Minute, ""), nil, 200, caching{whole.CacheControl, []string{"Accept, A, Authorization"}}},

		"a Vary that is set":                     {set("Vary", "Accept-Encoding"), nil, 200, caching{whole.CacheControl, []string{"Accept-Encoding, A, Authorization"}}},
		"a Vary with one of them":                {set("Vary", "authorization , Accept"), nil, 200, caching{whole.CacheControl, []string{"authorization , Accept, A"}}},
		"a Vary with all of them":                {set("Vary", "a, authorization"), nil, 200, caching{whole.CacheControl, []string{"a, authorization"}}},
		"Vary: *":                                {set("Vary", "*"), nil, 200, caching{whole.CacheControl, []string{"*"}}},
		"a Vary that is deleted":                 {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Del("Vary") }), nil, 200, whole},
		"several lines of Vary become one":       {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["Vary"] = []string{"Accept", "Origin"} }), nil, 200, caching{whole.CacheControl, []string{"Accept, Origin, A, Authorization"}}},
		"a Cache-Control that is set":            {set("Cache-Control", "public, max-age=60"), nil, 200, caching{[]string{"public, max-age=60"}, whole.Vary}},
		"an empty Cache-Control counts as unset": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["Cache-Control"] = nil }), nil, 200, whole},
		"what a reverse proxy adds": {httputil.NewSingleHostReverseProxy(target), nil, 200, caching{
			[]string{"public, max-age=60"}, []string{"Accept, A, Authorization"},
		}},
		"an error": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=60")
			usher.Fail(w, r, errors.New("no luck"))
		}), nil, 500, caching{[]string{"no-store"}, whole.Vary}},
		"a requirement that is not met": {
			usher.Require(usher.Requirement{Level: usher.LevelFull}).Wrap(http.NotFoundHandler()), nil, 403,
			caching{[]string{"no-store"}, whole.Vary},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := tt.request
			if r == nil {
				r = get()
			}
			r.Header.Set("A", "good")
			m := usher.Authenticate(carrying("A", "a"), carrying("B", "Authorization"))
			status, header := over(t, m.Wrap(tt.handler), r)
			equal(t, "status", tt.status, status)
			equal(t, "caching", tt.want, cachingOf(header))
		})
	}
}

func conditional(modified time.Time) *http.Request {
	r := get()
	r.Header.Set("If-Modified-Since", modified.Format(http.TimeFormat))
	return r
}

func TestEveryCarrierIsNamed(t *testing.T) {
	a, b, both := carrying("A", "a"), carrying("B", "Cookie"), carrying("C", "A", "Cookie")
	query, unknown := carrying("Q"), field("U")
	private := []string{"private"}
	tests := map[string]struct {
		m      usher.Middleware
		fields []string
		status int
		want   caching
	}{
		"one":                                   {usher.Authenticate(a), []string{"A", "good"}, 200, caching{private, []string{"A"}}},
		"the first of two":                      {usher.Authenticate(a, b), []string{"A", "good"}, 200, caching{private, []string{"A, Cookie"}}},
		"the second of two":                     {usher.Authenticate(a, b), []string{"B", "good"}, 200, caching{private, []string{"A, Cookie"}}},
		"each once":                             {usher.Authenticate(b, both, a), []string{"A", "good"}, 200, caching{private, []string{"Cookie, A"}}},
		"of a precedence":                       {usher.Authenticate(usher.Precedence(b, a)), []string{"A", "good"}, 200, caching{private, []string{"Cookie, A"}}},
		"of nested ones":                        {usher.Authenticate(usher.Optional(usher.Precedence(usher.Optional(b), a)), both), []string{"A", "good"}, 200, caching{private, []string{"Cookie, A"}}},
		"of one inside another":                 {usher.Chain(usher.Authenticate(a), usher.Authenticate(b)), []string{"A", "good", "B", "good"}, 200, caching{private, []string{"Cookie, A"}}},
		"anonymous is not private":              {usher.Authenticate(usher.Optional(a)), nil, 200, caching{nil, []string{"A"}}},
		"anonymous with two":                    {usher.Authenticate(usher.Optional(a), usher.Optional(b)), nil, 200, caching{nil, []string{"A, Cookie"}}},
		"anonymous inside one with a caller":    {usher.Chain(usher.Authenticate(a), usher.Authenticate(usher.Optional(b))), []string{"A", "good"}, 200, caching{private, []string{"Cookie, A"}}},
		"a query parameter is in the URL":       {usher.Authenticate(query), []string{"Q", "good"}, 200, caching{private, nil}},
		"anonymous with a query parameter":      {usher.Authenticate(usher.Optional(query)), nil, 200, caching{nil, nil}},
		"unknown carriers are Vary: *":          {usher.Authenticate(unknown), []string{"U", "good"}, 200, caching{private, []string{"*"}}},
		"a detector that does not list any":     {usher.Authenticate(detector{field: "A"}), []string{"A", "good"}, 200, caching{private, []string{"*"}}},
		"an unknown carrier beside a known one": {usher.Authenticate(a, unknown), []string{"A", "good"}, 200, caching{private, []string{"*"}}},
		"anonymous with an unknown carrier":     {usher.Authenticate(usher.Optional(unknown), usher.Optional(a)), nil, 200, caching{nil, []string{"*"}}},
		"a client certificate":                  {usher.Authenticate(carrying("A", "A", "*")), []string{"A", "good"}, 200, caching{private, []string{"*"}}},

		"refused: none":          {usher.Authenticate(a), nil, 401, caching{[]string{"no-store"}, nil}},
		"refused: invalid":       {usher.Authenticate(usher.Optional(a)), []string{"A", "bad"}, 401, caching{[]string{"no-store"}, nil}},
		"refused: two":           {usher.Authenticate(a, b), []string{"A", "good", "B", "good"}, 401, caching{[]string{"no-store"}, nil}},
		"refused: not verified":  {usher.Authenticate(a), []string{"A", "error"}, 503, caching{[]string{"no-store"}, nil}},
		"refused: anonymous":     {usher.Chain(usher.Authenticate(usher.Optional(a)), usher.Require(usher.Requirement{})), nil, 401, caching{[]string{"no-store"}, []string{"A"}}},
		"refused: never entered": {usher.Require(usher.Requirement{}), nil, 401, caching{[]string{"no-store"}, nil}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for way, run := range ways {
				h := run(tt.m, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }))
				status, header := over(t, h, get(tt.fields...))
				equal(t, way+": status", tt.status, status)
				equal(t, way+": caching", tt.want, cachingOf(header))
			}
		})
	}
}

// An outer middleware responds in place of a handler that has panicked.
func TestAPanicLeavesNoCacheableResponse(t *testing.T) {
	recovery := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if recover() != nil {
					w.WriteHeader(http.StatusNotFound)
				}
			}()
			next.ServeHTTP(w, r)
		})
	}
	auth := usher.Authenticate(carrying("A", "A"))
	panics := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("no") })
	_, header := over(t, recovery(auth.Wrap(panics)), get("A", "good"))
	equal(t, "recovered outside", caching{[]string{"private"}, []string{"A"}}, cachingOf(header))

	env, err := envelope.New(envelope.Config{OnPanic: func(*http.Request, any, []byte) {}})
	if err != nil {
		t.Fatal(err)
	}
	_, header = over(t, usher.Chain(env, auth).Wrap(panics), get("A", "good"))
	equal(t, "recovered by an envelope", caching{[]string{"no-store"}, []string{"A"}}, cachingOf(header))
}

// A replay has the cache fields of the first response, each once.
func TestAReplayHasTheSameFieldsForCaches(t *testing.T) {
	handlers := map[string]struct {
		header http.Header
		want   caching
	}{
		"nothing of its own":        {nil, caching{[]string{"private"}, []string{"A"}}},
		"a Vary of its own":         {http.Header{"Vary": {"Accept"}}, caching{[]string{"private"}, []string{"Accept, A"}}},
		"a Cache-Control":           {http.Header{"Cache-Control": {"public"}}, caching{[]string{"public"}, []string{"A"}}},
		"a Vary that names it, too": {http.Header{"Vary": {"A"}}, caching{[]string{"private"}, []string{"A"}}},
	}
	for name, tt := range handlers {
		t.Run(name, func(t *testing.T) {
			once, err := idempotency.New(idempotency.Config{})
			if err != nil {
				t.Fatal(err)
			}
			h := usher.Chain(usher.Authenticate(carrying("A", "A")), once).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				maps.Copy(w.Header(), tt.header)
				w.WriteHeader(http.StatusCreated)
			}))
			for _, replayed := range []string{"", "true"} {
				r := httptest.NewRequest(http.MethodPost, "/", nil)
				r.Header.Set("A", "good")
				r.Header.Set("Idempotency-Key", "k")
				_, header := over(t, h, r)
				equal(t, "replayed", replayed, header.Get("Idempotency-Replayed"))
				equal(t, "caching", tt.want, cachingOf(header))
			}
		})
	}
}

// Changes to the header of one response do not affect another.
func TestResponsesShareNoValues(t *testing.T) {
	for _, m := range []usher.Middleware{
		usher.Authenticate(carrying("A", "A")),
		usher.Chain(usher.Authenticate(carrying("A", "A")), usher.Authenticate(carrying("B", "B"))),
		usher.Authenticate(carrying("C", "C")),
	} {
		h := m.Wrap(http.NotFoundHandler())
		var want http.Header
		for range 2 {
			w := serve(h, get("A", "good", "B", "good"))
			if want == nil {
				want = w.Header().Clone()
			}
			equal(t, "header", want, w.Header())
			for name, values := range w.Header() {
				w.Header()[name] = append(values, "appended")
				values[0] = "changed"
			}
		}
	}
}
