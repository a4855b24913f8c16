package idempotency_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/compare"
)

func TestEveryFaultOfAConfigIsReported(t *testing.T) {
	_, err := idempotency.New(idempotency.Config{
		Header: "a b", ReplayHeader: "ü", Methods: []string{"POST", "GET", ""},
		FingerprintHeaders: []string{"X-Version", "cookie", "x y"},
		KeepHeaders:        []string{"set-cookie", "X-Ratelimit-Limit", "a:b", "", "retry-after"},
		MaxBody:            -1, MaxResponse: 1 << 31, BodyTimeout: -1, Wait: -2, MaxWaiters: -1,
		TTL: time.Second, Lease: time.Minute, StoreTimeout: time.Hour, FinishTimeout: -1, DisconnectTimeout: -1,
		ResolveTimeout: -1,
	})
	want := []string{
		"Header", "ReplayHeader", "Methods[1]", "Methods[2]", "FingerprintHeaders[1]", "FingerprintHeaders[2]", "KeepHeaders[0]", "KeepHeaders[1]", "KeepHeaders[2]",
		"KeepHeaders[3]", "KeepHeaders[4]", "MaxBody", "MaxResponse", "Wait", "MaxWaiters", "BodyTimeout", "DisconnectTimeout", "FinishTimeout",
		"ResolveTimeout", "TTL", "Lease",
	}
	var got []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var c *usher.ConfigError
		if !errors.As(e, &c) {
			t.Fatalf("%T", e)
		}
		got = append(got, strings.TrimPrefix(c.Field, "idempotency.Config."))
	}
	if diff := compare.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFaultsOfMemoryConfig(t *testing.T) {
	for _, c := range []struct {
		config idempotency.MemoryConfig
		want   []string
	}{
		{idempotency.MemoryConfig{}, nil},
		{idempotency.MemoryConfig{MaxBytes: 1 << 20, OwnerShare: 1 << 10}, nil},
		{idempotency.MemoryConfig{MaxBytes: 32 << 30, OwnerShare: 32 << 30}, nil},
		{idempotency.MemoryConfig{MaxBytes: -1, OwnerShare: -1}, []string{"MaxBytes", "OwnerShare"}},
		{idempotency.MemoryConfig{MaxBytes: 1<<20 - 1, OwnerShare: 1<<10 - 1}, []string{"MaxBytes", "OwnerShare"}},
		{idempotency.MemoryConfig{MaxBytes: 32<<30 + 1, OwnerShare: 32<<30 + 2}, []string{"MaxBytes", "OwnerShare"}},
		{idempotency.MemoryConfig{OwnerShare: 192<<20 + 1}, []string{"OwnerShare"}},
	} {
		_, err := idempotency.NewMemory(c.config)
		var got []string
		if err != nil {
			for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
				fault, ok := errors.AsType[*usher.ConfigError](e)
				if !ok {
					t.Fatalf("%T", e)
				}
				got = append(got, strings.TrimPrefix(fault.Field, "idempotency.MemoryConfig."))
			}
		}
		if diff := compare.Diff(c.want, got); diff != "" {
			t.Errorf("%+v: %s", c.config, diff)
		}
	}
}

func TestAConfigMayChangeAfterNew(t *testing.T) {
	c := idempotency.Config{Methods: []string{"PUT"}, KeepHeaders: []string{"X-A"}, FingerprintHeaders: []string{"b", "a"}}
	calls := new(counting)
	h := newMiddleware(t, c).Wrap(calls)
	if diff := compare.Diff([]string{"b", "a"}, c.FingerprintHeaders); diff != "" {
		t.Errorf("New has changed the list: %s", diff)
	}
	put := func(r *http.Request) { r.Method = http.MethodPut }
	c.Methods[0], c.KeepHeaders[0], c.FingerprintHeaders[0] = "POST", "X-B", "X-C"
	do(h, post("/", ""))
	do(h, post("/", ""))
	calls.want(t, 2)
	do(h, post("/", "", put, header("X-C", "1")))
	if w := do(h, post("/", "", put, header("X-C", "2"))); w.Code != 201 {
		t.Errorf("a field that was listed later: %d", w.Code)
	}
}

// A method that never matches would switch the protection off, and a safe method has no
// effect that could happen twice.
func TestMethodsAreInCapitalsAndUnsafe(t *testing.T) {
	for _, name := range []string{
		"", "post", "Patch", " POST", "POST ", "POST,PATCH", "P\u00d6ST", "*", "CONNECT",
		"GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH", "PRI",
	} {
		_, err := idempotency.New(idempotency.Config{Methods: []string{"POST", name}})
		fault, ok := errors.AsType[*usher.ConfigError](err)
		if !ok || fault.Field != "idempotency.Config.Methods[1]" || fault.Reason == "" || strings.Contains(err.Error(), "Methods[0]") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := idempotency.New(idempotency.Config{Methods: []string{"PUT", "DELETE", "LOCK", "PURGE", "M-ORDER"}}); err != nil {
		t.Error(err)
	}
}
