package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

const secret = "4242"

// redact replaces the secret in place.
func redact(_ *http.Request, response *idempotency.Response) {
	for i := range response.Body {
		if bytes.HasPrefix(response.Body[i:], []byte(secret)) {
			copy(response.Body[i:], "****")
		}
	}
	for _, values := range response.Header {
		for i, v := range values {
			values[i] = strings.ReplaceAll(v, secret, "****")
		}
	}
}

// storing is a store that fails the test if it is given the secret.
func storing(t *testing.T) idempotency.Store {
	t.Helper()
	store := newHookedStore(t)
	store.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
		if bytes.Contains(c.Result.Payload, []byte(secret)) {
			t.Errorf("stored %q", c.Result.Payload)
		}
		return store.Store.Finish(ctx, c)
	}
	return store
}

func TestSanitizeChangesWhatIsStoredAndNotWhatIsSentFirst(t *testing.T) {
	card := map[string]string{"card": secret}
	failure := &usher.Error{
		Status: 422, Code: "declined", Message: "The card " + secret + " is declined.", Param: "card",
		Fields: []usher.Field{{Name: "card", Message: secret}}, Details: map[string]any{"card": secret, "limit": 5},
	}
	for name, handler := range map[string]http.HandlerFunc{
		"plain JSON": begun(201, "application/json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"card":"`+secret+`"}`) }),
		"text":       func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "paid with "+secret) },
		"a field": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/cards/"+secret)
			w.WriteHeader(303)
		},
		"Value":                func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(card) },
		"Value with a message": func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Message("paid").Value(card) },
		"List": func(w http.ResponseWriter, r *http.Request) {
			envelope.For(w, r).List([]any{card}, usher.Page{Number: 1, Limit: 9, Total: 1})
		},
		"a status, Value": begun(201, "application/json", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(card) }),
		"Fail":            fails(failure),
		"a status, Fail":  begun(422, "text/plain", fails(failure)),
		"Commit": func(w http.ResponseWriter, r *http.Request) {
			if err := idempotency.From(r.Context()).Commit(r.Context(), func(_ context.Context, c idempotency.Completion) error {
				if bytes.Contains(c.Result.Payload, []byte(secret)) {
					t.Errorf("the completion has %q", c.Result.Payload)
				}
				return nil
			}, nil); err != nil {
				t.Error(err)
			}
			envelope.For(w, r).Value(card)
		},
	} {
		for _, enveloped := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, envelope %v", name, enveloped), func(t *testing.T) {
				calls := &counting{next: handler}
				h := newMiddleware(t, idempotency.Config{Store: storing(t), Sanitize: redact}).Wrap(calls)
				if enveloped {
					env, err := envelope.New(envelope.Config{RequestID: fromHeader, Wrap: true, Shape: envelope.Problem("")})
					if err != nil {
						t.Fatal(err)
					}
					h = env.Wrap(h)
				}
				first, again := do(h, post("/", "")), do(h, post("/", ""))
				calls.want(t, 1)
				sent, replayed := first.Body.String()+first.Header().Get("Location"), again.Body.String()+again.Header().Get("Location")
				if !strings.Contains(sent, secret) || strings.Contains(sent, "****") {
					t.Errorf("the first response is %v %s", first.Header(), first.Body)
				}
				if want := strings.ReplaceAll(sent, secret, "****"); replayed != want || again.Code != first.Code {
					t.Errorf("the replay is %d %s, want %d %s", again.Code, replayed, first.Code, want)
				}
			})
		}
	}
}

