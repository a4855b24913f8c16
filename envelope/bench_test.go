package envelope_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// sink is a response writer that costs almost nothing.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

type note struct {
	ID    string   `json:"id"`
	Title string   `json:"title"`
	Text  string   `json:"text"`
	Tags  []string `json:"tags"`
	Stars int      `json:"stars"`
}

func notes(size int) (any, []byte) {
	one := note{ID: "n-1", Title: "A title", Text: strings.Repeat("text ", 20), Tags: []string{"a", "b"}, Stars: 3}
	var v any = one
	if size > 1000 {
		many := make([]note, size/185)
		for i := range many {
			many[i] = one
		}
		v = many
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return v, b
}

func benchmark(b *testing.B, h http.Handler) {
	r := httptest.NewRequest(http.MethodGet, "/notes/1?page=2", nil)
	w := &sink{make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

// byHand is the standard shape as services encode it with encoding/json.
type byHand struct {
	StatusCode int    `json:"status_code"`
	Message    string `json:"message"`
	Data       any    `json:"data"`
	Metadata   struct {
		Method       string `json:"method"`
		URL          string `json:"url"`
		Milliseconds int64  `json:"execution_time_ms"`
		IP           string `json:"ip"`
		Timestamp    string `json:"timestamp"`
	} `json:"metadata"`
}

var sizes = []struct {
	name string
	size int
}{{"200B", 200}, {"16KiB", 16 << 10}}

func BenchmarkExplicit(b *testing.B) {
	for _, size := range sizes {
		v, _ := notes(size.size)
		b.Run(size.name+"/encoding-json", func(b *testing.B) {
			benchmark(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = []string{"application/json"}
				w.WriteHeader(http.StatusOK)
				_ = json.NewEncoder(w).Encode(v)
			}))
		})
		b.Run(size.name+"/encoding-json-standard", func(b *testing.B) {
			benchmark(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				start := time.Now()
				var response byHand
				response.StatusCode, response.Message, response.Data = http.StatusOK, "OK", v
				response.Metadata.Method, response.Metadata.URL = r.Method, r.URL.RequestURI()
				response.Metadata.Milliseconds = time.Since(start).Milliseconds()
				response.Metadata.IP, _, _ = net.SplitHostPort(r.RemoteAddr)
				response.Metadata.Timestamp = start.UTC().Format("2006-01-02T15:04:05.000Z")
				w.Header()["Content-Type"] = []string{"application/json"}
				w.WriteHeader(http.StatusOK)
				_ = json.NewEncoder(w).Encode(&response)
			}))
		})
		b.Run(size.name+"/marshal", func(b *testing.B) {
			benchmark(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				data, _ := json.Marshal(v)
				w.Header()["Content-Type"] = []string{"application/json"}
				w.WriteHeader(http.StatusOK)
				_, _ = w.Write(data)
			}))
		})
		b.Run(size.name+"/middleware-alone", func(b *testing.B) {
			benchmark(b, must(envelope.Config{}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		})
		for _, shape := range shapes {
			env := must(envelope.Config{Shape: shape.shape})
			b.Run(size.name+"/"+shape.name, func(b *testing.B) {
				benchmark(b, env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					envelope.For(w, r).Value(v)
				})))
			})
			// The cost of the writer alone, for a request that is inside its envelope already.
			b.Run(size.name+"/"+shape.name+"/writer-alone", func(b *testing.B) {
				env.ServeNext(&sink{make(http.Header)}, httptest.NewRequest(http.MethodGet, "/notes/1?page=2", nil),
					http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						w := &sink{make(http.Header)}
						b.ReportAllocs()
						for b.Loop() {
							clear(w.header)
							envelope.For(w, r).Value(v)
						}
					}))
			})
		}
	}
}

func BenchmarkWrap(b *testing.B) {
	for _, size := range sizes {
		_, body := notes(size.size)
		plain := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{"application/json"}
			_, _ = w.Write(body)
		})
		b.Run(size.name+"/bare", func(b *testing.B) { benchmark(b, plain) })
		b.Run(size.name+"/decode-encode", func(b *testing.B) {
			benchmark(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				plain(rec, r)
				var data any
				if err := json.Unmarshal(rec.Body.Bytes(), &data); err != nil {
					b.Fatal(err)
				}
				out, _ := json.Marshal(map[string]any{"status_code": 200, "message": "OK", "data": data})
				_, _ = w.Write(out)
			}))
		})
		for _, shape := range shapes {
			b.Run(size.name+"/"+shape.name, func(b *testing.B) {
				benchmark(b, must(envelope.Config{Shape: shape.shape, Wrap: true}).Wrap(plain))
			})
		}
	}
}

func BenchmarkRefuse(b *testing.B) {
	refusal := &usher.Error{
		Status: http.StatusUnauthorized, Code: usher.CodeMissingCredential,
		Message: "The request carries no credential.", Challenges: []string{"Bearer"},
	}
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			benchmark(b, must(envelope.Config{Shape: shape.shape}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				usher.Fail(w, r, refusal)
			})))
		})
	}
}
