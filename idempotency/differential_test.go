package idempotency_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// A script is what a handler does, determined by its seed.
type script struct {
	*rand.Rand
	log    []string
	commit bool
	typed  bool // with a type from the beginning, as compressors detect it from another piece

	responded  bool
	late       bool // something of this package after a status
	unsure     bool // the length that was announced is another
	announced  bool // a length of the handler
	broken     bool
	unstorable bool
}

const scriptMaxResponse = 9000

func (s *script) note(format string, a ...any) { s.log = append(s.log, fmt.Sprintf(format, a...)) }

func pick[T any](s *script, of ...T) T { return of[s.IntN(len(of))] }

func (s *script) bytes(n int) []byte {
	kinds := []string{"text ", "<html><body>", `{"a":1}`, "\x89PNG\r\n\x1a\n", "\x00\x01"}
	p := []byte(strings.Repeat(pick(s, kinds...), n/2+1))
	return p[:n]
}

func (s *script) size() int {
	return pick(s, 0, 1, 2, 7, 100, 511, 512, 513, 2047, 2048, 2049, 4095, 4097)
}

// run runs the script as a handler.
func (s *script) run(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	written, declared, status := 0, -1, 0
	begun := false
	sends := func(code int) {
		if begun && code >= 400 && status < 400 {
			s.unstorable = true
		}
		if !begun {
			status = code
		}
		begun = true
	}
	count := func(n int) {
		written += n
		sends(200)
		if s.responded || declared >= 0 {
			s.unstorable, s.unsure = true, true
		}
	}
	if s.typed {
		h.Set("Content-Type", "text/plain")
	}
	if s.commit {
		err := idempotency.From(r.Context()).Commit(r.Context(), func(context.Context, idempotency.Completion) error { return nil }, nil)
		s.note("commit %v", err)
	}
	for range 1 + s.IntN(8) {
		op := s.IntN(24)
		if begun && (op <= 4 || op == 19 || op == 20 || op == 22) {
			continue // some writers outside send what the header is at the end
		}
		switch op {
		case 0:
			h.Set("Content-Type", pick(s, "application/json", "text/plain; charset=utf-8", "application/octet-stream", "application/problem+json", ""))
		case 1:
			if s.IntN(2) == 0 {
				h["Content-Type"] = nil
				s.note("no type")
			}
		case 2:
			h.Set(pick(s, "Location", "Etag", "Cache-Control", "Retry-After", "Content-Language", "Link", "Vary", "Content-Disposition"), pick(s, "/a", "3", `"x"`, ""))
		case 3:
			h.Add(pick(s, "Link", "Vary", "X-Kept", "X-Other", "Set-Cookie"), pick(s, "a", "b", "c, d"))
		case 4:
			h.Add("Link", "</1>; rel=a")
			h.Add("Link", "</2>; rel=b")
		case 5, 6, 7:
			code := pick(s, 200, 201, 202, 204, 205, 206, 226, 300, 303, 304, 400, 404, 409, 422, 429, 500, 503, 599, 999)
			sends(code)
			w.WriteHeader(code)
			s.note("status %d", code)
		case 8, 9, 10, 11:
			p := s.bytes(s.size())
			n, err := w.Write(p)
			count(n)
			s.note("write %d: %d %v", len(p), n, err)
		case 12, 13:
			p := string(s.bytes(s.size()))
			n, err := io.WriteString(w, p)
			count(n)
			s.note("write string %d: %d %v", len(p), n, err)
		case 14, 15:
			p := s.bytes(s.size())
			n, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(p)})
			count(int(n))
			s.note("copy %d: %d %v", len(p), n, err)
		case 16:
			if s.IntN(3) == 0 {
				s.note("flush %v", http.NewResponseController(w).Flush())
				s.unstorable = true
				sends(200)
			}
		case 17:
			code := pick(s, 0, 200, 201, 202, 404)
			s.late = s.late || begun
			sends(max(code, 200))
			if s.responded {
				s.unstorable = true
			}
			s.responded = true
			usher.Respond(w, r, usher.Reply{Status: code, Code: "made", Message: pick(s, "", "own"), Data: pick[any](s, nil, 1, map[string]int{"a": 1}, strings.Repeat("x", 3000))})
			s.note("respond %d", code)
		case 18:
			code := pick(s, 400, 404, 409, 422, 500, 503)
			s.late = s.late || begun
			sends(code)
			if s.responded {
				s.unstorable = true
			}
			s.responded = true
			usher.Fail(w, r, &usher.Error{Status: code, Code: "no", Message: "not today", Param: "p", Details: map[string]any{"k": 1}, RetryAfter: pick(s, 0, time.Second)})
			s.note("fail %d", code)
		case 19:
			if s.IntN(3) == 0 {
				declared = s.size()
				s.announced = true
				h.Set("Content-Length", strconv.Itoa(declared))
				s.note("length %d", declared)
			}
		case 20:
			if s.IntN(4) == 0 {
				h.Set("Trailer", "X-Trailer")
				defer h.Set("X-Trailer", "t")
				s.unstorable = true
				s.note("trailer")
			} else if s.IntN(4) == 0 {
				defer h.Set(http.TrailerPrefix+"X-Late", "t")
				s.unstorable = true
				s.note("late trailer")
			}
		case 21:
			w.WriteHeader(103)
			s.note("103")
		case 22:
			p, err := io.ReadAll(r.Body)
			s.note("read %d %v", len(p), err)
			h.Set("X-Kept", string(p))
		case 23:
			if s.IntN(4) == 0 {
				s.note("panic")
				s.broken, s.unstorable = true, true
				panic(http.ErrAbortHandler)
			}
		}
	}
	if declared >= 0 && declared != written {
		s.unstorable, s.unsure = true, true
	}
	if written > scriptMaxResponse || declared > scriptMaxResponse {
		s.unstorable = true
	}
}

