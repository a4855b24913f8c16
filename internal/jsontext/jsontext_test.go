package jsontext_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/usher-go/usher/internal/jsontext"
)

var seeds = []string{
	"", "plain", `"quotes" and \`, "<script>&</script>", "\u2028\u2029\u202a", "\x00\b\f\n\r\t\x1f\x7f",
	"ä€😀\ufffd", "\xff\xfe", "\xe2\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\xffb\u2028",
}

func TestAppendStringAllBytes(t *testing.T) {
	for c := range 256 {
		s := "a" + string([]byte{byte(c)}) + "b"
		check(t, s)
	}
	for r := range rune(0x3000) {
		check(t, string(r))
	}
}

func FuzzAppendString(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		check(t, s)
		check(t, strings.ToValidUTF8(s, "?"))
		// Pieces that end between runes make the whole.
		half := len(s) / 2
		for half > 0 && !utf8.RuneStart(s[half]) {
			half--
		}
		whole := jsontext.AppendEscaped(nil, s)
		if utf8.ValidString(s) {
			pieces := jsontext.AppendEscaped(jsontext.AppendEscaped(nil, s[:half]), s[half:])
			if string(pieces) != string(whole) {
				t.Errorf("pieces of %q: %s, want %s", s, pieces, whole)
			}
		}
	})
}

// check compares with encoding/json.
func check(t *testing.T, s string) {
	t.Helper()
	want, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if got := jsontext.AppendString([]byte("x"), s); string(got) != "x"+string(want) {
		t.Errorf("%q: %s, want %s", s, got[1:], want)
	}
}

func TestAppendStringAllocatesNothing(t *testing.T) {
	b := make([]byte, 0, 256)
	s := strings.Join(seeds, "")
	if n := testing.AllocsPerRun(100, func() { b = jsontext.AppendString(b[:0], s) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppendString(b *testing.B) {
	s := strings.Repeat("The credential lacks a scope. ", 4)
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = jsontext.AppendString(buf[:0], s)
	}
}
