package usher_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/ratelimit"
)

// A noted authenticator records the uses of the credentials that it accepts, as
// "<ID> <status>".
type noted struct {
	usher.Authenticator
	mu      *sync.Mutex
	used    *[]string
	pattern *string // of the last use
}

func newNoted(a usher.Authenticator) noted {
	return noted{a, new(sync.Mutex), new([]string), new(string)}
}

func (n noted) Authenticate(r *http.Request) (*usher.Principal, error) {
	p, err := n.Authenticator.Authenticate(r)
	if p == nil {
		return p, err
	}
	watched := *p
	watched.OnUse = func(r *http.Request, status int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		*n.used = append(*n.used, fmt.Sprint(p.ID, " ", status))
		*n.pattern = r.Pattern
	}
	return &watched, err
}

// uses returns the uses since the last call.
func (n noted) uses() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	used := *n.used
	*n.used = nil
	return used
}

// A notedDetector is a noted Detector.
type notedDetector struct {
	noted
	detector
}

func newRecorder(f field) notedDetector {
	d := detector{field: f}
	return notedDetector{newNoted(d), d}
}

func (n notedDetector) Authenticate(r *http.Request) (*usher.Principal, error) {
	return n.noted.Authenticate(r)
}

// blind returns an authenticator without detection that shares the uses of n.
func (n notedDetector) blind() usher.Authenticator {
	b := n.noted
	b.Authenticator = n.field
	return b
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestAUseHasTheStatusOfTheResponse(t *testing.T) {
	limiter, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "all", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(1, time.Hour),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	limited := limiter.Wrap(status(200))
	limited.ServeHTTP(httptest.NewRecorder(), get())
	tests := map[string]struct {
		next http.Handler
		want int
	}{
		"nothing was written":        {http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), 200},
		"a body":                     {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }), 200},
		"a status":                   {status(204), 204},
		"the second status is late":  {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.WriteHeader(500) }), 201},
		"an informational status":    {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(404) }), 404},
		"an error that fails":        {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, errors.New("x")) }), 500},
		"an error of net/http":       {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }), 403},
		"a redirect":                 {http.RedirectHandler("/other", http.StatusTemporaryRedirect), 307},
		"no route":                   {http.NewServeMux(), 404},
		"Require refuses":            {usher.Require(usher.Requirement{Level: usher.LevelFull}).Wrap(status(200)), 403},
		"a limiter refuses":          {limited, 429},
		"a TimeoutHandler gives up":  {http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), time.Millisecond, ""), 503},
		"a Deadline inside is over":  {usher.Deadline(time.Millisecond, nil).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })), 503},
		"a failure nobody wrote yet": {http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { usher.NoteFailure(r, 0, &usher.Error{Status: 409}) }), 409},
		"a failure that was replaced": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			usher.NoteFailure(r, 0, &usher.Error{Status: 409})
			w.WriteHeader(202)
		}), 202},
		"a response that goes elsewhere": {http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			usher.Fail(httptest.NewRecorder(), r, &usher.Error{Status: 403})
		}), 200},
	}
	a := newRecorder("A")
	for name, tt := range tests {
		for way, m := range map[string]usher.Middleware{
			"alone":       usher.Authenticate(a),
			"blind":       usher.Authenticate(a.blind()),
			"two":         usher.Authenticate(detector{field: "B"}, a),
			"blind ones":  usher.Authenticate(a.blind(), field("B")),
			"precedence":  usher.Authenticate(usher.Precedence(a, detector{field: "B"})),
			"optional":    usher.Authenticate(usher.Optional(a)),
			"both":        usher.Authenticate(usher.Optional(usher.Precedence(detector{field: "B"}, a))),
			"nested ones": usher.Authenticate(usher.Precedence(usher.Precedence(detector{field: "B"}), usher.Optional(a)), detector{field: "C"}),
			"inside":      usher.Chain(usher.Authenticate(usher.Optional(field("B"))), usher.Authenticate(a)),
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				serve(m.Wrap(tt.next), get("A", "good"))
				equal(t, "uses", []string{fmt.Sprint("A good ", tt.want)}, a.uses())
			})
		}
	}
	for _, credential := range []string{"bad", "error", "nothing", ""} {
		serve(usher.Authenticate(a, detector{field: "B"}).Wrap(status(200)), get("A", credential))
		equal(t, "uses of "+credential, []string(nil), a.uses())
	}
	serve(usher.Authenticate(a, detector{field: "B"}).Wrap(status(200)), get("A", "good", "B", "good"))
	equal(t, "uses of two credentials", []string(nil), a.uses())
}

