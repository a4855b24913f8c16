package apikey_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/compare"
)

// responses is a handler that responds as the query says.
func responses(w http.ResponseWriter, r *http.Request) {
	status := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("status"), &status)
	switch r.URL.Query().Get("by") {
	case "fail":
		usher.Fail(w, r, &usher.Error{Status: status})
	case "panic":
		panic(http.ErrAbortHandler)
	case "stream":
		w.WriteHeader(status)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case "":
		w.WriteHeader(status)
	}
}

// IC-16: a call that fails, by the key, by the request or by the server, is no use, and
// neither is one that a later middleware refuses.
func TestTheStatusDecidesWhetherLastUsedAtMoves(t *testing.T) {
	for name, tt := range map[string]struct {
		isSuccess func(int) bool
		moves     func(status int) bool
	}{
		"by default":   {nil, func(status int) bool { return status < 400 }},
		"all but 429":  {func(status int) bool { return status != 429 }, func(status int) bool { return status != 429 }},
		"one panicked": {func(int) bool { panic("no") }, func(int) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, apikey.ManagerConfig{})
			var reported []error
			a, err := apikey.New(apikey.Config{Manager: m, IsSuccess: tt.isSuccess, OnError: func(_ context.Context, err error) { reported = append(reported, err) }})
			if err != nil {
				t.Fatal(err)
			}
			h := usher.Authenticate(a).Wrap(http.HandlerFunc(responses))
			moves := make(map[string]bool)
			keys := make(map[string]apikey.Key)
			for _, status := range []int{200, 201, 204, 302, 304, 400, 401, 403, 404, 409, 422, 429, 500, 503} {
				for _, by := range []string{"", "fail", "stream", "panic"} {
					if by == "fail" && status < 400 {
						continue
					}
					query := fmt.Sprintf("by=%s&status=%d", by, status)
					k, text := create(t, m, apikey.Key{Owner: query})
					r := request("X-API-Key", text)
					r.URL.RawQuery = query
					func() {
						defer func() { _ = recover() }()
						h.ServeHTTP(httptest.NewRecorder(), r)
					}()
					if by == "panic" {
						status = 500
					}
					keys[query], moves[query] = k, tt.moves(status)
				}
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			for query, k := range keys {
				if moved := !lastUsed(t, m, k).IsZero(); moved != moves[query] {
					t.Errorf("%s: moved %t, want %t", query, moved, moves[query])
				}
			}
			if panics := name == "one panicked"; panics != (len(reported) == len(keys)) {
				t.Errorf("reported %v", reported)
			}
		})
	}
}

// A stream may go on for days.
func TestAStreamMovesLastUsedAtAtItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{})
		k, text := create(t, m, apikey.Key{})
		a, err := apikey.New(apikey.Config{Manager: m})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Close() }()
		start := time.Now()
		usher.Authenticate(a).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
			time.Sleep(time.Hour)
			if got := lastUsed(t, m, k); !got.Equal(start) {
				t.Errorf("last used at %v during the stream, want %v", got, start)
			}
		})).ServeHTTP(httptest.NewRecorder(), request("X-API-Key", text))
	})
}

