package idempotency_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// outOfStep is a store whose replies to claims can be replaced, for instance by the
// previous reply, as on a connection that is out of step with its requests.
type outOfStep struct {
	idempotency.Store
	mu    sync.Mutex
	reply func(c idempotency.Claim, own, last idempotency.Record) idempotency.Record
	last  idempotency.Record
}

func (s *outOfStep) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	own, err := s.Store.Claim(ctx, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last
	s.last = own
	if s.reply != nil && err == nil {
		return s.reply(c, own, last), nil
	}
	return own, err
}

func (s *outOfStep) set(reply func(c idempotency.Claim, own, last idempotency.Record) idempotency.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply = reply
}

// asNamed authenticates the caller that the field Caller names.
func asNamed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, usher.WithPrincipal(r, &usher.Principal{ID: r.Header.Get("Caller"), Kind: usher.KindAPIKey}))
	})
}

// request returns a request with a key and an empty JSON body.
func request(t *testing.T, url, key string, options ...func(*http.Request)) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", key)
	r.Header.Set("Caller", "ada")
	for _, o := range options {
		o(r)
	}
	return r
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func body(text string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	}
}

// If a store returns the record of another key, no caller gets the response of another,
// and no request runs twice or is refused as reused.
func TestARecordOfAnotherKeyIsRefused(t *testing.T) {
	type record = idempotency.Record
	last := func(_ idempotency.Claim, _, last record) record { return last }
	for _, c := range []struct {
		name   string
		mark   idempotency.Outcome // of ada's request
		second []func(*http.Request)
		reply  func(c idempotency.Claim, own, last record) record
		status int
		code   string
	}{
		{"the response of another caller", 0, nil, last, 503, usher.CodeIdempotencyUnavailable},
		{"the response of another caller to another body", 0, []func(*http.Request){body("[]")}, last, 503, usher.CodeIdempotencyUnavailable},
		{"the response to another key of the same caller", 0, []func(*http.Request){header("Caller", "ada"), key("other")}, last, 503, usher.CodeIdempotencyUnavailable},
		{"the tombstone of another caller", idempotency.Unknown, nil, last, 503, usher.CodeIdempotencyUnavailable},
		{"a tombstone without a payload", idempotency.Unknown, nil, func(_ idempotency.Claim, _, last record) record {
			last.Payload = nil
			return last
		}, 503, usher.CodeIdempotencyUnavailable},
		{"the claim of another caller", 0, nil, func(_ idempotency.Claim, _, last record) record {
			last.State, last.Payload = idempotency.StateClaimed, nil
			return last
		}, 503, usher.CodeIdempotencyUnavailable},
		{"the won claim of another caller", 0, nil, func(_ idempotency.Claim, _, last record) record {
			last.State, last.Won, last.Payload = idempotency.StateClaimed, true, nil
			return last
		}, 503, usher.CodeIdempotencyUnavailable},
		{"the payload alone of another caller", 0, nil, func(c idempotency.Claim, _, last record) record {
			last.Fingerprint = c.Fingerprint
			return last
		}, 500, usher.CodeIdempotencyRecordUnreadable},
	} {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, open %v", c.name, open), func(t *testing.T) {
				calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
					idempotency.From(r.Context()).SetOutcome(c.mark)
					w.WriteHeader(http.StatusCreated)
					fmt.Fprint(w, "of "+r.Header.Get("Caller"))
				}}
				store := &outOfStep{Store: newMemory(t, idempotency.MemoryConfig{})}
				m := newMiddleware(t, idempotency.Config{Store: store, DangerouslyFailOpen: open})
				s := httptest.NewServer(asNamed(m.Wrap(calls)))
				t.Cleanup(s.Close)
				for range 2 { // the second finds the record of the first
					roundTrip(t, s, request(t, s.URL, "k"))
				}
				calls.want(t, 1)
				second := func() reply {
					return roundTrip(t, s, request(t, s.URL, "k", append([]func(*http.Request){header("Caller", "bert")}, c.second...)...))
				}
				store.set(c.reply)
				got := second()
				if got.status != c.status || !strings.Contains(got.text, c.code) || got.replayed() || strings.Contains(got.text, "of ada") {
					t.Errorf("got %d %s, replayed %v", got.status, got.text, got.replayed())
				}
				calls.want(t, 1)
			})
		}
	}
}