// The handler may change the credentials of its request, as proxies do.
func TestAUseIsThatOfTheCredentialThatWasVerified(t *testing.T) {
	changes := map[string]func(r *http.Request){
		"leaves the credential":           func(*http.Request) {},
		"removes the credential":          func(r *http.Request) { r.Header.Del("A") },
		"replaces it by that of another":  func(r *http.Request) { r.Header.Del("A"); r.Header.Set("B", "good") },
		"adds the credential of another":  func(r *http.Request) { r.Header.Set("B", "good") },
		"passes on a request without any": func(r *http.Request) { clear(r.Header) },
	}
	a, b := newRecorder("A"), newRecorder("B")
	for stack, m := range map[string]usher.Middleware{
		"alone":                  usher.Authenticate(a),
		"alone, blind":           usher.Authenticate(a.blind()),
		"the second of two":      usher.Authenticate(b, a),
		"two without detection":  usher.Authenticate(b.blind(), a.blind()),
		"a precedence":           usher.Authenticate(usher.Precedence(b, a)),
		"two optional ones":      usher.Authenticate(usher.Optional(b), usher.Optional(a)),
		"an optional precedence": usher.Authenticate(usher.Optional(usher.Precedence(b, a.blind()))),
		"inside another":         usher.Chain(usher.Authenticate(usher.Optional(b)), usher.Authenticate(a, b.blind())),
	} {
		for change, do := range changes {
			t.Run(stack+"/"+change, func(t *testing.T) {
				serve(m.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { do(r) })), get("A", "good"))
				equal(t, "uses", []string{"A good 200"}, a.uses())
				equal(t, "uses of the other", []string(nil), b.uses())
			})
		}
	}
	m := usher.Authenticate(usher.Precedence(a, b))
	serve(m.Wrap(status(200)), get("A", "good", "B", "good"))
	equal(t, "the first", []string{"A good 200"}, a.uses())
	equal(t, "the second", []string(nil), b.uses())
}

func TestAPanicIsAUse(t *testing.T) {
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"before a status": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "A good 500"},
		"another value":   {func(http.ResponseWriter, *http.Request) { panic("x") }, "A good 500"},
		"after a status":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202); panic(http.ErrAbortHandler) }, "A good 202"},
		"after a flush":   {func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); panic(http.ErrAbortHandler) }, "A good 200"},
		"after NoteFailure": {func(_ http.ResponseWriter, r *http.Request) {
			usher.NoteFailure(r, 0, &usher.Error{Status: 409})
			panic("x")
		}, "A good 500"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newRecorder("A")
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the panic is lost")
					}
				}()
				serve(usher.Authenticate(a).Wrap(tt.handler), get("A", "good"))
			}()
			equal(t, "uses", []string{tt.want}, a.uses())
		})
	}
}

// onServer returns the URL of a server with h.
func onServer(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestAUseOfAStreamIsNotedAtItsStart(t *testing.T) {
	a := newRecorder("A")
	var atStart []string
	for name, flush := range map[string]func(w http.ResponseWriter){
		"Flush":      func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"controller": func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
	} {
		for _, code := range []int{0, 202, 403} {
			serve(usher.Authenticate(a).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if code != 0 {
					w.WriteHeader(code)
					_, _ = io.WriteString(w, "data")
				}
				equal(t, "uses before the flush", []string(nil), a.uses())
				for range 3 {
					flush(w)
					atStart = append(atStart, a.uses()...)
				}
			})), get("A", "good"))
			equal(t, name+": uses at the start", []string{fmt.Sprint("A good ", max(code, 200))}, atStart)
			equal(t, name+": uses at the end", []string(nil), a.uses())
			atStart = nil
		}
	}
}

