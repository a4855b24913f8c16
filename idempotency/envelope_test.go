package idempotency_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// enveloped is a response in the standard shape.
type enveloped struct {
	Status   int    `json:"status_code"`
	Message  string `json:"message"`
	Data     any    `json:"data"`
	Metadata struct {
		Timestamp time.Time `json:"timestamp"`
	} `json:"metadata"`
}

// fromHeader lets the tests choose the IDs of requests.
var fromHeader = envelope.RequestIDFromHeader("X-Request-Id")

func requestID(id string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("X-Request-Id", id) }
}

// The ways in which a handler responds within an envelope.
var responding = []struct {
	name    string
	status  int
	handler http.HandlerFunc
}{
	{"plain JSON", 201, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(201)
		fmt.Fprint(w, `{"id":7}`)
	}},
	{"an error in plain text", 404, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no such order", 404)
	}},
	{"an explicit writer", 201, func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Created("/orders/7", map[string]int{"id": 7})
	}},
	{"a status and then an explicit writer", 201, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(201)
		envelope.For(w, r).Value(map[string]int{"id": 7})
	}},
	{"usher.Fail", 404, func(w http.ResponseWriter, r *http.Request) {
		usher.Fail(w, r, &usher.Error{Status: 404, Code: "no_order", Message: "no such order"})
	}},
}

func newEnvelope(tb testing.TB) *envelope.Envelope {
	tb.Helper()
	e, err := envelope.New(envelope.Config{RequestID: fromHeader, Wrap: true})
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func TestWithinAnEnvelope(t *testing.T) {
	for _, c := range responding {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := &counting{next: c.handler}
				h := newEnvelope(t).Wrap(newMiddleware(t, idempotency.Config{}).Wrap(calls))
				var got [2]enveloped
				var began [2]time.Time
				for i, id := range []string{"first", "today"} {
					began[i] = time.Now()
					w := do(h, post("/", "", requestID(id)))
					if err := json.Unmarshal(w.Body.Bytes(), &got[i]); err != nil {
						t.Fatalf("%v: %s", err, w.Body)
					}
					if w.Code != c.status || got[i].Status != c.status || strings.Count(w.Body.String(), "status_code") != 1 {
						t.Errorf("response %d: %d %s", i, w.Code, w.Body)
					}
					if w.Header().Get("X-Request-Id") != id || w.Header().Get("X-Content-Type-Options") != "nosniff" {
						t.Errorf("response %d: %v", i, w.Header())
					}
					time.Sleep(time.Hour)
				}
				calls.want(t, 1)
				if !got[1].Metadata.Timestamp.Equal(began[1]) {
					t.Errorf("the replay is of %v, want %v", got[1].Metadata.Timestamp, began[1])
				}
				if got[1].Message != got[0].Message || fmt.Sprint(got[1].Data) != fmt.Sprint(got[0].Data) {
					t.Errorf("the replay has %+v, the first response %+v", got[1], got[0])
				}
			})
		})
	}
}

func TestAroundAnEnvelope(t *testing.T) {
	for _, c := range responding {
		t.Run(c.name, func(t *testing.T) {
			calls := &counting{next: c.handler}
			h := newMiddleware(t, idempotency.Config{}).Wrap(newEnvelope(t).Wrap(calls))
			first := do(h, post("/", "", requestID("first")))
			again := do(h, post("/", "", requestID("today")))
			wantReplay(t, again, first)
			calls.want(t, 1)
			if again.Code != c.status || strings.Count(again.Body.String(), "status_code") != 1 {
				t.Errorf("got %d %s", again.Code, again.Body)
			}
			if again.Header().Get("X-Request-Id") != "" {
				t.Error("the replay carries the ID of another request")
			}
		})
	}
}

// An outer envelope must not wrap a response that an inner one has wrapped.
func TestBetweenTwoEnvelopes(t *testing.T) {
	for _, c := range responding {
		t.Run(c.name, func(t *testing.T) {
			calls := &counting{next: c.handler}
			h := newEnvelope(t).Wrap(newMiddleware(t, idempotency.Config{}).Wrap(newEnvelope(t).Wrap(calls)))
			first := do(h, post("/", ""))
			again := do(h, post("/", ""))
			for i, w := range []string{first.Body.String(), again.Body.String()} {
				if strings.Count(w, "status_code") != 1 {
					t.Errorf("response %d: %s", i, w)
				}
			}
			calls.want(t, 1)
		})
	}
}

func TestRefusalsHaveTheShapeOfTheService(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		retry   func(*http.Request)
		status  int
		details string
	}{
		{"another body", func(http.ResponseWriter, *http.Request) {}, func(r *http.Request) { r.URL.RawQuery = "x" }, 422, ""},
		{"an unknown outcome", func(http.ResponseWriter, *http.Request) { panic("x") }, func(*http.Request) {}, 409, ""},
		{"a status of 500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, func(*http.Request) {}, 409, `"original_status":500`},
		{"a stream", func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }, func(*http.Request) {}, 409, `"original_status":200`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := envelope.New(envelope.Config{
				RequestID: fromHeader,
				Wrap:      true, Shape: envelope.Data(),
				OnPanic: func(*http.Request, any, []byte) {}, OnError: func(context.Context, error) {},
			})
			if err != nil {
				t.Fatal(err)
			}
			h := e.Wrap(newMiddleware(t, idempotency.Config{}).Wrap(c.handler))
			do(h, post("/", ""))
			w := do(h, post("/", "", c.retry))
			if w.Code != c.status || !strings.HasPrefix(w.Body.String(), `{"error":{`) || !strings.Contains(w.Body.String(), c.details) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
	}
}

// A panic in the middle of a response never looks like a whole response.
func TestAPanicWithinAnEnvelope(t *testing.T) {
	panics := 0
	e, err := envelope.New(envelope.Config{
		RequestID: fromHeader,
		Wrap:      true, OnPanic: func(*http.Request, any, []byte) { panics++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	h := e.Wrap(newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"half":`)
		panic("x")
	})))
	if w := do(h, post("/", "")); w.Code != 0 || strings.Contains(w.Body.String(), "}") || panics != 1 {
		t.Errorf("got %d %q, %d panics", w.Code, w.Body, panics)
	}
	if w := do(h, post("/", "")); w.Code != 409 || !strings.Contains(w.Body.String(), "may have had an effect") {
		t.Errorf("the retry got %d %s", w.Code, w.Body)
	}
}
