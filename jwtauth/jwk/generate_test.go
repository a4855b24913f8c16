package jwk_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth/jwk"
)

func TestGenerateMakesASigningKeyOfItsOwnForEveryAlgorithm(t *testing.T) {
	ids, moduli := make(map[string]bool), make(map[string]bool)
	for _, a := range everyAlgorithm {
		k, err := jwk.Generate(a)
		if err != nil {
			t.Fatal(err)
		}
		if !k.CanSign() || k.Algorithm() != a || k.ID() == "" || ids[k.ID()] {
			t.Errorf("%v", k)
		}
		ids[k.ID()] = true
		signature := must(k.Sign("text"))
		if err := k.Verify("text", signature); err != nil {
			t.Errorf("%v: %v", k, err)
		}
		if k.Verify("other", signature) == nil {
			t.Errorf("%v verifies what it has not signed", k)
		}
		// A second RSA key takes long to generate; that of the last algorithm is another.
		var public struct{ N string }
		if text, err := k.MarshalJSON(); err == nil && json.Unmarshal(text, &public) == nil && public.N != "" {
			if moduli[public.N] {
				t.Errorf("%v is an earlier key", k)
			}
			moduli[public.N] = true
		} else if must(jwk.Generate(a)).Verify("text", signature) == nil {
			t.Errorf("%v is the next key too", k)
		}
	}
	if len(moduli) != 6 {
		t.Errorf("%d RSA keys", len(moduli))
	}
	for _, a := range []jwk.Algorithm{"", "none", "hs256"} {
		if _, err := jwk.Generate(a); !errors.As(err, new(*usher.ConfigError)) {
			t.Errorf("%q: %v", a, err)
		}
	}
}
