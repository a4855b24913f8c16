package envelope_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// rich is an error with all that a client can be shown.
var rich = &usher.Error{
	Status: 422, Code: "bad_order", Message: "m", Param: "p", Details: map[string]any{"balance": 3},
	Fields: []usher.Field{{Name: "f", Message: "x"}}, RetryAfter: 2 * time.Second, Cause: errDatabase,
}

// documented is a catalogue with a page for the code of rich.
var documented = envelope.Catalogue{Codes: map[string]envelope.Entry{"bad_order": {Documentation: "https://docs/bad_order"}}}

// An error shows all that its shape has room for: by itself, or where a client may know the
// documented body, if the shape is configured for it.
func TestShapesShowWhatTheyHaveRoomFor(t *testing.T) {
	const (
		fields   = `"errors":[{"field":"f","message":"x"}]`
		metadata = `"metadata":{"request_id":"a/1","method":"GET","url":"/","execution_time_ms":0,"timestamp":"T"}`
	)
	tests := []struct {
		name      string
		shape     envelope.Shape
		catalogue envelope.Catalogue
		want      string
	}{
		{"standard", envelope.Standard(), envelope.Catalogue{}, `{"status_code":422,"code":"bad_order","message":"m","param":"p",` + fields + `,"details":{"balance":3},` + metadata + `}`},
		{"standard, documented", envelope.Standard(), documented, `{"status_code":422,"code":"bad_order","message":"m","param":"p","doc_url":"https://docs/bad_order",` + fields + `,"details":{"balance":3},` + metadata + `}`},
		{
			"standard, as before", envelope.StandardConfig{ClientIP: true, OmitCode: true, OmitDetails: true, OmitRequestID: true}.Shape(), envelope.Catalogue{},
			`{"status_code":422,"message":"m",` + fields + `,"metadata":{"method":"GET","url":"/","execution_time_ms":0,"ip":"192.0.2.1","timestamp":"T"}}`,
		},
		{"data", envelope.Data(), envelope.Catalogue{}, `{"error":{"code":"bad_order","message":"m","details":{"balance":3},"retry_after":2},"retry_after":2}`},
		{
			"data, all", envelope.DataConfig{Param: true, RequestID: true}.Shape(), documented,
			`{"error":{"code":"bad_order","message":"m","param":"p","doc_url":"https://docs/bad_order","details":{"balance":3},"retry_after":2,"request_id":"a/1"},"retry_after":2}`,
		},
		{"typed", envelope.Typed(), envelope.Catalogue{}, `{"error":{"type":"invalid_request_error","code":"bad_order","message":"m","param":"p",` + fields + `,"request_id":"a/1"}}`},
		{
			"typed, all", envelope.TypedConfig{Details: true}.Shape(), documented,
			`{"error":{"type":"invalid_request_error","code":"bad_order","message":"m","param":"p","doc_url":"https://docs/bad_order",` + fields + `,"details":{"balance":3},"request_id":"a/1"}}`,
		},
		{"detail", envelope.Detail(), documented, `{"detail":"m f: x"}`},
		{
			"problem", envelope.Problem("https://api/"), envelope.Catalogue{},
			`{"type":"https://api/bad_order","title":"Unprocessable Entity","status":422,"detail":"m","code":"bad_order","param":"p",` + fields + `,"balance":3}`,
		},
		{
			"problem, all", envelope.ProblemConfig{InstancePrefix: "urn:request:", RequestID: true}.Shape(), documented,
			`{"type":"https://docs/bad_order","title":"Unprocessable Entity","status":422,"detail":"m","instance":"urn:request:a%2F1","code":"bad_order","param":"p","request_id":"a/1",` + fields + `,"balance":3}`,
		},
		{"bare", envelope.Bare(), envelope.Catalogue{}, `{"code":"bad_order","message":"m","param":"p",` + fields + `,"details":{"balance":3}}`},
		{
			"bare, all", envelope.BareConfig{RequestID: true}.Shape(), documented,
			`{"code":"bad_order","message":"m","param":"p","doc_url":"https://docs/bad_order",` + fields + `,"details":{"balance":3},"request_id":"a/1"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			must(envelope.Config{
				Shape: tt.shape, Catalogue: tt.catalogue, RequestID: func(*http.Request) string { return "a/1" },
			}).Wrap(failing(rich)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			wantBody(t, reply{body: w.Body.String()}, tt.want)
		})
	}
}

// An extension of the service stays: there is never a second member of the same name.
func TestAProblemHasOneRequestID(t *testing.T) {
	w := httptest.NewRecorder()
	must(envelope.Config{Shape: envelope.ProblemConfig{RequestID: true}.Shape()}).Wrap(failing(&usher.Error{
		Status: 400, Code: "c", Details: map[string]any{"request_id": "own"},
	})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	wantBody(t, reply{body: w.Body.String()}, `{"type":"about:blank","title":"Bad Request","status":400,"code":"c","request_id":"own"}`)
}

// The type of the catalogue is for programs, and goes before the page for people.
func TestTypesGoBeforeDocumentation(t *testing.T) {
	tests := []struct {
		name  string
		entry envelope.Entry
		of    envelope.Entry // for the status
		want  string
	}{
		{"a page", envelope.Entry{Documentation: "https://docs/c"}, envelope.Entry{}, "https://docs/c"},
		{"a page for the status", envelope.Entry{}, envelope.Entry{Documentation: "https://docs/400"}, "https://docs/400"},
		{"both pages", envelope.Entry{Documentation: "https://docs/c"}, envelope.Entry{Documentation: "https://docs/400"}, "https://docs/c"},
		{"a type", envelope.Entry{Type: "t", Documentation: "https://docs/c"}, envelope.Entry{}, "https://api/t"},
		{"a type that is a URI", envelope.Entry{Type: "urn:t", Documentation: "https://docs/c"}, envelope.Entry{}, "urn:t"},
		{"nothing", envelope.Entry{Message: "m"}, envelope.Entry{}, "https://own"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			must(envelope.Config{Shape: envelope.Problem("https://api/"), Catalogue: envelope.Catalogue{
				Codes: map[string]envelope.Entry{"c": tt.entry}, Statuses: map[int]envelope.Entry{400: tt.of},
			}}).Wrap(failing(&usher.Error{Status: 400, Code: "c", Type: "https://own"})).
				ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if want := `{"type":"` + tt.want + `",`; !strings.HasPrefix(w.Body.String(), want) {
				t.Errorf("body %s, want %s", w.Body, want)
			}
		})
	}
}

// A time of 0 looks as if nothing had been measured, and clients expect an integer.
func TestTheExecutionTimeIsRoundedUp(t *testing.T) {
	tests := []struct {
		took            time.Duration
		whole, fraction string
	}{
		{0, "1", "0.001"},
		{1, "1", "0.001"},
		{999 * time.Nanosecond, "1", "0.001"},
		{212 * time.Microsecond, "1", "0.212"},
		{time.Millisecond, "1", "1.000"},
		{time.Millisecond + 1, "2", "1.001"},
		{1999 * time.Microsecond, "2", "1.999"},
		{3*time.Second + 5*time.Microsecond, "3001", "3000.005"},
	}
	for _, tt := range tests {
		for want, c := range map[string]envelope.StandardConfig{tt.whole: {}, tt.fraction: {FractionalTime: true}} {
			synctest.Test(t, func(t *testing.T) {
				w := httptest.NewRecorder()
				must(envelope.Config{Shape: c.Shape()}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					time.Sleep(tt.took)
					envelope.For(w, r).Value(1)
				})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
				if want := `"execution_time_ms":` + want + `,`; !strings.Contains(w.Body.String(), want) {
					t.Errorf("after %v: body %s, want %s", tt.took, w.Body, want)
				}
			})
		}
	}
}

// A shape has media types of its own, for successes and for errors, also for what a handler
// writes itself.
func TestShapesHaveMediaTypes(t *testing.T) {
	const api = "application/vnd.api+json"
	shape := envelope.Data()
	shape.Type, shape.ErrorType = api, "application/vnd.api.error+json"
	env := must(envelope.Config{Shape: shape, Wrap: true})
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"a value", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(1) }, api},
		{"JSON of the handler", writes(200, asJSON, "1"), api},
		{"with an entity tag", writes(200, with(asJSON, "Etag", `"1"`), "1"), api},
		{"a value behind a status", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			envelope.For(w, r).Value(1)
		}, api},
		{"an error", failing(rich), shape.ErrorType},
		{"an error of the handler", writes(404, asJSON, "1"), shape.ErrorType},
		{"what is not wrapped", writes(200, map[string]string{"Content-Type": "text/csv"}, "1"), "text/csv"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantHeader(t, get(t, start(t, env.Wrap(tt.handler)), "/"), "Content-Type", tt.want)
		})
	}
}
