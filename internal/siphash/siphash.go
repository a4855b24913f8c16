// Package siphash computes SipHash-2-4 with a result of 128 bits, a message authentication
// code that is faster for short texts than one that is made of SHA-256
// (https://www.aumasson.jp/siphash/siphash.pdf).
package siphash

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
)

// A Key is secret. Its zero value is a key that everybody knows.
type Key struct{ k0, k1 uint64 }

// NewKey returns the key of these 16 bytes.
func NewKey(b [16]byte) Key {
	return Key{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])}
}

// Random returns a new random key.
func Random() Key {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return NewKey(b)
}

// A Sum is the code of a text, the first 8 bytes first, each half in little-endian order.
// Without the key nobody can find a text that has a given Sum.
type Sum [2]uint64

// Equal compares two sums in a time that does not depend on them.
func (s Sum) Equal(other Sum) bool { return (s[0]^other[0])|(s[1]^other[1]) == 0 }

// Sum returns the code of text under k. It allocates nothing.
func (k Key) Sum(text string) (sum Sum) {
	v0 := k.k0 ^ 0x736f6d6570736575
	v1 := k.k1 ^ 0x646f72616e646f6d ^ 0xee
	v2 := k.k0 ^ 0x6c7967656e657261
	v3 := k.k1 ^ 0x7465646279746573
	last := uint64(len(text)) << 56
	for ; len(text) >= 8; text = text[8:] {
		m := uint64(text[0]) | uint64(text[1])<<8 | uint64(text[2])<<16 | uint64(text[3])<<24 |
			uint64(text[4])<<32 | uint64(text[5])<<40 | uint64(text[6])<<48 | uint64(text[7])<<56
		v3 ^= m
		v0, v1, v2, v3 = round(v0, v1, v2, v3)
		v0, v1, v2, v3 = round(v0, v1, v2, v3)
		v0 ^= m
	}
	for i := range len(text) {
		last |= uint64(text[i]) << (8 * i)
	}
	v3 ^= last
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	v0 ^= last

	v2 ^= 0xee
	for range 4 {
		v0, v1, v2, v3 = round(v0, v1, v2, v3)
	}
	sum[0] = v0 ^ v1 ^ v2 ^ v3
	v1 ^= 0xdd
	for range 4 {
		v0, v1, v2, v3 = round(v0, v1, v2, v3)
	}
	sum[1] = v0 ^ v1 ^ v2 ^ v3
	return sum
}

// round is SipRound.
func round(v0, v1, v2, v3 uint64) (w0, w1, w2, w3 uint64) {
	v0 += v1
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v3
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 += v3
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 += v1
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v2 = bits.RotateLeft64(v2, 32)
	return v0, v1, v2, v3
}
