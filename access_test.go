package usher_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/internal/race"
)

// A seen request is what a handler found behind an Access.
type seen struct {
	reached   bool
	principal string // its ID
}

func (s *seen) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	p, _ := usher.PrincipalFrom(r.Context())
	*s = seen{true, p.ID}
}

const (
	authentication = "github.com/usher-go/usher usher.authentication.requests {request} usher.authentication.result="
	authorization  = "github.com/usher-go/usher usher.authorization.requests {request} usher.authorization.result="
	inShadow       = ",usher.shadow=true"
)

// What Shadow reports is what would happen without it, and what happens is what would
// happen without any middleware.
func TestShadowRefusesNothing(t *testing.T) {
	tests := map[string]struct {
		fields  []string
		counted string
		code    string // of the refusal that OnRefusal gets
		found   string // the ID of the principal
	}{
		"a valid credential":               {[]string{"A", "good"}, authorization + "allowed", "", "A good"},
		"none":                             {nil, authentication + "missing", usher.CodeMissingCredential, ""},
		"an invalid one":                   {[]string{"A", "bad"}, authentication + "refused", "bad_a", ""},
		"two":                              {[]string{"A", "good", "B", "good"}, authentication + "ambiguous", usher.CodeAmbiguousCredentials, ""},
		"one that could not be checked":    {[]string{"A", "error"}, authentication + "unavailable", usher.CodeAuthenticationUnavailable, ""},
		"one of a client that has left":    {[]string{"A", "own 499"}, authentication + "abandoned", "", ""},
		"one that Require does not accept": {[]string{"B", "good"}, authorization + "wrong_kind", usher.CodeWrongCredentialKind, "B good"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var (
				meter   oteltest.Meter
				tracer  oteltest.Tracer
				refused []string
				found   seen
			)
			stack := func(shadow bool) usher.Middleware {
				a := usher.Access{MeterProvider: &meter, Shadow: shadow, OnRefusal: func(_ *http.Request, e *usher.Error) {
					refused = append(refused, e.Code)
				}}
				return usher.Chain(
					a.Authenticate(detector{field: "A"}, kindred{detector{field: "B"}}),
					a.Require(usher.Requirement{Kinds: []usher.Kind{usher.KindAPIKey}}),
				)
			}
			ctx, span := tracer.Start(t.Context(), "server")
			w := serve(stack(true).Wrap(&found), get(tt.fields...).WithContext(ctx))
			span.End()
			equal(t, "status", http.StatusOK, w.Code)
			equal(t, "request", seen{true, tt.found}, found)
			var codes []string
			if tt.code != "" {
				codes = []string{tt.code}
			}
			equal(t, "refusals", codes, refused)
			sums := counts(&meter)
			equal(t, tt.counted, int64(1), sums[tt.counted+inShadow])
			for name := range sums {
				if !strings.HasSuffix(name, inShadow) {
					t.Errorf("%s has no usher.shadow", name)
				}
			}
			noted := attributes(tracer.Spans()[0])
			if text := strings.Join(noted, ","); !strings.Contains(text+",", inShadow+",") || strings.Contains(text, "error") {
				t.Errorf("the span has %q", noted)
			}

			// The same without Shadow.
			meter, refused, found = oteltest.Meter{}, nil, seen{}
			w = serve(stack(false).Wrap(&found), get(tt.fields...))
			equal(t, "refusals without Shadow", codes, refused)
			equal(t, "reached without Shadow", w.Code == http.StatusOK, found.reached)
			enforced := counts(&meter)
			equal(t, "number of counters", len(sums), len(enforced))
			for name, n := range enforced {
				equal(t, name+" in Shadow", n, sums[name+inShadow])
			}
		})
	}
}

