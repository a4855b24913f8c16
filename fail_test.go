package usher_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
)

func contextWith(ctx context.Context, key any) context.Context {
	return context.WithValue(ctx, key, true)
}

// codeOf returns the code in the problem details of w, or "" if it has no body.
func codeOf(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	if w.Body.Len() == 0 {
		return ""
	}
	var body struct{ Code string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return body.Code
}

func failed(err error) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	usher.Fail(w, get(), err)
	return w
}

func TestFail(t *testing.T) {
	secret := errors.New("dial tcp 10.0.0.7:5432: password wrong")
	tests := map[string]struct {
		err    error
		status int
		want   string // body
	}{
		"the zero Error": {
			&usher.Error{}, 500,
			`{"type":"about:blank","title":"Internal Server Error","status":500}`,
		},
		"all that is public": {
			&usher.Error{Status: 409, Code: "taken", Message: "The name is taken.", Param: "name", Cause: secret}, 409,
			`{"type":"about:blank","title":"Conflict","status":409,"detail":"The name is taken.","code":"taken","param":"name"}`,
		},
		"fields": {
			&usher.Error{Status: 400, Code: "invalid", Fields: []usher.Field{{Name: "name", Message: "is missing"}, {Name: `a"b`, Message: "<&>"}}}, 400,
			`{"type":"about:blank","title":"Bad Request","status":400,"code":"invalid","errors":[{"field":"name","message":"is missing"},{"field":"a\"b","message":"\u003c\u0026\u003e"}]}`,
		},
		"a type of its own, and details as extension members, none of which replaces another member": {
			&usher.Error{Status: 429, Code: "c", Type: `https://example.com/"p`, Details: map[string]any{
				"status": 200, "violated-policies": []string{"a", `b"`}, "none": []string{}, "balance": 30, "odd": math.NaN(),
			}}, 429,
			`{"type":"https://example.com/\"p","title":"Too Many Requests","status":429,"code":"c",` +
				`"balance":30,"none":[],"odd":null,"violated-policies":["a","b\""]}`,
		},
		"details that are no map": {
			&usher.Error{Status: 402, Details: []int{1}}, 402,
			`{"type":"about:blank","title":"Payment Required","status":402,"details":[1]}`,
		},
		"any other error is 500 and hidden": {
			secret, 500,
			`{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}`,
		},
		"nil is 500": {
			nil, 500,
			`{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}`,
		},
		"a nil Error is 500": {
			(*usher.Error)(nil), 500,
			`{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}`,
		},
		"a wrapped Error": {
			fmt.Errorf("%w: %w", secret, &usher.Error{Status: 404, Code: "no_note"}), 404,
			`{"type":"about:blank","title":"Not Found","status":404,"code":"no_note"}`,
		},
		"a body over its limit": {
			fmt.Errorf("decode: %w", &http.MaxBytesError{Limit: 10}), 413,
			`{"type":"about:blank","title":"Request Entity Too Large","status":413,"detail":"The request body is too large.","code":"payload_too_large"}`,
		},
		"an Error has precedence over a limit": {
			&usher.Error{Status: 400, Code: "own", Cause: &http.MaxBytesError{}}, 400,
			`{"type":"about:blank","title":"Bad Request","status":400,"code":"own"}`,
		},
		"no credential": {
			fmt.Errorf("verify: %w", usher.ErrNoCredential), 401,
			`{"type":"about:blank","title":"Unauthorized","status":401,"detail":"The request carries no credential.","code":"missing_credential"}`,
		},
		"the status of a success": {
			&usher.Error{Status: 200, Code: "odd"}, 500,
			`{"type":"about:blank","title":"Internal Server Error","status":500,"code":"odd"}`,
		},
		"an invalid status": {
			&usher.Error{Status: 1000}, 500,
			`{"type":"about:blank","title":"Internal Server Error","status":500}`,
		},
		"a status without a text": {
			&usher.Error{Status: 499}, 499,
			`{"type":"about:blank","title":"","status":499}`,
		},
		"text that would break out": {
			&usher.Error{Status: 400, Code: "\"}", Message: "</script>\u2028\x00\xff\r\n", Param: `\`}, 400,
			`{"type":"about:blank","title":"Bad Request","status":400,"detail":"\u003c/script\u003e\u2028\u0000\ufffd\r\n","code":"\"}","param":"\\"}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := failed(tt.err)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			equal(t, "body", tt.want, w.Body.String())
			equal(t, "valid JSON", true, json.Valid(w.Body.Bytes()))
			equal(t, "Content-Type", "application/problem+json", w.Header().Get("Content-Type"))
			equal(t, "X-Content-Type-Options", "nosniff", w.Header().Get("X-Content-Type-Options"))
			equal(t, "Content-Length is the server's to find", "", w.Header().Get("Content-Length"))
			for what, text := range map[string]string{"body": w.Body.String(), "header": fmt.Sprint(w.Header())} {
				if strings.Contains(text, "password") || strings.Contains(text, "10.0.0.7") {
					t.Errorf("the cause is in the %s: %s", what, text)
				}
			}
		})
	}
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	for wait, want := range map[time.Duration]string{
		0: "", -time.Second: "", math.MinInt64: "",
		1: "1", time.Millisecond: "1", time.Second - 1: "1", time.Second: "1", time.Second + 1: "2",
		59*time.Second + 500*time.Millisecond: "60", time.Hour: "3600", math.MaxInt64: "9223372037",
	} {
		t.Run(wait.String(), func(t *testing.T) {
			equal(t, "Retry-After", want, failed(&usher.Error{Status: 429, RetryAfter: wait}).Header().Get("Retry-After"))
		})
	}
}

