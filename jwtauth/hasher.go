package jwtauth

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
)

// A tokenHash identifies a token: SHA-256 of a secret and the whole token. Each cache
// has a secret of its own, so nobody can search for two tokens with one hash.
type tokenHash [sha256.Size]byte

// A hasher hashes tokens without allocating.
type hasher struct {
	secret [32]byte
	bufs   sync.Pool // of *[]byte that begin with the secret
}

func newHasher() *hasher {
	h := new(hasher)
	_, _ = rand.Read(h.secret[:]) // never fails
	h.bufs.New = func() any {
		b := append(make([]byte, 0, 2<<10), h.secret[:]...)
		return &b
	}
	return h
}

func (h *hasher) hash(text string) tokenHash {
	b := h.bufs.Get().(*[]byte)
	*b = append((*b)[:len(h.secret)], text...)
	sum := sha256.Sum256(*b)
	h.bufs.Put(b)
	return sum
}
