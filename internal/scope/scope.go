// Package scope has the grammar of OAuth scopes.
package scope

// Valid reports whether s is a scope-token (RFC 6749, section 3.3): one or more visible
// ASCII characters other than the quote and the backslash.
func Valid(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}
