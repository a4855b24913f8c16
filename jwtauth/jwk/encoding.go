package jwk

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/usher-go/usher/internal/jose"
)

// parsed is the content of a JSON Web Key.
type parsed struct {
	id        string
	algorithm Algorithm
	issuer    string
	material  any
}

const forSignatures = "sig"

// parseJWK reads a JSON Web Key for signatures (RFC 7517; RFC 7518, section 6;
// RFC 8037). It ignores certificates.
func parseJWK(data []byte) (parsed, error) {
	p := jwkParser{use: forSignatures}
	return p.parse(data)
}

// parsePublishedJWK reads a JSON Web Key of a key set. Its use must be this one; that of
// a key that names none is signatures. It must be public, and its base64 is read less
// strictly than that of a key in a configuration. With an error only the id is returned.
func parsePublishedJWK(data []byte, use string) (parsed, error) {
	p := jwkParser{published: true, use: use}
	return p.parse(data)
}

func (p *jwkParser) parse(data []byte) (parsed, error) {
	_, p.members, p.err = jose.ParseObject(nil, data)
	if jose.KeyNames.Confused(p.members) {
		p.fail(errors.New("has two members with names that differ only in case"))
	}
	k := parsed{id: p.text("kid"), algorithm: Algorithm(p.text("alg")), issuer: p.text("issuer")}
	if cmp.Or(p.text("use"), forSignatures) != p.use {
		p.fail(errOtherUse)
	}
	if value, ok := p.find("key_ops"); ok {
		switch ops, ok := jose.Strings(value); {
		case !ok:
			p.fail(errors.New("has a member \"key_ops\" that is not an array of strings"))
		case !slices.Contains(ops, "verify") && !slices.Contains(ops, "sign"):
			p.fail(errOtherUse)
		}
	}
	if p.published {
		for _, name := range privateMembers {
			if _, ok := p.find(name); ok {
				p.fail(errors.New("is published with its private half"))
			}
		}
	}
	switch kty := p.text("kty"); {
	case p.err != nil:
	case kty == "RSA":
		k.material = p.rsaKey()
	case kty == "EC":
		k.material = p.ecdsaKey()
	case kty == "OKP":
		k.material = p.ed25519Key()
	case kty == "oct":
		k.material = p.bytes("k", 0)
	default:
		p.fail(errors.New("has an unknown key type"))
	}
	if p.err != nil {
		return parsed{id: k.id}, p.err
	}
	return k, nil
}

// errOtherUse is the reason for a key that is for something else. Issuers publish such keys
// in the same set on purpose.
var errOtherUse = errors.New("is for another use")

// privateMembers are the members that only private keys and secrets have (RFC 7518,
// section 6).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// A jwkParser reads the members of a JSON Web Key and keeps the first error.
type jwkParser struct {
	published bool   // whether the key is of a key set
	use       string // what the key must be for
	members   []jose.Member
	err       error
}

func (p *jwkParser) fail(reason error) {
	if p.err == nil {
		p.err = reason
	}
}

// find returns the value of a member. One that is null is absent.
func (p *jwkParser) find(name string) (value string, ok bool) {
	value, ok = jose.Find(p.members, name)
	return value, ok && value != "null"
}

// text returns the value of a member that is a string, or "".
func (p *jwkParser) text(name string) string {
	value, ok := p.find(name)
	if !ok {
		return ""
	}
	text, ok := jose.Unquote(value)
	if !ok {
		p.fail(fmt.Errorf("has a member %q that is not a string", name))
	}
	return text
}

// inURLAlphabet replaces the characters that only standard base64 has.
var inURLAlphabet = strings.NewReplacer("+", "-", "/", "_")

// bytes returns the decoded value of a base64url member. It must have size bytes, unless
// size is 0. Some issuers publish padded or standard base64, which means the same key.
func (p *jwkParser) bytes(name string, size int) []byte {
	text := p.text(name)
	if p.published {
		text = inURLAlphabet.Replace(strings.TrimRight(text, "="))
	}
	b, ok := jose.Decode(text)
	if !ok || len(b) == 0 || size > 0 && len(b) != size {
		p.fail(fmt.Errorf("has no valid member %q", name))
		return make([]byte, size)
	}
	return b
}

