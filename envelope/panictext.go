package envelope

import (
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"strings"
)

// maxPanicText is the length of the longest text of a panic in the log.
const maxPanicText = 1 << 10

// panicText returns the text of v if v is an error, a string or a number, without what may
// be a credential in it. The fields of another value may be anything, so only its type is
// shown.
func panicText(v any) (text string) {
	switch rv := reflect.ValueOf(v); {
	case isFault(rv.Type()):
		return v.(error).Error() // holds no data of the request
	case rv.Type().Implements(reflect.TypeFor[error]()):
		try(func() { text = v.(error).Error() })
	case rv.Kind() == reflect.String:
		text = rv.String()
	case rv.CanInt() || rv.CanUint() || rv.CanFloat():
		text = fmt.Sprint(v)
	}
	if len(text) > maxPanicText {
		text = lastWord.ReplaceAllString(cut(text, maxPanicText), "") // a part of a credential, perhaps
	}
	if text == "" {
		return fmt.Sprintf("%T", v)
	}
	text = longWord.ReplaceAllStringFunc(strings.ToValidUTF8(text, "\uFFFD"), redact)
	return byteList.ReplaceAllString(text, redacted)
}

// isFault reports whether t is an error of the runtime, and not one of a program that has
// its methods.
func isFault(t reflect.Type) bool {
	if !t.Implements(reflect.TypeFor[runtime.Error]()) {
		return false
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath() == "runtime"
}

const redacted = "REDACTED"

var (
	// Words may be credentials, as they are or in the syntax of JSON, URLs or Go.
	longWord = regexp.MustCompile(`[\w.+/=~%\\-]{16,}`)
	lastWord = regexp.MustCompile(`[\w.+/=~%\\-]+$`)
	// byteList matches eight bytes or more, as package fmt prints those of a key.
	byteList = regexp.MustCompile(`(?i)\b(?:(?:0x)?[0-9a-f]{1,3}(?:, |[ ,:])){7,}(?:0x)?[0-9a-f]{1,3}\b`)
)

// redact returns w, or redacted if w may be a credential: those have at least 16
// characters, hardly ever without a digit if they are so short. Base64 may contain slashes
// as a path does, but with them nearly always both a digit and a capital.
func redact(w string) string {
	digit := strings.ContainsAny(w, "0123456789")
	switch {
	case strings.Contains(w, "/") && (!digit || strings.ToLower(w) == w):
		parts := strings.Split(w, "/")
		for i := range parts {
			parts[i] = redact(parts[i])
		}
		return strings.Join(parts, "/")
	case len(w) >= 24, len(w) >= 16 && digit:
		return redacted
	}
	return w
}
