package jose_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/usher-go/usher/internal/jose"
)

// Whatever byte stands at a place where the syntax distinguishes bytes, ParseObject
// accepts the text if encoding/json does, except for invalid UTF-8.
func TestEveryByteIsAcceptedWhereItIsInJSON(t *testing.T) {
	for _, form := range []string{
		"%s", "%s{}", "{}%s", "{%s}", `{"a"%s:1}`, `{"a"%s1}`, `{"a":%s}`, `{"a":%s1}`, `{"a":1%s}`, `{"a":1%s"b":1}`, `{"a":1,%s}`,
		`{"%s":1}`, `{"a":"%s"}`, `{"a":"\%s"}`, `{"a":"\u%s000"}`, `{"a":"\u0%s00"}`, `{"a":"\u00%s0"}`, `{"a":"\u000%s"}`,
		`{"a":0%s}`, `{"a":-%s}`, `{"a":1.%s}`, `{"a":1.5%s}`, `{"a":1%s5}`, `{"a":1e%s}`, `{"a":1e%s5}`, `{"a":1.0E-%s}`, `{"a":-0%s1}`,
		`{"a":tru%s}`, `{"a":fals%s}`, `{"a":nul%s}`, `{"a":true%s}`, `{"a":[%s]}`, `{"a":[1%s]}`, `{"a":[1,%s]}`, `{"a":[1]%s}`, `{"a":[{}%s]}`,
		`{"a":{%s}}`, `{"a":{"b":1%s}}`, `{"a":{"b":[]%s}}`,
	} {
		for c := range 256 {
			text := fmt.Sprintf(form, string([]byte{byte(c)}))
			want := json.Valid([]byte(text)) && utf8.ValidString(text) && strings.TrimSpace(text)[0] == '{'
			if _, _, err := jose.ParseObject(nil, []byte(text)); (err == nil) != want {
				t.Errorf("%q: %v, want %t", text, err, want)
			}
		}
	}
}

func TestBothHalvesOfASurrogateAreRequired(t *testing.T) {
	for text, want := range map[string]bool{
		`\ud7ff`: true, `\ud800`: false, `\udbff`: false, `\udc00`: false, `\udfff`: false, `\ue000`: true, `\uE000`: true,
		`\ud800\udc00`: true, `\ud800\udfff`: true, `\udbff\udc00`: true, `\udbff\udfff`: true, `\uDBFF\uDFFF`: true,
		`\ud800\udbff`: false, `\ud800\ue000`: false, `\ud800\ud800`: false, `\udc00\ud800`: false, `\udc00\udc00`: false,
		`\ud800 \udc00`: false, `\ud800\ndc00`: false, `\ud800x`: false, `\ud800\u`: false, `\ud800\udc0`: false, `\ud800\udc00\udc00`: false,
		`\ud800\udc00\ud800\udc00`: true,
	} {
		for _, form := range []string{`{"a":"%s"}`, `{"%s":1}`, `{"a":["x%sx"]}`} {
			if _, _, err := jose.ParseObject(nil, fmt.Appendf(nil, form, text)); (err == nil) != want {
				t.Errorf(form+": %v", text, err)
			}
		}
	}
}

// Text that encoding/json cannot decode would fail later.
func TestContainersLieAsDeepAsInEncodingJSON(t *testing.T) {
	for _, depth := range []int{9_999, 10_000, 10_001} {
		for _, text := range []string{
			strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth),
			`{"a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}",
		} {
			if _, _, err := jose.ParseObject(nil, []byte(text)); (err == nil) != json.Valid([]byte(text)) {
				t.Errorf("%d deep: %v", depth, err)
			}
		}
	}
}
