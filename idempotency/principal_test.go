package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A credential that replaces another is the same caller.
func TestKeysBelongToTheLineOfAPrincipal(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	first := do(h, post("/", "", as(&usher.Principal{ID: "1", Kind: usher.KindAPIKey})))
	for _, p := range []usher.Principal{{ID: "2", Line: "1"}, {ID: "3", Line: "1"}, {ID: "1", Line: "1"}} {
		p.Kind = usher.KindAPIKey
		wantReplay(t, do(h, post("/", "", as(&p))), first)
	}
	do(h, post("/", "", as(&usher.Principal{ID: "1", Line: "2", Kind: usher.KindAPIKey})))
	do(h, post("/", "", as(&usher.Principal{ID: "2", Line: "1", Kind: usher.KindJWT})))
	calls.want(t, 3)
}

// digestScheme finds no credential.
type digestScheme struct{}

func (digestScheme) Authenticate(*http.Request) (*usher.Principal, error) {
	return nil, usher.ErrNoCredential
}

func (digestScheme) Detect(*http.Request) (carrier string, certain bool) { return "", false }

func (digestScheme) Challenge() string { return `Digest realm="orders"` }

func TestCallersWithoutAPrincipal(t *testing.T) {
	t.Run("are refused with a key", func(t *testing.T) {
		calls := new(counting)
		var cause string
		h := newMiddleware(t, idempotency.Config{
			OnResult: func(_ context.Context, e idempotency.Event) { cause = fmt.Sprint(errors.Unwrap(e.Err)) },
		}).Wrap(calls)
		w := do(h, post("/", "", anonymous))
		wantFailure(t, w, 401, usher.CodeMissingCredential)
		if !strings.Contains(cause, "see Authenticate") || strings.Contains(w.Body.String(), "Authenticate") {
			t.Errorf("OnResult gets %q, and the client %s", cause, w.Body)
		}
		if w.Header().Get("WWW-Authenticate") == "" {
			t.Error("no challenge")
		}
		calls.want(t, 0)
	})
	t.Run("get the challenges of the authentication around", func(t *testing.T) {
		authentication := usher.Authenticate(usher.Optional(digestScheme{}))
		w := do(usher.Chain(authentication, newMiddleware(t, idempotency.Config{})).Wrap(new(counting)), post("/", "", anonymous))
		wantFailure(t, w, 401, usher.CodeMissingCredential)
		if got := w.Header().Values("WWW-Authenticate"); len(got) != 1 || got[0] != `Digest realm="orders"` {
			t.Errorf("challenges %q", got)
		}
	})
	t.Run("run as without a key if Access.Shadow has admitted them", func(t *testing.T) {
		calls := new(counting)
		meter := newMeter()
		shadow := usher.Access{Shadow: true}.Authenticate(digestScheme{})
		h := usher.Chain(shadow, newMiddleware(t, idempotency.Config{Required: true, MeterProvider: meter.provider})).Wrap(calls)
		for range 2 {
			w := do(h, post("/", "body", anonymous))
			if w.Code != http.StatusCreated || w.Header().Get("Idempotency-Status") != "ignored" {
				t.Errorf("status %d, Idempotency-Status %q", w.Code, w.Header().Get("Idempotency-Status"))
			}
		}
		calls.want(t, 2)
		if counted := meter.counts(t); len(counted) != 0 {
			t.Errorf("counted %v", counted)
		}
	})
	t.Run("pass without a key", func(t *testing.T) {
		calls := new(counting)
		do(newMiddleware(t, idempotency.Config{}).Wrap(calls), post("/", "", anonymous, func(r *http.Request) { r.Header.Del("Idempotency-Key") }))
		calls.want(t, 1)
	})
	t.Run("are one caller if that is configured", func(t *testing.T) {
		calls := new(counting)
		h := newMiddleware(t, idempotency.Config{DangerouslyAllowAnonymous: true}).Wrap(calls)
		first := do(h, post("/", "", anonymous))
		wantReplay(t, do(h, post("/", "", anonymous)), first)
		do(h, post("/", "", as(&usher.Principal{})))
		calls.want(t, 2)
	})
	t.Run("have the owner that Config.Owner returns", func(t *testing.T) {
		calls := new(counting)
		h := newMiddleware(t, idempotency.Config{
			Owner: func(r *http.Request) (string, bool) { s := r.Header.Get("Session"); return s, s != "" },
		}).Wrap(calls)
		session := func(s string) func(*http.Request) {
			return func(r *http.Request) { r.Header.Set("Session", s) }
		}
		first := do(h, post("/", "", anonymous, session("a")))
		wantReplay(t, do(h, post("/", "", session("a"))), first)
		do(h, post("/", "", session("b")))
		wantFailure(t, do(h, post("/", "")), 401, usher.CodeMissingCredential)
		calls.want(t, 2)
	})
}