func (p *jwkParser) number(name string) *big.Int { return new(big.Int).SetBytes(p.bytes(name, 0)) }

// private reports whether the key includes its private half.
func (p *jwkParser) private() bool {
	_, ok := p.find("d")
	return ok
}

func (p *jwkParser) rsaKey() any {
	public := rsa.PublicKey{N: p.number("n")}
	e := p.number("e")
	if e.BitLen() > 31 {
		p.fail(errors.New("is an RSA key with a public exponent above 2^31"))
	}
	public.E = int(e.Int64())
	if !p.private() || p.err != nil {
		return &public
	}
	if _, ok := p.find("oth"); ok {
		p.fail(errors.New("is an RSA key of more than two primes"))
	}
	k := &rsa.PrivateKey{PublicKey: public, D: p.number("d"), Primes: []*big.Int{p.number("p"), p.number("q")}}
	if p.err == nil && (checkRSA(&public) != nil || k.Validate() != nil) {
		p.fail(errors.New("is an RSA key with inconsistent numbers"))
	}
	if p.err == nil {
		k.Precompute()
	}
	return k
}

var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

func (p *jwkParser) ecdsaKey() any {
	curve, ok := curves[p.text("crv")]
	if !ok {
		p.fail(errors.New("has an unknown curve"))
		return nil
	}
	size := (curve.Params().BitSize + 7) / 8
	point := append([]byte{4}, p.bytes("x", size)...)
	point = append(point, p.bytes("y", size)...)
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		p.fail(errors.New("is not a point on its curve"))
		return nil
	}
	if !p.private() {
		return public
	}
	k, err := ecdsa.ParseRawPrivateKey(curve, p.bytes("d", size))
	if err != nil || !k.PublicKey.Equal(public) {
		p.fail(errors.New("has a private half that does not match its public one"))
		return nil
	}
	return k
}

func (p *jwkParser) ed25519Key() any {
	if p.text("crv") != "Ed25519" {
		p.fail(errors.New("has an unknown curve"))
	}
	public := ed25519.PublicKey(p.bytes("x", ed25519.PublicKeySize))
	if !p.private() {
		return public
	}
	k := ed25519.NewKeyFromSeed(p.bytes("d", ed25519.SeedSize))
	if !bytes.Equal(k.Public().(ed25519.PublicKey), public) {
		p.fail(errors.New("has a private half that does not match its public one"))
	}
	return k
}

// publicJWK returns the public half of k.
func (k *Key) publicJWK() ([]byte, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	out := struct {
		Type      string    `json:"kty"`
		ID        string    `json:"kid,omitempty"`
		Use       string    `json:"use"`
		Algorithm Algorithm `json:"alg,omitempty"`
		Curve     string    `json:"crv,omitempty"`
		X         string    `json:"x,omitempty"`
		Y         string    `json:"y,omitempty"`
		N         string    `json:"n,omitempty"`
		E         string    `json:"e,omitempty"`
		Issuer    string    `json:"issuer,omitempty"`
	}{ID: k.id, Use: forSignatures, Algorithm: k.algorithm, Issuer: k.issuer}
	switch public := (*k.verifying).(type) {
	case *rsa.PublicKey:
		out.Type, out.N, out.E = "RSA", b64(public.N.Bytes()), b64(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			return nil, err
		}
		x, y := point[1:1+len(point)/2], point[1+len(point)/2:]
		out.Type, out.Curve, out.X, out.Y = "EC", public.Curve.Params().Name, b64(x), b64(y)
	case ed25519.PublicKey:
		out.Type, out.Curve, out.X = "OKP", "Ed25519", b64(public)
	default:
		return nil, errors.New("jwk: a secret has no public half")
	}
	return json.Marshal(out)
}
