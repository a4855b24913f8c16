package jose

import "encoding/base64"

// Encoding is base64url without padding. It is strict: unused bits must be zero, so
// that every text has one encoding.
var Encoding = base64.RawURLEncoding.Strict()

// inAlphabet has the characters of base64url. It is needed because the decoder of the
// standard library skips line ends even when it is strict.
var inAlphabet = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		t[c] = true
	}
	return t
}()

// Decode decodes base64url. It reports false unless text is the only encoding of its
// value.
func Decode(text string) ([]byte, bool) {
	for i := range len(text) {
		if !inAlphabet[text[i]] {
			return nil, false
		}
	}
	b, err := Encoding.DecodeString(text)
	return b, err == nil
}

// NotToken68 reports whether r is a character that no bearer token may have (RFC
// 6750, section 2.1).
func NotToken68(r rune) bool {
	return r >= 0x80 || !inAlphabet[r] && r != '.' && r != '~' && r != '+' && r != '/' && r != '='
}