func TestAUsageHasWhenAndWhereAKeyWasUsed(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, text := create(t, m, apikey.Key{Scopes: []string{"read"}})
	var got []apikey.Usage
	var ids []string
	config := apikey.Config{Manager: m, OnUse: func(r *http.Request, u apikey.Usage) {
		got = append(got, u)
		ids = append(ids, envelope.RequestID(r.Context()))
	}}
	for _, interval := range []time.Duration{0, -1} { // whether or not LastUsedAt is written
		config.LastUseInterval = interval
		a, err := apikey.New(config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Close() }()
		env, err := envelope.New(envelope.Config{})
		if err != nil {
			t.Fatal(err)
		}
		addresses, err := clientip.New(clientip.Config{TrustedProxies: []string{"192.0.2.0/24"}})
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.HandleFunc("PATCH /notes/{id}", func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("X-API-Key")
			w.WriteHeader(http.StatusConflict)
		})
		h := usher.Chain(env, addresses, usher.Authenticate(a)).Wrap(mux)
		for range 2 {
			got, ids = nil, nil
			r := httptest.NewRequest(http.MethodPatch, "/notes/secret", nil)
			r.Header.Set("X-API-Key", text)
			r.Header.Set("X-Forwarded-For", "198.51.100.7")
			r.Header.Set("User-Agent", "curl/8")
			before := time.Now()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if len(got) != 1 {
				t.Fatalf("%d uses of one request", len(got))
			}
			if u := got[0]; u.Time.Before(before) || u.Time.After(time.Now()) || u.Key.ID != k.ID || !slices.Equal(u.Key.Scopes, k.Scopes) {
				t.Errorf("use %+v", u)
			}
			got[0].Time, got[0].Key = time.Time{}, nil
			want := apikey.Usage{
				Method: "PATCH", Route: "PATCH /notes/{id}", Status: 409,
				Address: netip.MustParseAddr("198.51.100.7"), UserAgent: "curl/8",
			}
			if diff := compare.Diff(want, got[0]); diff != "" {
				t.Error(diff)
			}
			if want := w.Header().Get("X-Request-Id"); ids[0] != want || want == "" {
				t.Errorf("request ID %q, want %q", ids[0], want)
			}
		}
		got = nil
		h.ServeHTTP(httptest.NewRecorder(), request("X-API-Key", text+"x"))
		h.ServeHTTP(httptest.NewRecorder(), request())
		if len(got) != 0 {
			t.Errorf("%d uses without a key that is admitted", len(got))
		}
	}
}

func TestTheTextsOfAUsageAreBounded(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	_, text := create(t, m, apikey.Key{})
	var got apikey.Usage
	a, err := apikey.New(apikey.Config{Manager: m, OnUse: func(_ *http.Request, u apikey.Usage) { got = u }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	for _, long := range []string{strings.Repeat("x", 100_000), strings.Repeat("\u00e9", 50_000), "x" + strings.Repeat("\u65e5", 30_000), strings.Repeat("\xff", 1000), "\xc3"} {
		r := request("X-API-Key", text, "User-Agent", long)
		r.Method = long
		usher.Authenticate(a).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { r.Pattern = long })).ServeHTTP(httptest.NewRecorder(), r)
		for what, tt := range map[string]struct {
			text string
			most int
		}{"method": {got.Method, 32}, "route": {got.Route, 256}, "agent": {got.UserAgent, 256}} {
			if !utf8.ValidString(tt.text) || len(tt.text) > tt.most || len(tt.text) < tt.most-3 && utf8.ValidString(long) {
				t.Errorf("%s %q", what, tt.text)
			}
			if !strings.HasPrefix(long, tt.text) {
				t.Errorf("%s %q is not how %.10q begins", what, tt.text, long)
			}
		}
	}
}

// What OnUse does wrong is the service's concern and not the client's.
func TestAnOnUseThatPanicsChangesNothingForTheClient(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, text := create(t, m, apikey.Key{})
	var mu sync.Mutex
	var reported []string
	a, err := apikey.New(apikey.Config{
		Manager: m,
		OnUse:   func(*http.Request, apikey.Usage) { panic("oops") },
		OnError: func(_ context.Context, err error) {
			mu.Lock()
			defer mu.Unlock()
			reported = append(reported, fmt.Sprint(errors.Unwrap(err)))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(usher.Authenticate(a).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "one ")
		if r.URL.Path == "/stream" {
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, "two")
	})))
	defer server.Close()
	for _, path := range []string{"/", "/stream"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-API-Key", text)
		response, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || string(body) != "one two" {
			t.Errorf("%s: %d %q, %v", path, response.StatusCode, body, err)
		}
	}
	server.Close()
	if len(reported) != 2 || !strings.Contains(reported[0], "Config.OnUse") {
		t.Errorf("reported %q", reported)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if lastUsed(t, m, k).IsZero() {
		t.Error("the time of last use is lost")
	}
}

