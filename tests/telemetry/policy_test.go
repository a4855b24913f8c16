package telemetry_test

import (
	"net/http"
	"runtime"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/usher-go/usher/ratelimit"
)

// Operators see which share of its requests a policy refuses, and how many requests have
// a place.
func TestDecisionsOfEachPolicyAreCounted(t *testing.T) {
	m := newMeter()
	l, err := ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{
			ratelimit.PerAddress(2, time.Minute),
			{Name: "places", Key: ratelimit.Global(), Limit: ratelimit.Concurrency(5)},
		},
		MeterProvider: m,
	})
	if err != nil {
		t.Fatal(err)
	}
	running := instrument(t, "usher.rate_limiting.concurrent_requests")
	h := l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		equal(t, map[string]int64{"usher.rate_limiting.policy=places": 1}, m.now(t, running))
	}))
	for range 5 {
		serve(h)
	}
	equal(t, map[string]int64{"usher.rate_limiting.policy=places": 0}, m.now(t, running))

	got := make(map[string]int64)
	sum, _ := m.metric(t, instrument(t, "usher.rate_limiting.decisions")).(metricdata.Sum[int64])
	for _, p := range sum.DataPoints {
		got[p.Attributes.Encoded(values{})] = p.Value
	}
	equal(t, map[string]int64{
		"usher.rate_limiting.decision=admitted,usher.rate_limiting.policy=address": 2,
		"usher.rate_limiting.decision=refused,usher.rate_limiting.policy=address":  3,
		"usher.rate_limiting.decision=admitted,usher.rate_limiting.policy=places":  2,
	}, got)
	runtime.KeepAlive(l)
}