func TestFailCleansTheHeader(t *testing.T) {
	w := httptest.NewRecorder()
	for name, value := range map[string]string{
		"Content-Length": "9", "ETag": `"1"`, "Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT", "Content-Type": "text/csv",
		"Cache-Control": "public, max-age=3600", "Expires": "Mon, 02 Jan 2034 15:04:05 GMT",
		"Retry-After": "1", "Set-Cookie": "a=b", "X-Request-Id": "r1", "WWW-Authenticate": "Basic",
	} {
		w.Header().Set(name, value)
	}
	usher.Fail(w, get(), &usher.Error{Status: 401, Challenges: []string{"Bearer"}, RetryAfter: 2 * time.Second})
	want := http.Header{
		"Content-Type": {"application/problem+json"}, "X-Content-Type-Options": {"nosniff"},
		"Retry-After": {"2"}, "Www-Authenticate": {"Bearer"}, "Cache-Control": {"no-store"},
		"Set-Cookie": {"a=b"}, "X-Request-Id": {"r1"},
	}
	equal(t, "header", want, w.Header())
}

// The members that depend on the status alone are encoded in advance for some of them.
func TestAProblemWithoutATypeIsABlankOne(t *testing.T) {
	for status := 400; status < 1000; status++ {
		bare := failed(&usher.Error{Status: status, Code: "c"})
		typed := failed(&usher.Error{Status: status, Code: "c", Type: "about:blank"})
		if bare.Code != status || bare.Body.String() != typed.Body.String() {
			t.Fatalf("%d: %s, and with its type %s", bare.Code, bare.Body, typed.Body)
		}
		if other := failed(&usher.Error{Status: status, Type: "/own"}).Body.String(); !strings.HasPrefix(other, `{"type":"/own","title":`) {
			t.Fatalf("another type: %s", other)
		}
	}
}

// An outer handler may change or extend the values that it finds.
func TestResponsesShareNoFieldValue(t *testing.T) {
	for name, challenges := range map[string][]string{"none": nil, "one": {"A"}, "two": {"A", "B"}} {
		e := &usher.Error{Status: 401, Code: "c", Challenges: challenges}
		first, second := failed(e).Header(), failed(e).Header()
		want := fmt.Sprint(second)
		for field, values := range first {
			for i := range values {
				values[i] = "changed"
			}
			first[field] = append(values, "added")
		}
		if got := fmt.Sprint(second); got != want || fmt.Sprint(failed(e).Header()) != want {
			t.Errorf("%s: %s has become %s", name, want, got)
		}
		for field, values := range first {
			if values[0] != "changed" {
				t.Errorf("%s: %s is overwritten by another field: %q", name, field, values)
			}
		}
	}
}

func TestErrorText(t *testing.T) {
	cause := errors.New("no route to host")
	e := &usher.Error{Status: 503, Code: "down", Message: "Please wait.", Cause: cause}
	equal(t, "text", "503 down: Please wait.: no route to host", e.Error())
	equal(t, "text of the zero Error", "500 ", new(usher.Error).Error())
	if !errors.Is(e, cause) {
		t.Error("the cause is lost")
	}
}

// A shape is a Responder that writes everything in one odd way.
type shape struct{ name string }

func (s shape) WriteError(w http.ResponseWriter, _ *http.Request, e *usher.Error) {
	w.WriteHeader(http.StatusTeapot)
	_, _ = io.WriteString(w, s.name+" error "+e.Code)
}

func (s shape) WriteReply(w http.ResponseWriter, _ *http.Request, reply usher.Reply) {
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprint(w, s.name, " reply ", reply.Status, " ", reply.Data)
}