// A server that already authenticates its clients can try another Authenticate inside.
// Clients who fail it keep what the outer one decided: who is limited, whose idempotency
// keys are theirs, and what a Require that is not in Shadow admits.
func TestShadowTakesNoPrincipalAway(t *testing.T) {
	shadow := usher.Access{Shadow: true}
	own := &usher.Principal{ID: "own"}
	for name, outer := range map[string]usher.Middleware{
		"Authenticate": usher.Authenticate(constant{own}),
		"WithPrincipal": usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(w, usher.WithPrincipal(r, own))
		}),
	} {
		for _, tt := range []struct {
			inner  usher.Authenticator
			fields []string
			want   string
		}{
			{field("A"), nil, "own"},
			{field("A"), []string{"A", "bad"}, "own"},
			{field("A"), []string{"A", "error"}, "own"},
			{usher.Optional(field("A")), nil, "own"},
			{field("A"), []string{"A", "good"}, "A good"},
		} {
			var found seen
			w := serve(usher.Chain(outer, shadow.Authenticate(tt.inner), usher.Require(usher.Requirement{})).Wrap(&found), get(tt.fields...))
			equal(t, fmt.Sprint(name, tt.fields, ": status"), http.StatusOK, w.Code)
			equal(t, fmt.Sprint(name, tt.fields, ": principal"), tt.want, found.principal)
		}
	}
	// Without Shadow, and without an outer principal, there is none.
	for _, m := range []usher.Middleware{
		usher.Chain(usher.Authenticate(constant{own}), usher.Authenticate(usher.Optional(field("A")))),
		shadow.Authenticate(field("A")),
	} {
		var found seen
		serve(m.Wrap(&found), get())
		equal(t, "request", seen{true, ""}, found)
	}
}

// kindred is an authenticator whose principals have the kind "other".
type kindred struct{ detector }

func (k kindred) Authenticate(r *http.Request) (*usher.Principal, error) {
	p, err := k.detector.Authenticate(r)
	if p != nil {
		p.Kind = "other"
	}
	return p, err
}

func TestWhatIsNotInShadowStillRefuses(t *testing.T) {
	var found seen
	shadow := usher.Access{Shadow: true}
	h := usher.Chain(shadow.Authenticate(field("A")), usher.Require(usher.Requirement{})).Wrap(&found)
	for _, fields := range [][]string{nil, {"A", "bad"}} {
		if w := serve(h, get(fields...)); w.Code != http.StatusUnauthorized || found.reached {
			t.Errorf("%q: status %d, handler reached: %t", fields, w.Code, found.reached)
		}
	}
	if w := serve(h, get("A", "good")); w.Code != http.StatusOK || found.principal == "" {
		t.Errorf("a valid credential: status %d, principal %q", w.Code, found.principal)
	}
}

// A mark on a copy of the request must not hide from outer handlers what inner ones store
// in it.
func TestShadowHidesNothingFromOuterHandlers(t *testing.T) {
	shadow := usher.Access{Shadow: true}
	mux := http.NewServeMux()
	mux.Handle("GET /notes", new(seen))
	for name, m := range map[string]usher.Middleware{
		"Authenticate": shadow.Authenticate(field("A")),
		"Require":      shadow.Require(usher.Requirement{}),
	} {
		r := httptest.NewRequest(http.MethodGet, "/notes", nil)
		serve(m.Wrap(mux), r)
		equal(t, name+": pattern", "GET /notes", r.Pattern)
	}
}

func TestOnRefusalKnowsTheRequestAndTheCause(t *testing.T) {
	var (
		calls   []string
		cause   error
		before  bool
		current *httptest.ResponseRecorder
	)
	access := usher.Access{OnRefusal: func(r *http.Request, e *usher.Error) {
		p, _ := usher.PrincipalFrom(r.Context())
		calls = append(calls, strings.Join([]string{e.Code, r.Pattern, envelope.RequestID(r.Context()), p.ID}, " "))
		cause, before = e.Cause, current.Body.Len() == 0
	}}
	env := usher.Must(envelope.New(envelope.Config{RequestID: func(*http.Request) string { return "id" }}))
	mux := http.NewServeMux()
	handle := func(pattern string, want usher.Requirement) {
		mux.Handle(pattern, usher.Chain(env, access.Authenticate(field("A")), access.Require(want)).Wrap(new(seen)))
	}
	handle("GET /all", usher.Requirement{})
	handle("GET /none", usher.Requirement{Scopes: []string{"none"}})
	handle("GET /write", usher.Requirement{Level: usher.LevelReadWrite})
	handle("GET /other", usher.Requirement{Owner: func(*http.Request) string { return "other" }})
	tests := []struct {
		path, credential string
		status           int
		call             string
		cause            string
	}{
		{"/all", "good", 200, "", ""},
		{"/all", "", 401, "missing_credential GET /all id ", ""},
		{"/all", "bad", 401, "bad_a GET /all id ", ""},
		{"/all", "error", 503, "authentication_unavailable GET /all id ", "the store of A is down"},
		{"/all", "own 499", 499, "", ""},
		{"/none", "good", 403, "insufficient_scope GET /none id A good", `usher: the caller has the scopes [] and needs ["none"]`},
		{"/write", "good", 403, "insufficient_permission GET /write id A good", "usher: the caller has the level none and needs read_write"},
		{"/other", "good", 404, "not_found GET /other id A good", "usher: the route belongs to another owner"},
		{"/none", "", 401, "missing_credential GET /none id ", ""},
	}
	for _, tt := range tests {
		t.Run(tt.path+" "+tt.credential, func(t *testing.T) {
			calls, cause = nil, nil
			current = httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, tt.path, nil)
			if tt.credential != "" {
				r.Header.Set("A", tt.credential)
			}
			mux.ServeHTTP(current, r)
			equal(t, "status", tt.status, current.Code)
			equal(t, "calls", tt.call, strings.Join(calls, ", "))
			text := ""
			if cause != nil {
				text = cause.Error()
			}
			equal(t, "cause", tt.cause, text)
			if len(calls) > 0 && !before {
				t.Error("OnRefusal was called after the response")
			}
		})
	}
}

