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
	errAmbiguous = errors.New("two members of an object have the same name")
)

// ParseObject appends the members of the JSON object in data to list. The members are
// substrings of text, which is the whole object.
//
// Parsers differ in which of two members with the same name they use (RFC 8725, section
// 2.4), so an object in which a name occurs twice is refused, at any depth. Text that
// parsers repair, each in its own way, is refused too: invalid UTF-8 and unpaired
// surrogates.
func ParseObject(list []Member, data []byte) (text string, members []Member, err error) {
	if !json.Valid(data) {
		return "", nil, errNoObject
	}
	if !utf8.Valid(data) {
		return "", nil, errText
	}
	text = string(data)
	if text[skipSpace(text, 0)] != '{' {
		return "", nil, errNoObject
	}
	members, err = appendMembers(list, text)
	return text, members, err
}

// A container is an object or an array.
type container struct {
	object bool
	first  int             // index of its first name
	seen   map[string]bool // its names, if they are many
}

// appendMembers appends the members of the object in s, which is valid JSON, to list. It
// compares the names in each object of s.
func appendMembers(list []Member, s string) ([]Member, error) {
	var (
		openBuf [8]container
		nameBuf [fewNames]string
		open    = openBuf[:0] // around the position; the innermost is the last
		names   = nameBuf[:0] // in the objects that are open
		naming  bool          // the next string is a name
		name    string        // of a member of the outermost object
		start   int           // of the value of that member, or 0
	)
	for i := 0; i < len(s); {
		c := s[i]
		if start > 0 && len(open) == 1 && (c == ',' || c == '}') {
			list = append(list, Member{name, trimSpace(s[start:i])})
			start = 0
		}
		switch c {
		case '"':
			from := i
			if i = skipString(s, i); i < 0 {
				return nil, errText
			}
			if !naming {
				continue
			}
			text, ok := Unquote(s[from:i])
			if !ok {
				return nil, errText
			}
			if names, ok = open[len(open)-1].add(names, text); !ok {
				return nil, errAmbiguous
			}
			naming = false
			i = skipSpace(s, i) + len(":")
			if len(open) == 1 {
				name, start = text, skipSpace(s, i)
			}
			continue
		case '{', '[':
			naming = c == '{'
			open = append(open, container{object: naming, first: len(names)})
		case ',':
			naming = open[len(open)-1].object
		case '}', ']':
			last := len(open) - 1
			names = names[:open[last].first]
			open = open[:last]
			naming = false
		}
		i++
	}
	return list, nil
}

// fewNames is how many names of an object are compared with each other. More are put
// into a map, so that the work grows with the length of the text, not with its square.
const fewNames = 16

// add appends a name of o, which is the innermost object, to names, and reports whether it
// is the first of that name in o.
func (o *container) add(names []string, name string) ([]string, bool) {
	own := names[o.first:]
	switch {
	case o.seen != nil:
		again := o.seen[name]
		o.seen[name] = true
		return names, !again
	case slices.Contains(own, name):
		return names, false
	case len(own) < fewNames:
		return append(names, name), true
	}
	o.seen = map[string]bool{name: true}
	for _, other := range own {
		o.seen[other] = true
	}
	return names, true
}

func trimSpace(s string) string {
	for n := len(s) - 1; n >= 0 && isSpace(s[n]); n-- {
		s = s[:n]
	}
	return s
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func skipSpace(s string, i int) int {
	for i < len(s) && isSpace(s[i]) {
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
