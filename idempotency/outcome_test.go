package idempotency_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// What a retry gets.
const (
	runs        = "runs"
	replays     = "is replayed"
	unknown     = usher.CodeIdempotencyOutcomeUnknown
	notKept     = usher.CodeIdempotencyResponseNotKept
	maxResponse = 100
)

// wantRetry fails the test unless a retry of a request that h has served once gets want.
func wantRetry(t *testing.T, h http.Handler, calls *counting, first *httptest.ResponseRecorder, want string) {
	t.Helper()
	again := do(h, post("/", "body"))
	switch want {
	case runs:
		calls.want(t, 2)
		return
	case replays:
		wantReplay(t, again, first)
	default:
		wantFailure(t, again, 409, want)
		if again.Header().Get("Retry-After") != "" {
			t.Error("the client is asked to retry")
		}
	}
	calls.want(t, 1)
}

func TestProfiles(t *testing.T) {
	statuses := []int{200, 201, 202, 204, 303, 304, 400, 401, 402, 403, 404, 405, 408, 409, 410, 412, 413, 415, 422, 423, 425, 429, 451, 500, 501, 502, 503, 504, 507, 0}
	for _, c := range []struct {
		name     string
		profile  idempotency.Profile
		released []int
		unknown  []int
	}{
		{"default", idempotency.ProfileDefault, []int{401, 403, 405, 408, 409, 425, 429, 501, 503}, []int{500, 502, 504, 507, 0}},
		{"Stripe", idempotency.ProfileStripe, []int{400, 401, 403, 405, 408, 409, 425, 429, 503}, []int{0}},
		{"release server errors", idempotency.ProfileReleaseServerErrors, []int{401, 403, 405, 408, 409, 425, 429, 500, 501, 502, 503, 504, 507, 0}, nil},
		// P11: 400, 401, 403, 409, 429 and a panic are not stored, and the retry runs.
		{"only success", idempotency.ProfileKeepSuccess, []int{400, 401, 402, 403, 404, 405, 408, 409, 410, 412, 413, 415, 422, 423, 425, 429, 451, 500, 501, 502, 503, 504, 507, 0}, nil},
	} {
		wants := map[int]string{}
		for _, s := range c.released {
			wants[s] = runs
		}
		for _, s := range c.unknown {
			wants[s] = unknown
		}
		for _, status := range statuses {
			t.Run(fmt.Sprintf("%s: %d", c.name, status), func(t *testing.T) {
				calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
					if status == 0 {
						panic("no response")
					}
					w.WriteHeader(status)
					if status != 204 && status != 304 {
						fmt.Fprint(w, "body")
					}
				}}
				h := newMiddleware(t, idempotency.Config{Profile: c.profile}).Wrap(calls)
				first := do(h, post("/", "body"))
				if first.Code != status {
					t.Errorf("the first client got %d", first.Code)
				}
				want, ok := wants[status]
				if !ok {
					want = replays
				}
				wantRetry(t, h, calls, first, want)
			})
		}
	}
}

// A profile of one's own names only the statuses that it treats otherwise than the default.
func TestAProfileMayNameOnlySomeStatuses(t *testing.T) {
	profile := func(status int) idempotency.Outcome {
		return map[int]idempotency.Outcome{
			201: idempotency.Release, 500: idempotency.Keep, 404: idempotency.Unknown, 0: idempotency.Release,
		}[status]
	}
	for _, c := range []struct {
		status int
		want   string
	}{{201, runs}, {500, replays}, {404, unknown}, {0, runs}, {200, replays}, {503, runs}, {502, unknown}, {499, unknown}} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
				if c.status == 0 {
					panic("no response")
				}
				w.WriteHeader(c.status)
			}}
			h := newMiddleware(t, idempotency.Config{Profile: profile}).Wrap(calls)
			wantRetry(t, h, calls, do(h, post("/", "body")), c.want)
		})
	}
}

