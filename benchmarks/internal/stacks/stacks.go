package stacks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// A Name names a stack.
type Name string

// The stacks.
const (
	// Bare is the router and the handler with nothing around them. It knows nobody,
	// limits nothing, and runs every request.
	Bare Name = "bare"
	// Usher is the full stack of this module, around the handler of Bare: the
	// envelope, which wraps what the handler writes itself; the credential, by an
	// API key from a cache or by a verified token; the limit of everybody and that
	// of the route for each caller, in one decision that is written to the header;
	// and idempotency with a fingerprint of the request. All of it is counted.
	//
	// It leaves out nothing that Today has.
	Usher Name = "usher"
	// Today is what is usual: API keys by hand (byhand.Keys) or go-chi/jwtauth, which
	// is configured to check issuer and audience; go-chi/httprate twice, for all
	// callers and for the route; idempotency by hand (byhand.Idempotency, with the
	// fingerprint), as no library for net/http could be fetched; and go-chi/render
	// with the envelope as a type, for which the handler had to be changed.
	//
	// Besides what byhand leaves out, it leaves out metrics; an envelope around
	// refusals; bounds on the memory of limits; a decision over both limits, so that
	// a request that the second refuses is charged to the first; the standard header
	// fields (one limiter overwrites X-RateLimit-* of the other); request IDs.
	Today Name = "today"
)

// Names returns the stacks in the order of reports.
func Names() []Name { return []Name{Bare, Usher, Today} }

// A Config describes what to build. Stack and Credential are required.
type Config struct {
	Stack Name
	// Credential is what callers have. Bare ignores it.
	Credential Credential
	// Server puts otelhttp around the whole stack, whichever it is: a server span
	// and the metrics of HTTP for each request. None of the stacks has them
	// otherwise, so a comparison of a stack with otelhttp and one without would
	// measure otelhttp.
	Server bool
	// MeterProvider and TracerProvider are for otelhttp and for Usher, the others
	// have no telemetry; nil means the global ones.
	MeterProvider  metric.MeterProvider
	TracerProvider trace.TracerProvider
}

// A Stack is a whole server. It is safe for concurrent use.
type Stack struct {
	http.Handler
	config Config
	closer func() error
}

// Close ends what the stack has running.
func (s *Stack) Close() error { return s.closer() }

// New builds a stack.
func New(c Config) (*Stack, error) {
	s := &Stack{config: c, closer: func() error { return nil }}
	var err error
	switch c.Stack {
	case Bare:
		s.Handler = bare()
	case Usher:
		s.Handler, s.closer, err = newUsher(c)
	case Today:
		s.Handler, err = newToday(c)
	default:
		err = fmt.Errorf("stacks: no stack %q", c.Stack)
	}
	if err != nil {
		return nil, err
	}
	if c.Server {
		var options []otelhttp.Option
		if c.MeterProvider != nil {
			options = append(options, otelhttp.WithMeterProvider(c.MeterProvider))
		}
		if c.TracerProvider != nil {
			options = append(options, otelhttp.WithTracerProvider(c.TracerProvider))
		}
		s.Handler = otelhttp.NewHandler(s.Handler, "server", options...)
	}
	return s, nil
}

// A note is what the service responds with, about 200 bytes of JSON.
type note struct {
	ID    string   `json:"id"`
	Title string   `json:"title"`
	Text  string   `json:"text"`
	Tags  []string `json:"tags"`
	Stars int      `json:"stars"`
	// Received is how many bytes the request had.
	Received int64     `json:"received"`
	Created  time.Time `json:"created"`
}

// handle is what the service itself does: it takes the body and finds the note.
func handle(r *http.Request) (status int, n *note) {
	received, _ := io.Copy(io.Discard, r.Body)
	status = http.StatusOK
	if r.Method == http.MethodPost {
		status = http.StatusCreated
	}
	return status, &note{
		ID: "n-1", Title: "A title", Text: "Some text that is as long as the text of a note is, more or less.", Tags: []string{"a", "b"}, Stars: 3,
		Received: received, Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// plain is the handler of a service that knows no envelope.
func plain(w http.ResponseWriter, r *http.Request) {
	status, n := handle(r)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(n)
}

func bare() http.Handler {
	r := chi.NewRouter()
	r.Get("/notes", plain)
	r.Post("/notes", plain)
	return r
}

// plenty is a limit for a second that is never reached.
const plenty = 1_000_000_000

// Check sends each [Work] for the credential of s and returns what is wrong with
// the responses: a stack that refuses, forgets the body, runs a request twice or
// admits unknown callers must not be measured. It leaves idempotency keys of the run
// "check" behind.
func (s *Stack) Check() error {
	var errs []error
	for _, work := range Works() {
		if s.config.Stack != Bare && work.Credential != s.config.Credential {
			continue
		}
		if err := s.check(work); err != nil {
			errs = append(errs, fmt.Errorf("stacks: %s, %s: %w", s.config.Stack, work.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Stack) check(work Work) error {
	first := s.serve(work.NewRequest("check", 0))
	if err := s.checkResponse(work, first); err != nil {
		return err
	}
	if s.config.Stack == Bare {
		return nil
	}
	anonymous := work.NewRequest("check", 1)
	anonymous.Header.Del("X-Api-Key")
	anonymous.Header.Del("Authorization")
	if got := s.serve(anonymous); got.status != http.StatusUnauthorized {
		return fmt.Errorf("a request without a credential got %d", got.status)
	}
	if len(first.header["X-Ratelimit-Limit"])+len(first.header["Ratelimit"]) == 0 {
		return fmt.Errorf("no field reports the limits: %v", first.header)
	}
	if work.Body == nil {
		return nil
	}
	again := s.serve(work.NewRequest("check", 0))
	if err := s.checkResponse(work, again); err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	if again.header.Get("Idempotency-Replayed") != "true" {
		return errors.New("a retry ran the handler")
	}
	other := work
	other.Body = append([]byte(" "), work.Body...)
	if got := s.serve(other.NewRequest("check", 0)); got.status != http.StatusUnprocessableEntity {
		return fmt.Errorf("an idempotency key with another body got %d", got.status)
	}
	return nil
}

// checkResponse reports what is wrong with the response to work.
func (s *Stack) checkResponse(work Work, got response) error {
	if got.status != work.Status {
		return fmt.Errorf("status %d, want %d: %s", got.status, work.Status, got.body)
	}
	data := got.body
	if s.config.Stack != Bare {
		var envelope struct {
			StatusCode int             `json:"status_code"`
			Message    string          `json:"message"`
			Data       json.RawMessage `json:"data"`
			Metadata   struct {
				URL       string    `json:"url"`
				Timestamp time.Time `json:"timestamp"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(got.body, &envelope); err != nil {
			return err
		}
		if envelope.StatusCode != work.Status || envelope.Message == "" || envelope.Metadata.URL != work.Path || envelope.Metadata.Timestamp.IsZero() {
			return fmt.Errorf("not the envelope: %s", got.body)
		}
		data = envelope.Data
	}
	var n note
	if err := json.Unmarshal(data, &n); err != nil {
		return err
	}
	if n.ID == "" || n.Received != int64(len(work.Body)) {
		return fmt.Errorf("not the note: %s", data)
	}
	return nil
}

// A response is what a stack has written.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (s *Stack) serve(r *http.Request) response {
	w := &recorder{response: response{header: make(http.Header)}}
	s.ServeHTTP(w, r)
	return w.response
}

type recorder struct{ response }

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}
