package idempotency_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// textOf returns the text of a key in a header field by an independent parser of
// structured fields, or false if it is no key.
func textOf(field string) (string, bool) {
	text := field
	if strings.HasPrefix(field, `"`) {
		item, err := httpsfv.UnmarshalItem([]string{field})
		value, isString := item.Value.(string)
		// Values are trimmed by the server, and parameters have no meaning.
		if err != nil || !isString || field != strings.Trim(field, " ") {
			return "", false
		}
		return value, len(value) >= 1 && len(value) <= 255
	}
	visible := !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
	return text, visible && len(text) >= 1 && len(text) <= 255
}

// quote returns text as a String of RFC 9651.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// FuzzKeys sends requests with any key. What an independent parser takes for a key
// is run, everything else refused; and the same text is the same key, raw or
// quoted.
func FuzzKeys(f *testing.F) {
	for _, s := range []string{
		`"a b"`, `" "`, `"a";b=1;c=-1.5; d="x\"y";e=?0;*f=:aGk=:;g=@7;h=a/b;i=%"%c3%bc"`, `"a"; `, `"a" ;b`, `"a";b=`, `"a";B`,
		`"a";b=1.`, `"a";b=?2`, `"a", "b"`, `"a";b=:a:`, `"a";b=1234567890123456`, `"a";b=-`, `"a";b="`, "\"a\tb\"", `"a";b=%"%c3"`,
		`"a";b=%"%C3%BC"`, `"a";b=%"`, `"a";b=%`, `"a";b=:aG\nk=:`, `"a";b=1234567890123.5`, `"a";b=1.2345`, `"a";b=@1.5`, `"a";b=%"%`,
		"a", `"a"`, `"a\"b"`, `"a\\"`, `""`, `"`, `"a`, `a"`, `"a" `, `"a";b`, "a b", "\x7f", "ü", strings.Repeat("k", 256), `"\a"`, `"a"b"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		m, err := idempotency.New(idempotency.Config{})
		if err != nil {
			t.Fatal(err)
		}
		runs := 0
		h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			runs++
			_, _ = io.WriteString(w, "done")
		}))
		send := func(key string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
			r.Header["Idempotency-Key"] = []string{key}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, usher.WithPrincipal(r, &usher.Principal{ID: "ann", Kind: usher.KindAPIKey}))
			return w
		}
		text, ok := textOf(field)
		if w := send(field); (w.Code == http.StatusOK) != ok || (runs == 1) != ok || !ok && w.Code != http.StatusBadRequest {
			t.Fatalf("%q: status %d after %d runs; the parser finds a key: %t", field, w.Code, runs, ok)
		}
		if !ok {
			return
		}
		for _, spelling := range []string{field, quote(text), quote(text) + `;p="q"`} {
			if w := send(spelling); w.Code != http.StatusOK || w.Header().Get("Idempotency-Replayed") != "true" || runs != 1 {
				t.Errorf("%q after %q: status %d, replayed %q, %d runs", spelling, field, w.Code, w.Header().Get("Idempotency-Replayed"), runs)
			}
		}
	})
}
