package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A failure that commit writes, but does not return, changes nothing of the response.
func TestCommitThatWritesAFailureWithinAnEnvelope(t *testing.T) {
	h := newEnvelope(t).Wrap(newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := idempotency.From(r.Context()).Commit(r.Context(), func(context.Context, idempotency.Completion) error {
			usher.Fail(w, r, &usher.Error{Status: 404})
			return nil
		}, nil)
		if err != nil {
			t.Error(err)
		}
		usher.Respond(w, r, usher.Reply{Status: 201, Data: "paid"})
	})))
	if w := do(h, post("/", "")); w.Code != 201 || strings.Count(w.Body.String(), "status_code") != 1 || !strings.Contains(w.Body.String(), "paid") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// Of two nested middlewares the outer one has the claim and the transaction.
func TestCommitWithinNestedMiddlewares(t *testing.T) {
	b := newBank(t)
	inner := newMiddleware(t, idempotency.Config{})
	calls := b.pay(writing(201, "paid"))
	h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(inner.Wrap(calls))
	first := do(h, post("/", ""))
	wantReplay(t, do(h, post("/", "")), first)
	b.want(t, 1, 0)
}

// Within an envelope and around one, a response with a transaction is what it is without
// one, and so is its replay. If the transaction fails, the error has the shape of the
// service.
func TestCommitAndEnvelopes(t *testing.T) {
	places := map[string]func(m *idempotency.Middleware, h http.Handler) http.Handler{
		"within": func(m *idempotency.Middleware, h http.Handler) http.Handler { return newEnvelope(t).Wrap(m.Wrap(h)) },
		"around": func(m *idempotency.Middleware, h http.Handler) http.Handler { return m.Wrap(newEnvelope(t).Wrap(h)) },
		"between": func(m *idempotency.Middleware, h http.Handler) http.Handler {
			return newEnvelope(t).Wrap(m.Wrap(newEnvelope(t).Wrap(h)))
		},
	}
	for place, wrap := range places {
		for _, c := range responding {
			t.Run(place+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var got [2][2]*httptest.ResponseRecorder
					for i, with := range []bool{false, true} {
						b := newBank(t)
						calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
							if with {
								if err := b.begin(r); err != nil {
									t.Error(err)
								}
							}
							c.handler(w, r)
						}}
						h := wrap(newMiddleware(t, idempotency.Config{Store: b}), calls)
						for j := range 2 {
							got[i][j] = do(h, post("/", "", requestID(fmt.Sprint(j))))
						}
						calls.want(t, 1)
						if with {
							b.want(t, 1, 0)
						}
					}
					for j, with := range got[1] {
						without := got[0][j]
						if with.Code != without.Code || with.Body.String() != without.Body.String() || !reflect.DeepEqual(with.Header(), without.Header()) {
							t.Errorf("response %d:\n%d %s %v, without a transaction\n%d %s %v",
								j, with.Code, with.Body, with.Header(), without.Code, without.Body, without.Header())
						}
					}
				})
			})
		}
		t.Run(place+"/a failed transaction", func(t *testing.T) {
			b := newBank(t)
			b.around = func(context.Context, func() error) error { return errors.New("deadlock") }
			m := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}})
			w := do(outer(wrap(m, b.pay(responding[2].handler))), post("/", ""))
			if w.Code != 500 || strings.Contains(w.Body.String(), `"id":7`) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if place != "around" && !strings.Contains(w.Body.String(), `"status_code":500`) {
				t.Errorf("got %s", w.Body)
			}
			wantNothingOf(t, w)
			b.want(t, 0, 1)
		})
	}
}

// A failure after a success that an envelope has noticed rolls the transaction back.
func TestCommitAndALateFailureWithinAnEnvelope(t *testing.T) {
	for place, wrap := range map[string]func(m *idempotency.Middleware, h http.Handler) http.Handler{
		"within": func(m *idempotency.Middleware, h http.Handler) http.Handler { return newEnvelope(t).Wrap(m.Wrap(h)) },
		"around": func(m *idempotency.Middleware, h http.Handler) http.Handler { return m.Wrap(newEnvelope(t).Wrap(h)) },
	} {
		t.Run(place, func(t *testing.T) {
			b := newBank(t)
			m := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}})
			h := wrap(m, b.pay(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"paid":true}`)
				usher.Fail(w, r, errors.New("oh"))
			}))
			if w := do(h, post("/", "")); w.Code == 200 || strings.Contains(w.Body.String(), "paid") {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			b.want(t, 0, 1)
		})
	}
}

// An outer compressor compresses the response once it is committed.
func TestCommitWithinACompressor(t *testing.T) {
	long := strings.Repeat("a long text ", 500)
	for _, fails := range []bool{false, true} {
		b := newBank(t)
		if fails {
			b.around = func(context.Context, func() error) error { return errors.New("deadlock") }
		}
		m := newMiddleware(t, idempotency.Config{DangerouslyAllowAnonymous: true, Store: b, OnError: func(context.Context, error) {}})
		s := httptest.NewServer(compress(m.Wrap(b.pay(writing(200, long)))))
		defer s.Close()
		got := postOver(t, s, "gzip")
		switch {
		case fails && (got.status != 500 || !strings.Contains(got.body, usher.CodeInternal)):
			t.Errorf("got %+v", got)
		case !fails && (got.status != 200 || got.body != long || got.encoding != "gzip"):
			t.Errorf("got %d %s, %d bytes", got.status, got.encoding, len(got.body))
		}
	}
}

// Over real connections a response with a transaction arrives as one without.
func TestCommitOverTheNetwork(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		long := strings.Repeat("x", 100_000)
		for _, fails := range []bool{false, true} {
			b := newBank(t)
			if fails {
				b.around = func(context.Context, func() error) error { return errors.New("deadlock") }
			}
			m := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}})
			s := serve(asAlice(m.Wrap(b.pay(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100000")
				w.Header()["Set-Cookie"] = []string{"a=b"}
				w.WriteHeader(103)
				w.WriteHeader(201)
				_, _ = io.WriteString(w, long)
			}))))
			got := send(t, s, "k", strings.NewReader("body"))
			switch {
			case fails && (got.status != 500 || !strings.Contains(got.text, usher.CodeInternal) || got.header["Set-Cookie"] != nil):
				t.Errorf("got %d %s %v", got.status, got.text, got.header)
			case !fails && (got.status != 201 || got.text != long || got.header["Set-Cookie"] == nil):
				t.Errorf("got %d, %d bytes, %v", got.status, len(got.text), got.header)
			}
			if !fails {
				if again := send(t, s, "k", strings.NewReader("body")); !again.replayed() || again.text != long {
					t.Errorf("the retry got %d, %d bytes", again.status, len(again.text))
				}
			}
		}
	})
}
