package peers_test

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestJoseReadsItsOwnTokens(t *testing.T) {
	jose := runScript(t, "jose.js")
	var pair struct{ Public, Private json.RawMessage }
	jose.call(t, "generate", map[string]any{"alg": "ES256"}, &pair)
	var token string
	jose.call(t, "sign", map[string]any{
		"key": pair.Private, "header": map[string]any{"alg": "ES256"}, "claims": map[string]any{"sub": "alice"},
	}, &token)
	var verified struct{ Claims struct{ Sub string } }
	verify := map[string]any{"token": token, "key": pair.Public, "options": map[string]any{"algorithms": []string{"ES256"}}}
	jose.call(t, "verify", verify, &verified)
	if verified.Claims.Sub != "alice" {
		t.Errorf("%+v", verified)
	}
	verify["token"] = token + "AAAA"
	var thrown *scriptError
	if err := jose.try(t, "verify", verify, nil); !errors.As(err, &thrown) || thrown.Code != "ERR_JWS_SIGNATURE_VERIFICATION_FAILED" {
		t.Errorf("another signature: %v", err)
	}
}