// Nothing of a key's text can reach a log through a Usage.
func TestAUsageHasNoKeyMaterial(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	_, text := create(t, m, apikey.Key{})
	var log bytes.Buffer
	a, err := apikey.New(apikey.Config{Manager: m, OnUse: func(_ *http.Request, u apikey.Usage) {
		slog.New(slog.NewJSONHandler(&log, nil)).Info("use", "usage", u, "key", u.Key)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	usher.Authenticate(a).Wrap(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), request("X-API-Key", text))
	if log.Len() == 0 || strings.Contains(log.String(), text[len(text)-20:]) {
		t.Errorf("logged %s", log.String())
	}
}

// A use that is recorded while another batch is being written is in the next one, and no
// time moves backwards.
func TestUsesAreKeptWhileBatchesAreWritten(t *testing.T) {
	s := &touched{Store: apikey.NewMemory()}
	m := newManager(t, apikey.ManagerConfig{Store: s})
	var keys [4]apikey.Key
	var texts [4]string
	for i := range keys {
		keys[i], texts[i] = create(t, m, apikey.Key{Name: fmt.Sprint(i)})
	}
	a, err := apikey.New(apikey.Config{Manager: m, LastUseInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var last [4][4]time.Time
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				k := (i + g) % len(keys)
				p, err := a.Authenticate(request("X-API-Key", texts[k]))
				if err != nil {
					t.Error(err)
					return
				}
				last[g][k] = time.Now()
				p.OnUse(request(), http.StatusOK)
			}
		})
	}
	wg.Wait()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		want := last[0][k]
		for g := range last {
			if last[g][k].After(want) {
				want = last[g][k]
			}
		}
		if got := lastUsed(t, m, keys[k]); got.Before(want.Add(-2 * time.Millisecond)) {
			t.Errorf("key %d: last used at %v, want %v", k, got, want)
		}
	}
}

// Entries of a cache come and go while a use is not written yet. They share one place.
func TestManyEntriesOfAKeyTakeOnePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &touched{Store: apikey.NewMemory()}
		c := newCache(t, apikey.CacheConfig{Store: s, TTL: time.Second})
		m := newManager(t, apikey.ManagerConfig{Store: c})
		k, text := create(t, m, apikey.Key{})
		a, err := apikey.New(apikey.Config{Manager: m, LastUseInterval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		var from netip.Addr
		for i := range 100 {
			r := request("X-API-Key", text)
			from = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			r.RemoteAddr = netip.AddrPortFrom(from, 80).String()
			p, err := a.Authenticate(r)
			if err != nil {
				t.Fatal(err)
			}
			p.OnUse(r, http.StatusOK)
			time.Sleep(2 * time.Second)
		}
		last := time.Now().Add(-2 * time.Second)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if batches, uses := s.written(); batches != 1 || uses != 1 {
			t.Errorf("%d writes of %d uses, want 1 of 1", batches, uses)
		}
		found, err := m.Find(t.Context(), k.Owner, k.ID)
		if err != nil || !found.LastUsedAt.Equal(last) || found.LastUsedFrom != from {
			t.Errorf("last used at %v from %v, %v", found.LastUsedAt, found.LastUsedFrom, err)
		}
	})
}

// The entry of a key may outlive many batches.
func TestAKeyIsRecordedAgainAfterABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{})
		k, text := create(t, m, apikey.Key{})
		a, err := apikey.New(apikey.Config{Manager: m, LastUseInterval: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Close() }()
		time.Sleep(time.Millisecond) // off the beat of the batches
		for range 3 {
			used := time.Now()
			p, err := a.Authenticate(request("X-API-Key", text))
			if err != nil {
				t.Fatal(err)
			}
			p.OnUse(request(), http.StatusOK)
			time.Sleep(2 * time.Second)
			if got := lastUsed(t, m, k); !got.Equal(used) {
				t.Errorf("last used at %v, want %v", got, used)
			}
		}
	})
}
