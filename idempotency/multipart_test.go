package idempotency_test

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// form returns a form with a new boundary, as a client builds it for each attempt, of
// fields and files: each file has an equals sign in its name.
func form(tb testing.TB, fields ...[2]string) func(*http.Request) {
	tb.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, f := range fields {
		name, file, isFile := strings.Cut(f[0], "=")
		part, err := w.CreateFormField(name)
		if isFile {
			part, err = w.CreateFormFile(name, file)
		}
		if err != nil {
			tb.Fatal(err)
		}
		_, _ = io.WriteString(part, f[1])
	}
	_ = w.Close()
	return raw(w.FormDataContentType(), b.String())
}

// twoTypes adds another Content-Type, which leaves it open what the body is.
func twoTypes(body func(*http.Request)) func(*http.Request) {
	return func(r *http.Request) {
		body(r)
		r.Header.Add("Content-Type", "text/plain")
	}
}

// raw sets the body and its type.
func raw(contentType, text string) func(*http.Request) {
	return func(r *http.Request) {
		body(text)(r)
		r.Header.Set("Content-Type", contentType)
	}
}

// A form that is built again is the same request if its parts are the same.
func TestAFormCountsByItsParts(t *testing.T) {
	const mixed = "multipart/mixed; boundary=b"
	const whole = "--b\r\nA: 1\r\n\r\nx\r\n--b--\r\n"
	original := form(t, [2]string{"amount", "7"}, [2]string{"file=a.txt", "text"})
	for _, c := range []struct {
		name         string
		first, retry func(*http.Request)
		same         bool
	}{
		{"built again", original, form(t, [2]string{"amount", "7"}, [2]string{"file=a.txt", "text"}), true},
		{"another value", original, form(t, [2]string{"amount", "8"}, [2]string{"file=a.txt", "text"}), false},
		{"another file", original, form(t, [2]string{"amount", "7"}, [2]string{"file=a.txt", "test"}), false},
		{"another name of the file", original, form(t, [2]string{"amount", "7"}, [2]string{"file=b.txt", "text"}), false},
		{"another order", original, form(t, [2]string{"file=a.txt", "text"}, [2]string{"amount", "7"}), false},
		{"a part more", original, form(t, [2]string{"amount", "7"}, [2]string{"file=a.txt", "text"}, [2]string{"amount", "7"}), false},
		{"one part for two", form(t, [2]string{"a", "1"}, [2]string{"a", "2"}), form(t, [2]string{"a", "12"}), false},
		{"one part with the bytes of two", raw(mixed, "--b\r\n\r\nab\r\n--b\r\n\r\nc\r\n--b--"), raw(mixed, "--b\r\n\r\nab\r\n\r\nc\r\n--b--"), false},
		{"one part that ends as two do", raw(mixed, "--b\r\n\r\nab\r\n--b\r\n\r\nc\r\n--b--"), raw(mixed, "--b\r\n\r\nab\r\nc\r\n--b--"), false},
		{"without parts", form(t), form(t), true},
		{"an empty part", form(t, [2]string{"a", ""}), form(t, [2]string{"a", ""}), true},
		{"an empty part or none", form(t, [2]string{"a", ""}), form(t), false},
		{"a value like a delimiter", form(t, [2]string{"a", "--b\r\n"}), form(t, [2]string{"a", "--b\r\n"}), true},

		{"another boundary", raw(mixed, whole), raw("Multipart/Mixed; boundary=\"c d\"", strings.ReplaceAll(whole, "--b", "--c d")), true},
		{"another type", raw(mixed, whole), raw("multipart/related; boundary=b", whole), false},
		{"the same bytes with another boundary", raw(mixed, whole+"--c"), raw("multipart/mixed; boundary=c", whole+"--c"), false},
		{"the same bytes without a boundary", raw(mixed, whole), raw("multipart/mixed", whole), false},
		{"the boundary of another body", raw("multipart/mixed; boundary=x", whole), raw("multipart/mixed; boundary=y", whole), false},
		{"another boundary, and two types", twoTypes(raw(mixed, whole)), twoTypes(raw("multipart/mixed; boundary=c", strings.ReplaceAll(whole, "--b", "--c"))), false},
		{"no multipart at all", raw("multipart/mixed; boundary=x", "text"), raw("multipart/mixed; boundary=x", "text"), true},
		{"the encoding of its parts as a body", raw(mixed, "--b\r\n\r\n--b--"), raw("text/plain", "\x01\x00\x00\x00"), false},
		{"text in front", raw(mixed, "to\r\n"+whole), raw(mixed, "ot\r\n"+whole), false},
		{"text behind", raw(mixed, whole+"to"), raw(mixed, whole+"ot"), false},
		{"another type is compared by its bytes", raw("text/plain; boundary=b", whole), raw("text/plain; boundary=c", strings.ReplaceAll(whole, "--b", "--c")), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := new(counting)
			h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
			first := do(h, post("/", "", c.first))
			if w := do(h, post("/", "", c.retry)); c.same {
				wantReplay(t, w, first)
			} else {
				wantFailure(t, w, 422, usher.CodeIdempotencyKeyReused)
			}
			calls.want(t, 1)
		})
	}
}

// What is split has the parts that mime/multipart finds, and nothing that it could read
// differently with another boundary.
func FuzzSplitMultipart(f *testing.F) {
	for _, s := range []string{
		"--b\r\nA: 1\r\n\r\nx\r\n--b--\r\n", "--b--", "\r\n--b--\r\n", "--b\r\n\r\n\r\n--b--", "--b\n\nx\n--b--\n", "--b \r\n\r\nx\r\n--b--",
		"--b\r\n\r\nx\r\n--b \r\n\r\ny\r\n--b--", "--b\r\n\r\n--bx\r\n--b--", "--b\r\n\r\nx\r\n--b-\r\n--b--", "to\r\n--b\r\n\r\n\r\n--b--behind",
		"to\n--b\n\r\n--b\r\n\r\nx\r\n--b--", "--b\r\nA: 1\r\n\r\n--b--", "--b\r\n--b--", "--b\r\n\r\nx\r\n--b", "--b\r\n\r\nx--b--",
		"--b\r\n\r\nx\r\n--b--\r\n--b", "to--b\r\n\r\n\r\n--b--",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pieces, ok := idempotency.SplitMultipart([]byte(s), "b")
		if !ok {
			return
		}
		if n := strings.Count(s, "--b"); n != len(pieces)-1 {
			t.Fatalf("%q: %d pieces around %d delimiters", s, len(pieces), n)
		}
		parts := multipart.NewReader(strings.NewReader(s), "b")
		for i := 1; ; i++ {
			part, err := parts.NextRawPart()
			if errors.Is(err, io.EOF) {
				if i != len(pieces)-1 {
					t.Errorf("%q: %d parts, want %d", s, i-1, len(pieces)-2)
				}
				return
			}
			if err != nil {
				return // a header that is none
			}
			text, err := io.ReadAll(part)
			if err != nil || i >= len(pieces)-1 || !bytes.HasSuffix(pieces[i], text) {
				t.Fatalf("%q: part %d of %q is %q, %v", s, i, pieces, text, err)
			}
		}
	})
}
