package envelope_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/compare"
)

func TestNewReportsEveryFault(t *testing.T) {
	_, err := envelope.New(envelope.Config{
		Shape: envelope.Shape{Before: envelope.Data().Before},
		Catalogue: envelope.Catalogue{
			Codes:    map[string]envelope.Entry{"": {}, "moved": {Status: 302}},
			Statuses: map[int]envelope.Entry{100: {}, 404: {Status: 410}},
		},
		SecretParams:    []string{"ok", "--"},
		RequestIDPrefix: "a b",
	})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error %v", err)
	}
	got := map[string]int{}
	for _, e := range joined.Unwrap() {
		var fault *usher.ConfigError
		if !errors.As(e, &fault) {
			t.Fatalf("fault %v", e)
		}
		got[fault.Field]++
	}
	want := map[string]int{
		"envelope.Config.Shape": 1, "envelope.Config.Shape.Error": 1,
		`envelope.Config.Catalogue.Codes[""]`: 1, `envelope.Config.Catalogue.Codes["moved"].Status`: 1,
		"envelope.Config.Catalogue.Statuses[100]": 1, "envelope.Config.Catalogue.Statuses[404].Status": 1,
		"envelope.Config.SecretParams[1]": 1, "envelope.Config.RequestIDPrefix": 1,
	}
	if diff := compare.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestConfigIsCopied(t *testing.T) {
	c := envelope.Config{
		Shape:        envelope.Detail(),
		Catalogue:    envelope.Catalogue{Codes: map[string]envelope.Entry{"c": {Message: "before"}}, Statuses: map[int]envelope.Entry{404: {Message: "before"}}},
		SecretParams: []string{"voucher"},
	}
	env := must(c)
	c.Catalogue.Codes["c"] = envelope.Entry{Message: "after"}
	c.Catalogue.Statuses[404] = envelope.Entry{Message: "after"}
	s := start(t, env.Wrap(failing(&usher.Error{Status: 400, Code: "c"})))
	wantBody(t, get(t, s, "/"), `{"detail":"before"}`)
	wantBody(t, get(t, start(t, env.Wrap(http.HandlerFunc(env.NotFound))), "/"), `{"detail":"before"}`)
}

func TestCatalogue(t *testing.T) {
	catalogue := envelope.Catalogue{
		Codes: map[string]envelope.Entry{
			"known":     {Code: "K", Message: "known text", Type: "known_type"},
			"own_text":  {Type: "own"},
			"moved":     {Status: 410},
			"to_reply":  {Status: 200},
			"user_made": {Status: 201, Message: "User made"},
		},
		Statuses: map[int]envelope.Entry{
			400: {Code: "S400", Message: "status text", Type: "status_type"},
			410: {Code: "S410", Message: "gone text"},
			200: {Message: "fine"},
		},
	}
	tests := []struct {
		name string
		err  *usher.Error
		want string
	}{
		{"a listed code has the entry's text", &usher.Error{Status: 400, Code: "known", Message: "own"}, "400 known_type K known text"},
		{"an entry without a text keeps the message of the response, although the status has one", &usher.Error{Status: 400, Code: "own_text", Message: "own"}, "400 own own_text own"},
		{"an unlisted code has what the status has", &usher.Error{Status: 400, Code: "unknown", Message: "own"}, "400 status_type S400 status text"},
		{"without a code the own text stays", &usher.Error{Status: 400, Message: "own"}, "400 status_type S400 own"},
		{"without a code or a text", &usher.Error{Status: 400}, "400 status_type S400 status text"},
		{"nothing for the status", &usher.Error{Status: 409, Code: "unknown", Message: "own"}, "409 conflict_error unknown own"},
		{"nothing at all", &usher.Error{Status: 409}, "409 conflict_error conflict Conflict"},
		{"a status that has no name", &usher.Error{Status: 499}, "499 invalid_request_error error Error"},
		{"a mapped status, and what it has", &usher.Error{Status: 404, Code: "moved"}, "410 invalid_request_error moved gone text"},
		{"an error never becomes a success", &usher.Error{Status: 404, Code: "to_reply", Message: "own"}, "404 not_found_error to_reply own"},
		{"an impossible status is 500", &usher.Error{Status: 200}, "500 server_error internal Internal Server Error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := must(envelope.Config{Shape: envelope.Typed(), Catalogue: catalogue, OnError: func(context.Context, error) {}})
			got := get(t, start(t, env.Wrap(failing(tt.err))), "/")
			var body struct {
				Error struct{ Type, Code, Message string }
			}
			if err := json.Unmarshal([]byte(got.body), &body); err != nil {
				t.Fatal(err)
			}
			e := body.Error
			if s := got.Status[:3] + " " + e.Type + " " + e.Code + " " + e.Message; s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
	replies := []struct {
		name  string
		reply usher.Reply
		want  string
	}{
		{"a listed code", usher.Reply{Code: "user_made"}, `{"status_code":201,"message":"User made",`},
		{"an own text", usher.Reply{Message: "own"}, `{"status_code":200,"message":"own",`},
		{"the status's text", usher.Reply{}, `{"status_code":200,"message":"fine",`},
		{"the name of the status", usher.Reply{Status: 202}, `{"status_code":202,"message":"Accepted",`},
		{"a success never becomes an error", usher.Reply{Code: "moved", Message: "own"}, `{"status_code":200,"message":"own",`},
	}
	for _, tt := range replies {
		t.Run("reply: "+tt.name, func(t *testing.T) {
			env := must(envelope.Config{Catalogue: catalogue})
			got := get(t, start(t, env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				usher.Respond(w, r, tt.reply)
			}))), "/")
			if !strings.HasPrefix(got.body, tt.want) {
				t.Errorf("body %s, want %s", got.body, tt.want)
			}
		})
	}
}

