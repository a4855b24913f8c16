package peers_test

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/cors"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// A stream sends six events, two for each connection, and each of them only after the
// client has seen the previous one.
type stream struct {
	mu     sync.Mutex
	seen   chan string
	opened []string // the Last-Event-ID of each connection
}

func newStream() *stream { return &stream{seen: make(chan string, 100)} }

// see is the handler that clients call with the data of each event that they have seen.
func (s *stream) see(_ http.ResponseWriter, r *http.Request) { s.seen <- r.FormValue("event") }

// await returns when the client has seen an event, or why it never will.
func (s *stream) await(ctx context.Context, event string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		select {
		case seen := <-s.seen:
			if seen == event {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ServeHTTP sends two events. The query "cut" breaks the connection off after them, and
// "refuse" is the status of a refusal.
func (s *stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	after := r.Header.Get("Last-Event-ID")
	s.mu.Lock()
	s.opened = append(s.opened, after)
	s.mu.Unlock()
	if status, _ := strconv.Atoi(q.Get("refuse")); status != 0 {
		usher.Fail(w, r, &usher.Error{Status: status, Code: "refused", RetryAfter: time.Second})
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // for nginx
	_, _ = io.WriteString(w, "retry: 10\n\n")
	first, _ := strconv.Atoi(cmp.Or(after, "0"))
	for id := first + 1; id <= first+2; id++ {
		event := fmt.Sprint("event ", id)
		_, _ = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", id, event)
		_ = http.NewResponseController(w).Flush()
		if err := s.await(r.Context(), event); err != nil {
			_, _ = fmt.Fprintf(w, "data: not seen: %v\n\n", err)
			return
		}
	}
	if q.Has("cut") {
		panic(http.ErrAbortHandler)
	}
}

// reset forgets the previous connections and returns them.
func (s *stream) reset() (opened []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	opened, s.opened = s.opened, nil
	return opened
}

var sixEvents = []string{"event 1", "event 2", "event 3", "event 4", "event 5", "event 6"}

// An EventSource of another origin gets each event at once, and resumes after the last one
// that it has, whether the server ends the stream or the connection breaks off.
func TestAnEventSourceResumes(t *testing.T) {
	s, _ := newSite(t, cors.Options{})
	app := chromium.open(t, s.app)
	app.run(t, nil, `await fetch(args[0], {method: "POST", credentials: "include"})`, s.api+"/login")
	for _, query := range []string{"", "?cut"} {
		var events []string
		app.run(t, &events, `
			const [url, seen] = args
			return new Promise(done => {
				const source = new EventSource(url, {withCredentials: true}), events = []
				source.onmessage = e => {
					events.push(e.data)
					fetch(seen + "?event=" + e.data, {method: "POST", mode: "no-cors"})
					if (events.length === 6) { source.close(); done(events) }
				}
				source.onerror = () => { if (source.readyState === EventSource.CLOSED) done(events.concat("closed")) }
			})`, s.api+"/events"+query, s.api+"/seen")
		if opened := s.events.reset(); !slices.Equal(events, sixEvents) || !slices.Equal(opened, []string{"", "2", "4"}) {
			t.Errorf("%q: the page has %q after the connections %q", query, events, opened)
		}
	}
}

// Browsers close an EventSource for good if it is refused, whatever the status, and the
// page does not see why. By fetch it does.
func TestAnEventSourceNeverComesBackAfterARefusal(t *testing.T) {
	s, _ := newSite(t, cors.Options{ExposedHeaders: exposed})
	app := chromium.open(t, s.app)
	app.run(t, nil, `await fetch(args[0], {method: "POST", credentials: "include"})`, s.api+"/login")
	for _, status := range []int{401, 403, 429, 503} {
		url := s.api + "/events?refuse=" + strconv.Itoa(status)
		var closed bool
		app.run(t, &closed, `
			return new Promise(done => {
				const source = new EventSource(args[0], {withCredentials: true})
				source.onerror = () => done(source.readyState === EventSource.CLOSED)
			})`, url)
		if opened := s.events.reset(); !closed || len(opened) != 1 {
			t.Errorf("%d: closed %t after %d connections", status, closed, len(opened))
		}
		got := app.fetch(t, url, object{"credentials": "include"})
		if got.Status != status || got.code() != "refused" || got.Fields["Retry-After"] != "1" {
			t.Errorf("%d: fetch gets %+v", status, got)
		}
		s.events.reset()
	}
}

// Events pass through each gateway at once, and a stream that has ended gives back its
// place under a concurrency limit.
func TestGatewaysPassEventsOnAtOnce(t *testing.T) {
	events := newStream()
	places := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "streams", Key: ratelimit.ByPrincipal(), Limit: ratelimit.Concurrency(1),
	}}}))
	stack := append(middlewares(t, enveloped, authenticated), places)
	backend := serve(t, usher.Chain(stack...).Wrap(events))
	for name, address := range gateways(t, backend) {
		t.Run(name, func(t *testing.T) {
			var got []string
			for last := ""; len(got) < len(sixEvents); {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/events", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Caller", "ann")
				r.Header.Set("Accept-Encoding", "gzip")
				r.Header.Set("Last-Event-ID", last)
				response, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				if response.StatusCode != http.StatusOK {
					t.Fatal(response.Status)
				}
				before := len(got)
				body, err := decode(response)
				if err != nil {
					t.Fatal(err)
				}
				lines := bufio.NewScanner(body)
				for lines.Scan() {
					if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
						last = id
					}
					if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
						got = append(got, data)
						events.seen <- data
					}
				}
				if _ = response.Body.Close(); len(got) == before {
					t.Fatalf("no event after %q: %v", got, lines.Err())
				}
			}
			if opened := events.reset(); !slices.Equal(got, sixEvents) || len(opened) != 3 {
				t.Errorf("%q after the connections %q", got, opened)
			}
		})
	}
}
