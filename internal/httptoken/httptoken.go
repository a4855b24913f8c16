// Package httptoken checks the names of HTTP methods, header fields and parameters.
package httptoken

import "strings"

// Valid reports whether s is a token (RFC 9110, section 5.6.2).
func Valid(s string) bool {
	for i := range len(s) {
		c := s[i]
		alphanumeric := c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !alphanumeric && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
