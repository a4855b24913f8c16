package jose

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Member is one member of a JSON object. Its value is still encoded.
type Member struct{ Name, Value string }

// The reasons why ParseObject does not accept a text.
var (
	errNoObject  = errors.New("not one JSON object")
	errText      = errors.New("not valid Unicode")
	errAmbiguous = errors.New("two members have the same name, or names that differ only in case")
	errMembers   = errors.New("too many members")
)

// maxMembers is more than any header or set of claims has. It bounds the work of
// comparing each name with each other.
const maxMembers = 128

// ParseObject appends the members of the JSON object in data to list. The members are
// substrings of text, which is the whole object.
//
// Parsers differ in which of two members with the same name they use, and encoding/json
// matches names without regard to case (RFC 8725, section 2.4), so an object in which
// that could matter is refused. Text that parsers repair, each in its own way, is refused
// too: invalid UTF-8 and unpaired surrogates, at any depth.
func ParseObject(list []Member, data []byte) (text string, members []Member, err error) {
	if !json.Valid(data) {
		return "", nil, errNoObject
	}
	if !utf8.Valid(data) {
		return "", nil, errText
	}
	// The code below relies on the text being valid JSON.
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
		name, ok := Unquote(s[start:i])
		if !ok {
			return "", nil, errText
		}
		i = skipSpace(s, skipSpace(s, i)+len(":"))
		start = i
		if i = skipValue(s, i); i < 0 {
			return "", nil, errText
		}
		for _, m := range list {
			if strings.EqualFold(m.Name, name) {
				return "", nil, errAmbiguous
			}
		}
		if len(list) == maxMembers {
			return "", nil, errMembers
		}
		list = append(list, Member{name, s[start:i]})
	}
	return s, list, nil
}

func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the end of the string that begins at i, or -1 if the string has an
// unpaired surrogate.
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
				break // not a surrogate
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

// Unquote returns the text of a JSON string, and whether value is a JSON string.
func Unquote(value string) (string, bool) {
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

// Find returns the value of the member with this name.
func Find(list []Member, name string) (value string, ok bool) {
	for _, m := range list {
		if m.Name == name {
			return m.Value, true
		}
	}
	return "", false
}

// Strings returns the strings of a JSON array, or a JSON string as a list of one, and
// whether value is either.
func Strings(value string) ([]string, bool) {
	if value[0] == '"' {
		text, ok := Unquote(value)
		return []string{text}, ok
	}
	var list []*string
	if err := json.Unmarshal([]byte(value), &list); err != nil || list == nil || slices.Contains(list, nil) {
		return nil, false
	}
	out := make([]string, len(list))
	for i, text := range list {
		out[i] = *text
	}
	return out, true
}
