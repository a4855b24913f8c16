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
		`{"a":"\ud800"}`, `{"a":[{"b":1,"c":{},"b":2}]}`, `{"a":{"a":[],"b":{"a":1}},"b":{"b":{}}}`, `{"a":{"\u0061":1,"a":1}}`, `[1]`, `null`, `{"a":1} x`,
		`{"a":01}`, `{"a":-}`, `{"a":1.}`, `{"a":1e+}`, `{"a":-0.0E-7}`, `{"a":tru}`, `{"a":truex}`, `{"a":1,}`, `{"a":[1,]}`, `{"a":[]]}`, `{"a":[}`,
		`{,"a":1}`, `{"a"}`, `{"a":}`, `{"a" 1}`, `{"a":1 "b":2}`, `{"a":"\x"}`, "{\"a\":\"\t\"}", `{"a":"\ud83d\u0041"}`, `{"a":"\udE00"}`, `{"a":"\udc00\udc00"}`, `{"a":"\uD83D\uDE00\ud8`, `{"a":{}}}`, `{"a" : -1.5e3 , "b":true}`, "{\"\xff\":1}", `{"s":1,"ſ":2}`, `{"":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, members, err := jose.ParseObject(nil, data)
		var theirs map[string]json.RawMessage
		wrong := json.Unmarshal(data, &theirs)
		valid := wrong == nil && theirs != nil && utf8.Valid(data)
		if bytes.ContainsRune(data, utf8.RuneError) || bytes.Contains(bytes.ToLower(data), []byte(`\ufffd`)) {
			valid = valid && err == nil // encoding/json hides a half of a surrogate behind it
		}
		again := valid && repeats(json.NewDecoder(bytes.NewReader(data)))
		if want := valid && !again && !half(data); (err == nil) != want {
			t.Fatalf("%q: %v, encoding/json: %v, a name occurs twice: %t", data, err, wrong, again)
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

// half reports whether a string of data has a surrogate without its other half, which
// encoding/json replaces.
func half(data []byte) bool {
	if bytes.ContainsRune(data, utf8.RuneError) || bytes.Contains(bytes.ToLower(data), []byte(`\ufffd`)) {
		return false
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	_ = d.Decode(&v)
	return bytes.ContainsRune(must(json.Marshal(v)), utf8.RuneError)
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
