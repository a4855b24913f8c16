package envelope_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/race"
)

// allocs returns the number of allocations that h makes for one request.
func allocs(t *testing.T, h http.Handler, r *http.Request) float64 {
	t.Helper()
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	w := &sink{make(http.Header)}
	return testing.AllocsPerRun(200, func() {
		clear(w.header)
		h.ServeHTTP(w, r)
	})
}

// perRequest allocations are the transaction, which has the copy of the request. Every 16th
// request allocates the IDs of 16, too.
const perRequest = 1

func TestAllocations(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/notes/1?page=2&token=", nil)
	small, body := notes(200)
	large, _ := notes(1 << 14)
	asPlainJSON := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = jsonType
		_, _ = w.Write(body)
	})
	refusal := &usher.Error{Status: http.StatusForbidden, Code: "c", Message: "m"}
	for _, shape := range shapes {
		env := must(envelope.Config{Shape: shape.shape})
		wrap := must(envelope.Config{Shape: shape.shape, Wrap: true})
		tests := []struct {
			name    string
			handler http.Handler
			most    float64
		}{
			{"an envelope", env.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), perRequest},
			{"wrapping adds nothing", wrap.Wrap(asPlainJSON), perRequest},
			{"a value adds nothing", env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(small) })), perRequest},
			{"a large value adds its length", env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(large) })), perRequest + 2},
			{"an error adds at most two", env.Wrap(failing(refusal)), perRequest + 2},
		}
		for _, tt := range tests {
			t.Run(shape.name+"/"+tt.name, func(t *testing.T) {
				if n := allocs(t, tt.handler, r); n > tt.most {
					t.Errorf("%v allocations, want at most %v", n, tt.most)
				}
			})
		}
	}
	t.Run("a request ID of a gateway costs nothing", func(t *testing.T) {
		r := r.Clone(t.Context())
		r.Header.Set("X-Request-Id", "one")
		if n := allocs(t, must(envelope.Config{Wrap: true, RequestID: fromHeader}).Wrap(asPlainJSON), r); n > perRequest {
			t.Errorf("%v allocations", n)
		}
	})
	t.Run("a request that carries an exchange costs nothing more", func(t *testing.T) {
		if n := allocs(t, must(envelope.Config{Wrap: true}).Wrap(asPlainJSON), usher.Track(r)); n > perRequest {
			t.Errorf("%v allocations", n)
		}
	})
}

var jsonType = []string{"application/json"}
