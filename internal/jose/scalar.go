package jose

import "strings"

// scalarEnd returns the end of the string, number or name that begins at i.
func scalarEnd(s string, i int) (end int, err error) {
	if i == len(s) {
		return 0, errNoObject
	}
	name := ""
	switch s[i] {
	case '"':
		return stringEnd(s, i)
	case 't':
		name = "true"
	case 'f':
		name = "false"
	case 'n':
		name = "null"
	default:
		return numberEnd(s, i)
	}
	if !strings.HasPrefix(s[i:], name) {
		return 0, errNoObject
	}
	return i + len(name), nil
}

// numberEnd returns the end of the number that begins at i.
func numberEnd(s string, i int) (end int, err error) {
	if s[i] == '-' {
		i++
	}
	whole := i
	i = skipDigits(s, i)
	if i == whole || s[whole] == '0' && i > whole+1 {
		return 0, errNoObject
	}
	if i < len(s) && s[i] == '.' {
		fraction := i + 1
		if i = skipDigits(s, fraction); i == fraction {
			return 0, errNoObject
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		exponent := i
		if i = skipDigits(s, exponent); i == exponent {
			return 0, errNoObject
		}
	}
	return i, nil
}

func skipDigits(s string, i int) int {
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		i++
	}
	return i
}

// stringEnd returns the end of the string that begins at i. It refuses a surrogate
// without its other half.
func stringEnd(s string, i int) (end int, err error) {
	if i == len(s) || s[i] != '"' {
		return 0, errNoObject
	}
	for i++; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1, nil
		case c < ' ':
			return 0, errNoObject
		case c != '\\':
			continue
		}
		i++
		if i == len(s) {
			break
		}
		switch s[i] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			continue
		case 'u':
		default:
			return 0, errNoObject
		}
		unit, ok := codeUnit(s, i+1)
		if !ok {
			return 0, errNoObject
		}
		i += len("dddd")
		if unit < 0xd800 || unit > 0xdfff {
			continue
		}
		// The low half must follow the high one.
		if unit >= 0xdc00 || !strings.HasPrefix(s[i+1:], `\u`) {
			return 0, errText
		}
		i += len(`\u`)
		if unit, ok = codeUnit(s, i+1); !ok {
			return 0, errNoObject
		}
		if unit < 0xdc00 || unit > 0xdfff {
			return 0, errText
		}
		i += len("dddd")
	}
	return 0, errNoObject
}

// codeUnit returns the number of four hexadecimal digits at i.
func codeUnit(s string, i int) (n int, ok bool) {
	if len(s)-i < 4 {
		return 0, false
	}
	for _, c := range []byte(s[i : i+4]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		n = n<<4 | int(c)
	}
	return n, true
}
