package jwk

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// KeyConfig describes a [Key]. Exactly one of Secret, PEM, JWK and Material must be
// set.
type KeyConfig struct {
	// ID is the kid of the tokens that the key signs. A key without an ID verifies
	// tokens with any kid.
	ID string
	// Algorithm is the only algorithm that the key is for. Required unless JWK names it.
	Algorithm Algorithm

	// Secret is an HMAC key, at least as long as the hash: 32 bytes for HS256. It must be
	// random; a password is not.
	Secret []byte
	// PEM is a public key, a private key, or a certificate, of which only the public
	// key is used.
	PEM []byte
	// JWK is a JSON Web Key (RFC 7517): a public key, a private key or a secret.
	JWK []byte
	// Material is an *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, or one of
	// the corresponding private keys.
	Material any
}

// Format prints the ID and the algorithm, whatever the verb, so that a log of a
// configuration has no secret. Package fmt calls no method of an unexported field: keep a
// KeyConfig in an exported one, or keep only the [Key].
func (c KeyConfig) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.text()) }

// MarshalJSON returns a string that Format would print.
func (c KeyConfig) MarshalJSON() ([]byte, error) { return json.Marshal(c.text()) }

func (c KeyConfig) text() string {
	return fmt.Sprintf("configuration of key %q (%s)", c.ID, cmp.Or(c.Algorithm, "no algorithm"))
}

// A Key verifies tokens with one algorithm, and signs them if it is a private key or
// a secret. It is safe for concurrent use and never changes. Printing it shows only its
// ID and its algorithm.
type Key struct {
	id        string
	algorithm Algorithm
	method    jwt.SigningMethod
	issuer    string

	// Pointers to interfaces, because fmt prints unexported fields without calling their
	// methods, for instance a Key in a field of another struct.
	verifying *any // what method verifies with
	signing   *any // what method signs with, or nil
}

