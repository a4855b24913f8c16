package usher_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

var errGateway = &usher.Error{Status: http.StatusGatewayTimeout, Code: "too_slow", Message: "Too slow."}

func TestDeadline(t *testing.T) {
	wait := func(r *http.Request) error {
		<-r.Context().Done()
		return r.Context().Err()
	}
	tests := map[string]struct {
		handler http.HandlerFunc
		status  int
		body    string // "" means that of errGateway where the status is 504
	}{
		"a handler in time":           {func(http.ResponseWriter, *http.Request) {}, 200, ""},
		"no response at the deadline": {func(_ http.ResponseWriter, r *http.Request) { _ = wait(r) }, 504, ""},
		"a context that is ignored":   {func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }, 504, ""},
		"the error of the context":    {func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, wait(r)) }, 504, ""},
		"an error that wraps it":      {func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, fmt.Errorf("query: %w", wait(r))) }, 504, ""},
		"the cause of the context": {func(w http.ResponseWriter, r *http.Request) {
			_ = wait(r)
			usher.Fail(w, r, context.Cause(r.Context()))
		}, 504, ""},
		"an error of the handler's own": {func(w http.ResponseWriter, r *http.Request) {
			usher.Fail(w, r, &usher.Error{Status: 409, Cause: wait(r)})
		}, 409, `{"type":"about:blank","title":"Conflict","status":409}`},
		"another error after the deadline":     {func(w http.ResponseWriter, r *http.Request) { _ = wait(r); usher.Fail(w, r, io.ErrUnexpectedEOF) }, 500, `{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}`},
		"a status after the deadline":          {func(w http.ResponseWriter, r *http.Request) { _ = wait(r); w.WriteHeader(201) }, 201, ""},
		"a response that has begun":            {func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "begun"); _ = wait(r) }, 200, "begun"},
		"a stream that ends with the deadline": {func(w http.ResponseWriter, r *http.Request) { _ = http.NewResponseController(w).Flush(); _ = wait(r) }, 200, ""},
		"a deadline of the handler's own":      {own, 504, `{"type":"about:blank","title":"Gateway Timeout","status":504,"detail":"The server did not respond in time.","code":"deadline_exceeded"}`},
		"a detached context of equal deadline": {detached, 504, ""},
		"a shorter Deadline inside":            {usher.Deadline(time.Second/2, nil).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = wait(r) })).ServeHTTP, 503, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The server did not respond in time.","code":"deadline_exceeded"}`},
		"a longer Deadline inside":             {usher.Deadline(time.Minute, nil).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = wait(r) })).ServeHTTP, 504, ""},
		"Authenticate inside":                  {usher.Authenticate(constant{caller}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = wait(r) })).ServeHTTP, 504, ""},
		"before the deadline has passed":       {func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, context.DeadlineExceeded) }, 504, `{"type":"about:blank","title":"Gateway Timeout","status":504,"detail":"The server did not respond in time.","code":"deadline_exceeded"}`},
	}
	for name, tt := range tests {
		for way, run := range ways {
			t.Run(name+" by "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := serve(run(usher.Deadline(time.Second, errGateway), tt.handler), get())
					if tt.status == 504 && tt.body == "" {
						tt.body = `{"type":"about:blank","title":"Gateway Timeout","status":504,"detail":"Too slow.","code":"too_slow"}`
					}
					equal(t, "status", tt.status, w.Code)
					equal(t, "body", tt.body, w.Body.String())
				})
			})
		}
	}
}

// own fails with the deadline of one call, which is not the deadline of the request.
func own(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Millisecond)
	defer cancel()
	<-ctx.Done()
	usher.Fail(w, r, ctx.Err())
}

// detached detaches the context, as a middleware does whose work outlives the client.
func detached(w http.ResponseWriter, r *http.Request) {
	end, _ := r.Context().Deadline()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(r.Context()), end)
	defer cancel()
	<-ctx.Done()
	usher.Fail(w, r.WithContext(ctx), ctx.Err())
}

// The error of a Deadline has the shape of the envelope outside it. Idempotency inside
// the Deadline, which detaches the context of the handler, does not hide the error.
func TestDeadlineInAStack(t *testing.T) {
	env := usher.Must(envelope.New(envelope.Config{Shape: envelope.Data()}))
	for name, handler := range map[string]http.HandlerFunc{
		"no response": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"its own Fail": func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			usher.Fail(w, r, r.Context().Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				once := usher.Must(idempotency.New(idempotency.Config{}))
				h := usher.Chain(env, usher.Deadline(time.Second, errGateway), usher.Authenticate(constant{caller}), once).Wrap(handler)
				r := httptest.NewRequest(http.MethodPost, "/notes", nil)
				r.Header.Set("Idempotency-Key", "key")
				w := serve(h, r)
				if w.Code != http.StatusGatewayTimeout || !strings.Contains(w.Body.String(), `"too_slow"`) || w.Header().Get("Content-Type") != "application/json" {
					t.Errorf("status %d, %s: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
				}
			})
		})
	}
}

