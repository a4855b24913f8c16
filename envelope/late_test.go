package envelope_test

import (
	"context"
	"encoding/json"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// then returns a handler that sends a status before it calls next.
func then(status int, contentType string, next func(envelope.Writer)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		next(envelope.For(w, r))
	}
}

func value(o envelope.Writer) { o.Value(map[string]int{"id": 7}) }

func TestAStatusAndThenAValueSendsBoth(t *testing.T) {
	const data = `"data":{"id":7}`
	for _, wrap := range []bool{false, true} {
		for _, shape := range shapes {
			for _, contentType := range []string{"", "application/json"} {
				t.Run(shape.name+" "+contentType, func(t *testing.T) {
					env := must(envelope.Config{Shape: shape.shape, Wrap: wrap})
					got := get(t, start(t, env.Wrap(then(201, contentType, value))), "/")
					wantStatus(t, got, 201)
					want := `{"id":7}`
					if shape.shape.Before != nil {
						want = data
					}
					if !json.Valid([]byte(got.body)) || strings.Count(got.body, want) != 1 || strings.Count(got.body, "id") > 1+strings.Count(got.body, "request_id") {
						t.Errorf("body %s", got.body)
					}
					if contentType != "" {
						wantHeader(t, got, "Content-Type", contentType)
					}
				})
			}
		}
	}
}

func TestWhatFollowsAStatus(t *testing.T) {
	fail := func(w http.ResponseWriter, r *http.Request) {
		usher.Fail(w, r, &usher.Error{Status: 409, Code: "c", Message: "m"})
	}
	const page = `{"status_code":202,"message":"m","data":[1],"pagination":{"page":1,"limit":1,"total":2,"pages":2},"metadata":{"request_id":"ID","method":"GET","url":"/","execution_time_ms":0,"timestamp":"T"}}`
	tests := []struct {
		name    string
		handler http.HandlerFunc
		status  int
		body    string
	}{
		{"a page of a list", then(202, "application/json", func(o envelope.Writer) {
			o.Message("m").List([]int{1}, usher.Page{Number: 1, Limit: 1, Total: 2})
		}), 202, page},
		{"a page of a list, without a type", then(202, "", func(o envelope.Writer) {
			o.Message("m").List([]int{1}, usher.Page{Number: 1, Limit: 1, Total: 2})
		}), 202, page},
		{"Created keeps the status", then(202, "application/json", func(o envelope.Writer) { o.Created("/x", 1) }), 202, `"data":1`},
		{"Respond", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(203)
			usher.Respond(w, r, usher.Reply{Status: 201, Message: "made", Data: 1})
		}, 203, `{"status_code":203,"message":"made","data":1,`},
		{"no data", then(201, "application/json", func(o envelope.Writer) { o.Value(nil) }), 201, `{"status_code":201,"message":"Created","metadata"`},
		{"Fail has its body in the status that was sent", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			fail(w, r)
		}, 404, `{"status_code":404,"code":"c","message":"m","metadata"`},
		{"Status", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Status(202).Value(1) }, 202, `"data":1`},
		{"Status of a list", func(w http.ResponseWriter, r *http.Request) {
			envelope.For(w, r).Status(206).List([]int{1}, usher.Page{})
		}, 206, `"data":[1]`},
		{"Status of an error", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Status(404).Value(1) }, 500, `"message":"Internal Server Error"`},
	}
	for _, wrap := range []bool{true, false} {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				env := must(envelope.Config{Wrap: wrap, OnError: func(context.Context, error) {}})
				got := get(t, start(t, env.Wrap(tt.handler)), "/")
				wantStatus(t, got, tt.status)
				if !json.Valid([]byte(got.body)) || !strings.Contains(still(got.body), tt.body) {
					t.Errorf("body %s", still(got.body))
				}
			})
		}
	}
}

