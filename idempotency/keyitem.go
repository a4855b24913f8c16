package idempotency

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// maxKey is the maximum length of a client's key, in bytes.
const maxKey = 255

// parseKey returns the key in the value of a header field. A key has 1 to 255 ASCII
// characters. It is sent as it is, without spaces, or as a String of RFC 9651, whose
// parameters have no meaning; both are the same key.
func parseKey(value string) (key string, ok bool) {
	least := byte('!')
	if strings.HasPrefix(value, `"`) {
		// Unquoted, a space may come from a proxy that has joined two fields.
		least = ' '
		if value, ok = parseItem(value); !ok {
			return "", false
		}
	}
	if value == "" || len(value) > maxKey {
		return "", false
	}
	for i := range len(value) {
		if value[i] < least || value[i] > '~' {
			return "", false
		}
	}
	return value, true
}

// parseItem returns the String of an Item (RFC 9651, section 4.2.3).
func parseItem(s string) (value string, ok bool) {
	value, rest, ok := parseString(s)
	for ok && rest != "" {
		rest, ok = skipParameter(rest)
	}
	return value, ok
}

// parseString returns the String at the beginning of s, in which only quotes and
// backslashes are escaped, and what follows. It leaves it to the caller to check the
// other characters.
func parseString(s string) (value, rest string, ok bool) {
	s = s[1:]
	end := strings.IndexAny(s, `"\`)
	if end < 0 {
		return "", "", false
	}
	if s[end] == '"' {
		return s[:end], s[end+1:], true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// skipParameter returns what follows the parameter at the beginning of s (section
// 4.2.3.2).
func skipParameter(s string) (rest string, ok bool) {
	if s[0] != ';' {
		return "", false
	}
	s = strings.TrimLeft(s[1:], " ")
	if s == "" || !lower(s[0]) && s[0] != '*' {
		return "", false
	}
	s = skip(s, func(c byte) bool { return lower(c) || digit(c) || strings.IndexByte("_-.*", c) >= 0 })
	if !strings.HasPrefix(s, "=") {
		return s, true
	}
	return skipBareItem(s[1:])
}

// skipBareItem returns what follows the bare item at the beginning of s (section
// 4.2.3.1).
func skipBareItem(s string) (rest string, ok bool) {
	if s == "" {
		return "", false
	}
	switch c := s[0]; {
	case c == '"':
		value, rest, ok := parseString(s)
		return rest, ok && printable(value)
	case c == '?':
		return s[min(2, len(s)):], len(s) > 1 && (s[1] == '0' || s[1] == '1')
	case c == ':':
		value, rest, ok := strings.Cut(s[1:], ":")
		_, err := base64.StdEncoding.DecodeString(value)
		return rest, ok && err == nil && !strings.ContainsAny(value, "\r\n")
	case c == '@':
		rest, whole, ok := skipNumber(s[1:])
		return rest, ok && whole
	case c == '%':
		return skipDisplayString(s[1:])
	case c == '-', digit(c):
		rest, _, ok := skipNumber(s)
		return rest, ok
	case c == '*', lower(c | 0x20):
		return skip(s, func(c byte) bool {
			return lower(c|0x20) || digit(c) || strings.IndexByte("!#$%&'*+-.^_`|~:/", c) >= 0
		}), true
	}
	return "", false
}

// skipNumber returns what follows the Integer or Decimal at the beginning of s, and whether
// it is an Integer.
func skipNumber(s string) (rest string, whole, ok bool) {
	s = strings.TrimPrefix(s, "-")
	rest = skip(s, digit)
	n := len(s) - len(rest)
	if n == 0 || !strings.HasPrefix(rest, ".") {
		return rest, true, n > 0 && n <= 15
	}
	fraction := rest[1:]
	rest = skip(fraction, digit)
	places := len(fraction) - len(rest)
	return rest, false, n <= 12 && places >= 1 && places <= 3
}

// skipDisplayString returns what follows a Display String whose percent sign is not in s.
func skipDisplayString(s string) (rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", false
	}
	const digits = "0123456789abcdef"
	encoded, rest, ok := strings.Cut(s[1:], `"`)
	var value []byte
	for i := 0; ok && i < len(encoded); i++ {
		if encoded[i] != '%' {
			value = append(value, encoded[i])
			continue
		}
		if len(encoded) < i+3 {
			return "", false
		}
		high, low := strings.IndexByte(digits, encoded[i+1]), strings.IndexByte(digits, encoded[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		value = append(value, byte(high<<4|low))
		i += 2
	}
	return rest, ok && printable(encoded) && utf8.Valid(value)
}

// skip returns s without the characters at its beginning that belong reports true for.
func skip(s string, belong func(byte) bool) string {
	for s != "" && belong(s[0]) {
		s = s[1:]
	}
	return s
}

func lower(c byte) bool { return 'a' <= c && c <= 'z' }

func digit(c byte) bool { return '0' <= c && c <= '9' }

// printable reports whether s has only ASCII characters that can be printed.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