// metadata returns the metadata of the response to r.
func metadata(t *testing.T, c envelope.Config, r *http.Request) (m struct {
	Method, URL, IP, Timestamp string
	ExecutionTimeMS            int `json:"execution_time_ms"`
}) {
	t.Helper()
	w := httptest.NewRecorder()
	must(c).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(1) })).ServeHTTP(w, r)
	body := struct{ Metadata any }{&m}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return m
}

func TestURLOfMetadataHasNoSecrets(t *testing.T) {
	long := strings.Repeat("x", 4000)
	tests := []struct{ name, target, want string }{
		{"a path", "/notes/1", "/notes/1"},
		{"harmless parameters", "/n?page=2&sort_by=asc&author=bob&keyboard=1", "/n?page=2&sort_by=asc&author=bob&keyboard=1"},
		{"a key", "/n?api_key=ksr_live_1", "/n?api_key=REDACTED"},
		{"any spelling", "/n?API-Key=s&apikey=s&X-Amz-Signature=s&refresh_token=s&user%5Bpassword%5D=s", "/n?API-Key=REDACTED&apikey=REDACTED&X-Amz-Signature=REDACTED&refresh_token=REDACTED&user%5Bpassword%5D=REDACTED"},
		{"an encoded name", "/n?%61pi%5Fkey=s", "/n?%61pi%5Fkey=REDACTED"},
		{"the parameters of OAuth", "/cb?code=s&state=s&scope=a", "/cb?code=REDACTED&state=REDACTED&scope=a"},
		{"a value with an equals sign", "/n?token=a=b&x=1", "/n?token=REDACTED&x=1"},
		{"behind other separators", "/n?a=1;token=s&b=2?token=s", "/n?a=1;token=REDACTED&b=2?token=REDACTED"},
		{"in the path", "/n;token=s?x=1", "/n;token=REDACTED?x=1"},
		{"no value", "/n?token=&token&=s", "/n?token=&token&=s"},
		{"a configured name", "/n?voucher=s&VOUCHER=s", "/n?voucher=REDACTED&VOUCHER=REDACTED"},
		{"keys of gateways", "/n?subscription-key=s&x-functions-key=s&user_key=s&keyword=s", "/n?subscription-key=REDACTED&x-functions-key=REDACTED&user_key=REDACTED&keyword=s"},
		{"more of OAuth and SAML", "/n?client_assertion=s&SAMLResponse=s&code_verifier=s&device_code=s&nonce=s", "/n?client_assertion=REDACTED&SAMLResponse=REDACTED&code_verifier=REDACTED&device_code=REDACTED&nonce=REDACTED"},
		{"links in mails", "/n?ticket=s&invite=s&magic_link=s&passcode=s&mfa=s&bearer=s&hmac=s", "/n?ticket=REDACTED&invite=REDACTED&magic_link=REDACTED&passcode=REDACTED&mfa=REDACTED&bearer=REDACTED&hmac=REDACTED"},
		{"a name that is too long to look at", "/n?" + long[:200] + "=s", "/n?" + long[:200] + "=REDACTED"},
		{"a long path", "/" + long, "/" + long[:2047] + "…"},
		{"a long query hides no secret", "/?q=" + long[:2030] + "&token=secret", "/?q=" + long[:2030] + "&token=REDACTE…"},
		{"quotes and script", `/"</script>?a="`, `/"</script>?a="`},
		{"a proxy request", "http://user:password@host.example/n?a=1", "/n?a=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			u, err := r.URL.Parse(tt.target)
			if err != nil {
				t.Fatal(err)
			}
			r.URL, r.RequestURI = u, tt.target
			if got := metadata(t, envelope.Config{SecretParams: []string{"Voucher"}}, r).URL; got != tt.want {
				t.Errorf("url %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("a long name does not let the value through", func(t *testing.T) {
		for n := 2000; n < 2100; n++ {
			r := httptest.NewRequest(http.MethodGet, "/?q="+strings.Repeat("x", n)+"&token=SECRET", nil)
			if got := metadata(t, envelope.Config{}, r).URL; strings.Contains(got, "SEC") {
				t.Errorf("url %q", got[n:])
			}
		}
	})
}

func TestMetadataIsMeasuredAndTrusted(t *testing.T) {
	withIP := envelope.Config{Shape: envelope.StandardConfig{ClientIP: true}.Shape()}
	t.Run("a long method is cut", func(t *testing.T) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Method = strings.Repeat("M", 5000)
		if m := metadata(t, envelope.Config{}, r); len(m.Method) > 32 {
			t.Errorf("method of %d bytes", len(m.Method))
		}
	})
	t.Run("KS-38 the address is the limiter's, not the client's claim", func(t *testing.T) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "[::ffff:192.0.2.9]:1234"
		r.Header.Set("X-Forwarded-For", "203.0.113.1")
		if m := metadata(t, withIP, r); m.IP != "192.0.2.9" {
			t.Errorf("ip %q", m.IP)
		}
		zoned := clientip.WithAddr(r, netip.MustParseAddr("fe80::1%\"zone"))
		if m := metadata(t, withIP, zoned); m.IP != "fe80::1" {
			t.Errorf("ip %q", m.IP)
		}
		r.RemoteAddr = "@"
		if m := metadata(t, withIP, r); m.IP != "" {
			t.Errorf("ip %q", m.IP)
		}
	})
	t.Run("the address is the one that a Resolver has stored", func(t *testing.T) {
		ips, err := clientip.New(clientip.Config{TrustedProxies: []string{"192.0.2.0/24"}})
		if err != nil {
			t.Fatal(err)
		}
		env := must(withIP)
		refusing := usher.Authenticate()
		for name, m := range map[string]usher.Middleware{
			"outside": usher.Chain(ips, env, refusing), "inside": usher.Chain(env, ips, refusing),
		} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("X-Forwarded-For", "203.0.113.1")
			w := httptest.NewRecorder()
			m.Wrap(nil).ServeHTTP(w, r)
			if !strings.Contains(w.Body.String(), `"ip":"203.0.113.1"`) {
				t.Errorf("%s the envelope: %s", name, w.Body)
			}
			r = httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("X-Forwarded-For", "unknown")
			w = httptest.NewRecorder()
			if m.Wrap(nil).ServeHTTP(w, r); !strings.Contains(w.Body.String(), `"ip":""`) {
				t.Errorf("%s the envelope, which takes the proxy for the client: %s", name, w.Body)
			}
		}
	})
	t.Run("the time is the server's", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("X-Request-Start", "1")
			must(envelope.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(1234567 * time.Microsecond)
				envelope.For(w, r).Value(nil)
			})).ServeHTTP(w, r)
			if want := `"execution_time_ms":1235,"timestamp":"2000-01-01T00:00:01.234Z"}}`; !strings.HasSuffix(w.Body.String(), want) {
				t.Errorf("body %s, want %s", w.Body, want)
			}
		})
	})
}

