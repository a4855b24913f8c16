// Package compare reports to tests how two values differ.
package compare

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Diff returns a line for each place where got is not want, or "" if they are equal.
// Values are equal as for [reflect.DeepEqual], except that a method Equal decides where
// values have one; values of different types are not equal.
func Diff(want, got any) string {
	var d differ
	d.compare("", reflect.ValueOf(want), reflect.ValueOf(got))
	return strings.Join(d.lines, "\n")
}

// Equal reports whether a and b are equal for [Diff].
func Equal(a, b any) bool { return Diff(a, b) == "" }

type differ struct {
	lines []string
	depth int
}

// maxDepth ends the comparison of values that contain themselves.
const maxDepth = 100

func (d *differ) differs(path string, want, got any) {
	if path == "" {
		path = "value"
	}
	d.lines = append(d.lines, fmt.Sprintf("%s:\n  -%s\n  +%s", path, text(want), text(got)))
}

func text(v any) string {
	if v, ok := v.(reflect.Value); ok {
		if !v.IsValid() {
			return "nothing"
		}
		return fmt.Sprintf("%#v", v)
	}
	return fmt.Sprint(v)
}

func (d *differ) compare(path string, want, got reflect.Value) {
	if !want.IsValid() || !got.IsValid() {
		if want.IsValid() != got.IsValid() {
			d.differs(path, want, got)
		}
		return
	}
	if want.Type() != got.Type() {
		d.differs(path, fmt.Sprintf("%v %s", want.Type(), text(want)), fmt.Sprintf("%v %s", got.Type(), text(got)))
		return
	}
	if equal, ok := byMethod(want, got); ok {
		if !equal {
			d.differs(path, want, got)
		}
		return
	}
	d.depth++
	defer func() { d.depth-- }()
	if d.depth > maxDepth {
		d.lines = append(d.lines, path+" is too deep to compare")
		return
	}
	switch want.Kind() {
	case reflect.Struct:
		for i := range want.NumField() {
			d.compare(path+"."+want.Type().Field(i).Name, want.Field(i), got.Field(i))
		}
	case reflect.Pointer, reflect.Interface:
		if want.IsNil() || got.IsNil() {
			if want.IsNil() != got.IsNil() {
				d.differs(path, want, got)
			}
			return
		}
		if want.Kind() == reflect.Pointer && want.Pointer() == got.Pointer() {
			return
		}
		d.compare(path, want.Elem(), got.Elem())
	case reflect.Slice:
		if want.IsNil() != got.IsNil() || want.Len() != got.Len() {
			d.differs(path, want, got)
			return
		}
		d.elements(path, want, got)
	case reflect.Array:
		d.elements(path, want, got)
	case reflect.Map:
		d.compareMaps(path, want, got)
	case reflect.Func:
		if !want.IsNil() || !got.IsNil() {
			d.differs(path, want, got)
		}
	default:
		if !want.Equal(got) {
			d.differs(path, want, got)
		}
	}
}

func (d *differ) elements(path string, want, got reflect.Value) {
	for i := range want.Len() {
		d.compare(fmt.Sprintf("%s[%d]", path, i), want.Index(i), got.Index(i))
	}
}

func (d *differ) compareMaps(path string, want, got reflect.Value) {
	if want.IsNil() != got.IsNil() {
		d.differs(path, want, got)
		return
	}
	keys := want.MapKeys()
	for _, k := range got.MapKeys() {
		if !want.MapIndex(k).IsValid() {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(text(a), text(b)) })
	for _, k := range keys {
		d.compare(fmt.Sprintf("%s[%s]", path, text(k)), want.MapIndex(k), got.MapIndex(k))
	}
}

// byMethod compares values of a type T with a method Equal(T) bool.
func byMethod(want, got reflect.Value) (equal, ok bool) {
	t := want.Type()
	m, ok := t.MethodByName("Equal")
	if !ok || m.Type.NumIn() != 2 || m.Type.In(1) != t || m.Type.NumOut() != 1 || m.Type.Out(0).Kind() != reflect.Bool ||
		!want.CanInterface() || !got.CanInterface() || t.Kind() == reflect.Pointer && (want.IsNil() || got.IsNil()) {
		return false, false
	}
	return want.MethodByName("Equal").Call([]reflect.Value{got})[0].Bool(), true
}
