package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ushertest"
)

// block returns what the README has between fence and the next one.
func block(t *testing.T, fence string) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(readme), fence)
	shown, _, ended := strings.Cut(after, "```")
	if !found || !ended {
		t.Fatalf("README.md has no block that begins with %q", fence)
	}
	return shown
}

func TestTheREADMEShowsThisProgram(t *testing.T) {
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	shown := block(t, "```go\n")
	_, code, _ := strings.Cut(string(program), "package main\n")
	if shown != "package main\n"+code {
		t.Error("the program in README.md is not examples/readme/main.go")
	}
	n := 0
	for line := range strings.Lines(shown) {
		if strings.TrimSpace(line) != "" {
			n++
		}
	}
	if n > 20 {
		t.Errorf("the program in README.md has %d lines of code, want at most 20", n)
	}
}

func TestTheREADMEShowsTheResponseToTheEleventhRequest(t *testing.T) {
	auth := usher.Authenticate(ushertest.Authenticator(usher.Principal{Kind: usher.KindAPIKey, ID: "1"}))
	limit := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerPrincipal(10, time.Second)}}))
	h := usher.Chain(auth, limit).Wrap(http.FileServer(http.Dir(".")))
	w := httptest.NewRecorder()
	for range 11 {
		w = httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	}
	got := w.Result().Status + "\n"
	for _, name := range []string{"Content-Type", "Ratelimit", "Ratelimit-Policy", "Retry-After"} {
		got += name + ": " + w.Header().Get(name) + "\n"
	}
	got += "\n" + strings.TrimSpace(w.Body.String()) + "\n"
	if shown := block(t, "```\nHTTP/1.1 "); shown != got {
		t.Errorf("README.md shows\n%s\nthe response is\n%s", shown, got)
	}
}