func TestTimeCountsFromTheOutermostEnvelope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		standard := must(envelope.Config{})
		wrapData.ServeNext(w, httptest.NewRequest(http.MethodGet, "/", nil), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			usher.Fail(w, usher.WithResponder(r, standard), &usher.Error{Status: 404})
		}))
		if !strings.Contains(w.Body.String(), `"execution_time_ms":1000,`) {
			t.Errorf("body %s", w.Body)
		}
	})
}

func TestRoutes(t *testing.T) {
	env := must(envelope.Config{Shape: envelope.Data()})
	wrap := must(envelope.Config{Shape: envelope.Data(), Wrap: true})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id := r.PathValue("id"); id != "1" {
			http.Error(w, "no note "+id, 404)
		}
	})
	mux.HandleFunc("POST /notes/{id}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/tree/", func(http.ResponseWriter, *http.Request) {})
	stacks := []struct {
		name    string
		handler http.Handler
	}{
		{"within the envelope", env.Wrap(env.Mux(mux))},
		{"alone", env.Mux(mux)},
		{"wrapped, without Mux", wrap.Wrap(mux)},
	}
	for _, stack := range stacks {
		t.Run(stack.name, func(t *testing.T) {
			s := start(t, stack.handler)
			s.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			wantStatus(t, get(t, s, "/notes/1"), 200)
			missing := get(t, s, "/nowhere")
			wantStatus(t, missing, 404)
			wantBody(t, missing, `{"error":{"code":"not_found","message":"Not Found"}}`)
			refused := do(t, s, http.MethodDelete, "/notes/1")
			wantStatus(t, refused, 405)
			wantHeader(t, refused, "Allow", "GET, HEAD, POST")
			wantBody(t, refused, `{"error":{"code":"method_not_allowed","message":"Method Not Allowed"}}`)
			wantHeader(t, get(t, s, "/tree"), "Location", "/tree/")
		})
	}
	t.Run("what a handler writes itself stays", func(t *testing.T) {
		if got := get(t, start(t, env.Mux(mux)), "/notes/2"); got.body != "no note 2\n" {
			t.Errorf("body %q", got.body)
		}
	})
	t.Run("a router that has set Allow keeps it", func(t *testing.T) {
		got := get(t, start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", "PUT")
			env.MethodNotAllowed(w, r)
		})), "/")
		wantStatus(t, got, 405)
		wantHeader(t, got, "Allow", "PUT")
	})
}

