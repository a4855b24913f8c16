package idempotency_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A method that never matches would switch the protection off, and a safe one has
// no effect that could happen twice.
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
