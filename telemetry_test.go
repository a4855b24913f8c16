package usher_test

import (
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/oteltest"
)

// counts returns the sums of all counters by name and attributes.
func counts(meter *oteltest.Meter) map[string]int64 {
	sums := map[string]int64{}
	for _, c := range meter.Counts() {
		sums[strings.Join([]string{c.Scope, c.Name, c.Unit, c.Attributes.Encoded(attribute.DefaultEncoder())}, " ")] += c.Value
	}
	return sums
}

func TestTelemetry(t *testing.T) {
	const (
		secret  = "canary-credential"
		counter = "github.com/usher-go/usher usher.authentication.requests {request} usher.authentication.result="
	)
	var (
		meter  oteltest.Meter
		tracer oteltest.Tracer
	)
	global := otel.GetMeterProvider()
	otel.SetMeterProvider(&meter)
	defer otel.SetMeterProvider(global)

	one := usher.Authenticate(field("A"))
	two := usher.Authenticate(detector{field: "A"}, detector{field: "B"})
	optional := usher.Authenticate(usher.Optional(field("A")))
	tests := []struct {
		outcome string
		m       usher.Middleware
		fields  []string
		noted   []string // besides the outcome
	}{
		{"accepted", one, []string{"A", "good"}, nil},
		{"refused", one, []string{"A", secret}, refusal("bad_a")},
		{"missing", one, nil, refusal("missing_credential")},
		{"unavailable", one, []string{"A", "error"}, failure("authentication_unavailable")},
		{"unavailable", one, []string{"A", "own 503"}, failure("own_code")},
		{"unavailable", one, []string{"A", "nothing"}, failure("authentication_unavailable")},
		{"abandoned", one, []string{"A", "own 499"}, refusal("client_closed_request")},
		{"ambiguous", two, []string{"A", "good", "B", secret}, refusal("ambiguous_credentials")},
		{"anonymous", optional, nil, nil},
		{"accepted", optional, []string{"A", "good"}, nil},
	}
	want := map[string]int64{}
	for _, tt := range tests {
		want[counter+tt.outcome]++
		r := get(tt.fields...)
		ctx, span := tracer.Start(r.Context(), "server")
		serve(tt.m.Wrap(http.NotFoundHandler()), r.WithContext(ctx))
		span.End()

		got := tracer.Spans()
		tracer.Reset()
		if len(got) != 1 {
			t.Fatalf("%s: %d spans", tt.outcome, len(got))
		}
		equal(t, tt.outcome+": attributes", append([]string{"usher.authentication.result=" + tt.outcome}, tt.noted...), attributes(got[0]))
		if len(got[0].Events) != 0 || got[0].Status != codes.Unset {
			t.Errorf("%s: events %v, status %v", tt.outcome, got[0].Events, got[0].Status)
		}
	}
	sums := counts(&meter)
	equal(t, "counters", want, sums)
	for name := range sums {
		if strings.Contains(name, secret) {
			t.Errorf("a credential is in %q", name)
		}
	}
}

func TestAuthorizationTelemetry(t *testing.T) {
	const counter = "github.com/usher-go/usher usher.authorization.requests {request} usher.authorization.result="
	var (
		meter  oteltest.Meter
		tracer oteltest.Tracer
	)
	global := otel.GetMeterProvider()
	otel.SetMeterProvider(&meter)
	defer otel.SetMeterProvider(global)

	owner := "acme"
	m := usher.Require(usher.Requirement{
		Kinds: []usher.Kind{usher.KindJWT}, Scopes: []string{"a"}, Level: usher.LevelFull,
		Owner: func(*http.Request) string { return owner },
	})
	want := map[string]int64{}
	codes := map[string][]string{
		"missing":                 refusal("missing_credential"),
		"wrong_kind":              refusal("wrong_credential_kind"),
		"insufficient_scope":      refusal("insufficient_scope"),
		"insufficient_permission": refusal("insufficient_permission"),
		"wrong_owner":             refusal("not_found"),
		"no_owner":                refusal("not_found"),
	}
	for outcome, p := range map[string]*usher.Principal{
		"missing":                 nil,
		"wrong_kind":              {Kind: usher.KindAPIKey},
		"insufficient_scope":      {Kind: usher.KindJWT},
		"insufficient_permission": {Kind: usher.KindJWT, Scopes: []string{"a"}},
		"wrong_owner":             {Kind: usher.KindJWT, Scopes: []string{"a"}, Level: usher.LevelFull, Owner: "other"},
		"no_owner":                {Kind: usher.KindJWT, Scopes: []string{"a"}, Level: usher.LevelFull, Owner: "acme"},
		"allowed":                 {Kind: usher.KindJWT, Scopes: []string{"a"}, Level: usher.LevelFull, Owner: "acme"},
	} {
		want[counter+outcome]++
		owner = "acme"
		if outcome == "no_owner" {
			owner = "" // as r.PathValue returns outside the router
		}
		r := get()
		ctx, span := tracer.Start(r.Context(), "server")
		r = r.WithContext(ctx)
		if p != nil {
			r = usher.WithPrincipal(r, p)
		}
		serve(m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), r)
		span.End()
		got := tracer.Spans()
		tracer.Reset()
		equal(t, outcome+": attributes", append([]string{"usher.authorization.result=" + outcome}, codes[outcome]...), attributes(got[0]))
	}
	equal(t, "counters", want, counts(&meter))
}

// refusal returns what Fail notes on a span about an error of the client.
func refusal(code string) []string { return []string{"usher.error.code=" + code} }

// failure returns what Fail notes on a span about an error of the server.
func failure(code string) []string { return append(refusal(code), "error.type="+code) }

func attributes(span oteltest.Span) (list []string) {
	for _, kv := range span.Attributes {
		list = append(list, string(kv.Key)+"="+kv.Value.String())
	}
	return list
}
