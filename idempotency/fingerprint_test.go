package idempotency_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A listed field is part of the request: absent, empty, with one value or two.
func TestListedFieldsAreCompared(t *testing.T) {
	fields := []string{"Stripe-Account", "X-Version"}
	type fieldsOf map[string][]string
	requests := []fieldsOf{
		nil,
		{"Stripe-Account": {""}},
		{"Stripe-Account": {"a"}},
		{"Stripe-Account": {"A"}},
		{"Stripe-Account": {"a", ""}},
		{"Stripe-Account": {"", "a"}},
		{"Stripe-Account": {"a, "}},
		{"X-Version": {""}},
		{"X-Version": {"a"}},
		{"Stripe-Account": {"a"}, "X-Version": {"a"}},
		{"Stripe-Account": {"a", "X-Version", "a"}},
		{"Stripe-Account": {"a"}, "X-Version": {"b"}},
	}
	with := func(f fieldsOf) func(*http.Request) {
		return func(r *http.Request) {
			maps.Copy(r.Header, f)
		}
	}
	for i, one := range requests {
		for k, other := range requests {
			calls := new(counting)
			h := newMiddleware(t, idempotency.Config{FingerprintHeaders: fields}).Wrap(calls)
			first := do(h, post("/", "body", with(one)))
			if w := do(h, post("/", "body", with(other))); i == k {
				wantReplay(t, w, first)
			} else if wantFailure(t, w, 422, usher.CodeIdempotencyKeyReused); t.Failed() {
				t.Fatalf("%v after %v", other, one)
			}
			calls.want(t, 1)
		}
	}
}

// The list has no order, and a field may be written and repeated in any way. A deployment
// that adds a field leaves the requests alone that do not have it.
func TestTheListOfFieldsHasNoOrder(t *testing.T) {
	store := newMemory(t, idempotency.MemoryConfig{})
	calls := new(counting)
	for i, fields := range [][]string{{"X-A", "x-b"}, {"x-B", "X-A"}, {"X-B", "X-A", "x-a"}, {"X-B", "X-C", "X-A"}} {
		h := newMiddleware(t, idempotency.Config{Store: store, FingerprintHeaders: fields}).Wrap(calls)
		w := do(h, post("/", "", header("X-B", "2"), header("X-A", "1"), header("X-D", string(rune('a'+i)))))
		if w.Code != 201 {
			t.Errorf("%v: %d %s", fields, w.Code, w.Body)
		}
	}
	calls.want(t, 1)
}

// A field of the fingerprint cannot pass for the beginning of the body.
func TestAFieldIsNotTheBody(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{FingerprintHeaders: []string{"X-A"}}).Wrap(calls)
	do(h, post("/", "\x00", header("X-A", "1")))
	wantFailure(t, do(h, post("/", "\x01\x03X-A\x011\x00")), 422, usher.CodeIdempotencyKeyReused)
}

// A retry may be sent with another credential, or in another way, and is still the same
// request.
func TestFieldsThatARetryChangesCannotBeListed(t *testing.T) {
	for _, name := range []string{
		"authorization", "Proxy-Authorization", "Cookie", "Connection", "Content-Length", "Date", "Expect", "TE", "Trailer",
		"Transfer-Encoding", "Traceparent", "tracestate", "X-Request-ID", "Host", "Content-Type", "Content-Encoding",
		"Idempotency-Key", "", "a b",
	} {
		_, err := idempotency.New(idempotency.Config{FingerprintHeaders: []string{"Accept", name}})
		if err == nil || !strings.Contains(err.Error(), "FingerprintHeaders[1]") || strings.Contains(err.Error(), "FingerprintHeaders[0]") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := idempotency.New(idempotency.Config{Header: "X-Key", FingerprintHeaders: []string{"x-key"}}); err == nil {
		t.Error("the field of the key is accepted")
	}
}

func TestDiscoveryNamesTheListedFields(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{FingerprintHeaders: []string{"x-version", "Accept"}})
	w := do(m.Discovery(), httptest.NewRequest(http.MethodGet, "/", nil))
	if !strings.Contains(w.Body.String(), `"body","Accept","X-Version"]`) {
		t.Error(w.Body)
	}
}
