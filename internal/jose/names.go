package jose

import (
	"slices"
	"strings"
)

// Names are the names that a reader gives a meaning. Some readers, encoding/json among
// them, match names without regard to case, so an object may mean one thing to a reader
// that does and another to one that does not.
type Names struct {
	// Alone are names of which no other spelling is accepted: to take no notice of it
	// would permit more than the object says, or read another meaning into it.
	Alone []string
	// Beside are names of which another spelling is accepted, and means nothing, unless
	// the name itself is there too.
	Beside []string
}

// ClaimNames are the claims that package jwtauth gives a meaning, whatever its Config is.
var ClaimNames = Names{
	// Who issued a token, about whom, for whom and for how long; and cnf, without which
	// a token is for anybody who has it.
	Alone: []string{"iss", "sub", "aud", "exp", "nbf", "iat", "cnf"},
	// The claims of applications are often called Type, Scope or Sid. Those that package
	// jwtauth does not see permit nothing.
	Beside: []string{"jti", "sid", "client_id", "scope", "scp", "token_use", "token_type", "typ", "type"},
}

// ResponseNames are the members of a response about a token (RFC 7662, section 2.2) that
// package jwtauth gives a meaning.
var ResponseNames = Names{
	// A refresh token must be recognized as one.
	Alone:  append([]string{"active", "token_type", "token_use"}, ClaimNames.Alone...),
	Beside: ClaimNames.Beside,
}

// KeyNames are the members of a key (RFC 7517, RFC 7518) that package jwk gives a meaning.
var KeyNames = Names{Beside: []string{
	"kty", "kid", "alg", "use", "key_ops", "crv", "x", "y", "n", "e", "d", "p", "q", "oth", "k",
}}

// Confused reports whether a reader that ignores case might take a member for another
// one.
func (n Names) Confused(members []Member) bool {
	for _, m := range members {
		if !hasCase(m.Name) {
			continue // it has no other spelling
		}
		same := func(name string) bool { return strings.EqualFold(name, m.Name) }
		if slices.ContainsFunc(n.Alone, same) {
			return true
		}
		if i := slices.IndexFunc(n.Beside, same); i >= 0 {
			if _, ok := Find(members, n.Beside[i]); ok {
				return true
			}
		}
	}
	return false
}

// hasCase reports whether a name may differ only in case from one that consists of lower
// case letters and underscores. Outside ASCII, for instance, the long s is an s.
func hasCase(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= 0x80 || 'A' <= c && c <= 'Z' {
			return true
		}
	}
	return false
}