func TestAnOnRefusalThatPanicsChangesNoResponse(t *testing.T) {
	var text bytes.Buffer
	previous := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil)))
	defer slog.SetDefault(previous)
	for _, shadow := range []bool{false, true} {
		text.Reset()
		access := usher.Access{Shadow: shadow, OnRefusal: func(*http.Request, *usher.Error) { panic(errors.New("canary")) }}
		quiet := usher.Access{Shadow: shadow}
		got := serve(access.Authenticate(field("A")).Wrap(new(seen)), get())
		want := serve(quiet.Authenticate(field("A")).Wrap(new(seen)), get())
		equal(t, "status", want.Code, got.Code)
		equal(t, "header", want.Header(), got.Header())
		equal(t, "body", want.Body.String(), got.Body.String())
		if log := text.String(); !strings.Contains(log, "usher: Access") || !strings.Contains(log, "access_test.go") || strings.Contains(log, "canary") {
			t.Errorf("the log has %q", log)
		}
	}
}

func TestTracePrincipal(t *testing.T) {
	var (
		meter  oteltest.Meter
		global oteltest.Meter
		tracer oteltest.Tracer
	)
	previous := otel.GetMeterProvider()
	otel.SetMeterProvider(&global)
	defer otel.SetMeterProvider(previous)
	owned := constant{&usher.Principal{ID: "canary-id", Kind: usher.KindJWT, Owner: "canary-owner"}}
	alone := constant{&usher.Principal{ID: "canary-id", Kind: usher.KindAPIKey}}
	who := []string{"user.id=canary-id", "usher.principal.kind=jwt", "usher.principal.owner=canary-owner"}
	on := usher.Access{MeterProvider: &meter, TracePrincipal: true}
	off := usher.Access{MeterProvider: &meter}
	tests := map[string]struct {
		m    usher.Middleware
		want []string
	}{
		"a principal":                {on.Authenticate(owned), who},
		"one without an owner":       {on.Authenticate(alone), []string{"user.id=canary-id", "usher.principal.kind=api_key"}},
		"one that Require refuses":   {usher.Chain(off.Authenticate(owned), on.Require(usher.Requirement{Level: usher.LevelFull})), who},
		"one that Require admits":    {usher.Chain(off.Authenticate(owned), on.Require(usher.Requirement{})), who},
		"an anonymous caller":        {on.Authenticate(usher.Optional(absent{})), nil},
		"a refused one":              {on.Authenticate(absent{}), nil},
		"one that nobody asks about": {usher.Chain(off.Authenticate(owned), off.Require(usher.Requirement{})), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tracer.Reset()
			ctx, span := tracer.Start(t.Context(), "server")
			serve(tt.m.Wrap(new(seen)), get().WithContext(ctx))
			span.End()
			var got []string
			for _, a := range attributes(tracer.Spans()[0]) {
				if strings.HasPrefix(a, "user.") || strings.HasPrefix(a, "usher.principal") {
					got = append(got, a)
				}
			}
			equal(t, "attributes", tt.want, got)
		})
	}
	for name := range counts(&meter) {
		if strings.Contains(name, "canary") {
			t.Errorf("a principal is on the counter %s", name)
		}
	}
	if len(global.Counts()) > 0 {
		t.Error("the global provider counts in place of Access.MeterProvider")
	}
}

// Without a span that is being recorded, no choice costs an allocation for a caller who is
// admitted.
func TestAccessAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	a := usher.Access{Shadow: true, TracePrincipal: true, OnRefusal: func(*http.Request, *usher.Error) {}}
	h := usher.Chain(a.Authenticate(constant{caller}), a.Require(usher.Requirement{Level: usher.LevelFull})).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w, r := discard{http.Header{}}, usher.Track(get())
	if got := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
