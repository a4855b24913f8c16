package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/ratelimit"
)

func TestDecisionsAreCountedAndNoted(t *testing.T) {
	meter := new(oteltest.Meter)
	tracer := new(oteltest.Tracer)
	shadow := forAll("shadow", ratelimit.RollingWindow(1, time.Hour))
	shadow.Shadow = true
	h := newLimiter(t, ratelimit.Config{
		Policies:      []ratelimit.Policy{forAll("real", ratelimit.RollingWindow(2, time.Hour)), shadow},
		MeterProvider: meter,
		Exempt:        func(r *http.Request) bool { return r.Header.Get("List") == "allow" },
		Block:         func(r *http.Request) bool { return r.Header.Get("List") == "block" },
	}).Wrap(ok)
	list := func(name string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("List", name)
			ctx, span := tracer.Start(r.Context(), name)
			*r = *r.WithContext(ctx)
			context.AfterFunc(t.Context(), func() { span.End() })
		}
	}
	codes(3, h)
	do(h, list("allow"))
	do(h, list("block"))
	do(h, func(r *http.Request) {
		ctx, span := tracer.Start(r.Context(), "refused")
		*r = *r.WithContext(ctx)
		t.Cleanup(func() {
			span.End()
			var got []attribute.KeyValue
			for _, s := range tracer.Spans() {
				if s.Name == "refused" {
					got = s.Attributes
				}
			}
			want := []attribute.KeyValue{
				attribute.String("usher.rate_limiting.result", "refused"),
				attribute.String("usher.rate_limiting.policy", "real"),
				attribute.StringSlice("usher.rate_limiting.violated_policies", []string{"real"}),
				attribute.String("usher.error.code", usher.CodeRateLimited),
			}
			if diff := compare.Diff(want, got); diff != "" {
				t.Errorf("span attributes:\n%s", diff)
			}
		})
	})

	got := map[string]int64{}
	for _, c := range meter.Counts() {
		if c.Name == "usher.rate_limiting.decisions" {
			continue
		}
		result, _ := c.Attributes.Value("usher.rate_limiting.result")
		policy, _ := c.Attributes.Value("usher.rate_limiting.policy")
		got[fmt.Sprintf("%s %s %s", c.Name, result.AsString(), policy.AsString())] = c.Value
	}
	want := map[string]int64{
		"usher.rate_limiting.requests acquired ":             2,
		"usher.rate_limiting.requests refused real":          2,
		"usher.rate_limiting.requests shadow_refused shadow": 3,
		"usher.rate_limiting.requests near_limit real":       1,
		"usher.rate_limiting.requests near_limit shadow":     1,
		"usher.rate_limiting.requests exempt ":               1,
		"usher.rate_limiting.requests blocked ":              1,
	}
	if diff := compare.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The span has the policy with the longest wait, whose refusal is sent, and the names of
// all that are violated.
func TestASpanNamesAllViolatedPolicies(t *testing.T) {
	tracer := new(oteltest.Tracer)
	shadow := forAll("shadow", ratelimit.Nothing())
	shadow.Shadow = true
	h := limiterOf(t, forAll("day", ratelimit.RollingWindow(1, 24*time.Hour)), forAll("wide", ratelimit.RollingWindow(9, time.Hour)),
		shadow, forAll("a-second", ratelimit.RollingWindow(1, time.Second))).Wrap(ok)
	for _, name := range []string{"admitted", "refused"} {
		ctx, span := tracer.Start(t.Context(), name)
		do(h, func(r *http.Request) { *r = *r.WithContext(ctx) })
		span.End()
	}
	{
		want := map[string][]attribute.KeyValue{
			"admitted": {attribute.String("usher.rate_limiting.result", "acquired")},
			"refused": {
				attribute.String("usher.rate_limiting.result", "refused"),
				attribute.String("usher.rate_limiting.policy", "day"),
				attribute.StringSlice("usher.rate_limiting.violated_policies", []string{"a-second", "day"}),
				attribute.String("usher.error.code", usher.CodeRateLimited),
			},
		}
		got := map[string][]attribute.KeyValue{}
		for _, s := range tracer.Spans() {
			got[s.Name] = s.Attributes
		}
		if diff := compare.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}
