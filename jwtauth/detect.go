package jwtauth

import "github.com/usher-go/usher/internal/jose"

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
