package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/jwtauth/session"
)

// A14: everything that can be printed, logged, encoded or exported while a session's
// tokens, good and bad, are processed is searched for their text.
func TestSessionTokensAreSeenNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewJSONHandler(&out, nil))
		text := slog.New(slog.NewTextHandler(&out, nil))
		format := func(what string, v any) {
			log.Info(what, "value", v)
			text.Info(what, "value", v)
			fmt.Fprintf(&out, "%s %v %+v %#v %s %q %x %X %d\n", what, v, v, v, v, v, v, v, v)
			if b, err := json.Marshal(v); err == nil {
				out.Write(b)
			}
		}
		dump := func(what string, v any) {
			format(what, v)
			fmt.Fprintf(&out, "%p\n", v)
		}
		meter := new(oteltest.Meter)
		tracer := new(oteltest.Tracer)
		c := managerConfig(t)
		memory := c.Store
		store := &hooked{Store: memory}
		c.Store = store
		c.Audit = func(_ context.Context, e session.Event) { dump("event", e) }
		c.MeterProvider = meter
		m := must(session.New(c))
		h := newHandler(t, m, inCookie)
		dump("key", c.Keys[0])

		var hidden []string
		hide := func(tokens session.Tokens) session.Tokens {
			dump("tokens", tokens)
			dump("tokens", &tokens)
			dump("tokens in a struct", struct{ T session.Tokens }{tokens})
			_, signature, _ := strings.Cut(tokens.AccessToken(), ".")
			hidden = append(hidden, tokens.RefreshToken()[:43], tokens.RefreshToken()[43:], signature)
			return tokens
		}
		first := hide(login(t, m))
		second := hide(must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()})))
		for _, failing := range []bool{true, false} {
			store.before = nil
			if failing {
				store.before = func(context.Context, string) error { return errDown }
			}
			for _, token := range []string{
				"canary" + strings.Repeat("secret", 9), b64([]byte(strings.Repeat("canary.1", 8))),
				first.AccessToken(), first.RefreshToken(), second.RefreshToken(),
			} {
				hidden = append(hidden, token[:43])
				ctx, span := tracer.Start(t.Context(), "request")
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(refreshBody(token)))
				r.Header.Set("Content-Type", "application/json")
				w := httptest.NewRecorder()
				serve := h.Refresh
				if !failing && token == second.RefreshToken() {
					serve = h.Logout
				}
				serve(w, r)
				span.End()
				if w.Code != 200 {
					dump("response", fmt.Sprint(w.Header(), w.Body))
				}
				asked := session.RefreshRequest{Token: token}
				// Package fmt asks no value how to print it by the verb p.
				format("request", asked)
				format("request", &asked)
				format("requests", []session.RefreshRequest{asked})
				format("request in a struct", struct{ R session.RefreshRequest }{asked})
				_, err := m.Refresh(ctx, asked)
				dump("error", err)
			}
		}
		// A body that is malformed at the token.
		w := post(t, h.Refresh, `{"refresh_token":"`+second.RefreshToken())
		dump("response", fmt.Sprint(w.Header(), w.Body))
		w = post(t, h.Refresh, `{"`+second.RefreshToken()[:80]+`":1`)
		dump("response", fmt.Sprint(w.Header(), w.Body))

		third := login(t, m)
		half := must(unb64(third.RefreshToken()))[:32]
		hide(must(m.Refresh(t.Context(), session.RefreshRequest{Token: third.RefreshToken()})))
		r := must(memory.Lookup(t.Context(), sum(half)))
		dump("record", r)
		time.Sleep(time.Minute)
		func() {
			defer func() { dump("panic", recover()) }()
			panic(fmt.Sprintf("%+v", struct{ inner session.Tokens }{third}))
		}()
		hide(third)
		dump("metrics", meter.Counts())
		dump("spans", tracer.Spans())

		for what, sign := range map[string]string{"spans": "usher.session.result", "events": "malformed", "errors": "not valid", "metrics": "usher.session.refreshes"} {
			if !strings.Contains(out.String(), sign) {
				t.Fatalf("%s were not searched", what)
			}
		}
		all := out.String()
		for n, token := range append(hidden, string(secret)) {
			for _, form := range []string{token, fmt.Sprintf("%x", token), fmt.Sprintf("%X", token), fmt.Sprint([]byte(token))} {
				if at := strings.Index(all, form); at >= 0 {
					t.Errorf("text %d is visible: ...%s", n, all[max(0, at-200):at])
				}
			}
		}
	})
}