func TestSetOutcomeComesBeforeTheProfile(t *testing.T) {
	for _, c := range []struct {
		mark   idempotency.Outcome
		status int
		want   string
	}{
		{idempotency.Release, 201, runs}, {idempotency.Release, 400, runs}, {idempotency.Release, 500, runs}, {idempotency.Release, 0, runs},
		{idempotency.Keep, 500, replays}, {idempotency.Keep, 429, replays}, {idempotency.Keep, 0, unknown},
		{idempotency.Unknown, 201, unknown}, {idempotency.Unknown, 0, unknown},
		{0, 201, replays}, {0, 500, unknown},
	} {
		t.Run(fmt.Sprintf("mark %d, status %d", c.mark, c.status), func(t *testing.T) {
			calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
				e := idempotency.From(r.Context())
				e.SetOutcome(idempotency.Unknown) // the last one counts
				e.SetOutcome(c.mark)
				if c.status == 0 {
					panic("no response")
				}
				w.WriteHeader(c.status)
			}}
			h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
			wantRetry(t, h, calls, do(h, post("/", "body")), c.want)
		})
	}
}

// T11, P08: handlers use their response writer in every way.
func TestResponsesOfEveryKind(t *testing.T) {
	body := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
		body    string // that the first client gets
	}{
		{"nothing", func(http.ResponseWriter, *http.Request) {}, replays, ""},
		{"a status alone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202) }, replays, ""},
		{"0 bytes", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) }, replays, ""},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, replays, ""},
		{"304", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, replays, ""},
		{"many pieces", func(w http.ResponseWriter, _ *http.Request) {
			for range 10 {
				fmt.Fprint(w, "ab")
			}
		}, replays, strings.Repeat("ab", 10)},
		{"one byte less than is kept", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body(maxResponse-1)) }, replays, body(maxResponse - 1)},
		{"as much as is kept", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body(maxResponse)) }, replays, body(maxResponse)},
		{"one byte more than is kept", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body(maxResponse+1)) }, notKept, body(maxResponse + 1)},
		{"more than is kept, in pieces", func(w http.ResponseWriter, _ *http.Request) {
			for range 30 {
				fmt.Fprint(w, body(10))
			}
		}, notKept, body(300)},
		{"more than is kept, announced", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "101")
			fmt.Fprint(w, body(101))
		}, notKept, body(101)},
		{"as much as is kept, announced", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, body(100))
		}, replays, body(100)},
		{"a piece more than is declared", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			fmt.Fprint(w, "wh")
			fmt.Fprint(w, "ole")
			fmt.Fprint(w, "!") // would fit, but for what is missing before it
		}, unknown, "wh"},
		{"less than is declared and kept by its handler", func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Keep)
			w.Header().Set("Content-Length", "4")
			fmt.Fprint(w, "wh")
		}, unknown, "wh"},
		{"less than is declared of a request without effect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			w.WriteHeader(503)
		}, runs, ""},
		{"no body although one is declared for 304", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			w.WriteHeader(304)
		}, replays, ""},
		{"a length that is none", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "four")
			fmt.Fprint(w, "four")
		}, replays, "four"},
		{"a string", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "text") }, replays, "text"},
		{"ReadFrom", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.(io.ReaderFrom).ReadFrom(strings.NewReader("copied"))
		}, replays, "copied"},
		{"ReadFrom beyond what is kept", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, strings.NewReader(body(5000)))
		}, notKept, body(5000)},
		{"two statuses", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(201)
			w.WriteHeader(500)
		}, unknown, ""},
		{"a flush before anything", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			fmt.Fprint(w, "stream")
		}, notKept, "stream"},
		{"a flush in between", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "a")
			_ = http.NewResponseController(w).Flush()
			fmt.Fprint(w, "b")
		}, notKept, "ab"},
		{"trailers that were announced", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			fmt.Fprint(w, "a")
			w.Header().Set("X-Sum", "1")
		}, notKept, "a"},
		{"trailers that were not", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "a")
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		}, notKept, "a"},
		{"a flushed 500", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			w.(http.Flusher).Flush()
		}, unknown, ""},
		{"a flushed 503", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			w.(http.Flusher).Flush()
		}, runs, ""},
		{"a panic", func(http.ResponseWriter, *http.Request) { panic("x") }, unknown, ""},
		{"a panic after a status and a body that is collected", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "a")
			panic("x")
		}, unknown, ""},
		{"a panic after a flush", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "a")
			w.(http.Flusher).Flush()
			panic("x")
		}, notKept, "a"},
		{"a panic after more than is kept", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, body(200))
			panic("x")
		}, notKept, body(200)},
		{"http.ErrAbortHandler", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unknown, ""},
		{"runtime.Goexit", func(http.ResponseWriter, *http.Request) { runtime.Goexit() }, unknown, ""},
		{"Goexit after a flush", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			runtime.Goexit()
		}, notKept, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := &counting{next: c.handler}
			h := newMiddleware(t, idempotency.Config{MaxResponse: maxResponse}).Wrap(calls)
			w := httptest.NewRecorder()
			failed := true
			var wg sync.WaitGroup
			wg.Go(func() { // of its own, for Goexit
				defer func() { _ = recover() }()
				h.ServeHTTP(w, post("/", "body"))
				failed = false
			})
			wg.Wait()
			if got := w.Body.String(); got != c.body {
				t.Errorf("the first client got %d bytes, want %d: %.40q", len(got), len(c.body), got)
			}
			if failed != (strings.Contains(c.name, "panic") || strings.Contains(c.name, "Abort") || strings.Contains(c.name, "Goexit")) {
				t.Errorf("failed: %v", failed)
			}
			wantRetry(t, h, calls, w, c.want)
		})
	}
}