func TestAUseOfAHijackedConnection(t *testing.T) {
	a := newRecorder("A")
	atStart := make(chan []string, 1)
	hijack := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if code != 0 {
				w.WriteHeader(code)
			}
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				http.Error(w, err.Error(), http.StatusNotImplemented)
				return
			}
			defer func() { _ = conn.Close() }()
			atStart <- a.uses()
		}
	}
	for code, want := range map[int]string{0: "A good 101", 101: "A good 101"} {
		returned := make(chan bool, 1)
		h := usher.Authenticate(a).Wrap(hijack(code))
		address := strings.TrimPrefix(onServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			returned <- true
		})), "http://")
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nA: good\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		equal(t, "uses at the start", []string{want}, <-atStart)
		<-returned
		equal(t, "uses at the end", []string(nil), a.uses())
	}
	serve(usher.Authenticate(a).Wrap(hijack(0)), get("A", "good"))
	equal(t, "a connection that cannot be taken", []string{"A good 501"}, a.uses())
}

// A replay is no use, as Authenticate inside is not reached.
func TestAReplayIsNotAUse(t *testing.T) {
	a := newRecorder("A")
	once, err := idempotency.New(idempotency.Config{DangerouslyAllowAnonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	h := usher.Chain(once, usher.Authenticate(a)).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(201)
		_, _ = io.WriteString(w, "made")
	}))
	for _, want := range [][]string{{"A good 201"}, nil} { // the second is a replay
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set("A", "good")
		r.Header.Set("Idempotency-Key", "k")
		if w := serve(h, r); w.Code != 201 {
			t.Errorf("status %d", w.Code)
		}
		equal(t, "uses", want, a.uses())
	}
}

func TestAUseBehindAProxy(t *testing.T) {
	a := newRecorder("A")
	aborting := onServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	for name, tt := range map[string]struct {
		target string
		want   string
	}{
		"a target":                   {onServer(t, status(404)), "A good 404"},
		"one that is not there":      {"http://127.0.0.1:1", "A good 502"},
		"one that aborts its bodies": {aborting, "A good 200"},
	} {
		target, err := url.Parse(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		proxy := &httputil.ReverseProxy{
			Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(target) },
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		}
		server := httptest.NewServer(usher.Authenticate(a).Wrap(proxy))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("A", "good")
		if response, err := server.Client().Do(r); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
		server.Close() // when every handler has returned
		equal(t, name, []string{tt.want}, a.uses())
	}
}

// A Deadline outside of Authenticate responds if the handler has returned without a
// response.
func TestAUseAfterADeadlineOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newRecorder("A")
		for _, in := range []time.Duration{time.Second, 3 * time.Second} {
			w := serve(usher.Chain(usher.Deadline(2*time.Second, errGateway), usher.Authenticate(a)).Wrap(
				http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(in) })), get("A", "good"))
			equal(t, "uses", []string{fmt.Sprint("A good ", w.Code)}, a.uses())
		}
	})
}

func TestTheRequestOfAUse(t *testing.T) {
	a := newRecorder("A")
	for name, middle := range map[string]usher.Middleware{
		"directly":       usher.Chain(),
		"inside a copy":  usher.Deadline(time.Minute, nil),
		"inside another": usher.Authenticate(field("A")),
	} {
		mux := http.NewServeMux()
		mux.Handle("GET /notes/{id}", status(200))
		r := get("A", "good")
		r.URL.Path = "/notes/7"
		serve(usher.Chain(usher.Authenticate(a), middle).Wrap(mux), r)
		equal(t, name, "GET /notes/{id}", *a.pattern)
		equal(t, name+": uses", []string{"A good 200"}, a.uses())
	}
}

// shared is an authenticator whose requests share a principal.
type shared struct{ p *usher.Principal }

