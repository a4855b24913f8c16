package jwtauth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/usher-go/usher/jwtauth"
)

func TestKeyPrintsNoMaterial(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	k := mustKey(t, jwtauth.KeyConfig{ID: "a", Algorithm: jwtauth.HS256, Secret: secret})
	const want = `key "a" (HS256)`
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, k); got != want {
			t.Errorf("%s prints %s", verb, got)
		}
		if got := fmt.Sprintf(verb, *k); got != want {
			t.Errorf("%s of a copy prints %s", verb, got)
		}
	}
	if b, err := json.Marshal(k); err == nil {
		t.Errorf("a secret is encoded as %s", b)
	}
}

func TestKeyIsACopy(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := mustKey(t, jwtauth.KeyConfig{Algorithm: jwtauth.EdDSA, Material: private})
	before, _ := json.Marshal(k)
	clear(private)
	clear(secret)
	if after, _ := json.Marshal(k); !bytes.Equal(before, after) {
		t.Error("the key has changed with what it was made of")
	}
}

func TestPublicHalfGoesThroughJWK(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := mustKey(t, jwtauth.KeyConfig{ID: "x", Algorithm: jwtauth.ES512, Material: private})
	first, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	public := mustKey(t, jwtauth.KeyConfig{JWK: first})
	second, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) || public.CanSign() || !k.CanSign() || public.ID() != "x" || public.Algorithm() != jwtauth.ES512 {
		t.Errorf("%s became %s (%v)", first, second, public)
	}
}
