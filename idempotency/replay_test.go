package idempotency_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/compare"
)

func TestHeadersOfAReplay(t *testing.T) {
	served := 0
	h := newMiddleware(t, idempotency.Config{
		KeepHeaders: []string{"x-order-id", "X-Multi"}, ReplayHeader: "idempotent-replayed",
	}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, f := range [][2]string{
			{"Content-Type", "text/csv"}, {"Content-Encoding", "gzip"}, {"Content-Language", "de"},
			{"Content-Disposition", "attachment"}, {"Location", "/orders/7"}, {"Cache-Control", "no-store"}, {"Vary", "Accept-Language"},
			{"Etag", `"7"`}, {"X-Content-Type-Options", "nosniff"}, {"X-Order-Id", "7"},
			{"X-Multi", "1"}, {"X-Multi", "2"},
			{"Set-Cookie", "session=secret"}, {"Www-Authenticate", "Bearer"}, {"X-Other", "secret"},
			{"Retry-After", "1"}, {"X-Request-Id", "first"}, {"Date", "yesterday"}, {"Connection", "close"},
		} {
			w.Header().Add(f[0], f[1])
		}
		w.WriteHeader(202)
	}))
	// An outer limiter sets the current state of its limits.
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		for _, name := range []string{"Ratelimit", "Ratelimit-Policy", "X-Ratelimit-Remaining", "X-Today"} {
			w.Header()[name] = []string{fmt.Sprint(served)}
		}
		h.ServeHTTP(w, r)
	})
	if w := do(outer, post("/", "")); w.Header().Get("Set-Cookie") == "" || w.Header().Get("X-Other") == "" {
		t.Fatalf("the first response lacks what the handler has set: %v", w.Header())
	}
	got := do(outer, post("/", ""))
	want := http.Header{
		"Content-Type": {"text/csv"}, "Content-Encoding": {"gzip"}, "Content-Language": {"de"},
		"Content-Disposition": {"attachment"}, "Location": {"/orders/7"}, "Cache-Control": {"no-store"}, "Vary": {"Accept-Language"},
		"Etag": {`"7"`}, "X-Content-Type-Options": {"nosniff"}, "X-Order-Id": {"7"}, "X-Multi": {"1", "2"}, "Retry-After": {"1"},
		"Ratelimit": {"2"}, "Ratelimit-Policy": {"2"}, "X-Ratelimit-Remaining": {"2"}, "X-Today": {"2"},
		"Idempotent-Replayed": {"true"},
	}
	if diff := compare.Diff(want, got.Header()); diff != "" || got.Code != 202 {
		t.Errorf("status %d, header (-want +got):\n%s", got.Code, diff)
	}
	// No two responses share a slice.
	got.Header()["X-Multi"][0] = "changed"
	got.Header()["Location"] = append(got.Header()["Location"], "more")
	if diff := compare.Diff(want["X-Multi"], do(outer, post("/", "")).Header()["X-Multi"]); diff != "" {
		t.Error(diff)
	}
}

// In a 202, Retry-After says when to poll. In an error it would ask for another
// request, which gets the same response.
func TestRetryAfterIsKeptWithASuccessOrARedirect(t *testing.T) {
	for status, want := range map[int]string{200: "5", 201: "5", 202: "5", 204: "5", 303: "5", 304: "5", 402: "", 404: "", 413: "", 422: ""} {
		h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(status)
		}))
		first, again := do(h, post("/", "")), do(h, post("/", ""))
		wantReplay(t, again, first)
		if got := again.Header().Get("Retry-After"); got != want || first.Header().Get("Retry-After") != "5" {
			t.Errorf("%d: the replay has Retry-After %q, want %q", status, got, want)
		}
	}
}

func TestALargeReplayHasItsLength(t *testing.T) {
	body := strings.Repeat("x", 5000)
	h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(body))
	}))
	first := do(h, post("/", ""))
	again := do(h, post("/", ""))
	wantReplay(t, again, first)
	if got := again.Header().Get("Content-Length"); got != "5000" {
		t.Errorf("Content-Length: %q", got)
	}
}
