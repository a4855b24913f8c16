package benchmarks_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/benchmarks/internal/byhand"
	"github.com/usher-go/usher/idempotency"
)

// onceHandlers make a middleware with an empty store.
var onceHandlers = map[string]func() func(http.Handler) http.Handler{
	"bare": func() func(http.Handler) http.Handler { return func(h http.Handler) http.Handler { return h } },
	"usher": func() func(http.Handler) http.Handler {
		store := must(idempotency.NewMemory(idempotency.MemoryConfig{MaxBytes: 2 << 30}))
		return must(idempotency.New(idempotency.Config{Store: store})).Wrap
	},
	"by-hand": func() func(http.Handler) http.Handler { return new(byhand.Idempotency).Wrap },
	"by-hand-fingerprint": func() func(http.Handler) http.Handler {
		return (&byhand.Idempotency{Fingerprint: true}).Wrap
	},
}

// ada is the caller, for middlewares that ask for one.
var ada = &usher.Principal{ID: "ada", Kind: usher.KindAPIKey}

// posting sends size bytes with an idempotency key, always the same or a new one
// each time, to a handler that reads them and responds with as many.
func posting(wrap func() func(http.Handler) http.Handler, size int, fresh, bare bool) contestant {
	return func(testing.TB) subject {
		content := bytes.Repeat([]byte("x"), size)
		runs, buf := 0, make([]byte, 4096)
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			runs++
			for {
				if _, err := r.Body.Read(buf); err != nil {
					break
				}
			}
			w.Header()["Content-Type"] = []string{"application/json"}
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write(content)
		})
		r := httptest.NewRequest(http.MethodPost, "/orders", bytes.NewReader(content))
		r.RemoteAddr = addr
		// The authentication further out has made the one copy of the request.
		r = usher.WithPrincipal(r, ada)
		reader := bytes.NewReader(content)
		body := &struct {
			io.Reader
			io.Closer
		}{reader, io.NopCloser(nil)}
		key, n := []string{"again"}, 0
		prepare := func() {
			reader.Reset(content)
			r.Body = body
			if fresh {
				n++
				key = []string{strconv.Itoa(n)}
			}
			r.Header["Idempotency-Key"] = key
		}
		inner := wrap()(handler)
		c := call{
			handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { inner.ServeHTTP(w, r) }),
			request: r, prepare: prepare, want: http.StatusCreated,
		}
		c.look = func(w *httptest.ResponseRecorder) error {
			if !bytes.Equal(w.Body.Bytes(), content) {
				return errors.New("another body")
			}
			if bare {
				return nil
			}
			before := runs
			again := httptest.NewRecorder()
			reader.Reset(content)
			r.Body = body
			inner.ServeHTTP(again, r)
			if again.Code != w.Code || !bytes.Equal(again.Body.Bytes(), content) || runs != before {
				return errors.New("the replay is not the first response")
			}
			return nil
		}
		s := c.subject()
		if fresh {
			// Keeping every response would measure the garbage collector.
			s.every, s.renew = max(10, min(10_000, 10_000_000/size)), func() { inner = wrap()(handler) }
		}
		return s
	}
}

func postingAll(size int, fresh bool) map[string]contestant {
	all := make(map[string]contestant)
	for name, wrap := range onceHandlers {
		all[name] = posting(wrap, size, fresh, name == "bare")
	}
	return all
}

var onceWorks = suite{
	"Idempotency/first-100B":   postingAll(100, true),
	"Idempotency/first-16KiB":  postingAll(16<<10, true),
	"Idempotency/replay-100B":  postingAll(100, false),
	"Idempotency/replay-16KiB": postingAll(16<<10, false),
}