// The limit that counts by status is inside the Deadline, where there is no response yet.
func TestALimitCountsTheResponseOfADeadline(t *testing.T) {
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		status  int
	}{
		"no response in time":         {func(http.ResponseWriter, *http.Request) {}, 200},
		"no response at the deadline": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 504},
		"a status at the deadline":    {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); w.WriteHeader(201) }, 201},
		"a longer Deadline inside":    {usher.Deadline(time.Minute, nil).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })).ServeHTTP, 504},
		"a shorter Deadline inside":   {usher.Deadline(time.Millisecond, nil).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })).ServeHTTP, 503},
	} {
		synctest.Test(t, func(t *testing.T) {
			counted := 0
			limiter := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
				Name: "outcomes", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(3, time.Hour),
				Count: func(status int) bool { counted = status; return true },
			}}}))
			w := serve(usher.Chain(usher.Deadline(time.Second, errGateway), limiter).Wrap(tt.handler), get())
			equal(t, name+": status", tt.status, w.Code)
			equal(t, name+": counted", tt.status, counted)
		})
	}
}

// A limit refuses a request whose deadline its store has exhausted, and counts its own
// status.
func TestALimitCountsItsOwnResponseAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := 0
		limiter := usher.Must(ratelimit.New(ratelimit.Config{
			Store: slowTake{usher.Must(ratelimit.NewMemory(ratelimit.MemoryConfig{}))},
			Policies: []ratelimit.Policy{{
				Name: "outcomes", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(3, time.Hour),
				Count: func(status int) bool { counted = status; return true },
			}},
		}))
		w := serve(usher.Chain(usher.Deadline(time.Millisecond, errGateway), limiter).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Error("the request is admitted")
		})), get())
		equal(t, "counted", w.Code, counted)
	})
}

// A handler that returned in time without a response has succeeded, however long the
// store takes for the refund.
func TestARefundDoesNotMissTheDeadlineForTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := 0
		limiter := usher.Must(ratelimit.New(ratelimit.Config{
			Store: slowAdjust{usher.Must(ratelimit.NewMemory(ratelimit.MemoryConfig{}))},
			Policies: []ratelimit.Policy{{
				Name: "failures", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(3, time.Hour),
				Count: func(status int) bool { counted = status; return status >= 400 },
			}},
		}))
		w := serve(usher.Chain(usher.Deadline(time.Millisecond, errGateway), limiter).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), get())
		equal(t, "status", 200, w.Code)
		equal(t, "counted", 200, counted)
		if err := limiter.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A slowAdjust is a store that refunds after the deadline.
type slowAdjust struct{ *ratelimit.Memory }

func (s slowAdjust) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	time.Sleep(2 * time.Millisecond)
	return s.Memory.Adjust(ctx, d)
}

// A slowTake is a store that decides after the deadline.
type slowTake struct{ *ratelimit.Memory }

func (s slowTake) Take(ctx context.Context, d *ratelimit.Decision) error {
	time.Sleep(2 * time.Millisecond)
	return s.Memory.Take(ctx, d)
}

func TestDeadlineLeavesOtherEndsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := usher.Deadline(time.Second, errGateway).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			time.Sleep(time.Minute)
		}))
		if w := serve(h, get().WithContext(ctx)); w.Body.Len() != 0 {
			t.Errorf("the client has gone, and there was a response: %s", w.Body)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		serve(usher.Deadline(time.Second, errGateway).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			time.Sleep(time.Minute)
			panic("late")
		})), get())
	})
	synctest.Test(t, func(t *testing.T) {
		w := &hijackable{ResponseRecorder: httptest.NewRecorder()}
		usher.Deadline(time.Second, errGateway).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
		})).ServeHTTP(w, get())
		if w.Body.Len() != 0 {
			t.Errorf("written to a connection that was hijacked: %s", w.Body)
		}
	})
}

type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

func TestDeadlineOfNothingPanics(t *testing.T) {
	mustPanic(t, "usher: Deadline must be positive", func() { usher.Deadline(0, nil) })
	mustPanic(t, "usher: Deadline must be positive", func() { usher.Deadline(-time.Second, nil) })
}

// OnError and the log get what took too long; clients do not.
func TestDeadlineKeepsTheCauseForOperators(t *testing.T) {
	for _, outside := range []*usher.Error{nil, errGateway} {
		synctest.Test(t, func(t *testing.T) {
			var got error
			env, err := envelope.New(envelope.Config{OnError: func(_ context.Context, err error) { got = err }})
			if err != nil {
				t.Fatal(err)
			}
			h := usher.Chain(env, usher.Deadline(time.Second, outside)).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				usher.Fail(w, r, fmt.Errorf("query of the users: %w", r.Context().Err()))
			}))
			w := serve(h, get())
			if got == nil || !strings.Contains(got.Error(), "query of the users") {
				t.Errorf("OnError gets %v", got)
			}
			if strings.Contains(w.Body.String(), "users") {
				t.Errorf("the client gets %s", w.Body)
			}
		})
	}
	if errGateway.Cause != nil {
		t.Error("the error of the Deadline has changed")
	}
}
