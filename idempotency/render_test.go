package idempotency_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/compare"
)

// A replay is the response that its own request would have got from the handler: with the
// data, code and message of the first, and its own request ID, time and address.
func TestAReplayHasTheMetadataOfItsOwnRequest(t *testing.T) {
	for shapeName, shape := range everyShape {
		for _, wrap := range []bool{true, false} {
			for handlerName, handler := range handlers {
				t.Run(fmt.Sprintf("%s, wrap %v/%s", shapeName, wrap, handlerName), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						env, err := envelope.New(envelope.Config{
							RequestID: fromHeader,
							Shape:     shape, Wrap: wrap, Catalogue: catalogue, OnError: func(context.Context, error) {},
						})
						if err != nil {
							t.Fatal(err)
						}
						calls := &counting{next: handler}
						h := env.Wrap(newMiddleware(t, idempotency.Config{Profile: keep}).Wrap(calls))
						first := do(h, post("/orders", "", callers("lovelace", "192.0.2.1:1")))
						time.Sleep(time.Hour)
						bert := callers("bert", "[2001:db8::2]:2")
						again := do(h, post("/orders", "", bert))
						if strings.HasSuffix(handlerName, ", more") && !wrap {
							wantReplay(t, again, first) // see TestAChangedBodyIsReplayedAsItWasSent
							return
						}
						want := do(env.Wrap(handler), post("/orders", "", bert))
						calls.want(t, 1)
						if again.Header().Get("Idempotency-Replayed") != "true" || again.Code != first.Code || again.Code != want.Code {
							t.Fatalf("the first response is %d, the replay %d, want %d", first.Code, again.Code, want.Code)
						}
						if diff := compare.Diff(want.Body.String(), again.Body.String()); diff != "" {
							t.Errorf("body (-want +got):\n%s", diff)
						}
						got := again.Result().Header
						got.Del("Idempotency-Replayed")
						if diff := compare.Diff(want.Result().Header, got); diff != "" {
							t.Errorf("header (-want +got):\n%s", diff)
						}
					})
				})
			}
		}
	}
}

// So is the replay of a response that has waited for a commit.
func TestAReplayOfACommittedResponseHasTheMetadataOfItsOwnRequest(t *testing.T) {
	for shapeName, shape := range everyShape {
		for _, wrap := range []bool{true, false} {
			for handlerName, handler := range handlers {
				if strings.HasSuffix(handlerName, ", more") {
					continue
				}
				t.Run(fmt.Sprintf("%s, wrap %v/%s", shapeName, wrap, handlerName), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						env, err := envelope.New(envelope.Config{
							RequestID: fromHeader,
							Shape:     shape, Wrap: wrap, Catalogue: catalogue, OnError: func(context.Context, error) {},
						})
						if err != nil {
							t.Fatal(err)
						}
						commits := 0
						h := env.Wrap(newMiddleware(t, idempotency.Config{Profile: keep}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							if err := idempotency.From(r.Context()).Commit(r.Context(), func(context.Context, idempotency.Completion) error {
								commits++
								return nil
							}, nil); err != nil {
								t.Error(err)
							}
							handler(w, r)
						})))
						do(h, post("/orders", "", callers("lovelace", "192.0.2.1:1")))
						time.Sleep(time.Hour)
						bert := callers("bert", "[2001:db8::2]:2")
						again := do(h, post("/orders", "", bert))
						want := do(h, post("/orders", "", bert, header("Idempotency-Key", "another")))
						got := again.Result().Header
						if got.Get("Idempotency-Replayed") != "true" || again.Code != want.Code || commits != 2 {
							t.Fatalf("the replay is %d, want %d, %d commits", again.Code, want.Code, commits)
						}
						got.Del("Idempotency-Replayed")
						if diff := compare.Diff(want.Body.String(), again.Body.String()) + compare.Diff(want.Result().Header, got); diff != "" {
							t.Errorf("body and header (-want +got):\n%s", diff)
						}
					})
				})
			}
		}
	}
}

// Two colleagues share the keys of their account. Neither learns the address, the request
// ID or the time of the other.
func TestColleaguesOfOneAccountDoNotSeeEachOther(t *testing.T) {
	for shapeName, shape := range everyShape {
		for handlerName, handler := range handlers {
			t.Run(shapeName+"/"+handlerName, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					env, err := envelope.New(envelope.Config{RequestID: fromHeader, Shape: shape, Wrap: true, OnError: func(context.Context, error) {}})
					if err != nil {
						t.Fatal(err)
					}
					once := newMiddleware(t, idempotency.Config{
						Profile: keep,
						Owner:   func(*http.Request) (string, bool) { return "the account of both", true },
					})
					h := env.Wrap(once.Wrap(handler))
					began := time.Now()
					do(h, post("/orders", "", callers("lovelace", "192.0.2.1:1"), as(&usher.Principal{ID: "ada", Kind: usher.KindAPIKey})))
					time.Sleep(time.Hour)
					again := do(h, post("/orders", "", callers("bert", "198.51.100.2:2"), as(&usher.Principal{ID: "bert", Kind: usher.KindAPIKey})))
					if again.Header().Get("Idempotency-Replayed") != "true" || again.Header().Get("X-Request-Id") != "bert" {
						t.Errorf("header %v", again.Header())
					}
					text := again.Body.String() + fmt.Sprint(again.Header())
					for _, of := range []string{"lovelace", "192.0.2.1", began.UTC().Format("15:04:05")} {
						if strings.Contains(text, of) {
							t.Errorf("bert sees %q of ada: %s", of, text)
						}
					}
				})
			})
		}
	}
}