// New returns the key that c describes, or all faults of c. It refuses keys that are too
// weak for their algorithm: secrets shorter than the hash, RSA keys below 2048 bits, with a
// public exponent below 3 or of the generator that CVE-2017-15361 is about, and points that
// are not on the curve.
func New(c KeyConfig) (*Key, error) {
	f := config.Of[usher.ConfigError]("jwk.KeyConfig")
	given := 0
	for _, is := range []bool{len(c.Secret) > 0, len(c.PEM) > 0, len(c.JWK) > 0, c.Material != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		f.Add("Secret", "exactly one of Secret, PEM, JWK and Material is required")
	}
	// It has come from a file or a variable of the environment, and equals no kid.
	f.If(strings.TrimSpace(c.ID) != c.ID, "ID", "must not begin or end with a blank or a line end")
	source, material, issuer := "Secret", any(bytes.Clone(c.Secret)), ""
	switch {
	case given != 1:
	case len(c.PEM) > 0:
		source = "PEM"
		var err error
		if material, err = parsePEM(c.PEM); err != nil {
			f.Add(source, err.Error())
		}
	case len(c.JWK) > 0:
		source = "JWK"
		k, err := parseJWK(c.JWK)
		if err != nil {
			f.Add(source, err.Error())
			break
		}
		material, issuer = k.material, k.issuer
		if c.ID == "" {
			c.ID = k.id
		}
		if c.Algorithm == "" {
			c.Algorithm = k.algorithm
		}
		if k.algorithm != "" && !k.algorithm.Equal(c.Algorithm) {
			f.Add("Algorithm", "must not differ from that of the JWK")
		}
		if k.id != "" && k.id != c.ID {
			f.Add("ID", "must not differ from that of the JWK")
		}
	case c.Material != nil:
		source = "Material"
		var err error
		if material, err = cloneKey(c.Material); err != nil {
			f.Add(source, err.Error())
		}
	}
	s, ok := schemes[c.Algorithm]
	if !ok {
		f.Add("Algorithm", notAlgorithm())
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	if err := s.check(material); err != nil {
		f.Add(source, err.Error())
		return nil, f.Err()
	}
	k := s.key(c.ID, c.Algorithm, material)
	k.issuer = issuer
	return k, nil
}

// key returns a Key with material that check accepts.
func (s scheme) key(id string, a Algorithm, material any) *Key {
	k := &Key{id: id, algorithm: a, method: s.method, verifying: &material}
	switch m := material.(type) {
	case []byte:
		k.signing = &material
	case crypto.Signer:
		public := any(m.Public())
		k.signing, k.verifying = &material, &public
	}
	return k
}

// As returns k if it is for an algorithm. A published RSA key that names none (RFC 7517,
// section 4.4) is for no algorithm yet: As returns it for the first of these algorithms
// that RSA keys are for, or nil if there is none. A verifier passes the algorithms of the
// issuer, so that a key is for one algorithm and not for what a token names.
func (k *Key) As(algorithms ...Algorithm) *Key {
	if k.algorithm != "" || k.verifying == nil {
		return k
	}
	for _, a := range algorithms {
		if s := schemes[a]; s.family == rsaFamily {
			return &Key{id: k.id, algorithm: a, method: s.method, issuer: k.issuer, verifying: k.verifying}
		}
	}
	return nil
}

// equalKeys reports whether two public keys are the same.
func equalKeys(a, b any) bool {
	public, ok := a.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && public.Equal(b)
}

// check returns the reason why material is not a key for s, or nil.
func (s scheme) check(material any) error {
	public := material
	if signer, ok := material.(crypto.Signer); ok {
		public = signer.Public()
	}
	switch k := public.(type) {
	case []byte:
		switch {
		case s.family != hmacFamily:
			return errWrongType
		case len(k) < s.secret:
			return fmt.Errorf("a secret must have at least %d bytes for this algorithm", s.secret)
		case bytes.HasPrefix(bytes.TrimSpace(k), []byte("-----BEGIN")):
			// Anybody who has the public key could sign with it.
			return errors.New("is PEM and not a secret")
		}
		return nil
	case *rsa.PublicKey:
		if s.family != rsaFamily {
			return errWrongType
		}
		return checkRSA(k)
	case *ecdsa.PublicKey:
		if s.family != ecdsaFamily || s.curve != k.Curve {
			return errWrongType
		}
		// ECDH refuses points off the curve and the point at infinity.
		if _, err := k.ECDH(); err != nil {
			return errors.New("is not a point on its curve")
		}
		return nil
	case ed25519.PublicKey:
		if s.family != ed25519Family {
			return errWrongType
		}
		return nil
	}
	return errWrongType
}

var errWrongType = errors.New("is not a key for this algorithm")

// ID returns the kid of the key, or "".
func (k *Key) ID() string { return k.id }

// Algorithm returns the only algorithm that the key is for. It is empty for a published
// RSA key that names none; see [Key.As].
func (k *Key) Algorithm() Algorithm { return k.algorithm }

// Issuer returns the member issuer of the JWK that the key was made from, or "". Microsoft
// publishes the keys of several issuers in one set; a key that names an issuer is only for
// the tokens of that one, in whose name {tenantid} stands for the claim tid.
func (k *Key) Issuer() string { return k.issuer }

// CanSign reports whether the key is a private key or a secret.
func (k *Key) CanSign() bool { return k.signing != nil }

// Verify returns an error unless signature is that of text, and for a key without an
// algorithm.
func (k *Key) Verify(text string, signature []byte) error {
	if k.method == nil {
		return errors.New("jwk: the key is not for an algorithm")
	}
	return k.method.Verify(text, signature, *k.verifying)
}

// Sign returns the signature of text, or an error if the key cannot sign.
func (k *Key) Sign(text string) ([]byte, error) {
	if k.signing == nil {
		return nil, errors.New("jwk: the key is public and cannot sign")
	}
	return k.method.Sign(text, *k.signing)
}

// MarshalJSON returns the public half of the key as a JWK (RFC 7517) with kid, use, and
// alg and issuer if it has them. For a secret, which has no public half, it returns an error.
func (k Key) MarshalJSON() ([]byte, error) { return k.publicJWK() }

// Format prints the ID and the algorithm, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// String returns the ID and the algorithm.
func (k Key) String() string {
	return fmt.Sprintf("key %q (%s)", k.id, cmp.Or(k.algorithm, "no algorithm"))
}

// Matches reports whether the key may have signed a token with this algorithm and this
// kid, which may be empty. A published RSA key that names no algorithm may have signed
// with each that is for RSA.
func (k *Key) Matches(id string, a Algorithm) bool {
	return (id == "" || k.id == "" || k.id == id) &&
		(k.algorithm.Equal(a) || k.algorithm == "" && schemes[a].family == rsaFamily)
}

// Generate returns a new key for a, with a random ID: a secret of the length of the hash,
// or a private key, of 3072 bits for RSA. The key is lost when the process ends; if its
// tokens must stay valid longer, load a key with [New].
func Generate(a Algorithm) (*Key, error) {
	s, ok := schemes[a]
	if !ok {
		return nil, &usher.ConfigError{Field: "jwk.Generate algorithm", Reason: notAlgorithm()}
	}
	var (
		material any
		err      error
	)
	switch s.family {
	case hmacFamily:
		secret := make([]byte, s.secret)
		_, _ = rand.Read(secret) // never fails
		material = secret
	case rsaFamily:
		material, err = rsa.GenerateKey(rand.Reader, 3072)
	case ecdsaFamily:
		material, err = ecdsa.GenerateKey(s.curve, rand.Reader)
	case ed25519Family:
		_, material, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, fmt.Errorf("jwk: generate a key: %w", err)
	}
	return s.key(rand.Text(), a, material), nil
}

func notAlgorithm() string { return fmt.Sprintf("must be one of %v", known()) }
