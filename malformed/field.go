package malformed

import (
	"reflect"
	"strings"
)

// fieldName returns the name of a field of in for clients. Validators begin namespaces
// with the name of the type, if it has one.
func fieldName(e fieldError, in reflect.Type) string {
	t := indirect(in)
	for t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		t = indirect(t.Elem())
	}
	if t != nil && t.Kind() == reflect.Struct {
		return shownName(t, strings.TrimPrefix(e.StructNamespace(), t.Name()+"."))
	}
	name := e.Namespace()
	if end := typeEnd(name); strings.HasPrefix(e.StructNamespace(), name[:end]) {
		return name[end:]
	}
	return name
}

// shownName returns the name for clients of the field at path in the struct t.
func shownName(t reflect.Type, path string) string {
	var names []string
	for path != "" {
		field, indices, rest := cutField(path)
		f, ok := fieldOf(t, field)
		if !ok { // of a type that only the value knows
			names = append(names, path)
			break
		}
		path, t = rest, indirect(f.Type)
		name, tagged := tagName(&f)
		if embedded := f.Anonymous && t.Kind() == reflect.Struct; !embedded || tagged {
			names = append(names, name+strings.Join(indices, ""))
		}
		for range indices {
			switch t.Kind() {
			case reflect.Slice, reflect.Array, reflect.Map:
				t = indirect(t.Elem())
			}
		}
	}
	return strings.Join(names, ".")
}

// cutField cuts path, such as Lines[2].Price, after its first field and the indices of that.
func cutField(path string) (field string, indices []string, rest string) {
	end := strings.IndexAny(path, ".[")
	if end < 0 {
		return path, nil, ""
	}
	field, rest = path[:end], path[end:]
	for strings.HasPrefix(rest, "[") {
		end := strings.IndexByte(rest, ']') + 1
		if end == 0 {
			end = len(rest)
		}
		indices, rest = append(indices, rest[:end]), rest[end:]
	}
	return field, indices, strings.TrimPrefix(rest, ".")
}

// typeEnd returns where the name of a type ends with which a namespace may begin. The name
// of a generic one has other types and their packages in brackets.
func typeEnd(namespace string) int {
	depth := 0
	for i, c := range []byte(namespace) {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == '.' && depth == 0:
			return i + 1
		}
	}
	return 0
}

func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	if t.Kind() != reflect.Struct {
		return reflect.StructField{}, false
	}
	return t.FieldByName(name)
}

// tagName returns the name of f for clients, and whether a tag gives it.
func tagName(f *reflect.StructField) (name string, tagged bool) {
	for _, key := range [...]string{"json", "form", "query", "param", "uri", "header"} {
		name, _, _ := strings.Cut(f.Tag.Get(key), ",")
		if name != "" && name != "-" {
			return name, true
		}
	}
	return f.Name, false
}

func indirect(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}
