package jose_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/jose"
)

type (
	inner struct {
		Role string `json:"role"`
		ROLE string // of the same name in another case
	}
	// Hidden fields of an embedded struct that is not exported are found too.
	hidden struct {
		Group string `json:"group"`
	}
	Left  struct{ Both, OnlyLeft string }
	Right struct {
		Both      string
		OnlyRight string `json:"onlyRight"`
	}
	Deep struct {
		Left
		Role string `json:"role"` // less deep than Left's, deeper than that of all
	}
	all struct {
		hidden
		*Right
		Deep
		Role    string `json:"role"`
		NoTag   string
		Skipped string `json:"-"`
		Dash    string `json:"-,"` //nolint:staticcheck // The name is "-".
		Quoted  int    `json:"quoted,string"`
		Invalid string `json:"a'b"` //nolint:staticcheck // The name is Invalid.
		Kelvin  string `json:"k"`
		LongS   string `json:"is"`
		own     string
	}
	tagged struct {
		A struct{ X string } `json:"role"`
	}
	ambiguous struct {
		Left
		Right2
	}
	Right2 struct{ Both string }
	wins   struct {
		Left
		Right3
	}
	Right3 struct {
		Other string `json:"Both"`
	}
	// Two structs embed Bottom at one depth, so encoding/json does not find its field, and
	// would decode a member of that name into the other one.
	Bottom  struct{ Diamond string }
	West    struct{ Bottom }
	East    struct{ Bottom }
	diamond struct {
		West
		East
		Lower string `json:"diamond"`
	}
	Loop struct {
		*Loop
		Role string `json:"role"`
	}
	recursive struct {
		Name string     `json:"name"`
		Next *recursive `json:"next,omitempty"`
	}
)

// A member reaches a field only if its name is the one that encoding/json writes for that
// field.
func TestNamesAreMatchedExactly(t *testing.T) {
	names := []string{
		"role", "Role", "ROLE", "rolE", "group", "Group", "both", "Both", "BOTH", "onlyLeft", "OnlyLeft", "onlyRight", "OnlyRight",
		"noTag", "NoTag", "notag", "skipped", "Skipped", "-", "dash", "Dash", "quoted", "Quoted", "QUOTED", "a'b", "invalid", "Invalid",
		"k", "K", "\u212a", "is", "IS", "i\u017f", "own", "Own", "hidden", "Right", "right", "Deep", "Left", "A", "a", "", "name", "NAME", "next", "Next",
		"Other", "other", "diamond", "Diamond",
	}
	for _, full := range []any{
		&inner{"1", "2"},
		&all{
			hidden: hidden{"1"}, Right: &Right{"2", "3"}, Deep: Deep{Left{"4", "5"}, "6"}, Role: "7", NoTag: "8", Skipped: "9",
			Dash: "10", Quoted: 11, Invalid: "12", Kelvin: "13", LongS: "14", own: "15",
		},
		&ambiguous{Left{"1", "2"}, Right2{"3"}},
		&wins{Left{"1", "2"}, Right3{"3"}},
		&recursive{"1", &recursive{Name: "2"}},
		&tagged{},
		&diamond{Lower: "1"},
		&Loop{Role: "1"},
	} {
		written, err := json.Marshal(full)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(written, &fields); err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, name := range names {
			value, isField := fields[name]
			if isField {
				found++
			} else {
				value = json.RawMessage(`"x"`)
			}
			text := `{ ` + string(must(json.Marshal(name))) + ` : ` + string(value) + ` }`
			got := reflect.New(reflect.TypeOf(full).Elem())
			want := reflect.New(reflect.TypeOf(full).Elem())
			if isField {
				if err := json.Unmarshal([]byte(text), want.Interface()); err != nil {
					t.Fatal(err)
				}
			}
			err := jose.UnmarshalExact(text, got.Interface())
			if err != nil && !isField && strings.Contains(err.Error(), "has no tag") {
				err = nil // the next test says when
			}
			if err != nil || !reflect.DeepEqual(got.Interface(), want.Interface()) {
				t.Errorf("%s in a %T: %v %+v, want %+v", text, full, err, got.Elem(), want.Elem())
			}
		}
		if found != len(fields) {
			t.Errorf("%T: the test knows %d of the names in %s", full, found, written)
		}
	}
}

