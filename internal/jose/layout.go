package jose

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// A layout says how encoding/json decodes objects into values of a type.
type layout struct {
	decodesItself bool
	fields        map[string]field // of a struct, by their names in JSON
}

// A field is a field of a struct, or of a struct that is embedded in it.
type field struct {
	name   string
	tagged bool // its name is from its tag
	typ    reflect.Type
	index  []int
}

// in returns the place of f in a struct, if that exists.
func (f field) in(v reflect.Value) reflect.Value {
	for n, i := range f.index {
		if n > 0 && v.IsValid() && v.Kind() == reflect.Pointer {
			v = v.Elem() // invalid if the pointer is nil
		}
		if !v.IsValid() {
			return v
		}
		v = v.Field(i)
	}
	return v
}

var layouts sync.Map // of *layout by reflect.Type

func layoutOf(t reflect.Type) *layout {
	if l, ok := layouts.Load(t); ok {
		return l.(*layout)
	}
	p := reflect.PointerTo(t)
	l := &layout{decodesItself: p.Implements(unmarshaler) || p.Implements(textUnmarshaler)}
	if t.Kind() == reflect.Struct {
		l.fields = fieldsOf(t)
	}
	kept, _ := layouts.LoadOrStore(t, l)
	return kept.(*layout)
}

// fieldsOf returns the fields that encoding/json finds in a struct. Of several fields with
// one name it takes the one that is embedded least deeply, of these the one with a tag,
// and none if there are several such fields.
func fieldsOf(t reflect.Type) map[string]field {
	var (
		all     []field
		visited = make(map[reflect.Type]bool)
		next    = []field{{typ: t}}
		times   = map[reflect.Type]int{t: 1} // how often a struct is embedded at one depth
	)
	for len(next) > 0 {
		level, count := next, times
		next, times = nil, make(map[reflect.Type]int)
		for _, outer := range level {
			if visited[outer.typ] {
				continue
			}
			visited[outer.typ] = true
			for i := range outer.typ.NumField() {
				f, embedded, ok := readField(outer.typ.Field(i))
				f.index = append(slices.Clone(outer.index), i)
				switch {
				case !ok:
				case !embedded:
					all = append(all, f)
					if count[outer.typ] > 1 {
						all = append(all, f) // so that neither is taken
					}
				default:
					if times[f.typ]++; times[f.typ] == 1 {
						next = append(next, f)
					}
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b field) int {
		if c := cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(len(a.index), len(b.index))); c != 0 || a.tagged == b.tagged {
			return c
		}
		if a.tagged {
			return -1
		}
		return 1
	})
	fields := make(map[string]field)
	for len(all) > 0 {
		f := all[0]
		same := 1
		for same < len(all) && all[same].name == f.name {
			same++
		}
		if same == 1 || len(all[1].index) > len(f.index) || all[1].tagged != f.tagged {
			fields[f.name] = f
		}
		all = all[same:]
	}
	return fields
}

// readField reads a field as encoding/json does. It reports whether the fields of a struct
// that is embedded count as fields of the outer struct, and whether f counts at all.
func readField(sf reflect.StructField) (f field, embedded, ok bool) {
	pointed := sf.Type
	if pointed.Kind() == reflect.Pointer {
		pointed = pointed.Elem()
	}
	tag := sf.Tag.Get("json")
	if tag == "-" || !sf.IsExported() && (!sf.Anonymous || pointed.Kind() != reflect.Struct) {
		return field{}, false, false
	}
	name, _, _ := strings.Cut(tag, ",")
	if name == "" || strings.ContainsFunc(name, notInName) {
		if sf.Anonymous && pointed.Kind() == reflect.Struct {
			return field{typ: pointed}, true, true
		}
		return field{name: sf.Name, typ: sf.Type}, false, true
	}
	return field{name: name, tagged: true, typ: sf.Type}, false, true
}

func notInName(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r)
}
