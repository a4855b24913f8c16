package composition_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A service is a server with the whole stack. Its handlers respond in every way that a
// middleware of others can break.
type service struct {
	envelope usher.Middleware
	rest     []usher.Middleware          // inside the envelope, from the outside in
	handlers map[string]http.HandlerFunc // by their routes
	writer   string                      // the key of a caller that may do everything
	reader   string                      // the key of a caller that may only read
	// A stream waits for its client, who says when it has received something.
	received chan struct{}
	patience time.Duration
}

func newService(t *testing.T, wrap bool) *service {
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	env, err := envelope.New(envelope.Config{
		Wrap:    wrap,
		OnError: func(context.Context, error) {}, OnPanic: func(*http.Request, any, []byte) {},
	})
	must(err)
	keys, err := apikey.Open(apikey.ManagerConfig{
		Store: apikey.NewMemory(), Format: apikey.Native{Prefix: "shop"},
	}, apikey.Config{})
	must(err)
	t.Cleanup(func() { _ = keys.Close() })
	issue := func(scopes ...string) string {
		_, secret, err := keys.Manager.Create(t.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ann", Name: "a key", Scopes: scopes})
		must(err)
		return secret.Reveal()
	}
	limit := func(name string, key ratelimit.KeyFunc, n int, applies func(*http.Request) bool) usher.Middleware {
		l, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
			Name: name, Key: key, Limit: ratelimit.RollingWindow(n, time.Hour), Applies: applies,
		}}})
		must(err)
		return l
	}
	once, err := idempotency.New(idempotency.Config{})
	must(err)
	s := &service{
		envelope: env,
		rest: []usher.Middleware{
			usher.Adapt(showID),
			limit("addresses", ratelimit.ByAddress(), 1_000_000, nil),
			usher.Authenticate(keys.Authenticator),
			usher.Require(usher.Requirement{Scopes: []string{"notes:read"}}),
			usher.When(func(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead },
				usher.Require(usher.Requirement{Scopes: []string{"notes:write"}})),
			limit("callers", ratelimit.ByPrincipal(), 1, func(r *http.Request) bool { return r.Header.Get("Limited") != "" }),
			once,
		},
		writer:   issue("notes:read", "notes:write"),
		reader:   issue("notes:read"),
		received: make(chan struct{}, 1),
	}
	s.handle()
	return s
}

// routes yields the handlers by method and path, always in the same order.
func (s *service) routes(yield func(pattern string, h http.HandlerFunc) bool) {
	for _, pattern := range slices.Sorted(maps.Keys(s.handlers)) {
		if !yield(pattern, s.handlers[pattern]) {
			return
		}
	}
}

// showID shows what is the ID of the request for handlers and logs.
func showID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Logged-Id", envelope.RequestID(r.Context()))
		next.ServeHTTP(w, r)
	})
}

// secret is what no client may see.
const secret = "hunter2"

var long = strings.Repeat("a long text ", 500)

func (s *service) handle() {
	var runs atomic.Int32
	s.handlers = map[string]http.HandlerFunc{
		"GET /json":      writes(200, "application/json", `{"a":1}`),
		"GET /json/long": writes(200, "application/json", `{"a":"`+long+`"}`),
		"GET /respond": func(w http.ResponseWriter, r *http.Request) {
			usher.Respond(w, r, usher.Reply{Data: map[string]string{"a": long}})
		},
		"GET /text": writes(200, "text/plain; charset=utf-8", long),
		"GET /html": writes(200, "text/html; charset=utf-8", "<p>"+long),
		"GET /file": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "notes.txt", time.Unix(1_700_000_000, 0), strings.NewReader(long))
		},
		"GET /tagged": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"1"`)
			if strings.Contains(r.Header.Get("If-None-Match"), `"1"`) {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			writes(200, "application/json", `{"a":"`+long+`"}`)(w, r)
		},
		"POST /notes": func(w http.ResponseWriter, _ *http.Request) {
			n := runs.Add(1)
			w.Header().Set("Location", fmt.Sprint("/notes/", n))
			writes(201, "application/json", fmt.Sprintf(`{"id":%d,"text":"%s"}`, n, long))(w, nil)
		},
		"DELETE /notes": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },

		"GET /fail":      fails(&usher.Error{Status: 409, Code: "taken", Message: "The name is taken."}),
		"GET /fail/long": fails(&usher.Error{Status: 402, Code: "no_credit", Message: long}),
		"GET /private":   fails(errors.New(secret)),
		"POST /fail":     fails(&usher.Error{Status: 402, Code: "no_credit", Message: "No credit is left."}),
		"GET /error/400": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "There is no title.", 400) },
		"GET /error/500": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret+long, 500) },
		"GET /json/422":  writes(422, "application/json", `{"title":"`+long+`"}`),
		"GET /json/503":  writes(503, "application/json", `{"cause":"`+secret+`"}`),

		"GET /panic": func(http.ResponseWriter, *http.Request) { panic(secret) },
		"GET /panic/late": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"a":"`+long)
			_ = http.NewResponseController(w).Flush()
			panic(secret)
		},

		"GET /events":  s.events,
		"GET /upgrade": upgrade,
	}
}

func writes(status int, mediaType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func fails(err error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, err) }
}

// The first event of a stream, and the second one if the client has received the first
// before it was sent.
const firstEvent, secondEvent, lateEvent = "data: first\n\n", "data: second\n\n", "data: late\n\n"

func (s *service) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, firstEvent)
	_ = http.NewResponseController(w).Flush()
	select {
	case <-s.received:
		_, _ = io.WriteString(w, secondEvent)
	case <-time.After(s.patience):
		_, _ = io.WriteString(w, lateEvent)
	case <-r.Context().Done():
	}
}

func upgrade(w http.ResponseWriter, _ *http.Request) {
	conn, stream, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "no upgrade", http.StatusNotImplemented)
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = stream.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: notes\r\n\r\nhello")
	_ = stream.Flush()
}
