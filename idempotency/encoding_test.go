package idempotency_test

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher/idempotency"
)

// compress announces its encoding before the handler has responded, to clients that accept
// it.
func compress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		defer func() { _ = zip.Close() }()
		next.ServeHTTP(zipWriter{w, zip}, r)
	})
}

type zipWriter struct {
	http.ResponseWriter
	zip io.Writer
}

func (w zipWriter) Write(p []byte) (int, error) { return w.zip.Write(p) }

// A decoded response has its body without the Content-Encoding.
type decoded struct {
	status             int
	encoding, replayed string
	vary, body         string
}

// postOver posts to s with the key k.
func postOver(t *testing.T, s *httptest.Server, encoding string) decoded {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "k")
	r.Header.Set("Accept-Encoding", encoding)
	response, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var body io.Reader = response.Body
	if response.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			t.Fatalf("for %s: %v", encoding, err)
		}
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("for %s: %v", encoding, err)
	}
	h := response.Header
	return decoded{response.StatusCode, h.Get("Content-Encoding"), h.Get("Idempotency-Replayed"), h.Get("Vary"), string(text)}
}

// An outer compressor compresses each replay anew, or not, as the replay's own request
// asks.
func TestEncodingOfAnOuterCompressorIsNotStored(t *testing.T) {
	long := strings.Repeat("a long text ", 500)
	handlers := map[string]http.HandlerFunc{
		"a short body": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "short") },
		"a long body":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, long) },
		"no body":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) },
		"an error":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusUnprocessableEntity) },
		"a response with a transaction": func(w http.ResponseWriter, r *http.Request) {
			err := idempotency.From(r.Context()).Commit(r.Context(), func(_ context.Context, c idempotency.Completion) error {
				if strings.Contains(string(c.Result.Payload[:100]), "Content-Encoding") {
					t.Error("the completion has the encoding of the compressor")
				}
				return nil
			}, nil)
			if err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(w, long)
		},
	}
	for name, h := range handlers {
		for _, encodings := range [][]string{{"gzip", "identity"}, {"identity", "gzip"}, {"gzip", "gzip"}} {
			t.Run(name+"/"+strings.Join(encodings, " "), func(t *testing.T) {
				m := newMiddleware(t, idempotency.Config{DangerouslyAllowAnonymous: true})
				s := httptest.NewServer(compress(m.Wrap(h)))
				defer s.Close()
				want := postOver(t, s, encodings[0])
				want.replayed, want.encoding = "true", ""
				if encodings[1] == "gzip" {
					want.encoding = "gzip"
				}
				if got := postOver(t, s, encodings[1]); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			})
		}
	}
}

// An encoding that the handler sets belongs to the body and is stored, even if it
// replaces one that an outer middleware has set.
func TestEncodingOfTheHandlerIsStored(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{DangerouslyAllowAnonymous: true})
	h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		_, _ = io.WriteString(w, "compressed")
	}))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		h.ServeHTTP(w, r)
	}))
	defer s.Close()
	for range 2 {
		if got := postOver(t, s, "br"); got.encoding != "br" || got.body != "compressed" {
			t.Errorf("got %+v", got)
		}
	}
}

// Compression inside the middleware may have been negotiated for a client that accepted
// it. A duplicate that does not still learns the status, the header and, from
// Content-Encoding, how to read the body: all that an error would hide from it.
func TestAStoredEncodingIsReplayedToEveryClient(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{DangerouslyAllowAnonymous: true})
	s := httptest.NewServer(m.Wrap(compress(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Vary", "Accept-Encoding")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "made")
	}))))
	defer s.Close()
	want := postOver(t, s, "gzip")
	want.replayed = "true"
	for _, encoding := range []string{"gzip", "identity", "gzip;q=0"} {
		if got := postOver(t, s, encoding); got != want || got.status != 201 || got.encoding != "gzip" || got.vary != "Accept-Encoding" {
			t.Errorf("for %s: got %+v, want %+v", encoding, got, want)
		}
	}
}