// A scriptStack is what stands around a handler. Its guard is the middleware, or nothing.
type scriptStack func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler

var scriptStacks = map[string]scriptStack{
	"alone": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler { return guard(h) },
	"TimeoutHandler outside": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return http.TimeoutHandler(guard(h), time.Minute, "late")
	},
	"TimeoutHandler inside": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return guard(http.TimeoutHandler(h, time.Minute, "late"))
	},
	"Deadline outside": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return usher.Deadline(time.Minute, nil).Wrap(guard(h))
	},
	"gzip outside": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler { return gzipped(guard(h)) },
	"gzip inside":  func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler { return guard(gzipped(h)) },
	"envelope outside": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return timeless(false).Wrap(guard(h))
	},
	"envelope that wraps outside": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return timeless(true).Wrap(guard(h))
	},
	"envelope inside": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return guard(timeless(true).Wrap(h))
	},
	"envelope outside, gzip inside": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return timeless(true).Wrap(guard(gzipped(h)))
	},
	"gzip and envelope outside": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return gzipped(timeless(true).Wrap(guard(h)))
	},
	"envelope outside, gzip between": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return timeless(true).Wrap(gzipped(guard(h)))
	},
	"two envelopes": func(guard func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return timeless(true).Wrap(guard(timeless(true).Wrap(h)))
	},
}

func timeless(wrap bool) *envelope.Envelope {
	e, err := envelope.New(envelope.Config{
		Shape: envelope.Problem("https://errors.example/"), Wrap: wrap,
		OnError: func(context.Context, error) {}, OnPanic: func(*http.Request, any, []byte) {},
		RequestID: func(*http.Request) string { return "same" },
	})
	if err != nil {
		panic(err)
	}
	return e
}

// A gzipWriter compresses as most compressors do: it sends nothing before the first byte of
// the body.
type gzipWriter struct {
	http.ResponseWriter
	status int
	sent   bool
	zip    *gzip.Writer
}

func (g *gzipWriter) WriteHeader(status int) {
	switch {
	case status < 200:
		g.ResponseWriter.WriteHeader(status)
	case g.status == 0:
		g.status = status
	}
}

