package adaptertest_test

import (
	"compress/gzip"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/adaptertest"
)

// serveMux is net/http, which needs no adapter.
var serveMux = adaptertest.Router{
	Name:    "net/http",
	Handler: newServeMux,
	Differences: map[string]adaptertest.Difference{
		"20.use":     {Reason: outside, Observed: "the pattern names the route:  is false"},
		"20.mounted": {Reason: outside, Observed: "the pattern names the route: / is false"},
		"21.use":     {Reason: outside, Observed: `r.PathValue before next is ""`},
	},
	Lacks: map[string]string{
		"7.status":  noErrors,
		"7.usher":   noErrors,
		"7.private": noErrors,
		"8.inside":  noErrors,
		"8.outside": noErrors,
		"8.foreign": noErrors,
		"9.body":    noErrors,
		"9.calls":   noErrors,
		"26.error":  noErrors,
		"29.once":   noErrors,
		"29.limits": noErrors,
		"29.use":    noErrors,
		"27.allocs": "There is no adapter.",
	},
	Declaration: "testdata/servemux.json",
}

const (
	outside  = "A middleware outside of a ServeMux runs before the ServeMux has found the route."
	noErrors = "Handlers of net/http return no errors."
)

func TestServeMux(t *testing.T) { adaptertest.Test(t, serveMux) }

func newServeMux(_ testing.TB, app adaptertest.App) http.Handler {
	mux := http.NewServeMux()
	allow := make(map[string][]string)
	add := func(prefix string, use []adaptertest.Step, routes []adaptertest.Route) {
		for _, r := range routes {
			pattern := prefix + r.Pattern
			if pattern == "/" {
				pattern = "/{$}"
			}
			mux.Handle(r.Method+" "+pattern, wrap(slices.Concat(use, r.Use), handler(r)))
			allow[pattern] = append(allow[pattern], r.Method)
		}
	}
	add("", nil, app.Routes)
	add(app.Group.Prefix, app.Group.Use, app.Group.Routes)
	if h := orFail(app, app.MethodNotAllowed, http.StatusMethodNotAllowed); h != nil {
		for pattern, methods := range allow {
			mux.Handle(pattern, withAllow(methods, h))
		}
	}
	if h := orFail(app, app.NotFound, http.StatusNotFound); h != nil {
		mux.Handle("/", h)
	}
	return wrap(app.Use, mux)
}

func withAllow(methods []string, next http.Handler) http.Handler {
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		next.ServeHTTP(w, r)
	})
}

// orFail returns h, or if app asks for that a handler that calls usher.Fail.
func orFail(app adaptertest.App, h http.Handler, status int) http.Handler {
	if h != nil || !app.Failures {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		usher.Fail(w, r, &usher.Error{Status: status})
	})
}

func handler(r adaptertest.Route) http.Handler {
	if r.Native == nil {
		return r.Handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := r.Native(&context{adaptertest.NetHTTP{W: w, R: req}}); err != nil {
			usher.Fail(w, req, err)
		}
	})
}

func wrap(steps []adaptertest.Step, h http.Handler) http.Handler {
	for _, s := range slices.Backward(steps) {
		switch {
		case s.Usher != nil:
			h = s.Usher.Wrap(h)
		case s.Foreign != nil:
			h = s.Foreign(h)
		case s.Native != nil:
			h = native(s.Native, h)
		case s.Recover:
			h = recoverer(h)
		case s.Compress:
			h = compress(h)
		}
	}
	return h
}

// native is a middleware that records what its writer sees, as an access log does.
func native(f func(adaptertest.Context, func() error) error, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &context{adaptertest.NetHTTP{W: &adaptertest.Writer{Inner: w}, R: r}}
		_ = f(c, func() error { next.ServeHTTP(c.W, c.R); return nil })
	})
}

func recoverer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if err, _ := v.(error); errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			if v != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func compress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		zip := gzip.NewWriter(w)
		w.Header().Set("Content-Encoding", "gzip")
		next.ServeHTTP(zipWriter{w, zip}, r)
		_ = zip.Close()
	})
}

type zipWriter struct {
	http.ResponseWriter
	zip *gzip.Writer
}

func (w zipWriter) Write(p []byte) (int, error) { return w.zip.Write(p) }

// context is the Context of net/http handlers.
type context struct{ adaptertest.NetHTTP }

func (c *context) Progress() adaptertest.Progress {
	w, _ := c.W.(*adaptertest.Writer)
	if w == nil {
		return adaptertest.Progress{}
	}
	return adaptertest.Progress{Status: w.Status(), Size: w.Size(), Written: w.Status() != 0}
}