// hijackable is a recorder whose connection can be hijacked.
type hijackable struct {
	*httptest.ResponseRecorder
	err error
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, h.err }

func TestAHijackedConnectionLeavesATombstone(t *testing.T) {
	calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
		if _, _, err := w.(http.Hijacker).Hijack(); err != nil {
			t.Error(err)
		}
	}}
	h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	h.ServeHTTP(hijackable{ResponseRecorder: httptest.NewRecorder()}, post("/", "body"))
	wantFailure(t, do(h, post("/", "body")), 409, notKept)
	calls.want(t, 1)
}

// The claim is finished before the client gets a byte. Otherwise a process that dies right
// after that byte would leave the key free.
func TestTheRecordIsWrittenBeforeTheFirstByteIsSent(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a whole response": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a") },
		"a flush": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "a")
			w.(http.Flusher).Flush()
		},
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "a")
			fmt.Fprint(w, strings.Repeat("b", maxResponse))
		},
		"too much, announced": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "200")
			fmt.Fprint(w, strings.Repeat("b", 200))
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := newHookedStore(t)
			w := httptest.NewRecorder()
			finished := 0
			store.set(func(f *hookedStore) {
				f.finish = func(_ context.Context, c idempotency.Completion) (idempotency.State, error) {
					if finished++; w.Body.Len() > 0 || w.Flushed {
						t.Errorf("%q was sent before", w.Body)
					}
					if c.Result.State == idempotency.StateReleased {
						t.Error("the key was released")
					}
					return c.Result.State, nil
				}
			})
			h := newMiddleware(t, idempotency.Config{Store: store, MaxResponse: maxResponse}).Wrap(handler)
			h.ServeHTTP(w, post("/", ""))
			if finished != 1 || w.Body.Len() == 0 {
				t.Errorf("finished %d times, %d bytes sent", finished, w.Body.Len())
			}
		})
	}
}

