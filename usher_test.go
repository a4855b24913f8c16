package usher_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
)

// A mark is a middleware that records when a request passes through it, on the way in and
// on the way out.
type mark struct {
	name string
	log  *[]string
}

func (m mark) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.ServeNext(w, r, next) })
}

func (m mark) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	*m.log = append(*m.log, m.name+" in")
	next.ServeHTTP(w, r)
	*m.log = append(*m.log, m.name+" out")
}

// ways are the two ways to run a middleware. They must behave alike.
var ways = map[string]func(m usher.Middleware, next http.Handler) http.Handler{
	"Wrap": func(m usher.Middleware, next http.Handler) http.Handler { return m.Wrap(next) },
	"ServeNext": func(m usher.Middleware, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.ServeNext(w, r, next) })
	},
}

func get(fields ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/notes", nil)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

// serve returns the response of h to r.
func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := compare.Diff(want, got); diff != "" {
		t.Errorf("%s, -want +got:\n%s", what, diff)
	}
}

func mustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got, _ := recover().(string); got != want {
			t.Errorf("panic %q, want %q", got, want)
		}
	}()
	f()
}

func TestChainOrder(t *testing.T) {
	var log []string
	a, b, c, d := mark{"a", &log}, mark{"b", &log}, mark{"c", &log}, mark{"d", &log}
	tests := map[string]struct {
		chain usher.Middleware
		want  string
	}{
		"nothing passes on":      {usher.Chain(), "handler"},
		"one":                    {usher.Chain(a), "a in, handler, a out"},
		"the first is outermost": {usher.Chain(a, b, c), "a in, b in, c in, handler, c out, b out, a out"},
		"chains are flattened": {
			usher.Chain(a, usher.Chain(b, usher.Chain(c)), usher.Chain(), d),
			"a in, b in, c in, d in, handler, d out, c out, b out, a out",
		},
		"one twice": {usher.Chain(a, a), "a in, a in, handler, a out, a out"},
	}
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { log = append(log, "handler") })
	for name, tt := range tests {
		for way, run := range ways {
			t.Run(name+" by "+way, func(t *testing.T) {
				h := run(tt.chain, handler)
				for range 2 { // nothing of the first request is left for the second
					log = nil
					serve(h, get())
					equal(t, "order", tt.want, strings.Join(log, ", "))
				}
			})
		}
	}
}

func TestChainOfNilPanics(t *testing.T) {
	mustPanic(t, "usher: Chain of a nil Middleware", func() { usher.Chain(mark{}, nil) })
}

func TestMiddlewareFunc(t *testing.T) {
	for way, run := range ways {
		t.Run(way, func(t *testing.T) {
			var log []string
			m := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				log = append(log, "in")
				next.ServeHTTP(w, r)
				log = append(log, "out")
			})
			serve(run(m, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { log = append(log, "handler") })), get())
			equal(t, "order", []string{"in", "handler", "out"}, log)
		})
	}
}

func TestNilMiddlewaresPanic(t *testing.T) {
	always := func(*http.Request) bool { return true }
	for want, f := range map[string]func(){
		"usher: Chain of a nil Middleware":    func() { usher.Chain(usher.MiddlewareFunc(nil)) },
		"usher: nil MiddlewareFunc":           func() { usher.MiddlewareFunc(nil).Wrap(http.NotFoundHandler()) },
		"usher: When with a nil Middleware":   func() { usher.When(always, nil) },
		"usher: When with a nil condition":    func() { usher.When(nil, usher.Chain()) },
		"usher: Unless with a nil Middleware": func() { usher.Unless(always, usher.MiddlewareFunc(nil)) },
		"usher: Unless with a nil condition":  func() { usher.Unless(nil, usher.Chain()) },
	} {
		mustPanic(t, want, f)
	}
}

func TestConditions(t *testing.T) {
	isHealth := func(asked *int) func(*http.Request) bool {
		return func(r *http.Request) bool { *asked++; return r.URL.Path == "/health" }
	}
	tests := map[string]struct {
		condition func(func(*http.Request) bool, usher.Middleware) usher.Middleware
		path      string
		want      string
	}{
		"When true":    {usher.When, "/health", "m in, inner in, handler, inner out, m out"},
		"When false":   {usher.When, "/notes", "handler"},
		"Unless true":  {usher.Unless, "/health", "handler"},
		"Unless false": {usher.Unless, "/notes", "m in, inner in, handler, inner out, m out"},
	}
	for name, tt := range tests {
		for way, run := range ways {
			t.Run(name+" by "+way, func(t *testing.T) {
				var log []string
				asked := 0
				m := tt.condition(isHealth(&asked), usher.Chain(mark{"m", &log}, mark{"inner", &log}))
				serve(run(m, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { log = append(log, "handler") })),
					httptest.NewRequest(http.MethodGet, tt.path, nil))
				equal(t, "order", tt.want, strings.Join(log, ", "))
				equal(t, "calls of the condition", 1, asked)
			})
		}
	}
}

func TestMust(t *testing.T) {
	equal(t, "value", 1, usher.Must(1, nil))
	err := errors.New("fault")
	defer func() {
		if got, _ := recover().(error); !errors.Is(got, err) {
			t.Errorf("recovered %v, want the error itself", got)
		}
	}()
	usher.Must(1, err)
}

// refuse is a middleware that responds itself.
type refuse struct{}

func (m refuse) Wrap(next http.Handler) http.Handler { return ways["ServeNext"](m, next) }

func (refuse) ServeNext(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.WriteHeader(http.StatusTeapot)
}

func TestChainStopsWhereAMiddlewareResponds(t *testing.T) {
	for way, run := range ways {
		t.Run(way, func(t *testing.T) {
			var log []string
			m := mark{"a", &log}
			h := run(usher.Chain(m, refuse{}, mark{"b", &log}), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Error("the handler was called")
			}))
			if got := serve(h, get()).Code; got != http.StatusTeapot {
				t.Errorf("status %d", got)
			}
			equal(t, "order", []string{"a in", "a out"}, log)
		})
	}
}