// A claim that got the reply to another one is released, so that the retry runs.
func TestAClaimWhoseReplyWasLostIsReleased(t *testing.T) {
	calls := new(counting)
	store := &outOfStep{Store: newMemory(t, idempotency.MemoryConfig{})}
	s := httptest.NewServer(asNamed(newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)))
	t.Cleanup(s.Close)
	roundTrip(t, s, request(t, s.URL, "k"))
	store.set(func(_ idempotency.Claim, _, last idempotency.Record) idempotency.Record { return last })
	if got := roundTrip(t, s, request(t, s.URL, "k", header("Caller", "bert"))); got.status != 503 {
		t.Fatalf("got %d %s", got.status, got.text)
	}
	store.set(nil)
	for { // it is released in the background
		got := roundTrip(t, s, request(t, s.URL, "k", header("Caller", "bert")))
		if got.status == 409 {
			continue
		}
		if got.status != 201 || got.replayed() {
			t.Errorf("the retry got %d %s", got.status, got.text)
		}
		break
	}
	calls.want(t, 2)
}

// A record that no claim can return is refused, even where requests run while the store
// fails.
func TestAnImpossibleRecordIsRefused(t *testing.T) {
	payload := stored(t, 201, "body")
	for name, reply := range map[string]func(c idempotency.Claim) idempotency.Record{
		"none": func(idempotency.Claim) idempotency.Record { return idempotency.Record{} },
		"none but won": func(idempotency.Claim) idempotency.Record {
			return idempotency.Record{Won: true}
		},
		"won and done": func(c idempotency.Claim) idempotency.Record {
			return idempotency.Record{State: idempotency.StateDone, Won: true, Fingerprint: c.Fingerprint, Payload: payload}
		},
		"won and a tombstone": func(c idempotency.Claim) idempotency.Record {
			return idempotency.Record{State: idempotency.StateTombstone, Won: true, Fingerprint: c.Fingerprint}
		},
		"won by another request with this key": func(c idempotency.Claim) idempotency.Record {
			c.Fingerprint[31]++
			return idempotency.Record{State: idempotency.StateClaimed, Won: true, Fingerprint: c.Fingerprint}
		},
		"released": func(c idempotency.Claim) idempotency.Record {
			return idempotency.Record{State: idempotency.StateReleased, Fingerprint: c.Fingerprint}
		},
		"released and won": func(c idempotency.Claim) idempotency.Record {
			return idempotency.Record{State: idempotency.StateReleased, Won: true, Fingerprint: c.Fingerprint}
		},
		"in a state that there is not": func(c idempotency.Claim) idempotency.Record {
			return idempotency.Record{State: 6, Fingerprint: c.Fingerprint, Payload: payload}
		},
		"a tombstone with a response": func(c idempotency.Claim) idempotency.Record {
			return idempotency.Record{State: idempotency.StateTombstone, Fingerprint: c.Fingerprint, Payload: payload}
		},
		"unknown and won": func(c idempotency.Claim) idempotency.Record {
			return idempotency.Record{State: idempotency.StateUnknown, Won: true, Fingerprint: c.Fingerprint}
		},
		"unknown with a response": func(c idempotency.Claim) idempotency.Record {
			return idempotency.Record{State: idempotency.StateUnknown, Fingerprint: c.Fingerprint, Payload: payload}
		},
		"done without a response": func(c idempotency.Claim) idempotency.Record {
			return idempotency.Record{State: idempotency.StateDone, Fingerprint: c.Fingerprint}
		},
	} {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, open %v", name, open), func(t *testing.T) {
				store := newHookedStore(t)
				store.claim = func(_ context.Context, c idempotency.Claim) (idempotency.Record, error) { return reply(c), nil }
				calls := new(counting)
				reported := 0
				h := newMiddleware(t, idempotency.Config{
					Store: store, DangerouslyFailOpen: open, OnError: func(context.Context, error) { reported++ },
				}).Wrap(calls)
				w := do(h, post("/", ""))
				if w.Code < 500 || code(w) == "" || w.Header().Get("Idempotency-Replayed") != "" || reported != 1 {
					t.Errorf("got %d %s, %d errors were reported", w.Code, w.Body, reported)
				}
				calls.want(t, 0)
			})
		}
	}
}

