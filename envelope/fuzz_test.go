package envelope_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// FuzzError checks that every error is valid JSON in every shape, has its status and
// media type, and hides its cause, for every request.
func FuzzError(f *testing.F) {
	f.Add(404, "not_found", "no \"such\" \u2028</script>\xff\x00", "param", "detail", "/a?api_key=canary", "GET", int64(1))
	f.Add(0, "", "", "", "", "/\xff?&;#=%", "M\r\n", int64(-1))
	f.Add(999, "c", "m", "p", "d", strings.Repeat("/ä", 3000), strings.Repeat("M", 100), int64(time.Minute))
	quiet := func(context.Context, error) {}
	f.Fuzz(func(t *testing.T, status int, code, message, param, detail, target, method string, wait int64) {
		e := &usher.Error{
			Status: status, Code: code, Message: message, Param: param, RetryAfter: time.Duration(wait),
			Fields:  []usher.Field{{Name: param, Message: detail}},
			Details: map[string]any{param: detail, "type": detail},
			Cause:   http.ErrBodyNotAllowed,
		}
		for _, shape := range shapes {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Method, r.RequestURI = method, target
			w := httptest.NewRecorder()
			must(envelope.Config{Shape: shape.shape, OnError: quiet}).Wrap(failing(e)).ServeHTTP(w, r)
			var body map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatalf("%s: %v: %s", shape.name, err, w.Body)
			}
			if w.Code < 400 || !utf8.Valid(w.Body.Bytes()) || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: status %d, header %v, body %q", shape.name, w.Code, w.Header(), w.Body)
			}
			if n, ok := body["status_code"].(float64); shape.name == "standard" && (!ok || int(n) != w.Code) {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
		}
	})
}

// FuzzWrap checks that the JSON of a handler becomes the data unchanged, in whatever
// pieces the handler writes it.
func FuzzWrap(f *testing.F) {
	f.Add(`{"a":[1,2,"x"]}`, 3, false)
	f.Add("\n null \n", 1, true)
	f.Add(`"]}\\\"" `, 1, true)
	f.Add("[{\"}\":\"[\"},[[]]]\r\n\t ", 2, false)
	f.Fuzz(func(t *testing.T, body string, piece int, flush bool) {
		if !json.Valid([]byte(body)) || piece < 1 {
			t.Skip("not the JSON of a handler, in pieces")
		}
		w := httptest.NewRecorder()
		wrapStandard.ServeNext(w, httptest.NewRequest(http.MethodGet, "/", nil), http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				for rest := body; rest != ""; {
					n := min(piece, len(rest))
					if _, err := w.Write([]byte(rest[:n])); err != nil {
						t.Error(err)
					}
					if flush {
						_ = http.NewResponseController(w).Flush()
					}
					rest = rest[n:]
				}
			}))
		var got struct{ Data json.RawMessage }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		want := strings.Trim(body, " \n\r\t")
		if want == "null" {
			want = string(got.Data) // a RawMessage is the same for null and for nothing
		}
		if string(got.Data) != want {
			t.Errorf("data %s, want %s", got.Data, want)
		}
	})
}

// FuzzURL checks that no spelling of a URL reveals the value of a parameter that a
// server would read as a secret.
func FuzzURL(f *testing.F) {
	f.Add("api_key", "/a?x=1&", "&y=2")
	f.Add("%61ccess_%74oken", "/?", "#")
	f.Add("client[secret]", "/a/b;c?q=%&", "")
	f.Fuzz(func(t *testing.T, name, before, after string) {
		const canary = "CANARY"
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		target := before + name + "=" + canary + after
		if !strings.HasPrefix(target, "/") || strings.Contains(before+name+after, canary) {
			t.Skip("no path, or the canary is elsewhere as well")
		}
		u, err := r.URL.Parse(target)
		if err != nil {
			t.Skip("no server would pass it on")
		}
		r.URL, r.RequestURI = u, target
		secret := false
		for key, values := range u.Query() {
			switch key {
			case "api_key", "access_token", "client[secret]", "password", "code":
				for _, v := range values {
					secret = secret || strings.Contains(v, canary)
				}
			}
		}
		if url := metadata(t, envelope.Config{}, r).URL; secret && strings.Contains(url, canary) {
			t.Errorf("%q shows %q", target, url)
		}
	})
}