// Sanitize sees the data and the public part of an error without the envelope, so what it
// returns gets the envelope of the replay.
func TestSanitizeSeesNoEnvelope(t *testing.T) {
	var seen string
	env, err := envelope.New(envelope.Config{Wrap: true, Shape: envelope.StandardConfig{ClientIP: true}.Shape()})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		handler    http.HandlerFunc
		seen       string
		set, again string
	}{
		{handlers["Value"], `{"id":7,"note":"\u003c\u0026\u003e"}`, `{"id":8}`, `{"status_code":200,"message":"OK","data":{"id":8},`},
		{handlers["Value"], `{"id":7,"note":"\u003c\u0026\u003e"}`, ``, `{"status_code":200,"message":"OK","metadata":`},
		{handlers["Value, nil"], ``, `[1]`, `{"status_code":200,"message":"OK","data":[1],`},
		{handlers["plain JSON, a message"], `[7]`, `[8]`, `{"status_code":201,"message":"made","data":[8],`},
		{fails(withDetails(map[string]any{"a": 1})), `{"code":"declined","type":"https://errors.example/own","message":"the card \"\u003c1\u003e\" \u0026 its owner\u2028","param":"card","errors":[{"field":"card","message":"is declined"},{"field":"cvc","message":""}],"details":{"a":1}}`, `{"message":"no"}`, `{"status_code":422,"code":"unprocessable_entity","message":"no","metadata":`},
		{fails(&usher.Error{Status: 404}), `{}`, `{"errors":[{"field":"f","message":"m"}]}`, `{"status_code":404,"code":"not_found","message":"Not Found","errors":[{"field":"f","message":"m"}],"metadata":`},
		{handlers["an error in text"], "no such order\n", "none", `{"status_code":404,"code":"not_found","message":"none","metadata":`},
	} {
		h := env.Wrap(newMiddleware(t, idempotency.Config{Sanitize: func(r *http.Request, response *idempotency.Response) {
			if _, ok := usher.PrincipalFrom(r.Context()); !ok || r.URL.Path != "/" {
				t.Error("the request is another")
			}
			seen, response.Body = string(response.Body), []byte(c.set)
		}}).Wrap(c.handler))
		do(h, post("/", ""))
		again := do(h, post("/", "", callers("bert", "192.0.2.2:2")))
		if seen != c.seen {
			t.Errorf("Sanitize got %s, want %s", seen, c.seen)
		}
		if !strings.HasPrefix(again.Body.String(), c.again) || !strings.Contains(again.Body.String(), "192.0.2.2") || again.Header().Get("Idempotency-Replayed") != "true" {
			t.Errorf("after %s the replay is %s, want %s…", c.set, again.Body, c.again)
		}
	}
}

func TestASanitizeThatFailsStoresNothingOfTheResponse(t *testing.T) {
	value, failure, none := handlers["Value"], fails(full), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }
	type change = func(*http.Request, *idempotency.Response)
	body := func(text string) change {
		return func(_ *http.Request, response *idempotency.Response) { response.Body = []byte(text) }
	}
	status := func(status int) change {
		return func(_ *http.Request, response *idempotency.Response) { response.Status = status }
	}
	for _, c := range []struct {
		name     string
		handler  http.HandlerFunc
		sanitize change
		reports  int
	}{
		{"nothing is to be stored", value, status(0), 0},
		{"nothing is to be stored, plainly", none, func(_ *http.Request, response *idempotency.Response) { *response = idempotency.Response{} }, 0},
		{"a panic", value, func(*http.Request, *idempotency.Response) { panic(secret) }, 1},
		{"a panic with nothing", value, func(_ *http.Request, response *idempotency.Response) { response.Status = 0; panic(nil) }, 1},
		{"another status", value, status(201), 1},
		{"an error made a success", failure, status(200), 1},
		{"an impossible status", none, status(-1), 1},
		{"too long", value, body(`"` + strings.Repeat("x", 999) + `"`), 1},
		{"a body for 204", none, body("x"), 1},
		{"data that is no JSON", value, body("{"), 1},
		{"an error that is no JSON", failure, body("redacted"), 1},
		{"an error that is another JSON", failure, body("[]"), 1},
		{"an error without a body", failure, body(""), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var reports []error
			env, err := envelope.New(envelope.Config{RequestID: fromHeader, Wrap: true, Shape: envelope.Data()})
			if err != nil {
				t.Fatal(err)
			}
			store := newHookedStore(t)
			store.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
				if c.Result.State != idempotency.StateTombstone || len(c.Result.Payload) > 0 {
					t.Errorf("stored %+v", c.Result)
				}
				return store.Store.Finish(ctx, c)
			}
			calls := &counting{next: c.handler}
			h := env.Wrap(newMiddleware(t, idempotency.Config{
				Store: store, MaxResponse: 1000, Sanitize: c.sanitize,
				OnError: func(_ context.Context, err error) { reports = append(reports, err) },
			}).Wrap(calls))
			first := do(h, post("/", ""))
			want := do(env.Wrap(c.handler), post("/", ""))
			if first.Code != want.Code || first.Body.String() != want.Body.String() {
				t.Errorf("the first response is %d %s, want %d %s", first.Code, first.Body, want.Code, want.Body)
			}
			if w := do(h, post("/", "")); w.Code != 409 || w.Header().Get("Retry-After") != "" {
				t.Errorf("the retry got %d %s", w.Code, w.Body)
			}
			calls.want(t, 1)
			if len(reports) != c.reports {
				t.Errorf("reported %v, want %d", reports, c.reports)
			}
		})
	}
}

