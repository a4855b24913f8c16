package idempotency_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// Under random traffic of every kind no caller ever sees bytes of another, and the Memory's
// books are right.
func TestNoBytesOfOthers(t *testing.T) {
	memory := newMemory(t, idempotency.MemoryConfig{MaxBytes: 1 << 20})
	envs := []func(http.Handler) http.Handler{
		func(h http.Handler) http.Handler { return h },
		timeless(true).Wrap,
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		mark := []byte(p.ID)
		check := func(b []byte) {
			for len(b) > 0 {
				n := min(len(b), len(mark))
				if !bytes.Equal(b[:n], mark[:n]) {
					t.Errorf("%s reads %.40q", p.ID, b)
					return
				}
				b = b[n:]
			}
		}
		body, _ := io.ReadAll(r.Body)
		check(body)
		out := bytes.Repeat(mark, 1+rand.N(3000))
		switch rand.N(9) {
		case 0:
			_, _ = w.Write(out)
		case 1:
			usher.Respond(w, r, usher.Reply{Status: 201, Data: string(out)})
		case 2:
			usher.Fail(w, r, &usher.Error{Status: 422, Code: "no", Message: string(out)})
		case 3:
			_ = idempotency.From(r.Context()).Commit(r.Context(), func(_ context.Context, c idempotency.Completion) error {
				time.Sleep(rand.N(time.Millisecond))
				return nil
			}, nil)
			_, _ = w.Write(out)
		case 4:
			_ = idempotency.From(r.Context()).Commit(r.Context(), func(_ context.Context, c idempotency.Completion) error {
				return io.ErrUnexpectedEOF
			}, func() {})
			_, _ = w.Write(out)
		case 5:
			_, _ = w.Write(out)
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(out)
		case 6:
			_, _ = w.Write(mark) // a longer response is sent, and no longer the middleware's
			go func() { _, _ = w.Write([]byte("stray")); b, _ := io.ReadAll(r.Body); check(b) }()
			panic(http.ErrAbortHandler)
		case 7:
			idempotency.From(r.Context()).SetOutcome(idempotency.Release)
			_, _ = w.Write(out)
		case 8:
			time.Sleep(rand.N(3 * time.Millisecond))
			http.Error(w, string(out), 500)
		}
	})
	var hs []http.Handler
	for i := range 4 {
		c := idempotency.Config{Store: memory, MaxResponse: 8000, OnError: func(context.Context, error) {}, Profile: func(int) idempotency.Outcome { return idempotency.Keep }, Wait: 20 * time.Millisecond}
		if i%2 == 1 {
			c.Sanitize = func(_ *http.Request, resp *idempotency.Response) {
				switch rand.N(4) {
				case 0:
					resp.Status = 0
				case 1:
					panic("x")
				}
			}
		}
		hs = append(hs, envs[i/2](newMiddleware(t, c).Wrap(handler)))
	}
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for range 400 {
				id := fmt.Sprintf("<%c%02d>", 'a'+rand.N(26), g)
				p := &usher.Principal{ID: id, Kind: usher.KindAPIKey}
				body := strings.Repeat(id, 1+rand.N(2)*rand.N(4000))
				r := post("/", body, key(fmt.Sprint(rand.N(6))), as(p))
				w := do(hs[rand.N(4)], r)
				got := w.Body.String()
				for i := strings.IndexByte(got, '<'); i >= 0 && len(got) >= i+5; i = strings.IndexByte(got, '<') {
					if got[i:i+5] != id {
						t.Errorf("%s got %.40q", id, got[i:])
						break
					}
					got = got[i+5:]
				}
			}
		})
	}
	all.Wait()
	if err := memory.Check(); err != nil {
		t.Error(err)
	}
}
