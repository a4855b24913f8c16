package jwk_test

import (
	"errors"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth/jwk"
)

func TestGenerateMakesASigningKeyOfItsOwnForEveryAlgorithm(t *testing.T) {
	for _, a := range everyAlgorithm {
		k, err := jwk.Generate(a)
		if err != nil {
			t.Fatal(err)
		}
		other := must(jwk.Generate(a))
		if !k.CanSign() || k.Algorithm() != a || k.ID() == "" || k.ID() == other.ID() {
			t.Errorf("%v and %v", k, other)
		}
		signature := must(k.Sign("text"))
		if err := k.Verify("text", signature); err != nil {
			t.Errorf("%v: %v", k, err)
		}
		if k.Verify("other", signature) == nil || other.Verify("text", signature) == nil {
			t.Errorf("%v verifies what it has not signed", k)
		}
	}
	for _, a := range []jwk.Algorithm{"", "none", "hs256"} {
		if _, err := jwk.Generate(a); !errors.As(err, new(*usher.ConfigError)) {
			t.Errorf("%q: %v", a, err)
		}
	}
}
