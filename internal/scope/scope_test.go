package scope_test

import (
	"testing"

	"github.com/usher-go/usher/internal/scope"
)

func TestValid(t *testing.T) {
	for text, want := range map[string]bool{
		"read": true, "a": true, "!#[]^~": true, "https://example.com/orders.read": true,
		"": false, " ": false, "a b": false, "a\tb": false, `a"b`: false, `a\b`: false, "a\x7f": false, "ü": false, "a\x00": false,
	} {
		if got := scope.Valid(text); got != want {
			t.Errorf("Valid(%q) = %t", text, got)
		}
	}
}