// Retry-After is not stored with an error, so its body does not ask for a retry either.
func TestTheReplayOfAnErrorAsksForNoRetry(t *testing.T) {
	env, err := envelope.New(envelope.Config{RequestID: fromHeader, Shape: envelope.Data()})
	if err != nil {
		t.Fatal(err)
	}
	h := env.Wrap(newMiddleware(t, idempotency.Config{}).Wrap(fails(&usher.Error{Status: 422, Code: "later", RetryAfter: time.Minute})))
	first, again := do(h, post("/", "")), do(h, post("/", ""))
	if first.Header().Get("Retry-After") != "60" || strings.Count(first.Body.String(), "retry_after") != 2 {
		t.Errorf("the first response is %v %s", first.Header(), first.Body)
	}
	if again.Header().Get("Retry-After") != "" || again.Body.String() != `{"error":{"code":"later","message":"Unprocessable Entity"}}` {
		t.Errorf("the replay is %v %s", again.Header(), again.Body)
	}
}

// A failure is reported once, when it happens.
func TestTheReplayOfAFailureIsNotReported(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"Fail":           fails(errors.New("the disk is full")),
		"a status, Fail": begun(500, "text/plain", fails(errors.New("the disk is full"))),
	} {
		t.Run(name, func(t *testing.T) {
			reports := 0
			env, err := envelope.New(envelope.Config{RequestID: fromHeader, Wrap: true, OnError: func(context.Context, error) { reports++ }})
			if err != nil {
				t.Fatal(err)
			}
			h := env.Wrap(newMiddleware(t, idempotency.Config{Profile: keep}).Wrap(handler))
			for range 3 {
				if w := do(h, post("/", "")); w.Code != 500 {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
			}
			if reports != 1 {
				t.Errorf("%d reports, want 1", reports)
			}
		})
	}
}

// A body that was changed after it had got its shape is replayed as it was sent, and gets
// no second shape.
func TestAChangedBodyIsReplayedAsItWasSent(t *testing.T) {
	value := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Created("/orders/7", purchase{ID: 7}) })
	failure := fails(full)
	longer := func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			_, _ = io.WriteString(w, "\n")
		}
	}
	zipped := func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			z := gzip.NewWriter(w)
			defer func() { _ = z.Close() }()
			next.ServeHTTP(zipWriter{w, z}, r)
		}
	}
	replaced := func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			own := httptest.NewRecorder()
			next.ServeHTTP(own, r)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(own.Code)
			_, _ = w.Write([]byte(strings.ToUpper(own.Body.String())))
		}
	}
	other := newEnvelope(t)
	within := func(next http.Handler) http.HandlerFunc { return other.Wrap(next).ServeHTTP }
	by := func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, usher.WithResponder(r, other)) }
	}
	for name, change := range map[string]func(http.Handler) http.HandlerFunc{
		"more is written": longer, "compressed": zipped, "rewritten": replaced,
		"within another envelope": within, "by another envelope": by,
	} {
		for of, handler := range map[string]http.Handler{"a value": value, "a failure": failure} {
			t.Run(name+", "+of, func(t *testing.T) {
				calls := &counting{next: change(handler)}
				h := newEnvelope(t).Wrap(newMiddleware(t, idempotency.Config{}).Wrap(calls))
				first := do(h, post("/", ""))
				wantReplay(t, do(h, post("/", "")), first)
				calls.want(t, 1)
			})
		}
	}
}

// The same holds for a body that shows another status than the one that was sent.
func TestABodyOfAnotherStatusIsReplayedAsItWasSent(t *testing.T) {
	env, err := envelope.New(envelope.Config{RequestID: fromHeader, Shape: telling()})
	if err != nil {
		t.Fatal(err)
	}
	h := env.Wrap(newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers["Created"](acceptedWriter{w}, r)
	})))
	first := do(h, post("/", ""))
	if first.Code != 202 || !strings.Contains(first.Body.String(), `"status":201`) {
		t.Fatalf("the first response is %d %s", first.Code, first.Body)
	}
	wantReplay(t, do(h, post("/", "")), first)
}

