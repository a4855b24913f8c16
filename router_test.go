package usher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/exchange"
)

func TestNoteFailure(t *testing.T) {
	public := &usher.Error{Status: http.StatusConflict}
	tests := map[string]struct {
		sent   int
		err    error
		failed int
		broken bool
	}{
		"no response yet":              {0, errors.New("private"), 500, false},
		"an Error":                     {0, public, 409, false},
		"an Error that is wrapped":     {0, fmt.Errorf("handler: %w", public), 409, false},
		"an Error without a status":    {0, &usher.Error{}, 500, false},
		"a body that is too large":     {0, &http.MaxBytesError{Limit: 1}, 413, false},
		"a success was sent":           {200, public, 0, true},
		"a redirect was sent":          {302, public, 0, true},
		"an error was sent":            {400, public, 0, false},
		"another error was sent":       {500, errors.New("private"), 0, false},
		"no error":                     {0, nil, 0, false},
		"no error, a success was sent": {200, nil, 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := usher.Track(get())
			usher.NoteFailure(r, tt.sent, tt.err)
			x := exchange.From(r.Context())
			if x.Failure() != tt.failed || (x.Broken() != nil) != tt.broken {
				t.Errorf("failed %d, broken %v; want %d, %t", x.Failure(), x.Broken(), tt.failed, tt.broken)
			}
			if tt.broken && !errors.Is(x.Broken(), tt.err) {
				t.Errorf("broken by %v, want %v", x.Broken(), tt.err)
			}
		})
	}
	usher.NoteFailure(get(), 0, public) // of a request that no middleware has seen
}

func TestNoteFailureKnowsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := usher.Track(get())
		serve(usher.Deadline(time.Second, errGateway).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			usher.NoteFailure(r, 0, fmt.Errorf("query: %w", context.DeadlineExceeded))
			if got := exchange.From(r.Context()).Failure(); got != errGateway.Status {
				t.Errorf("failed with %d, want %d", got, errGateway.Status)
			}
		})), r)
	})
}

func TestPassesThrough(t *testing.T) {
	env, err := envelope.New(envelope.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		m    usher.Middleware
		want bool
	}{
		"no middleware":         {usher.Chain(), false},
		"Authenticate":          {usher.Authenticate(constant{caller}), true},
		"Authenticate optional": {usher.Authenticate(usher.Optional(absent{})), true},
		"the envelope":          {env, false},
		"Deadline":              {usher.Deadline(time.Minute, nil), false},
		"inside Authenticate":   {usher.Chain(usher.Authenticate(constant{caller}), env), false},
		"outside Authenticate":  {usher.Chain(env, usher.Authenticate(constant{caller})), false},
		"between Authenticates": {usher.Chain(usher.Authenticate(constant{caller}), env, usher.Authenticate(constant{caller})), false},
		"Authenticate twice":    {usher.Chain(usher.Authenticate(constant{caller}), usher.Authenticate(constant{caller})), true},
	} {
		for kind, outer := range map[string]http.ResponseWriter{
			"a pointer": httptest.NewRecorder(), "no pointer": struct{ http.ResponseWriter }{httptest.NewRecorder()},
		} {
			tt.m.ServeNext(outer, get(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if got := usher.PassesThrough(w, outer); got != tt.want {
					t.Errorf("%s around %s: passes through %t, want %t", name, kind, got, tt.want)
				}
			}))
		}
		outer := incomparable{"": httptest.NewRecorder()}
		tt.m.ServeNext(outer, get(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if usher.PassesThrough(w, outer) {
				t.Errorf("%s around a writer that cannot be compared: passes through", name)
			}
		}))
	}
}

type incomparable map[string]http.ResponseWriter

func (w incomparable) Header() http.Header         { return w[""].Header() }
func (w incomparable) Write(p []byte) (int, error) { return w[""].Write(p) }
func (w incomparable) WriteHeader(status int)      { w[""].WriteHeader(status) }

// An adapter for handlers that return errors takes a few lines.
func ExampleNoteFailure() {
	type handler func(w http.ResponseWriter, r *http.Request) error
	adapt := func(h handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sent := &statusWriter{ResponseWriter: w}
			err := h(sent, r)
			switch {
			case err == nil:
			case sent.status == 0:
				usher.Fail(w, r, err)
			default: // too late for another response
				usher.NoteFailure(r, sent.status, err)
			}
		})
	}
	server := httptest.NewServer(usher.Must(envelope.New(envelope.Config{})).Wrap(adapt(
		func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, `[{"id": 1},`)
			return errors.New("the database has gone")
		})))
	defer server.Close()

	resp, err := http.Get(server.URL) //nolint:noctx // for brevity
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	fmt.Println("the client sees that the response is broken:", err != nil)
	// Output:
	// the client sees that the response is broken: true
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}