func TestRepliesWithoutABody(t *testing.T) {
	for _, shape := range shapes {
		for _, status := range []int{204, 205, 304} {
			got := get(t, start(t, must(envelope.Config{Shape: shape.shape, Wrap: true}).Wrap(http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) {
					usher.Respond(w, r, usher.Reply{Status: status, Data: 1})
				}))), "/")
			if got.StatusCode != status || got.body != "" {
				t.Errorf("%s: %d %q", shape.name, got.StatusCode, got.body)
			}
		}
	}
	got := get(t, start(t, must(envelope.Config{Shape: envelope.Typed()}).Wrap(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(nil) }))), "/")
	wantStatus(t, got, 204)
}

// Without an envelope, Writer writes plain JSON and problem details.
func TestWriterWithoutAnEnvelope(t *testing.T) {
	s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := envelope.For(w, r).Message("unused")
		out.Untouched()
		if r.URL.Path == "/invalid" {
			out.Invalid(usher.Field{Name: "a", Message: "b"})
			return
		}
		out.Created("/x", []int{1})
	}))
	got := get(t, s, "/")
	wantStatus(t, got, 201)
	wantHeader(t, got, "Location", "/x")
	wantBody(t, got, "[1]")
	wantBody(t, get(t, s, "/invalid"), `{"type":"about:blank","title":"Bad Request","status":400,"detail":"The request is not valid.","code":"validation_failed","errors":[{"field":"a","message":"b"}]}`)
}

func TestOwnShapeAndCodec(t *testing.T) {
	env := must(envelope.Config{
		Shape: envelope.Shape{
			Before: func(b []byte, _ *envelope.Response) []byte { return append(b, `{"ok":true,"result":`...) },
			After:  func(b []byte, _ *envelope.Response) []byte { return append(b, '}') },
			Error: func(b []byte, resp *envelope.Response) []byte {
				b = append(b, `{"ok":false,"why":`...)
				b = resp.AppendValue(b, resp.Details)
				b = append(b, `,"bad":`...)
				b = resp.AppendValue(b, func() {})
				return append(b, '}')
			},
			ErrorType: "application/vnd.example+json",
		},
		Marshal: func(v any) ([]byte, error) {
			if s, ok := v.(string); ok {
				return envelope.AppendString(nil, "codec "+s), nil
			}
			return nil, errors.New("codec: no string")
		},
	})
	s := start(t, env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fail" {
			usher.Fail(w, r, &usher.Error{Status: 400, Details: "why"})
			return
		}
		envelope.For(w, r).Value("v")
	})))
	wantBody(t, get(t, s, "/"), `{"ok":true,"result":"codec v"}`)
	failed := get(t, s, "/fail")
	wantBody(t, failed, `{"ok":false,"why":"codec why","bad":null}`)
	wantHeader(t, failed, "Content-Type", "application/vnd.example+json")
}

func TestResponderWithoutTheMiddleware(t *testing.T) {
	env := must(envelope.Config{Shape: envelope.Typed(), RequestID: fromHeader})
	got := get(t, start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		usher.Fail(w, usher.WithResponder(r, env), &usher.Error{Status: 404, Message: "m"})
	})), "/", "X-Request-Id: one")
	wantBody(t, got, `{"error":{"type":"not_found_error","code":"not_found","message":"m","request_id":"one"}}`)
	wantHeader(t, got, "X-Request-Id", "one")
}

func TestLongResponseHasItsLength(t *testing.T) {
	got := get(t, start(t, must(envelope.Config{Shape: envelope.Data()}).Wrap(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(strings.Repeat("x", 100_000)) }))), "/")
	wantHeader(t, got, "Content-Length", "100011")
	if len(got.body) != 100011 {
		t.Errorf("%d bytes", len(got.body))
	}
}