// P08: memory does not grow with the response.
func TestALargeResponseIsNotKeptInMemory(t *testing.T) {
	const size = 100 << 20
	chunk := make([]byte, 64<<10)
	h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range size / len(chunk) {
			if n, err := w.Write(chunk); n != len(chunk) || err != nil {
				t.Fatal(n, err)
			}
		}
	}))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := &counter{header: http.Header{}}
	h.ServeHTTP(w, post("/", ""))
	runtime.ReadMemStats(&after)
	if w.n != size {
		t.Errorf("%d bytes were sent, want %d", w.n, size)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d MiB were allocated for a response of 100 MiB", grown>>20)
	}
	wantFailure(t, do(h, post("/", "")), 409, notKept)
}

// counter is a writer that counts.
type counter struct {
	header http.Header
	n      int
}

func (c *counter) Header() http.Header         { return c.header }
func (c *counter) WriteHeader(int)             {}
func (c *counter) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }

// P13: a goroutine that a handler leaves behind cannot reach another request.
func TestAGoroutineLeftBehindReachesNoOtherRequest(t *testing.T) {
	store := newMemory(t, idempotency.MemoryConfig{})
	var wg sync.WaitGroup
	var ended chan struct{} // of the request that is served
	leaving := newMiddleware(t, idempotency.Config{Store: store}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, e, ended := r.Body, idempotency.From(r.Context()), ended
		returned := make(chan struct{})
		defer close(returned)
		fmt.Fprint(w, "response")
		wg.Go(func() {
			<-returned
			p := make([]byte, 64)
			for range 200 {
				if n, err := body.Read(p); n > 0 && string(p[:n]) != "mine" || err == nil && n == 0 {
					t.Errorf("the goroutine reads %q, %v", p[:n], err)
				}
				e.SetOutcome(idempotency.Release)
				runtime.Gosched()
			}
			<-ended
			if _, err := body.Read(p); !errors.Is(err, http.ErrBodyReadAfterClose) {
				t.Errorf("a read after the end returns %v", err)
			}
		})
	}))
	for i := range 50 {
		ended = make(chan struct{})
		do(leaving, post("/", "mine", key(fmt.Sprint("leaving-", i))))
		close(ended)
		do(newMiddleware(t, idempotency.Config{Store: store}).Wrap(new(counting)), post("/", "a secret of another", key(fmt.Sprint("other-", i))))
	}
	wg.Wait()
	if w := do(leaving, post("/", "mine", key("leaving-0"))); w.Body.String() != "response" {
		t.Errorf("the replay is %q", w.Body)
	}
}

// P13: what a goroutine that is left behind writes is sent and stored, or neither.
func TestAGoroutineLeftBehindWritesUntilTheResponseIsStored(t *testing.T) {
	var wg sync.WaitGroup
	h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "response")
		wg.Go(func() {
			for err := error(nil); err == nil; runtime.Gosched() {
				_, err = w.Write([]byte("x"))
			}
		})
		runtime.Gosched()
	}))
	for i := range 50 {
		first := do(h, post("/", "", key(fmt.Sprint(i))))
		if text := first.Body.String(); !strings.HasPrefix(text, "response") || strings.Trim(text[8:], "x") != "" {
			t.Errorf("the client got %q", text)
		}
		wantReplay(t, do(h, post("/", "", key(fmt.Sprint(i)))), first)
	}
	wg.Wait()
}

// P13: writes fail once the handler has returned.
func TestALateWriteIsRefused(t *testing.T) {
	var late http.ResponseWriter
	h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		late = w
		fmt.Fprint(w, "response")
	}))
	first := do(h, post("/", ""))
	if n, err := late.Write([]byte("late")); n != 0 || err == nil {
		t.Errorf("%d bytes were taken, %v", n, err)
	}
	if first.Body.String() != "response" {
		t.Errorf("the client got %q", first.Body)
	}
	wantReplay(t, do(h, post("/", "")), first)
}

func TestNamesOfOutcomes(t *testing.T) {
	want := []string{"", "keep", "release", "unknown", "keep_status", "forget", "Outcome(6)"}
	for o, name := range want {
		if got := idempotency.Outcome(o).String(); got != name {
			t.Errorf("%d: got %q, want %q", o, got, name)
		}
	}
}