func (g *gzipWriter) send(p []byte) {
	if g.sent {
		return
	}
	g.sent = true
	h := g.Header()
	if len(p) > 0 && g.status != 204 && g.status != 304 && h.Get("Content-Encoding") == "" {
		h.Del("Content-Length")
		h.Set("Content-Encoding", "gzip")
		if _, ok := h["Content-Type"]; !ok {
			h.Set("Content-Type", http.DetectContentType(p))
		}
		g.zip = gzip.NewWriter(g.ResponseWriter)
	}
	if g.status != 0 {
		g.ResponseWriter.WriteHeader(g.status)
	}
}

func (g *gzipWriter) Write(p []byte) (int, error) {
	g.WriteHeader(200)
	if len(p) == 0 {
		return 0, nil
	}
	g.send(p)
	if g.zip == nil {
		return g.ResponseWriter.Write(p)
	}
	return g.zip.Write(p)
}

func (g *gzipWriter) Unwrap() http.ResponseWriter { return g.ResponseWriter }

func (g *gzipWriter) FlushError() error {
	g.WriteHeader(200)
	g.send(nil)
	if g.zip != nil {
		_ = g.zip.Flush()
	}
	return http.NewResponseController(g.ResponseWriter).Flush()
}

func gzipped(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := &gzipWriter{ResponseWriter: w}
		h.ServeHTTP(g, r)
		g.send(nil)
		if g.zip != nil {
			_ = g.zip.Close()
		}
	})
}

// A gotResponse is a response as a client sees it.
type gotResponse struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	err     string
}

func (g gotResponse) String() string {
	body := g.body
	if len(body) > 300 {
		body = fmt.Sprintf("%.150q... (%d)", body, len(body))
	}
	return fmt.Sprintf("%d %v\n   %v %s\n   err %s", g.status, g.header, g.trailer, body, g.err)
}

type scriptServer struct {
	*httptest.Server
	h2 bool
}

func (s *scriptServer) get(r *http.Request) (g gotResponse) {
	var resp *http.Response
	var err error
	if s.h2 {
		resp, err = s.Client().Do(r)
	} else {
		var conn net.Conn
		conn, err = new(net.Dialer).DialContext(r.Context(), "tcp", s.Listener.Addr().String())
		if err == nil {
			defer func() { _ = conn.Close() }()
			r.Close = true
			if err = r.Write(conn); err == nil {
				br := bufio.NewReader(conn)
				for {
					resp, err = http.ReadResponse(br, r)
					if err != nil || resp.StatusCode >= 200 {
						break
					}
				}
			}
		}
	}
	if err != nil {
		g.err = "no response"
		return g
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.err = "broken off"
	}
	g.status, g.header, g.trailer, g.body = resp.StatusCode, resp.Header, resp.Trailer, string(body)
	g.header.Del("Date")
	if !s.h2 {
		g.header["Framing"] = append([]string{fmt.Sprint(resp.ContentLength)}, resp.TransferEncoding...)
	}
	return g
}

// Whatever a handler does, the middleware changes nothing of the response to the first
// request with a key, neither for its client nor for the handler, and a replay is the same
// again. That is also so if the handler leaves the end of a transaction to the middleware,
// unless the response cannot be stored.
//
// Replays lack what belongs to one exchange. Not compared are the framing of a body whose
// length the handler has not announced, bodies of another length than announced, and, after
// a late usher.Respond or usher.Fail, header fields: what they set may still be sent by a
// writer outside that keeps the whole response.
func TestTheFirstResponseAndItsReplayAreThoseOfTheHandler(t *testing.T) {
	const seeds = 25
	for name, stack := range scriptStacks {
		for _, h2 := range []bool{false, true} {
			for _, commit := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/h2=%t/commit=%t", name, h2, commit), func(t *testing.T) {
					t.Parallel()
					compareScripts(t, stack, h2, commit, strings.Contains(name, "gzip"), seeds)
				})
			}
		}
	}
}

