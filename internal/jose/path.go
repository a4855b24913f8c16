package jose

import (
	"strconv"
	"strings"
)

// A Path leads to a value in an object.
type Path struct{ steps []string }

// ParsePath parses the name of a member, or a JSON Pointer (RFC 6901) if text begins with
// a slash. It reports false for text that is neither.
func ParsePath(text string) (Path, bool) {
	if !strings.HasPrefix(text, "/") {
		return Path{[]string{text}}, text != ""
	}
	steps := strings.Split(text[1:], "/")
	for i, s := range steps {
		if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(s), "~") {
			return Path{}, false
		}
		steps[i] = strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
	}
	return Path{steps}, true
}

// Find returns the value that p leads to from an object with these members.
func (p Path) Find(members []Member) (value string, ok bool) {
	value, ok = Find(members, p.steps[0])
	for _, step := range p.steps[1:] {
		if !ok {
			break
		}
		switch value[0] {
		case '{':
			value, ok = member(value, step)
		case '[':
			value, ok = element(value, step)
		default:
			return "", false
		}
	}
	return value, ok
}

// Members calls yield with the members of a JSON object, and reports whether value is
// one.
func Members(value string, yield func(Member)) bool {
	if value[0] != '{' {
		return false
	}
	for i := skipSpace(value, 1); value[i] != '}'; {
		end := skipString(value, i)
		name, _ := Unquote(value[i:end])
		i = toValue(value, end)
		end = skipValue(value, i)
		yield(Member{name, value[i:end]})
		i = next(value, end)
	}
	return true
}

// member returns the value of the member with this name of the object that begins text.
func member(text, name string) (value string, ok bool) {
	for i := skipSpace(text, 1); text[i] != '}'; {
		end := skipString(text, i)
		own, _ := Unquote(text[i:end])
		i = toValue(text, end)
		end = skipValue(text, i)
		if own == name {
			return text[i:end], true
		}
		i = next(text, end)
	}
	return "", false
}

// element returns the element with this index of the array that begins text.
func element(text, index string) (value string, ok bool) {
	n, err := strconv.Atoi(index)
	if err != nil || strconv.Itoa(n) != index {
		return "", false // no index has another spelling
	}
	for i := skipSpace(text, 1); text[i] != ']'; n-- {
		end := skipValue(text, i)
		if n == 0 {
			return text[i:end], true
		}
		i = next(text, end)
	}
	return "", false
}

// The functions below read JSON that ParseObject has accepted.

// toValue returns the position of the value of the member whose name ends at i.
func toValue(s string, i int) int { return skipSpace(s, skipSpace(s, i)+len(":")) }

// next returns the position of the next name or value after the value that ends at i, or
// that of the end of the array or object.
func next(s string, i int) int {
	if i = skipSpace(s, i); s[i] == ',' {
		i = skipSpace(s, i+1)
	}
	return i
}

// skipValue returns the end of the value that begins at i.
func skipValue(s string, i int) int {
	for depth := 0; i < len(s); {
		switch s[i] {
		case '"':
			if i = skipString(s, i); depth == 0 {
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
