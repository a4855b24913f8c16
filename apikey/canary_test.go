package apikey_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/oteltest"
)

// A14: everything that can be printed, logged, encoded or exported while a key, valid or
// not, is processed is searched for its text.
func TestKeyMaterialIsSeenNowhere(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	dump := func(what string, v any) {
		log.Info(what, "value", v)
		_, _ = fmt.Fprintf(&out, "%s %v %+v %#v %s %q %x\n", what, v, v, v, v, v, v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	meter := new(oteltest.Meter)
	tracer := new(oteltest.Tracer)
	pepper := strings.Repeat("pepper", 8)
	peppers := []apikey.Pepper{{Version: 1, Key: apikey.NewSecret(pepper)}}
	s := &scripted{Store: apikey.NewMemory()}
	audit := func(_ context.Context, e apikey.Event) { dump("event", e) }
	cache := newCache(t, apikey.CacheConfig{Store: s})
	mc := apikey.ManagerConfig{Store: cache, Format: native, Peppers: peppers, Audit: audit}
	m := newManager(t, mc)
	config := apikey.Config{
		Manager:       m,
		Audit:         audit,
		MeterProvider: meter,
	}
	a := newFromManager(t, config)
	dump("manager config", mc)
	config.MeterProvider = nil
	dump("config", fmt.Sprintf("%+v %#v", config, config))

	by := apikey.Actor{Principal: &usher.Principal{ID: "u1", Owner: "ann"}, Address: netip.MustParseAddr("192.0.2.1")}
	k, secret, err := m.Create(t.Context(), by, apikey.Key{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	dump("secret", secret)
	dump("key", k)
	r, err := s.Find(t.Context(), "ann", k.ID)
	if err != nil {
		t.Fatal(err)
	}
	dump("record", r)

	down := errors.New("down")
	texts := []string{secret.Reveal(), generate(t, native, ""), "shop_live_" + strings.Repeat("canary", 12), "canary" + strings.Repeat("secret", 9)}
	h := usher.Authenticate(a).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		dump("principal", p)
		dump("details", p.Details)
	}))
	for _, text := range texts {
		for _, failing := range []bool{false, true} {
			s.lookup = nil
			if failing {
				s.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) { return apikey.Record{}, down }
			}
			ctx, span := tracer.Start(t.Context(), "request")
			req := request("X-API-Key", text).WithContext(ctx)
			_, err := a.Authenticate(req)
			dump("error", err)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			span.End()
			dump("response", fmt.Sprint(w.Header(), w.Body))
		}
	}
	s.lookup = nil
	func() {
		defer func() { dump("panic", recover()) }()
		panic(fmt.Sprintf("%+v", struct {
			Secret apikey.Secret
			key    apikey.Key
		}{secret, k}))
	}()
	dump("metrics", meter.Counts())
	dump("spans", tracer.Spans())
	if _, err := m.Revoke(t.Context(), by, "ann", k.ID); err != nil {
		t.Fatal(err)
	}

	for what, text := range map[string]string{"spans": `usher.apikey.result`, "events": `authenticate`, "secrets": `[redacted]`, "keys": k.LastFour} {
		if !strings.Contains(out.String(), text) {
			t.Fatalf("%s were not searched: %.2000s", what, out.String())
		}
	}
	for i, text := range append(texts, pepper) {
		// The first characters of an accepted key may be seen, and its last four.
		hidden := text[14 : len(text)-4]
		for _, form := range []string{hidden, fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden), fmt.Sprint([]byte(hidden))} {
			if strings.Contains(out.String(), form) {
				t.Errorf("text %d is visible", i)
			}
		}
	}
}
