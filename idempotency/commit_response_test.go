package idempotency_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// nothingSent wraps a handler. It fails if the handler's writer has sent anything.
func nothingSent(t *testing.T, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		next(w, r)
		for {
			u, ok := w.(interface{ Unwrap() http.ResponseWriter })
			if !ok {
				break
			}
			w = u.Unwrap()
		}
		if recorder, ok := w.(*httptest.ResponseRecorder); ok && (recorder.Body.Len() > 0 || recorder.Flushed) {
			t.Errorf("%q is sent before the commit", recorder.Body)
		}
	}
}

// A response that cannot be stored is not sent. Its transaction is rolled back, and a retry
// runs.
func TestCommitWithAResponseThatCannotBeStored(t *testing.T) {
	wantError := func(t *testing.T, what string, err error) {
		t.Helper()
		if err == nil {
			t.Error(what, "returns no error")
		}
	}
	for name, respond := range map[string]func(*testing.T, http.ResponseWriter){
		"a flush": func(t *testing.T, w http.ResponseWriter) {
			wantError(t, "Flush", http.NewResponseController(w).Flush())
			_, err := w.Write([]byte("x"))
			wantError(t, "Write", err)
		},
		"a flush after a write": func(t *testing.T, w http.ResponseWriter) {
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			_, err := io.WriteString(w, "x")
			wantError(t, "Write", err)
		},
		"a flush after a body that becomes long": func(t *testing.T, w http.ResponseWriter) {
			_, first := w.Write([]byte("123456789"))
			_ = http.NewResponseController(w).Flush()
			if _, err := w.Write([]byte("x")); first == nil || !errors.Is(err, first) {
				t.Errorf("Write returns %v, and then %v", first, err)
			}
		},
		"a hijack": func(t *testing.T, w http.ResponseWriter) {
			_, _, err := http.NewResponseController(w).Hijack()
			wantError(t, "Hijack", err)
		},
		"another protocol": func(_ *testing.T, w http.ResponseWriter) { w.WriteHeader(101) },
		"a long body": func(t *testing.T, w http.ResponseWriter) {
			_, err := w.Write([]byte("123456789"))
			wantError(t, "Write", err)
		},
		"a body that becomes long": func(t *testing.T, w http.ResponseWriter) {
			_, _ = w.Write([]byte("12345678"))
			_, err := w.Write([]byte("9"))
			wantError(t, "Write", err)
			_, err = w.Write(nil)
			wantError(t, "a second Write", err)
		},
		"a long copied body": func(t *testing.T, w http.ResponseWriter) {
			_, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 9)))
			wantError(t, "Copy", err)
			usher.Fail(w, httptest.NewRequest(http.MethodPost, "/", nil), err)
		},
		"an announced length": func(t *testing.T, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "9")
			_, err := w.Write([]byte("1"))
			wantError(t, "Write", err)
		},
		"too little of the announced length": func(_ *testing.T, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "8")
			_, _ = w.Write([]byte("1"))
		},
		"too much of the announced length": func(t *testing.T, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1")
			_, err := w.Write([]byte("12"))
			wantError(t, "Write", err)
		},
		"a trailer": func(t *testing.T, w http.ResponseWriter) {
			w.Header().Set("Trailer", "Sum")
			_, err := w.Write([]byte("x"))
			wantError(t, "Write", err)
		},
		"a trailer that was not announced": func(_ *testing.T, w http.ResponseWriter) {
			_, _ = w.Write([]byte("x"))
			w.Header().Set(http.TrailerPrefix+"Sum", "1")
		},
		"an error after a success": func(_ *testing.T, w http.ResponseWriter) {
			w.WriteHeader(200)
			http.Error(w, "oh", 500)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			calls := new(counting)
			calls.next = func(w http.ResponseWriter, r *http.Request) {
				if calls.n.Load() > 1 {
					return
				}
				b.pay(func(w http.ResponseWriter, _ *http.Request) { respond(t, w) }).next(w, r)
			}
			var reported []error
			h := outer(newMiddleware(t, idempotency.Config{Store: b, MaxResponse: 8, OnError: func(_ context.Context, err error) {
				reported = append(reported, err)
			}}).Wrap(calls))
			first := do(h, post("/", ""))
			wantFailure(t, first, 500, usher.CodeInternal)
			wantNothingOf(t, first)
			if first.Flushed || len(first.Result().Trailer) > 0 || len(reported) != 1 {
				t.Errorf("flushed %v, trailer %v, reported %v", first.Flushed, first.Result().Trailer, reported)
			}
			b.want(t, 0, 1)
			do(h, post("/", ""))
			calls.want(t, 2)
		})
	}
}

// A handler that writes nothing leaves the status to outer handlers, as without Commit.
func TestCommitOfASilentHandler(t *testing.T) {
	b := newBank(t)
	m := newMiddleware(t, idempotency.Config{Store: b}).Wrap(b.pay(func(http.ResponseWriter, *http.Request) {}))
	w := do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.ServeHTTP(w, r)
		w.WriteHeader(http.StatusAccepted)
	}), post("/", ""))
	if w.Code != http.StatusAccepted || w.Header().Get("Location") != "/before" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
	b.want(t, 1, 0)
}

// The first reason for which a response cannot be stored is reported.
func TestCommitReportsWhyAResponseCannotBeStored(t *testing.T) {
	b := newBank(t)
	var reported error
	h := newMiddleware(t, idempotency.Config{Store: b, MaxResponse: 8, OnError: func(_ context.Context, err error) { reported = err }}).Wrap(
		b.pay(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "123456789")
			w.(http.Flusher).Flush()
		}))
	do(h, post("/", ""))
	if reported == nil || !strings.Contains(reported.Error(), "MaxResponse") {
		t.Errorf("reported %v", reported)
	}
}

// A status that is none is a fault of the handler, as a panic is.
func TestCommitWithAnImpossibleStatus(t *testing.T) {
	for _, status := range []int{42, 1000} {
		b := newBank(t)
		h := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}}).Wrap(b.pay(writing(status, "paid")))
		wantFailure(t, do(h, post("/", "")), 500, usher.CodeInternal)
		b.want(t, 0, 1)
		wantFailure(t, do(h, post("/", "")), 409, unknown)
	}
}
