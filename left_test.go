package usher_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/exchange"
)

// queryCanceled is what drivers return if PostgreSQL has stopped a query.
type queryCanceled struct{}

func (queryCanceled) Error() string    { return "canceling statement due to user request" }
func (queryCanceled) SQLState() string { return "57014" }

// interrupt is the cause of signal.NotifyContext, and like the error of a net.Dialer whose
// context was canceled.
type interrupt struct{}

func (interrupt) Error() string        { return "interrupt signal received" }
func (interrupt) Is(target error) bool { return target == context.Canceled }

// A handler fails because its context has ended. What is an error of 500 or above is
// reported and alarms operators; what a client does by itself should not.
func TestFailKnowsWhyWorkHasStopped(t *testing.T) {
	const (
		left  = usher.CodeClientClosedRequest
		late  = usher.CodeDeadlineExceeded
		fault = usher.CodeInternal
	)
	type end = func(context.Context) (context.Context, context.CancelFunc)
	leaves := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx, cancel
	}
	expires := func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, 0) }
	stays := func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }
	stops := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(errors.New("the server is shutting down"))
		return ctx, func() {}
	}
	signaled := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(interrupt{})
		return ctx, func() {}
	}
	disconnected := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		cancel(idempotency.ErrDisconnected)
		return ctx, func() {}
	}
	full := errors.New("disk full")
	wrapped := func(err error) error { return fmt.Errorf("select: %w", err) }
	tests := map[string]struct {
		end    end
		err    error
		status int
		code   string
		within end // of the handler
	}{
		"the client left":                               {leaves, context.Canceled, 499, left, nil},
		"the client left, wrapped":                      {leaves, wrapped(context.Canceled), 499, left, nil},
		"the client left, an error of the database":     {leaves, wrapped(queryCanceled{}), 499, left, nil},
		"the client left, a store that is unavailable":  {leaves, &usher.Error{Status: 503, Code: "down", Cause: wrapped(context.Canceled)}, 499, left, nil},
		"the client left, a refusal":                    {leaves, &usher.Error{Status: 409, Code: "taken", Cause: wrapped(context.Canceled)}, 409, "taken", nil},
		"the client left, another error":                {leaves, full, 500, fault, nil},
		"the client left, another error with a status":  {leaves, &usher.Error{Status: 503, Code: "down", Cause: full}, 503, "down", nil},
		"idempotency has waited for the client":         {leaves, idempotency.ErrDisconnected, 499, left, disconnected},
		"the client left, joined":                       {leaves, errors.Join(wrapped(context.Canceled), queryCanceled{}), 499, left, nil},
		"the client left, joined with another error":    {leaves, errors.Join(context.Canceled, full), 500, fault, nil},
		"the client left, with a kind of error":         {leaves, fmt.Errorf("%w: %w", usher.ErrUnavailable, context.Canceled), 499, left, nil},
		"the client left, a connection":                 {leaves, &net.OpError{Op: "dial", Err: interrupt{}}, 499, left, nil},
		"a joined error with a status":                  {leaves, &usher.Error{Status: 503, Code: "down", Cause: wrapped(errors.Join(full, context.Canceled))}, 503, "down", nil},
		"the handler has canceled its own context":      {stays, context.Canceled, 500, fault, leaves},
		"the handler has canceled a part of its work":   {stays, context.Canceled, 500, fault, nil},
		"the server has canceled the request":           {stops, context.Canceled, 500, fault, nil},
		"a signal has canceled the request":             {signaled, context.Canceled, 500, fault, nil},
		"a signal has canceled a query":                 {signaled, wrapped(interrupt{}), 500, fault, nil},
		"a signal has canceled idempotent work":         {signaled, context.Canceled, 500, fault, disconnected},
		"the request has taken too long":                {expires, context.DeadlineExceeded, 504, late, nil},
		"the request has taken too long, wrapped":       {expires, wrapped(context.DeadlineExceeded), 504, late, nil},
		"the request has taken too long, a read":        {expires, wrapped(os.ErrDeadlineExceeded), 504, late, nil},
		"the request has taken too long, the database":  {expires, wrapped(queryCanceled{}), 504, late, nil},
		"the request has taken too long, another error": {expires, full, 500, fault, nil},
		"a part of the work has taken too long":         {stays, wrapped(context.DeadlineExceeded), 504, late, nil},
		"a connection has a deadline of its own":        {stays, os.ErrDeadlineExceeded, 500, fault, nil},
		"the database has a time limit of its own":      {stays, queryCanceled{}, 500, fault, nil},
		"http.TimeoutHandler has responded":             {expires, wrapped(http.ErrHandlerTimeout), 503, late, nil},
	}
	deadline := usher.Deadline(time.Hour, errGateway)
	for name, tt := range tests {
		for around, m := range map[string]usher.Middleware{"": usher.Chain(), " inside Deadline": deadline} {
			t.Run(name+around, func(t *testing.T) {
				var reported []error
				env := usher.Must(envelope.New(envelope.Config{
					Shape:   envelope.Data(),
					OnError: func(_ context.Context, err error) { reported = append(reported, err) },
				}))
				ctx, cancel := tt.end(t.Context())
				defer cancel()
				r := usher.Track(get().WithContext(ctx))
				if ctx = r.Context(); tt.within != nil {
					ctx, cancel = tt.within(ctx)
					defer cancel()
				}
				w := serve(usher.Chain(env, m).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					usher.Fail(w, r, tt.err)
				})), r.WithContext(ctx))
				equal(t, "status", tt.status, w.Code)
				equal(t, "code", tt.code, errorCode(t, w))
				if got := len(reported) > 0; got != (tt.status >= 500) {
					t.Errorf("reported %v", reported)
				}
				for _, err := range reported {
					if !errors.Is(err, cmp.Or(errors.Unwrap(tt.err), tt.err)) {
						t.Errorf("reported %v without its cause", err)
					}
				}
				// Idempotency must not take a 503 for a handler that had no effect.
				if got := exchange.From(r.Context()).TimedOut(); got != (tt.code == late) {
					t.Errorf("the exchange says that time ran out: %t", got)
				}
			})
		}
	}
}