// So is an error whose details an encoder of the service has not made JSON.
func TestDetailsThatAreNoJSONAreReplayedAsTheyWereSent(t *testing.T) {
	env, err := envelope.New(envelope.Config{
		RequestID: fromHeader,
		Shape:     envelope.Data(), Marshal: func(any) ([]byte, error) { return []byte("{bad"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, handler := range map[string]http.HandlerFunc{"a value": handlers["Value"], "details": fails(full)} {
		h := env.Wrap(newMiddleware(t, idempotency.Config{}).Wrap(handler))
		first := do(h, post("/", ""))
		if !strings.Contains(first.Body.String(), "{bad") {
			t.Errorf("%s: the first response is %s", name, first.Body)
		}
		wantReplay(t, do(h, post("/", "")), first)
	}
}

// An acceptedWriter sends 202 in place of every status.
type acceptedWriter struct{ http.ResponseWriter }

func (w acceptedWriter) WriteHeader(int) { w.ResponseWriter.WriteHeader(http.StatusAccepted) }

// A middleware outside the envelope cannot render again what it stores.
func TestOutsideTheEnvelopeAReplayIsAsItWasSent(t *testing.T) {
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			env, err := envelope.New(envelope.Config{RequestID: fromHeader, Wrap: true, OnError: func(context.Context, error) {}})
			if err != nil {
				t.Fatal(err)
			}
			h := newMiddleware(t, idempotency.Config{Profile: keep}).Wrap(env.Wrap(handler))
			first := do(h, post("/", "", callers("lovelace", "192.0.2.1:1")))
			wantReplay(t, do(h, post("/", "", callers("bert", "192.0.2.2:2"))), first)
		})
	}
}

// Envelopes of two deployments may differ. The data, the code and the status stay.
func TestAReplayHasTheShapeOfToday(t *testing.T) {
	store := newMemory(t, idempotency.MemoryConfig{})
	serve := func(key string, c *envelope.Config, handler http.HandlerFunc) *httptest.ResponseRecorder {
		h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(handler)
		if c != nil {
			env, err := envelope.New(*c)
			if err != nil {
				t.Fatal(err)
			}
			h = env.Wrap(h)
		}
		return do(h, post("/", "", header("Idempotency-Key", key)))
	}
	never := func(http.ResponseWriter, *http.Request) { t.Error("it ran again") }
	mapped := envelope.Catalogue{Codes: map[string]envelope.Entry{"declined": {Status: 400, Code: "NO"}, "order_made": {Status: 204}}}
	for i, c := range []struct {
		name          string
		handler       http.HandlerFunc
		first, second *envelope.Config
		status        int
		body          string
	}{
		{"another shape, a reply", handlers["Created"], &envelope.Config{}, &envelope.Config{Shape: envelope.Data()}, 201, `{"data":{"id":7}}`},
		{"another shape, a failure", fails(full), &envelope.Config{}, &envelope.Config{Shape: envelope.Detail()}, 422, `{"detail":"the card \"\u003c1\u003e\" \u0026 its owner\u2028 card: is declined; cvc: "}`},
		{"another catalogue, a reply", handlers["Respond with a code"], &envelope.Config{Shape: envelope.Data()}, &envelope.Config{Shape: envelope.Data(), Catalogue: mapped}, 201, `{"data":"eA=="}`},
		{"another catalogue, a failure", fails(full), &envelope.Config{}, &envelope.Config{Shape: envelope.Bare(), Catalogue: mapped}, 422, `{"code":"NO","message":"the card \"\u003c1\u003e\" \u0026 its owner\u2028","param":"card","errors":[{"field":"card","message":"is declined"},{"field":"cvc","message":""}],"details":{"id":7,"note":"\u003cheld\u003e"}}`},
		{"no envelope, a reply", handlers["Value"], &envelope.Config{}, nil, 200, `{"id":7,"note":"\u003c\u0026\u003e"}`},
		{"no envelope, a reply without data", responds(usher.Reply{Status: 202}), &envelope.Config{}, nil, 202, ``},
		{"no envelope, a failure", fails(&usher.Error{Status: 410, Code: "gone", Details: map[string]any{"at": 1}}), &envelope.Config{}, nil, 410, `{"type":"about:blank","title":"Gone","status":410,"code":"gone","at":1}`},
		{"no envelope, a message", handlers["plain JSON, a message"], &envelope.Config{Wrap: true}, nil, 201, `[7]`},
		{"no envelope, a status and data", handlers["a status, Value"], &envelope.Config{Wrap: true}, nil, 201, `{"id":7}`},
		{"no envelope at first", handlers["Value"], nil, &envelope.Config{Wrap: true, Shape: envelope.Data()}, 200, `{"data":{"id":7,"note":"\u003c\u0026\u003e"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := fmt.Sprint(i)
			if w := serve(key, c.first, c.handler); w.Header().Get("Idempotency-Replayed") != "" {
				t.Fatal("the first response is a replay")
			}
			got := serve(key, c.second, never)
			if got.Code != c.status || got.Body.String() != c.body || got.Header().Get("Idempotency-Replayed") != "true" {
				t.Errorf("got %d %s", got.Code, got.Body)
			}
		})
	}
}
