package jwtauth

import (
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/jose"
)

// A claimPath is where a claim is: the name of a claim, and the names of members inside
// that. An empty path names no claim.
type claimPath []string

// newClaimPath returns the path of a claim that a Config names. A name that begins with a
// slash is a JSON Pointer (RFC 6901).
func newClaimPath(name string) claimPath {
	switch {
	case name == "":
		return nil
	case name[0] != '/':
		return claimPath{name}
	}
	path := strings.Split(name[1:], "/")
	for n, member := range path {
		path[n] = pointerEscapes.Replace(member)
	}
	return path
}

// pointerEscapes decodes a reference token of a JSON Pointer (RFC 6901, section 4).
var pointerEscapes = strings.NewReplacer("~1", "/", "~0", "~")

func (p claimPath) empty() bool { return len(p) == 0 }

// find returns the value at p in an object with these members.
func (p claimPath) find(members []jose.Member) (value string, ok bool) {
	for n, name := range p {
		if n == 0 {
			value, ok = jose.Find(members, name)
		} else {
			value, ok = jose.Lookup(value, name)
		}
		if !ok {
			return "", false
		}
	}
	return value, ok
}

// validateClaims adds the faults of names of claims to f.
func validateClaims(f config.Faults[usher.ConfigError], field string, names ...string) {
	validateEnds(f, field, names...)
	for _, name := range names {
		rest := strings.NewReplacer("~0", "", "~1", "").Replace(name)
		f.If(strings.HasPrefix(name, "/") && strings.Contains(rest, "~"), field, "must be a JSON Pointer if it begins with a slash")
	}
}
