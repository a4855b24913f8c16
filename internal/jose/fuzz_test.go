package jose_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/usher-go/usher/internal/jose"
)

// FuzzObject compares the members of an object with those that encoding/json
// finds.
func FuzzObject(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"a":1,"A":2}`, `{"a":{"b":"}"},"c":["\"]"]}`, `{"\u0061":"\ud83d\ude00"}`,
		`{"a":"\ud800"}`, `[1]`, `null`, `{"a":1} x`, `{"a" : -1.5e3 , "b":true}`, "{\"\xff\":1}", `{"s":1,"ſ":2}`, `{"":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, members, err := jose.ParseObject(nil, data)
		var theirs map[string]json.RawMessage
		wrong := json.Unmarshal(data, &theirs)
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