// The catalogue cannot change a status that has been sent.
func TestWhatFollowsAStatusHasThatStatus(t *testing.T) {
	env := must(envelope.Config{Wrap: true, Catalogue: envelope.Catalogue{Codes: map[string]envelope.Entry{
		"made": {Status: 202, Message: "Made"}, "taken": {Status: 410, Message: "Taken"},
	}}})
	for _, contentType := range []string{"", "application/json"} {
		got := get(t, start(t, env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(203)
			usher.Respond(w, r, usher.Reply{Code: "made", Data: 1})
		}))), "/")
		if !strings.HasPrefix(got.body, `{"status_code":203,"message":"Made","data":1,`) {
			t.Errorf("body %s", got.body)
		}
	}
	got := get(t, start(t, env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		usher.Fail(w, r, &usher.Error{Status: 409, Code: "taken"})
	}))), "/")
	if !strings.HasPrefix(got.body, `{"status_code":404,"code":"taken","message":"Taken",`) {
		t.Errorf("body %s", got.body)
	}
}

// No client waits for a handler that http.TimeoutHandler has abandoned.
func TestDataThatNobodyWaitsForIsNoLoss(t *testing.T) {
	var reports reporter
	env := must(envelope.Config{Wrap: true, OnError: reports.onError})
	sent, done := make(chan struct{}), make(chan struct{})
	s := start(t, env.Wrap(http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		<-sent
		value(envelope.For(w, r))
	}), time.Millisecond, "")))
	wantStatus(t, get(t, s, "/"), 503)
	close(sent)
	<-done
	for _, e := range reports.reports() {
		if e.Status != 503 { // that of the handler of the timeout
			t.Errorf("reported %v", e)
		}
	}
}

// Data that is too late to send is reported.
func TestLostDataIsReported(t *testing.T) {
	twice := func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Value(1)
		envelope.For(w, r).Value(2)
	}
	tests := []struct {
		name    string
		method  string
		handler http.HandlerFunc
		reports int
	}{
		{"after a body", http.MethodGet, func(w http.ResponseWriter, r *http.Request) {
			writes(200, map[string]string{"Content-Type": "text/csv"}, "a,b")(w, r)
			value(envelope.For(w, r))
		}, 1},
		{"after another value", http.MethodGet, twice, 1},
		{"after a refusal", http.MethodGet, func(w http.ResponseWriter, r *http.Request) {
			usher.Fail(w, r, &usher.Error{Status: 403})
			value(envelope.For(w, r))
		}, 1},
		{"after 204", http.MethodGet, then(204, "", value), 1},
		{"after 404", http.MethodGet, then(404, "", value), 1},
		{"nothing after 204", http.MethodGet, then(204, "", envelope.Writer.NoContent), 0},
		{"to HEAD", http.MethodHead, then(201, "", value), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var reports reporter
			env := must(envelope.Config{Wrap: true, OnError: reports.onError})
			do(t, start(t, env.Wrap(tt.handler)), tt.method, "/")
			if errs := reports.reports(); len(errs) != tt.reports {
				t.Errorf("reported %v", errs)
			}
		})
	}
}

// The server would name a file of this module, and only the caller can be repaired.
func TestASecondStatusIsReportedWithItsCaller(t *testing.T) {
	env := quiet(envelope.Config{Wrap: true})
	twice := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		w.WriteHeader(http.StatusOK)
		http.Error(w, "late", http.StatusConflict)
	})
	auth := usher.Authenticate(usher.Optional(nobody{}))
	for name, h := range map[string]http.Handler{
		"an envelope":                env.Wrap(twice),
		"without Wrap":               must(envelope.Config{}).Wrap(twice),
		"another middleware inside":  env.Wrap(auth.Wrap(twice)),
		"another middleware outside": auth.Wrap(env.Wrap(twice)),
		"a foreign writer inside": env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			twice.ServeHTTP(foreign{w}, r)
		})),
	} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			s := httptest.NewUnstartedServer(h)
			s.Config.ErrorLog = stdlog.New(&log, "", 0)
			s.Start()
			wantStatus(t, get(t, s, "/"), 202)
			s.Close()
			if n := strings.Count(log.String(), "superfluous response.WriteHeader call from "); n != 2 || strings.Count(log.String(), "(late_test.go:") != 2 {
				t.Errorf("log %s", &log)
			}
		})
	}
}

// foreign is a writer of another module.
type foreign struct{ http.ResponseWriter }

func (f foreign) WriteHeader(status int) { f.ResponseWriter.WriteHeader(status) }
