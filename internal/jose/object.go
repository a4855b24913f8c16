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
// surrogates. Everything else is as encoding/json has it.
func ParseObject(list []Member, data []byte) (text string, members []Member, err error) {
	text = string(data)
	if !utf8.ValidString(text) {
		return "", nil, errText
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

// end returns the character that ends c.
func (c *container) end() byte {
	if c.object {
		return '}'
	}
	return ']'
}

// maxDepth is how deep encoding/json lets containers lie in each other.
const maxDepth = 10_000

// appendMembers appends the members of the object in s to list. It checks the syntax of
// all of s, and compares the names in each object.
func appendMembers(list []Member, s string) ([]Member, error) {
	var (
		openBuf [4]container
		nameBuf [fewNames]string
		open    = openBuf[:0] // around the position; the innermost is the last
		names   = nameBuf[:0] // in the objects that are open
		name    string        // of a member of the outermost object
		start   int           // of the value of that member
		ended   bool          // a value has just ended
	)
	i := skipSpace(s, 0)
	if i == len(s) || s[i] != '{' {
		return nil, errNoObject
	}
	open = append(open, container{object: true})
	for i++; ; {
		if ended && len(open) == 1 {
			list = append(list, Member{name, s[start:i]})
		}
		if i = skipSpace(s, i); i == len(s) {
			return nil, errNoObject
		}
		in := &open[len(open)-1]
		switch c := s[i]; {
		case c == in.end():
			i++
			if len(open) == 1 {
				if skipSpace(s, i) < len(s) {
					return nil, errNoObject
				}
				return list, nil
			}
			names = names[:in.first]
			open = open[:len(open)-1]
			ended = true
			continue
		case ended && c == ',':
			i = skipSpace(s, i+1)
		case ended:
			return nil, errNoObject
		}
		ended = false
		if in.object {
			end, err := stringEnd(s, i)
			if err != nil {
				return nil, err
			}
			text, ok := Unquote(s[i:end])
			if !ok {
				return nil, errNoObject
			}
			if names, ok = in.add(names, text); !ok {
				return nil, errAmbiguous
			}
			if i = skipSpace(s, end); i == len(s) || s[i] != ':' {
				return nil, errNoObject
			}
			i = skipSpace(s, i+1)
			if len(open) == 1 {
				name, start = text, i
			}
		}
		if i < len(s) && (s[i] == '{' || s[i] == '[') {
			if len(open) == maxDepth {
				return nil, errNoObject
			}
			open = append(open, container{object: s[i] == '{', first: len(names)})
			i++
			continue
		}
		var err error
		if i, err = scalarEnd(s, i); err != nil {
			return nil, err
		}
		ended = true
	}
}

// fewNames is how many names of an object are compared with each other. More are put
// into a map, so that the work grows with the length of the text, not with its square.
const fewNames = 16

// add appends a name of c, which is the innermost object, to names, and reports whether it
// is the first of that name in c.
func (c *container) add(names []string, name string) ([]string, bool) {
	own := names[c.first:]
	switch {
	case c.seen != nil:
		again := c.seen[name]
		c.seen[name] = true
		return names, !again
	case slices.Contains(own, name):
		return names, false
	case len(own) < fewNames:
		return append(names, name), true
	}
	c.seen = map[string]bool{name: true}
	for _, other := range own {
		c.seen[other] = true
	}
	return names, true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func skipSpace(s string, i int) int {
	for i < len(s) && isSpace(s[i]) {
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