// Only what would be stored is sanitized, and only what may be stored is taken.
func TestSanitizeGetsWhatWouldBeStored(t *testing.T) {
	var got *idempotency.Response
	calls := 0
	m := newMiddleware(t, idempotency.Config{
		KeepHeaders: []string{"X-Order"}, MaxResponse: maxResponse,
		Profile: func(status int) idempotency.Outcome {
			return map[int]idempotency.Outcome{
				200: idempotency.Keep, 201: idempotency.KeepStatus, 202: idempotency.Forget, 500: idempotency.Unknown, 503: idempotency.Release,
			}[status]
		},
		Sanitize: func(_ *http.Request, response *idempotency.Response) {
			calls++
			got = &idempotency.Response{Status: response.Status, Header: response.Header.Clone(), Body: bytes.Clone(response.Body)}
			response.Header.Set("Set-Cookie", "a=b")
			response.Header.Set("X-Other", "b")
			response.Header.Set("X-Order", "8")
			response.Header.Set("Link", "</redacted>")
		},
	})
	for _, status := range []int{201, 202, 500, 503} {
		do(m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })), post("/", "", key(fmt.Sprint(status))))
	}
	for _, handler := range []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
		func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", maxResponse+1))
		},
		func(http.ResponseWriter, *http.Request) { panic(errors.New("x")) },
	} {
		do(m.Wrap(handler), post("/", "", key(fmt.Sprint(time.Now().UnixNano()))))
	}
	if calls != 0 {
		t.Errorf("Sanitize was called %d times for responses that are not stored", calls)
	}
	h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{"Content-Type": "a/b", "Content-Encoding": "gzip", "X-Order": "7", "X-Other": "a", "Set-Cookie": "c", "Date": "d"} {
			w.Header().Set(name, value)
		}
		_, _ = io.WriteString(w, "body")
	}))
	do(h, post("/", ""))
	if calls != 1 || got.Status != 200 || string(got.Body) != "body" || len(got.Header) != 3 || got.Header.Get("X-Order") != "7" || got.Header.Get("Content-Type") != "a/b" {
		t.Errorf("%d calls, got %+v", calls, got)
	}
	again := do(h, post("/", "")).Header()
	names := slices.Sorted(maps.Keys(again))
	if want := []string{"Content-Encoding", "Content-Type", "Idempotency-Replayed", "Link", "X-Order"}; !slices.Equal(names, want) || again.Get("X-Order") != "8" || again.Get("Link") != "</redacted>" {
		t.Errorf("the replay has %v", again)
	}
}
