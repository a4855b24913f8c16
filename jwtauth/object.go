package jwtauth

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"
)

// A member is one member of a JSON object. Its value is still encoded.
type member struct{ name, value string }

// Why text is not an object as this package wants it.
var (
	errNoObject  = errors.New("not one JSON object")
	errText      = errors.New("text that is not Unicode")
	errAmbiguous = errors.New("two members of one name, or of names that differ in case alone")
	errMembers   = errors.New("too many members")
)

// maxMembers is more than any header or set of claims has. It bounds the work of
// comparing each name with each.
const maxMembers = 128

// parseObject appends the members of the JSON object in data to list, and
// returns the object as text, of which the members are parts.
//
// Parsers differ in which of two members of one name counts, and encoding/json
// takes a name in any case for a field (RFC 8725, section 2.4), so an object in
// which that could matter is refused. So is text that parsers repair, each in
// its own way: invalid UTF-8 and surrogates without a partner, at any depth.
func parseObject(list []member, data []byte) (text string, members []member, err error) {
	if !json.Valid(data) {
		return "", nil, errNoObject
	}
	if !utf8.Valid(data) {
		return "", nil, errText
	}
	// From here on the text is known to be valid, which makes reading it simple.
	s := string(data)
	i := skipSpace(s, 0)
	if s[i] != '{' {
		return "", nil, errNoObject
	}
	for i = skipSpace(s, i+1); s[i] != '}'; i = skipSpace(s, i) {
		if s[i] == ',' {
			i = skipSpace(s, i+1)
		}
		start := i
		if i = skipString(s, i); i < 0 {
			return "", nil, errText
		}
		name, ok := unquote(s[start:i])
		if !ok {
			return "", nil, errText
		}
		i = skipSpace(s, skipSpace(s, i)+len(":"))
		start = i
		if i = skipValue(s, i); i < 0 {
			return "", nil, errText
		}
		for _, m := range list {
			if strings.EqualFold(m.name, name) {
				return "", nil, errAmbiguous
			}
		}
		if len(list) == maxMembers {
			return "", nil, errMembers
		}
		list = append(list, member{name, s[start:i]})
	}
	return s, list, nil
}

func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the end of the string that begins at i, or -1 if a
// surrogate in it has no partner.
func skipString(s string, i int) int {
	for i++; s[i] != '"'; i++ {
		if s[i] != '\\' {
			continue
		}
		i++
		if s[i] != 'u' {
			continue
		}
		switch s[i+1] | 0x20 {
		case 'd':
			if s[i+2] < '8' {
				break // no surrogate
			}
			low := i + len("udddd")
			if s[i+2]|0x20 >= 'c' || !strings.HasPrefix(s[low:], `\u`) ||
				s[low+2]|0x20 != 'd' || s[low+3]|0x20 < 'c' {
				return -1
			}
			i = low + len(`\u`) - 1
		}
		i += len("dddd")
	}
	return i + 1
}

// skipValue returns the end of the value that begins at i, or -1.
func skipValue(s string, i int) int {
	for depth := 0; i < len(s); {
		switch s[i] {
		case '"':
			if i = skipString(s, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // the end of a number or a name
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// unquote returns the text of a JSON string, and whether value is one.
func unquote(value string) (string, bool) {
	if value == "" || value[0] != '"' {
		return "", false
	}
	if strings.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1], true
	}
	var text string
	err := json.Unmarshal([]byte(value), &text)
	return text, err == nil
}

// find returns the value of the member with this name.
func find(list []member, name string) (value string, ok bool) {
	for _, m := range list {
		if m.name == name {
			return m.value, true
		}
	}
	return "", false
}
