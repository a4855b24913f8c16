package jose

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// UnmarshalExact decodes text, which ParseObject has accepted, into v as encoding/json
// does, except that a member is decoded into a field only if its name is exactly that of
// the field. Types that decode themselves get all of their value.
//
// A field without a tag whose name differs from that of a member only in case is most
// likely meant for it, and an error.
func UnmarshalExact(text string, v any) error {
	e := eraser{text: text, data: []byte(text)}
	if target := reflect.ValueOf(v); target.Kind() == reflect.Pointer {
		e.value(skipSpace(text, 0), target.Type(), target)
	}
	if e.err != nil {
		return e.err
	}
	return json.Unmarshal(e.data, v)
}

// An eraser erases, in data, the names of members that no field has. Otherwise
// encoding/json would match those of a field in another case.
type eraser struct {
	text string
	data []byte
	err  error // the first
}

// value erases names in the value that begins at i and is decoded into a t, and returns
// its end. If the place that it is decoded into exists already, v is that place.
func (e *eraser) value(i int, t reflect.Type, v reflect.Value) (end int) {
	c := e.text[i]
	if c != '{' && c != '[' {
		return skipValue(e.text, i)
	}
	t, v = destination(t, v)
	switch {
	case t == nil:
	case c == '{' && t.Kind() == reflect.Struct:
		return e.object(i, t, v)
	case c == '{' && t.Kind() == reflect.Map && hasFields(t.Elem()):
		return e.elements(i, func(int) (reflect.Type, reflect.Value) { return t.Elem(), reflect.Value{} })
	case c == '[' && t.Kind() == reflect.Slice && hasFields(t.Elem()):
		return e.elements(i, func(n int) (reflect.Type, reflect.Value) {
			if !v.IsValid() || n >= v.Cap() {
				return t.Elem(), reflect.Value{}
			}
			return t.Elem(), v.Slice(0, n+1).Index(n)
		})
	case c == '[' && t.Kind() == reflect.Array && hasFields(t.Elem()):
		return e.elements(i, func(n int) (reflect.Type, reflect.Value) {
			if !v.IsValid() || n >= v.Len() {
				return t.Elem(), reflect.Value{}
			}
			return t.Elem(), v.Index(n)
		})
	}
	return skipValue(e.text, i)
}

// object erases names in the object that begins at i and is decoded into a struct.
func (e *eraser) object(i int, t reflect.Type, v reflect.Value) (end int) {
	fields := layoutOf(t).fields
	begin := i
	for i = skipSpace(e.text, i+1); e.text[i] != '}'; i = next(e.text, i) {
		from := i
		i = skipString(e.text, i)
		name, _ := Unquote(e.text[from:i])
		f, ok := fields[name]
		if !ok {
			// No field has an empty name.
			for n := copy(e.data[from:i], `""`); n < i-from; n++ {
				e.data[from+n] = ' '
			}
			e.missed(begin, fields, name)
		}
		i = toValue(e.text, i)
		if ok {
			i = e.value(i, f.typ, f.in(v))
		} else {
			i = skipValue(e.text, i)
		}
	}
	return i + 1
}

// missed keeps an error if the name of a member of the object that begins at i is in
// another case that of a field without a tag, and no member has that field's own name.
func (e *eraser) missed(i int, fields map[string]field, name string) {
	for _, f := range fields {
		if f.tagged || e.err != nil || !strings.EqualFold(f.name, name) {
			continue
		}
		if _, ok := Lookup(e.text[i:], f.name); !ok {
			e.err = fmt.Errorf("%q differs in case from the field %s, which has no tag", name, f.name)
		}
	}
}

// elements erases names in each of the values in the array or object that begins at i.
func (e *eraser) elements(i int, at func(n int) (reflect.Type, reflect.Value)) (end int) {
	object := e.text[i] == '{'
	i = skipSpace(e.text, i+1)
	for n := 0; e.text[i] != '}' && e.text[i] != ']'; n++ {
		if object {
			i = toValue(e.text, skipString(e.text, i))
		}
		t, v := at(n)
		i = next(e.text, e.value(i, t, v))
	}
	return i + 1
}

// destination returns the type and the place that an object or an array is decoded into,
// if it is to be decoded into a t: it follows pointers, as encoding/json does. The type
// is nil if encoding/json does not look for fields in it.
func destination(t reflect.Type, v reflect.Value) (reflect.Type, reflect.Value) {
	none := reflect.Value{}
	addressed := false
	for {
		switch t.Kind() {
		case reflect.Interface:
			if !v.IsValid() || v.IsNil() || v.Elem().Kind() != reflect.Pointer || v.Elem().IsNil() {
				return nil, none
			}
			v = v.Elem()
			t = v.Type()
		case reflect.Pointer:
			switch {
			case !v.IsValid() || v.IsNil():
				v = none
			case v.Elem().Kind() == reflect.Interface && v.Elem().Elem().Equal(v):
				return nil, none // it points to itself
			default:
				v = v.Elem()
			}
			t, addressed = t.Elem(), true
		default:
			if layoutOf(t).decodesItself && (addressed || t.Name() != "") {
				return nil, none
			}
			return t, v
		}
	}
}

// hasFields reports whether there may be a struct in a t.
func hasFields(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Array, reflect.Pointer, reflect.Interface:
		return true
	}
	return false
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)
