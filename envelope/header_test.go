package envelope_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// What a handler had set for a success would make caches keep the error, and browsers
// save it as a file.
func TestFieldsOfASuccessNeverSurviveOnAnError(t *testing.T) {
	success := map[string]string{
		"Cache-Control": "public, max-age=3600", "CDN-Cache-Control": "max-age=3600", "Expires": "Thu, 01 Jan 2099 00:00:00 GMT",
		"ETag": `"v1"`, "Last-Modified": "Thu, 01 Jan 2020 00:00:00 GMT", "Content-Disposition": "attachment",
		"Content-Language": "fr", "Content-Location": "/notes/1", "Location": "/notes/1", "X-Accel-Redirect": "/files/1",
	}
	kept := map[string]string{
		"Allow": "GET", "Access-Control-Allow-Origin": "*", "RateLimit": `"x";r=0`, "Vary": "Origin", "Link": "</v2>; rel=successor-version",
	}
	setting := func(fail http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for _, fields := range []map[string]string{success, kept} {
				for name, value := range fields {
					w.Header().Set(name, value)
				}
			}
			fail(w, r)
		}
	}
	errors := map[string]http.HandlerFunc{
		"Fail":                       func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, &usher.Error{Status: 422}) },
		"http.Error":                 func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "gone", http.StatusGone) },
		"JSON":                       writes(503, asJSON, "{}"),
		"an empty error":             writes(404, nil),
		"a panic":                    func(http.ResponseWriter, *http.Request) { panic("canary") },
		"a value that has no JSON":   func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Created("/notes/1", func() {}) },
		"a handler that is too slow": http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), time.Millisecond, "").ServeHTTP,
	}
	for name, fail := range errors {
		t.Run(name, func(t *testing.T) {
			store, err := idempotency.New(idempotency.Config{Owner: func(*http.Request) (string, bool) { return "all", true }})
			if err != nil {
				t.Fatal(err)
			}
			env := quiet(envelope.Config{Wrap: true})
			inside := env.Wrap(setting(fail))
			outside := setting(env.Wrap(fail).ServeHTTP)
			replayed := env.Wrap(setting(store.Wrap(fail).ServeHTTP))
			for where, h := range map[string]http.Handler{"the handler": inside, "an outer middleware": outside, "a middleware outside a replay": replayed} {
				s := start(t, h)
				for attempt := range 2 {
					got := do(t, s, http.MethodPost, "/", "Idempotency-Key: one")
					if replayed := got.Header.Get("Idempotency-Replayed") != ""; replayed != (attempt == 1 && strings.Contains(where, "replay") && (got.StatusCode == 410 || got.StatusCode == 422)) {
						t.Errorf("attempt %d inside of %s: replayed is %v", attempt, where, replayed)
					}
					if got.StatusCode < 400 {
						t.Fatalf("status %d", got.StatusCode)
					}
					for field := range success {
						want := ""
						if field == "Cache-Control" {
							want = "no-store"
						}
						if v := got.Header.Get(field); v != want {
							t.Errorf("set by %s: %s is %q, want %q", where, field, v, want)
						}
					}
					for field, value := range kept {
						wantHeader(t, got, field, value)
					}
				}
			}
		})
	}
}
