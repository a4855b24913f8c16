package jwtauth

import "strings"

// A Profile is a kind of token with rules of its own. The rules of any two
// exclude each other by typ or by a claim that one of them requires (RFC 8725,
// section 3.12). Whatever the profile, iss must be the issuer's, aud must name
// one of the audiences, and exp must be there.
type Profile uint8

// The profiles.
const (
	// ProfilePlain is a JWT without further rules: typ is "JWT" or absent.
	ProfilePlain Profile = iota
	// ProfileAccessToken is an OAuth 2.0 access token (RFC 9068): typ is "at+jwt",
	// and sub, client_id, iat and jti are required.
	ProfileAccessToken
	// ProfileAssertion is a server's statement about itself (RFC 7523, section 3):
	// typ is "JWT" or absent, sub and iat are required, and the token may live for
	// an hour.
	ProfileAssertion
	// ProfileSession is an access token that an Issuer has signed: typ is
	// "session+jwt", and sub, iat, jti and sid are required.
	ProfileSession
	profiles
)

// typSession is the typ of the access tokens of sessions.
const typSession = "session+jwt"

// sameType reports whether two values of typ name one media type: those without
// a slash are short for application/, and case does not count (RFC 7515, section
// 4.1.9).
func sameType(a, b string) bool { return strings.EqualFold(shortType(a), shortType(b)) }

func shortType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) && !strings.Contains(typ[len(prefix):], "/") {
		return typ[len(prefix):]
	}
	return typ
}