func TestTheResponderDecidesTheShape(t *testing.T) {
	r := usher.WithResponder(get(), shape{"outer"})
	if usher.WithResponder(r, shape{"inner"}) != r {
		t.Error("the request was copied twice")
	}
	w := httptest.NewRecorder()
	usher.Fail(w, r, &usher.Error{Status: 401, Code: "no", RetryAfter: time.Second})
	equal(t, "error", "418 inner error no", fmt.Sprint(w.Code, " ", w.Body))
	equal(t, "Retry-After", "1", w.Header().Get("Retry-After"))
	equal(t, "WWW-Authenticate", "Bearer", w.Header().Get("WWW-Authenticate"))

	w = httptest.NewRecorder()
	usher.Respond(w, r, usher.Reply{Data: 7})
	equal(t, "reply", "202 inner reply 200 7", fmt.Sprint(w.Code, " ", w.Body))

	w = serve(usher.Authenticate(field("A")).Wrap(http.NotFoundHandler()), r)
	equal(t, "refusal", "418 inner error missing_credential", fmt.Sprint(w.Code, " ", w.Body))
}

type odd []int

func (odd) MarshalJSON() ([]byte, error) { return []byte(`"odd"`), nil }

func TestRespond(t *testing.T) {
	tests := map[string]struct {
		reply  usher.Reply
		status int
		body   string
		kind   string
	}{
		"nothing to send":            {usher.Reply{}, 204, "", ""},
		"a 201 without data":         {usher.Reply{Status: 201}, 201, "", ""},
		"data":                       {usher.Reply{Data: map[string]int{"a": 1}}, 200, `{"a":1}`, "application/json"},
		"data of a 201":              {usher.Reply{Status: 201, Code: "made", Message: "Made.", Data: []int{}}, 201, `[]`, "application/json"},
		"a list that is nil":         {usher.Reply{Data: []string(nil)}, 200, `[]`, "application/json"},
		"a page of a nil list":       {usher.Reply{Data: []int(nil), Page: &usher.Page{Number: 1, Limit: 1}}, 200, `[]`, "application/json"},
		"bytes that are nil":         {usher.Reply{Data: []byte(nil)}, 200, `null`, "application/json"},
		"a list with its own JSON":   {usher.Reply{Data: odd(nil)}, 200, `"odd"`, "application/json"},
		"a pointer that is nil":      {usher.Reply{Data: (*int)(nil)}, 200, `null`, "application/json"},
		"a page":                     {usher.Reply{Data: []int{1}, Page: &usher.Page{Number: 1, Limit: 1, Total: 3}}, 200, `[1]`, "application/json"},
		"what JSON cannot hold":      {usher.Reply{Data: func() {}}, 500, `{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}`, "application/problem+json"},
		"what JSON cannot hold, NaN": {usher.Reply{Data: math.NaN()}, 500, `{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}`, "application/problem+json"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			usher.Respond(w, get(), tt.reply)
			equal(t, "status", tt.status, w.Code)
			equal(t, "body", tt.body, w.Body.String())
			equal(t, "Content-Type", tt.kind, w.Header().Get("Content-Type"))
		})
	}
}

func TestAPlainListHasItsTotalInTheHeader(t *testing.T) {
	for name, tt := range map[string]struct {
		reply usher.Reply
		total string
	}{
		"a page":                  {usher.Reply{Data: []int{1}, Page: &usher.Page{Number: 1, Limit: 1, Total: 3}}, "3"},
		"a page of an empty list": {usher.Reply{Data: []int{}, Page: &usher.Page{Number: 1, Limit: 1}}, "0"},
		"no page":                 {usher.Reply{Data: []int{1}}, ""},
		"a page that fails":       {usher.Reply{Data: []any{math.NaN()}, Page: &usher.Page{Number: 1, Limit: 1, Total: 3}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			usher.Respond(w, get(), tt.reply)
			equal(t, "X-Total-Count", tt.total, w.Header().Get("X-Total-Count"))
		})
	}
}

func TestPages(t *testing.T) {
	for page, want := range map[usher.Page]int{
		{}: 0, {Limit: 10}: 0, {Limit: 10, Total: 1}: 1, {Limit: 10, Total: 10}: 1, {Limit: 10, Total: 11}: 2,
		{Total: 5}: 0, {Limit: -1, Total: 5}: 0, {Limit: 1, Total: -5}: 0, {Limit: 1, Total: math.MaxInt}: math.MaxInt, {Limit: math.MaxInt, Total: 2}: 1,
	} {
		if got := page.Pages(); got != want {
			t.Errorf("%+v: %d pages, want %d", page, got, want)
		}
	}
}

func TestConfigError(t *testing.T) {
	err := errors.Join(&usher.ConfigError{Field: "a.Config.B", Reason: "is negative"}, &usher.ConfigError{Field: "a.Config.C", Reason: "is missing"})
	equal(t, "text", "a.Config.B: is negative\na.Config.C: is missing", err.Error())
	e, ok := errors.AsType[*usher.ConfigError](err)
	if !ok || e.Field != "a.Config.B" {
		t.Errorf("got %v", e)
	}
}
