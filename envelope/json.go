package envelope

import "strings"

// beginsJSON reports whether p may be the beginning of a JSON value in UTF-8, without
// reading more than its first bytes. A byte order mark, a prefix against inclusion by
// scripts such as )]}', a JSONP callback and UTF-16 are none.
func beginsJSON(p []byte) bool {
	literal := ""
	switch c := p[0]; {
	case c == '{', c == '[', c == '"', c == '-', '0' <= c && c <= '9':
		return len(p) == 1 || p[1] != 0
	case c == 't':
		literal = "true"
	case c == 'f':
		literal = "false"
	case c == 'n':
		literal = "null"
	default:
		return false
	}
	if len(p) > len(literal) && !isSpace(p[len(literal)]) {
		return false
	}
	return strings.HasPrefix(literal, string(p[:min(len(p), len(literal))]))
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }
