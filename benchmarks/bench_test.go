package benchmarks_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher/benchmarks/internal/contest"
)

// A subject is a contestant that is ready to work.
type subject struct {
	// run does the work once. It is all that is timed.
	run func()
	// check does the work once and reports what is wrong with the result. It is
	// called before the clock starts.
	check func() error
	// after reports what was wrong with the last result. It is called when the clock
	// has stopped; nil means that there is nothing to check.
	after func() error
	// renew, if not nil, discards the state that runs leave behind. It is called
	// every so many runs, while the clock is stopped.
	renew func()
	every int
}

// A contestant makes a subject. What it leaves running ends with tb.
type contestant func(tb testing.TB) subject

// A suite has the contestants of each layer/work by name.
type suite map[string]map[string]contestant

// works are all suites.
var works = join(
	floorWorks, limiterWorks, tokenWorks, keyWorks, onceWorks, envelopeWorks, stackWorks(), telemetryWorks, adapterWorks,
)

func join(suites ...suite) suite {
	all := make(suite)
	for _, s := range suites {
		maps.Copy(all, s)
	}
	return all
}

// layer runs what the table lists for a layer.
func layer(b *testing.B, name string) {
	for _, row := range contest.Rows() {
		if row.Layer != name {
			continue
		}
		b.Run(row.Work, func(b *testing.B) {
			for _, c := range row.Contestants {
				b.Run(c.Name, func(b *testing.B) { measure(b, ready(b, row, c.Name)) })
			}
		})
	}
}

func ready(tb testing.TB, row contest.Row, name string) subject {
	tb.Helper()
	c := works[row.Layer+"/"+row.Work][name]
	if c == nil {
		tb.Fatalf("%s does not exist", row.Name(name))
	}
	s := c(tb)
	if err := s.check(); err != nil {
		tb.Fatalf("%s: %v", row.Name(name), err)
	}
	return s
}

func measure(b *testing.B, s subject) {
	b.Helper()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n++; s.renew != nil && n == s.every {
			n = 0
			b.StopTimer()
			s.renew()
			b.StartTimer()
		}
		s.run()
	}
	if s.after != nil {
		if err := s.after(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFloor(b *testing.B)             { layer(b, "Floor") }
func BenchmarkLimiterDecision(b *testing.B)   { layer(b, "LimiterDecision") }
func BenchmarkLimiterMiddleware(b *testing.B) { layer(b, "LimiterMiddleware") }
func BenchmarkJWT(b *testing.B)               { layer(b, "JWT") }
func BenchmarkAPIKey(b *testing.B)            { layer(b, "APIKey") }
func BenchmarkIdempotency(b *testing.B)       { layer(b, "Idempotency") }
func BenchmarkEnvelope(b *testing.B)          { layer(b, "Envelope") }
func BenchmarkStack(b *testing.B)             { layer(b, "Stack") }
func BenchmarkTelemetry(b *testing.B)         { layer(b, "Telemetry") }
func BenchmarkAdapter(b *testing.B)           { layer(b, "Adapter") }

// TestTable runs each contestant of the table once: each one that is listed exists
// and does its work, and each one that exists is listed.
func TestTable(t *testing.T) {
	listed := make(map[string]bool)
	for _, row := range contest.Rows() {
		t.Run(row.Layer+"/"+row.Work, func(t *testing.T) {
			for _, c := range row.Contestants {
				listed[row.Name(c.Name)] = true
				t.Run(c.Name, func(t *testing.T) {
					s := ready(t, row, c.Name)
					for range 3 {
						s.run()
					}
					if s.renew != nil {
						s.renew()
						s.run()
					}
					if s.after != nil {
						if err := s.after(); err != nil {
							t.Error(err)
						}
					}
				})
			}
		})
	}
	for name, contestants := range works {
		for c := range contestants {
			if !listed["Benchmark"+name+"/"+c] {
				t.Errorf("%s/%s is not in the table", name, c)
			}
		}
	}
}

// A sink is the response writer of all contestants. It keeps the status and the
// header, and clears the header before each request, as a server has a new one.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
}

func (s *sink) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return len(p), nil
}

func (s *sink) WriteString(p string) (int, error) {
	s.WriteHeader(http.StatusOK)
	return len(p), nil
}

func (s *sink) Flush() {}

// A call is a request that is sent to a handler again and again.
type call struct {
	handler http.Handler
	request *http.Request
	// prepare, if not nil, is called before each request. It is a part of the work
	// of every contestant in the row.
	prepare func()
	// want is the expected status.
	want int
	// look, if not nil, reports what is wrong with the response.
	look func(w *httptest.ResponseRecorder) error
}

// addr is the address of all callers.
const addr = "192.0.2.1:1234"

func get() *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = addr
	return r
}

func (c call) subject() subject {
	w := &sink{header: make(http.Header, 8)}
	return subject{
		run: func() {
			clear(w.header)
			w.status = 0
			if c.prepare != nil {
				c.prepare()
			}
			c.handler.ServeHTTP(w, c.request)
		},
		check: func() error {
			if c.prepare != nil {
				c.prepare()
			}
			rec := httptest.NewRecorder()
			c.handler.ServeHTTP(rec, c.request)
			if rec.Code != c.want {
				return fmt.Errorf("status %d, want %d: %s", rec.Code, c.want, rec.Body)
			}
			if c.look != nil {
				return c.look(rec)
			}
			return nil
		},
		after: func() error {
			if max(w.status, http.StatusOK) != c.want {
				return fmt.Errorf("status %d at the end, want %d", w.status, c.want)
			}
			return nil
		},
	}
}

// refuses returns an error if a handler does not refuse a request.
func refuses(h http.Handler, r *http.Request) error {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != http.StatusUnauthorized {
		return fmt.Errorf("status %d for a bad credential", rec.Code)
	}
	return nil
}

// hasOneOf returns an error if no field of a response has one of the names.
func hasOneOf(w *httptest.ResponseRecorder, names ...string) error {
	for name := range w.Header() {
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			return nil
		}
	}
	return fmt.Errorf("none of %v in %v", names, w.Header())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func nothing(http.ResponseWriter, *http.Request) {}
