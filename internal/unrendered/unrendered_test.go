package unrendered_test

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/unrendered"
)

var forms = map[string]unrendered.Form{
	"a reply":              {Status: 200},
	"a reply with data":    {Late: true, Status: 201, Code: "c", Message: strings.Repeat("long ", 100), Data: []byte(`{"a":1}`)},
	"a page":               {Page: &unrendered.Page{Number: -1, Limit: math.MaxInt, Total: math.MinInt}, Data: []byte("[]")},
	"a failure":            {Kind: unrendered.Failure, Status: 500},
	"a failure in full":    {Kind: unrendered.Failure, Late: true, Status: 422, Code: "c", Type: "https://t", Message: "<&>\u2028\"", Param: "p", Fields: []unrendered.Field{{Name: "a", Message: "b"}, {}}, Details: []byte(`[1, 2]`)},
	"details with names":   {Kind: unrendered.Failure, Status: 404, Details: []byte(`{"b":"<","a":[null]}`), Members: true},
	"details that are nil": {Kind: unrendered.Failure, Status: 404, Details: []byte(`null`), Members: true},
	"a message":            {Kind: unrendered.Message, Message: "made"},
}

func TestAFormIsWhatWasEncoded(t *testing.T) {
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			b, body := form.Append(nil), form.Body([]byte("as it was written"))
			got, ok := unrendered.Parse(b, body)
			if !ok {
				t.Fatalf("%x and %s are no form", b, body)
			}
			if !reflect.DeepEqual(*got, form) {
				t.Errorf("got %+v, want %+v", *got, form)
			}
			for n := range b {
				if _, ok := unrendered.Parse(b[:n], body); ok {
					t.Errorf("a form that is cut to %d of %d bytes is one", n, len(b))
				}
			}
			if _, ok := unrendered.Parse(append(b, 0), body); ok {
				t.Error("a form with a byte too many is one")
			}
		})
	}
}

func TestTheBodyOfAMessageStays(t *testing.T) {
	form := forms["a message"]
	if got := form.Body([]byte("body")); string(got) != "body" {
		t.Errorf("got %q", got)
	}
}

func TestSetBody(t *testing.T) {
	for _, c := range []struct {
		form, body string
		ok         bool
		value      string // of the details
	}{
		{"a reply", "", true, "null"},
		{"a reply", "1", true, "null"},
		{"a reply", "1 2", false, ""},
		{"a reply with data", "", true, "null"},
		{"a message", "any text", true, "null"},
		{"a failure in full", "{}", true, "null"},
		{"a failure in full", `{"code":"c","details":2}`, true, "2"},
		{"a failure in full", "", false, ""},
		{"a failure in full", `{"errors":1}`, false, ""},
		{"details with names", `{"details":{"c":1}}`, true, `{"c":1}`},
		{"details with names", `{"details":[1]}`, true, `[1]`},
		{"details with names", `{}`, true, `null`},
	} {
		form := forms[c.form]
		if ok := form.SetBody([]byte(c.body)); ok != c.ok {
			t.Errorf("%s, %s: %v", c.form, c.body, ok)
		} else if ok {
			got, ok := unrendered.Parse(form.Append(nil), []byte(c.body))
			if !ok {
				t.Fatalf("%s, %s is no form", c.form, c.body)
			}
			if value, err := json.Marshal(got.Value()); err != nil || string(value) != c.value {
				t.Errorf("%s, %s: the details are %s, %v, want %s", c.form, c.body, value, err, c.value)
			}
		}
	}
}

// A kind that a later version adds, or two kinds at once, is no form.
func TestUnknownKindsAreNoForm(t *testing.T) {
	for kinds := range 256 {
		_, ok := unrendered.Parse([]byte{byte(kinds)}, []byte("{}"))
		if ok {
			t.Errorf("%#x is a form", kinds)
		}
	}
	for _, b := range []string{"\x03", "\x06\x00", "\x0a\x00", "\x11\x00", "\x21\x00\x00\x00\x00", "\x08\x00\x00\x00", "\x40\x00\x00\x00", "\x00\xe8\x07\x00\x00", "\x00\x00\x00\x00x"} {
		if form, ok := unrendered.Parse([]byte(b), nil); ok {
			t.Errorf("%x is %+v", b, form)
		}
	}
}

func TestDetailsAreEncodedAsBefore(t *testing.T) {
	for name, want := range map[string]string{
		"a failure": `null`, "a failure in full": `[1,2]`, "details with names": `{"a":[null],"b":"\u003c"}`, "details that are nil": "null",
	} {
		form := forms[name]
		if got, err := json.Marshal(form.Value()); err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v, want %s", name, got, err, want)
		}
	}
}

// Whatever is stored, Parse neither panics nor returns a form that cannot be encoded.
func FuzzParse(f *testing.F) {
	for _, form := range forms {
		f.Add(form.Append(nil), form.Body([]byte("body")))
	}
	f.Fuzz(func(t *testing.T, b, body []byte) {
		form, ok := unrendered.Parse(b, body)
		if !ok {
			return
		}
		again, ok := unrendered.Parse(form.Append(nil), form.Body(body))
		if !ok || !bytes.Equal(again.Append(nil), form.Append(nil)) || !bytes.Equal(again.Body(body), form.Body(body)) {
			t.Errorf("%x and %q are %+v, and then %+v", b, body, form, again)
		}
		if _, err := json.Marshal(form.Value()); err != nil {
			t.Error(err)
		}
	})
}
