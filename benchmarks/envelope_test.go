package benchmarks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/render"
	"github.com/labstack/echo/v5"

	"github.com/usher-go/usher/benchmarks/internal/byhand"
	"github.com/usher-go/usher/envelope"
)

type note struct {
	ID    string   `json:"id"`
	Title string   `json:"title"`
	Text  string   `json:"text"`
	Tags  []string `json:"tags"`
	Stars int      `json:"stars"`
}

// notes is a value of about size bytes of JSON, one note or many.
func notes(size int) any {
	one := note{ID: "n-1", Title: "A title", Text: strings.Repeat("text ", 24), Tags: []string{"a", "b"}, Stars: 3}
	unit := len(must(json.Marshal(one)))
	if size < 2*unit {
		return one
	}
	many := make([]note, size/unit)
	for i := range many {
		many[i] = one
	}
	return many
}

func respondingTo(r *http.Request, v any) *byhand.Response {
	return byhand.NewResponse(r, time.Now(), http.StatusOK, "OK", v)
}

type humaOutput struct{ Body *byhand.Response }

// sameMetadata has the members that the contestants write too.
var sameMetadata = envelope.StandardConfig{ClientIP: true, OmitRequestID: true}.Shape()

// explicit are handlers that respond with v in the standard envelope.
var explicit = map[string]func(v any) http.Handler{
	"bare":      func(any) http.Handler { return http.HandlerFunc(nothing) },
	"echo-bare": func(any) http.Handler { return echoWith() },
	"chi-bare": func(any) http.Handler {
		r := chi.NewRouter()
		r.Get("/", nothing)
		return r
	},
	"json-data": func(v any) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			data, _ := json.Marshal(v)
			w.Header()["Content-Type"] = []string{"application/json"}
			w.WriteHeader(http.StatusOK)
			_, _ = w.Write(data)
		})
	},
	"usher": func(v any) http.Handler {
		return must(envelope.New(envelope.Config{Shape: sameMetadata})).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			envelope.For(w, r).Value(v)
		}))
	},
	"encoding-json": func(v any) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			_ = json.NewEncoder(w).Encode(respondingTo(r, v))
		})
	},
	"echo": func(v any) http.Handler {
		e := echo.New()
		e.GET("/", func(c *echo.Context) error { return c.JSON(http.StatusOK, respondingTo(c.Request(), v)) })
		return e
	},
	"chi-render": func(v any) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { render.JSON(w, r, respondingTo(r, v)) })
	},
	"huma": func(v any) http.Handler {
		router := chi.NewRouter()
		config := huma.DefaultConfig("notes", "1.0.0")
		// By default huma would add a link to the schema to each response.
		config.CreateHooks = nil
		api := humachi.New(router, config)
		// A handler of huma does not see the request. It gets for free the parts of it
		// that the response repeats.
		r := get()
		huma.Get(api, "/", func(context.Context, *struct{}) (*humaOutput, error) { return &humaOutput{respondingTo(r, v)}, nil })
		return router
	},
}

func explicitAll(size int) map[string]contestant {
	v := notes(size)
	all := make(map[string]contestant)
	for name, make := range explicit {
		all[name] = func(testing.TB) subject {
			c := call{handler: make(v), request: get(), want: http.StatusOK}
			switch {
			case strings.HasSuffix(name, "bare"):
			case name == "json-data":
				c.look = func(w *httptest.ResponseRecorder) error { return sameJSON(w.Body.Bytes(), must(json.Marshal(v))) }
			default:
				c.look = func(w *httptest.ResponseRecorder) error { return enveloped(w, v) }
			}
			return c.subject()
		}
	}
	return all
}

// enveloped returns an error if a response is not the standard envelope with v.
func enveloped(w *httptest.ResponseRecorder, v any) error {
	var got struct {
		StatusCode int             `json:"status_code"`
		Message    string          `json:"message"`
		Data       json.RawMessage `json:"data"`
		Metadata   byhand.Metadata `json:"metadata"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		return err
	}
	m := got.Metadata
	if got.StatusCode != http.StatusOK || got.Message == "" || m.Method != http.MethodGet || m.URL != "/" || m.IP != "192.0.2.1" || m.Timestamp == "" {
		return fmt.Errorf("not the envelope: %.200s", w.Body)
	}
	if t := w.Header().Get("Content-Type"); !strings.HasPrefix(t, "application/json") {
		return fmt.Errorf("content type %q", t)
	}
	return sameJSON(got.Data, must(json.Marshal(v)))
}

func sameJSON(got, want []byte) error {
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		return err
	}
	if err := json.Unmarshal(want, &b); err != nil {
		return err
	}
	if !bytes.Equal(must(json.Marshal(a)), must(json.Marshal(b))) {
		return fmt.Errorf("data is %.200s", got)
	}
	return nil
}

// wrapped are handlers around one that writes plain JSON.
var wrapped = map[string]func(plain http.Handler, body []byte) http.Handler{
	"bare": func(plain http.Handler, _ []byte) http.Handler { return plain },
	"append": func(_ http.Handler, body []byte) http.Handler {
		const (
			prefix = `{"status_code":200,"message":"OK","data":`
			suffix = `,"metadata":{"method":"GET","url":"/","execution_time_ms":0,"ip":"192.0.2.1","timestamp":"2026-01-01T00:00:00.000Z"}}`
		)
		var buf []byte
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{"application/json"}
			buf = append(append(append(buf[:0], prefix...), body...), suffix...)
			_, _ = w.Write(buf)
		})
	},
	"usher": func(plain http.Handler, _ []byte) http.Handler {
		return must(envelope.New(envelope.Config{Shape: sameMetadata, Wrap: true})).Wrap(plain)
	},
	"decode-encode": func(plain http.Handler, _ []byte) http.Handler { return byhand.Wrap(plain) },
}

func wrappedAll(size int) map[string]contestant {
	v := notes(size)
	body := must(json.Marshal(v))
	plain := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write(body)
	})
	all := make(map[string]contestant)
	for name, make := range wrapped {
		all[name] = func(testing.TB) subject {
			c := call{handler: make(plain, body), request: get(), want: http.StatusOK}
			if name != "bare" {
				c.look = func(w *httptest.ResponseRecorder) error { return enveloped(w, v) }
			}
			return c.subject()
		}
	}
	return all
}

var envelopeWorks = suite{
	"Envelope/explicit-200B":  explicitAll(200),
	"Envelope/explicit-16KiB": explicitAll(16 << 10),
	"Envelope/wrap-200B":      wrappedAll(200),
	"Envelope/wrap-16KiB":     wrappedAll(16 << 10),
}
