package httptoken_test

import (
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/httptoken"
)

func TestValid(t *testing.T) {
	const tokens = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for c := range 256 {
		s := "a" + string([]byte{byte(c)})
		if got, want := httptoken.Valid(s), strings.IndexByte(tokens, byte(c)) >= 0; got != want {
			t.Errorf("%q: got %t", s, got)
		}
	}
	if httptoken.Valid("") {
		t.Error("an empty string is a token")
	}
}