// Two URLs that match one route are two requests, even if they differ only in a prefix
// that is stripped or in their host.
func TestAnotherURLIsAnotherRequest(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		calls := &counting{next: func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.RequestURI) }}
		once := newMiddleware(t, idempotency.Config{})
		inner := http.NewServeMux()
		inner.Handle("POST /orders", once.Wrap(calls))
		mux := http.NewServeMux()
		mux.Handle("/v1/", http.StripPrefix("/v1", inner))
		mux.Handle("/v2/", http.StripPrefix("/v2", inner))
		mux.Handle("/t/{tenant}/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.StripPrefix("/t/"+r.PathValue("tenant"), inner).ServeHTTP(w, r)
		}))
		s := serve(asNamed(mux))
		host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
		for _, c := range []struct {
			name          string
			first, second *http.Request
			status        int
		}{
			{"the same", request(t, s.URL+"/v1/orders", "same"), request(t, s.URL+"/v1/orders", "same"), 200},
			{"another prefix", request(t, s.URL+"/v1/orders", "prefix"), request(t, s.URL+"/v2/orders", "prefix"), 422},
			{"another tenant", request(t, s.URL+"/t/red/orders", "tenant"), request(t, s.URL+"/t/blue/orders", "tenant"), 422},
			{"another query", request(t, s.URL+"/v1/orders?a=1", "query"), request(t, s.URL+"/v1/orders?a=2", "query"), 422},
			{"another host", request(t, s.URL+"/v1/orders", "host", host("red.test")), request(t, s.URL+"/v1/orders", "host", host("blue.test")), 422},
			{"the host in capitals", request(t, s.URL+"/v1/orders", "capitals", host("red.test")), request(t, s.URL+"/v1/orders", "capitals", host("RED.test")), 200},
			{"another content encoding", request(t, s.URL+"/v1/orders", "coding"), request(t, s.URL+"/v1/orders", "coding", header("Content-Encoding", "gzip")), 422},
		} {
			first := roundTrip(t, s, c.first)
			second := roundTrip(t, s, c.second)
			switch {
			case first.status != 200 || first.replayed():
				t.Errorf("%s: the first request got %d %s", c.name, first.status, first.text)
			case second.status != c.status:
				t.Errorf("%s: the second got %d %s, want %d", c.name, second.status, second.text, c.status)
			case c.status == 200 && (!second.replayed() || second.text != first.text):
				t.Errorf("%s: the second got %q, want a replay of %q", c.name, second.text, first.text)
			case c.status == 422 && !strings.Contains(second.text, usher.CodeIdempotencyKeyReused):
				t.Errorf("%s: the second got %s", c.name, second.text)
			}
		}
		calls.want(t, 7)
	})
}

// A target in absolute form, which clients send to proxies, names the same request as one
// in origin form, and no other.
func TestATargetInAbsoluteForm(t *testing.T) {
	calls := new(counting)
	inner, mux := http.NewServeMux(), http.NewServeMux()
	inner.Handle("/o", newMiddleware(t, idempotency.Config{}).Wrap(calls))
	mux.Handle("/v1/", http.StripPrefix("/v1", inner))
	mux.Handle("/v2/", http.StripPrefix("/v2", inner))
	s := httptest.NewServer(asNamed(mux))
	t.Cleanup(s.Close)
	for i, c := range []struct {
		first, second string
		status        int
	}{
		{"/v1/o?a=1", "http://one.test/v1/o?a=1", 201},
		{"http://one.test/v1/o?a=http://b", "/v1/o?a=http://b", 201},
		{"http://one.test/v1/o", "http://one.test/v2/o", 422},
		{"/v1/o", "http://two.test/v1/o", 422},
	} {
		var got [2]*http.Response
		for j, target := range []string{c.first, c.second} {
			conn := dial(t, s)
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: one.test\r\nIdempotency-Key: %d\r\nCaller: ada\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", target, i)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			_ = conn.Close()
			got[j] = resp
		}
		if got[0].StatusCode != 201 || got[1].StatusCode != c.status || (got[1].Header.Get("Idempotency-Replayed") == "true") != (c.status == 201) {
			t.Errorf("%s and then %s: %d and %d", c.first, c.second, got[0].StatusCode, got[1].StatusCode)
		}
	}
}

// An operator reads the name of a state in a log.
func TestAStateHasAName(t *testing.T) {
	for state, want := range []string{"", "claimed", "done", "tombstone", "released", "unknown", "State(6)"} {
		if got := idempotency.State(state).String(); got != want {
			t.Errorf("state %d is %q, want %q", state, got, want)
		}
	}
}
