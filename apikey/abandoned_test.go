package apikey_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/oteltest"
)

// verdicts returns how often each verdict was counted.
func verdicts(meter *oteltest.Meter) map[string]int64 {
	counts := map[string]int64{}
	for _, c := range meter.Counts() {
		v, _ := c.Attributes.Value("usher.apikey.result")
		counts[v.AsString()] = c.Value
	}
	return counts
}

// statusRecorder records the status that a handler sends to a client that has left.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Otherwise any client that disconnects would raise an alarm.
func TestAClientThatLeavesIsNoFailureOfTheStore(t *testing.T) {
	for layer, over := range layers {
		t.Run(layer, func(t *testing.T) {
			asked, release := make(chan struct{}, 1), make(chan struct{})
			s := &misbehaving{Store: apikey.NewMemory(), instead: func(context.Context) { asked <- struct{}{}; <-release }}
			defer close(release)
			meter := new(oteltest.Meter)
			events := make(chan apikey.Event, 1)
			store := over(t, s)
			if layer == "behind a cache" {
				store = newCache(t, apikey.CacheConfig{Store: s, StoreTimeout: time.Hour})
			}
			a := newAuthenticator(t, apikey.ManagerConfig{Store: store, StoreTimeout: time.Hour}, apikey.Config{
				LastUseInterval: -1,
				MeterProvider:   meter,
				Audit:           func(_ context.Context, e apikey.Event) { events <- e },
			})
			statuses := make(chan int, 1)
			h := usher.Authenticate(a).Wrap(http.NotFoundHandler())
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				recorder := &statusRecorder{ResponseWriter: w}
				h.ServeHTTP(recorder, r)
				statuses <- recorder.status
			}))
			defer srv.Close()
			ctx, leave := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-API-Key", generate(t, native, ""))
			go func() { <-asked; leave() }()
			if resp, err := srv.Client().Do(r); err == nil {
				_ = resp.Body.Close()
				t.Fatalf("the client got %s before it left", resp.Status)
			}
			if status := <-statuses; status != 499 {
				t.Errorf("status %d, want 499", status)
			}
			if e := <-events; e.Verdict != apikey.Abandoned || !errors.Is(e.Err, apikey.Abandoned) || !errors.Is(e.Err, context.Canceled) {
				t.Errorf("audited as %v: %v", e.Verdict, e.Err)
			}
			if got := verdicts(meter); got["abandoned"] != 1 || got["unavailable"] != 0 {
				t.Errorf("counted %v", got)
			}
		})
	}
}

func TestVerdictsOnRequestsThatEnded(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	over, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	defer stop()
	stopped, interrupt := context.WithCancelCause(t.Context())
	interrupt(errors.New("interrupt signal received"))
	down := errors.New("down")
	obeying := newScripted(t, 0)
	obeying.lookup = func(ctx context.Context, _ apikey.Hash) (apikey.Record, error) { return apikey.Record{}, ctx.Err() }
	failing := newScripted(t, 0)
	failing.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) { return apikey.Record{}, down }
	memory := apikey.NewMemory()
	_, text := create(t, newManager(t, apikey.ManagerConfig{Store: memory}), apikey.Key{})
	cache := newCache(t, apikey.CacheConfig{Store: silent{memory}})
	if _, err := newAuthenticator(t, apikey.ManagerConfig{Store: cache}, apikey.Config{}).Authenticate(request("X-API-Key", text)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		store apikey.Store
		check func(context.Context, *apikey.Key) error
		ctx   context.Context
		want  apikey.Verdict
	}{
		{"a memory, of a client that has left", memory, nil, canceled, apikey.Abandoned},
		{"a store, of a client that has left", obeying, nil, canceled, apikey.Abandoned},
		{"a check, of a client that has left", cache, func(ctx context.Context, _ *apikey.Key) error { return ctx.Err() }, canceled, apikey.Abandoned},
		{"a memory, when the server shuts down", memory, nil, stopped, apikey.Unavailable},
		{"a store, when the server shuts down", obeying, nil, stopped, apikey.Unavailable},
		{"a memory, when the server's time is over", memory, nil, over, apikey.Unavailable},
		{"a store, when the server's time is over", obeying, nil, over, apikey.Unavailable},
		{"a store that fails", failing, nil, t.Context(), apikey.Unavailable},
		{"a store that returns such an error by itself", silentError{memory}, nil, t.Context(), apikey.Unavailable},
	} {
		a := newAuthenticator(t, apikey.ManagerConfig{Store: test.store}, apikey.Config{Check: test.check})
		_, err := a.Authenticate(request("X-API-Key", text).WithContext(test.ctx))
		if got := verdictOf(t, err); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// silentError is a store that returns the error of a context of its own, not the
// request's.
type silentError struct{ apikey.Store }

func (silentError) Lookup(context.Context, apikey.Hash) (apikey.Record, error) {
	return apikey.Record{}, context.Canceled
}

func TestAManagementCallWhoseClientLeavesIsNo503(t *testing.T) {
	s := &misbehaving{Store: apikey.NewMemory(), instead: func(ctx context.Context) { <-ctx.Done() }}
	h, err := apikey.NewHandler(apikey.HandlerConfig{Manager: newManager(t, apikey.ManagerConfig{Store: s})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	h.ServeHTTP(w, usher.WithPrincipal(r, &usher.Principal{ID: "u1", Owner: "ann"}))
	if w.Code != 499 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