func compareScripts(t *testing.T, stack scriptStack, h2, commit, typed bool, seeds uint64) {
	// The client may have its response before the handler has returned.
	var running sync.Mutex
	var last *script
	ran := func() *script {
		running.Lock()
		defer running.Unlock()
		s := last
		last = nil
		return s
	}
	serve := func(commit bool) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seed, _ := strconv.ParseUint(r.Header.Get("X-Seed"), 10, 64)
			s := &script{Rand: rand.New(rand.NewPCG(seed, 1)), commit: commit, typed: typed}
			running.Lock()
			defer running.Unlock()
			last = s
			s.run(w, r)
		})
	}
	start := func(h http.Handler) *scriptServer {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Pattern = "POST /"
			h.ServeHTTP(w, usher.WithPrincipal(r, alice))
		}))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.EnableHTTP2 = h2
		if h2 {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		return &scriptServer{s, h2}
	}
	m := newMiddleware(t, idempotency.Config{
		Profile: func(int) idempotency.Outcome { return idempotency.Keep }, MaxResponse: scriptMaxResponse,
		KeepHeaders: []string{"X-Kept"}, OnError: func(context.Context, error) {},
	})
	without := start(stack(func(h http.Handler) http.Handler { return h }, serve(false)))
	with := start(stack(m.Wrap, serve(commit)))
	request := func(s *scriptServer, seed uint64) *http.Request {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("body"))
		r.Header.Set("X-Seed", fmt.Sprint(seed))
		r.Header.Set("Idempotency-Key", fmt.Sprint("k", seed))
		r.Header.Set("Accept-Encoding", "identity")
		return r
	}
	for seed := range seeds {
		want := without.get(request(without, seed))
		plain := ran()
		first := with.get(request(with, seed))
		mine := ran()
		again := with.get(request(with, seed))
		repeated := ran()
		fail := func(format string, a ...any) {
			t.Errorf("seed %d: %s\n script  %q\n without %v\n first   %v\n again   %v", seed, fmt.Sprintf(format, a...), plain.log, want, first, again)
		}
		if want.err != "" || first.err != "" {
			if first.err == "" && !commit && !plain.broken && !plain.unstorable && !plain.unsure {
				fail("only the plain response is broken")
			}
			if want.err == "" && !plain.unsure {
				fail("only the first response is broken")
			}
			if repeated != nil && !commit {
				fail("ran again")
			}
			continue
		}
		if commit && first.status == 500 && (plain.unstorable || mine.unstorable) {
			continue
		}
		if want.body == first.body {
			for _, g := range []gotResponse{want, first, again} {
				delete(g.header, "Framing")
				if !plain.announced {
					g.header.Del("Content-Length")
				}
			}
		}
		if plain.unsure || typed && plain.late {
			continue
		}
		if plain.late {
			want.header, first.header = nil, nil
			again.header = http.Header{"Idempotency-Replayed": again.header["Idempotency-Replayed"]}
		}
		if want.status != first.status || want.body != first.body || fmt.Sprint(want.header) != fmt.Sprint(first.header) || !typed && fmt.Sprint(want.trailer) != fmt.Sprint(first.trailer) {
			fail("the first response differs")
		}
		if !commit && !slices.Equal(plain.log, mine.log) {
			fail("the handler sees a difference: %q", mine.log)
		}
		if repeated != nil {
			if !commit {
				fail("ran again")
			}
			continue
		}
		if len(again.header["Idempotency-Replayed"]) == 0 {
			if !plain.unstorable && !plain.broken {
				fail("not replayed")
			}
			continue
		}
		for _, name := range []string{"Set-Cookie", "X-Other", "X-Request-Id"} {
			again.header.Del(name)
			first.header.Del(name)
		}
		if first.status >= 400 {
			first.header.Del("Retry-After")
		}
		again.header.Del("Idempotency-Replayed")
		if again.status != first.status || again.body != first.body || fmt.Sprint(again.header) != fmt.Sprint(first.header) {
			fail("the replay differs")
		}
	}
}