func TestAFieldWithoutATagThatMissesItsMemberIsAnError(t *testing.T) {
	type claims struct {
		Account string
		Role    string `json:"Role"`
		In      []struct{ Deep string }
	}
	for text, want := range map[string]bool{
		`{"Account":"a"}`:                        true,
		`{"account":"a"}`:                        false,
		`{"account":"a","Account":"b"}`:          true,
		`{"Account":"b","ACCOUNT":"a"}`:          true,
		`{"role":"a","accounts":1}`:              true,
		`{"In":[{"Deep":"a"},{"Dee":1}]}`:        true,
		`{"In":[{"Deep":"a"},{"deep":"b"}]}`:     false,
		`{"other":{"account":"a"},"Account":""}`: true,
	} {
		var c claims
		err := jose.UnmarshalExact(text, &c)
		if (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	var c claims
	if err := jose.UnmarshalExact(`{"account":"a"}`, &c); err == nil || !strings.Contains(err.Error(), `"account"`) || !strings.Contains(err.Error(), "field Account") {
		t.Errorf("the error names neither: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type (
	itself struct{ Text string }
	text   struct{ Text string }
	mixin  struct {
		itself
		Role string
	}
)

func (i *itself) UnmarshalJSON(data []byte) error { i.Text = string(data); return nil }
func (x *text) UnmarshalText(data []byte) error   { x.Text = string(data); return nil }

func TestNamesAreMatchedExactlyAtEveryDepth(t *testing.T) {
	const both = `{"role":"user","ROLE":"admin","Role":"root"}`
	type role struct {
		Role string `json:"role"`
	}
	type outer struct {
		Struct  role
		Pointer **role
		Slice   []role
		Array   [1]role
		Map     map[string]role
		Slices  map[string][]*role
		Any     any
		Preset  any
		Itself  itself
		Text    text
		Number  json.Number
		Raw     json.RawMessage
		Unnamed struct {
			Role string `json:"role"`
		}
	}
	doc := `{"Struct":` + both + `,"struct":` + both + `,"Pointer":` + both + `,"Slice":[` + both + `,` + both + `],"Array":[` + both + `,` + both +
		`],"Map":{"ROLE":` + both + `},"Slices":{"a":[` + both + `,null]},"Any":` + both + `,"Preset":` + both + `,"Itself":` + both +
		`,"Text":"x","Number":1e3,"Raw":` + both + `,"Unnamed":` + both + `,"nothing":[1,{"a":[]},"]"]}`
	preset := new(role)
	o := outer{Preset: preset, Slice: make([]role, 0, 1)}
	if err := jose.UnmarshalExact(" \n"+doc+" ", &o); err != nil {
		t.Fatal(err)
	}
	user := role{"user"}
	p := &user
	want := outer{
		Struct: user, Pointer: &p, Slice: []role{user, user}, Array: [1]role{user}, Map: map[string]role{"ROLE": user},
		Slices: map[string][]*role{"a": {p, nil}}, Any: map[string]any{"role": "user", "ROLE": "admin", "Role": "root"},
		Preset: p, Itself: itself{both}, Text: text{"x"}, Number: "1e3", Raw: json.RawMessage(both), Unnamed: struct {
			Role string `json:"role"`
		}{"user"},
	}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("%+v, want %+v", o, want)
	}
	if preset.Role != "user" {
		t.Errorf("an interface that had a pointer: %+v", preset)
	}

	elements := []any{new(role), new(role)}
	if err := jose.UnmarshalExact(`[`+both+`,`+both+`,`+both+`]`, &elements); err != nil || elements[0].(*role).Role != "user" || elements[1].(*role).Role != "user" {
		t.Errorf("interfaces in a slice that had pointers: %v %+v", err, elements)
	}
	hidden := elements[:0]
	if err := jose.UnmarshalExact(`[`+both+`]`, &hidden); err != nil || hidden[0].(*role).Role != "user" {
		t.Errorf("an interface beyond the length of a slice: %v %+v", err, hidden)
	}
	array := [2]any{1: new(role)}
	if err := jose.UnmarshalExact(`[`+both+`,`+both+`]`, &array); err != nil || array[1].(*role).Role != "user" {
		t.Errorf("an interface in an array: %v %+v", err, array)
	}
	var a any = new(role)
	if err := jose.UnmarshalExact(both, &a); err != nil || a.(*role).Role != "user" {
		t.Errorf("a pointer in an interface: %v %+v", err, a)
	}
	a = &a
	if err := jose.UnmarshalExact(both, a); err != nil || !reflect.DeepEqual(a, map[string]any{"role": "user", "ROLE": "admin", "Role": "root"}) {
		t.Errorf("an interface that points to itself: %v %+v", err, a)
	}
	var m mixin
	if err := jose.UnmarshalExact(both, &m); err != nil || m.Text != both {
		t.Errorf("a method of an embedded struct: %v %+v", err, m)
	}
	var unnamed struct {
		In struct {
			itself
			Role string `json:"role"`
		}
	}
	if err := jose.UnmarshalExact(`{"In":`+both+`}`, &unnamed); err != nil || unnamed.In.Role != "user" {
		t.Errorf("a type without name has no methods to encoding/json: %v %+v", err, unnamed)
	}
	for _, v := range []any{nil, role{}, (*role)(nil)} {
		if err := jose.UnmarshalExact(both, v); err == nil || err.Error() != json.Unmarshal([]byte(both), v).Error() {
			t.Errorf("into %T: %v", v, err)
		}
	}
}

// A node is decoded from nodes, lists of them and objects of them.
type node struct {
	A *node            `json:"a"`
	B []node           `json:"b"`
	C map[string]*node `json:"c"`
}

// drop removes the members of a node that are not fields of it.
func drop(v any) any {
	object, ok := v.(map[string]any)
	if !ok {
		return v
	}
	kept := map[string]any{}
	for name, v := range object {
		switch name {
		case "a":
			kept[name] = drop(v)
		case "b":
			if list, ok := v.([]any); ok {
				for i := range list {
					list[i] = drop(list[i])
				}
			}
			kept[name] = v
		case "c":
			if nodes, ok := v.(map[string]any); ok {
				for name := range nodes {
					nodes[name] = drop(nodes[name])
				}
			}
			kept[name] = v
		}
	}
	return kept
}

// FuzzUnmarshalExact compares with encoding/json, from which the members that are not
// fields were taken away before.
func FuzzUnmarshalExact(f *testing.F) {
	for _, s := range []string{
		`{"a":{"a":{"A":{}},"A":{"a":{}}},"b":[{"B":1,"b":[]}],"c":{"B":{"a":{},"A":{}}}}`, ` { "a" : null , "b" : [ ] } `,
		`{"\u0061":{"\u0041":{}}}`, `{"d":{"A":[1,{"B":"}"}]},"b":[]}`, `{"B":[{"b":[[]]}],"a":{}}`, `{"e":"{","E":"\\\""}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, err := jose.ParseObject(nil, []byte(text)); err != nil {
			return
		}
		var generic any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&generic); err != nil {
			t.Fatal(err)
		}
		var got, want node
		err := jose.UnmarshalExact(text, &got)
		theirs := json.Unmarshal(must(json.Marshal(drop(generic))), &want)
		if (err == nil) != (theirs == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %v %s, want %v %s", text, err, must(json.Marshal(got)), theirs, must(json.Marshal(want)))
		}
	})
}
