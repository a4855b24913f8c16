package idempotency_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/oteltest"
)

func TestRequestsAreCountedAndTraced(t *testing.T) {
	m := newMeter()
	h := newMiddleware(t, idempotency.Config{MeterProvider: m}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Idempotency-Key") {
		case "released":
			w.WriteHeader(503)
		case "streamed":
			w.(http.Flusher).Flush()
		}
	}))
	for range 2 {
		for _, k := range []string{"kept", "released", "streamed"} {
			do(h, post("/", "", key(k)))
		}
	}
	do(h, post("/", "other", key("kept")))
	do(h, post("/", "", key("")))
	want := map[string]int64{
		"executed": 4, "replayed": 1, "not_replayable": 1, "mismatched": 1, "refused": 1,
		"kept": 1, "released": 2, "tombstoned": 1,
	}
	if diff := compare.Diff(want, m.counts(t)); diff != "" {
		t.Error(diff)
	}

	tracer := new(oteltest.Tracer)
	r := post("/", "", key("kept"))
	ctx, span := tracer.Start(r.Context(), "request")
	do(h, r.WithContext(ctx))
	span.End()
	noted := tracer.Spans()[0].Attributes
	if len(noted) != 1 || noted[0] != attribute.String("usher.idempotency.result", "replayed") {
		t.Errorf("noted %v", noted)
	}
}

// A key is not secret, but it belongs to the client, and so do the bodies.
func TestNothingOfAClientIsOnAMetricOrInAnError(t *testing.T) {
	const canary = "canary-5d41402abc4b"
	m := newMeter()
	var reported []string
	store := newHookedStore(t)
	h := newMiddleware(t, idempotency.Config{
		Store: store, MeterProvider: m,
		OnError: func(_ context.Context, err error) { reported = append(reported, err.Error()) },
	}).Wrap(new(counting))
	secret := func() *http.Request { return post("/"+canary+"?q="+canary, canary, key(canary)) }
	do(h, secret())
	do(h, secret())
	store.set(func(f *hookedStore) {
		f.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			return idempotency.Record{}, errDown
		}
	})
	refusal := do(h, secret())
	metrics, err := json.Marshal(m.Counts())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(metrics, []byte("executed")) {
		t.Errorf("the metrics %s were not searched", metrics)
	}
	if bytes.Contains(metrics, []byte(canary)) || strings.Contains(fmt.Sprint(reported), canary) || len(reported) != 1 {
		t.Errorf("metrics %s, errors %q", metrics, reported)
	}
	if strings.Contains(refusal.Body.String(), canary) || strings.Contains(refusal.Body.String(), errDown.Error()) {
		t.Errorf("the client got %s", refusal.Body)
	}
}

// A store gets hashes, and no name of a caller.
func TestAStoreSeesOnlyHashes(t *testing.T) {
	store := newHookedStore(t)
	store.set(func(f *hookedStore) {
		f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			all := append(append(append([]byte(nil), c.Key.Owner[:]...), c.Key.Name[:]...), c.Fingerprint[:]...)
			if bytes.Contains(all, []byte("alice")) || bytes.Contains(all, []byte("visible")) {
				t.Errorf("the store sees %q", all)
			}
			if c.Token == (idempotency.Token{}) || c.Lease == 0 || c.TTL < c.Lease {
				t.Errorf("the store gets %+v", c)
			}
			return f.Store.Claim(ctx, c)
		}
	})
	do(newMiddleware(t, idempotency.Config{Store: store}).Wrap(new(counting)), post("/visible", "visible", key("visible")))
}