// A Deadline that has passed is one of the ways in which the time of a request runs out.
func TestADeadlineEndsAReadToo(t *testing.T) {
	for _, err := range []error{os.ErrDeadlineExceeded, queryCanceled{}} {
		synctest.Test(t, func(t *testing.T) {
			w := serve(usher.Deadline(time.Second, errGateway).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				usher.Fail(w, r, err)
			})), get())
			equal(t, err.Error(), errGateway.Code, codeOf(t, w))
		})
	}
}

// Over a real connection: the access log has a 499, and nobody is alarmed.
func TestAClientThatDisconnectsIsNoFailure(t *testing.T) {
	for name, respond := range map[string]func(w http.ResponseWriter, r *http.Request){
		"Fail": func(w http.ResponseWriter, r *http.Request) {
			usher.Fail(w, r, fmt.Errorf("query: %w", r.Context().Err()))
		},
		"Authenticate": usher.Authenticate(ends{}).Wrap(http.NotFoundHandler()).ServeHTTP,
	} {
		t.Run(name, func(t *testing.T) {
			env := usher.Must(envelope.New(envelope.Config{OnError: func(_ context.Context, err error) { t.Errorf("reported %v", err) }}))
			arrived, statuses := make(chan struct{}), make(chan int, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				log := &statusLog{ResponseWriter: w}
				env.ServeNext(log, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(arrived)
					<-r.Context().Done()
					respond(w, r)
				}))
				statuses <- log.status
			}))
			defer server.Close()
			ctx, leave := context.WithCancel(t.Context())
			go func() {
				<-arrived
				leave()
			}()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			if res, err := server.Client().Do(r); err == nil {
				_ = res.Body.Close()
				t.Error("the client has a response")
			}
			equal(t, "status", usher.StatusClientClosedRequest, <-statuses)
		})
	}
}

// ends is an authenticator whose store obeys the context of the request.
type ends struct{}

func (ends) Authenticate(r *http.Request) (*usher.Principal, error) {
	return nil, fmt.Errorf("store: %w", context.Cause(r.Context()))
}

// A statusLog keeps the status of a response, for an access log.
type statusLog struct {
	http.ResponseWriter
	status int
}

func (w *statusLog) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// errorCode returns the code of an error in the shape envelope.Data.
func errorCode(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var body struct{ Error struct{ Code string } }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return body.Error.Code
}
