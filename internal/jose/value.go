package jose

import "iter"

// The functions below read JSON that ParseObject has accepted.

// Lookup returns the value of the member with this name of the object in value. It reports
// false if value is no object.
func Lookup(value, name string) (found string, ok bool) {
	for m := range Members(value) {
		if m.Name == name {
			return m.Value, true
		}
	}
	return "", false
}

// Members returns the members of the object in value, or none if value is no object. Text
// may follow the object.
func Members(value string) iter.Seq[Member] {
	return func(yield func(Member) bool) {
		if value[0] != '{' {
			return
		}
		for i := skipSpace(value, 1); value[i] != '}'; {
			end := skipString(value, i)
			name, _ := Unquote(value[i:end])
			i = toValue(value, end)
			end = skipValue(value, i)
			if !yield(Member{name, value[i:end]}) {
				return
			}
			i = next(value, end)
		}
	}
}

// Strings returns the strings of an array, or a string as a list of one, and whether value
// is either.
func Strings(value string) ([]string, bool) {
	if value[0] != '[' {
		text, ok := Unquote(value)
		return []string{text}, ok
	}
	list := []string{}
	for i := skipSpace(value, 1); value[i] != ']'; {
		end := skipValue(value, i)
		text, ok := Unquote(value[i:end])
		if !ok {
			return nil, false
		}
		list = append(list, text)
		i = next(value, end)
	}
	return list, true
}

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

// skipString returns the end of the string that begins at i.
func skipString(s string, i int) int {
	end, _ := stringEnd(s, i)
	return end
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
