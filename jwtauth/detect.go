package jwtauth

import (
	"strings"

	"github.com/usher-go/usher/internal/jose"
)

// recognizes reports whether text is a token of one of the issuers. It may be forged.
func (v *Verifier) recognizes(text string) bool {
	if len(text) > v.maxLength {
		return false
	}
	if v.cache != nil && v.cache.has(text) {
		return true
	}
	if v.resolver != nil {
		_, _, isToken := jose.Split(text)
		return isToken
	}
	claims, _ := unverified(text)
	return claims != nil && v.issuerOf(claims) != nil
}

// unverified returns the claims of text, which nobody has verified, and whether text has
// the form of a JSON Web Token.
func unverified(text string) (claims []jose.Member, isToken bool) {
	first, second, isToken := jose.Split(text)
	if !isToken {
		return nil, false
	}
	payload, ok := jose.Decode(text[first+1 : second])
	if !ok {
		return nil, true
	}
	_, claims, err := jose.ParseObject(make([]jose.Member, 0, 12), payload)
	if err != nil {
		return nil, true
	}
	return claims, true
}

// resemblesToken reports whether text that does not have the form of a JSON Web Token may
// have it for a parser that is less strict, for instance about padding or a fourth segment.
// An encrypted token (RFC 7516) does not: only the authorization server can read it.
func resemblesToken(text string) bool {
	header, rest, _ := strings.Cut(text, ".")
	if !strings.HasPrefix(header, "ey") || !strings.Contains(rest, ".") {
		return false
	}
	data, _ := jose.Decode(header)
	_, members, _ := jose.ParseObject(nil, data)
	_, encrypted := jose.Find(members, "enc")
	return !encrypted
}
