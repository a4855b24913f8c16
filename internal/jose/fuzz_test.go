package jose_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/usher-go/usher/internal/jose"
)

// FuzzObject compares the members of an object with those that encoding/json
// finds, and whether a name occurs twice in some object with the tokens that it finds.
func FuzzObject(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"a":1,"A":2}`, `{"a":{"b":"}"},"c":["\"]"]}`, `{"\u0061":"\ud83d\ude00"}`,
		`{"a":"\ud800"}`, `{"a":[{"b":1,"c":{},"b":2}]}`, `{"a":{"a":[],"b":{"a":1}},"b":{"b":{}}}`, `{"a":{"\u0061":1,"a":1}}`, `[1]`, `null`, `{"a":1} x`, `{"a" : -1.5e3 , "b":true}`, "{\"\xff\":1}", `{"s":1,"ſ":2}`, `{"":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, members, err := jose.ParseObject(nil, data)
		var theirs map[string]json.RawMessage
		wrong := json.Unmarshal(data, &theirs)
		if twice := wrong == nil && repeats(json.NewDecoder(bytes.NewReader(data))); twice && err == nil ||
			!twice && err != nil && wrong == nil && theirs != nil && readable(data) {
			t.Fatalf("%q: %v, a name occurs twice: %t", data, err, twice)
		}
		if err != nil {
			return
		}
		if wrong != nil || theirs == nil || len(theirs) != len(members) {
			t.Fatalf("%q: %q, encoding/json: %v %q", data, members, wrong, theirs)
		}
		for _, m := range members {
			if raw, ok := theirs[m.Name]; !ok || !bytes.Equal(bytes.TrimSpace(raw), []byte(m.Value)) {
				t.Fatalf("%q: %q is %q, encoding/json: %q", data, m.Name, m.Value, raw)
			}
		}
	})
}

// repeats reports whether a name occurs twice in an object of the next value.
func repeats(d *json.Decoder) bool {
	t, err := d.Token()
	if err != nil {
		return false
	}
	again := false
	seen := map[any]bool{}
	switch t {
	case json.Delim('['):
		for d.More() {
			again = repeats(d) || again
		}
	case json.Delim('{'):
		for d.More() {
			name, _ := d.Token()
			again = seen[name] || again
			seen[name] = true
			again = repeats(d) || again
		}
	default:
		return false
	}
	_, _ = d.Token()
	return again
}

// readable reports whether data has neither invalid UTF-8 nor escapes, which may be
// surrogates without their other half.
func readable(data []byte) bool { return utf8.Valid(data) && !bytes.Contains(data, []byte(`\u`)) }
