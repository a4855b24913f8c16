package usher_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
)

// watched is a middleware that records the requests that pass through it.
type watched struct{ seen *[]*http.Request }

func (m watched) Wrap(next http.Handler) http.Handler { return ways["ServeNext"](m, next) }

func (m watched) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	*m.seen = append(*m.seen, r)
	next.ServeHTTP(w, r)
}

func TestAStackCopiesTheRequestOnce(t *testing.T) {
	var seen []*http.Request
	watch := watched{&seen}
	m := usher.Chain(watch,
		usher.Authenticate(field("A")), watch,
		usher.Authenticate(usher.Optional(field("B"))), watch,
		usher.Authenticate(field("A")), watch,
		usher.Require(usher.Requirement{}), watch,
		usher.Require(usher.Requirement{Kinds: []usher.Kind{usher.KindAPIKey}}), watch,
	)
	for way, run := range ways {
		seen = nil
		r := get("A", "good")
		if got := serve(run(m, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), r).Code; got != http.StatusOK {
			t.Fatalf("%s: status %d", way, got)
		}
		if len(seen) != 6 || seen[0] != r || seen[1] == r {
			t.Fatalf("%s: %d requests", way, len(seen))
		}
		for _, later := range seen[2:] {
			if later != seen[1] {
				t.Errorf("%s: the request was copied again", way)
			}
		}
	}
}

func TestThePatternReachesTheOuterRequest(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes", func(http.ResponseWriter, *http.Request) {})
	r := get("A", "good")
	serve(usher.Authenticate(field("A")).Wrap(mux), r)
	equal(t, "pattern", "GET /notes", r.Pattern)
}

// TestTemporaryFilesOfAFormAreRemoved uploads a file that does not fit into
// memory. The server removes its temporary file only if it finds the form in the
// request that it made itself.
func TestTemporaryFilesOfAFormAreRemoved(t *testing.T) {
	upload := func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			usher.Fail(w, r, err)
			return
		}
		file, err := r.MultipartForm.File["file"][0].Open()
		if err != nil {
			usher.Fail(w, r, err)
			return
		}
		defer func() { _ = file.Close() }()
		on, ok := file.(*os.File)
		if !ok {
			usher.Fail(w, r, io.ErrUnexpectedEOF)
			return
		}
		_, _ = io.WriteString(w, on.Name())
	}
	panics := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upload(w, r)
		panic("after the response")
	})
	recovers := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { _ = recover() }()
			next.ServeHTTP(w, r)
		})
	}
	stacks := map[string]http.Handler{
		"a panic that is recovered": recovers(usher.Authenticate(field("A")).Wrap(panics)),
		"Authenticate":              usher.Authenticate(field("A")).Wrap(http.HandlerFunc(upload)),
		"anonymous":                 usher.Authenticate(usher.Optional(field("B"))).Wrap(http.HandlerFunc(upload)),
		"a stack":                   usher.Chain(usher.Authenticate(field("A")), usher.Require(usher.Requirement{})).Wrap(http.HandlerFunc(upload)),
	}
	for name, h := range stacks {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			server := httptest.NewServer(h)
			defer server.Close()
			var body bytes.Buffer
			form := multipart.NewWriter(&body)
			part, err := form.CreateFormFile("file", "big")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = part.Write(bytes.Repeat([]byte("x"), 12<<20)) // ParseMultipartForm keeps 10 MiB more than its argument
			_ = form.Close()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, &body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", form.FormDataContentType())
			r.Header.Set("A", "good")
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			path, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("status %d, %v: %s", resp.StatusCode, err, path)
			}
			server.Close() // waits until the request is finished
			if _, err := os.Stat(string(path)); !os.IsNotExist(err) {
				t.Errorf("the temporary file is still there: %v", err)
			}
		})
	}
}

// TestAnAbandonedHandlerDoesNotRace is for the race detector: after a timeout the handler
// still writes to the holder while the outer middlewares read it.
func TestAnAbandonedHandlerDoesNotRace(t *testing.T) {
	timedOut, done := make(chan struct{}), make(chan struct{})
	inner := usher.Chain(
		usher.Authenticate(field("A")),
		usher.Require(usher.Requirement{}),
	).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		<-timedOut
		for range 100 {
			usher.WithPrincipal(r, &usher.Principal{ID: "late"})
			usher.Fail(w, r, &usher.Error{Status: http.StatusForbidden})
			_ = r.ParseForm()
		}
	}))
	outer := newRecorder("A")
	m := usher.Authenticate(outer)
	tracked := usher.Track(get("A", "good"))
	w := serve(m.Wrap(http.TimeoutHandler(inner, time.Millisecond, "too slow")), tracked)
	close(timedOut)
	for range 100 {
		usher.PrincipalFrom(tracked.Context())
		usher.Fail(httptest.NewRecorder(), tracked, &usher.Error{Status: http.StatusForbidden})
	}
	<-done
	equal(t, "status", http.StatusServiceUnavailable, w.Code)
	equal(t, "uses", []string{"A good 503"}, outer.uses())
}

func TestOneMiddlewareServesManyAtOnce(t *testing.T) {
	m := usher.Chain(usher.Authenticate(usher.Precedence(detector{field: "A"}, detector{field: "B"})), usher.Require(usher.Requirement{}))
	var wg sync.WaitGroup
	for i := range 8 {
		f := []string{"A", "B"}[i%2]
		wg.Go(func() {
			for range 50 {
				var id string
				serve(m.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					p, _ := usher.PrincipalFrom(r.Context())
					id = p.ID
				})), get(f, "good"))
				if id != f+" good" {
					t.Errorf("%s: principal %q", f, id)
				}
			}
		})
	}
	wg.Wait()
}
