package jwtauth

import "encoding/base64"

// segments is base64url without padding and without bits that mean nothing, so
// that each text has one encoding.
var segments = base64.RawURLEncoding.Strict()

// alphabet are the characters of base64url. The decoder of the standard library
// skips line ends even when it is strict.
var alphabet = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		t[c] = true
	}
	return t
}()

// decodeSegment decodes text that must be base64url to the letter.
func decodeSegment(text string) ([]byte, bool) {
	for i := range len(text) {
		if !alphabet[text[i]] {
			return nil, false
		}
	}
	b, err := segments.DecodeString(text)
	return b, err == nil
}