func (s shared) Authenticate(*http.Request) (*usher.Principal, error) { return s.p, nil }

func TestAUseIsNotedOnceByAuthenticatesInOneAnother(t *testing.T) {
	var used []string
	principal := func(id string) shared {
		return shared{&usher.Principal{ID: id, OnUse: func(_ *http.Request, status int) { used = append(used, fmt.Sprint(id, " ", status)) }}}
	}
	a, b := usher.Authenticate(principal("a")), usher.Authenticate(principal("b"))
	teapot := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(httptest.NewRecorder(), r)
		w.WriteHeader(http.StatusTeapot)
	})
	store := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, usher.WithPrincipal(r, &usher.Principal{ID: "other"}))
	})
	twice := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, r)
		next.ServeHTTP(w, r)
	})
	for name, tt := range map[string]struct {
		m    usher.Middleware
		want []string
	}{
		"the same":                   {usher.Chain(a, a), []string{"a 200"}},
		"three times":                {usher.Chain(a, a, a), []string{"a 200"}},
		"the outer one has the last": {usher.Chain(a, teapot, a), []string{"a 418"}},
		"another":                    {usher.Chain(a, b), []string{"b 200", "a 200"}},
		"a principal is stored":      {usher.Chain(a, store), []string{"a 200"}},
		"one after another":          {usher.Chain(twice, a), []string{"a 200", "a 200"}},
		"one after another, inside":  {usher.Chain(a, twice, a), []string{"a 200"}},
	} {
		used = nil
		serve(tt.m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), usher.Track(get()))
		equal(t, name, tt.want, used)
	}
}

// WithPrincipal admits nobody, so there is nothing to note.
func TestAPrincipalThatIsStoredIsNotUsed(t *testing.T) {
	p := &usher.Principal{ID: "a", OnUse: func(*http.Request, int) { t.Error("noted") }}
	serve(usher.Require(usher.Requirement{}).Wrap(status(200)), usher.WithPrincipal(get(), p))

	used := 0
	p = &usher.Principal{ID: "a", OnUse: func(*http.Request, int) { used++ }}
	serve(usher.Authenticate(shared{p}).Wrap(status(200)), usher.WithPrincipal(get(), p))
	equal(t, "uses of one that is also admitted", 1, used)
}

func TestPrincipalsCanBeCompared(t *testing.T) {
	want := usher.Principal{ID: "a", Scopes: []string{"s"}}
	p := want
	p.OnUse = func(*http.Request, int) {}
	got, _ := usher.PrincipalFrom(usher.WithPrincipal(get(), &p).Context())
	equal(t, "principal", want, got)
	if p.OnUse == nil {
		t.Error("the principal was changed")
	}
}

func TestManyUsesAtOnce(t *testing.T) {
	a := newRecorder("A")
	target := onServer(t, usher.Authenticate(a).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stream":
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/refused":
			w.WriteHeader(http.StatusForbidden)
		}
	})))
	paths := []string{"/", "/stream", "/panic", "/refused"}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, target+paths[i%len(paths)], nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("A", "good")
			if response, err := http.DefaultClient.Do(r); err == nil {
				_, _ = bufio.NewReader(response.Body).ReadByte()
				_ = response.Body.Close()
			}
		})
	}
	wg.Wait()
	var used []string
	for deadline := time.Now().Add(time.Minute); len(used) < 32 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		used = append(used, a.uses()...)
	}
	slices.Sort(used)
	equal(t, "uses", slices.Concat(
		slices.Repeat([]string{"A good 200"}, 16), slices.Repeat([]string{"A good 403"}, 8), slices.Repeat([]string{"A good 500"}, 8),
	), used)
}

func TestAUseAllocatesNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	used := 0
	p := &usher.Principal{ID: "a", OnUse: func(*http.Request, int) { used++ }}
	h := usher.Authenticate(constant{p}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w, r := httptest.NewRecorder(), get()
	if got := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); got != 1 {
		t.Errorf("%v allocations, want only the exchange", got)
	}
	if used == 0 {
		t.Error("nothing was noted")
	}
}
