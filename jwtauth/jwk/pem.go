package jwk

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// parsePEM returns the key in text, which must be one PEM block.
func parsePEM(text []byte) (any, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("is not PEM")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("must be one PEM block")
	}
	var (
		k   any
		err error
	)
	switch block.Type {
	case "PUBLIC KEY":
		k, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		k, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			k = c.PublicKey
		}
	case "PRIVATE KEY":
		k, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		k, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		k, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("has a block of type %q, which is not a key", block.Type)
	}
	if err != nil {
		// The error of the parser may quote the key.
		return nil, fmt.Errorf("has a block of type %q that cannot be read", block.Type)
	}
	return k, nil
}

// cloneKey returns a copy of k. It encodes and decodes k, which also shows that k is
// complete.
func cloneKey(k any) (clone any, err error) {
	// The encoders panic on a key that lacks a part.
	defer func() {
		if recover() != nil {
			clone, err = nil, errors.New("is not a complete key")
		}
	}()
	switch k := k.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return nil, errors.New("is not a complete key")
		}
		return x509.ParsePKIXPublicKey(der)
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return nil, errors.New("is not a complete key")
		}
		return x509.ParsePKCS8PrivateKey(der)
	}
	return nil, fmt.Errorf("is a %T, which is not a key", k)
}
